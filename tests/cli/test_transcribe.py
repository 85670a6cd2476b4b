"""Transcribing as a user does: files of any form in, text, times and confidences out."""

import errno
import io
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import srt
from running import asr

import asr as package
from asr.audio.windows import WindowConfig
from asr.cli import main
from asr.data.manifest import read_manifest
from asr.decode.config import DecodingOptions
from asr.errors import InputError
from asr.labels import unit_symbols
from asr.lm.ngram import NGram
from asr.model.emissions import batches_by_length
from asr.model.weights import load_bundle
from asr.nets.acoustic import AcousticModel
from asr.recognize.recognizer import Recognizer, ahead
from asr.score.error_rate import score_pairs
from asr.system import files


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
        (lambda d: (d / "labels.txt").write_text("unit phone\n<blank>\naa\n"), "log_priors"),
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
        ("--lexicon words.arpa", "words.arpa:2"),
        ("--lexicon lm", "use --lexicon cmudict"),
        ("--lexicon model --no-lexicon", "choose one"),
        ("--no-lexicon --hotword ma:3", "add --lexicon"),
        ("--no-lexicon --unknown 3", "add --lexicon"),
        ("--lexicon model --hotword ma", "WORDS:BOOST"),
        ("--lexicon model --hotword x1zzy:2", "x1zzy"),
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


@pytest.fixture
def transcribe(model, monkeypatch, capsys):
    """Run asr transcribe with the model; exit status, standard output, lines of standard error."""

    def run(*words, stdin=b""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code, out, err = asr(monkeypatch, capsys, "transcribe", "--model", model, *words)
        assert "Traceback" not in err
        return code, out, err.splitlines()

    return run


@pytest.fixture
def tree(said, tmp_path):
    """in/a.wav and in/deep/b.wav."""
    for name, utterance in zip(("a", "deep/b"), said, strict=False):
        path = tmp_path / "in" / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(utterance.audio, path)
    return tmp_path / "in"


def files_below(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_a_folder_in_all_formats_at_once(transcribe, tree, said):
    names = "txt,json,jsonl,srt,vtt,ctm,trn,textgrid,eaf,phn,wrd"
    out = tree.parent / "out"
    words = ("--lexicon", "model", "--format", names, "--out", out, tree)
    assert transcribe(*words) == (0, "", [])
    suffixes = "PHN TextGrid WRD ctm eaf json jsonl srt trn txt vtt".split()
    assert files_below(out) == [f"{id}.{suffix}" for id in ("a", "deep/b") for suffix in suffixes]
    found = json.loads((out / "deep/b.json").read_text())
    assert found["id"] == "deep/b"
    assert found["audio_filepath"] == str(tree / "deep/b.wav")
    assert (out / "deep/b.trn").read_text() == f"{found['text']} (deep/b)\n"
    assert (out / "a.txt").read_text().strip() == said[0].text
    lines = [line.split() for line in (out / "deep/b.ctm").read_text().splitlines()]
    assert [float(x[2]) for x in lines] == [w["start_s"] for w in found["words"]]
    assert "segments" not in found


def test_what_is_there_is_not_done_again(transcribe, tree):
    out = tree.parent / "out"
    assert transcribe("--out", out, tree)[0] == 0
    (out / "a.txt").write_text("mine")
    code, _, err = transcribe("--out", out, tree)
    assert code == 0
    assert err == ["asr: 2 of 2 transcripts are there (--redo replaces them)"]
    # A format that is missing is made; what is there stays.
    code, _, err = transcribe("--out", out, "--format", "txt,srt", tree)
    assert (code, err) == (0, [])
    assert (out / "a.txt").read_text() == "mine"
    assert (out / "a.srt").exists()
    assert transcribe("--out", out, "--redo", tree)[0] == 0
    assert (out / "a.txt").read_text() != "mine"


def test_a_folder_in_the_place_of_a_transcript_is_told(transcribe, tree):
    out = tree.parent / "out"
    (out / "a.txt").mkdir(parents=True)
    code, _, err = transcribe("--out", out, tree)
    assert code == 1
    assert err[0].startswith(f"asr: {out}/a.txt: cannot be written (Is a directory")
    assert files_below(out) == ["deep/b.txt"]


@pytest.mark.parametrize(
    ("closed", "status", "told"),
    [(">&-", 2, "standard output is closed"), ("2>&-", 0, ""), ("2>&1 | true", 1, "")],
)
def test_closed_streams_are_no_traceback(model, said, closed, status, told):
    code = "from asr.cli import main; main()"
    words = ["transcribe", "--model", str(model), str(said[0].audio)]
    command = shlex.join([sys.executable, "-c", code, *words])
    done = subprocess.run(
        ["bash", "-c", f"{command} {closed}; exit ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == status
    assert told in done.stderr
    assert done.stderr.count("\n") == bool(told)


def test_a_list_on_standard_input(transcribe, tree, monkeypatch):
    monkeypatch.chdir(tree)
    _, expected, _ = transcribe("a.wav", "deep/b.wav")
    for names in (b"./a.wav\n./deep/b.wav\n", b"a.wav\0deep/b.wav\0", b"a.wav\r\ndeep/b.wav\r\n"):
        assert transcribe("--list", "-", stdin=names) == (0, expected, [])
    Path("names").write_bytes(b"deep/b.wav\n")
    assert transcribe("a.wav", "--list", "names") == (0, expected, [])
    assert transcribe("**/*.wav") == (0, expected, [])
    assert transcribe("--list", "-")[::2] == (2, ["asr: --list -: names no file"])


def test_audio_on_standard_input(transcribe, tree, monkeypatch):
    monkeypatch.chdir(tree)
    audio = Path("a.wav").read_bytes()
    _, expected, _ = transcribe("deep/b.wav", "a.wav")
    expected = expected.replace("a.wav\t", "-\t")
    assert transcribe("deep/b.wav", "-", stdin=audio) == (0, expected, [])
    assert transcribe("-", "--channels", "each", "--out", "out", stdin=audio)[0] == 0
    assert files_below(Path("out")) == ["stdin.txt"]
    # Its bytes are never taken for names, names never for audio.
    code, out, err = transcribe("-", stdin=b"a.wav\n")
    assert (code, out) == (1, "")
    assert err[0].startswith("asr: -: not audio that can be read")
    assert err[0].endswith("a list of files is for --list -")
    assert "the file is empty" in transcribe("-")[2][0]


def test_files_of_one_name_cost_no_other(transcribe, tree):
    samples, rate = soundfile.read(tree / "a.wav")
    soundfile.write(tree / "a.flac", samples, rate)
    # Where lines name the files, nothing is in the way.
    code, out, err = transcribe(tree)
    assert (code, len(out.splitlines()), err) == (0, 3, [])
    told = f"asr: {tree}/a.wav: would be called a, as {tree}/a.flac is; rename one"
    code, _, err = transcribe("--out", tree.parent / "out", tree)
    assert (code, err) == (1, [told, "asr: 1 of 3 inputs failed"])
    assert files_below(tree.parent / "out") == ["a.txt", "deep/b.txt"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--format srt,json in", "name a folder with --out"),
        ("--format srt in", "use --out"),
        ("--format doc in", "format 'doc' does not exist"),
        ("--format text --out out in", "it is called txt"),
        ("--out in/a.wav in", "is a file; expected a folder"),
        ("--no-lexicon --format wrd in/a.wav", "add --lexicon"),
        ("", "name files or folders"),
        ("- --list -", "either audio or the --list"),
        ("--list gone", "--list gone: cannot be read (No such file or directory)"),
        ("- --engine ray --out out", "--engine ray reads files"),
    ],
)
def test_outputs_that_cannot_be_are_one_clear_line(transcribe, tree, monkeypatch, words, told):
    monkeypatch.chdir(tree.parent)
    code, out, err = transcribe(*words.split())
    assert (code, out, len(err)) == (2, "", 1)
    assert told in err[0]


def write_wav(path, samples, rate=16_000, subtype="PCM_16"):
    soundfile.write(path, samples, rate, subtype=subtype, format="WAV")


def test_every_kind_of_bad_input_is_one_line_and_the_good_go_on(transcribe, said, tmp_path):
    tone = 0.1 * np.sin(np.arange(16_000) / 8)
    good, bad = tmp_path / "good", tmp_path / "bad"
    for folder in (good, bad, tmp_path / "empty"):
        folder.mkdir()
    write_wav(good / "one sample.wav", tone[:1])
    write_wav(good / "8 kHz.wav", tone, 8_000)
    write_wav(good / "192 kHz.wav", tone, 192_000)
    write_wav(good / "8 channels.wav", np.stack([tone] * 8, 1))
    write_wav(good / "24 bit.wav", tone, subtype="PCM_24")
    write_wav(good / "tab\tline\nend.wav", tone)
    latin = good / os.fsdecode(b"latin \xfc.wav")
    shutil.copyfile(good / "8 kHz.wav", latin)
    write_wav(bad / "zero length.wav", tone[:0])
    (bad / "no bytes.wav").touch()
    write_wav(bad / "nan.wav", np.append(tone, np.nan), subtype="FLOAT")
    (bad / "text\nin two lines.wav").write_text("not audio\n" * 100)
    write_wav(bad / "cut.wav", tone)
    with (bad / "cut.wav").open("rb+") as handle:
        handle.truncate(1000)
    # As a video begins.
    (bad / "film.wav").write_bytes(b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + bytes(4000))
    n_unreadable = 0
    if os.geteuid():
        write_wav(bad / "secret.wav", tone)
        (bad / "secret.wav").chmod(0)
        n_unreadable = 1
    names = (bad, tmp_path / "empty", tmp_path / "gone.wav", good)
    code, out, err = transcribe("--format", "jsonl", *names)
    assert code == 1
    assert len(out.splitlines()) == 7
    assert len(err) == 8 + n_unreadable + 1
    assert err[-1] == f"asr: {8 + n_unreadable} of {15 + n_unreadable} inputs failed"
    assert sum("text\\nin two lines.wav" in line for line in err) == 1
    latin.unlink()  # its bytes would be printed as they are
    code, out, err = transcribe(good)
    assert (code, err) == (0, [])
    assert len(out.splitlines()) == 6
    assert "tab\\tline\\nend.wav\t" in out
    assert transcribe(tmp_path / "empty")[::2] == (
        1,
        [f"asr: {tmp_path}/empty: no audio in this folder (no .wav, .flac, .mp3 ...)"],
    )


def test_a_file_that_may_not_be_read_is_one_line(transcribe, tree, monkeypatch):
    whole = Path.open

    def opened(path, *args, **kwargs):
        if path.name == "b.wav":
            raise PermissionError(13, "Permission denied", str(path))
        return whole(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", opened)  # mode bits do not stop root
    code, out, err = transcribe(tree)
    assert (code, len(out.splitlines())) == (1, 1)
    assert err == [
        f"asr: {tree}/deep/b.wav: cannot be read (Permission denied)",
        "asr: 1 of 2 inputs failed",
    ]


def test_a_film_is_one_line(transcribe, tmp_path):
    film = tmp_path / "film.mp4"
    film.write_bytes(b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + bytes(4000))
    code, out, (line,) = transcribe(film)
    assert (code, out) == (1, "")
    assert line.startswith(f"asr: {film}: not audio that can be read")
    assert line.endswith("convert it to WAV or FLAC")


def test_a_folder_that_cannot_be_written_to_is_told_before_the_work(transcribe, tree, monkeypatch):
    monkeypatch.setattr(Recognizer, "transcribe_files", pytest.fail)
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != str(tree.parent))
    out = tree.parent / "new/out"
    code, _, err = transcribe("--out", out, tree)
    assert (code, err) == (2, [f"asr: --out {out}: cannot be written to; name another folder"])


@pytest.mark.parametrize(("number", "status"), [(errno.ENOSPC, 2), (errno.ENAMETOOLONG, 1)])
def test_a_full_disk_ends_it_and_one_bad_place_does_not(
    transcribe, tree, monkeypatch, number, status
):
    whole = files.write_text

    def write_text(path, text):
        if path.name == "a.txt":
            error = OSError(number, os.strerror(number))
            raise InputError(f"{path}: cannot be written ({error.strerror})") from error
        whole(path, text)

    monkeypatch.setattr("asr.recognize.files.write_text", write_text)
    out = tree.parent / "out"
    code, _, err = transcribe("--out", out, tree)
    told = [f"asr: {out}/a.txt: cannot be written ({os.strerror(number)})"]
    assert code == status
    assert err == told + ["asr: 1 of 2 inputs failed"] * (status == 1)
    assert status == 2 or files_below(out) == ["deep/b.txt"]


def test_options_reach_the_recognizer(transcribe, tree, monkeypatch):
    used = []
    monkeypatch.setattr(Recognizer, "transcribe_files", lambda self, *_: used.append(self) or ())
    assert transcribe("--window", "3", "--keep-silence", "--precision", "int8", tree)[0] == 0
    assert used[0].windowing == WindowConfig(longest_s=3, skip_silence=False)
    assert used[0].precision == "int8"


def test_progress_tells_the_real_time_factor(transcribe, tree, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    assert transcribe(tree)[0] == 0
    shown = terminal.getvalue()
    assert "transcribing" in shown
    assert "2/2" in shown
    assert re.search(r"0 min of audio, [1-9]\d* x real time", shown)


def test_each_channel_by_itself(transcribe, said, tmp_path):
    first, second = (soundfile.read(u.audio)[0] for u in said[:2])
    both = np.zeros((max(len(first), len(second)), 2))
    both[: len(first), 0], both[: len(second), 1] = first, second
    write_wav(tmp_path / "both.wav", both)
    search = ("--lexicon", "model", "--channels", "each")
    code, out, err = transcribe(*search, tmp_path / "both.wav")
    assert (code, err) == (0, [])
    assert out == "".join(
        f"{tmp_path}/both.wav.ch{n}\t{u.text}\n" for n, u in enumerate(said[:2], 1)
    )
    out = tmp_path / "out"
    transcribe(*search, "--format", "ctm,json", "--out", out, tmp_path / "both.wav")
    assert files_below(out) == [
        f"both.ch{n}.{suffix}" for n in (1, 2) for suffix in ("ctm", "json")
    ]
    assert json.loads((out / "both.ch2.json").read_text())["channel"] == 2
    assert {line.split()[1] for line in (out / "both.ch2.ctm").read_text().splitlines()} == {"2"}


def test_interrupted_finished_outputs_stay_whole(transcribe, tree, monkeypatch):
    whole = Recognizer.transcribe_files

    def interrupted(self, *args):
        yield from itertools.islice(whole(self, *args), 1)
        raise KeyboardInterrupt

    monkeypatch.setattr(Recognizer, "transcribe_files", interrupted)
    (tree / "x.wav").write_text("not audio")
    out = tree.parent / "out"
    code, _, err = transcribe("--format", "json,srt", "--out", out, tree)
    assert code == 130
    assert err == ["asr: interrupted; what is written is whole"]
    assert files_below(out) == ["a.json", "a.srt"]
    assert json.loads((out / "a.json").read_text())["text"]


def recording(said, n, silence_s=0.3):
    """``n`` utterances with silence between; samples, and the start of each."""
    pieces, starts, at = [], [], 0
    rng = np.random.default_rng(0)
    for utterance in (said[i % len(said)] for i in range(n)):
        samples, rate = soundfile.read(utterance.audio, dtype="float32")
        silence = (0.003 * rng.standard_normal(int(silence_s * rate))).astype(np.float32)
        starts.append(at / rate)
        pieces += [samples, silence]
        at += len(samples) + len(silence)
    return np.concatenate(pieces), starts


@pytest.mark.parametrize("decoder", ["greedy", "beam"])
def test_a_long_recording_is_the_sum_of_its_utterances(model, said, tmp_path, decoder):
    samples, starts = recording(said, 50)
    assert len(samples) > 60 * 16_000
    write_wav(tmp_path / "long.wav", samples)
    lexicon = "model" if decoder == "beam" else None
    bundle = load_bundle(model)
    # Of cuts, not of search: where silence counts for less, short words are heard in pauses.
    bundle.decoder = replace(bundle.decoder, word_prior_weight=0.0)
    recognizer = Recognizer(bundle, DecodingOptions(decoder=decoder, lexicon=lexicon))
    found = recognizer.transcribe(tmp_path / "long.wav")
    assert found.duration_s == len(samples) / 16_000
    assert len(found.segments) > 3
    spoken = [(p, start) for p, start in _phones(said, starts) if p.label != "sil"]
    heard = [label for label in found.labels if label.label != "sil"]
    scores = score_pairs([([p.label for p, _ in spoken], [h.label for h in heard])], "phone", "")
    assert scores.error_rate < 0.1
    if len(spoken) == len(heard):
        late = [h.start_s - p.start_s - start for h, (p, start) in zip(heard, spoken, strict=True)]
        assert max(map(abs, late)) < 0.15
    ends = [x for label in found.labels for x in (label.start_s, label.end_s)]
    assert ends == sorted(ends)
    assert all(a.label != "sil" or b.label != "sil" for a, b in pairwise(found.labels))
    if decoder == "beam":
        assert found.text == " ".join(w.label for w in found.words)
        assert found.text == " ".join(s.text for s in found.segments)
    # In memory or in blocks, at any rate, it is the same.
    alike = recognizer.transcribe(soundfile.read(tmp_path / "long.wav", dtype="float32")[0])
    assert alike.labels == found.labels


def _phones(said, starts):
    for i, start in enumerate(starts):
        for phone in said[i % len(said)].phones:
            yield replace(phone, label={"h#": "sil"}.get(phone.label, phone.label)), start


def test_long_recordings_in_json_and_srt(transcribe, said, tmp_path):
    samples, _ = recording(said, 40, silence_s=0.5)
    write_wav(tmp_path / "long.wav", samples)
    out = tmp_path / "out"
    search = ("--decoder", "beam", "--lexicon", "model", "--nbest", "2")
    words = (*search, "--format", "json,srt", "--out", out, tmp_path / "long.wav")
    assert transcribe(*words) == (0, "", [])
    found = json.loads((out / "long.json").read_text())
    segments = found["segments"]
    assert {"start_s", "end_s", "text", "score", "nbest"} == segments[0].keys()
    assert all(a["end_s"] <= b["start_s"] for a, b in pairwise(segments))
    assert " ".join(s["text"] for s in segments) == found["text"]
    assert "nbest" not in found
    assert 1 <= len(segments[0]["nbest"]) <= 2
    cues = list(srt.parse((out / "long.srt").read_text()))
    assert len(cues) > len(segments)
    assert all(cue.end - cue.start <= timedelta(seconds=7) for cue in cues)


def test_long_silence_is_skipped(model, said, tmp_path):
    samples, _ = recording(said, 25)
    silence = np.zeros(20 * 16_000, np.float32)
    write_wav(tmp_path / "a.wav", np.concatenate([samples, silence, samples]))
    heard = []
    recognizer = Recognizer.load(model)
    found = next(recognizer.transcribe_files([tmp_path / "a.wav"], pytest.fail, heard.append))
    assert sum(heard) < 2 * len(samples) / 16_000 + 10
    n = len(recognizer.transcribe(samples).labels)
    assert abs(len(found.labels) - 2 * n) <= 0.05 * n
    everything = Recognizer(load_bundle(model), windowing=WindowConfig(skip_silence=False))
    heard = []
    next(everything.transcribe_files([tmp_path / "a.wav"], pytest.fail, heard.append))
    assert sum(heard) > found.duration_s


def test_a_recording_beside_others_is_as_alone(model, said, tmp_path):
    samples, _ = recording(said, 30)
    write_wav(tmp_path / "long.wav", samples)
    recognizer = Recognizer(load_bundle(model), n_threads=2)
    alone = recognizer.transcribe(tmp_path / "long.wav")
    paths = [said[0].audio, tmp_path / "long.wav", *(u.audio for u in said)]
    together = list(recognizer.transcribe_files(paths, pytest.fail, batch_s=9))
    assert [str(t.audio) for t in together] == list(map(str, paths))
    assert [s.label for s in together[1].labels] == [s.label for s in alone.labels]
    assert together[0].text == together[2].text


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_lower_precision_hears_nearly_the_same(model, said, precision):
    exact = Recognizer(load_bundle(model))
    rough = Recognizer(load_bundle(model), precision=precision)
    pairs = [
        ([s.label for s in r.transcribe(u.audio).labels] for r in (exact, rough)) for u in said
    ]
    scores = score_pairs([tuple(pair) for pair in pairs], "phone", "")
    assert scores.error_rate < 0.05


def test_precisions_that_are_none(model):
    with pytest.raises(InputError, match="does not exist"):
        Recognizer(load_bundle(model), precision="int4")
    bundle = load_bundle(model)
    bundle.model = AcousticModel(replace(bundle.architecture, cell="peephole"), 120, 6)
    with pytest.raises(InputError, match="use bfloat16"):
        Recognizer(bundle, precision="int8")


def test_batches_are_of_like_length():
    rng = np.random.default_rng(0)
    lens = rng.integers(1, 500, 300).tolist()
    batches = batches_by_length(lens, 2000, 0.8)
    assert sorted(i for batch in batches for i in batch) == list(range(300))
    for batch in batches:
        longest, shortest = max(lens[i] for i in batch), min(lens[i] for i in batch)
        assert longest * len(batch) <= 2000 or len(batch) == 1
        assert shortest >= 0.8 * longest


def test_reading_ahead_passes_errors_on_and_ends_when_left():
    def items():
        yield from range(5)
        raise InputError("broken")

    found = ahead(items(), 2)
    assert [next(found) for _ in range(5)] == list(range(5))
    with pytest.raises(InputError, match="broken"):
        next(found)
    before = threading.active_count()
    endless = ahead(itertools.count(), 2)
    assert next(endless) == 0
    assert threading.active_count() == before + 1
    endless.close()
    assert threading.active_count() == before


def test_one_signal_ends_the_waiting_for_standard_input(model):
    command = [sys.executable, "-m", "asr", "transcribe", "--model", str(model), "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as waiting:
        # Begun, but without an end; the command waits once it has taken that.
        waiting.stdin.write(bytes(1 << 17))
        waiting.stdin.flush()
        time.sleep(0.5)
        waiting.send_signal(signal.SIGINT)
        assert waiting.wait(60) == 130
        assert b"Error" not in waiting.stderr.read()


def test_words_without_pronunciation_are_guessed_and_can_be_corrected(
    model, said, tmp_path, monkeypatch, capsys, caplog
):
    lexicon, out = tmp_path / "lexicon.txt", tmp_path / "out"
    lexicon.write_text("ma\tm aa\nseagull\n")
    words = ("transcribe", "--model", model, said[0].audio, "--lexicon", lexicon, "--out", out)
    code, _, err = asr(monkeypatch, capsys, *words)
    assert code == 0
    assert "1 word without a pronunciation, taken by the letters: seagull (" in err
    assert (out / "pronounced.txt").read_text().startswith("seagull\t")
    (out / "pronounced.txt").write_text("seagull\ts iy\n")
    code, _, err = asr(monkeypatch, capsys, *words, "--redo")
    assert code == 0
    assert "letters" not in err
    assert (out / "pronounced.txt").read_text() == "seagull\ts iy\n"
    code, _, err = asr(monkeypatch, capsys, *words, "--redo", "--pronounced", "none")
    assert code == 0
    assert "letters" not in err
    assert "1 of 2 entries do not fit" in caplog.text
