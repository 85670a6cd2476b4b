"""Alignment with NIST's weights: word for word what sclite's network alignment gives.

Method and rules as in sctk 2.4 (``net_dp.c``, ``word.c``): substitution 4, insertion 3,
deletion 3; of equal costs a substitution (or hit) is taken before an insertion, that before a
deletion. Transcripts are little networks:

- ``{ a / b c / @ }`` are alternatives, which may nest; the cheapest counts, ``@`` is no word;
- ``(uh)`` is optional (sclite's ``-D``): a hit when spoken, and when not, a hit, too;
- of a word, the case of A to Z, a final ``*`` and all that follows a ``;`` are ignored
  (``\\;`` is a semicolon).

Transcripts without alternatives are plain sequences, for which there is a faster way.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr.errors import InputError
from asr.score.alignment import Alignments, align_words, placed, sequences, split_words
from asr.score.sequences import (
    DELETION,
    GAP,
    HIT,
    INSERTION,
    MAX_CHOICES,
    NULL_GAP,
    OPTIONAL_GAP,
    SUBSTITUTION_COST,
    Sequences,
    Ties,
    align_sequences,
)

if TYPE_CHECKING:
    from asr.score.kernels import Networks

TIES = Ties(hit=0, substitution=1, insertion=2, deletion=3)

NULL = "@"
HEAD_OR_TAIL = 0
#: A network takes 12 bytes for every pair of a reference and a hypothesis word.
MAX_CELLS = 200_000_000
#: What makes a network of a transcript, and what else makes a word unlike its text.
_NETWORK_MARKS = "{}@"
_MARKS = _NETWORK_MARKS + "(;*\\"

# sclite folds no other letters.
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_OUTSIDE = re.compile(r"\s*([{}]|[^\s{}]+)", re.ASCII)
_INSIDE = re.compile(r"\s*([{}/]|[^\s{}/]+)", re.ASCII)
_TAG = re.compile(r"(?<!\\);")


class _Vocabulary(dict[str, int]):
    """Entry numbers by token; of an entry: its word as shown, the word's id, the cost of a gap."""

    def __init__(self) -> None:
        self.shown: list[str] = [""]
        self.word_ids = [-1]
        self.gaps: list[float] = [GAP]
        self._ids: dict[str, int] = {}

    def __missing__(self, token: str) -> int:
        word = token
        if ";" in word or "\\" in word:
            word = _TAG.split(word, maxsplit=1)[0].replace("\\", "")
        if len(word) > 1 and word[-1] == "*":
            word = word[:-1]
        optional = word[:1] == "(" and word[-1:] == ")"
        spoken = word[1:-1] if optional else word
        self.shown.append(word)
        self.word_ids.append(-1 if word == NULL else self._ids.setdefault(spoken, len(self._ids)))
        self.gaps.append(NULL_GAP if word == NULL else OPTIONAL_GAP if optional else GAP)
        self[token] = len(self.shown) - 1
        return self[token]


class _Builder:
    """Collects the networks of one side; both sides share the vocabulary."""

    def __init__(self, vocabulary: _Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.entries: list[int] = []
        self.predecessors: list[int] = []
        self.first_predecessor = [0]
        self.first_arc = [0]

    def add(self, text: str) -> None:
        """Append one transcript.

        Raises:
            InputError: braces that do not match, or alternatives without a word.
        """
        text = text.translate(_LOWER)
        ends = self._follow([], HEAD_OR_TAIL)
        opened: list[tuple[list[int], list[int]]] = []
        position = 0
        while found := (_INSIDE if opened else _OUTSIDE).match(text, position):
            position = found.end()
            token = found[1]
            if token == "{":
                opened.append((ends, []))
            elif opened and token in "/}":
                starts, closed = opened[-1]
                # An empty alternative is none, as in sclite; @ says that nothing was spoken.
                closed += [] if ends is starts else ends
                ends = starts
                if token == "}":
                    opened.pop()
                    ends = closed
                    if not ends:
                        raise InputError(f"alternatives without a word: {text.strip()[:60]!r}")
            elif token == "}":
                raise InputError(f"'}}' without '{{': {text.strip()[:60]!r}")
            else:
                ends = self._follow(ends, self.vocabulary[token])
        if opened:
            raise InputError(f"'{{' without '}}': {text.strip()[:60]!r}")
        self._follow(ends, HEAD_OR_TAIL)
        self.first_arc.append(len(self.entries))

    def _follow(self, predecessors: list[int], entry: int) -> list[int]:
        """Append an arc after ``predecessors``; return it as the predecessor of the next."""
        self.entries.append(entry)
        self.predecessors += predecessors
        self.first_predecessor.append(len(self.predecessors))
        return [len(self.entries) - 1 - self.first_arc[-1]]

    def networks(self) -> Networks:
        from asr.score.kernels import Networks

        entries = np.array(self.entries, np.int64)
        return Networks(
            np.array(self.vocabulary.word_ids, np.int32)[entries],
            np.array(self.vocabulary.gaps, np.float32)[entries],
            np.array(self.predecessors, np.int32),
            np.array(self.first_predecessor, np.int64),
            np.array(self.first_arc, np.int64),
        )


def align_plain(
    references: Sequence[str], hypotheses: Sequence[str], ids: bool = False
) -> Alignments:
    """`align_nist` of texts without any of its marks; ``ids``: as in `alignment.split_words`."""

    def aligned(a: Sequences, b: Sequences) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        return align_sequences(a, b, SUBSTITUTION_COST, TIES, False, True, MAX_CHOICES)

    return align_words(references, hypotheses, GAP, aligned, nist=True, ids=ids)


def align_nist(
    references: Sequence[str],
    hypotheses: Sequence[str],
    wheres: tuple[Sequence[str], Sequence[str]] | None = None,
) -> Alignments:
    """Align transcripts as ``sclite -D`` does; tokens in lower case.

    An optional word that was not spoken is a hit without a hypothesis token. ``wheres``
    tell in error messages where references and hypotheses stand.

    Raises:
        InputError: braces that do not match, or an utterance too long to be aligned.
    """
    if not any(mark in text for text in map("".join, (references, hypotheses)) for mark in _MARKS):
        return align_plain(references, hypotheses)

    vocabulary = _Vocabulary()
    plain = np.array(
        [
            not any(mark in side for side in pair for mark in _NETWORK_MARKS)
            for pair in zip(references, hypotheses, strict=True)
        ]
    )
    found = _align_sequences(references, hypotheses, plain, vocabulary)
    if not plain.all():
        marked = np.flatnonzero(~plain)
        of_marked = _align_networks(references, hypotheses, marked, vocabulary, wheres)
        found = _merged(found, marked, of_marked)
    return Alignments(found.codes, found.first, lambda: (vocabulary.shown, found.said, found.heard))


class _Columns(NamedTuple):
    """The columns of utterances and where those of each begin, as in `Alignments`."""

    codes: NDArray[np.uint8]
    first: NDArray[np.int64]
    said: NDArray[np.int32]
    heard: NDArray[np.int32]


def _align_sequences(
    references: Sequence[str],
    hypotheses: Sequence[str],
    plain: NDArray[np.bool_],
    vocabulary: _Vocabulary,
) -> _Columns:
    """Align the utterances that are ``plain`` sequences; others have no columns."""
    n = len(references)
    keys, first, words = split_words([*references, *hypotheses], nist=True)
    _, places, ids = np.unique(keys, return_index=True, return_inverse=True)
    entries = np.array([vocabulary[words[i]] for i in places.tolist()], np.int32)[ids]
    entries = entries[np.repeat(np.tile(plain, 2), np.diff(first))]
    lengths = np.diff(first) * np.tile(plain, 2)
    n_said = int(lengths[:n].sum())
    said, heard = entries[:n_said], entries[n_said:]
    word_ids = np.array(vocabulary.word_ids, np.int32)
    gaps = np.array(vocabulary.gaps).astype(np.int32)
    a, b = (
        sequences(word_ids[of], np.concatenate(([0], np.cumsum(side))))._replace(gaps=gaps[of])
        for of, side in ((said, lengths[:n]), (heard, lengths[n:]))
    )
    codes, first_step = align_sequences(a, b, SUBSTITUTION_COST, TIES, False, False, MAX_CHOICES)
    said_gaps, heard_gaps = placed(codes, a.gaps, b.gaps)
    found = _Columns(codes, first_step, *placed(codes, said, heard))
    codes[(codes == DELETION) & (said_gaps == OPTIONAL_GAP)] = HIT
    codes[(codes == INSERTION) & (heard_gaps == OPTIONAL_GAP)] = HIT
    return found


def _align_networks(
    references: Sequence[str],
    hypotheses: Sequence[str],
    marked: NDArray[np.int64],
    vocabulary: _Vocabulary,
    wheres: tuple[Sequence[str], Sequence[str]] | None,
) -> _Columns:
    """Align the utterances ``marked`` as networks."""
    from asr.score.kernels import align_networks

    builders = _Builder(vocabulary), _Builder(vocabulary)
    for u in marked.tolist():
        for side, texts in enumerate((references, hypotheses)):
            try:
                builders[side].add(texts[u])
            except InputError as error:
                raise InputError(f"{_where(u, side, wheres)}: {error}") from None
    said, heard = (builder.networks() for builder in builders)
    cells = np.diff(said.first_arc) * np.diff(heard.first_arc)
    if cells.max() > MAX_CELLS:
        raise InputError(
            f"{_where(int(marked[cells.argmax()]), 0, wheres)}: is too long for alternatives "
            f"({cells.max():.2g} pairs of words, limit {MAX_CELLS:.2g}); split it"
        )
    *steps, codes, first = align_networks(said, heard)
    entries = [
        np.array([*builder.entries, -1], np.int32)[of]
        for builder, of in zip(builders, steps, strict=True)
    ]
    return _Columns(codes, first, *entries)


def _merged(plain: _Columns, marked: NDArray[np.int64], of_marked: _Columns) -> _Columns:
    """The columns of both kinds of utterances, in the order of utterances."""
    n_columns, n_of_marked = np.diff(plain.first), np.diff(of_marked.first)
    utterances = np.repeat(np.arange(len(n_columns)), n_columns), np.repeat(marked, n_of_marked)
    order = np.argsort(np.concatenate(utterances), kind="stable")
    n_columns[marked] = n_of_marked
    return _Columns(
        np.concatenate((plain.codes, of_marked.codes))[order],
        np.concatenate(([0], np.cumsum(n_columns))),
        np.concatenate((plain.said, of_marked.said))[order],
        np.concatenate((plain.heard, of_marked.heard))[order],
    )


def _where(u: int, side: int, wheres: tuple[Sequence[str], Sequence[str]] | None) -> str:
    return wheres[side][u] if wheres else f"{('reference', 'hypothesis')[side]} {u + 1}"
