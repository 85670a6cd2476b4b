"""Alignment with NIST's weights: word for word what sclite's network alignment gives.

Method and rules as in sctk 2.4 (``net_dp.c``, ``word.c``): substitution 4, insertion 3,
deletion 3; of equal costs a substitution (or hit) is taken before an insertion, that before a
deletion. Transcripts are little networks:

- ``{ a / b c / @ }`` are alternatives, which may nest; the cheapest counts, ``@`` is no word;
- ``(uh)`` is optional (sclite's ``-D``): a hit when spoken, and when not, a hit, too;
- of a word, the case of A to Z, a final ``*`` and all that follows a ``;`` are ignored.
"""

from __future__ import annotations

import itertools
import re
import string
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from asr.errors import InputError
from asr.score.error_rate import Alignment, Column

#: Costs in single precision, as in sclite: rounding, too, decides between near equals.
SUBSTITUTION = np.float32(4)
GAP = np.float32(3)
OPTIONAL_GAP = np.float32(2)
NULL_GAP = np.float32(0.001)
NULL_NULL = np.float32(1)
NULL = "@"
HEAD_OR_TAIL = 0
ERRORS = ("", "S", "D", "I")
#: One alignment takes 12 bytes for every pair of a reference and a hypothesis word.
MAX_CELLS = 200_000_000

# sclite folds no other letters.
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_WORD = re.compile(r"\S+", re.ASCII)
_OUTSIDE = re.compile(r"\s*([{}]|[^\s{}]+)", re.ASCII)
_INSIDE = re.compile(r"\s*([{}/]|[^\s{}/]+)", re.ASCII)


class Networks(NamedTuple):
    """Many transcripts as word networks, in flat arrays.

    The arcs of utterance ``u`` are ``first_arc[u]`` to ``first_arc[u + 1]``, in topological order:
    a head that carries no word, the words, and a tail that closes the network. Arc ``i`` follows
    the arcs ``predecessors[first_predecessor[i] : first_predecessor[i + 1]]``, counted from the
    head of its utterance. ``words`` are ids (negative: ``@``), ``gaps`` the costs of leaving out.
    """

    words: NDArray[np.int32]
    gaps: NDArray[np.float32]
    predecessors: NDArray[np.int32]
    first_predecessor: NDArray[np.int64]
    first_arc: NDArray[np.int64]


class _Vocabulary(dict[str, int]):
    """Entry numbers by token; of an entry: its word as shown, the word's id, the cost of a gap."""

    def __init__(self) -> None:
        self.shown: list[str | None] = [None]
        self.word_ids = [-1]
        self.gaps = [GAP]
        self._ids: dict[str, int] = {}

    def __missing__(self, token: str) -> int:
        word = token.partition(";")[0]
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
    """Collects the transcripts of one side; both sides share the vocabulary."""

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
        if "{" in text or "}" in text:
            ends = self._add_alternatives(text, ends)
        else:
            entries = [self.vocabulary[token] for token in _WORD.findall(text)]
            n_before = len(self.predecessors)
            self.entries += entries
            self.predecessors += range(len(entries))
            self.first_predecessor += range(n_before + 1, n_before + len(entries) + 1)
            ends = [len(entries)]
        self._follow(ends, HEAD_OR_TAIL)
        self.first_arc.append(len(self.entries))

    def _add_alternatives(self, text: str, ends: list[int]) -> list[int]:
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
                        raise InputError(f"alternatives without a word: {text[:60]!r}")
            elif token == "}":
                raise InputError(f"'}}' without '{{': {text[:60]!r}")
            else:
                ends = self._follow(ends, self.vocabulary[token])
        if opened:
            raise InputError(f"'{{' without '}}': {text[:60]!r}")
        return ends

    def _follow(self, predecessors: list[int], entry: int) -> list[int]:
        """Append an arc after ``predecessors``; return it as the predecessor of the next."""
        self.entries.append(entry)
        self.predecessors += predecessors
        self.first_predecessor.append(len(self.predecessors))
        return [len(self.entries) - 1 - self.first_arc[-1]]

    def networks(self) -> Networks:
        entries = np.array(self.entries, np.int64)
        return Networks(
            np.array(self.vocabulary.word_ids, np.int32)[entries],
            np.array(self.vocabulary.gaps, np.float32)[entries],
            np.array(self.predecessors, np.int32),
            np.array(self.first_predecessor, np.int64),
            np.array(self.first_arc, np.int64),
        )


def align_nist(
    pairs: Iterable[tuple[str, str]], names: Sequence[str] | None = None
) -> list[Alignment]:
    """Align (reference, hypothesis) transcripts as ``sclite -D`` does; tokens in lower case.

    An optional word that was not spoken is a hit without a hypothesis token. ``names`` are the
    utterances' names in error messages.

    Raises:
        InputError: braces that do not match, or an utterance too long to be aligned.
    """
    vocabulary = _Vocabulary()
    references, hypotheses = _Builder(vocabulary), _Builder(vocabulary)
    for u, (reference, hypothesis) in enumerate(pairs):
        for builder, side, text in (
            (references, "reference", reference),
            (hypotheses, "hypothesis", hypothesis),
        ):
            try:
                builder.add(text)
            except InputError as error:
                raise InputError(f"{side} of {_named(u, names)} has {error}") from None
    said, heard = references.networks(), hypotheses.networks()
    cells = np.diff(said.first_arc) * np.diff(heard.first_arc)
    if cells.size and cells.max() > MAX_CELLS:
        raise InputError(
            f"{_named(int(cells.argmax()), names)} is too long for NIST alignment "
            f"({cells.max():.2g} pairs of words, limit {MAX_CELLS:.2g}); split it"
        )
    steps, first_step = _align_all(said, heard)
    # Arc -1, none, is the last tail, and a tail is shown as None: just what is needed. Equal
    # columns share one object, as a million words have few kinds of them.
    said_entries = np.array(references.entries, np.int64)[steps[:, 0]]
    heard_entries = np.array(hypotheses.entries, np.int64)[steps[:, 1]]
    shape = (len(vocabulary.shown), len(vocabulary.shown), len(ERRORS))
    keys = np.ravel_multi_index((said_entries, heard_entries, steps[:, 2]), shape)
    kinds, inverse = np.unique(keys, return_inverse=True)
    shown = vocabulary.shown
    made = [
        Column(shown[a], shown[b], ERRORS[error])
        for a, b, error in zip(*(i.tolist() for i in np.unravel_index(kinds, shape)), strict=True)
    ]
    columns = [made[i] for i in inverse.tolist()]
    return [Alignment.of(columns[i:j]) for i, j in itertools.pairwise(first_step.tolist())]


def _named(u: int, names: Sequence[str] | None) -> str:
    return f"utterance {names[u] if names else u + 1}"


@numba.njit(cache=True)
def _align_all(  # type: ignore[no-untyped-def]  # pragma: no cover
    said, heard
):
    """Align every utterance.

    Returns (steps, first_step): ``steps`` (n, 3) are the indices of the reference and hypothesis
    arcs (-1: none) and that of the error in ``ERRORS``; ``@`` left out is no step. Utterance ``u``
    has the steps from ``first_step[u]`` to ``first_step[u + 1]``.
    """
    n_utterances = len(said.first_arc) - 1
    steps = np.empty((len(said.words) + len(heard.words), 3), np.int64)
    first_step = np.zeros(n_utterances + 1, np.int64)
    for u in range(n_utterances):
        first_a, first_b = said.first_arc[u], heard.first_arc[u]
        n_a = said.first_arc[u + 1] - first_a
        n_b = heard.first_arc[u + 1] - first_b
        back_a, back_b = _fill(
            said.words[first_a : first_a + n_a],
            heard.words[first_b : first_b + n_b],
            said.gaps[first_a : first_a + n_a],
            heard.gaps[first_b : first_b + n_b],
            said.first_predecessor[first_a : first_a + n_a + 1],
            heard.first_predecessor[first_b : first_b + n_b + 1],
            said.predecessors,
            heard.predecessors,
        )
        a, b = back_a[-1, -1], back_b[-1, -1]
        n = first_step[u]
        while a > 0 or b > 0:
            before_a, before_b = back_a[a, b], back_b[a, b]
            arc_a, arc_b = first_a + a, first_b + b
            if before_a == a:
                if heard.words[arc_b] >= 0:
                    steps[n] = -1, arc_b, 0 if heard.gaps[arc_b] == OPTIONAL_GAP else 3
                    n += 1
            elif before_b == b:
                if said.words[arc_a] >= 0:
                    steps[n] = arc_a, -1, 0 if said.gaps[arc_a] == OPTIONAL_GAP else 2
                    n += 1
            else:
                steps[n] = arc_a, arc_b, 0 if said.words[arc_a] == heard.words[arc_b] else 1
                n += 1
            a, b = before_a, before_b
        steps[first_step[u] : n] = steps[first_step[u] : n][::-1].copy()
        first_step[u + 1] = n
    return steps[:n] if n_utterances else steps, first_step


@numba.njit(cache=True)
def _fill(  # type: ignore[no-untyped-def]  # pragma: no cover
    words_a, words_b, gaps_a, gaps_b, first_a, first_b, predecessors_a, predecessors_b
):
    """Cheapest ways to every pair of arcs (a, b) of one utterance; those to the tails at the end.

    Returns (back_a, back_b), both (A, B) int32: the pair before.
    """
    n_a, n_b = len(words_a), len(words_b)
    costs = np.empty((n_a, n_b), np.float32)
    back_a = np.zeros((n_a, n_b), np.int32)
    back_b = np.zeros((n_a, n_b), np.int32)
    costs[0, 0] = 0
    for a in range(n_a):
        for b in range(n_b):
            tails = a == n_a - 1 and b == n_b - 1
            if a == b == 0 or (a == n_a - 1) != (b == n_b - 1):
                continue
            insertion = deletion = substitution = np.float32(np.inf)
            ins_b = del_a = sub_a = sub_b = 0
            for i in range(first_a[a], first_a[a + 1]):
                before_a = predecessors_a[i]
                if not tails and costs[before_a, b] < deletion:
                    deletion, del_a = costs[before_a, b], before_a
                for j in range(first_b[b], first_b[b + 1]):
                    before_b = predecessors_b[j]
                    if costs[before_a, before_b] < substitution:
                        substitution = costs[before_a, before_b]
                        sub_a, sub_b = before_a, before_b
            if not tails:
                for j in range(first_b[b], first_b[b + 1]):
                    before_b = predecessors_b[j]
                    if costs[a, before_b] < insertion:
                        insertion, ins_b = costs[a, before_b], before_b
                insertion += gaps_b[b]
                deletion += gaps_a[a]
                if words_a[a] != words_b[b]:
                    substitution += SUBSTITUTION
                elif words_a[a] < 0:
                    substitution += NULL_NULL
            if substitution <= deletion and substitution <= insertion:
                costs[a, b], back_a[a, b], back_b[a, b] = substitution, sub_a, sub_b
            elif deletion < insertion:
                costs[a, b], back_a[a, b], back_b[a, b] = deletion, del_a, b
            else:
                costs[a, b], back_a[a, b], back_b[a, b] = insertion, a, ins_b
    return back_a, back_b
