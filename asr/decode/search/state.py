"""How far a search has come: it goes on from there, whenever frames come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from asr.decode.search.kernels import fill_hash, hash_table
from asr.lm.ngram import advance
from asr.system.jit import compiled, inner

#: Of `Work.settled`.
SETTLED = np.dtype([("code", int), ("born", int), ("seen", int)])


class Work(NamedTuple):
    """What compiled code works on, with room to spare.

    entries: the hypotheses, best first, each at a ``node`` of the tree. tree: a node is its
    ``parent`` and then ``code``, a label or word, in the beam from frame ``born`` to ``seen``, and
    of the times that a `Horizon` looks, from ``since`` to ``said`` on the way to the best one; all
    hypotheses begin with node 0. table: the tree's hash. settled: what they began with
    before, the empty prefix first. width: hypotheses that a frame may begin with. scratch: what
    each frame fills anew.

    When the tree is pruned, which forgets when a node was in the beam before, depends on the width
    and on the tree's room.
    """

    entries: NDArray[np.void]
    tree: NDArray[np.void]
    table: NDArray[np.int64]
    settled: NDArray[np.void]
    width: int
    scratch: Any


class Reached(NamedTuple):
    """The next frame, the numbers of hypotheses, of the tree's nodes and of settled rows, the
    logarithm of the scale of the probabilities, and whether the frame waits for a neural model."""

    t: int
    n_beam: int
    n_nodes: int
    n_settled: int
    log_scale: float
    waits: bool


@dataclass
class State:
    """How far a search has come; going on changes it, so that only a deep copy keeps what it is."""

    work: Work
    reached: Reached

    @property
    def entries(self) -> NDArray[np.void]:
        """The hypotheses, best first."""
        return self.work.entries[: self.reached.n_beam]


class Horizon(NamedTuple):
    """Each time after ``every`` frames of a stream, in which the search's is the ``first``,
    hypotheses are given up that differ from the best one in what it said ``n_open`` frames ago, and
    what it says is marked.

    Nothing later tells such hypotheses apart, so that in long utterances they would fill the beam,
    and the tree would hold each one's whole way.
    """

    every: int
    first: int
    n_open: int

    def last(self, t: int) -> int:
        """When, before frame ``t``, it was last looked; in frames of the search."""
        return t - (self.first + t) % self.every


#: Nothing is given up.
OPEN = Horizon(1 << 62, 0, 0)
#: When what was never looked at was: before any frame.
NEVER = -(1 << 40)


class Frames(NamedTuple):
    """Frames (T, V) from frame ``first`` on, and the best value of each (T,).

    ending: it is no frame but the end, a certain blank, which ends words that are cut off.
    """

    log_probs: NDArray[np.float32]
    tops: NDArray[np.float32]
    first: int
    ending: bool = False


class Searched(Protocol):
    """What is searched for: how wide, how many nodes a frame may bring to so many hypotheses, and
    what it takes to go on from them."""

    @property
    def beam(self) -> int: ...

    def most_new(self, width: int) -> int: ...

    def scratch(self, width: int) -> Any: ...


class Found(NamedTuple):
    """A hypothesis, were this the end.

    codes (U,): of its labels or words. unfinished: the tree node of a word cut off by the end of
    the utterance, given only where no hypothesis ends with a whole word, and of several the
    likeliest; else 0. acoustic: summed over the places in which the words may end, or be cut off.
    current (2, 1 + U): the first and the last frame with the codes so far, no more, in the beam.
    """

    codes: NDArray[np.int64]
    unfinished: int
    acoustic: float
    lm: float
    bonus: float
    current: NDArray[np.int64]

    @property
    def score(self) -> float:
        """Of the three parts."""
        return self.acoustic + self.lm + self.bonus


def begun(search: Searched, entry: Any, root: Any, width: int, room: int) -> State:
    """Return the state before the first frame, with one hypothesis at the root of the tree."""
    settled = np.empty(256, SETTLED)
    one = Work(entry, root, np.empty(0, np.int64), settled, 0, None)
    return State(roomy(one, 1, width, room, search), Reached(0, 1, 1, 0, 0.0, False))


def roomy(work: Work, n_nodes: int, width: int, room: int, search: Searched) -> Work:
    """Return a copy with room to go on from ``width`` hypotheses, and for ``room`` nodes."""
    entries, scratch = work.entries, work.scratch
    if width > work.width:
        entries = longer(entries, min(search.beam, width * (1 + search.most_new(1))))
        scratch = search.scratch(width)
    tree = longer(work.tree, room)
    table = hash_table(tree["parent"], tree["code"], n_nodes)
    return Work(entries, tree, table, work.settled, width, scratch)


def longer(array: NDArray[np.void], room: int) -> NDArray[np.void]:
    """Return a copy of ``array`` with ``room`` places, and its very dtype.

    Compiled code would give it a dtype of its own, and numba knows records by the address of their
    dtype: where that is gone, another one may come to lie there.
    """
    larger = np.empty(room, array.dtype)
    n = min(len(array), room)
    larger[:n] = array[:n]
    return larger


def run(
    state: State,
    frames: Frames,
    search: Searched,
    horizon: Horizon,
    search_frames: Callable[[Frames, Any, Horizon, Work, Reached], Reached],
) -> None:
    """Go on to the end of the frames, or to one that waits. search_frames: does so as far as there
    is room."""
    while True:
        state.reached = Reached(*search_frames(frames, search, horizon, state.work, state.reached))
        t, n_beam, n, n_settled, _, waits = state.reached
        if t == frames.first + len(frames.log_probs) or n_beam == 0 or waits:
            return
        work, width, room = state.work, state.work.width, len(state.work.tree)
        if n_settled + n > len(work.settled):
            state.work = work._replace(settled=longer(work.settled, 2 * (n_settled + n)))
            continue
        if n_beam > width:
            width = min(search.beam, 2 * n_beam)
        if 2 * n + search.most_new(width) > room:
            room = 4 * n + search.most_new(width)
        state.work = roomy(work, n, width, room, search)


def codes_to(state: State, node: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return ``codes`` and ``current`` of `Found` of a node of the tree."""
    found: tuple[NDArray[np.int64], NDArray[np.int64]] = told(
        state.work.tree, state.work.settled, state.reached.n_settled, node
    )
    return found


def settled(state: State) -> tuple[list[int], NDArray[np.int64]]:
    """Return ``codes`` and ``current``, as of `Found`, of what all hypotheses begin with: whatever
    comes, the codes stay."""
    shared = shared_by(state.work.tree, state.entries, state.reached.n_beam)
    codes, current = codes_to(state, shared)
    return codes.tolist(), current


def steady(state: State, horizon: Horizon) -> list[int]:
    """Return the codes with which the best hypothesis began the last two times that it was looked,
    and does now; those that are settled are among them."""
    last = horizon.last(state.reached.t)
    node = int(state.entries["node"][0]) if state.reached.n_beam else 0
    node = marked(state.work.tree, node, last - horizon.every, last)
    return codes_to(state, node)[0].tolist()


@compiled
def end_scores(trie, states, end_token):  # type: ignore[no-untyped-def]
    """Return log10 P(end | state) of each state."""
    scores = np.empty(len(states))
    for i in range(len(states)):
        scores[i], _ = advance(trie, states[i], end_token)
    return scores


@compiled
def told(tree, settled, n_settled, node):  # type: ignore[no-untyped-def]
    """Return the codes (n,) of what was settled and on the way to ``node`` from there, but for the
    first one, which is of nothing; and first and last frames in the beam (2, 1 + n)."""
    n, v = n_settled, node
    while v > 0:
        n += 1
        v = tree[v].parent
    codes, current = np.empty(n, np.int64), np.empty((2, n + 1), np.int64)
    for u in range(n, -1, -1):
        if u >= n_settled:
            code, born, seen = tree[node].code, tree[node].born, tree[node].seen
            node = tree[node].parent
        else:
            code, born, seen = settled[u].code, settled[u].born, settled[u].seen
        current[0, u], current[1, u] = born, seen
        if u > 0:
            codes[u - 1] = code
    return codes, current


@compiled
def marked(tree, node, since, said):  # type: ignore[no-untyped-def]
    """Return the last node on the way to ``node`` that is marked with these times; 0 if none is."""
    while node > 0 and (tree[node].since > since or tree[node].said != said):
        node = tree[node].parent
    return node


@compiled
def shared_by(tree, entries, n_beam):  # type: ignore[no-untyped-def]
    """Return the last node on the way to all hypotheses; 0 if there are none."""
    shared = entries[0].node if n_beam else 0
    for i in range(1, n_beam):
        other = entries[i].node
        while shared != other:  # parents have lower numbers
            if shared > other:
                shared = tree[shared].parent
            else:
                other = tree[other].parent
    return shared


@inner
def make_room(work, reached, most_new, most):  # type: ignore[no-untyped-def]
    """See to it that there is room for a frame, which may bring ``most_new`` nodes, if need be by
    pruning the tree.

    most: nodes that a frame may bring to all hypotheses that there is room for: half of the tree
    is to be left for them. Returns whether there is room, and what is reached.
    """
    t, n_beam, n_nodes, n_settled, log_scale, waits = reached
    room, fits = len(work.tree), n_beam <= work.width
    if fits and n_nodes + most_new <= room:
        return True, reached
    if n_settled + n_nodes > len(work.settled):
        return False, reached
    n_nodes, n_settled = prune(n_beam, n_nodes, n_settled, work)
    reached = Reached(t, n_beam, n_nodes, n_settled, log_scale, waits)
    return fits and 2 * n_nodes + most <= room, reached


@inner
def prune(n_beam, n_nodes, n_settled, work):  # type: ignore[no-untyped-def]
    """Keep, in place, the nodes on the way to hypotheses from the last one that all share; those
    before are settled. Returns how many are kept, and how many are settled.

    A branch without hypotheses can be made anew without harm.
    """
    entries, tree, settled = work.entries, work.tree, work.settled
    # The hash is made anew: until then it holds the new numbers of the nodes, at first 1 where ways
    # to hypotheses part or end, and 0 where they only lead through.
    new = work.table
    new[:n_nodes] = -1
    for i in range(n_beam):
        v = entries[i].node
        while v >= 0 and new[v] < 0:
            new[v] = 0
            v = tree[v].parent
        if v >= 0:
            new[v] = 1
        new[entries[i].node] = 1
    if n_beam == 0:
        new[0] = 1
    shared = 0
    while new[shared] != 1:  # parents have lower numbers
        shared += 1
    v = tree[shared].parent
    while v >= 0:
        n_settled += 1
        v = tree[v].parent
    v, u = tree[shared].parent, n_settled
    while v >= 0:
        u -= 1
        settled[u].code, settled[u].born, settled[u].seen = tree[v].code, tree[v].born, tree[v].seen
        v = tree[v].parent
    n = 0
    for v in range(shared, n_nodes):
        if new[v] >= 0:
            new[v] = n
            tree[n] = tree[v]
            tree[n].parent = new[tree[n].parent] if n > 0 else -1
            n += 1
    for i in range(n_beam):
        entries[i].node = new[entries[i].node]
    fill_hash(new, tree.parent, tree.code, n)
    return n, n_settled


@inner
def look(t, n_beam, horizon, work):  # type: ignore[no-untyped-def]
    """Do at ``t`` what is done each time after ``horizon.every`` frames: mark what the best
    hypothesis says, and keep, in place, those that agree with it in what it said ``n_open`` frames
    ago; return how many they are."""
    entries, tree = work.entries, work.tree
    v = entries[0].node
    while v >= 0:
        if tree[v].said != t - horizon.every:
            tree[v].since = t
        tree[v].said = t
        v = tree[v].parent
    old = entries[0].node
    while old > 0 and tree[old].born > t - horizon.n_open:
        old = tree[old].parent
    n = 0
    for i in range(n_beam):
        v = entries[i].node
        while v > old:  # parents have lower numbers
            v = tree[v].parent
        if v == old:
            entries[n] = entries[i]
            n += 1
    return n
