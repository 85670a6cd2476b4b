"""How far a search has come, as a value: one may keep it, and go on from it in several ways."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr.decode.search.kernels import hash_table, resized, shared_by, way_to, ways_to
from asr.lm.ngram import advance
from asr.system.jit import compiled

#: Of `State.settled`.
NOTHING = np.empty((0, 3), np.int64)


class Reached(NamedTuple):
    """The next frame, the numbers of hypotheses and of the tree's nodes, and the logarithm of the
    scale of the probabilities."""

    t: int
    n_beam: int
    n_nodes: int
    log_scale: float


class State(NamedTuple):
    """How far a search has come; nothing changes it.

    entries: the hypotheses, best first, each at a node of a tree. tree: node v is node parent[v]
    and then code[v], a label or word; all hypotheses begin with node 0. settled (U, 3): what they
    began with before: code, first and last frame in the beam of each prefix, the empty one first;
    ``n_forgotten`` others stood before.

    width, room: hypotheses and nodes that there is room for. When the tree is pruned, which forgets
    when a node was in the beam before, depends on them.
    """

    reached: Reached
    entries: Any
    tree: Any
    settled: NDArray[np.int64]
    n_forgotten: int
    width: int
    room: int


class Found(NamedTuple):
    """A hypothesis, were this the end.

    codes: of its labels or words. unfinished: the tree node of a word cut off by the end of the
    utterance, given only where no hypothesis ends with a whole word, and of several the likeliest;
    else 0. acoustic: summed over the places in which the words may end, or be cut off. current (2,
    1 + codes): the first and the last frame with the codes so far, and no more, in the beam.
    """

    codes: list[int]
    unfinished: int
    acoustic: float
    lm: float
    bonus: float
    current: NDArray[np.int64]

    @property
    def score(self) -> float:
        """Of the three parts."""
        return self.acoustic + self.lm + self.bonus


def run(
    state: State,
    end: int,
    beam: int,
    most_new: Callable[[int], int],
    go_on: Callable[[Any, Any, NDArray[np.int64], int, Reached], Reached],
) -> State:
    """Return the state before frame ``end``.

    most_new: nodes that a frame may bring to so many hypotheses. go_on: searches on, in place, as
    long as there is room for one frame more, given entries, tree, the tree's hash, width and what
    is reached, and returns what it reaches.
    """
    reached, entries, tree, said, n_forgotten, width, room = state
    entries = resized_all(entries, min(beam, width * (1 + most_new(1))))
    tree = resized_all(tree, room)
    table = hash_table(tree.parent, tree.code, reached.n_nodes)
    while True:
        reached = Reached(*go_on(entries, tree, table, width, reached))
        _, n_beam, n, _ = reached
        if reached.t == end or n_beam == 0:
            break
        n, rows = prune(tree, n, entries.node[:n_beam])
        reached, said = reached._replace(n_nodes=n), np.concatenate([said, rows])
        if n_beam > width:
            width = min(beam, 2 * n_beam)
            entries = resized_all(first_rows(entries, n_beam), min(beam, width * (1 + most_new(1))))
        if 2 * n + most_new(width) > room:
            room = 4 * n + most_new(width)
            tree = resized_all(first_rows(tree, n), room)
        table = hash_table(tree.parent, tree.code, n)
    return State(
        reached, first_rows(entries, n_beam), first_rows(tree, n), said, n_forgotten, width, room
    )


def resized_all(columns: Any, room: int) -> Any:
    """Return a copy of a named tuple of arrays with so many places in each."""
    return columns._make(resized(values, room) for values in columns)


def first_rows(columns: Any, n: int) -> Any:
    """Return the first places of each of a named tuple of arrays, copied."""
    return columns._make(values[:n].copy() for values in columns)


def prune(tree: Any, n_nodes: int, living: NDArray[np.int64]) -> tuple[int, NDArray[np.int64]]:
    """Keep, in place, the nodes on the way to ``living`` from the last one that all share.

    A branch without living nodes can be made anew without harm. Returns how many are kept, and the
    ``settled`` rows of those before.
    """
    kept = ways_to(tree.parent, n_nodes, living)
    n_shared = int(np.searchsorted(kept, shared_by(tree.parent, living)))
    rows = _rows(tree, kept[:n_shared])
    return keep(tree, n_nodes, kept[n_shared:], living), rows


def keep(tree: Any, n_nodes: int, kept: NDArray[np.int64], living: NDArray[np.int64]) -> int:
    """Keep these nodes of a tree, in place, parents first, and renumber them, in ``living`` too."""
    new, n = np.empty(n_nodes, np.int64), len(kept)
    new[kept] = np.arange(n)
    for values in tree:
        values[:n] = values[kept]
    tree.parent[0] = -1
    tree.parent[1:n] = new[tree.parent[1:n]]
    living[:] = new[living]
    return n


def _rows(tree: Any, nodes: Any) -> NDArray[np.int64]:
    rows = np.empty((len(nodes), 3), np.int64)
    rows[:, 0], rows[:, 1], rows[:, 2] = tree.code[nodes], tree.born[nodes], tree.seen[nodes]
    return rows


def codes_to(state: State, node: int) -> tuple[list[int], NDArray[np.int64]]:
    """Return ``codes`` and ``current`` of `Found` of a node of the tree."""
    rows = _rows(state.tree, way_to(state.tree.parent, node))
    if len(state.settled):
        rows = np.concatenate([state.settled, rows])
    return rows[1:, 0].tolist(), rows[:, 1:].T


def settled(state: State) -> tuple[list[int], NDArray[np.int64]]:
    """Return ``codes`` and ``current``, as of `Found`, of what all hypotheses begin with: whatever
    comes, the codes stay."""
    return codes_to(state, int(shared_by(state.tree.parent, state.entries.node)))


def commit(state: State, n_codes: int) -> State:
    """Return the state without hypotheses that differ from the best one in its first ``n_codes``,
    of which those forgotten are none."""
    if state.reached.n_beam == 0:
        return state
    node = int(state.entries.node[0])
    for _ in range(len(codes_to(state, node)[0]) - n_codes):
        node = max(int(state.tree.parent[node]), 0)
    return through(state, node)


def decide(state: State, n_frames: int) -> State:
    """Return the state without hypotheses that differ from the best one in what it said
    ``n_frames`` ago.

    Nothing later tells such hypotheses apart, so that in long utterances they would fill the beam,
    and the tree would hold each one's whole way.
    """
    if state.reached.n_beam == 0:
        return state
    way = way_to(state.tree.parent, state.entries.node[0])
    n_old = np.searchsorted(state.tree.born[way], state.reached.t - n_frames, "right")
    return through(state, int(way[max(0, n_old - 1)]))


def through(state: State, node: int) -> State:
    """Return the state with only those hypotheses whose way leads through a node of the tree."""
    stay = lead_through(state.tree.parent, state.entries.node, node)
    entries = state.entries._make(values[stay] for values in state.entries)
    return state._replace(reached=state.reached._replace(n_beam=int(stay.sum())), entries=entries)


@compiled
def lead_through(parents, nodes, node):  # type: ignore[no-untyped-def]
    """Return whether the way to each of ``nodes`` leads through ``node``."""
    leads = np.empty(len(nodes), np.bool_)
    for i in range(len(nodes)):
        v = nodes[i]
        while v > node:  # parents have lower numbers
            v = parents[v]
        leads[i] = v == node
    return leads


def forget(state: State) -> State:
    """Return the state without the codes that all hypotheses are known to begin with, which makes
    no other difference; so a search may go on for days."""
    n = state.n_forgotten + len(state.settled)
    return state._replace(settled=state.settled[:0], n_forgotten=n)


@compiled
def end_scores(trie, states, end_token):  # type: ignore[no-untyped-def]
    """Return log10 P(end | state) of each state."""
    scores = np.empty(len(states))
    for i in range(len(states)):
        scores[i], _ = advance(trie, states[i], end_token)
    return scores
