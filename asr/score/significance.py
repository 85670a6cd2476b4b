"""How sure a rate is, and whether one system is really better than another.

Bootstrap: Bisani & Ney, "Bootstrap estimates for confidence intervals in ASR performance
evaluation", ICASSP 2004. Tests: Gillick & Cox, "Some statistical issues in the comparison of
speech recognition algorithms", ICASSP 1989; Pallett et al., "Tools for the analysis of benchmark
speech recognition tests", ICASSP 1990, as NIST's sc_stats has them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from asr.score.alignment import Alignments

N_SAMPLES = 2000
CONFIDENCE = 0.95
#: Numbers drawn at once in the bootstrap.
MAX_DRAWN = 4_000_000
#: Segments end where both systems have this many neighbouring words right, as in sc_stats.
MIN_GOOD = 2


class Interval(NamedTuple):
    """A bootstrap interval of a rate or a difference of rates; nan where it is undefined."""

    low: float
    high: float
    groups: int


class Test(NamedTuple):
    """A two-sided test of "no difference": p-value, its statistic, and the number of samples.

    p is nan where the test cannot say.
    """

    p: float
    statistic: float
    samples: int


class Comparison(NamedTuple):
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


def compare(a: Alignments, b: Alignments, speakers: Sequence[str]) -> Comparison:
    """Compare two systems' alignments of the same utterances, in the same order."""
    one = np.zeros(len(a), np.int64)
    difference = float((_group_rates(b, one) - _group_rates(a, one))[0])
    over_utterances = bootstrap(a, np.arange(len(a)), b)
    names, groups = np.unique(np.array(speakers, dtype=str), return_inverse=True)
    over_speakers: Interval | None = None
    sign = wilcoxon = None
    if len(names) > 1:
        differences = (_group_rates(b, groups) - _group_rates(a, groups)).tolist()
        over_speakers = bootstrap(a, groups, b)
        sign, wilcoxon = sign_test(differences), wilcoxon_test(differences)
    tests = mapsswe(a, b), mcnemar_test(a, b), sign, wilcoxon
    return Comparison(difference, over_utterances, over_speakers, *tests)


def intervals(alignments: Alignments, speakers: Sequence[str]) -> tuple[Interval, Interval | None]:
    """Intervals of the error rate over utterances and, where two are known, over speakers."""
    names, groups = np.unique(np.array(speakers, dtype=str), return_inverse=True)
    return (
        bootstrap(alignments, np.arange(len(alignments))),
        bootstrap(alignments, groups) if len(names) > 1 else None,
    )


def bootstrap(
    alignments: Alignments,
    groups: NDArray[np.int64],
    other: Alignments | None = None,
    seed: int = 0,
) -> Interval:
    """Interval of the error rate, or of the rate of ``other`` less that of ``alignments``.

    ``groups`` has the number of every utterance's group. Whole groups (single utterances, or
    speakers) are drawn with replacement, the same ones for both systems. Groups with equal counts
    are one kind, and how many of each kind are drawn is multinomial: quick for many utterances.
    """
    systems = [alignments] if other is None else [alignments, other]
    counts = [
        _sums(of, groups) for system in systems for of in (system.errors, system.reference_lengths)
    ]
    kinds, sizes = np.unique(np.stack(counts, 1), axis=0, return_counts=True)
    rng = np.random.default_rng(seed)
    n = len(counts[0])
    sums = np.empty((N_SAMPLES, kinds.shape[1]))
    per_draw = max(1, MAX_DRAWN // len(kinds))
    for i in range(0, N_SAMPLES, per_draw):
        some = min(per_draw, N_SAMPLES - i)
        sums[i : i + some] = rng.multinomial(n, sizes / n, size=some) @ kinds
    with np.errstate(invalid="ignore", divide="ignore"):
        rates = sums[:, 0::2] / sums[:, 1::2]
        rates = rates[:, -1] - (rates[:, 0] if other is not None else 0)
    tail = (1 - CONFIDENCE) / 2
    finite = rates[np.isfinite(rates)]
    if not len(finite):
        return Interval(math.nan, math.nan, n)
    low, high = np.quantile(finite, [tail, 1 - tail])
    return Interval(float(low), float(high), n)


def mapsswe(a: Alignments, b: Alignments) -> Test:
    """Matched-pairs test on sentence segments; the statistic is Z, negative where B is better.

    Where all segments differ by the same, other than nothing, their spread is unknown, and p and Z
    are nan. (sc_stats gives p 1 there, as for no difference at all.)
    """
    differences = segment_differences(a, b)
    n = len(differences)
    spread = differences.std(ddof=1) if n > 1 else 0.0
    if spread:
        z = float(differences.mean() / (spread / math.sqrt(n)))
    else:
        z = math.nan if differences.any() else 0.0
    return Test(_two_sided(z), z, n)


def segment_differences(a: Alignments, b: Alignments) -> NDArray[np.int64]:
    """Errors of B less errors of A in every segment that holds an error."""
    from asr.score import kernels

    return kernels.segment_differences(a.codes, a.first, b.codes, b.first, MIN_GOOD)


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


def mcnemar_test(a: Alignments, b: Alignments) -> Test:
    """Exact test on utterances that only one system has wrong; the statistic counts B's."""
    return sign_test(((b.errors > 0).astype(int) - (a.errors > 0)).tolist())


def _group_rates(alignments: Alignments, groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """Error rate of every group; nan where its references are empty."""
    errors = _sums(alignments.errors, groups)
    lengths = _sums(alignments.reference_lengths, groups)
    return np.divide(errors, lengths, out=np.full(len(errors), np.nan), where=lengths > 0)


def _sums(counts: NDArray[np.int64], groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sum of the counts in every group."""
    sums = np.zeros(groups.max() + 1, np.int64)
    np.add.at(sums, groups, counts)
    return sums


def _two_sided(z: float) -> float:
    return math.nan if math.isnan(z) else 2 * NormalDist().cdf(-abs(z))
