"""What the audio of a corpus is like: levels, clipping, rates, and which of it is there twice."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from asr.audio.read import audio_rate, load_audio
from asr.errors import InputError
from asr.types import Utterance

#: Samples in a row at full scale that are no peak of a wave but its cut-off top.
FLAT, FULL = 3, 0.999


class Heard(NamedTuple):
    """An utterance's audio. rate: of the file, in Hz. clipped: the share of samples at full scale,
    three or more in a row. peak: the largest sample. digest: of all samples.
    """

    rate: int
    peak: float
    clipped: float
    digest: bytes


def hear(utterances: Sequence[Utterance], tick: Callable[[], None]) -> list[Heard | InputError]:
    """Measure each utterance's audio, or say why it cannot be read; ``tick`` after each."""
    found = []
    # One reads while another is measured.
    with ThreadPoolExecutor(2) as pool:
        for result in pool.map(_heard, utterances):
            found.append(result)
            tick()
    return found


def _heard(utterance: Utterance) -> Heard | InputError:
    try:
        rate = audio_rate(utterance.audio)
        samples = load_audio(utterance.audio, rate, utterance.offset_s, utterance.duration_s)
    except InputError as error:
        return error
    levels = np.abs(samples)
    digest = hashlib.blake2b(samples.tobytes(), digest_size=16).digest()
    return Heard(rate, float(levels.max()), _clipped(levels), digest)


def _clipped(levels: np.ndarray) -> float:
    """The share of ``levels`` (N,) in runs of `FLAT` or more at full scale."""
    edges = np.flatnonzero(np.diff(levels >= FULL, prepend=False, append=False)).reshape(-1, 2)
    runs = edges[:, 1] - edges[:, 0]
    return float(runs[runs >= FLAT].sum() / len(levels))
