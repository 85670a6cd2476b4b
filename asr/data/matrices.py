"""The features of utterances: log-mel once, and the statistics that normalise it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asr.audio.features import FeatureConfig, LogMel, Statistics, moments, statistics_of
from asr.audio.read import load_audio
from asr.audio.resample import change_speed
from asr.errors import InputError
from asr.types import Utterance


@dataclass(frozen=True, slots=True)
class Matrix:
    """Log-mel (T, n_mels) as computed, and its `features.moments` (3, n_mels)."""

    features: NDArray[np.float32]
    moments: NDArray[np.float64]


def matrix_of(log_mel: LogMel, waveform: NDArray[np.float32]) -> Matrix:
    """The log-mel of a waveform (N,)."""
    features = log_mel(waveform)
    return Matrix(features, moments(features, log_mel.config))


def extract(
    utterances: Sequence[Utterance],
    config: FeatureConfig,
    skipped: dict[str, str],
    tick: Callable[[], None] = lambda: None,
    speed: float = 1.0,
) -> dict[str, Matrix]:
    """Compute the log-mel matrix (T, n_mels) of every utterance at ``speed``, by id.

    Unreadable audio is left out: ``skipped`` gets its id and the reason. ``tick`` is called
    after each utterance, for a progress bar.
    """
    log_mel = LogMel(config)

    def one(utterance: Utterance) -> Matrix | InputError:
        try:
            waveform = load_audio(
                utterance.audio, config.sample_rate, utterance.offset_s, utterance.duration_s
            )
        except InputError as error:
            return error
        return matrix_of(log_mel, change_speed(waveform, speed))

    matrices = {}
    # One reads while the other computes.
    with ThreadPoolExecutor(2) as pool:
        for utterance, result in zip(utterances, pool.map(one, utterances), strict=True):
            if isinstance(result, InputError):
                skipped[utterance.id] = str(result)
            else:
                matrices[utterance.id] = result
            tick()
    return matrices


def pooled(matrices: Sequence[Matrix]) -> Statistics:
    """Mean and standard deviation over the frames of all ``matrices`` that count."""
    return statistics_of(np.sum([m.moments for m in matrices], axis=0))


def set_statistics(
    matrices: Mapping[str, Matrix],
    speakers: Mapping[str, str],
    how: str,
    global_stats: Statistics | None = None,
) -> dict[str, Statistics | None]:
    """What normalises each utterance: statistics of its own, of its speaker's, or of train."""
    if how == "none":
        return dict.fromkeys(matrices)
    if how == "utterance":
        return {i: pooled([m]) for i, m in matrices.items()}
    if how == "speaker":
        groups = defaultdict(list)
        for i, matrix in matrices.items():
            groups[speakers[i]].append(matrix)
        stats = {speaker: pooled(group) for speaker, group in groups.items()}
        return {i: stats[speakers[i]] for i in matrices}
    if global_stats is None:
        raise InputError(f"features.normalize={how}: the model carries no feature statistics")
    return dict.fromkeys(matrices, global_stats)
