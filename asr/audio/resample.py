"""Waveforms at another rate, or played at another speed, by a windowed sinc."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from asr.errors import InputError

#: Taps of the largest resampling kernel (rate x rate / gcd^2): 470 MB while it is made. 44056 Hz
#: (NTSC video) to 16000 has 1.1e7, 22255 Hz (old Macintoshes) 1.4e7.
MAX_KERNEL = 1.5e7
#: Zeros of the sinc on either side that a Hann window lets through, and where it cuts frequencies
#: off, as a share of the lower rate's half: torchaudio's.
ZEROS, ROLLOFF = 6, 0.99
#: Samples that are multiplied with a kernel at once.
AT_ONCE = 1 << 20
#: Speeds are ratios of whole numbers up to this, so that the kernels stay short.
MAX_RATIO = 100
SLOWEST, FASTEST = 0.5, 2.0


def change_speed(waveform: NDArray[np.float32], speed: float) -> NDArray[np.float32]:
    """Waveform (N,) -> (ceil(N / speed),): faster and higher above 1, as a tape played faster."""
    ratio = Fraction(speed).limit_denominator(MAX_RATIO)
    return resample(waveform, ratio.numerator, ratio.denominator)


def resample(waveform: NDArray[np.float32], rate: int, new_rate: int) -> NDArray[np.float32]:
    """Waveform (N,) at ``rate`` -> (ceil(N new_rate / rate),), equal to torchaudio's resample."""
    common = math.gcd(rate, new_rate)
    unit, new_unit = rate // common, new_rate // common
    if unit == new_unit:
        return waveform
    kernel = _kernel(unit, new_unit)
    n_taps = len(kernel)
    width = (n_taps - unit) // 2
    windows = sliding_window_view(np.pad(waveform, (width, width + unit)), n_taps)[::unit]
    found = np.empty((len(windows), new_unit), np.float32)
    step = max(1, AT_ONCE // n_taps)
    for first in range(0, len(windows), step):
        found[first : first + step] = windows[first : first + step] @ kernel
    return found.reshape(-1)[: -(-len(waveform) * new_unit // unit)]


# A folder of audio at ever other rates must not fill the memory.
@lru_cache(maxsize=4)
def _kernel(unit: int, new_unit: int) -> NDArray[np.float32]:
    """What each of ``new_unit`` samples takes of those around ``unit``: (taps, new_unit).

    x(t) = sum_i x[i] sinc(rate (i / rate - t)), in a window (Smith, Digital Audio Resampling).
    """
    lower = min(unit, new_unit) * ROLLOFF
    width = math.ceil(ZEROS * unit / lower)
    taps = np.arange(-width, width + unit)[:, None] / unit
    times = (taps - np.arange(new_unit) / new_unit) * lower
    times = times.clip(-ZEROS, ZEROS)
    found = np.sinc(times) * np.cos(times * np.pi / ZEROS / 2) ** 2 * lower / unit
    return found.astype(np.float32)


class Resampling:
    """Resamples a waveform that comes in packets, a sample as soon as all that it needs is there.

    at_once_s: so many seconds are computed at once, always, so that the samples are the same to
    the last bit however the waveform was cut; 0: all that is there.

    Raises:
        InputError: there is no short ratio between the rates; the line begins with ``name``.
    """

    def __init__(self, rate: int, sample_rate: int, name: str, at_once_s: float = 0.0) -> None:
        if sample_rate < 1:
            raise InputError(f"sample_rate {sample_rate}: expected a rate in Hz")
        common = math.gcd(rate, sample_rate)
        if rate * sample_rate / common**2 > MAX_KERNEL:
            raise InputError(
                f"{name}: {rate} Hz has no short ratio to {sample_rate} Hz; resample it first"
            )
        self.unit, self.new_unit = rate // common, sample_rate // common
        # What the kernel sees on either side of a sample, in whole units: those are resampled
        # exactly.
        width = ZEROS / ROLLOFF * max(1.0, self.unit / self.new_unit)
        self._margin = math.ceil(math.ceil(width) / self.unit) + 1
        self._at_once = max(1, round(at_once_s * rate / self.unit)) if at_once_s else 0
        self._held = np.zeros(self._margin * self.unit, np.float32)

    def of(self, samples: np.ndarray) -> np.ndarray:
        """Take samples (N,) and give those that can be told by now."""
        self._held = np.concatenate([self._held, samples])
        ready = len(self._held) // self.unit - 2 * self._margin
        n = ready // self._at_once * self._at_once if self._at_once else ready
        if n <= 0:
            return np.zeros(0, np.float32)
        if self._at_once:
            found = self._in_pieces(n // self._at_once)
        else:
            found = self._resampled(self._held[: (n + 2 * self._margin) * self.unit])
        self._held = self._held[n * self.unit :]
        return found[: n * self.new_unit]

    def _in_pieces(self, n: int) -> np.ndarray:
        """The first ``n`` pieces, each multiplied with the kernel by itself."""
        kernel = _kernel(self.unit, self.new_unit)
        first = self._margin * self.unit - (len(kernel) - self.unit) // 2
        windows = sliding_window_view(self._held[first:], len(kernel))[:: self.unit]
        found = np.empty((n, self._at_once, self.new_unit), np.float32)
        step = max(1, AT_ONCE // (self._at_once * len(kernel)))
        for begin in range(0, n, step):
            end = min(begin + step, n)
            rows = windows[begin * self._at_once : end * self._at_once]
            found[begin:end] = rows.reshape(end - begin, self._at_once, -1) @ kernel
        return found.reshape(-1)

    def rest(self) -> np.ndarray:
        """Give what is left at the end of the waveform."""
        return self._resampled(self._held)

    def _resampled(self, held: np.ndarray) -> np.ndarray:
        found = resample(held, self.unit, self.new_unit)
        return found[self._margin * self.new_unit :]
