"""Where the sound changes most: the likeliest boundary within a short stretch of audio."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from asr.audio.features import band_edges, triangles

#: Shorter windows than those of the features a net hears: a burst lasts 10 ms.
WINDOW_S, HOP_S = 0.010, 0.0025
N_MELS, LOWEST_HZ = 24, 100.0
PRE_EMPHASIS = 0.97
#: Of the power spectrum of samples in [-1, 1]: digital silence is no quieter.
FLOOR = 1e-7
#: Frames on either side of a boundary, at least.
LEAST = 2


def change_s(waveform: np.ndarray, rate: int, from_s: float, to_s: float) -> float | None:
    """When between two times the sound changes most; None where they lie too close together.

    It is where log-mel, cut in two there, varies least about the means of its two parts: the
    likeliest change between two normal distributions of one variance.

    waveform: (N,) in [-1, 1] at ``rate`` Hz.
    """
    size, hop = round(WINDOW_S * rate), round(HOP_S * rate)
    first = max(0, round(from_s * rate) - size // 2)
    last = min(len(waveform), round(to_s * rate) + size // 2)
    if last - first < size + (2 * LEAST - 1) * hop:
        return None
    frames = _log_mel(waveform[first:last].astype(np.float64), rate, size, hop)
    counts = np.arange(1, len(frames))[:, None]
    left = frames.cumsum(0)[:-1]
    right = frames.sum(0) - left
    explained = (left**2 / counts + right**2 / (len(frames) - counts)).sum(1)
    n_left = LEAST + int(explained[LEAST - 1 : len(frames) - LEAST].argmax())
    return (first + size / 2 + (n_left - 0.5) * hop) / rate


def _log_mel(samples: NDArray[np.float64], rate: int, size: int, hop: int) -> NDArray[np.float64]:
    sharp = np.append(0.0, samples[1:] - PRE_EMPHASIS * samples[:-1])
    windows = np.lib.stride_tricks.sliding_window_view(sharp, size)[::hop]
    bank = _bank(rate, size)
    power = np.abs(np.fft.rfft(windows * np.hanning(size), 2 * len(bank) - 2)) ** 2
    return np.log(power @ bank + FLOOR)


@cache
def _bank(rate: int, size: int) -> NDArray[np.float64]:
    """Mel filters (bins of a spectrum at least three windows long, N_MELS)."""
    n_bins = (1 << (3 * size - 1).bit_length()) // 2 + 1
    return triangles(np.linspace(0, rate / 2, n_bins), band_edges(LOWEST_HZ, rate / 2, N_MELS))
