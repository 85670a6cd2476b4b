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
from running import SMALL, asr

import asr as package
from asr.cli import main
from asr.config import load_config
from asr.errors import InputError
from asr.manifest import read_manifest
from asr.recognizer import Recognizer
from asr.training import train


@pytest.fixture(scope="module")
def model(tones, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "ctc"
    overrides = [f"corpus.root={tones}", f"run_dir={run}", "trainer.max_epochs=12", *SMALL]
    train(*load_config("recipes/demo/ctc.yaml", overrides))
    return run


@pytest.fixture(scope="module")
def said(model):
    return read_manifest(model / "manifests/test.jsonl")


def test_python_interface(model, said):
    transcript = package.Recognizer.load(model / "model").transcribe(said[0].audio)
    assert [p.label for p in transcript.labels][1:-1] == [p.label for p in said[0].phones][1:-1]


def test_times_lie_where_the_phones_are(model, said):
    recognizer = Recognizer.load(model, name="beam", lexicon=True)
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
    code, out, _ = asr(monkeypatch, capsys, "transcribe", "--model", model, "--lexicon", *files)
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
    recognizer = Recognizer.load(model, name="greedy")
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
        Recognizer.load(model, name="viterbi")


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
