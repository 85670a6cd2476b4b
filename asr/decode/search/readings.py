"""The probability of words whose labels can be read as these words in several ways, counted once.

The search sums over readings: which labels belong to which word. Mostly labels are read as given
words in one way alone; but where x is spelled a or a b, and y b c or c, the labels a b c are x y in
two ways, and would count twice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from asr.decode.paths import BEGIN, Frames, Graph, band_of, spelled
from asr.decode.search.kernels import log_add
from asr.labels import BLANK
from asr.system.jit import compiled


def sum_of_readings(
    log_probs: NDArray[np.float32],
    spellings: Sequence[Sequence[Sequence[int]]],
    separators: Sequence[int],
    required: bool,
    current: Frames,
) -> float | None:
    """Return the log-probability of all label sequences that spell the words, each counted once;
    ``None`` where none can be read in two ways, so that a sum over readings is the same.

    Arguments are those of `ctc_align_words`; ``current`` holds for the sum as for the best path.
    """
    graph = spelled(spellings, separators, required)
    following: dict[int, list[int]] = defaultdict(list)
    for node, before in enumerate(graph.before):
        for p in before:
            following[p].append(node)
    if not _reads_twice(graph, following):
        return None
    label, offsets, predecessors, final, since, until = _determined(graph, following)
    band = band_of(len(log_probs), since, until, current)
    return float(sum_over(log_probs, label, offsets, predecessors, final, *band))


def _reads_twice(graph: Graph, following: dict[int, list[int]]) -> bool:
    """Whether two ways through the graph say the same labels."""

    def both(one: int, other: int) -> list[tuple[int, int]]:
        by_label: dict[int, list[int]] = defaultdict(list)
        for node in following[other]:
            by_label[graph.labels[node]].append(node)
        return [(a, b) for a in following[one] for b in by_label[graph.labels[a]]]

    # From a single node on, each pair once; a pair of one and the same node has not parted yet.
    pairs = [pair for node in list(following) for pair in both(node, node) if pair[0] < pair[1]]
    seen, ends = set(pairs), set(graph.ends)
    while pairs:
        one, other = pairs.pop()
        if one == other or (one in ends and other in ends):
            return True
        new = set(both(one, other)) - seen
        seen |= new
        pairs += new
    return False


def _determined(
    graph: Graph, following: dict[int, list[int]]
) -> tuple[
    NDArray[np.int64],
    NDArray[np.int64],
    NDArray[np.int64],
    NDArray[np.bool_],
    NDArray[np.int64],
    NDArray[np.int64],
]:
    """Return the graph in which labels lead to one state alone: the set of nodes that they lead to
    (Rabin & Scott 1959).

    Returns:
        label (S,) that leads to each state, BLANK for state 0, the start. offsets, predecessors:
        the states before s are predecessors[offsets[s] : offsets[s + 1]]. final (S,). since, until
        (S,): the words said in full before, and with it.
    """
    number = {frozenset([BEGIN]): 0}
    before: list[list[int]] = [[]]
    states = list(number)
    for at, nodes in enumerate(states):  # it grows as it is gone through
        by_label: dict[int, set[int]] = defaultdict(set)
        for node in nodes:
            for n in following[node]:
                by_label[graph.labels[n]].add(n)
        for reached in map(frozenset, by_label.values()):
            if reached not in number:
                number[reached] = len(states)
                states.append(reached)
                before.append([])
            before[number[reached]].append(at)
    first = [min(nodes) for nodes in states]
    ends = set(graph.ends)
    return (
        np.array([BLANK if n == BEGIN else graph.labels[n] for n in first], np.int64),
        np.append(0, np.cumsum([len(found) for found in before])),
        np.array([s for found in before for s in found], np.int64),
        np.array([not ends.isdisjoint(nodes) for nodes in states]),
        np.array([0, *(min(graph.words_begun[n] for n in nodes) for nodes in states[1:])]),
        np.array([0, *(max(graph.words_done[n] for n in nodes) for nodes in states[1:])]),
    )


@compiled
def sum_over(  # type: ignore[no-untyped-def]
    log_probs, label, offsets, predecessors, final, lowest, highest
):
    """Return the log-probability of all CTC paths through a graph of S states: the forward variable
    (Graves et al. 2006, section 4.1).

    Args:
        label, offsets, predecessors, final: of `_determined`.
        lowest, highest: (T,) the states considered in each frame.
    """
    n_states = len(label)
    pb, pnb = np.full(n_states, -np.inf), np.full(n_states, -np.inf)
    pb[0] = 0.0
    came = np.empty(n_states)
    for t in range(len(log_probs)):
        frame = log_probs[t]
        for s in range(lowest[t], highest[t] + 1):
            came[s] = pnb[s]
            for at in range(offsets[s], offsets[s + 1]):
                p = predecessors[at]
                came[s] = log_add(came[s], pb[p])
                if label[p] != label[s]:
                    came[s] = log_add(came[s], pnb[p])
        if t > 0:
            # States only leave the band for good.
            for s in range(lowest[t - 1], lowest[t]):
                pb[s] = pnb[s] = -np.inf
        for s in range(lowest[t], highest[t] + 1):
            pb[s] = log_add(pb[s], pnb[s]) + frame[BLANK]
            pnb[s] = came[s] + frame[label[s]] if s > 0 else -np.inf
    total = -np.inf
    for s in range(n_states):
        if final[s]:
            total = log_add(total, log_add(pb[s], pnb[s]))
    return total
