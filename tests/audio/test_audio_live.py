"""Audio as it comes: pipes cut anywhere, paced files, and microphones that are there or are not."""

import io
import sys
import threading
import types
import wave

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.audio import live
from asr.audio.live import Feed, Packet, of_file, of_microphone, of_stream
from asr.audio.read import load_audio
from asr.errors import InputError

SAMPLES = np.random.default_rng(0).integers(-32768, 32768, 3000).astype("<i2")


class Pipe(io.RawIOBase):
    """Gives so many bytes a read, at most."""

    def __init__(self, data, sizes):
        self.data, self.sizes = data, [*sizes]

    def readable(self):
        return True

    def readinto(self, buffer):
        n = min(len(buffer), self.sizes.pop(0) if self.sizes else 1 << 20)
        piece, self.data = self.data[:n], self.data[n:]
        buffer[: len(piece)] = piece
        return len(piece)


def wav(samples, rate=16_000, channels=1):
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(samples.tobytes())
    return file.getvalue()


def all_of(packets):
    found = list(packets)
    assert all(p.samples.dtype == np.float32 and len(p.samples) for p in found)
    return np.concatenate([p.samples for p in found]), {p.rate for p in found}


@settings(deadline=None)
@given(st.lists(st.integers(1, 5000), max_size=30), st.booleans())
def test_a_pipe_cut_anywhere(sizes, has_head):
    data = wav(SAMPLES, 8000) if has_head else SAMPLES.tobytes()
    samples, rates = all_of(of_stream(Pipe(data, sizes), None if has_head else 8000))
    np.testing.assert_array_equal(samples, SAMPLES.astype(np.float32) / 32768)
    assert rates == {8000}


def test_the_end_in_the_middle_of_a_sample():
    feed = Feed(of_stream(Pipe(SAMPLES.tobytes() + b"\0", [7, 1, 3]), 16_000))
    taken = iter(lambda: feed.take(10.0), None)
    found = []
    with pytest.raises(InputError, match="middle of a sample"):
        found.extend(taken)
    assert sum(len(p.samples) for packets in found for p in packets) == len(SAMPLES)


@pytest.mark.parametrize(
    ("data", "rate", "message"),
    [
        (SAMPLES.tobytes(), None, "--rate"),
        (wav(SAMPLES, 8000), 16_000, "--rate 16000: the WAV file on standard input has 8000"),
        (wav(SAMPLES, 8000, 2), None, "2 channels of 16 bits"),
        (b"RIFF", None, "not a WAV file"),
        (b"RIFF\0\0\0\0AVI LIST", None, "not a WAV file"),
    ],
)
def test_what_no_pipe_may_give(data, rate, message):
    with pytest.raises(InputError, match=message):
        list(of_stream(Pipe(data, []), rate))


def test_nothing_in_a_pipe():
    assert list(of_stream(Pipe(b"", []), 16_000)) == []


def test_a_paced_file_comes_as_it_is_spoken(tmp_path, monkeypatch):
    path = tmp_path / "a.wav"
    soundfile.write(path, SAMPLES, 16_000)
    now = 5.0

    def sleep(seconds):
        nonlocal now
        now += seconds

    monkeypatch.setattr(live.time, "monotonic", lambda: now)
    monkeypatch.setattr(live.time, "sleep", sleep)
    n_samples = 0
    for packet in of_file(path, 16_000, paced=True):
        n_samples += len(packet.samples)
        assert now == pytest.approx(5.0 + n_samples / 16_000)
    assert n_samples == len(SAMPLES)
    begun = now
    samples, _ = all_of(of_file(path, 8000, paced=False))
    assert now == begun
    np.testing.assert_array_equal(samples, load_audio(path, 8000))


def test_a_feed_loses_nothing_and_tells_what_waits():
    gate = threading.Event()

    def packets():
        for _ in range(3):
            yield Packet(np.zeros(8000, np.float32), 16_000)
        gate.set()

    feed = Feed(packets())
    gate.wait(10)
    assert feed.waiting_s == 1.5
    for waiting_s in (1.0, 0.5, 0.0):
        assert sum(len(p.samples) for p in feed.take(10.0)) == 8_000
        assert feed.waiting_s == waiting_s
    assert feed.take(10.0) is None


def test_a_feed_gives_nothing_where_nothing_comes():
    gate = threading.Event()

    def packets():
        gate.wait(10)
        yield Packet(np.zeros(1, np.float32), 16_000)

    feed = Feed(packets())
    assert feed.take(0.0) == []
    gate.set()
    assert len(feed.take(10.0)) == 1


@pytest.fixture
def sounddevice(monkeypatch):
    """A stand-in for the package, with one microphone of 44.1 kHz."""

    class PortAudioError(Exception):
        pass

    class InputStream:
        def __init__(self, rate, channels, dtype, callback):
            assert (channels, dtype) == (1, "float32")
            self.callback = callback

        def __enter__(self):
            for n, overflow in ((100, False), (200, True)):
                status = types.SimpleNamespace(input_overflow=overflow)
                self.callback(np.full((n, 1), 0.5, np.float32), n, None, status)
            return self

        def __exit__(self, *error):
            self.callback = None

    module = types.ModuleType("sounddevice")
    module.PortAudioError, module.InputStream = PortAudioError, InputStream
    module.query_devices = lambda kind: {"default_samplerate": 44_100.0}
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    monkeypatch.setattr(live, "MOST_SILENT_S", 0.01)
    return module


def test_a_microphone_that_vanishes(sounddevice):
    told, found = [], []
    with pytest.raises(InputError, match=r"microphone: no audio for 0\.01 s"):
        found.extend(of_microphone(told.append))
    assert [(len(p.samples), p.rate) for p in found] == [(100, 44_100), (200, 44_100)]
    assert told == ["the system lost audio of the microphone: the machine is too slow"]


def test_no_microphone(sounddevice):
    def query_devices(kind):
        raise sounddevice.PortAudioError("Error querying device -1")

    sounddevice.query_devices = query_devices
    with pytest.raises(InputError, match="microphone: Error querying device -1; is one plugged in"):
        next(of_microphone(print))


def test_no_sounddevice(monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(InputError, match=r"pip install carousel-asr\[live\]"):
        next(of_microphone(print))


@pytest.mark.parametrize("n_bytes", range(7))
def test_next_to_nothing_in_a_pipe(n_bytes):
    taken = iter(of_stream(Pipe(SAMPLES.tobytes()[:n_bytes], [1] * 7), 16_000))
    found = []
    if n_bytes % 2:
        with pytest.raises(InputError, match="middle"):
            found.extend(taken)
    else:
        found.extend(taken)
    assert sum(len(p.samples) for p in found) == n_bytes // 2
