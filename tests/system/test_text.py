import json
import unicodedata

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

import asr
from asr.corpora.kaldi import load_kaldi
from asr.corpora.librispeech import load_librispeech
from asr.data.index import index_manifest
from asr.data.manifest import read_manifest
from asr.decode.lexicon import Lexicon, parse_hotwords
from asr.errors import InputError
from asr.labels import Labels
from asr.lm.ngram import NGram
from asr.lm.text import read_sentences
from asr.score.read import match, read_transcripts
from asr.system import text as reading
from asr.system.text import decoded, plain_words, read_text, without_punctuation

COMPOSED, SPLIT = "café", "cafe\u0301"
BOM = b"\xef\xbb\xbf"


@pytest.mark.parametrize(
    ("said", "plain"),
    [
        ('"Don\'t," she said: -- "a cut-off at 5 p.m.?"', "don't she said a cut off at 5 pm"),
        ("“Don’t,” she said — ‘stop’ …", "don't she said stop"),
        ("'Yes, isn't it?' he said. 'No.'", "yes isn't it he said no"),
        ("the dogs' bowl, get 'em", "the dogs' bowl get 'em"),
        ("wait...what? one,two and/or", "wait what one two and or"),
        ("10:30 for $1,204.50, 50%.", "10 30 for $1204.50 50%"),
        ("<unk> said: <b>", "<unk> said <b>"),
        ("日本、語。 हिन्दी में।", "日本語 हिन्दी में"),
        ("co\u00adoperate " + SPLIT.upper(), "cooperate " + COMPOSED),
        (" - ' -- ", ""),
    ],
)
def test_plain_words(said, plain):
    assert plain_words(said) == plain


@given(st.text())
def test_plain_words_are_single_spaced_letters_of_the_text(said):
    plain = plain_words(said)
    assert plain == " ".join(plain.split())
    marks = [c for c in plain if unicodedata.category(c)[0] == "P"]
    assert set(marks) <= set("'.%<>-_‰°")


def test_what_is_kept_stays():
    assert without_punctuation("{ a, / @ } (uh).", "{}/()@").split() == "{ a / @ } (uh)".split()


@given(st.text().filter(lambda text: "\r" not in text and not text.startswith("\ufeff")))
def test_marks_of_the_file_are_no_text(said):
    text = unicodedata.normalize("NFC", said)
    for content in (said, "\ufeff" + said, said.replace("\n", "\r\n")):
        assert decoded("x", content.encode()) == text


def test_what_is_not_utf8_is_told_with_its_line(tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes(b"one\ntwo \xe9\n")
    with pytest.raises(InputError, match=r"latin\.txt:2: is not UTF-8 text \(byte 8 "):
        read_text(path)
    with pytest.raises(InputError, match=r"no: cannot be read \(No such file"):
        read_text(tmp_path / "no")


def test_devices_without_end_are_refused(monkeypatch):
    monkeypatch.setattr(reading, "MOST_PIPED", 1000)
    with pytest.raises(InputError, match="/dev/zero: is not a file, and gives more than"):
        read_text(reading.Path("/dev/zero"))
    assert read_text(reading.Path("/dev/null")) == ""


def windows(text):
    """As editors of Windows and macOS may save it."""
    return BOM + unicodedata.normalize("NFD", text).replace("\n", "\r\n").encode()


def test_transcripts_of_either_form_are_equal(tmp_path):
    ours = tmp_path / "ref.trn"
    ours.write_text(f"a {COMPOSED} (é-1)\n", encoding="utf-8")
    for name, content in (
        ("hyp.trn", windows(f"a {COMPOSED} (é-1)\n")),
        ("text", windows(f"é-1 a {COMPOSED}\n")),
        ("hyp.jsonl", json.dumps({"id": "e\u0301-1", "text": f"a {SPLIT}"}).encode()),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        matched = match(read_transcripts(ours), read_transcripts(path, hypothesis=True))
        ((said, heard),) = matched.pairs
        assert said.text.split() == heard.text.split() == ["a", COMPOSED]
    assert asr.score(COMPOSED, SPLIT).error_rate == 0


def test_manifests_are_composed_but_for_names_of_files(tmp_path):
    path = tmp_path / "train.jsonl"
    record = {"id": "e\u0301", "audio_filepath": "e\u0301.wav", "duration": 1, "text": SPLIT}
    record |= {"words": [SPLIT], "phones": [["e\u0301", 0, 1]], "speaker": "e\u0301"}
    for escaped in (True, False):
        path.write_bytes(BOM + json.dumps(record, ensure_ascii=escaped).encode() + b"\r\n")
        indexed = index_manifest(path)
        for utterance in (*read_manifest(path), *indexed):
            assert (utterance.id, utterance.text, utterance.speaker) == ("é", COMPOSED, "é")
            assert (utterance.words[0].label, utterance.phones[0].label) == (COMPOSED, "é")
            assert utterance.audio.name == "e\u0301.wav"
        assert indexed.columns.words == {COMPOSED}
        assert indexed.columns.phones == indexed.columns.speakers == {"é"}


def sound(path):
    path.parent.mkdir(parents=True)
    soundfile.write(path, np.zeros(800), 16000)


def test_corpora_are_composed_but_for_names_of_files(tmp_path):
    name = "e\u0301"
    sound(tmp_path / "kaldi" / f"{name}.wav")
    (tmp_path / "kaldi/wav.scp").write_bytes(BOM + f"{name} {name}.wav\r\n".encode())
    (tmp_path / "kaldi/text").write_bytes(f"é a {SPLIT}\r\n".encode())
    (utterance,) = load_kaldi(tmp_path / "kaldi", list).sets["kaldi"]
    assert (utterance.id, utterance.text) == ("é", f"a {COMPOSED}")
    chapter = tmp_path / "libri/dev/1/2"
    sound(chapter / f"{name}.wav")
    (chapter / "1-2.trans.txt").write_bytes(windows(f"é A {COMPOSED}\n"))
    (utterance,) = load_librispeech(tmp_path / "libri", list).sets["dev"]
    assert (utterance.id, utterance.text) == ("é", f"a {COMPOSED}")


def test_language_models_lexicons_and_hotwords_are_composed(tmp_path):
    text, lexicon, arpa = (tmp_path / name for name in ("text.txt", "lexicon.txt", "lm.arpa"))
    text.write_bytes(windows(f"{COMPOSED} oui\n"))
    assert read_sentences(text, "word") == [[COMPOSED, "oui"]]
    NGram.estimate([[SPLIT, "oui"]], 2).write_arpa(arpa)
    arpa.write_bytes(windows(arpa.read_text(encoding="utf-8")))
    assert COMPOSED in NGram.read_arpa(arpa).tokens
    lexicon.write_bytes(windows(f"{COMPOSED} a\n"))
    assert Lexicon.read(lexicon, Labels("phone", ("<blank>", "a"))).words == (COMPOSED,)
    assert parse_hotwords([f"{SPLIT}:2"]) == {(COMPOSED,): 2.0}
