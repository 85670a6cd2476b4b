"""Alignments of whole corpora: flat arrays that are cheap to make, count and resample.

`align` and `align_texts` take minimum edit distance, with the columns that jiwer gives; `nist`
has sclite's weights. A single utterance's `Alignment` is made when it is looked at.
"""

from __future__ import annotations

import itertools
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from asr.labels import SPACE
from asr.score.sequences import (
    DELETION,
    HIT,
    INSERTION,
    MAX_CHOICES,
    N_PADDINGS,
    SUBSTITUTION,
    Sequences,
    Ties,
    align_sequences,
)

#: By code: a hit, a substitution, a deletion, an insertion.
ERRORS = ("", "S", "D", "I")
#: As in rapidfuzz, and so in jiwer.
TIES = Ties(deletion=0, substitution=1, insertion=2, hit=3)
#: Utterances that are split and aligned at once. Memory that is used anew for every block costs
#: less than what is asked of the system for all of them: its first use is slower than the work.
BLOCK = 8192
# What ``str.split`` takes for white space, in ASCII and beyond; the separators are none for NIST.
_SEPARATORS = b"\x1c\x1d\x1e\x1f"
_SPACES = b"\t\n\v\f\r "
_WIDE_SPACES = "\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
# Places for long words; an odd factor spreads hashes over them (Knuth, vol. 3, 6.4).
_TABLE_BITS = 16
_ODD = np.uint64(0x9E3779B97F4A7C15)


class Column(NamedTuple):
    """One column of an alignment: ``error`` is "" (a hit), "S", "D" or "I"."""

    reference: str | None
    hypothesis: str | None
    error: str


@dataclass(frozen=True, slots=True)
class Alignment:
    """One utterance's reference set against its hypothesis, with its counts."""

    columns: tuple[Column, ...]
    hits: int
    substitutions: int
    deletions: int
    insertions: int

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def reference_length(self) -> int:
        return self.hits + self.substitutions + self.deletions


class Alignments(Sequence[Alignment]):
    """The alignments of a corpus, an utterance each; indexing makes one.

    tokens: what is shown, by number. said, heard: (columns,) int32 numbers of tokens, -1 for
    none. codes: (columns,) uint8, see `ERRORS`. first: (utterances + 1,) int64, where the columns
    of every utterance begin, and the end. Made of codes, first and a function that gives tokens,
    said and heard when they are looked at: rates do without them.
    """

    def __init__(
        self,
        codes: NDArray[np.uint8],
        first: NDArray[np.int64],
        placed: Callable[[], tuple[Sequence[str], NDArray[np.int32], NDArray[np.int32]]],
    ) -> None:
        self.codes = codes
        self.first = first
        self._placed = placed

    @cached_property
    def _shown(self) -> tuple[Sequence[str], NDArray[np.int32], NDArray[np.int32]]:
        return self._placed()

    @property
    def tokens(self) -> Sequence[str]:
        return self._shown[0]

    @property
    def said(self) -> NDArray[np.int32]:
        return self._shown[1]

    @property
    def heard(self) -> NDArray[np.int32]:
        return self._shown[2]

    def __len__(self) -> int:
        return len(self.first) - 1

    @overload
    def __getitem__(self, index: int) -> Alignment: ...
    @overload
    def __getitem__(self, index: slice) -> list[Alignment]: ...
    def __getitem__(self, index: int | slice) -> Alignment | list[Alignment]:
        if isinstance(index, slice):
            return [self[u] for u in range(*index.indices(len(self)))]
        u = range(len(self))[index]
        there = slice(self.first[u], self.first[u + 1])
        columns = tuple(
            Column(
                None if said < 0 else self.tokens[said],
                None if heard < 0 else self.tokens[heard],
                ERRORS[code],
            )
            for said, heard, code in zip(
                self.said[there].tolist(),
                self.heard[there].tolist(),
                self.codes[there].tolist(),
                strict=True,
            )
        )
        return Alignment(columns, *self.counts[u].tolist())

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """(utterances, 4): hits, substitutions, deletions and insertions."""
        counts = np.empty((len(self), len(ERRORS)), np.int64)
        for code in range(1, len(ERRORS)):
            places = np.flatnonzero(self.codes == code)
            counts[:, code] = np.diff(np.searchsorted(places, self.first))
        # Most columns are hits, and need no places.
        counts[:, 0] = np.diff(self.first) - counts[:, 1:].sum(1)
        return counts

    @property
    def tallies(self) -> NDArray[np.int64]:
        """(utterances, 6): the counts, 1, and whether there are errors."""
        ones = np.ones(len(self), np.int64)
        return np.column_stack((self.counts, ones, self.errors > 0))

    @property
    def errors(self) -> NDArray[np.int64]:
        """(utterances,): substitutions, deletions and insertions together."""
        return self.counts[:, 1:].sum(1)

    @property
    def reference_lengths(self) -> NDArray[np.int64]:
        """(utterances,): hits, substitutions and deletions together."""
        return self.counts[:, :3].sum(1)

    def column_counts(self, hits: bool) -> Counter[Column]:
        """How often every kind of wrong column is there, and with ``hits`` of right ones."""
        n = len(self.tokens) + 1
        counted = self.codes >= (HIT if hits else SUBSTITUTION)
        kinds, counts = np.unique(
            ((self.said[counted].astype(np.int64) + 1) * n + self.heard[counted] + 1) * len(ERRORS)
            + self.codes[counted],
            return_counts=True,
        )
        found: Counter[Column] = Counter()
        for kind, count in zip(kinds.tolist(), counts.tolist(), strict=True):
            pair, code = divmod(kind, len(ERRORS))
            said, heard = divmod(pair, n)
            # Different numbers may be shown alike.
            found[
                Column(
                    self.tokens[said - 1] if said else None,
                    self.tokens[heard - 1] if heard else None,
                    ERRORS[code],
                )
            ] += count
        return found

    def subset(self, places: Sequence[int]) -> Alignments:
        """The alignments of the utterances at ``places``."""
        columns = np.concatenate([np.arange(*self.first[i : i + 2]) for i in places])
        return Alignments(
            self.codes[columns],
            np.concatenate(([0], np.cumsum(np.diff(self.first)[list(places)]))),
            lambda: (self.tokens, self.said[columns], self.heard[columns]),
        )


class Words(Sequence[str]):
    """The words of a text, by position."""

    def __init__(self, data: bytes, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> None:
        self._data = data
        self._starts = starts
        self._ends = ends

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return self._data[self._starts[index] : self._ends[index]].decode("utf-8", "surrogatepass")


class _Characters(Sequence[str]):
    """Characters by code point; a space is `labels.SPACE`."""

    def __len__(self) -> int:
        return sys.maxunicode + 1

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return SPACE if index == 32 else chr(index)


def align(pairs: Iterable[tuple[Sequence[str], Sequence[str]]]) -> Alignments:
    """Align (reference, hypothesis) token sequences by minimum edit distance.

    Tokens may be any strings, spaces and empty ones included; either side may be empty.
    """
    numbers: dict[str, int] = {}
    ids: tuple[list[int], list[int]] = ([], [])
    first = ([0], [0])
    for pair in pairs:
        for side in (0, 1):
            ids[side].extend([numbers.setdefault(t, len(numbers)) for t in pair[side]])
            first[side].append(len(ids[side]))
    said, heard = (np.array(of, np.int32) for of in ids)
    first_said, first_heard = (np.array(of, np.int64) for of in first)
    return _align(
        list(numbers), said, heard, sequences(said, first_said), sequences(heard, first_heard)
    )


def align_texts(
    references: Sequence[str],
    hypotheses: Sequence[str],
    characters: bool = False,
    ids: bool = False,
) -> Alignments:
    """Align the words of texts, or their characters, by minimum edit distance.

    Words are what ``str.split`` gives; between them, a character alignment sees one space.
    ``ids``: as in `split_words`.
    """
    if not characters:
        return align_words(references, hypotheses, 1, _by_edits, ids=ids)
    n = len(references)
    texts = [" ".join(text.split()) for text in (*references, *hypotheses)]
    points = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.int32)
    first = np.concatenate(([0], np.cumsum([len(text) for text in texts], dtype=np.int64)))
    end = first[n]
    said, heard = points[:end], points[end:]
    return _align(
        _Characters(), said, heard, sequences(said, first[: n + 1]), sequences(heard, first[n:])
    )


def align_words(
    references: Sequence[str],
    hypotheses: Sequence[str],
    gap: int,
    aligned: Callable[[Sequences, Sequences], tuple[NDArray[np.uint8], NDArray[np.int64]]],
    nist: bool = False,
    ids: bool = False,
) -> Alignments:
    """Align the words of texts; ``aligned`` is `align_sequences` with its weights, a block each.

    ``nist``, ``ids``: as in `split_words`.
    """
    n = len(references)
    found = [np.zeros(0, np.uint8)]
    lengths = [np.zeros(1, np.int64)]
    for begin in range(0, n, BLOCK):
        said, heard = (texts[begin : begin + BLOCK] for texts in (references, hypotheses))
        keys, first, _ = split_words([*said, *heard], nist, ids)
        end = first[len(said)]
        block, ends = aligned(
            sequences(keys[:end], first[: len(said) + 1], gap),
            sequences(keys[end:], first[len(said) :], gap),
        )
        found.append(block)
        lengths.append(np.diff(ends))
    codes = np.concatenate(found)

    def shown() -> tuple[Words, NDArray[np.int32], NDArray[np.int32]]:
        _, first, words = split_words([*references, *hypotheses], nist, ids)
        numbers = np.arange(len(words), dtype=np.int32)
        return words, *placed(codes, numbers[: first[n]], numbers[first[n] :])

    return Alignments(codes, np.cumsum(np.concatenate(lengths)), shown)


def split_words(
    texts: Sequence[str], nist: bool = False, ids: bool = False
) -> tuple[NDArray[np.uint64], NDArray[np.int64], Words]:
    """Split texts into words: (keys, first, words).

    Equal words have equal keys, different ones different keys. first: (texts + 1,) where the
    words of each text begin, and the end. ``nist``: A to Z become small, and only ASCII white
    space separates words. ``ids``: every text ends with an id in brackets, and has no others;
    it is left out.
    """
    text = "\n".join([*texts, ""])
    if text.count("\n") > len(texts):
        text = "\n".join([*(each.replace("\n", " ") for each in texts), ""])
    if not nist and not text.isascii():
        for space in _WIDE_SPACES:
            text = text.replace(space, " ")
    # Spaces around, so that every word has a beginning and an end, and eight bytes to be read.
    data = b" %b       " % text.encode("utf-8", "surrogatepass")
    if nist:
        data = data.lower()
    spaces = _SPACES + _SEPARATORS * (not nist) + b"()" * ids
    is_space = np.frombuffer(data.translate(bytes(b in spaces for b in range(256))), np.bool_)
    edges = np.flatnonzero(is_space[1:] != is_space[:-1]) + 1
    starts, ends = edges[0::2], edges[1::2]
    line_ends = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n"))
    first = np.concatenate(([0], np.searchsorted(starts, line_ends)))
    if ids:
        is_word = np.ones(len(starts), np.bool_)
        is_word[first[1:] - 1] = False
        starts, ends = starts[is_word], ends[is_word]
        first -= np.arange(len(first))
    # The key of a word of up to seven bytes is its bytes and their number.
    n_bytes = ends - starts
    short = np.minimum(n_bytes, 8)
    masks = np.array([(1 << 8 * n) - 1 for n in range(8)] + [0], np.uint64)
    at_bytes = np.ndarray(len(data) - 7, "<u8", data, strides=(1,))
    keys = (at_bytes[starts] & masks[short]) | (short.astype(np.uint64) << np.uint64(56))
    long = np.flatnonzero(n_bytes > 7)
    keys[long] = _long_keys(data, at_bytes, starts[long], ends[long])
    return keys, first, Words(data, starts, ends)


def _long_keys(
    data: bytes, at_bytes: NDArray[np.uint64], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> NDArray[np.uint64]:
    """Keys of words of eight bytes and more.

    A word of up to sixteen is its first and last eight and their number. They are hashed into a
    table, and a word equal to the one that is there has its place for a key. Others are counted.
    """
    n_bytes = (ends - starts).astype(np.uint64)
    heads, tails = at_bytes[starts], at_bytes[ends - 8]
    hashes = (heads ^ (tails * _ODD) ^ n_bytes) * _ODD
    places = (hashes >> np.uint64(64 - _TABLE_BITS)).astype(np.int64)
    owners = np.empty(1 << _TABLE_BITS, np.int64)
    owners[places] = np.arange(len(places))
    owners = owners[places]
    same = (heads == heads[owners]) & (tails == tails[owners]) & (n_bytes == n_bytes[owners])
    keys = places.astype(np.uint64) | np.uint64(9 << 56)
    rest = np.flatnonzero(~same | (n_bytes > 16))
    numbers: defaultdict[bytes, int] = defaultdict(itertools.count(10 << 56).__next__)
    slices = map(slice, starts[rest].tolist(), ends[rest].tolist())
    counted = map(numbers.__getitem__, map(data.__getitem__, slices))
    keys[rest] = np.fromiter(counted, np.uint64, len(rest))
    return keys


def sequences(keys: NDArray[Any], first: NDArray[np.int64], gaps: int = 1) -> Sequences:
    """Words by keys >= 0, for `align_sequences`; every gap costs the same."""
    return Sequences(
        keys.astype(np.uint64) + np.uint64(N_PADDINGS),
        np.full(len(keys), gaps, np.int32),
        first - first[0],
    )


def _align(
    tokens: Sequence[str],
    said: NDArray[np.int32],
    heard: NDArray[np.int32],
    a: Sequences,
    b: Sequences,
) -> Alignments:
    codes, first = _by_edits(a, b)
    return Alignments(codes, first, lambda: (tokens, *placed(codes, said, heard)))


def _by_edits(a: Sequences, b: Sequences) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    return align_sequences(a, b, 1, TIES, True, True, MAX_CHOICES)


def placed(
    codes: NDArray[np.uint8], said: NDArray[np.int32], heard: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The tokens of either side in their columns, -1 in gaps."""
    columns = np.full((2, len(codes)), -1, np.int32)
    columns[0, codes != INSERTION] = said
    columns[1, codes != DELETION] = heard
    return columns[0], columns[1]
