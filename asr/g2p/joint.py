"""Letters with what each is said as: cut pronunciations, and an n-gram over their pieces.

A word's letters, each with no phone or a few, are a sentence of units (joint sequences, Bisani &
Ney 2008). CTC takes a net's frames as independent of each other; such an n-gram knows what letters
and phones go together, and both are right more often than either (Rao et al. 2015).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr.decode.pronunciations import Entry
from asr.decode.search.each import NBest
from asr.g2p.words import Letters
from asr.labels import BLANK, Labels
from asr.lm.ngram import BoundNGram, NGram
from asr.lm.ngram import advance as advance_lm
from asr.system.jit import compiled, inner

#: Phones that a letter stands for at most; a word that needs more, such as "w", is not cut.
MOST_PHONES = 3
#: How likely a letter is at first to stand for none, one, two or three phones.
FIRST = np.array([1e-2, 1e-3, 1e-5, 1e-8])
#: Rounds of expectation maximisation: the next ones gain 0.01 nats a word on CMUdict.
ROUNDS = 8
#: Units that are less likely no word needs.
LEAST = 1e-9
#: Cuts that differ by less are equal, such as "oo" said by its first letter or by its second: of
#: them the same is taken of all words.
EQUAL = 1e-6
#: What a letter counts where a word cannot be cut so, in nats; most are above -5.
UNCUT = -10.0
#: Entries whose possible units are gathered at once.
BLOCK = 10_000


class Cut(NamedTuple):
    """A word, and the phones of each of its letters."""

    word: str
    phones: tuple[tuple[str, ...], ...]


class Entries(NamedTuple):
    """Entries end to end: letters, labels, and where those of each begin, and the end."""

    letters: NDArray[np.int64]
    letters_from: NDArray[np.int64]
    labels: NDArray[np.int64]
    labels_from: NDArray[np.int64]


class Units(NamedTuple):
    """Units, letter by letter: labels (N, MOST_PHONES), of which the first n_labels (N,) count, and
    weights (N,), natural logarithms. Those of a letter that begin with a label (BLANK: that have
    none) are first[letter, label] .. end[letter, label] - 1."""

    first: NDArray[np.int64]
    end: NDArray[np.int64]
    labels: NDArray[np.int64]
    n_labels: NDArray[np.int64]
    weights: NDArray[np.float64]


class Room(NamedTuple):
    """Where the best cut is looked for.

    best: its weight up to each letter and label; unit: the last one there; path: all of them.
    """

    best: NDArray[np.float64]
    unit: NDArray[np.int64]
    path: NDArray[np.int64]


class Told(NamedTuple):
    """What an n-gram said of a path: the log10 P up to each unit, and its state there."""

    path: NDArray[np.int64]
    total: NDArray[np.float64]
    state: NDArray[np.int64]


Pair = tuple[str, tuple[str, ...]]
"""A letter and its phones: a unit by name."""


class UnitGram(NamedTuple):
    """An n-gram over units; counts: how often each is seen. The n-gram's token is `token_of` it."""

    ngram: NGram
    counts: Counter[Pair]

    @classmethod
    def estimate(cls, cuts: Iterable[Cut], order: int) -> UnitGram:
        """From cut words.

        Raises:
            InputError: no word.
        """
        token = cache(token_of)
        sentences = [list(zip(cut.word, cut.phones, strict=True)) for cut in cuts]
        ngram = NGram.estimate((list(map(token, units)) for units in sentences), order)
        return cls(ngram, Counter(chain(*sentences)))


def token_of(pair: Pair) -> str:
    """The name of a unit in an n-gram."""
    return " ".join((pair[0], *pair[1]))


@dataclass(frozen=True)
class Joint:
    """An n-gram over units, bound to them."""

    units: Units
    ngram: BoundNGram

    @classmethod
    def of(cls, grams: UnitGram, letters: Letters, phones: Labels) -> Joint:
        """Bind an n-gram to a model's letters and phones.

        Raises:
            InputError: a phone that is not in the inventory.
        """
        known = [pair for pair in grams.counts if pair[0] in letters.ids]
        known.sort(key=lambda pair: (letters.ids[pair[0]], phones.encode(pair[1])))
        labels = [phones.encode(said) for _, said in known]
        # Not the n-gram's unigrams, which count what stands before a unit (Kneser & Ney 1995).
        counts = np.array([grams.counts[pair] for pair in known], float)
        weights = np.log(counts / counts.sum())
        of = [letters.ids[letter] for letter, _ in known]
        units = units_of(of, labels, weights, (len(letters.symbols), len(phones)))
        return cls(units, grams.ngram.bind(list(map(token_of, known))))

    def scores(
        self, letters: NDArray[np.int64], n_letters: NDArray[np.int64], found: NBest
    ) -> NDArray[np.float64]:
        """ln P(letters, labels) of each sequence ``found`` for words (N, L), each cut as is best.

        n_letters: (N,).
        """
        return _scores(letters, n_letters, found.labels, found.n_labels, self.units, self.ngram)


def units_of(
    letters: Sequence[int],
    labels: Sequence[Sequence[int]],
    weights: NDArray[np.float64],
    sizes: tuple[int, int],
) -> Units:
    """Units of ``letters`` and their ``labels``, which rise. sizes: of both inventories."""
    table = np.full((len(labels), MOST_PHONES), BLANK)
    for row, ids in zip(table, labels, strict=True):
        row[: len(ids)] = ids
    begins = np.array(letters, np.int64) * sizes[1] + table[:, 0]
    every = np.arange(sizes[0] * sizes[1]).reshape(sizes)
    first, end = (np.searchsorted(begins, every, side) for side in ("left", "right"))
    return Units(first, end, table, np.array([len(ids) for ids in labels], np.int64), weights)


def cut(entries: Sequence[Entry], letters: Letters, phones: Labels) -> list[Cut]:
    """The entries cut as is likeliest, but for those that cannot be.

    How likely a letter is said as some phones, expectation maximisation finds from all of them.

    Raises:
        InputError: a phone that is not in the inventory.
    """
    words = [letters.encode(entry.word) for entry in entries]
    found = [
        (word[1:-1], phones.encode(entry.phones, entry.where))
        for word, entry in zip(words, entries, strict=True)
        if word and len(entry.phones) <= MOST_PHONES * (len(word) - 2)
    ]
    if not found:
        return []
    table = _entries(found)
    base = len(phones)
    blocks = [_entries(found[i : i + BLOCK]) for i in range(0, len(found), BLOCK)]
    codes = np.unique(np.concatenate([np.unique(_codes(block, base)) for block in blocks]))
    digits = codes[:, None] // base ** np.arange(MOST_PHONES - 1, -1, -1) % base
    n_labels = (digits != BLANK).sum(1)
    shares = FIRST[n_labels]
    for _ in range(ROUNDS):
        counts = _counted(table, codes, shares, base)
        shares = counts / max(counts.sum(), 1e-300)
    likely = shares > LEAST
    labels = [row[:n].tolist() for row, n in zip(digits[likely], n_labels[likely], strict=True)]
    of = (codes[likely] // base**MOST_PHONES).tolist()
    units = units_of(of, labels, np.log(shares[likely]), (len(letters.symbols), base))
    cuts = []
    for word, said in found:
        path = _cut(np.array(word), np.array(said), units)
        if len(path):
            parts = tuple(tuple(phones.decode(labels[unit])) for unit in path.tolist())
            cuts.append(Cut("".join(letters.symbols[i] for i in word), parts))
    return cuts


def _entries(found: Sequence[tuple[list[int], list[int]]]) -> Entries:
    letters, labels = zip(*found, strict=True)
    ends = [np.cumsum([0, *map(len, rows)]) for rows in (letters, labels)]
    return Entries(np.concatenate(letters), ends[0], np.concatenate(labels), ends[1])


@compiled
def _code(letter, labels, first, n, base):  # type: ignore[no-untyped-def]
    """Return a number for a letter with ``n`` labels."""
    code = letter
    for k in range(MOST_PHONES):
        code = code * base + (labels[first + k] if k < n else BLANK)
    return code


@compiled
def _codes(entries, base):  # type: ignore[no-untyped-def]
    """Return the numbers of all letters with any labels that stand one after the other."""
    size = 0
    for e in range(len(entries.letters_from) - 1):
        L = entries.letters_from[e + 1] - entries.letters_from[e]
        size += L * (entries.labels_from[e + 1] - entries.labels_from[e] + 1) * (MOST_PHONES + 1)
    codes = np.empty(size, np.int64)
    k = 0
    for e in range(len(entries.letters_from) - 1):
        labels = entries.labels[entries.labels_from[e] : entries.labels_from[e + 1]]
        for letter in entries.letters[entries.letters_from[e] : entries.letters_from[e + 1]]:
            for j in range(len(labels) + 1):
                for n in range(min(MOST_PHONES, len(labels) - j) + 1):
                    codes[k] = _code(letter, labels, j, n, base)
                    k += 1
    return codes[:k]


@compiled
def _counted(entries, codes, shares, base):  # type: ignore[no-untyped-def]
    """Return how often each unit is expected: forward and backward, scaled letter by letter."""
    counts = np.zeros(len(codes))
    for e in range(len(entries.letters_from) - 1):
        letters = entries.letters[entries.letters_from[e] : entries.letters_from[e + 1]]
        labels = entries.labels[entries.labels_from[e] : entries.labels_from[e + 1]]
        L, U = len(letters), len(labels)
        unit = np.empty((L, U + 1, MOST_PHONES + 1), np.int64)
        before, after = np.zeros((L + 1, U + 1)), np.zeros((L + 1, U + 1))
        before[0, 0], after[L, U] = 1.0, 1.0
        for i in range(L):
            for j in range(U + 1):
                for n in range(min(MOST_PHONES, U - j) + 1):
                    code = _code(letters[i], labels, j, n, base)
                    unit[i, j, n] = np.searchsorted(codes, code)
                    before[i + 1, j + n] += before[i, j] * shares[unit[i, j, n]]
            before[i + 1] /= max(before[i + 1].sum(), 1e-300)
        for i in range(L - 1, -1, -1):
            total = 0.0
            for j in range(U + 1):
                for n in range(min(MOST_PHONES, U - j) + 1):
                    after[i, j] += after[i + 1, j + n] * shares[unit[i, j, n]]
                total += before[i, j] * after[i, j]
            for j in range(U + 1):
                for n in range(min(MOST_PHONES, U - j) + 1):
                    here = before[i, j] * shares[unit[i, j, n]] * after[i + 1, j + n]
                    counts[unit[i, j, n]] += here / max(total, 1e-300)
            after[i] /= max(after[i].sum(), 1e-300)
    return counts


@inner
def _same(labels, first, unit, n):  # type: ignore[no-untyped-def]
    """Return whether the ``n`` labels from ``first`` on are the first of a unit's."""
    k = 0
    while k < n and labels[first + k] == unit[k]:
        k += 1
    return k == n


@inner
def _go_on(i, j, letter, label, labels, units, room):  # type: ignore[no-untyped-def]
    """Say the next letter as all units of it that begin with the label."""
    for u in range(units.first[letter, label], units.end[letter, label]):
        n = units.n_labels[u]
        score = room.best[i, j] + units.weights[u]
        if (
            j + n <= len(labels)
            and score > room.best[i + 1, j + n] + EQUAL
            and _same(labels, j, units.labels[u], n)
        ):
            room.best[i + 1, j + n] = score
            room.unit[i + 1, j + n] = u


@compiled
def _search(letters, labels, units, room):  # type: ignore[no-untyped-def]
    """Write the units of the best cut to ``room.path``; return whether there is one."""
    L, U = len(letters), len(labels)
    room.best[: L + 1, : U + 1] = -np.inf
    room.best[0, 0] = 0.0
    for i in range(L):
        for j in range(U + 1):
            if room.best[i, j] > -np.inf:
                _go_on(i, j, letters[i], BLANK, labels, units, room)
                if j < U:
                    _go_on(i, j, letters[i], labels[j], labels, units, room)
    if room.best[L, U] == -np.inf:
        return False
    j = U
    for i in range(L, 0, -1):
        room.path[i - 1] = room.unit[i, j]
        j -= units.n_labels[room.unit[i, j]]
    return True


@compiled
def _room(L, U):  # type: ignore[no-untyped-def]
    shape = L + 1, U + 1
    return Room(np.empty(shape), np.empty(shape, np.int64), np.empty(L, np.int64))


@compiled
def _cut(letters, labels, units):  # type: ignore[no-untyped-def]
    """Return the units of the best cut; none where there is no cut."""
    room = _room(len(letters), len(labels))
    return room.path if _search(letters, labels, units, room) else room.path[:0]


@compiled
def _scores(letters, n_letters, labels, n_labels, units, lm):  # type: ignore[no-untyped-def]
    N, K = n_labels.shape
    scores = np.zeros((N, K))
    room = _room(letters.shape[1], labels.shape[2])
    n = letters.shape[1]
    told = Told(np.empty(n, np.int64), np.zeros(n + 1), np.full(n + 1, np.int64(lm.start)))
    for i in range(N):
        word = letters[i, : n_letters[i]]
        told.path[:] = -1
        for k in range(K):
            if n_labels[i, k] < 0:
                continue
            if _search(word, labels[i, k, : n_labels[i, k]], units, room):
                scores[i, k] = np.log(10.0) * _score(room.path[: len(word)], lm, told)
            else:
                scores[i, k] = UNCUT * len(word)
    return scores


@compiled
def _score(path, lm, told):  # type: ignore[no-untyped-def]
    """Return log10 P of a sentence of units. What ``told`` says of how it begins is taken over."""
    same = 0
    while same < len(path) and told.path[same] == path[same]:
        same += 1
    for i in range(same, len(path)):
        gain, after = advance_lm(lm.trie, told.state[i], lm.token_of[path[i]])
        told.path[i], told.total[i + 1], told.state[i + 1] = path[i], told.total[i] + gain, after
    gain, _ = advance_lm(lm.trie, told.state[len(path)], lm.end_token)
    return told.total[len(path)] + gain
