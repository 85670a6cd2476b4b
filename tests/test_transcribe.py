"""Transcribing as a user does: files of any form in, text, times and confidences out."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from running import asr

import asr as package
from asr.cli import main
from asr.errors import InputError
from asr.labels import unit_symbols
from asr.lm.ngram import NGram
from asr.manifest import read_manifest
from asr.recognizer import Recognizer


@pytest.fixture(scope="module")
def model(tone_run):
    return tone_run


@pytest.fixture(scope="module")
def said(model):
    return read_manifest(model / "manifests/test.jsonl")


def test_python_interface(model, said):
    transcript = package.Recognizer.load(model / "model").transcribe(said[0].audio)
    assert [p.label for p in transcript.labels][1:-1] == [p.label for p in said[0].phones][1:-1]


def test_times_lie_where_the_phones_are(model, said):
    recognizer = Recognizer.load(model, decoder="beam", lexicon="model")
    for utterance in said:
        transcript = recognizer.transcribe(utterance.audio)
        ends = [s.end_s for s in transcript.labels]
        assert all(0 <= s.start_s < s.end_s <= utterance.duration_s for s in transcript.labels)
        assert ends == sorted(ends)
        assert all(0 <= s.confidence <= 1 for s in (*transcript.labels, *transcript.words))
        if transcript.text == utterance.text:
            for heard, spoken in zip(transcript.words, utterance.words, strict=True):
                assert abs(heard.start_s - spoken.start_s) < 0.15
                assert abs(heard.end_s - spoken.end_s) < 0.15


def test_text_output_is_path_tab_text_in_order(model, said, monkeypatch, capsys):
    files = [u.audio for u in said]
    code, out, _ = asr(
        monkeypatch, capsys, "transcribe", "--model", model, "--lexicon", "model", *files
    )
    lines = [line.split("\t") for line in out.splitlines()]
    assert code == 0
    assert [line[0] for line in lines] == [str(f) for f in files]
    right = sum(text == u.text for (_, text), u in zip(lines, said, strict=True))
    assert right >= len(said) - 1


def test_json_output(model, said, monkeypatch, capsys):
    code, out, _ = asr(
        monkeypatch,
        capsys,
        "transcribe",
        *("--model", model, "--format", "json", "--decoder", "beam", "--beam", "20"),
        *("--nbest", "3", said[0].audio),
    )
    found = json.loads(out)
    assert code == 0
    assert found["audio_filepath"] == str(said[0].audio)
    assert {"label", "start_s", "end_s", "confidence"} == found["labels"][0].keys()
    texts = [n["text"] for n in found["nbest"]]
    assert 1 <= len(texts) == len(set(texts)) <= 3
    assert [n["score"] for n in found["nbest"]] == sorted(n["score"] for n in found["nbest"])[::-1]


def test_the_batch_has_no_influence(model, said):
    recognizer = Recognizer.load(model, decoder="greedy")
    alone = [recognizer.transcribe(u.audio) for u in said]
    together = list(recognizer.transcribe_files([u.audio for u in said], pytest.fail))
    for one, other in zip(alone, together, strict=True):
        assert [(s.label, s.start_s, s.end_s) for s in one.labels] == [
            (s.label, s.start_s, s.end_s) for s in other.labels
        ]
        assert [s.confidence for s in one.labels] == pytest.approx(
            [s.confidence for s in other.labels], abs=1e-5
        )
        assert one.score == pytest.approx(other.score, abs=1e-3)


def test_any_rate_and_stereo(model, said, tmp_path):
    recognizer = Recognizer.load(model)
    samples, rate = soundfile.read(said[0].audio)
    expected = recognizer.transcribe(said[0].audio).text
    soundfile.write(tmp_path / "stereo.flac", np.stack([samples, samples], 1), rate)
    assert recognizer.transcribe(tmp_path / "stereo.flac").text == expected
    twice = np.repeat(samples, 2)
    soundfile.write(tmp_path / "fast.wav", twice, 2 * rate)
    heard = recognizer.transcribe(tmp_path / "fast.wav")
    assert heard.duration_s == pytest.approx(len(samples) / rate, abs=1e-3)
    assert heard.text == expected


def test_bad_files_are_told_and_the_rest_go_on(model, said, tmp_path, monkeypatch, capsys):
    (tmp_path / "text.wav").write_text("not audio")
    (tmp_path / "empty.wav").write_bytes(b"")
    nan = np.full(1600, np.nan, np.float32)
    soundfile.write(tmp_path / "nan.wav", nan, 16000, subtype="FLOAT")
    bad = [tmp_path / "text.wav", tmp_path / "empty.wav", tmp_path / "nan.wav", tmp_path / "no.wav"]
    code, out, err = asr(
        monkeypatch, capsys, "transcribe", "--model", model, bad[0], said[0].audio, *bad[1:]
    )
    assert code == 1
    assert [line.split("\t")[0] for line in out.splitlines()] == [str(said[0].audio)]
    lines = err.splitlines()
    assert len(lines) == 5
    assert all(str(path) in line for path, line in zip(bad, lines, strict=False))
    assert "4 of 5" in lines[-1]
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda d: shutil.rmtree(d), "no such model directory"),
        (lambda d: (d / "config.json").unlink(), "config.json"),
        (lambda d: (d / "config.json").write_text('{"format": "carousel-model-0"}'), "model-0"),
        (lambda d: (d / "config.json").write_text("{"), "config.json"),
        (lambda d: (d / "weights.safetensors").write_bytes(b"x" * 99), "weights.safetensors"),
        (lambda d: (d / "weights.safetensors").unlink(), "weights.safetensors"),
        (lambda d: (d / "labels.txt").write_text("unit phone\n<blank>\naa\n"), "shape"),
        (lambda d: (d / "labels.txt").write_text("aa\n"), "labels.txt:1"),
    ],
)
def test_a_spoilt_model_is_one_clear_line(model, said, tmp_path, monkeypatch, capsys, spoil, told):
    copy = tmp_path / "model"
    shutil.copytree(model / "model", copy)
    spoil(copy)
    code, out, err = asr(monkeypatch, capsys, "transcribe", "--model", copy, said[0].audio)
    assert (code, out) == (2, "")
    assert told in err
    assert err.count("\n") == 1


def test_a_decoder_that_does_not_fit_is_refused(model, said):
    with pytest.raises(InputError, match="framewise"):
        Recognizer.load(model, decoder="viterbi")


@pytest.fixture(scope="module")
def lms(model, tmp_path_factory):
    """Language models of the corpus: over phones, over words, and over words in upper case."""
    folder = tmp_path_factory.mktemp("lms")
    train = read_manifest(model / "manifests/train.jsonl")
    words = [(u.text or "").split() for u in train]
    phones = [unit_symbols(u, "phone", "cmu40") for u in train]
    NGram.estimate(phones, 3).write_arpa(folder / "phones.arpa")
    NGram.estimate(words, 2).write_arpa(folder / "words.arpa")
    NGram.estimate([[w.upper() for w in s] for s in words], 2).write_arpa(folder / "upper.arpa")
    (folder / "lexicon.txt").write_text("ma m aa\nsee s iy\nseam s iy m\nmah m aa\n")
    return folder


def transcripts(out):
    return [line.split("\t")[1] for line in out.splitlines()]


def test_phones_with_a_language_model_over_phones(model, said, lms, monkeypatch, capsys):
    files = [u.audio for u in said]
    search = "--decoder beam --beam 50 --lm-weight 0.8 --bonus 0.5".split()
    code, out, err = asr(
        monkeypatch,
        capsys,
        *("transcribe", "--model", model, *search, "--lm", lms / "phones.arpa", *files),
    )
    assert code == 0
    # The model itself searches words: the language model says that phones are wanted.
    assert "is over phones" in err
    assert transcripts(out)[0].split()[1:-1] == [p.label for p in said[0].phones][1:-1]


def test_words_of_a_lexicon_with_a_hotword(model, said, lms, monkeypatch, capsys):
    words = ("--decoder", "beam", "--lexicon", lms / "lexicon.txt", "--lm", lms / "words.arpa")
    call = ("transcribe", "--model", model, *words, said[0].audio)
    code, out, _ = asr(monkeypatch, capsys, *call)
    assert code == 0
    assert set(transcripts(out)[0].split()) <= {"ma", "see", "seam", "mah"}
    code, out, _ = asr(monkeypatch, capsys, *call, "--hotword", "mah:9")
    assert code == 0
    assert "mah" in transcripts(out)[0].split()


def test_n_best_of_a_greedy_model_needs_a_search(model, said, tmp_path, monkeypatch, capsys):
    copy = tmp_path / "model"
    shutil.copytree(model / "model", copy)
    config = json.loads((copy / "config.json").read_text())
    config["decoder"]["name"] = "greedy"
    (copy / "config.json").write_text(json.dumps(config))
    call = ("transcribe", "--model", copy, "--nbest", "4", "--format", "json", said[0].audio)
    code, out, err = asr(monkeypatch, capsys, *call)
    assert code == 0
    assert "--nbest needs a search: decoding with beam" in err
    assert len(json.loads(out)["nbest"]) > 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--decoder greedy --lm phones.arpa", "--lm is for --decoder beam"),
        ("--decoder greedy --lexicon model", "--lexicon is for --decoder beam"),
        ("--decoder greedy --nbest 2 --format json", "--nbest is for --decoder beam"),
        ("--decoder greedy --beam 9", "--beam is for --decoder beam"),
        ("--nbest 2", "--format json"),
        ("--no-lexicon --lm words.arpa", "are among the model's phones"),
        ("--lexicon model --lm phones.arpa", "it is over phones: use it without --lexicon"),
        ("--lexicon model --lm upper.arpa", "in lower case they would be"),
        ("--lexicon model --rescore upper.arpa", "in lower case they would be"),
        ("--no-lexicon --rescore words.arpa", "are among the model's phones"),
        ("--lm gone.arpa", "no such language model"),
        ("--lm lexicon.txt", "lexicon.txt:"),
        ("--lexicon gone.txt", "gone.txt"),
        ("--lexicon words.arpa", "words.arpa:1"),
        ("--lexicon lm", "use --lexicon cmudict"),
        ("--lexicon model --no-lexicon", "choose one"),
        ("--no-lexicon --hotword ma:3", "add --lexicon"),
        ("--no-lexicon --unknown 3", "add --lexicon"),
        ("--lexicon model --hotword ma", "WORDS:BOOST"),
        ("--lexicon model --hotword xyzzy:2", "xyzzy"),
        ("--lm none --lm-weight 1", "--lm"),
        ("--rescore-weight 1", "--rescore"),
        ("--decoder viterbi", "framewise"),
    ],
)
def test_options_that_do_not_fit_are_one_clear_line(
    model, said, lms, monkeypatch, capsys, words, told
):
    monkeypatch.chdir(lms)
    call = ("transcribe", "--model", model, *words.split(), said[0].audio)
    code, out, err = asr(monkeypatch, capsys, *call)
    assert (code, out) == (2, "")
    assert told in err.splitlines()[-1]
    assert len(err.splitlines()) <= 2
    assert "Traceback" not in err


@pytest.mark.parametrize("form", ["json", "text"])
def test_output_scores_against_the_manifest(model, said, tmp_path, monkeypatch, capsys, form):
    files = [u.audio for u in said]
    words = ("transcribe", "--model", model, "--format", form, *files)
    code, out, _ = asr(monkeypatch, capsys, *words)
    assert code == 0
    heard = tmp_path / ("heard.jsonl" if form == "json" else "heard.tsv")
    heard.write_text(out)
    manifest = model / "manifests/test.jsonl"
    units = ["word", "phone"] if form == "json" else ["word"]
    for unit in units:
        fold = ["--fold", "cmu40"] if unit == "phone" else []
        code, out, err = asr(
            monkeypatch, capsys, "score", manifest, heard, "--unit", unit, "--json", *fold
        )
        assert (code, err) == (0, "")
        assert json.loads(out)["error_rate"] < 0.2


def test_a_name_that_is_not_utf_8(model, said, tmp_path, monkeypatch, capfdbinary):
    name = os.fsdecode(bytes(tmp_path) + b"/odd\xff.wav")
    shutil.copyfile(said[0].audio, name)
    monkeypatch.setattr(sys, "argv", ["asr", "transcribe", "--model", str(model), name])
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capfdbinary.readouterr()
    assert not ended.value.code, err
    assert out.startswith(bytes(tmp_path))
    assert b"Traceback" not in err


def test_a_full_disk_under_standard_output_is_told(model, said):
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    code = "from asr.cli import main; main()"
    words = ["transcribe", "--model", str(model), str(said[0].audio)]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code, *words], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 2
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr
