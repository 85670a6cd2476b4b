"""Audio as it comes: from a microphone, from a pipe, or from a file as if it were spoken now."""

from __future__ import annotations

import io
import queue
import threading
import time
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr.audio.read import audio_blocks
from asr.errors import InputError

#: Seconds of a packet that is cut from a file.
PACKET_S = 0.05
#: Bytes read at once, if there are as many.
PIECE = 1 << 15
#: Packets that wait at most, then the source has to. At `PIECE` bytes they are over an hour.
MOST_WAITING = 10_000
#: Seconds of audio that are taken at once, at most a packet more: who is behind still sees words
#: come.
MOST_TAKEN_S = 0.5
#: Without any audio for so many seconds a microphone is gone.
MOST_SILENT_S = 3.0


class Packet(NamedTuple):
    """Samples (N,) float32 in [-1, 1] at ``rate`` Hz."""

    samples: NDArray[np.float32]
    rate: int


Packets = Iterator[Packet]


class Feed:
    """Takes packets in a thread of its own, so that none is lost while others are recognised."""

    def __init__(self, packets: Packets) -> None:
        self._queue: queue.Queue[Packet | InputError | None] = queue.Queue(MOST_WAITING)
        self._came_s = self._taken_s = 0.0
        self._error: InputError | None = None
        self._ended = False
        # A daemon: a pipe that stalls must not keep the process alive.
        threading.Thread(target=self._run, args=(packets,), daemon=True).start()

    @property
    def waiting_s(self) -> float:
        """Seconds of audio that have come and are not taken."""
        return self._came_s - self._taken_s

    def take(self, most_s: float) -> list[Packet] | None:
        """What has come, up to ``MOST_TAKEN_S``; where that is nothing, what comes first, or
        nothing after ``most_s`` seconds. None at the end.

        Raises:
            InputError: the source failed, and all that came before is taken.
        """
        packets: list[Packet] = []
        enough_s = self._taken_s + MOST_TAKEN_S
        while not self._ended and self._taken_s < enough_s:
            try:
                item = self._queue.get(timeout=0 if packets else most_s)
            except queue.Empty:
                return packets
            if isinstance(item, Packet):
                packets.append(item)
                self._taken_s += len(item.samples) / item.rate
            else:
                self._ended, self._error = True, item
        if packets:
            return packets
        if self._error is not None:
            raise self._error
        return None

    def _run(self, packets: Packets) -> None:
        try:
            for packet in packets:
                self._came_s += len(packet.samples) / packet.rate
                self._queue.put(packet)
        except InputError as error:
            self._queue.put(error)
        except OSError as error:
            self._queue.put(InputError(f"audio: cannot be read ({error.strerror or error})"))
        else:
            self._queue.put(None)


def of_file(path: Path, rate: int, paced: bool) -> Packets:
    """A file in packets at ``rate`` Hz; ``paced``: each when its last sample would be spoken.

    Raises:
        InputError: as `audio_blocks`.
    """
    begun, n_samples = time.monotonic(), 0
    for block in audio_blocks(path, rate, block_s=PACKET_S):
        n_samples += len(block)
        if paced:
            time.sleep(max(0.0, begun + n_samples / rate - time.monotonic()))
        yield Packet(block, rate)


def of_stream(stream: io.RawIOBase, rate: int | None) -> Packets:
    """Raw 16-bit little-endian mono samples at ``rate`` Hz, or a WAV file of that kind.

    Raises:
        InputError: no ``rate`` of raw samples, or another than the WAV file's; another kind of WAV
            file; an end in the middle of a sample, after all before it.
    """
    buffered: io.BufferedReader = io.BufferedReader(stream, PIECE)
    held = buffered.read(4)
    if held == b"RIFF":
        rate, held = _wav_rate(_Opened(held, buffered), rate), b""
    if rate is None:
        raise InputError("-: raw samples need their rate in Hz: add --rate")
    while piece := buffered.read1(PIECE):
        piece = held + piece
        n_bytes = len(piece) // 2 * 2
        held = piece[n_bytes:]
        if n_bytes:
            yield _packet(piece[:n_bytes], rate)
    if len(held) > 1:  # nothing came after the first four bytes
        yield _packet(held[: len(held) // 2 * 2], rate)
    if len(held) % 2:
        raise InputError(
            "-: ends in the middle of a sample; expected 16-bit samples, two bytes each"
        )


def _packet(data: bytes, rate: int) -> Packet:
    return Packet(np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32768), rate)


class _Opened:
    """A stream whose first bytes were read already."""

    def __init__(self, head: bytes, stream: io.BufferedReader) -> None:
        self._head, self._stream = head, stream

    def read(self, n: int) -> bytes:
        head, self._head = self._head[:n], self._head[n:]
        return head + self._stream.read(n - len(head))


def _wav_rate(stream: Any, rate: int | None) -> int:
    """Read the head of a WAV file; what is left are its samples."""
    try:
        head = wave.open(stream)  # noqa: SIM115
    except (wave.Error, EOFError) as error:
        raise InputError(f"-: not a WAV file that can be read ({error})") from error
    if (head.getnchannels(), head.getsampwidth()) != (1, 2):
        raise InputError(
            f"-: {head.getnchannels()} channels of {8 * head.getsampwidth()} bits; expected mono "
            "of 16 bits (arecord -f S16_LE -c 1)"
        )
    if rate not in (None, head.getframerate()):
        raise InputError(f"--rate {rate}: the WAV file on standard input has {head.getframerate()}")
    return head.getframerate()


def of_microphone(tell: Callable[[str], None]) -> Packets:
    """What the default microphone hears, at its own rate, until it is closed or vanishes.

    tell: gets a line where the system lost audio.

    Raises:
        InputError: there is no microphone, or no `sounddevice` to hear it with; it vanished.
    """
    try:
        import sounddevice
    except ImportError as error:
        raise InputError(
            "microphone: needs the package sounddevice: pip install carousel-asr[live]"
        ) from error
    except OSError as error:
        raise InputError(f"microphone: {error}; install PortAudio (libportaudio2)") from error
    came: queue.SimpleQueue[NDArray[np.float32]] = queue.SimpleQueue()

    def heard(samples: NDArray[np.float32], n: int, time: object, status: object) -> None:
        if getattr(status, "input_overflow", False):
            tell("the system lost audio of the microphone: the machine is too slow")
        came.put(samples[:, 0].copy())

    try:
        rate = round(sounddevice.query_devices(kind="input")["default_samplerate"])
        with sounddevice.InputStream(rate, channels=1, dtype="float32", callback=heard):
            while True:
                yield Packet(came.get(timeout=MOST_SILENT_S), rate)
    except queue.Empty:
        raise InputError(
            f"microphone: no audio for {MOST_SILENT_S:g} s, it seems to be unplugged"
        ) from None
    except (sounddevice.PortAudioError, ValueError) as error:
        raise InputError(f"microphone: {error}; is one plugged in?") from error
