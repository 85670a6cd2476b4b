"""What is silence in a recording, and how much of it a net is spared: one rule for every length."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Levels are averaged over this time, so that a stop's closure is no pause.
SMOOTHING_S = 0.2
#: A pause at least this long may be left out, all but ``MARGIN_S`` on either side.
LEAST_SILENCE_S, MARGIN_S = 1.0, 0.3
#: Silence lies so much below loud speech (the level exceeded in a tenth of what is not digital
#: silence), or below the level of digital silence. 16-bit noise of one bit has -98 dB.
SILENCE_DB, DIGITAL_SILENCE_DB = 40.0, -80.0


def loudness(levels: NDArray[np.floating]) -> float:
    """The level in dB of loud speech among smoothed ``levels`` (T,); -inf where there is none."""
    heard = levels[levels > DIGITAL_SILENCE_DB]
    return float(np.quantile(heard, 0.9)) if len(heard) else -np.inf


def is_quiet(levels: NDArray[np.floating], loud: float) -> NDArray[np.bool_]:
    """Which of smoothed ``levels`` (T,) in dB are silence beside speech that is ``loud``."""
    return levels < max(loud - SILENCE_DB, DIGITAL_SILENCE_DB)


def smoothed(levels: NDArray[np.floating], n: int) -> NDArray[np.floating]:
    """Levels (T,) averaged over ``n`` neighbours."""
    around = np.pad(levels, (n // 2, n - 1 - n // 2), mode="edge")
    return np.convolve(around, np.full(n, 1 / n), "valid")


def frames_in(seconds: float, shift_s: float) -> int:
    """Frames of ``shift_s`` that last about so many seconds, at least one."""
    return max(1, round(seconds / shift_s))


def left_out(quiet: NDArray[np.bool_], shift_s: float) -> NDArray[np.bool_]:
    """Which frames of a whole utterance lie so deep in long silence that nothing is lost with them.

    quiet: (T,), which frames of ``shift_s`` seconds are silence.
    """
    margin = frames_in(MARGIN_S, shift_s)
    edges = np.flatnonzero(np.diff(quiet, prepend=False, append=False))
    found = np.zeros(len(quiet), bool)
    for first, end in edges.reshape(-1, 2).tolist():
        if end - first >= frames_in(LEAST_SILENCE_S, shift_s):
            # What begins or ends a recording has no speech beyond.
            found[first + margin * (first > 0) : end - margin * (end < len(quiet))] = True
    return found
