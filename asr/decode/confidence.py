"""Confidences that mean what they say: of the labels given 0.8, eight in ten are right.

A decoder's raw confidence is the mean posterior over a label's span (of a word: over its labels).
Nets are too sure of themselves, and what they are sure of is a frame, not a word: a logistic
regression fitted on dev, where the transcript tells what is right, maps it to a probability
(Platt 1999).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from asr.errors import InputError
from asr.system.settings import check, setting
from asr.types import Hypothesis

#: Fewer labels or words than this, or fewer right or wrong ones than ``FEWEST_OF_A_KIND``, are too
#: few to fit a map to.
FEWEST, FEWEST_OF_A_KIND = 50, 5
#: Of a weight: beyond, all confidences are 0 or 1.
MOST_LOGIT = 1e6
#: Keeps logits finite: no frame's posterior is trusted further.
CLOSEST = 1e-3
#: Of the squared weights; only matters where everything is right or wrong on one side.
RIDGE = 1e-2


@dataclass(frozen=True)
class Calibration:
    """Weights of the logistic maps, the constant first; ``None`` leaves the raw confidences.

    labels: for `label_features`. words: for `word_features`.
    """

    labels: tuple[float, ...] | None = setting(None, "of labels", -MOST_LOGIT, MOST_LOGIT)
    words: tuple[float, ...] | None = setting(None, "of words", -MOST_LOGIT, MOST_LOGIT)

    def __post_init__(self) -> None:
        check(self, "confidence")
        for name, n in (("labels", 3), ("words", 4)):
            weights = getattr(self, name)
            if weights is not None and len(weights) != n:
                raise InputError(f"confidence.{name}={list(weights)}: expected {n} numbers")


def calibrated(
    hypothesis: Hypothesis, log_probs: np.ndarray, calibration: Calibration
) -> Hypothesis:
    """Return the hypothesis with the confidences that ``calibration`` gives.

    Args:
        hypothesis: with raw confidences, and words where there are any.
        log_probs: (T, V) natural logarithms that it was decoded from.
    """
    features = label_features(hypothesis, log_probs)
    if calibration.words is not None and hypothesis.words is not None:
        of_words = predicted(calibration.words, word_features(hypothesis, features))
        hypothesis = replace(hypothesis, word_confidences=tuple(of_words.tolist()))
    if calibration.labels is not None:
        of_labels = predicted(calibration.labels, features)
        hypothesis = replace(hypothesis, confidences=tuple(of_labels.tolist()))
    return hypothesis


def label_features(hypothesis: Hypothesis, log_probs: np.ndarray) -> NDArray[np.float64]:
    """Return (U, 2): the logits of the raw confidence and of the label's being there at all.

    The latter is the probability that some frame between the neighbouring labels emits it, were
    frames independent: a CTC spike may stand a frame beside the aligned path.
    """
    if not hypothesis.labels:
        return np.empty((0, 2))
    spans = np.array(hypothesis.spans)
    begins = np.append(0, spans[:-1, 1])
    ends = np.append(spans[1:, 0], len(log_probs))
    lens = ends - begins
    firsts = np.append(0, np.cumsum(lens)[:-1])
    frames = np.arange(lens.sum()) + np.repeat(begins - firsts, lens)
    labels = np.repeat(hypothesis.labels, lens)
    missing = np.clip(1 - np.exp(log_probs[frames, labels], dtype=np.float64), 0, 1)
    there = 1 - np.multiply.reduceat(missing, firsts)
    return logit(np.column_stack([hypothesis.confidences, there]))


def word_features(hypothesis: Hypothesis, of_labels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (W, 3): means of the word's rows of `label_features`, and log number of labels."""
    begins, ends = np.array(hypothesis.word_spans or (), int).reshape(-1, 2).T
    sums = np.vstack([np.zeros(2), np.cumsum(of_labels, axis=0)])
    lens = ends - begins
    return np.column_stack([(sums[ends] - sums[begins]) / lens[:, None], np.log(lens)])


def fit(features: NDArray[np.float64], correct: NDArray[np.bool_]) -> tuple[float, ...] | None:
    """Fit a logistic regression by Newton's method; ``None`` where there is too little to fit.

    Args:
        features: (N, F).
        correct: (N,).
    """
    truth = correct.astype(np.float64)
    if len(truth) < FEWEST or min(truth.sum(), (1 - truth).sum()) < FEWEST_OF_A_KIND:
        return None
    X = np.column_stack([np.ones(len(features)), features])
    weights = np.zeros(X.shape[1])
    ridge = np.full(len(weights), RIDGE)
    ridge[0] = 0.0
    for _ in range(100):
        p = 1 / (1 + np.exp(-X @ weights))
        gradient = X.T @ (p - truth) + ridge * weights
        curvature = (X.T * (p * (1 - p))) @ X + np.diag(ridge + 1e-9)
        step = np.linalg.solve(curvature, gradient)
        weights -= step
        if np.abs(step).max() < 1e-9:
            break
    return tuple(weights.tolist())


def predicted(weights: Sequence[float], features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the probabilities (N,) that `fit`'s weights give to features (N, F)."""
    constant, *slopes = weights
    return 1 / (1 + np.exp(-(constant + features @ np.array(slopes))))


def logit(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log p / (1 - p), with p kept away from 0 and 1."""
    p = np.clip(p, CLOSEST, 1 - CLOSEST)
    return np.log(p / (1 - p))


def expected_calibration_error(
    confidences: NDArray[np.float64], correct: NDArray[np.bool_], bins: int = 10
) -> float:
    """Mean gap between confidences (N,) and share correct (N,), over equally wide bins by size.

    Naeini, Cooper & Hauskrecht (2015), "Obtaining well calibrated probabilities using Bayesian
    binning". nan where there is nothing.
    """
    if len(confidences) == 0:
        return math.nan
    place = np.minimum((confidences * bins).astype(int), bins - 1)
    gaps = np.bincount(place, confidences - correct, bins)
    return float(np.abs(gaps).sum() / len(confidences))
