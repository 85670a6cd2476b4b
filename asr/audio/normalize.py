"""Log-mel normalised: by statistics known beforehand, or by what was heard until then."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asr.audio.features import (
    DIGITAL_SILENCE_DB,
    FLOOR,
    NEPER_PER_DB,
    PEAK_FRAMES,
    SPEECH_RANGE_DB,
    STEADY_DB,
    STEADY_FRAMES,
    FeatureConfig,
    Statistics,
)
from asr.system.jit import compiled

#: Frames of speech whose mean is taken off (``cmn_window`` of Kaldi's OnlineCmvnOptions), and how
#: many of the training set stand in where there are fewer (``global_frames``).
WINDOW, PRIOR_FRAMES = 600, 200
#: Fewer for the level, the mean over all bins, in which recordings differ most: on so762's dev a
#: trained net had 44.7 % of phones wrong with 50, 45.4 % with 200, and with 50 for all bins 45.9 %.
PRIOR_LEVEL_FRAMES = 50
#: Until something louder comes, the loudest is taken to lie so far below the training set's mean.
START_DB = 10.0
#: A second is steady, too, where nothing but its level varies: how loud each of so many bands is
#: beside all of them, by less than this. Hiss that swells and fades has 1.3 to 1.5 dB; of the
#: seconds of so762's dev whose level varies, one in a thousand has less than 1.8.
N_BANDS, SHAPE_DB = 8, 1.8
#: What varies as speech does and is too quiet beside the loudest makes that fade, by so much a
#: frame: after a bang speech counts again.
FADE_DB = 0.02


@dataclass
class Heard:
    """What online normalisation keeps of a stream.

    window: (WINDOW, n_mels), the last frames that counted; sums: (n_mels,), over it. recent:
    (1 + bands, STEADY_FRAMES), the levels of the last frames in dB, and those of bands beside them;
    loudest: (1,). counts: (2,), all frames and those that counted.
    """

    window: NDArray[np.float32]
    sums: NDArray[np.float64]
    recent: NDArray[np.float64]
    loudest: NDArray[np.float64]
    counts: NDArray[np.int64]


def nothing_heard(prior: Statistics) -> Heard:
    """Where a stream begins."""
    n_mels = len(prior.mean)
    return Heard(
        np.zeros((WINDOW, n_mels), np.float32),
        np.zeros(n_mels),
        np.zeros((1 + N_BANDS * (n_mels >= N_BANDS), STEADY_FRAMES)),
        np.array([float(prior.mean.mean(dtype=np.float64)) / NEPER_PER_DB - START_DB]),
        np.zeros(2, np.int64),
    )


def forget(heard: Heard, before: Heard) -> None:
    """Let nothing normalise that was heard since ``before``, a copy from then."""
    heard.window[:], heard.sums[:] = before.window, before.sums
    heard.loudest[:], heard.counts[1] = before.loudest, before.counts[1]


def renew(heard: Heard) -> None:
    """Let what was heard count as no more than the training set does where a stream begins."""
    n = min(int(heard.counts[1]), WINDOW)
    if n <= PRIOR_FRAMES:
        return
    mean = heard.sums / n
    heard.window[:] = 0
    heard.window[:PRIOR_FRAMES] = mean
    heard.sums[:] = heard.window.sum(axis=0, dtype=np.float64)
    heard.counts[1] = PRIOR_FRAMES


def normalize(
    features: NDArray[np.float32], stats: Statistics | None, config: FeatureConfig
) -> NDArray[np.float32]:
    """Shift and scale log-mel (T, n_mels) to zero mean and unit variance under ``stats``."""
    if stats is None:
        return features
    if config.normalize == "online":
        return normalize_on(features, stats, config, nothing_heard(stats))
    normal: NDArray[np.float32] = (features - stats.mean) / stats.std
    return np.maximum(normal, np.float32(-FLOOR)) if config.ignore_silence else normal


def normalize_on(
    features: NDArray[np.float32], prior: Statistics, config: FeatureConfig, heard: Heard
) -> NDArray[np.float32]:
    """The next frames (T, n_mels) of a stream, normalised by what it has heard by each of them.

    The mean is that of a sliding window and, while this is not full, of the ``prior``, as in
    Kaldi's online-cmvn; the standard deviation is the prior's. ``heard`` goes on, by the same
    arithmetic whatever comes at once. Of so762's dev 88 % of the frames count, or not, as by
    `features.speech`, which knows the whole.
    """
    normal = np.empty(features.shape, np.float32)
    slide(
        np.ascontiguousarray(features),
        prior.mean.astype(np.float64),
        prior.std.astype(np.float64),
        config.ignore_silence,
        heard.window,
        (heard.sums, heard.recent, heard.loudest, heard.counts),
        normal,
    )
    return np.maximum(normal, np.float32(-FLOOR)) if config.ignore_silence else normal


@compiled
def slide(
    features: NDArray[np.float32],
    mean: NDArray[np.float64],
    std: NDArray[np.float64],
    by_speech: bool,
    window: NDArray[np.float32],
    heard: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]],
    normal: NDArray[np.float32],
) -> None:
    """`normalize_on`, into ``normal``; window and heard are `Heard`'s."""
    sums, recent, loudest, counts = heard
    n_bins = features.shape[1]
    for t in range(len(features)):
        level = 0.0
        for f in range(n_bins):
            level += features[t, f]
        level /= n_bins * NEPER_PER_DB
        at = counts[0] % STEADY_FRAMES
        recent[0, at] = level
        for band in range(len(recent) - 1):
            first, end = band * n_bins // N_BANDS, (band + 1) * n_bins // N_BANDS
            in_band = 0.0
            for f in range(first, end):
                in_band += features[t, f]
            recent[1 + band, at] = in_band / ((end - first) * NEPER_PER_DB) - level
        counts[0] += 1
        if not by_speech or is_speech(level, recent, loudest, counts[0]):
            row = window[counts[1] % WINDOW]
            for f in range(n_bins):
                sums[f] += features[t, f] - row[f]
                row[f] = features[t, f]
            counts[1] += 1
        n = min(counts[1], WINDOW)
        room = WINDOW - n
        n_prior, n_level = min(PRIOR_FRAMES, room), min(PRIOR_LEVEL_FRAMES, room)
        # The bins' means by the longer prior, all moved to the level by the shorter.
        level_sum, level_mean = sums.mean(), mean.mean()
        moved = (level_sum + n_level * level_mean) / (n + n_level)
        moved -= (level_sum + n_prior * level_mean) / (n + n_prior)
        for f in range(n_bins):
            centre = (sums[f] + n_prior * mean[f]) / (n + n_prior) + moved
            normal[t, f] = (features[t, f] - centre) / std[f]


@compiled
def is_speech(
    level: float, recent: NDArray[np.float64], loudest: NDArray[np.float64], n_frames: int
) -> bool:
    """Whether the newest frame counts; `features.speech` of what was heard by then."""
    if level < DIGITAL_SILENCE_DB:
        return False
    peak = 0.0
    n_peak = min(PEAK_FRAMES, n_frames)
    for back in range(n_peak):
        peak += recent[0, (n_frames - 1 - back) % STEADY_FRAMES]
    loudest[0] = max(loudest[0], peak / n_peak)
    if n_frames >= STEADY_FRAMES and is_steady(recent):
        return False
    if level >= loudest[0] - SPEECH_RANGE_DB:
        return True
    loudest[0] -= FADE_DB
    return False


@compiled
def is_steady(recent: NDArray[np.float64]) -> bool:
    """Whether the last second (`Heard`) varies in nothing, or in its level alone."""
    if recent[0].std() < STEADY_DB:
        return True
    n_bands = len(recent) - 1
    spread = 0.0
    for band in range(n_bands):
        spread += recent[1 + band].std()
    return n_bands > 0 and spread < n_bands * SHAPE_DB
