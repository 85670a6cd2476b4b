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
#: What varies as speech does and is too quiet beside the loudest makes that fade, by so much a
#: frame: after a bang speech counts again.
FADE_DB = 0.02


@dataclass
class Heard:
    """What online normalisation keeps of a stream.

    window: (WINDOW, n_mels), the last frames that counted; sums: (n_mels,), over it. levels: of the
    last ``STEADY_FRAMES`` in dB; loudest: (1,). counts: (2,), all frames and those that counted.
    """

    window: NDArray[np.float32]
    sums: NDArray[np.float64]
    levels: NDArray[np.float64]
    loudest: NDArray[np.float64]
    counts: NDArray[np.int64]


def nothing_heard(prior: Statistics) -> Heard:
    """Where a stream begins."""
    n_mels = len(prior.mean)
    return Heard(
        np.zeros((WINDOW, n_mels), np.float32),
        np.zeros(n_mels),
        np.zeros(STEADY_FRAMES),
        np.array([float(prior.mean.mean(dtype=np.float64)) / NEPER_PER_DB - START_DB]),
        np.zeros(2, np.int64),
    )


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
        (heard.sums, heard.levels, heard.loudest, heard.counts),
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
    sums, levels, loudest, counts = heard
    n_bins = features.shape[1]
    for t in range(len(features)):
        level = 0.0
        for f in range(n_bins):
            level += features[t, f]
        level /= n_bins * NEPER_PER_DB
        levels[counts[0] % STEADY_FRAMES] = level
        counts[0] += 1
        if not by_speech or is_speech(level, levels, loudest, counts[0]):
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
    level: float, levels: NDArray[np.float64], loudest: NDArray[np.float64], n_frames: int
) -> bool:
    """Whether the newest of the ``levels`` counts; `features.speech` of what was heard by then."""
    if level < DIGITAL_SILENCE_DB:
        return False
    recent = 0.0
    n_recent = min(PEAK_FRAMES, n_frames)
    for back in range(n_recent):
        recent += levels[(n_frames - 1 - back) % STEADY_FRAMES]
    loudest[0] = max(loudest[0], recent / n_recent)
    if n_frames >= STEADY_FRAMES and levels.std() < STEADY_DB:
        return False
    if level >= loudest[0] - SPEECH_RANGE_DB:
        return True
    loudest[0] -= FADE_DB
    return False
