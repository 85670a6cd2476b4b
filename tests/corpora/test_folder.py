"""Folders of recordings with text beside them, as phoneticians have them, good and bad."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from praatio import textgrid
from pympi import Elan
from running import asr

from asr.corpora import Own, load_corpus
from asr.corpora.own.config import shares_of
from asr.corpora.own.split import drawn
from asr.data.manifest import read_manifest
from asr.errors import InputError
from asr.recognize.transcripts import FORMATS
from asr.types import Segment, Transcript

WORDS = (("the", 0.2, 0.4), ("café", 0.5, 0.9), ("sat", 0.9, 1.2))
ONE_SET = Own(shares=(1.0,))


def sound(path, seconds=2.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(-999, 999, int(8000 * seconds)).astype(np.int16)
    soundfile.write(path, noise, 8000)
    return path


def grid(path, tiers, seconds=2.0, encoding="utf-8", format="long_textgrid"):
    """A TextGrid by praatio, which refuses what overlaps: that is written by hand."""
    found = textgrid.Textgrid(0, seconds)
    for name, intervals in tiers.items():
        entries = [(start, end, label) for label, start, end in intervals]
        found.addTier(textgrid.IntervalTier(name, entries, 0, seconds))
    found.save(str(path), format=format, includeBlankSpaces=True)
    path.write_bytes(path.read_text(encoding="utf-8").encode(encoding))


def load(root, **how):
    return load_corpus("folder", root, own=Own(**{"shares": (1.0,)} | how))


def only(corpus):
    (utterances,) = corpus.sets.values()
    return utterances


def test_plain_text_beside_audio(tmp_path):
    for speaker in ("anna", "bert", "carl", "dora"):
        for number, suffix in enumerate((".txt", ".lab", ".TXT")):
            sound(tmp_path / speaker / "day one" / f"u{number}.wav", 1 + number)
            text = tmp_path / speaker / "day one" / f"u{number}{suffix}"
            text.write_text("  He said:\n“Yes”  \n", encoding="utf-16" if number == 1 else "utf-8")
    corpus = load_corpus("folder", tmp_path)
    assert list(corpus.sets) == ["train", "dev", "test"]
    assert [len(us) for us in corpus.sets.values()] == [6, 3, 3]
    speakers = [{u.speaker for u in us} for us in corpus.sets.values()]
    assert set.union(*speakers) == {"anna", "bert", "carl", "dora"}
    assert sum(map(len, speakers)) == 4
    utterance = corpus.sets["dev"][0]
    assert utterance.id == f"{utterance.speaker}_day_one_u0"
    assert (utterance.text, utterance.duration_s, utterance.words) == ("He said: “Yes”", 1.0, None)
    assert "the speaker is the folder's name: 12 files" in corpus.audit.notes
    again = load_corpus("folder", tmp_path, own=Own(seed=3)).sets
    assert {u.speaker for u in again["test"]} != {u.speaker for u in corpus.sets["test"]}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be-bom", "latin-1"])
@pytest.mark.parametrize("format", ["long_textgrid", "short_textgrid"])
def test_textgrids_in_every_encoding_of_praat(tmp_path, encoding, format):
    sound(tmp_path / "a.wav")
    phones = [("dh", 0.2, 0.3), ("ah", 0.3, 0.4), ("k", 0.5, 0.9), ("s", 0.95, 1.2)]
    grid(tmp_path / "a.TextGrid", {"words": WORDS, "phones": phones}, format=format)
    text = (tmp_path / "a.TextGrid").read_text(encoding="utf-8")
    if encoding == "utf-16-be-bom":
        content = b"\xfe\xff" + text.encode("utf-16-be")
    else:
        content = text.encode(encoding)
    (tmp_path / "a.TextGrid").write_bytes(content)
    corpus = load(tmp_path)
    (utterance,) = only(corpus)
    assert utterance.text == "the café sat"
    assert utterance.words == tuple(Segment(*word) for word in WORDS)
    # Silence is where no phone is, but not within a word.
    assert utterance.phones == (
        Segment("sil", 0.0, 0.2),
        *(Segment(*phone) for phone in phones[:2]),
        Segment("sil", 0.4, 0.5),
        *(Segment(*phone) for phone in phones[2:]),
        Segment("sil", 1.2, 2.0),
    )
    told = "tier 'words' is the text (by its name; --tier tells another), tier 'phones' the phones"
    assert f"{told}: 1 files" in corpus.audit.notes


def test_tiers_are_told_or_guessed(tmp_path):
    sound(tmp_path / "a.wav")
    tiers = {
        "notes": [("x", 0.0, 1.0)],
        "Ortho": [("the cat sat", 0.2, 1.0), ("on the mat", 1.2, 1.9)],
        "SEG": [("dh", 0.2, 0.3)],
    }
    grid(tmp_path / "a.TextGrid", tiers)
    guessed = load(tmp_path)
    assert [(u.id, u.offset_s, u.duration_s, u.text) for u in only(guessed)] == [
        ("a-0000200", 0.2, 0.8, "the cat sat"),
        ("a-0001200", 1.2, 0.7, "on the mat"),
    ]
    assert any("'Ortho' is the text (guessed" in note for note in guessed.audit.notes)
    told = only(load(tmp_path, tier="notes", phones="seg"))
    assert [(u.text, u.phones[1]) for u in told] == [("x", Segment("dh", 0.2, 0.3))]
    with pytest.raises(InputError, match=r"no tier 'wrods' .*; it has 'notes', 'Ortho', 'SEG'"):
        load(tmp_path, tier="wrods")


def test_a_tier_for_each_speaker(tmp_path):
    sound(tmp_path / "talk.wav")
    tiers = {
        "anna - words": [("hello", 0.1, 0.5), ("you", 0.5, 0.8)],
        "bert - words": [("good day", 1.0, 1.5)],
    }
    grid(tmp_path / "talk.TextGrid", tiers)
    assert [(u.id, u.speaker, u.text, u.words) for u in only(load(tmp_path))] == [
        ("talk-anna", "anna", "hello you", (Segment("hello", 0.1, 0.5), Segment("you", 0.5, 0.8))),
        ("talk-bert-0001000", "bert", "good day", None),
    ]
    assert [u.speaker for u in only(load(tmp_path, tier="bert - words"))] == ["bert"]


def test_long_recordings_of_words_are_cut_at_pauses(tmp_path):
    sound(tmp_path / "a.wav", 60)
    said = [(f"w{n}", n * 0.5 + (n >= 40) * 2 + (n >= 90) * 0.2, n * 0.5 + 0.4) for n in range(110)]
    said = [(label, start, start + 0.4) for label, start, _ in said]
    grid(tmp_path / "a.TextGrid", {"words": said}, 60)
    utterances = only(load(tmp_path))
    assert len(utterances[0].words) == 40
    assert " ".join(u.text for u in utterances).split() == [label for label, *_ in said]
    assert all(u.duration_s <= 21 for u in utterances)
    first_words = [u.words[0].label for u in utterances]
    assert {"w40", "w90"} <= set(first_words)
    for utterance in utterances:
        starts = {label: start for label, start, _ in said}
        for word in utterance.words:
            assert abs(utterance.offset_s + word.start_s - starts[word.label]) < 1e-5
    ends = [u.offset_s + u.duration_s for u in utterances]
    assert all(end <= u.offset_s + 1e-6 for end, u in zip(ends, utterances[1:], strict=False))


def test_elan(tmp_path):
    sound(tmp_path / "a.wav")
    segments = tuple(Segment(*word) for word in WORDS)
    written = FORMATS["eaf"].write(Transcript("a", "", 2.0, 0.0, (), segments, unit="phone"))
    (tmp_path / "a.eaf").write_text(written, encoding="utf-8")
    (utterance,) = only(load(tmp_path))
    assert utterance.words == segments
    document = Elan.Eaf()
    document.remove_tier("default")
    for speaker in ("A", "B"):
        document.add_linguistic_type("utt")
        document.add_tier(f"tx@{speaker}", "utt", part={"A": "anna", "B": None}[speaker])
        document.add_annotation(f"tx@{speaker}", 500, 1500, f"hello from {speaker}")
    sound(tmp_path / "b.wav")
    document.to_file(str(tmp_path / "b.eaf"))
    said = {u.id: (u.speaker, u.text, u.offset_s, u.duration_s) for u in only(load(tmp_path))}
    assert said["b-anna-0000500"] == ("anna", "hello from A", 0.5, 1.0)
    assert said["b-B-0000500"] == ("B", "hello from B", 0.5, 1.0)
    by_type = load(tmp_path, tier="utt")
    assert {u.text for u in only(by_type)} == {"hello from A", "hello from B"}
    assert list(by_type.audit.corrupt) == [f"{tmp_path}/a.eaf"]


def test_elan_without_time_slots(tmp_path):
    for name in ("a", "b"):
        sound(tmp_path / f"{name}.wav")
        document = Elan.Eaf()
        document.add_annotation("default", 100, 500, "one")
        document.add_annotation("default", 500, 900, "two words")
        if name == "a":
            document.timeslots = dict.fromkeys(document.timeslots)
        else:
            document.timeslots[document.tiers["default"][0]["a2"][1]] = None
            document.timeslots[document.tiers["default"][0]["a3"][0]] = None
        document.to_file(str(tmp_path / f"{name}.eaf"))
    corpus = load(tmp_path)
    # Words that share a stretch without inner borders are one text.
    (utterance,) = only(corpus)
    assert (utterance.text, utterance.offset_s, utterance.duration_s) == ("one two words", 0.1, 0.8)
    assert corpus.audit.corrupt == {f"{tmp_path}/a.eaf (tier default, interval 1)": "has no time"}
    (tmp_path / "a.eaf").write_text("<ANNOTATION_DOCUMENT/>")
    (tmp_path / "b.eaf").write_text("not XML")
    with pytest.raises(InputError, match=r"no usable utterance .*cannot be read as \.eaf"):
        load(tmp_path)


def test_ctm_and_subtitles(tmp_path):
    for name in "abc":
        sound(tmp_path / f"{name}.wav")
    (tmp_path / "a.ctm").write_text(";; words\na 1 0.2 0.2 the 0.9\na 1 0.5 0.4 café\n")
    (tmp_path / "b.srt").write_text(
        "1\n00:00:00,100 --> 00:00:00,900\n<i>The café</i>\nis open\n\n"
        "2\n00:00:01,000 --> 00:00:01,500\nNow & here\n\n"
    )
    (tmp_path / "c.vtt").write_text(
        "WEBVTT\n\n00:00.100 --> 00:00.900\n<v Ann B>Tea &amp; cake\n\n"
        "00:01.000 --> 00:01.500\n<v Cy>now\n"
    )
    found = {u.id: (u.speaker, u.text, u.offset_s, u.words) for u in only(load(tmp_path))}
    assert found == {
        "a": ("a", "the café", 0.0, (Segment("the", 0.2, 0.4), Segment("café", 0.5, 0.9))),
        "b-0000100": ("b", "The café is open", 0.1, None),
        "b-0001000": ("b", "Now & here", 1.0, None),
        "c-Ann_B-0000100": ("Ann B", "Tea & cake", 0.1, None),
        "c-Cy-0001000": ("Cy", "now", 1.0, None),
    }


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.ctm", "a 1 0 x the\n", "a.ctm:1: expected 'file channel start duration word'"),
        ("a.ctm", "a 1 0 1 x\na 2 0 1 y\n", "a.ctm:2: is of a 2, the lines above of a 1"),
        ("a.srt", "1\n00:00:01,000 --> 00:00:02,000\nx\n\n00:0 --> y\n\n", "of 2 cues, 1 are malf"),
        ("a.vtt", "no header\n", "cannot be read as .vtt"),
        ("a.TextGrid", "nothing of the kind", "cannot be read as .TextGrid"),
        ("a.TextGrid", "ooBinaryFile\x08TextGrid", "is a binary TextGrid; save it as text"),
        ("a.lab", "0 1000 sil\n1000 2000 aa\n", "holds HTK's labels with times"),
        ("a.txt", " \n", "holds no text"),
        ("a.txt", "the\x00cat", "holds a control character ('\\x00') amid 'the"),
    ],
)
def test_bad_files_are_named_and_the_rest_goes_on(tmp_path, name, content, reason):
    for stem in ("a", "good"):
        sound(tmp_path / f"{stem}.wav")
    (tmp_path / name).write_text(content)
    (tmp_path / "good.txt").write_text("fine")
    corpus = load(tmp_path)
    assert [u.id for u in only(corpus)] == ["good"]
    ((path, found),) = corpus.audit.corrupt.items()
    assert path == str(tmp_path / name)
    assert reason in f"{name}: {found}" or reason in found
    assert (corpus.audit.found, corpus.audit.used) == (2, 1)


def overlapping(tmp_path, intervals, name="words"):
    lines = [f'{start}\n{end}\n"{label}"' for label, start, end in intervals]
    head = 'File type = "ooTextFile"\nObject class = "TextGrid"\n\n0\n2\n<exists>\n1\n'
    body = "\n".join(lines)
    return f'{head}"IntervalTier"\n"{name}"\n0\n2\n{len(lines)}\n{body}\n'


def test_intervals_that_overlap_or_are_empty(tmp_path):
    sound(tmp_path / "a.wav")
    said = [
        ("one two", 0.0, 0.5),
        ("three four", 0.4, 0.8),
        ("five six", 1.0, 1.0),
        ("", 1.0, 1.2),
        ("seven eight", 1.2, 1.6),
        ("nine ten", 1.599, 1.8),
        ("far away", 7.0, 8.0),
    ]
    (tmp_path / "a.TextGrid").write_text(overlapping(tmp_path, said, "x"))
    corpus = load(tmp_path)
    assert [u.text for u in only(corpus)] == ["one two", "seven eight", "nine ten"]
    grid_path = f"{tmp_path}/a.TextGrid"
    assert corpus.audit.corrupt == {
        f"{grid_path} (tier x, interval 2)": "begins at 0.400 s, before the one before it ends "
        "(0.500 s)",
        f"{grid_path} (tier x, interval 3)": "goes from 1 s to 1 s",
        f"{tmp_path}/a.wav (a-0007000)": "the utterance ends at 8.000 s, the audio at 2.000 s",
    }
    assert (corpus.audit.found, corpus.audit.used) == (6, 3)
    # A word that cannot be placed spoils the utterance that it is part of.
    (tmp_path / "a.TextGrid").write_text(
        overlapping(tmp_path, [("a", 0, 0.5), ("b", 0.2, 0.8), ("c", 0.8, 0.9)])
    )
    with pytest.raises(InputError, match=r"interval 1\): begins at 0.200 s"):
        load(tmp_path)


def test_texts_and_audio_without_each_other(tmp_path):
    for name in ("a.wav", "a.flac", "b.wav", ".hidden.wav"):
        sound(tmp_path / name)
    for name in ("a.lab", "a.txt", "c.txt", ".hidden.txt", "._a.txt"):
        (tmp_path / name).write_text(name)
    (tmp_path / "notes.md").touch()
    audit = load(tmp_path).audit
    assert {Path(p).name: reason for p, reason in audit.stray.items()} == {
        "a.flac": "the same recording as a.wav, which counts",
        "a.txt": "a second text beside a.lab, which counts",
        "c.txt": "text without audio beside it",
    }
    assert [Path(p).name for p in audit.missing] == ["b.wav"]
    (tmp_path / "a.lab").unlink()
    (tmp_path / "a.txt").unlink()
    with pytest.raises(InputError, match=r"no audio with text beside it; 2 files like .*a\.wav"):
        load(tmp_path)


def test_folders_called_like_sets_are_sets(tmp_path):
    for name in ("Train", "validation", "test", "other"):
        sound(tmp_path / name / "anna" / "u.wav")
        (tmp_path / name / "anna" / "u.txt").write_text("hello")
    corpus = load_corpus("folder", tmp_path)
    assert {name: [u.speaker for u in us] for name, us in corpus.sets.items()} == {
        "train": ["anna"],
        "dev": ["anna"],
        "test": ["anna"],
    }
    assert list(corpus.audit.dropped.values()) == [1]
    assert len(only(load(tmp_path))) == 4


def test_speakers_by_name(tmp_path):
    for name in ("anna_1", "anna_2", "b-3"):
        sound(tmp_path / f"{name}.wav")
        (tmp_path / f"{name}.txt").write_text("hello")
    corpus = load(tmp_path, speaker="([a-z]+)_")
    assert [u.speaker for u in only(corpus)] == ["anna", "anna"]
    assert list(corpus.audit.corrupt.values()) == ["its name does not fit --speaker ([a-z]+)_"]
    assert {u.speaker for u in only(load(tmp_path, speaker="Ann"))} == {"Ann"}
    alone = load_corpus("folder", tmp_path, own=Own(speaker="Ann"))
    assert list(alone.sets) == ["train"]
    assert any("1 speakers cannot be drawn into 3 sets" in note for note in alone.audit.notes)
    assert {u.speaker for u in only(load(tmp_path))} == {"anna_1", "anna_2", "b-3"}
    for pattern, why in (("(", "is no regular expression"), ("(a)(b)", "one group, found 2")):
        with pytest.raises(InputError, match=why):
            load(tmp_path, speaker=pattern)


def test_two_recordings_of_one_name(tmp_path):
    for folder in ("a b", "a_b"):
        sound(tmp_path / folder / "u.wav")
        (tmp_path / folder / "u.txt").write_text("hello")
    corpus = load(tmp_path)
    assert [u.id for u in only(corpus)] == ["a_b_u"]
    assert "would be called a_b_u, as one of" in next(iter(corpus.audit.corrupt.values()))


@given(
    st.dictionaries(st.text(max_size=3), st.floats(0.1, 1000), min_size=3, max_size=40),
    st.integers(0, 9),
)
def test_every_set_gets_speakers_and_no_more_than_it_should(seconds, seed):
    shares = {"train": 0.8, "dev": 0.1, "test": 0.1}
    set_of = drawn(seconds, shares, seed)
    assert set_of.keys() == seconds.keys()
    assert set(set_of.values()) == {"train", "dev", "test"}
    assert set_of == drawn(
        dict(reversed(seconds.items())), {"train": 0.8, "dev": 0.1, "test": 0.1}, seed
    )
    total = sum(seconds.values())
    for name in ("dev", "test"):
        of_set = [s for speaker, s in seconds.items() if set_of[speaker] == name]
        assert len(of_set) == 1 or sum(of_set) <= 0.1501 * total


def test_shares():
    assert shares_of("80, 10,10") == (0.8, 0.1, 0.1)
    assert shares_of("100") == (1.0,)
    assert shares_of("") == ()
    for wrong in ("80", "50,50,0,0", "a", "90,10,", "-10,110"):
        with pytest.raises(InputError, match="expected percent of train, dev and test"):
            shares_of(wrong)


def test_on_the_command_line(tmp_path, monkeypatch, capsys):
    root, out = tmp_path / "rec", tmp_path / "out"
    for speaker in ("anna", "bert", "carl"):
        sound(root / f"{speaker}_1.wav")
        grid(root / f"{speaker}_1.TextGrid", {"w": WORDS})
    sound(root / "anna_2.wav")
    words = ("prepare", "folder", root, out, "--tier", "w", "--speaker", "^([a-z]+)")
    code, printed, err = asr(monkeypatch, capsys, *words)
    assert code == 0
    assert "tier 'w' is the text (told): 3 files" in printed
    assert "3 of 4 utterances are in" in printed
    assert "warning: 1 files missing" in err
    assert len(read_manifest(out / "train.jsonl")) == 1
    assert json.loads((out / "audit.json").read_text())["found"] == 4
    code, _, err = asr(monkeypatch, capsys, "prepare", "kaldi", root, out, "--tier", "w")
    assert (code, err.count("\n")) == (2, 1)
    assert "--tier" in err
