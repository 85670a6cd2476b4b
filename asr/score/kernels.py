"""Compiled loops of scoring: alignments of word networks, segments of matched-pairs tests."""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from asr.score.sequences import (
    DELETION,
    HIT,
    INSERTION,
    NULL_NULL,
    OPTIONAL_GAP,
    SUBSTITUTION,
    SUBSTITUTION_COST,
)


class Networks(NamedTuple):
    """One side of many utterances as word networks, in flat arrays.

    The arcs of utterance ``u`` are ``first_arc[u]`` to ``first_arc[u + 1]``, in topological order:
    a head that carries no word, the words, and a tail that closes the network. Arc ``i`` follows
    the arcs ``predecessors[first_predecessor[i] : first_predecessor[i + 1]]``, counted from the
    head of its utterance. ``words`` are ids (negative: ``@``), ``gaps`` the costs of leaving out,
    in single precision as in sclite: rounding, too, decides between near equals.
    """

    words: NDArray[np.int32]
    gaps: NDArray[np.float32]
    predecessors: NDArray[np.int32]
    first_predecessor: NDArray[np.int64]
    first_arc: NDArray[np.int64]


@numba.njit(cache=True)
def align_networks(said, heard):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Align every utterance of two `Networks`; ``@`` left out is no column.

    Returns (steps_said, steps_heard, codes, first_step): positions of arcs (-1: none), codes of
    columns, and where the columns of every utterance begin (utterances + 1,).
    """
    n_utterances = len(said.first_arc) - 1
    n_steps = len(said.words) + len(heard.words)
    steps_a, steps_b = np.empty(n_steps, np.int32), np.empty(n_steps, np.int32)
    codes = np.empty(n_steps, np.uint8)
    first_step = np.zeros(n_utterances + 1, np.int64)
    for u in range(n_utterances):
        first_a, first_b = said.first_arc[u], heard.first_arc[u]
        back_a, back_b = _fill_networks(said, heard, u)
        a, b = back_a[-1, -1], back_b[-1, -1]
        n = first_step[u]
        while a > 0 or b > 0:
            before_a, before_b = back_a[a, b], back_b[a, b]
            arc_a, arc_b = first_a + a, first_b + b
            is_column = True
            if before_a == a:
                is_column = heard.words[arc_b] >= 0
                arc_a = -1
                code = HIT if heard.gaps[arc_b] == OPTIONAL_GAP else INSERTION
            elif before_b == b:
                is_column = said.words[arc_a] >= 0
                arc_b = -1
                code = HIT if said.gaps[arc_a] == OPTIONAL_GAP else DELETION
            else:
                code = HIT if said.words[arc_a] == heard.words[arc_b] else SUBSTITUTION
            if is_column:
                steps_a[n], steps_b[n], codes[n] = arc_a, arc_b, code
                n += 1
            a, b = before_a, before_b
        begin = first_step[u]
        steps_a[begin:n] = steps_a[begin:n][::-1].copy()
        steps_b[begin:n] = steps_b[begin:n][::-1].copy()
        codes[begin:n] = codes[begin:n][::-1].copy()
        first_step[u + 1] = n
    n = first_step[n_utterances]
    return steps_a[:n].copy(), steps_b[:n].copy(), codes[:n].copy(), first_step


@numba.njit(cache=True)
def _fill_networks(said, heard, u):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Cheapest ways to every pair of arcs (a, b) of utterance ``u``; those to the tails at the end.

    Returns (back_a, back_b), both (A, B) int32: the pair before.
    """
    begin_a, end_a = said.first_arc[u], said.first_arc[u + 1]
    begin_b, end_b = heard.first_arc[u], heard.first_arc[u + 1]
    n_a, n_b = end_a - begin_a, end_b - begin_b
    words_a, words_b = said.words[begin_a:end_a], heard.words[begin_b:end_b]
    gaps_a, gaps_b = said.gaps[begin_a:end_a], heard.gaps[begin_b:end_b]
    first_a = said.first_predecessor[begin_a : end_a + 1]
    first_b = heard.first_predecessor[begin_b : end_b + 1]
    predecessors_a, predecessors_b = said.predecessors, heard.predecessors
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
                    substitution += np.float32(SUBSTITUTION_COST)
                elif words_a[a] < 0:
                    substitution += np.float32(NULL_NULL)
            if substitution <= deletion and substitution <= insertion:
                costs[a, b], back_a[a, b], back_b[a, b] = substitution, sub_a, sub_b
            elif deletion < insertion:
                costs[a, b], back_a[a, b], back_b[a, b] = deletion, del_a, b
            else:
                costs[a, b], back_a[a, b], back_b[a, b] = insertion, a, ins_b
    return back_a, back_b


@numba.njit(cache=True)
def segment_differences(  # type: ignore[no-untyped-def]  # pragma: no cover
    codes_a, first_a, codes_b, first_b, min_good
):
    """Errors of B less errors of A in every segment that holds an error, utterance by utterance.

    A segment ends where both systems have ``min_good`` neighbouring words right.
    """
    differences = np.empty(len(codes_a) + len(codes_b), np.int64)
    n = 0
    for u in range(len(first_a) - 1):
        i, end_a = first_a[u], first_a[u + 1]
        j, end_b = first_b[u], first_b[u + 1]
        # The last words that both systems had right before the segment.
        good_a, good_b = i, j
        in_error, n_good = False, 0
        while True:
            while i < end_a and codes_a[i] == INSERTION:
                i, in_error, n_good = i + 1, True, 0
            while j < end_b and codes_b[j] == INSERTION:
                j, in_error, n_good = j + 1, True, 0
            done = i >= end_a or j >= end_b
            if done:
                stop_a, stop_b = end_a, end_b
                in_error = in_error or i < end_a or j < end_b
            elif codes_a[i] != HIT or codes_b[j] != HIT:
                in_error, n_good = True, 0
            elif not in_error:
                good_a, good_b = i, j
            else:
                n_good += 1
                stop_a, stop_b = i + 1, j + 1
            if in_error and (done or n_good == min_good):
                errors_a = (codes_a[good_a:stop_a] != HIT).sum()
                errors_b = (codes_b[good_b:stop_b] != HIT).sum()
                if errors_a or errors_b:
                    differences[n] = errors_b - errors_a
                    n += 1
                good_a, good_b, in_error, n_good = i, j, False, 0
            if done:
                break
            i, j = i + 1, j + 1
    return differences[:n].copy()
