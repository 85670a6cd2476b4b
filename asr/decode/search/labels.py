"""Prefix beam search over labels: the compiled part of `asr.decode.search.beam`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr.decode.search.kernels import (
    N_BUCKETS,
    best_first,
    bucket,
    count_in,
    find_child,
    lower_edge,
)
from asr.decode.search.state import (
    NOTHING,
    Found,
    Reached,
    State,
    codes_to,
    decide,
    end_scores,
    run,
)
from asr.decode.search.words import Standing
from asr.labels import BLANK
from asr.lm.ngram import BoundNGram
from asr.lm.ngram import advance as advance_lm
from asr.system.jit import compiled, inner

#: With a language model, at most this many labels of a frame (or the beam's width) are looked up.
MOST_LABELS = 256
#: Entries that there is room for at first, if the beam is not narrower.
ROOM = 1024
#: Each time after so many frames, alternatives to what is as old are given up.
HORIZON = 3000
#: Of what a language model counts for a label, so that its exponential is not 0.
LEAST = -500.0
#: Hypotheses this close to the best are summed over all paths, but no more of them than that.
CLOSE, MOST_CLOSE = 0.25, 8
#: Each sum may take so much work: enough for half a minute, if it is clear what was said when.
MOST_STATES = 50_000


class Prefixes(NamedTuple):
    """A tree of prefixes in arrays, for compiled code: node n is prefix parent[n], then code[n].

    Node 0 is the empty prefix, later what all others begin with. lm_state, lm_score: the language
    model's state after the prefix and its weighted score. factor: exp of what the last label alone
    got from model and bonus; reach: no next label will have a greater one. born, seen: the first
    and the last frame in the beam.
    """

    parent: NDArray[np.int64]
    code: NDArray[np.int64]
    lm_state: NDArray[np.int64]
    lm_score: NDArray[np.float64]
    factor: NDArray[np.float64]
    reach: NDArray[np.float64]
    born: NDArray[np.int64]
    seen: NDArray[np.int64]


class Entries(NamedTuple):
    """The beam, best first: a prefix, and the probabilities of its paths that end in blank (pb), in
    its last label (pnb), and in either (total), times what the language model and the bonus give.
    """

    node: NDArray[np.int64]
    pb: NDArray[np.float64]
    pnb: NDArray[np.float64]
    total: NDArray[np.float64]


class Candidates(NamedTuple):
    """What may become the next beam: ``entry`` extended by ``label`` (BLANK: carried over).

    lm_gain, lm_state: of that label. order, ranked: where `best_first` puts its result.
    """

    entry: NDArray[np.int64]
    label: NDArray[np.int64]
    pb: NDArray[np.float64]
    pnb: NDArray[np.float64]
    total: NDArray[np.float64]
    lm_gain: NDArray[np.float64]
    lm_state: NDArray[np.int64]
    order: NDArray[np.int64]
    ranked: NDArray[np.float64]


class Scratch(NamedTuple):
    """Room that each frame fills anew.

    counts: see `count_in`; label_counts: of labels. before: the beam's nodes before it changes.
    first_child, next_sibling: a list of the children of each entry that are entries too; alive: its
    marks by label. found, found_p, order: labels, their probabilities and ranks; kept, kept_p: the
    best. maxima: see `rough_floor`.
    """

    counts: NDArray[np.int64]
    label_counts: NDArray[np.int64]
    before: NDArray[np.int64]
    first_child: NDArray[np.int64]
    next_sibling: NDArray[np.int64]
    alive: NDArray[np.int64]
    found: NDArray[np.int64]
    found_p: NDArray[np.float64]
    order: NDArray[np.int64]
    kept: NDArray[np.int64]
    kept_p: NDArray[np.float64]
    maxima: NDArray[np.float32]


class Work(NamedTuple):
    """What `search_frames` works on. table: the hash of the tree. slot: each node's place in the
    beam, or -1."""

    entries: Entries
    tree: Prefixes
    table: NDArray[np.int64]
    slot: NDArray[np.int64]
    scratch: Scratch


class Search(NamedTuple):
    """What is searched for, and how wide.

    most_labels: of a frame, to extend prefixes by. margin: what has a smaller share of the best is
    dropped. label_prune: labels this much below the frame's best extend none. skip: where the blank
    has more, it alone is followed. lm_scale: LM weight times log 10.
    """

    beam: int
    most_labels: int
    margin: float
    label_prune: float
    skip: float
    bonus: float
    lm_scale: float
    lm: BoundNGram

    def most_new(self, width: int) -> int:
        """Return how many prefixes at most a frame brings to so many hypotheses."""
        return min(self.beam, width * self.most_labels)


def most_labels(n_labels: int, beam: int, use_lm: bool) -> int:
    """Return how many labels of a frame may extend prefixes.

    Without language model, labels beyond the best beam + 1 have no chance in any prefix: its own
    better extensions (and one may be its last label, which needs a blank before) fill the beam.
    """
    return min(n_labels, max(beam + 1, MOST_LABELS if use_lm else 0))


def begin(search: Search) -> State:
    """Return the state before the first frame."""
    reach = math.exp(search.bonus)
    if search.lm_scale > 0.0:
        best = float(search.lm.trie.log10_best[search.lm.start])
        reach *= math.exp(max(search.lm_scale * best, LEAST))
    root = -1, BLANK, search.lm.start, 0.0, 1.0, reach, 0, 0
    tree = Prefixes(*(np.array([value]) for value in root))
    entries = Entries(*(np.array([value]) for value in (0, 1.0, 0.0, 1.0)))
    width = min(search.beam, ROOM)
    return State(Reached(0, 1, 1, 0.0), entries, tree, NOTHING, 0, width, 32 * width + 1024)


def advance(
    state: State, log_probs: NDArray[np.float32], tops: NDArray[np.float32], search: Search
) -> State:
    """Return the state after the frames of ``log_probs`` (T, V), whose best values are ``tops``."""
    n_labels, start = log_probs.shape[1], state.reached.t
    counts, label_counts = (np.zeros(N_BUCKETS, np.int64) for _ in range(2))
    alive = np.full(n_labels, -1, np.int64)
    found, order, kept = (np.empty(n_labels, np.int64) for _ in range(3))
    found_p, kept_p = np.empty(n_labels), np.empty(n_labels)
    maxima = np.empty(4 * search.most_labels, np.float32)

    def go_on(
        entries: Entries, tree: Prefixes, table: NDArray[np.int64], width: int, reached: Reached
    ) -> Reached:
        before, first_child, next_sibling = (np.empty(width, np.int64) for _ in range(3))
        scratch = Scratch(
            counts,
            label_counts,
            before,
            first_child,
            next_sibling,
            alive,
            found,
            found_p,
            order,
            kept,
            kept_p,
            maxima,
        )
        slot = np.full(len(tree.parent), -1)
        slot[entries.node[: reached.n_beam]] = np.arange(reached.n_beam)
        work = Work(entries, tree, table, slot, scratch)
        now = slice(reached.t - start, end - start)
        return search_frames(log_probs[now], tops[now], search, work, reached)

    while state.reached.t < start + len(log_probs):
        end = min(start + len(log_probs), HORIZON * (state.reached.t // HORIZON + 1))
        state = run(state, end, search.beam, search.most_new, go_on)
        if end % HORIZON == 0:
            state = decide(state, HORIZON)
    return state


def found(state: State, search: Search) -> Iterator[Found]:
    """Yield the hypotheses, were this the end, which is scored; best first."""
    nodes = state.entries.node
    lm_score = state.tree.lm_score[nodes]
    # As compiled code has them: numpy's logarithms differ in the last bit.
    scores = np.array([math.log(total) for total in state.entries.total.tolist()])
    scores += state.reached.log_scale
    if search.lm_scale > 0.0:
        trie, end = search.lm.trie, search.lm.end_token
        ends = end_scores(trie, state.tree.lm_state[nodes], end)
        lm_score += search.lm_scale * ends
        scores += search.lm_scale * ends
    for j in np.argsort(-scores, kind="stable").tolist():
        codes, current = codes_to(state, int(nodes[j]))
        lm, bonus = float(lm_score[j]), search.bonus * (state.n_forgotten + len(codes))
        yield Found(codes, 0, float(scores[j]) - (lm + bonus), lm, bonus, current)


@compiled
def search_frames(log_probs, tops, search, work, reached):  # type: ignore[no-untyped-def]
    """Search on, as long as there is room for what one frame may bring; return how far it came.

    Probabilities are plain numbers, scaled anew in each frame so that the best entry has 1 before
    it: a frame's work is multiplications and additions, and no length makes them underflow. Only
    what is some 700 below the best, in natural logarithms, is lost.

    The parts are functions of their own because numba counts references, atomically, to arrays
    that a loop assigns anew: within the loop below that took more than half of the time.
    """
    first, n_beam, n_nodes, log_scale = reached
    entries, tree, _, _, scratch = work
    candidates = new_candidates(4 * max(n_beam, len(scratch.before)))
    n = 0
    while (
        n < len(log_probs)
        and n_beam <= len(scratch.before)
        and n_nodes + min(search.beam, n_beam * search.most_labels) <= len(tree.parent)
    ):
        t, frame, top = first + n, log_probs[n], tops[n]
        n += 1
        if frame[BLANK] > search.skip:
            log_scale += frame[BLANK]
            follow_blank(entries, n_beam, tree, t)
            continue
        shift = top + np.log(entries.total[0])
        log_scale += shift
        standing, highest = carry_over(frame, shift, n_beam, search, work, candidates)
        # No label below the floor brings even the entry of the highest reach above the threshold.
        floor = top - search.label_prune
        if standing.threshold > 0.0:
            floor = max(floor, np.log(standing.threshold / highest) + shift)
        if len(frame) > 2 * len(scratch.maxima):
            floor = max(floor, rough_floor(frame, top, search.most_labels, scratch))
        n_kept = best_labels(frame, floor, shift, search.most_labels, scratch)
        if standing.n + n_beam * n_kept > len(candidates.total):
            candidates = more_candidates(candidates, standing.n + n_beam * n_kept)
        standing = extend(t, n_beam, n_kept, standing, search, work, candidates)
        n_beam, n_nodes = survive(t, n_beam, n_nodes, standing, search, work, candidates)
    return first + n, n_beam, n_nodes, log_scale


@inner
def follow_blank(entries, n_beam, tree, t):  # type: ignore[no-untyped-def]
    """Let all paths go on with a blank."""
    for i in range(n_beam):
        entries.pb[i], entries.pnb[i] = entries.total[i], 0.0
        tree.seen[entries.node[i]] = t


@inner
def carry_over(frame, shift, n_beam, search, work, candidates):  # type: ignore[no-untyped-def]
    """Make every entry a candidate: blank, its last label again, and its parent's paths that now
    arrive at it. No other entry's can, so this is all the merging there is.

    Returns the standing, and the highest total times reach.
    """
    node, pb, pnb, total = work.entries
    parent, label, _, _, factor, reach, _, _ = work.tree
    slot, counts = work.slot, work.scratch.counts
    first_child, next_sibling = work.scratch.first_child, work.scratch.next_sibling
    entry_of, label_of, pb_of, pnb_of, total_of, _, _, _, _ = candidates
    blank = np.exp(frame[BLANK] - shift)
    for i in range(n_beam):
        first_child[i] = -1
    n_candidates = n_counted = 0
    best = highest = 0.0
    for i in range(n_beam):
        v = node[i]
        last = label[v]
        in_blank = total[i] * blank
        in_label = 0.0
        if last != BLANK:
            in_label = pnb[i]
            p = slot[parent[v]] if v > 0 else -1
            if p >= 0:
                next_sibling[i] = first_child[p]
                first_child[p] = i
                in_label += factor[v] * (pb[p] if label[parent[v]] == last else total[p])
            in_label *= np.exp(frame[last] - shift)
        if in_blank + in_label > 0.0:
            entry_of[n_candidates], label_of[n_candidates] = i, BLANK
            pb_of[n_candidates], pnb_of[n_candidates] = in_blank, in_label
            total_of[n_candidates] = in_blank + in_label
            best = max(best, in_blank + in_label)
            n_candidates += 1
        highest = max(highest, total[i] * reach[v])
    least = bucket(best * search.margin)
    for j in range(n_candidates):
        least, n_counted = count_in(counts, total_of[j], least, n_counted, search.beam)
    threshold = max(best * search.margin, lower_edge(least))
    return Standing(n_candidates, best, least, n_counted, threshold), highest


@inner
def rough_floor(frame, top, most, scratch):  # type: ignore[no-untyped-def]
    """Return a value that at least ``most`` labels reach, and few more.

    Large inventories are read once, without a branch: of the maxima of interleaved parts, counted
    in steps of an eighth, ``most`` reach it.
    """
    maxima, counts = scratch.maxima, scratch.label_counts
    width = len(maxima)
    for j in range(width):
        maxima[j] = frame[1 + j]
    for start in range(1 + width, len(frame) - width + 1, width):
        for j in range(width):
            maxima[j] = max(maxima[j], frame[start + j])
    n_steps = 256
    for j in range(width):
        counts[int(min((np.float64(top) - maxima[j]) * 8.0, n_steps - 1.0))] += 1
    n_above = step = 0
    while n_above < most and step < n_steps - 1:
        n_above += counts[step]
        step += 1
    counts[:n_steps] = 0
    return top - step / 8.0 if n_above >= most else -np.inf


@inner
def best_labels(frame, floor, shift, most, scratch):  # type: ignore[no-untyped-def]
    """Put the ``most`` best labels (but the blank) of at least ``floor`` into ``kept``, best first,
    and their probabilities, exp(frame - shift), into ``kept_p``. Return how many there are.
    """
    counts, found, found_p = scratch.label_counts, scratch.found, scratch.found_p
    order, kept, kept_p = scratch.order, scratch.kept, scratch.kept_p
    n_found = n_counted = np.int64(0)
    least = bucket(np.exp(floor - shift))
    best = 0.0
    for c in range(1, len(frame)):
        if frame[c] >= floor:
            p = np.exp(frame[c] - shift)
            if p > 0.0:
                found[n_found], found_p[n_found] = c, p
                n_found += 1
                best = max(best, p)
                before = least
                least, n_counted = count_in(counts, p, least, n_counted, most)
                if least > before:
                    floor = max(floor, np.log(lower_edge(least)) + shift)
    n_kept = best_first(counts, least, best, found_p, n_found, order, kept_p)
    for k in range(n_kept):
        kept[k] = found[order[k]]
    return min(n_kept, most)


@inner
def extend(t, n_beam, n_kept, standing, search, work, candidates):  # type: ignore[no-untyped-def]
    """Make candidates of entries and labels, both best first, until no further one can survive.

    Returns the standing; its threshold is no longer needed.
    """
    node, pb, _, total = work.entries
    _, label, lm_state, _, _, reach, _, _ = work.tree
    scratch = work.scratch
    counts, alive, kept, kept_p = scratch.counts, scratch.alive, scratch.kept, scratch.kept_p
    entry_of, label_of, pb_of, pnb_of, total_of, gain_of, state_of, _, _ = candidates
    trie, token_of, _, _, _ = search.lm
    n_candidates, best, least, n_counted, threshold = standing
    for i in range(n_beam):
        v = node[i]
        bound = total[i] * reach[v]
        if n_kept == 0 or bound * kept_p[0] <= threshold:
            continue
        stamp = t * search.beam + i
        child = scratch.first_child[i]
        while child >= 0:
            alive[label[node[child]]] = stamp
            child = scratch.next_sibling[child]
        for k in range(n_kept):
            if bound * kept_p[k] <= threshold:
                break
            c = kept[k]
            source = pb[i] if c == label[v] else total[i]
            score = source * kept_p[k] * reach[v]
            if alive[c] == stamp or score <= threshold:
                continue
            if search.lm_scale > 0.0:
                gain, state = advance_lm(trie, lm_state[v], token_of[c])
                gain = weighted(search.lm_scale, gain)
                score = source * kept_p[k] * np.exp(gain + search.bonus)
                if score <= threshold:
                    continue
                gain_of[n_candidates], state_of[n_candidates] = gain, state
            entry_of[n_candidates], label_of[n_candidates] = i, c
            pb_of[n_candidates], pnb_of[n_candidates] = 0.0, score
            total_of[n_candidates] = score
            n_candidates += 1
            best = max(best, score)
            counts[bucket(score)] += 1
            n_counted += 1
        while n_counted - counts[least] >= search.beam:
            n_counted -= counts[least]
            least += 1
        threshold = max(best * search.margin, lower_edge(least))
    return Standing(n_candidates, best, least, n_counted, threshold)


@inner
def survive(t, n_beam, n_nodes, standing, search, work, candidates):  # type: ignore[no-untyped-def]
    """Make the best candidates the beam; return how many, and the number of nodes of the tree."""
    node, pb, pnb, total = work.entries
    parent, label, lm_state, lm_score, factor, reach, born, seen = work.tree
    table, slot, before = work.table, work.slot, work.scratch.before
    entry_of, label_of, pb_of, pnb_of, total_of, gain_of, state_of, order, ranked = candidates
    n_candidates, best, least, _, _ = standing
    n_next = best_first(work.scratch.counts, least, best, total_of, n_candidates, order, ranked)
    n_next = min(n_next, search.beam)
    while n_next > 1 and ranked[n_next - 1] < best * search.margin:
        n_next -= 1
    for i in range(n_beam):
        before[i] = node[i]
        slot[node[i]] = -1
    for j in range(n_next):
        at = order[j]
        v = before[entry_of[at]]
        if label_of[at] != BLANK:
            place = find_child(table, parent, label, v, label_of[at])
            w = table[place]
            if w < 0:
                w = n_nodes
                n_nodes += 1
                table[place] = w
                parent[w], label[w], born[w] = v, label_of[at], t
                if search.lm_scale > 0.0:
                    lm_state[w] = state_of[at]
                    lm_score[w] = lm_score[v] + gain_of[at]
                    factor[w] = np.exp(gain_of[at] + search.bonus)
                    most_gain = weighted(search.lm_scale, search.lm.trie.log10_best[state_of[at]])
                    reach[w] = np.exp(most_gain + search.bonus)
                else:
                    lm_score[w], factor[w], reach[w] = 0.0, reach[0], reach[0]
            v = w
        slot[v], seen[v] = j, t
        node[j], pb[j], pnb[j], total[j] = v, pb_of[at], pnb_of[at], ranked[j]
    return n_next, n_nodes


@compiled
def sum_of_paths(log_probs, tops, labels):  # type: ignore[no-untyped-def]
    """Return the log-probability of all CTC paths of ``labels``: the forward variable (Graves et
    al. 2006, section 4.1), of the states that have a share of 1e-30 of the best or more.

    It gives up, with -inf, where that takes more than `MOST_STATES`: on long utterances it would
    cost more than the search. State 2u is the blank before label u, state 2u + 1 is label u.
    """
    n_states = 2 * len(labels) + 1
    forward = np.zeros(n_states)
    forward[0] = best = 1.0
    log_scale = 0.0
    low = high = n_visited = 0
    for t in range(len(log_probs)):
        shift = tops[t] + np.log(best)
        log_scale += shift
        blank = np.exp(log_probs[t, BLANK] - shift)
        high = min(high + 2, n_states - 1)
        best = 0.0
        for s in range(high, low - 1, -1):
            u = s >> 1
            p = forward[s]
            if s > low:
                p += forward[s - 1]
            if s % 2 == 0:
                p *= blank
            else:
                if s > low + 1 and labels[u] != labels[u - 1]:
                    p += forward[s - 2]
                p *= np.exp(log_probs[t, labels[u]] - shift)
            forward[s] = p
            best = max(best, p)
        n_visited += high - low + 1
        if best == 0.0 or n_visited > MOST_STATES:
            return -np.inf
        while forward[low] < 1e-30 * best:
            low += 1
        while forward[high] < 1e-30 * best:
            forward[high] = 0.0
            high -= 1
    last = 0.0
    for s in range(max(low, n_states - 2), high + 1):
        last += forward[s]
    return np.log(last) + log_scale if last > 0.0 else -np.inf


@inner
def weighted(lm_scale, log10_prob):  # type: ignore[no-untyped-def]
    """Return the weighted natural logarithm, but never one whose exponential is 0: a label that is
    all but impossible may be the only one left."""
    return max(lm_scale * log10_prob, LEAST)


@compiled
def new_candidates(room):  # type: ignore[no-untyped-def]
    """Return room for so many candidates."""
    return Candidates(
        np.empty(room, np.int64),
        np.empty(room, np.int64),
        np.empty(room),
        np.empty(room),
        np.empty(room),
        np.empty(room),
        np.empty(room, np.int64),
        np.empty(room, np.int64),
        np.empty(room),
    )


@compiled
def more_candidates(candidates, room):  # type: ignore[no-untyped-def]
    """Return a copy with more room; what `extend` fills is not copied."""
    more = new_candidates(room)
    for j in range(len(candidates.total)):
        more.entry[j], more.label[j] = candidates.entry[j], candidates.label[j]
        more.pb[j], more.pnb[j] = candidates.pb[j], candidates.pnb[j]
        more.total[j] = candidates.total[j]
    return more
