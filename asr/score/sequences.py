"""Cheapest alignments of many pairs of sequences at once, in numpy.

The table of a pair is filled along its anti-diagonals (all of whose cells are independent), many
pairs side by side, in a band that no cheapest way leaves (Ukkonen, "Algorithms for approximate
string matching", 1985). Compiling such loops would be faster by the cell, but the compiler takes
longer to load than a million words to align.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

#: Codes of columns, in the order of `alignment.ERRORS`.
HIT, SUBSTITUTION, DELETION, INSERTION = range(4)
#: sclite's costs: a word for another, a word for nothing, an ``(optional)`` or ``@`` for nothing,
#: ``@`` for ``@``.
SUBSTITUTION_COST, GAP, OPTIONAL_GAP, NULL_GAP, NULL_NULL = 4, 3, 2, 0.001, 1
#: Pairs that are aligned at once have about so many cells on an anti-diagonal (fits the cache).
CELLS = 1 << 16
#: Bytes for the choices to go back; where they do not fit, the table is filled twice, in blocks.
MAX_CHOICES = 1 << 26
#: Bands begin this much wider than the difference in length, and grow where that is too narrow.
MARGIN = 12
GROWTH = 4

#: Numbers that are no word: sequences of either side are padded with one of their own.
N_PADDINGS = 2

_NOTHING_LEFT = 4

Number = TypeVar("Number", np.uint64, np.int32)


class Sequences(NamedTuple):
    """One side of many pairs: words as numbers, the cost of leaving each out, first words.

    words: >= `N_PADDINGS`. first: (pairs + 1,) where every sequence begins, and the end.
    """

    words: NDArray[np.uint64]
    gaps: NDArray[np.int32]
    first: NDArray[np.int64]


@dataclass(frozen=True)
class Ties:
    """Which way is taken of equally cheap ones: that of the lowest rank; ranks are 0 to 3."""

    hit: int
    substitution: int
    deletion: int
    insertion: int


def align_sequences(
    said: Sequences,
    heard: Sequences,
    substitution: int,
    ties: Ties,
    trim_heads: bool,
    trim_tails: bool,
    max_choices: int,
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Align every pair: (codes, first), the codes of all columns and where each pair's begin.

    A hit costs nothing. ``trim_heads``, ``trim_tails``: equal words at the beginnings, then those
    at the ends, are hits before all else. ``max_choices``: `MAX_CHOICES`, smaller only in tests.
    """
    n_pairs = len(said.first) - 1
    begin_a, begin_b = said.first[:-1].copy(), heard.first[:-1].copy()
    n_a, n_b = np.diff(said.first), np.diff(heard.first)
    heads = np.zeros(n_pairs, np.int64)
    tails = np.zeros(n_pairs, np.int64)
    if trim_heads:
        heads = _common(said.words, heard.words, begin_a, begin_b, np.minimum(n_a, n_b), 1)
        begin_a, begin_b, n_a, n_b = begin_a + heads, begin_b + heads, n_a - heads, n_b - heads
    if trim_tails:
        ends_a, ends_b = begin_a + n_a - 1, begin_b + n_b - 1
        tails = _common(said.words, heard.words, ends_a, ends_b, np.minimum(n_a, n_b), -1)
        n_a, n_b = n_a - tails, n_b - tails

    gaps = np.concatenate((said.gaps, heard.gaps))
    cheapest_gap, dearest_gap = max(1, int(gaps.min(initial=9))), int(gaps.max(initial=0))
    found = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.uint8))]
    # Pairs alike in size side by side; what is left of equal ones is empty.
    pending = np.lexsort((n_b - n_a, np.maximum(n_a, n_b)))
    pending = pending[np.count_nonzero(n_a + n_b == 0) :]
    margin = MARGIN
    while len(pending):
        narrow = []
        while len(pending):
            batch, pending = _batch(pending, n_a, n_b, margin)
            words_a = _padded(said.words, begin_a, n_a, batch, 0)
            words_b = _padded(heard.words, begin_b, n_b, batch, 1)
            if cheapest_gap == dearest_gap:
                gaps_a = np.full(words_a.shape, dearest_gap, np.int32)
                gaps_b = np.full(words_b.shape, dearest_gap, np.int32)
            else:
                gaps_a = _padded(said.gaps, begin_a, n_a, batch, 0)
                gaps_b = _padded(heard.gaps, begin_b, n_b, batch, 0)
            pairs = _Pairs(words_a, words_b, gaps_a, gaps_b, n_a[batch], n_b[batch])
            band = _band(pairs.n_a, pairs.n_b, margin)
            lengths, codes, costs = pairs.aligned(*band, substitution, ties, max_choices)
            # A way of that cost has at most so many gaps on either side.
            n_deleted = np.minimum((costs // cheapest_gap + pairs.n_a - pairs.n_b) // 2, pairs.n_a)
            n_inserted = np.minimum((costs // cheapest_gap + pairs.n_b - pairs.n_a) // 2, pairs.n_b)
            good = (n_deleted <= band[0]) & (n_inserted <= band[1])
            found.append((batch[good], lengths[good], codes[np.repeat(good, lengths)]))
            narrow.append(batch[~good])
        pending = np.concatenate(narrow)
        margin *= GROWTH

    order = np.concatenate([pairs for pairs, _, _ in found])
    lengths = np.concatenate([lengths for _, lengths, _ in found])
    n_columns = heads + tails
    n_columns[order] += lengths
    first = np.concatenate(([0], np.cumsum(n_columns)))
    codes = np.zeros(first[-1], np.uint8)
    ends = np.cumsum(lengths)
    targets = np.repeat(first[order] + heads[order] - (ends - lengths), lengths)
    targets += np.arange(len(targets))
    codes[targets] = np.concatenate([codes for _, _, codes in found])
    return codes, first


def _common(
    words_a: NDArray[np.uint64],
    words_b: NDArray[np.uint64],
    begin_a: NDArray[np.int64],
    begin_b: NDArray[np.int64],
    shorter: NDArray[np.int64],
    step: int,
) -> NDArray[np.int64]:
    """How many words are equal, going from the beginnings in steps of 1 or -1."""
    n_equal = np.zeros(len(shorter), np.int64)
    alive = np.flatnonzero(shorter)
    while len(alive):
        at = step * n_equal[alive]
        equal = words_a[begin_a[alive] + at] == words_b[begin_b[alive] + at]
        alive = alive[equal]
        n_equal[alive] += 1
        alive = alive[n_equal[alive] < shorter[alive]]
    return n_equal


def _band(n_a: NDArray[np.int64], n_b: NDArray[np.int64], margin: int) -> tuple[int, int]:
    """How much further in A than in B the band goes, and in B than in A."""
    below = max(0, int((n_a - n_b).max())) + margin
    above = max(0, int((n_b - n_a).max())) + margin
    return min(below, int(n_a.max())), min(above, int(n_b.max()))


def _batch(
    pending: NDArray[np.int64], n_a: NDArray[np.int64], n_b: NDArray[np.int64], margin: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The next pairs that are aligned together, and the rest."""
    size = 1
    while size < len(pending):
        more = pending[: 2 * size]
        below, above = _band(n_a[more], n_b[more], margin)
        width = min(int(n_a[more].max()), (below + above) // 2 + 1) + 1
        if width * len(more) > CELLS:
            break
        size = len(more)
    return pending[:size], pending[size:]


def _padded(
    values: NDArray[Number],
    begin: NDArray[np.int64],
    lengths: NDArray[np.int64],
    batch: NDArray[np.int64],
    padding: int,
) -> NDArray[Number]:
    """(longest + 1, pairs): the sequences of a batch side by side, after a row of padding."""
    rows = np.arange(-1, int(lengths[batch].max()))[:, None]
    there = (rows >= 0) & (rows < lengths[batch])
    places = np.where(there, begin[batch] + rows, 0)
    if not len(values):
        return np.full(places.shape, padding, values.dtype)
    return np.where(there, values[places], values.dtype.type(padding))


class _Pairs(NamedTuple):
    """Pairs side by side: words and gaps (longest + 1, pairs), lengths (pairs,)."""

    words_a: NDArray[np.uint64]
    words_b: NDArray[np.uint64]
    gaps_a: NDArray[np.int32]
    gaps_b: NDArray[np.int32]
    n_a: NDArray[np.int64]
    n_b: NDArray[np.int64]

    def aligned(
        self, below: int, above: int, substitution: int, ties: Ties, max_choices: int
    ) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64]]:
        """(lengths, codes, costs): columns of every pair, their codes pair after pair, the costs.

        ``below``, ``above``: as `_band` gives.
        """
        table = _Table(self, below, above, substitution, ties, max_choices)
        begins = list(range(1, table.n_diagonals, table.block))
        kept = []
        for begin in begins:
            if len(begins) > 1:
                kept.append(table.costs.copy())
            table.fill(begin)

        # Back from the ends of all pairs at once.
        way = _Way(ties, self.n_a + self.n_b, self.n_a.copy())
        for begin in reversed(begins):
            if len(begins) > 1:
                table.costs[:] = kept.pop()
                table.fill(begin)
            way.go_back(table, begin)
        steps = np.array(way.steps[::-1], np.uint8).reshape(len(way.steps), len(self.n_a)).T
        there = steps != _NOTHING_LEFT
        return there.sum(1), steps[there], table.totals // 4


class _Table:
    """The costs of the last three diagonals, and the choices of a block of diagonals.

    Cell (a, b) is on diagonal a + b. Costs are multiplied by 4, and the rank of a way is added
    while ways are compared: the least sum is the cheapest way of the lowest rank, and its last two
    bits say which. totals: (pairs,) the costs of whole pairs, once their diagonals are filled.
    """

    def __init__(
        self,
        pairs: _Pairs,
        below: int,
        above: int,
        substitution: int,
        ties: Ties,
        max_choices: int,
    ) -> None:
        longest_a, self.longest_b = len(pairs.words_a) - 1, len(pairs.words_b) - 1
        n_pairs = len(pairs.n_a)
        self.n_diagonals = longest_a + self.longest_b + 1
        dearest = max(substitution, int(pairs.gaps_a.max()), int(pairs.gaps_b.max()))
        dtype = np.int16 if 4 * dearest * self.n_diagonals < 1 << 14 else np.int32
        self.far = (1 << 14) if dtype is np.int16 else (1 << 29)
        # Words of B are turned round, so that along a diagonal both go up.
        self.words_a, self.words_b = pairs.words_a, pairs.words_b[::-1].copy()
        self.gaps_a = (4 * pairs.gaps_a + ties.deletion).astype(dtype)
        self.gaps_b = (4 * pairs.gaps_b[::-1] + ties.insertion).astype(dtype)
        self.wrong = dtype(4 * substitution + ties.substitution)
        self.right_less_wrong = dtype(ties.hit - self.wrong)

        diagonals = np.arange(self.n_diagonals)
        self.lows = np.maximum(
            np.maximum(0, diagonals - self.longest_b), (diagonals - above + 1) // 2
        )
        self.highs = np.minimum(np.minimum(longest_a, diagonals), (diagonals + below) // 2)
        width = int((self.highs - self.lows).max()) + 1
        self.block = self.n_diagonals
        if self.block * width * n_pairs > max_choices:
            self.block = max(int(np.sqrt(self.block)), max_choices // (width * n_pairs), 1)
        self.choices = np.empty((self.block, width, n_pairs), np.uint8)
        # Row a + 1 has the cost of cell a; the rows at both ends are out of reach.
        self.costs = np.full((3, longest_a + 3, n_pairs), self.far, dtype)
        self.costs[0, 1] = 0
        self.totals = np.zeros(n_pairs, np.int64)
        self.n_a, ends = pairs.n_a, pairs.n_a + pairs.n_b
        self.by_end = np.argsort(ends)
        self.first_ending = np.searchsorted(
            ends[self.by_end], np.arange(self.n_diagonals + 1)
        ).tolist()

    def fill(self, begin: int) -> None:
        """Fill the block of diagonals from ``begin`` on, after the two before it."""
        costs, choices, first_ending = self.costs, self.choices, self.first_ending
        words_a, words_b, gaps_a, gaps_b = self.words_a, self.words_b, self.gaps_a, self.gaps_b
        equal = np.empty(choices.shape[1:], np.bool_)
        best, other = np.empty_like(equal, costs.dtype), np.empty_like(equal, costs.dtype)
        for k in range(begin, min(begin + self.block, self.n_diagonals)):
            low, high = int(self.lows[k]), int(self.highs[k])
            n = high - low + 1
            b = slice(self.longest_b - k + low, self.longest_b - k + high + 1)
            before, two_before = costs[(k - 1) % 3], costs[(k - 2) % 3]
            np.equal(words_a[low : high + 1], words_b[b], out=equal[:n])
            np.multiply(equal[:n], self.right_less_wrong, out=best[:n])
            np.add(best[:n], self.wrong, out=best[:n])
            np.add(best[:n], two_before[low : high + 1], out=best[:n])
            np.add(before[low : high + 1], gaps_a[low : high + 1], out=other[:n])
            np.minimum(best[:n], other[:n], out=best[:n])
            np.add(before[low + 1 : high + 2], gaps_b[b], out=other[:n])
            np.minimum(best[:n], other[:n], out=best[:n])
            now = costs[k % 3]
            np.bitwise_and(best[:n], 3, out=choices[k - begin, :n], casting="unsafe")
            np.bitwise_and(best[:n], ~3, out=now[low + 1 : high + 2])
            now[low] = now[high + 2] = self.far
            if first_ending[k] < first_ending[k + 1]:
                ending = self.by_end[first_ending[k] : first_ending[k + 1]]
                self.totals[ending] = now[self.n_a[ending] + 1, ending]


class _Way:
    """The cheapest ways of all pairs, from their ends: the cells reached, and the steps so far.

    k, a: (pairs,) diagonals and rows of the cells. steps: (pairs,) codes each, the last one first.
    """

    def __init__(self, ties: Ties, k: NDArray[np.int64], a: NDArray[np.int64]) -> None:
        codes_of = np.argsort([ties.hit, ties.substitution, ties.deletion, ties.insertion])
        self.codes_of = codes_of.astype(np.uint8)
        # By rank, how far each step goes.
        self.steps_k = np.array([2, 2, 1, 1])[self.codes_of]
        self.steps_a = np.array([1, 1, 1, 0])[self.codes_of]
        self.k, self.a = k, a
        self.steps: list[NDArray[np.uint8]] = []

    def go_back(self, table: _Table, begin: int) -> None:
        """Go on through the block of ``table`` that is filled from ``begin`` on."""
        k, a, n_pairs = self.k, self.a, len(self.k)
        flat, width = table.choices.reshape(-1), table.choices.shape[1]
        while len(here := np.flatnonzero(k >= begin)):
            k_here, a_here = k[here], a[here]
            places = (k_here - begin) * width + a_here - table.lows[k_here]
            ranks = flat[places * n_pairs + here]
            step = np.full(n_pairs, _NOTHING_LEFT, np.uint8)
            step[here] = self.codes_of[ranks]
            self.steps.append(step)
            k[here] -= self.steps_k[ranks]
            a[here] -= self.steps_a[ranks]
