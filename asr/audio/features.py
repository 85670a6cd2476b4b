"""Waveforms to log-mel; the one owner of the arithmetic between samples, frames and seconds.

The way of an utterance: waveform -> log-mel -> normalised -> (augmented) -> deltas -> stacked
(`LogMel`, `asr.audio.normalize`, `assemble`). All of it is done for an utterance alone, by numpy:
features are the same in training and in use, with PyTorch and without.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from asr.errors import InputError
from asr.system.settings import check, setting

NORMALIZATIONS = ("utterance", "speaker", "global", "online", "none")
#: Those that are, or begin, by what train is like: a model carries it.
BY_TRAIN = ("global", "online")
# Power of a full-scale sine is ~1; digital silence must not become -inf.
LOG_FLOOR = 1e-10
#: Of Kaldi's: its least power, by how much each sample loses of the one before, and the exponent
#: that makes its window of a Hann window.
KALDI_FLOOR, PREEMPHASIS, POVEY = 2.0**-23, 0.97, 0.85
#: Frames whose spectra are in memory at once.
FRAMES_AT_ONCE = 1024
# A constant bin (digital silence, band-limited audio) has no spread to divide by.
LEAST_VARIANCE = 1e-4
DELTA_WINDOW = 5
#: Settings that models and runs from before there was a choice lack, and what they did.
ONCE = {"ignore_silence": False}
NEPER_PER_DB = math.log(10) / 10
#: A frame is speech where its mean over log-mel, in which hiss, hum and vowels count alike, is at
#: most this far below the utterance's loudest. Of so762's frames of speech 7 in 8 are, of its
#: pauses 1 in 5.
SPEECH_RANGE_DB, PEAK_FRAMES = 20.0, 11
#: What is quieter is digital silence: 16-bit noise of one bit, at -98 dB, has -71 dB in each bin.
DIGITAL_SILENCE_DB = -66.0
#: Background, such as a fan's, is a second that varies by less than this (speech by twice as much
#: or more), so far below the loudest; or anything as steady, if all of it is no louder than this.
STEADY_DB, STEADY_FRAMES, BELOW_DB, BACKGROUND_DB = 1.5, 100, 10.0, -20.0
#: Normalised log-mel ends so far below the speech's mean, in its standard deviations: there zeros,
#: dither and a quiet room sound alike.
FLOOR = 3.0


@dataclass
class FeatureConfig:
    """Log-mel settings; lengths are samples at ``sample_rate`` (25 ms windows every 10 ms)."""

    sample_rate: int = setting(16_000, "samples a second; other audio is resampled", 1, 1_000_000)
    n_fft: int = setting(512, "samples of the Fourier transform", 2, 16_384)
    win_length: int = setting(400, "samples of a window", 1, 16_384)
    hop_length: int = setting(160, "samples from one window to the next", 1, 1_000_000)
    n_mels: int = setting(80, "bands of a frame", 1, 512)
    min_hz: float = setting(20.0, "where the lowest band begins", 0, 500_000)
    max_hz: float = setting(8_000.0, "where the highest band ends", 0, 500_000)
    normalize: str = setting(
        "utterance",
        "over what bands get mean 0 and variance 1; online: over what was heard until then",
        choices=NORMALIZATIONS,
    )
    deltas: int = setting(0, "differences over time added to each band, and theirs", 0, 2)
    stack: int = setting(3, "neighbouring frames joined to one that the model sees", 1, 64)
    ignore_silence: bool = setting(
        True, "normalise by speech alone, with a floor below it; else by all frames"
    )
    log_mel: str = setting(
        "librosa",
        "whose log-mel it is; kaldi: with its pre-emphasis, window and edges",
        choices=("librosa", "kaldi"),
    )

    def __post_init__(self) -> None:
        check(self, "features")
        if not self.win_length <= self.n_fft:
            raise InputError(
                f"features.win_length={self.win_length} must lie in 1..n_fft={self.n_fft}"
            )
        if not self.min_hz < self.max_hz <= self.sample_rate / 2:
            raise InputError(
                f"features: expected 0 <= min_hz < max_hz <= {self.sample_rate / 2:g} "
                f"(half the sample rate), found {self.min_hz:g} and {self.max_hz:g}"
            )

    @property
    def hop_s(self) -> float:
        """Seconds from one window to the next."""
        return self.hop_length / self.sample_rate

    @property
    def size(self) -> int:
        """F of the assembled features that the model sees."""
        return self.n_mels * (1 + self.deltas) * self.stack


@dataclass(frozen=True)
class FrameClock:
    """Frames to seconds and back for frames that each cover ``factor`` hops.

    Log-mel frame k is centred on sample k * hop and stands for the hop around its centre. An
    output frame t covers the log-mel frames t * factor ... t * factor + factor - 1, so it spans
    the seconds [(t * factor - 1/2) hop_s, ((t + 1) * factor - 1/2) hop_s). With Kaldi's log-mel and
    in the frames of models from elsewhere all that is ``offset_s`` later.
    """

    hop_s: float
    factor: int
    offset_s: float = 0.0

    @property
    def shift_s(self) -> float:
        """Seconds from one frame to the next."""
        return self.hop_s * self.factor

    def start_s(self, frame: float) -> float:
        """Where ``frame`` begins; also where ``frame - 1`` ends."""
        return max(0.0, (frame * self.factor - 0.5) * self.hop_s + self.offset_s)

    def centre_s(self, frame: int) -> float:
        """The middle of what ``frame`` covers."""
        return (frame * self.factor + (self.factor - 1) / 2) * self.hop_s + self.offset_s


def frame_clock(config: FeatureConfig, subsampling: int = 1) -> FrameClock:
    """The clock of the frames that come out of a model that subsamples by ``subsampling``."""
    offset_s = config.hop_s / 2 if config.log_mel == "kaldi" else 0.0
    return FrameClock(config.hop_s, config.stack * subsampling, offset_s)


class LogMel:
    """Natural logarithm of the mel power spectrum, a frame every hop.

    ``features.log_mel=librosa``: equal to ``librosa.feature.melspectrogram(center=True, htk=True,
    norm=None, power=2)``, frames centred on multiples of the hop, with zeros beyond both ends,
    floored at ``LOG_FLOOR``. ``kaldi``: that of Kaldi and kaldi-native-fbank with their defaults
    (``snip_edges`` false, no dither) of samples in [-1, 1], frames centred half a hop later.
    """

    def __init__(self, config: FeatureConfig) -> None:
        self.config, n = config, config.win_length
        self.is_kaldi = config.log_mel == "kaldi"
        turns = 2 * np.pi * np.arange(n)
        if self.is_kaldi:
            self.window = (0.5 - 0.5 * np.cos(turns / max(n - 1, 1))) ** POVEY
            #: Samples of the first frame's window that lie before the first sample.
            self.lead = n // 2 - config.hop_length // 2
        else:
            self.window = 0.5 - 0.5 * np.cos(turns / n)
            self.lead = config.n_fft // 2 - (config.n_fft - n) // 2
        self.filters = mel_filters(config)
        self._window, self._filters = (a.astype(np.float32) for a in (self.window, self.filters))

    def n_frames(self, n_samples: int) -> int:
        """Frames of so many samples, one at least."""
        hop = self.config.hop_length
        return max(1, (n_samples + hop // 2) // hop) if self.is_kaldi else n_samples // hop + 1

    def __call__(self, waveform: NDArray[np.float32]) -> NDArray[np.float32]:
        """Waveform (N,) float32 in [-1, 1] -> log-mel (T, n_mels)."""
        n = self.n_frames(len(waveform))
        return self.of(self.around(waveform, -self.lead, self.n_samples(n)))

    def n_samples(self, n_frames: int) -> int:
        """Samples that the windows of so many neighbouring frames cover."""
        return (n_frames - 1) * self.config.hop_length + self.config.win_length

    def around(self, waveform: NDArray[np.float32], first: int, n: int) -> NDArray[np.float32]:
        """``n`` samples from ``first`` on, beyond both ends zeros (librosa) or mirrored (Kaldi)."""
        before, after = max(0, -first), max(0, first + n - len(waveform))
        if before or after:
            how = "symmetric" if self.is_kaldi and len(waveform) else "constant"
            waveform = np.pad(waveform, (before, after), mode=how)  # type: ignore[call-overload]
        return waveform[first + before :][:n]

    def of(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Log-mel (T, n_mels) of the windows that begin at ``samples[0]`` and every hop later."""
        config, floor = self.config, KALDI_FLOOR if self.is_kaldi else LOG_FLOOR
        windows = sliding_window_view(samples, config.win_length)[:: config.hop_length]
        found = np.empty((len(windows), config.n_mels), np.float32)
        for first in range(0, len(windows), FRAMES_AT_ONCE):
            frames = windows[first : first + FRAMES_AT_ONCE]
            if self.is_kaldi:
                frames = frames - frames.mean(axis=1, keepdims=True)
                before = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
                frames = frames - np.float32(PREEMPHASIS) * before
            spectrum = np.fft.rfft(frames * self._window, config.n_fft)
            power = np.square(spectrum.real) + np.square(spectrum.imag)
            mel = power.astype(np.float32, copy=False) @ self._filters
            found[first : first + FRAMES_AT_ONCE] = np.log(np.maximum(mel, np.float32(floor)))
        return found


def mel_filters(config: FeatureConfig) -> NDArray[np.float64]:
    """What each band takes of a power spectrum: triangles, (n_fft // 2 + 1, n_mels).

    Their sides are straight over frequency, in Kaldi's over mels, where the highest frequency of
    the spectrum has no part.
    """
    hz = np.arange(config.n_fft // 2 + 1) * config.sample_rate / config.n_fft
    if config.log_mel == "librosa":
        return triangles(hz, band_edges(config.min_hz, config.max_hz, config.n_mels))
    edges = mels(band_edges(config.min_hz, config.max_hz, config.n_mels))
    filters = triangles(mels(hz), edges)
    filters[config.n_fft // 2 :] = 0
    return filters


def band_edges(min_hz: float, max_hz: float, n: int) -> NDArray[np.float64]:
    """Where ``n`` bands of equal widths in mels begin, have their middles and end: (n + 2,) Hz."""
    low, high = mels(np.array([min_hz, max_hz]))
    return hertz(np.linspace(low, high, n + 2))


def triangles(at: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """How high bands with these ``edges`` (n + 2,) are ``at`` places (m,): (m, n), at most 1."""
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    up = (at[:, None] - left) / (centre - left)
    down = (right - at[:, None]) / (right - centre)
    found: NDArray[np.float64] = np.minimum(up, down).clip(0)
    return found


def mels(hz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where frequencies lie on the scale of the bands (HTK's formula)."""
    return 2595 * np.log10(1 + hz / 700)


def hertz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    """`mels`, undone."""
    return 700 * (10 ** (mel / 2595) - 1)


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation of each mel bin, both (n_mels,) float32."""

    mean: NDArray[np.float32]
    std: NDArray[np.float32]


def relative_levels(features: NDArray[np.float32]) -> tuple[float, NDArray[np.float64]]:
    """Of log-mel (T, n_mels): the loudest, and each frame's level below it, (T,), both in dB.

    A frame's level is its mean over log-mel; the loudest is the highest of the levels averaged
    over ``PEAK_FRAMES``.
    """
    levels = features.mean(1, dtype=np.float64) / NEPER_PER_DB
    n, reach = len(levels), PEAK_FRAMES // 2
    first = np.maximum(np.arange(n) - reach, 0)
    end = np.minimum(np.arange(n) + reach + 1, n)
    sums = np.concatenate([[0.0], levels.cumsum()])
    loudest = float(((sums[end] - sums[first]) / (end - first)).max())
    return loudest, levels - loudest


def steady(features: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which frames of log-mel (T, n_mels) lie in a stretch of steady background: (T,) bool."""
    n = len(features)
    if n < STEADY_FRAMES:
        return np.zeros(n, np.bool_)
    _, levels = relative_levels(features)
    mean, square = (
        np.convolve(each, np.full(STEADY_FRAMES, 1 / STEADY_FRAMES), "valid")
        for each in (levels, np.square(levels))
    )
    found = (square - np.square(mean) < STEADY_DB**2) & (mean < -BELOW_DB)
    return np.convolve(found, np.ones(STEADY_FRAMES)) > 0.5


def speech(features: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which frames of log-mel (T, n_mels) are loud enough to be speech: (T,) bool, perhaps none.

    Silence that is added to an utterance is not among them, nor does it change which are.
    """
    loudest, levels = relative_levels(features)
    least = max(DIGITAL_SILENCE_DB - loudest, -SPEECH_RANGE_DB)
    found = (levels >= least) & ~steady(features)
    spread = levels[found].std() if found.any() else 0.0
    is_background = loudest < BACKGROUND_DB and spread < STEADY_DB
    return np.zeros_like(found) if is_background else found


def levels_db(
    features: NDArray[np.float32], config: FeatureConfig, factor: int
) -> NDArray[np.float64]:
    """Power in dB relative to full scale of each ``factor`` frames of log-mel (T, n_mels).

    (ceil(T / factor),), as the samples' mean square: by Parseval's theorem the spectrum of a frame
    has half of n_fft times the sum of the squared window times that.
    """
    # That of a Hann window; Povey's is hardly another.
    window = 3 / 8 * config.win_length
    power = np.exp(features).sum(1, dtype=np.float64) / (config.n_fft / 2 * window)
    groups = np.pad(power, (0, -len(power) % factor), constant_values=np.nan).reshape(-1, factor)
    found: NDArray[np.float64] = 10 * np.log10(np.nanmean(groups, axis=1))
    return found


def moments(features: NDArray[np.float32], config: FeatureConfig) -> NDArray[np.float64]:
    """Of log-mel (T, n_mels): the number of frames that count, and the sums over them of the
    values and of their squares, (3, n_mels) float64.
    """
    if config.ignore_silence:
        features = features[speech(features)]
    exact = features.astype(np.float64)
    count = np.full(features.shape[1], float(len(features)))
    return np.stack([count, exact.sum(0), np.square(exact).sum(0)])


def statistics_of(sums: NDArray[np.float64]) -> Statistics:
    """Mean and standard deviation from `moments` (3, n_mels), or their sum over utterances.

    Where no frame counts they are 0 and 1, far above any silence.
    """
    n_frames, total, squares = sums
    if not n_frames.all():
        return Statistics(np.zeros(len(total), np.float32), np.ones(len(total), np.float32))
    mean = total / n_frames
    variance = np.maximum(squares / n_frames - np.square(mean), LEAST_VARIANCE)
    return Statistics(mean.astype(np.float32), np.sqrt(variance).astype(np.float32))


def statistics(features: Iterable[NDArray[np.float32]], config: FeatureConfig) -> Statistics:
    """Mean and standard deviation over the frames of log-mel matrices (T, n_mels) that count.

    Raises:
        InputError: there is no matrix at all.
    """
    sums = [moments(matrix, config) for matrix in features]
    if not sums:
        raise InputError("feature statistics: there is no utterance to take them from")
    return statistics_of(np.sum(sums, axis=0))


def stack_frames(x: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """Join each ``factor`` neighbouring frames: (T, F) -> (ceil(T / factor), F * factor).

    A last group that is not full is filled with the last frame.
    """
    if len(x) % factor:
        x = np.pad(x, ((0, -len(x) % factor), (0, 0)), mode="edge")
    return np.ascontiguousarray(x).reshape(-1, factor * x.shape[1])


def add_deltas(x: NDArray[np.float32], order: int) -> NDArray[np.float32]:
    """Append ``order`` derivatives over five frames: (T, F) -> (T, F * (1 + order)).

    The regression formula of the HTK book (eq. 5.16), edges repeated, as torchaudio's
    compute_deltas.
    """
    parts, margin = [x], DELTA_WINDOW // 2
    for _ in range(order if len(x) else 0):
        around, n = np.pad(parts[-1], ((margin, margin), (0, 0)), mode="edge"), len(x)
        weighted = sum(k * (around[margin + k :][:n] - around[margin - k :][:n]) for k in (1, 2))
        parts.append(np.asarray(weighted / np.float32(10), np.float32))
    return np.concatenate(parts, axis=1) if order else x


def assemble(x: NDArray[np.float32], config: FeatureConfig) -> NDArray[np.float32]:
    """Normalised log-mel (T, n_mels) -> the model's (ceil(T / stack), config.size)."""
    return stack_frames(add_deltas(x, config.deltas), config.stack)
