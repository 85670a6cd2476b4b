"""Sound in what ffmpeg reads and libsndfile does not (m4a, mp4, webm ...), with PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Self

import av
import numpy as np
from av.container import InputContainer

from asr.errors import InputError

#: ffmpeg's names of the containers that are opened, all of which hold what they play: a playlist
#: would have other files read, of this machine or of others.
CONTAINERS = (
    "3g2 3gp aac ac3 aiff amr amrnb amrwb ape asf avi caf dts eac3 flac flv loas m4a matroska mj2 "
    "mov mp3 mp4 mpc mpc8 mpeg mpegts ogg rm tak tta w64 wav webm wtv wv xwma"
).split()
OPTIONS = {"format_whitelist": ",".join(CONTAINERS), "protocol_whitelist": "none"}
#: Containers whose header tells the length; elsewhere ffmpeg guesses it.
TELLING = {"mov", "matroska"}
#: Sound may end so much before what its container tells, or before the pictures.
MOST_MISSING_S = 0.5


class UnknownError(Exception):
    """No container that is opened."""


class Medium:
    """What `soundfile.SoundFile` is to other files: of this one's first stream of sound.

    samplerate: Hz. channels: their number. Blocks have the rate and channels that the first has.
    """

    def __init__(self, path: Path, content: BinaryIO) -> None:
        """Begin to decode. path: for messages.

        Raises:
            UnknownError: it is nothing that ffmpeg knows, or that is opened.
            InputError: it holds no sound, or what cannot be decoded.
        """
        self.path, self.content = path, content
        self._begin()
        if not len(self._held):
            raise InputError(f"{path}: holds no samples (zero-length or cut short); leave it out")

    def _begin(self) -> None:
        self.content.seek(0)
        try:
            self.container: InputContainer = av.open(
                self.content, "r", options=OPTIONS, metadata_errors="replace"
            )
        except (av.FFmpegError, ValueError) as error:
            raise UnknownError(str(error)) from error
        if not self.container.streams.audio:
            self.close()
            raise InputError(f"{self.path}: holds no sound; expected audio")
        self._decoded = self._blocks()
        self._held = next(self._decoded, np.zeros((0, 1), np.float32))
        self._n_read = 0

    def _blocks(self) -> Iterator[np.ndarray]:
        """Samples (N, channels) float32, about a frame of the codec at a time.

        Raises:
            InputError: a damaged frame, or the end before the length that was told.
        """
        stream = self.container.streams.audio[0]
        resampler, end_s = None, 0.0
        try:
            for packet in self.container.demux():
                if packet.pts is not None:
                    end_s = max(
                        end_s, float((packet.pts + (packet.duration or 0)) * packet.time_base)
                    )
                if packet.stream is not stream:
                    continue
                for frame in packet.decode():
                    assert isinstance(frame, av.AudioFrame)
                    if resampler is None:
                        self.samplerate, self.channels = frame.sample_rate, frame.layout.nb_channels
                        resampler = av.AudioResampler("flt", frame.layout, frame.sample_rate)
                    for same in resampler.resample(frame):
                        if same.samples:
                            yield same.to_ndarray().reshape(-1, self.channels)
        except av.FFmpegError as error:
            raise InputError(
                f"{self.path}: damaged audio ({error.strerror}); get a whole copy or leave it out"
            ) from error
        told_s = (self.container.duration or 0) / av.time_base
        if TELLING & set(self.container.format.name.split(",")) and end_s < told_s - MOST_MISSING_S:
            raise InputError(
                f"{self.path}: truncated audio ({told_s:g} s promised, {end_s:g} s there); get a "
                "whole copy or leave it out"
            )

    @cached_property
    def frames(self) -> int:
        """The number of samples, for which all is decoded."""
        self.seek(0)
        n = len(self._held) + sum(map(len, self._decoded))
        self._begin()
        return n

    def seek(self, at: int) -> None:
        """Go to a sample, decoding all that is before it: exact in every container."""
        if at < self._n_read:
            self.close()
            self._begin()
        while self._n_read < at and len(self.read(at - self._n_read)):
            pass

    def read(self, most: int, dtype: str = "float32", always_2d: bool = True) -> np.ndarray:
        """The next samples (N, channels) float32, ``most`` of them or a block; none at the end."""
        if not len(self._held):
            self._held = next(self._decoded, self._held)
        found, self._held = self._held[:most], self._held[most:]
        self._n_read += len(found)
        return found

    def close(self) -> None:
        """Let go of the decoder; the content is the caller's."""
        self.container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
