"""`asr check` names each planted fault once, and leaves what is sound alone."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from running import asr

from asr.corpora import load_corpus
from asr.report.corpus import as_text, examine, histogram
from asr.report.heard import _clipped

LEXICON = "the\tdh ah\ncat\tk ae t\nsat\ts ae t\nsat\ts t\n"


def noise(seconds=1.0, seed=0, scale=0.1):
    return np.random.default_rng(seed).uniform(-scale, scale, int(16000 * seconds))


def corpus(folder, lines, samples=None, rate=16000):
    """A manifest a set: (id, speaker, text) of audio that is ``samples`` by id, or noise."""
    for name, utterances in lines.items():
        rows = []
        for number, (id_, speaker, text) in enumerate(utterances):
            path = folder / f"{name}_{id_}.wav"
            found = (samples or {}).get(id_)
            if found is None:
                found = noise(seed=hash_of(name, number))
            soundfile.write(path, found, rate)
            rows.append({"id": id_, "audio_filepath": path.name, "speaker": speaker, "text": text})
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def hash_of(name, number):
    return sum(name.encode()) * 1000 + number


def found_in(folder, **how):
    report = examine(load_corpus("jsonl", folder), **how)
    return report, {finding.kind: finding for finding in report.findings}


SOUND = [(f"u{n}", "ann", "The cat sat.") for n in range(10)]


def test_a_sound_corpus(tmp_path):
    corpus(tmp_path, {"train": SOUND, "dev": [("v", "bob", "the cat")]})
    (tmp_path / "lexicon.txt").write_text(LEXICON)
    report, found = found_in(tmp_path, lexicon=str(tmp_path / "lexicon.txt"))
    assert report.is_sound
    assert not found
    assert report.sets["train"][:2] == (10, 1)
    assert as_text(report, 3)[-1] == "nothing that would stop a training"


def test_words_without_pronunciation(tmp_path):
    corpus(tmp_path, {"train": [*SOUND, ("x", "ann", "the zebra sat, Zebra")]})
    (tmp_path / "lexicon.txt").write_text(LEXICON)
    report, found = found_in(tmp_path, lexicon=str(tmp_path / "lexicon.txt"))
    assert found["words"].examples == ["zebra: 2 times, first in x"]
    assert found["left out"].examples == ["x: words without a pronunciation: zebra"]
    assert report.is_sound
    # One in eleven is within what a training bears; two in ten are not.
    corpus(tmp_path, {"train": [*SOUND[:8], ("x", "ann", "zebra"), ("y", "ann", "a zebra")]})
    report, found = found_in(tmp_path, lexicon=str(tmp_path / "lexicon.txt"))
    assert found["left out"].stops
    assert not report.is_sound


def test_words_that_can_be_pronounced_by_their_letters_are_told_once_and_stay(tmp_path):
    lines = [("x", "ann", "the tack sat"), ("y", "ann", "the tack"), *SOUND]
    corpus(tmp_path, {"train": lines[:5]})
    (tmp_path / "lexicon.txt").write_text(LEXICON)
    report, found = found_in(tmp_path, lexicon=str(tmp_path / "lexicon.txt"))
    assert list(found) == ["words"]
    assert found["words"].examples == ["tack: 2 times, first in x, by its letters t ae k"]
    assert " ".join(as_text(report, 3)).count("tack") == 1


def test_text_that_does_not_fit(tmp_path):
    lines = [*SOUND, ("short", "ann", "the cat sat"), ("fast", "ann", "abcdefghij " * 4)]
    corpus(tmp_path, {"train": lines}, {"short": noise(0.2), "fast": noise(1.0, 5)})
    (tmp_path / "lexicon.txt").write_text(LEXICON)
    _, found = found_in(tmp_path, lexicon=str(tmp_path / "lexicon.txt"))
    # dh ah k ae t s t, the shorter way: 7 frames; 0.2 s are 21 hops of 10 ms, 3 a frame: 7 fit.
    assert found["text that does not fit"].examples == [
        "short: 9 letters in 0.20 s",
        "fast: 40 letters in 1.00 s",
    ]
    corpus(tmp_path, {"train": lines}, {"short": noise(0.17), "fast": noise(1.0, 5)})
    _, found = found_in(tmp_path, lexicon=str(tmp_path / "lexicon.txt"))
    assert found["text that does not fit"].examples[0] == (
        "short: its labels need 7 frames, there are 6"
    )


def test_levels_and_rates(tmp_path):
    clipped = np.clip(noise(1.0, 3, 1.6), -1, 1)
    clipped[100:300] = 1.0
    samples = {"u0": clipped, "u1": noise(1.0, 4, 0.002)}
    corpus(tmp_path, {"train": SOUND}, samples, rate=8000)
    _, found = found_in(tmp_path)
    assert [example.split(":")[0] for example in found["clipping"].examples] == ["u0"]
    assert found["silence"].examples == ["u1: peak -54 dB"]
    assert found["low rates"].examples == ["8000 Hz: 10 utterances, such as u0"]
    assert "several rates" not in found
    soundfile.write(tmp_path / "train_u3.wav", noise(), 16000)
    _, found = found_in(tmp_path)
    assert "8000 Hz (9), 16000 Hz (1)" in found["several rates"].told


def test_clipping_is_a_flat_top():
    assert _clipped(np.array([0.5, 1, 1, 0.5, 1, 0])) == 0
    assert _clipped(np.array([1, 1, 1, 0.5, 1, 1, 1, 1])) == 7 / 8


def test_what_is_there_twice(tmp_path):
    same = noise(1.0, 77)
    lines = {"train": SOUND, "test": [("u0", "cid", "cat"), ("w", "ann", "sat")]}
    corpus(tmp_path, lines, {"u5": same, "w": same})
    _, found = found_in(tmp_path)
    assert found["doubled audio"].examples == ["w (test) = u5 (train): with different texts"]
    assert "1 of them in several sets" in found["doubled audio"].told
    assert found["doubled ids"].examples == ["u0: in test, train"]
    assert found["speakers in several sets"].examples == ["ann: test, train"]


def test_files_and_texts(tmp_path):
    lines = [*SOUND, ("mute", "ann", ""), ("link", "ann", "x" * 200)]
    corpus(tmp_path, {"train": lines}, {"link": noise(9.0)})
    report, found = found_in(tmp_path)
    assert found["no text"].examples == ["mute"]
    assert found["long words"].examples == [f"link: {'x' * 60}... (200)"]
    assert report.is_sound
    for number in range(3):
        (tmp_path / f"train_u{number}.wav").unlink()
    report, found = found_in(tmp_path)
    assert (found["files"].count, found["files"].stops) == (3, True)


def test_histogram():
    assert histogram([0.5, 1.0, 3.4]) == ([0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5], [0, 1, 1, 0, 0, 0, 1])
    edges, counts = histogram([20.0] * 3)
    assert sum(counts) == 3
    assert edges[-1] >= 20


@pytest.fixture
def model(tone_run):
    return tone_run / "model"


def test_with_a_model(model, tone_run, tmp_path, monkeypatch, capsys):
    manifest = tone_run / "manifests" / "test.jsonl"
    code, printed, err = asr(monkeypatch, capsys, "check", manifest, "--model", model, "--json")
    assert (code, err) == (0, "")
    found = json.loads(printed)
    assert found["sound"]
    assert sum(found["durations"]["utterances"]) == found["sets"]["test"]["utterances"]
    lexicon = tmp_path / "lexicon.txt"
    lexicon.write_text("ma\tm aa\nmo\tm zz\nmu\tzz yy\n")
    words = ("check", manifest, "--model", model, "--lexicon", lexicon)
    code, printed, _ = asr(monkeypatch, capsys, *words, "--plot", tmp_path / "d.png")
    assert code == 1
    assert "stops: " in printed
    assert f"zz: 2 times, first at {lexicon}:2: mo" in printed
    assert (tmp_path / "d.png").read_bytes().startswith(b"\x89PNG")
    lines = [json.loads(line) for line in Path(manifest).read_text().splitlines()]
    lines[0]["phones"] = ["aa", "qq"]
    odd = tmp_path / "odd.jsonl"
    odd.write_text("".join(json.dumps(line) + "\n" for line in lines))
    code, printed, _ = asr(monkeypatch, capsys, "check", odd, "--model", model)
    assert code == 1
    assert f"qq: in 1 utterances, first in {lines[0]['id']}" in printed
