"""How sure a rate is, and whether one system is really better than another.

Bootstrap: Bisani & Ney, "Bootstrap estimates for confidence intervals in ASR performance
evaluation", ICASSP 2004. Tests: Gillick & Cox, "Some statistical issues in the comparison of
speech recognition algorithms", ICASSP 1989; Pallett et al., "Tools for the analysis of benchmark
speech recognition tests", ICASSP 1990, as NIST's sc_stats has them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from asr.score.error_rate import Alignment

N_SAMPLES = 2000
CONFIDENCE = 0.95
#: Segments end where both systems have this many neighbouring words right, as in sc_stats.
MIN_GOOD = 2


@dataclass(frozen=True, slots=True)
class Interval:
    """A bootstrap interval of a rate or a difference of rates; nan where it is undefined."""

    low: float
    high: float
    groups: int


@dataclass(frozen=True, slots=True)
class Test:
    """A two-sided test of "no difference": p-value, its statistic, and the number of samples."""

    p: float
    statistic: float
    samples: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Systems A and B on the same references; differences are B less A, so negative is better.

    What needs speakers is None where fewer than two are known.
    """

    difference: float
    over_utterances: Interval
    over_speakers: Interval | None
    mapsswe: Test
    mcnemar: Test
    sign: Test | None
    wilcoxon: Test | None


def compare(a: Sequence[Alignment], b: Sequence[Alignment], speakers: Sequence[str]) -> Comparison:
    """Compare two systems' alignments of the same utterances, in the same order."""
    one = np.zeros(len(a), np.int64)
    difference = float((_group_rates(b, one) - _group_rates(a, one))[0])
    over_utterances = bootstrap(a, np.arange(len(a)), b)
    names, groups = np.unique(np.array(speakers, dtype=str), return_inverse=True)
    by_speakers: tuple[Interval, Test, Test] | tuple[None, None, None] = (None, None, None)
    if len(names) > 1:
        differences = _group_rates(b, groups) - _group_rates(a, groups)
        by_speakers = (
            bootstrap(a, groups, b),
            sign_test(differences.tolist()),
            wilcoxon_test(differences.tolist()),
        )
    over_speakers, sign, wilcoxon = by_speakers
    return Comparison(
        difference=difference,
        over_utterances=over_utterances,
        over_speakers=over_speakers,
        mapsswe=mapsswe(a, b),
        mcnemar=mcnemar_test(a, b),
        sign=sign,
        wilcoxon=wilcoxon,
    )


def intervals(
    alignments: Sequence[Alignment], speakers: Sequence[str]
) -> tuple[Interval, Interval | None]:
    """Intervals of the error rate over utterances and, where two are known, over speakers."""
    names, groups = np.unique(np.array(speakers, dtype=str), return_inverse=True)
    return (
        bootstrap(alignments, np.arange(len(alignments))),
        bootstrap(alignments, groups) if len(names) > 1 else None,
    )


def bootstrap(
    alignments: Sequence[Alignment],
    groups: NDArray[np.int64],
    other: Sequence[Alignment] | None = None,
    seed: int = 0,
) -> Interval:
    """Interval of the error rate, or of the rate of ``other`` less that of ``alignments``.

    ``groups`` has the number of every utterance's group. Whole groups (single utterances, or
    speakers) are drawn with replacement, the same ones for both systems.
    """
    errors = _sums([a.errors for a in alignments], groups)
    lengths = _sums([a.reference_length for a in alignments], groups)
    draws = [(errors, lengths)]
    if other is not None:
        draws.append(
            (
                _sums([a.errors for a in other], groups),
                _sums([a.reference_length for a in other], groups),
            )
        )
    rng = np.random.default_rng(seed)
    n = len(errors)
    rates = np.empty(N_SAMPLES)
    with np.errstate(invalid="ignore", divide="ignore"):
        for i in range(N_SAMPLES):
            drawn = rng.integers(n, size=n)
            sampled = [e[drawn].sum() / w[drawn].sum() for e, w in draws]
            rates[i] = sampled[-1] - (sampled[0] if other is not None else 0)
    tail = (1 - CONFIDENCE) / 2
    finite = rates[np.isfinite(rates)]
    if not len(finite):
        return Interval(math.nan, math.nan, n)
    low, high = np.quantile(finite, [tail, 1 - tail])
    return Interval(float(low), float(high), n)


def mapsswe(a: Sequence[Alignment], b: Sequence[Alignment]) -> Test:
    """Matched-pairs test on sentence segments; the statistic is Z, negative where B is better."""
    differences = np.array(
        [d for x, y in zip(a, b, strict=True) for d in segment_differences(x, y)], float
    )
    n = len(differences)
    spread = differences.std(ddof=1) if n > 1 else 0.0
    z = float(differences.mean() / (spread / math.sqrt(n))) if spread else 0.0
    return Test(_two_sided(z), z, n)


def segment_differences(a: Alignment, b: Alignment) -> list[int]:
    """Errors of B less errors of A in every segment of one utterance that holds an error."""
    differences: list[int] = []

    def close(end_a: int, end_b: int) -> None:
        errors_a = sum(1 for c in a.columns[max(good_a, 0) : end_a] if c.error)
        errors_b = sum(1 for c in b.columns[max(good_b, 0) : end_b] if c.error)
        if errors_a or errors_b:
            differences.append(errors_b - errors_a)

    i = j = 0
    # The last words that both systems had right before the segment.
    good_a = good_b = 0
    in_error, n_good = False, 0
    while i < len(a.columns):
        while i < len(a.columns) and a.columns[i].error == "I":
            i, in_error, n_good = i + 1, True, 0
        while j < len(b.columns) and b.columns[j].error == "I":
            j, in_error, n_good = j + 1, True, 0
        right = (
            i < len(a.columns)
            and j < len(b.columns)
            and not a.columns[i].error
            and not b.columns[j].error
        )
        if not right:
            in_error, n_good = True, 0
        elif not in_error:
            good_a, good_b = i, j
        else:
            n_good += 1
            if n_good == MIN_GOOD:
                close(i + 1, j + 1)
                good_a, good_b, in_error, n_good = i, j, False, 0
        i, j = min(i + 1, len(a.columns)), min(j + 1, len(b.columns))
    if in_error or j < len(b.columns):
        close(len(a.columns), len(b.columns))
    return differences


def sign_test(differences: Sequence[float]) -> Test:
    """Exact binomial test on the signs; the statistic is how many are positive, ties left out."""
    positive = sum(1 for d in differences if d > 0)
    n = positive + sum(1 for d in differences if d < 0)
    tail = sum(math.comb(n, k) for k in range(min(positive, n - positive) + 1))
    return Test(min(1.0, 2 * tail / 2**n), float(positive), n)


def wilcoxon_test(differences: Sequence[float]) -> Test:
    """Signed-rank test, normal approximation with ties; the statistic is Z, without zeros."""
    values = np.array([d for d in differences if d != 0 and not math.isnan(d)], float)
    n = len(values)
    if not n:
        return Test(1.0, 0.0, 0)
    _, inverse, counts = np.unique(np.abs(values), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    variance = (n * (n + 1) * (2 * n + 1) - ((counts**3 - counts) / 2).sum()) / 24
    z = float((ranks[values > 0].sum() - n * (n + 1) / 4) / math.sqrt(variance))
    return Test(_two_sided(z), z, n)


def mcnemar_test(a: Sequence[Alignment], b: Sequence[Alignment]) -> Test:
    """Exact test on utterances that only one system has wrong; the statistic counts B's."""
    return sign_test([(y.errors > 0) - (x.errors > 0) for x, y in zip(a, b, strict=True)])


def _group_rates(alignments: Sequence[Alignment], groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """Error rate of every group; nan where its references are empty."""
    errors = _sums([a.errors for a in alignments], groups)
    lengths = _sums([a.reference_length for a in alignments], groups)
    return np.divide(errors, lengths, out=np.full(len(errors), np.nan), where=lengths > 0)


def _sums(counts: Sequence[int], groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sum of the counts in every group."""
    sums = np.zeros(groups.max() + 1, np.int64)
    np.add.at(sums, groups, counts)
    return sums


def _two_sided(z: float) -> float:
    return 2 * NormalDist().cdf(-abs(z))
