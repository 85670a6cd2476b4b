"""Listening as a user does: files, pipes and a microphone in, words and events out."""

import json
import os
import pickle
import re
import shlex
import signal
import subprocess
import sys
import types
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from running import asr

import asr as package
from asr.audio import live
from asr.errors import InputError
from asr.recognize.recognizer import Recognizer

DOCS = Path(__file__).parents[2] / "docs/live.md"


@pytest.fixture(scope="module")
def recognizer(live_run):
    return Recognizer.load(live_run, device="cpu", decoder="beam", lexicon="model")


@pytest.fixture(scope="module")
def talk(said, tmp_path_factory):
    """A file of three utterances with pauses between."""
    parts = []
    for utterance in said[:3]:
        samples, rate = soundfile.read(utterance.audio, dtype="float32")
        parts += [samples, np.zeros(rate, np.float32)]
    path = tmp_path_factory.mktemp("talk") / "talk.wav"
    soundfile.write(path, np.concatenate(parts), rate)
    return path


SEARCH = ("--decoder", "beam", "--lexicon", "model")


def test_a_file(live_run, talk, said, monkeypatch, capsys):
    code, out, _ = asr(monkeypatch, capsys, "listen", "--model", live_run, *SEARCH, talk)
    assert code == 0
    lines = out.splitlines()
    assert len(lines) == 3
    right = sum(line == u.text for line, u in zip(lines, said, strict=False))
    assert right >= 2


def test_transcribing_finds_the_same(live_run, talk, said, monkeypatch, capsys):
    for path in (talk, *(u.audio for u in said)):
        _, heard, _ = asr(monkeypatch, capsys, "listen", "--model", live_run, *SEARCH, path)
        _, out, _ = asr(monkeypatch, capsys, "transcribe", "--model", live_run, *SEARCH, path)
        assert out == f"{path}\t{' '.join(heard.split())}\n"


def test_transcribing_goes_the_way_of_a_stream(recognizer, talk):
    """Not only the words are the same: the very figures are."""
    stream = recognizer.stream()
    stream.accept(*soundfile.read(talk, dtype="float32"))
    stream.finish()
    finals = stream.finals()
    found = recognizer.transcribe(talk)
    assert len(found.segments) == len(finals) > 1
    assert found.words == tuple(word for final in finals for word in final.words)
    assert found.score == pytest.approx(sum(final.score for final in finals))


def test_transcribing_many_files_is_as_each_alone(recognizer, said, talk):
    files = [u.audio for u in said] + [talk]
    together = list(recognizer.transcribe_files(files, pytest.fail))
    for path, transcript in zip(files, together, strict=True):
        alone = recognizer.transcribe(path)
        assert transcript.text == alone.text
        times = [(w.label, w.start_s, w.end_s) for w in transcript.words]
        assert times == [(w.label, w.start_s, w.end_s) for w in alone.words]
        info = soundfile.info(path)
        assert transcript.duration_s == pytest.approx(info.frames / info.samplerate)


def test_events(live_run, talk, monkeypatch, capsys):
    monkeypatch.setattr(live.time, "sleep", lambda seconds: None)
    code, out, _ = asr(
        monkeypatch,
        capsys,
        *("listen", "--model", live_run, *SEARCH, "--format", "jsonl", "--paced", talk),
    )
    assert code == 0
    events = [json.loads(line) for line in out.splitlines()]
    assert [e["segment"] for e in events if e["event"] == "final"] == [0, 1, 2]
    assert {"committed", "partial", "final"} == {e["event"] for e in events}
    for name in ("audio_s", "clock_s"):
        assert all(a[name] <= b[name] for a, b in pairwise(events))
    for n in range(3):
        own = [e for e in events if e["segment"] == n]
        committed = [w["label"] for e in own if e["event"] == "committed" for w in e["words"]]
        final = [w["label"] for w in own[-1]["words"]]
        assert committed == final[: len(committed)]
    # Words come while one speaks, not at the end.
    assert events[0]["audio_s"] < 2


def test_latencies(live_run, talk, monkeypatch, capsys):
    chunks = ("--chunk-ms", "240", "--lookahead-ms", "60")
    code, out, _ = asr(monkeypatch, capsys, "listen", "--model", live_run, *SEARCH, *chunks, talk)
    assert code == 0
    assert len(out.splitlines()) == 3
    code, out, err = asr(monkeypatch, capsys, "listen", "--model", live_run, "--chunk-ms", 30, talk)
    assert (code, out) == (2, "")
    assert "240" in err


def test_a_model_that_hears_whole_utterances(model, talk, monkeypatch, capsys):
    code, out, err = asr(monkeypatch, capsys, "listen", "--model", model, talk)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "live" in err


@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_packets_and_rates(recognizer, said, data):
    rate = data.draw(st.sampled_from([8_000, 11_025, 16_000, 44_100, 48_000]))
    waveform, own = soundfile.read(said[data.draw(st.integers(0, 2))].audio, dtype="float32")
    n = len(waveform) * rate // own
    waveform = np.interp(np.arange(n) * own / rate, np.arange(len(waveform)), waveform)
    waveform = waveform.astype(np.float32)
    cuts = data.draw(st.lists(st.integers(0, n), max_size=30))
    found = []
    for edges in ([0, n], sorted({0, n, *cuts})):
        stream = recognizer.stream()
        for first, end in pairwise(edges):
            stream.accept(waveform[first:end], rate)
            _ = stream.result
        stream.finish()
        found.append(stream.finals())
    assert found[0] == found[1]


def test_packets_of_half_a_millisecond(recognizer, said):
    waveform, rate = soundfile.read(said[0].audio, dtype="float32")
    whole, pieces = recognizer.stream(), recognizer.stream()
    whole.accept(waveform, rate)
    for first in range(0, len(waveform), 8):
        pieces.accept(waveform[first : first + 8], rate)
        _ = pieces.result
    for stream in (whole, pieces):
        stream.finish()
    assert pieces.finals() == whole.finals()


def test_streams_side_by_side(recognizer, said):
    waveforms = [soundfile.read(u.audio, dtype="float32")[0] for u in said]
    alone = []
    for waveform in waveforms:
        stream = recognizer.stream()
        stream.accept(waveform)
        stream.finish()
        alone.append(stream.finals())
    streams = [recognizer.stream() for _ in waveforms]
    # One is closed early and one is forgotten.
    streams[0].finish()
    for first in range(0, max(map(len, waveforms)), 3_000):
        for stream, waveform in zip(streams[1:-1], waveforms[1:-1], strict=True):
            stream.accept(waveform[first : first + 3_000])
        package.advance(streams)
    for stream, expected in list(zip(streams, alone, strict=True))[1:-1]:
        stream.finish()
        assert [f.text for f in stream.finals()] == [f.text for f in expected]


def test_what_no_packet_may_hold(recognizer, said):
    waveform, rate = soundfile.read(said[0].audio, dtype="float32")
    stream, other = recognizer.stream(), recognizer.stream()
    for bad in (np.full(100, np.nan), np.full(100, 20.0), np.zeros((2, 2)), np.zeros(9, np.int16)):
        stream.accept(waveform[:5000], rate)
        with pytest.raises(InputError):
            stream.accept(bad, rate)
        with pytest.raises(InputError):
            stream.accept(np.zeros(100), 10)
        other.accept(waveform[:5000], rate)
    stream.finish(), other.finish()
    assert stream.finals() == other.finals()


@pytest.mark.parametrize("minutes", [6, pytest.param(60, marks=pytest.mark.slow)])
def test_long_silence(recognizer, said, minutes):
    stream = recognizer.stream()
    samples = soundfile.read(said[0].audio, dtype="float32")[0]
    draw = np.random.default_rng(0)
    hiss = draw.standard_normal(960_000).astype(np.float32)
    # As steady as can be, and as changing: by 16 dB four times a second.
    changing_db = np.interp(np.arange(960_000) / 4000, np.arange(241), draw.uniform(-8, 8, 241))
    kinds = (0 * hiss, 1e-4 * hiss, hiss * (3e-4 * 10 ** (changing_db / 20)).astype(np.float32))
    stream.accept(samples)
    held, first = [], []
    for minute in range(minutes):
        stream.accept(kinds[minute % 3].astype(np.float32))
        committed, finals = stream.result.committed.text, stream.finals()
        assert (committed, len(finals)) == ("", minute == 0)
        first += finals
        held.append(len(pickle.dumps((stream._emissions._front, stream._emissions.state))))
    assert max(held) < 1.2 * held[0]
    stream.accept(samples)
    stream.finish()
    assert [final.text for final in stream.finals()] == [first[0].text]


def test_hotwords(recognizer, said):
    stream = recognizer.stream(hotwords=["seam:50"])
    stream.accept(soundfile.read(said[0].audio, dtype="float32")[0])
    stream.finish()
    assert "seam" in " ".join(f.text for f in stream.finals())
    with pytest.raises(InputError, match="seam"):
        recognizer.stream(hotwords=["seam:much"])


def command(*words, **options):
    words = [sys.executable, "-m", "asr", *map(str, words)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def in_time(err):
    """What is told on standard error, but that a busy machine is behind."""
    return b"".join(line for line in err.splitlines(True) if b" s behind: " not in line)


def raw(path):
    return soundfile.read(path, dtype="int16")[0].tobytes()


def test_pipes(live_run, talk, monkeypatch, capsys):
    _, expected, _ = asr(monkeypatch, capsys, "listen", "--model", live_run, *SEARCH, talk)
    for data, rate in ((raw(talk), ("--rate", 16_000)), (talk.read_bytes(), ())):
        words = ("listen", "--model", live_run, *SEARCH, "-", *rate)
        with command(*words, stdin=subprocess.PIPE) as process:
            out, err = process.communicate(data)
        assert (process.returncode, out.decode(), in_time(err)) == (0, expected, b"")


def test_a_pipe_that_ends_in_the_middle_of_a_sample(live_run, talk):
    words = ("listen", "--model", live_run, *SEARCH, "-", "--rate", 16_000)
    with command(*words, stdin=subprocess.PIPE) as process:
        out, err = process.communicate(raw(talk) + b"\0")
    assert process.returncode == 2
    assert len(out.splitlines()) == 3
    assert in_time(err) == (
        b"asr: -: ends in the middle of a sample; expected 16-bit samples, two bytes each\n"
    )


def test_ctrl_c(live_run, said):
    words = ("listen", "--model", live_run, *SEARCH, "--format", "jsonl", "-", "--rate", 16_000)
    with command(*words, stdin=subprocess.PIPE) as process:
        process.stdin.write(raw(said[0].audio))
        process.stdin.flush()
        # It has heard something, and would wait for more.
        first = process.stdout.readline()
        os.kill(process.pid, signal.SIGINT)
        rest = process.stdout.read()
        err = process.stderr.read()
        process.stdin.close()
    assert (process.returncode, in_time(err)) == (0, b"")
    last = json.loads((first + rest).splitlines()[-1])
    assert (last["event"], last["text"]) == ("final", said[0].text)


def test_a_microphone(live_run, said, monkeypatch, capsys):
    waveform, rate = soundfile.read(said[0].audio, dtype="float32")

    class InputStream:
        def __init__(self, rate, channels, dtype, callback):
            self.callback = callback

        def __enter__(self):
            for first in range(0, len(waveform), 512):
                self.callback(waveform[first : first + 512, None], 0, None, None)

        def __exit__(self, *error):
            pass

    module = types.ModuleType("sounddevice")
    module.PortAudioError, module.InputStream = OSError, InputStream
    module.query_devices = lambda kind: {"default_samplerate": float(rate)}
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    monkeypatch.setattr(live, "MOST_SILENT_S", 0.1)
    code, out, err = asr(monkeypatch, capsys, "listen", "--model", live_run, *SEARCH)
    assert (code, out) == (2, said[0].text + "\n")
    assert err == "asr: microphone: no audio for 0.1 s, it seems to be unplugged\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rate", "8000", "a.wav"], "--rate 8000: is for samples on standard input"),
        (["--paced"], "--paced: is for a FILE"),
        (["--rule5", "0", "a.wav"], "endpoint.rule5_s=0.0"),
        (["nowhere.wav"], "nowhere.wav: no such file"),
    ],
)
def test_what_cannot_be(live_run, words, message, monkeypatch, capsys):
    code, out, err = asr(monkeypatch, capsys, "listen", "--model", live_run, *words)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_the_page(live_run, talk, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(live.time, "sleep", lambda seconds: None)
    (tmp_path / "live").symlink_to(live_run)
    (tmp_path / "a.wav").symlink_to(talk)
    text = DOCS.read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(code, DOCS, "exec"), {})
    assert len(capsys.readouterr().out.splitlines()) > 50
    (shell,) = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    for line in shell.splitlines():
        words = shlex.split(line.partition("#")[0])
        if words[0] != "asr" or "a.wav" not in words:
            continue
        code, out, err = asr(monkeypatch, capsys, *words[1:])
        assert (code, in_time(err.encode())) == (0, b""), line
        assert out, line
