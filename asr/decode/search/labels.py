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
    resized,
)
from asr.decode.search.state import (
    NEVER,
    Found,
    Frames,
    Horizon,
    Reached,
    State,
    begun,
    codes_to,
    end_scores,
    look,
    make_room,
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
#: In long utterances alternatives are given up.
HORIZON = Horizon(3000, 0, 3000)
#: Of what a language model counts for a label, so that its exponential is not 0.
LEAST = -500.0
#: Hypotheses this close to the best are summed over all paths, but no more of them than that.
CLOSE, MOST_CLOSE = 0.25, 8
#: Each sum may take so much work: enough for half a minute, if it is clear what was said when.
MOST_STATES = 50_000


#: A prefix, as of `Work.tree`. slot: its place in the beam within a frame, else -1. lm_state,
#: lm_score: the language model's state after it and its weighted score. factor: exp of what the
#: last label alone got from model and bonus; reach: no next label will have a greater one.
PREFIX = np.dtype(
    [(name, int) for name in ("parent", "code", "born", "seen", "since", "said", "slot")]
    + [("lm_state", int)]
    + [(name, float) for name in ("lm_score", "factor", "reach")]
)
#: One of the beam: a prefix, and the probabilities of its paths that end in blank (pb), in its last
#: label (pnb), and in either (total), times what the language model and the bonus give.
ENTRY = np.dtype([("node", int), ("pb", float), ("pnb", float), ("total", float)])
#: What may come into the next beam: an entry extended by ``label`` (BLANK: carried over). lm_gain,
#: lm_state: of that label. order, ranked: where `best_first` puts its result.
CANDIDATE = np.dtype(
    [("entry", np.int32), ("label", np.int32), ("lm_state", int), ("order", int)]
    + [(name, float) for name in ("total", "lm_gain", "ranked")]
)
#: Of an entry: node, pb and pnb as the frame carries it over; a list of its children that are
#: entries too.
KIN = np.dtype(
    [("node", int), ("pb", float), ("pnb", float), ("first_child", int), ("next_sibling", int)]
)
#: found, found_p, order: labels, their probabilities and ranks; kept, kept_p: the best.
CHOICE = np.dtype(
    [(name, int) for name in ("found", "order", "kept")] + [("found_p", float), ("kept_p", float)]
)


class Scratch(NamedTuple):
    """Room that each frame fills anew. counts: see `count_in`; label_counts: of labels. kin: by
    entry. alive: marks by label of an entry's children. maxima: see `rough_floor`."""

    counts: NDArray[np.int64]
    label_counts: NDArray[np.int64]
    kin: NDArray[np.void]
    alive: NDArray[np.int64]
    choice: NDArray[np.void]
    maxima: NDArray[np.float32]


class Search(NamedTuple):
    """What is searched for, and how wide, among ``n_labels`` labels.

    most_labels: of a frame, to extend prefixes by. margin: what has a smaller share of the best is
    dropped. label_prune: labels this much below the frame's best extend none. skip: where the blank
    has more, it alone is followed. lm_scale: LM weight times log 10.
    """

    beam: int
    n_labels: int
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

    def scratch(self, width: int) -> Scratch:
        """Return room for what frames fill."""
        return Scratch(
            np.zeros(N_BUCKETS, np.int64),
            np.zeros(N_BUCKETS, np.int64),
            np.empty(width, KIN),
            np.full(self.n_labels, -1),
            np.empty(self.n_labels, CHOICE),
            np.empty(4 * self.most_labels, np.float32),
        )


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
    start = search.lm.start
    root = np.array([(-1, BLANK, 0, 0, NEVER, NEVER, -1, start, 0.0, 1.0, reach)], PREFIX)
    width = min(search.beam, ROOM)
    return begun(search, np.array([(0, 1.0, 0.0, 1.0)], ENTRY), root, width, 32 * width + 1024)


def advance(
    state: State,
    log_probs: NDArray[np.float32],
    tops: NDArray[np.float32],
    search: Search,
    horizon: Horizon = HORIZON,
) -> None:
    """Go on over the frames of ``log_probs`` (T, V), whose best values are ``tops``."""
    run(state, Frames(log_probs, tops, state.reached.t), search, horizon, search_frames)


def found(state: State, search: Search) -> Iterator[Found]:
    """Yield the hypotheses, were this the end, which is scored; best first."""
    nodes, log_scale = state.entries["node"], state.reached.log_scale
    # As compiled code has them: numpy's logarithms differ in the last bit.
    scores = [math.log(total) + log_scale for total in state.entries["total"].tolist()]
    lm_scores, order = [0.0] * len(scores), list(range(len(scores)))
    if search.lm_scale > 0.0:
        tree = state.work.tree
        ends = end_scores(search.lm.trie, tree["lm_state"][nodes], search.lm.end_token)
        end = search.lm_scale * ends
        lm_scores, scores = (tree["lm_score"][nodes] + end).tolist(), (scores + end).tolist()
        order = np.argsort(np.negative(scores), kind="stable").tolist()
    for j in order:
        codes, current = codes_to(state, nodes[j])
        lm, bonus = lm_scores[j], search.bonus * len(codes)
        yield Found(codes, 0, scores[j] - (lm + bonus), lm, bonus, current)


@compiled
def search_frames(frames, search, horizon, work, reached):  # type: ignore[no-untyped-def]
    """Search on, as long as there is room for what one frame may bring; return how far it came.

    Probabilities are plain numbers, scaled anew in each frame so that the best entry has 1 before
    it: a frame's work is multiplications and additions, and no length makes them underflow. Only
    what is some 700 below the best, in natural logarithms, is lost.

    The parts are functions of their own because numba counts references, atomically, to arrays
    that a loop assigns anew: within the loop below that took more than half of the time.
    """
    log_probs, tops, first, _ = frames
    entries, scratch = work.entries, work.scratch
    candidates = np.empty(4 * work.width, CANDIDATE)
    most = min(search.beam, work.width * search.most_labels)
    has_room = True
    while has_room and reached.t < first + len(log_probs):
        most_new = min(search.beam, reached.n_beam * search.most_labels)
        has_room, reached = make_room(work, reached, most_new, most)
        if has_room:
            t, n_beam, n_nodes, n_settled, log_scale, _ = reached
            frame, top = log_probs[t - first], tops[t - first]
            if frame[BLANK] > search.skip:
                log_scale += frame[BLANK]
                follow_blank(t, n_beam, work)
            else:
                shift = top + np.log(entries[0].total)
                log_scale += shift
                standing, highest = carry_over(frame, shift, n_beam, search, work, candidates)
                # No label below the floor brings even the entry of the highest reach above the
                # threshold.
                floor = top - search.label_prune
                if standing.threshold > 0.0:
                    floor = max(floor, np.log(standing.threshold / highest) + shift)
                if len(frame) > 2 * len(scratch.maxima):
                    floor = max(floor, rough_floor(frame, top, search.most_labels, scratch))
                n_kept = best_labels(frame, floor, shift, search.most_labels, scratch)
                if standing.n + n_beam * n_kept > len(candidates):
                    candidates = resized(candidates, standing.n + n_beam * n_kept)
                standing = extend(t, n_beam, n_kept, standing, search, work, candidates)
                n_beam, n_nodes = survive(t, n_beam, n_nodes, standing, search, work, candidates)
            t += 1
            if n_beam > 0 and (horizon.first + t) % horizon.every == 0:
                n_beam = look(t, n_beam, horizon, work)
            reached = Reached(t, n_beam, n_nodes, n_settled, log_scale, False)
    return reached


@inner
def follow_blank(t, n_beam, work):  # type: ignore[no-untyped-def]
    """Let all paths go on with a blank."""
    for i in range(n_beam):
        entry = work.entries[i]
        entry.pb, entry.pnb = entry.total, 0.0
        work.tree[entry.node].seen = t


@inner
def carry_over(frame, shift, n_beam, search, work, candidates):  # type: ignore[no-untyped-def]
    """Make every entry a candidate: blank, its last label again, and its parent's paths that now
    arrive at it. No other entry's can, so this is all the merging there is.

    Returns the standing, and the highest total times reach.
    """
    entries, tree = work.entries, work.tree
    counts, kin = work.scratch.counts, work.scratch.kin
    blank = np.exp(frame[BLANK] - shift)
    for i in range(n_beam):
        tree[entries[i].node].slot = i
        kin[i].first_child = -1
    n_candidates = n_counted = 0
    best = highest = 0.0
    for i in range(n_beam):
        entry = entries[i]
        prefix = tree[entry.node]
        in_blank = entry.total * blank
        in_label = 0.0
        if prefix.code != BLANK:
            in_label = entry.pnb
            p = tree[prefix.parent].slot if entry.node > 0 else -1
            if p >= 0:
                kin[i].next_sibling = kin[p].first_child
                kin[p].first_child = i
                same = tree[prefix.parent].code == prefix.code
                in_label += prefix.factor * (entries[p].pb if same else entries[p].total)
            in_label *= np.exp(frame[prefix.code] - shift)
        total = in_blank + in_label
        kin[i].node, kin[i].pb, kin[i].pnb = entry.node, in_blank, in_label
        if total > 0.0:
            candidate = candidates[n_candidates]
            candidate.entry, candidate.label, candidate.total = i, BLANK, total
            best = max(best, total)
            n_candidates += 1
        highest = max(highest, entry.total * prefix.reach)
    least = bucket(best * search.margin)
    for j in range(n_candidates):
        least, n_counted = count_in(counts, candidates[j].total, least, n_counted, search.beam)
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
    counts, choice = scratch.label_counts, scratch.choice
    n_found = n_counted = np.int64(0)
    least = bucket(np.exp(floor - shift))
    best = 0.0
    for c in range(1, len(frame)):
        if frame[c] >= floor:
            p = np.exp(frame[c] - shift)
            if p > 0.0:
                choice[n_found].found, choice[n_found].found_p = c, p
                n_found += 1
                best = max(best, p)
                before = least
                least, n_counted = count_in(counts, p, least, n_counted, most)
                if least > before:
                    floor = max(floor, np.log(lower_edge(least)) + shift)
    n_kept = best_first(counts, least, best, choice.found_p, n_found, choice.order, choice.kept_p)
    for k in range(n_kept):
        choice[k].kept = choice[choice[k].order].found
    return min(n_kept, most)


@inner
def extend(t, n_beam, n_kept, standing, search, work, candidates):  # type: ignore[no-untyped-def]
    """Make candidates of entries and labels, both best first, until no further one can survive.

    Returns the standing; its threshold is no longer needed.
    """
    entries, tree = work.entries, work.tree
    counts, _, kin, alive, choice, _ = work.scratch
    trie, token_of, _, _, _ = search.lm
    n_candidates, best, least, n_counted, threshold = standing
    for i in range(n_beam):
        entry = entries[i]
        prefix = tree[entry.node]
        total, pb, code, reach = entry.total, entry.pb, prefix.code, prefix.reach
        bound = total * reach
        if n_kept == 0 or bound * choice[0].kept_p <= threshold:
            continue
        stamp = t * search.beam + i
        child = kin[i].first_child
        while child >= 0:
            alive[tree[entries[child].node].code] = stamp
            child = kin[child].next_sibling
        for k in range(n_kept):
            c, p = choice[k].kept, choice[k].kept_p
            if bound * p <= threshold:
                break
            source = pb if c == code else total
            score = source * p * reach
            if alive[c] == stamp or score <= threshold:
                continue
            candidate = candidates[n_candidates]
            if search.lm_scale > 0.0:
                gain, state = advance_lm(trie, prefix.lm_state, token_of[c])
                gain = weighted(search.lm_scale, gain)
                score = source * p * np.exp(gain + search.bonus)
                if score <= threshold:
                    continue
                candidate.lm_gain, candidate.lm_state = gain, state
            candidate.entry, candidate.label, candidate.total = i, c, score
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
    entries, tree, table, kin = work.entries, work.tree, work.table, work.scratch.kin
    n_candidates, best, least, _, _ = standing
    totals, order, ranked = candidates.total, candidates.order, candidates.ranked
    n_next = best_first(work.scratch.counts, least, best, totals, n_candidates, order, ranked)
    n_next = min(n_next, search.beam)
    while n_next > 1 and ranked[n_next - 1] < best * search.margin:
        n_next -= 1
    for i in range(n_beam):
        tree[kin[i].node].slot = -1
    for j in range(n_next):
        candidate, entry = candidates[order[j]], entries[j]
        before = kin[candidate.entry]
        v = before.node
        entry.pb, entry.pnb = before.pb, before.pnb
        if candidate.label != BLANK:
            entry.pb, entry.pnb = 0.0, ranked[j]
            at, w, mark = find_child(table, tree.parent, tree.code, v, candidate.label)
            if w < 0:
                w = n_nodes
                n_nodes += 1
                table[at] = mark + w
                new = tree[w]
                new.parent, new.code, new.born, new.slot = v, candidate.label, t, -1
                new.since, new.said = NEVER, NEVER
                if search.lm_scale > 0.0:
                    gain, state = candidate.lm_gain, candidate.lm_state
                    most_gain = weighted(search.lm_scale, search.lm.trie.log10_best[state])
                    new.lm_state, new.lm_score = state, tree[v].lm_score + gain
                    new.factor = np.exp(gain + search.bonus)
                    new.reach = np.exp(most_gain + search.bonus)
                else:
                    new.lm_score, new.factor, new.reach = 0.0, tree[0].reach, tree[0].reach
            v = w
        tree[v].seen = t
        entry.node, entry.total = v, ranked[j]
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
