"""Prefix beam search over labels: the compiled part of `asr.decode.search.beam`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr.decode.search.kernels import (
    N_BUCKETS,
    best_first,
    bucket,
    count_in,
    find_child,
    hash_table,
    lower_edge,
    prune_tree,
    resized,
    sort_descending,
)
from asr.labels import BLANK
from asr.lm.ngram import advance
from asr.system.jit import compiled, inner

#: With a language model, at most this many labels of a frame (or the beam's width) are looked up.
MOST_LABELS = 256
#: Entries that there is room for at first, if the beam is not narrower.
ROOM = 1024
#: Frames after which alternatives are given up.
HORIZON = 3000
#: Hypotheses this close to the best are summed over all paths, but no more of them than that.
CLOSE, MOST_CLOSE = 0.25, 8
#: Each sum may take so much work: enough for half a minute, if it is clear what was said when.
MOST_STATES = 50_000


class Prefixes(NamedTuple):
    """A tree of prefixes in arrays, for compiled code: node n is prefix parent[n], then label[n].

    Node 0 is the empty prefix, later what all others begin with. lm_state, lm_score: the language
    model's state after the prefix and its weighted score. factor: exp of what the last label alone
    got from model and bonus; reach: no next label will have a greater one. slot: place in the beam,
    or -1. born, seen: the first and the last frame in the beam.
    """

    parent: NDArray[np.int64]
    label: NDArray[np.int64]
    lm_state: NDArray[np.int64]
    lm_score: NDArray[np.float64]
    factor: NDArray[np.float64]
    reach: NDArray[np.float64]
    slot: NDArray[np.int64]
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


@compiled
def search_labels(  # type: ignore[no-untyped-def]
    log_probs, tops, label_prune, skip, beam, score_prune, bonus, lm_scale, lm
):
    """Return the tree of prefixes, what of it is settled and how many labels that is (for
    `read_off`), the nodes (N,) of the hypotheses, best first, and their scores (N,).

    tops (T,): each frame's best value. skip: where the blank has more, it alone is followed.
    lm_scale: LM weight times log 10.

    Probabilities are plain numbers, scaled anew in each frame so that the best entry has 1 before
    it: a frame's work is multiplications and additions, and no length makes them underflow. Only
    what is some 700 below the best, in natural logarithms, is lost.

    The parts are functions of their own because numba counts references, atomically, to arrays
    that a loop assigns anew: within the loop below that took more than half of the time.
    """
    n_frames, n_labels = log_probs.shape
    use_lm = lm_scale > 0.0
    margin = np.exp(-score_prune)
    width = min(beam, ROOM)
    room = 32 * width + 1024
    tree = new_tree(room)
    table = hash_table(tree.parent, tree.label, 0)
    tree.parent[0], tree.label[0], tree.slot[0], tree.born[0], tree.seen[0] = -1, BLANK, 0, 0, 0
    tree.lm_state[0], tree.lm_score[0], tree.factor[0] = lm.start, 0.0, 1.0
    tree.reach[0] = np.exp(bonus)
    if use_lm:
        tree.reach[0] *= np.exp(weighted(lm_scale, lm.trie.log10_best[lm.start]))
    # Not plain numbers: functions would be compiled for literals first.
    n_nodes, n_beam, nothing = np.int64(1), np.int64(1), np.int64(0)
    done, n_done = np.empty((256, 3), np.int64), nothing
    entries, following = new_entries(width), new_entries(width)
    entries.node[0], entries.pb[0], entries.pnb[0], entries.total[0] = 0, 1.0, 0.0, 1.0
    log_scale = 0.0
    candidates = new_candidates(4 * width)
    counts = np.zeros(N_BUCKETS, np.int64)
    label_counts = np.zeros(N_BUCKETS, np.int64)
    # The children of each entry that are entries too: a list, and its marks by label.
    first_child, next_sibling = np.empty(width, np.int64), np.empty(width, np.int64)
    alive = np.full(n_labels, -1, np.int64)
    # Without language model, labels beyond the best beam + 1 have no chance in any prefix: its own
    # better extensions (and one may be its last label, which needs a blank before) fill the beam.
    most_labels = min(n_labels, max(beam + 1, MOST_LABELS if use_lm else 0))
    kept, kept_p = np.empty(n_labels, np.int64), np.empty(n_labels)
    found, found_p = np.empty(n_labels, np.int64), np.empty(n_labels)
    order = np.empty(n_labels, np.int64)
    maxima = np.empty(4 * most_labels, np.float32)

    for t in range(n_frames):
        frame = log_probs[t]
        if frame[BLANK] > skip:
            log_scale += frame[BLANK]
            follow_blank(entries, n_beam, tree, t)
            continue
        most_new = min(beam, n_beam * most_labels)
        if n_nodes + most_new > room:
            n_beam = decide(t, entries, n_beam, tree)
            done, n_done = settle(tree, n_nodes, entries, n_beam, done, n_done)
            living = prune_tree(table, tree.parent, tree.label, n_nodes, entries.node[:n_beam])
            n_nodes = np.int64(len(living))
            keep_living(tree, living)
            if 2 * n_nodes + most_new > room:
                room = 4 * n_nodes + most_new
                tree = more_room(tree, room)
                table = hash_table(tree.parent, tree.label, n_nodes)
        shift = tops[t] + np.log(entries.total[0])
        log_scale += shift
        n_candidates, best, highest = carry_over(
            frame, shift, entries, n_beam, tree, first_child, next_sibling, candidates
        )
        # `beam` candidates or fewer are counted from bucket `least` on; below, none can survive.
        least, n_counted = bucket(best * margin), nothing
        for j in range(n_candidates):
            least, n_counted = count_in(counts, candidates.total[j], least, n_counted, beam)
        # No label below the floor brings even the entry of the highest reach above the threshold.
        threshold = max(best * margin, lower_edge(least))
        floor = tops[t] - label_prune
        if threshold > 0.0:
            floor = max(floor, np.log(threshold / highest) + shift)
        if n_labels > 2 * len(maxima):
            floor = max(floor, rough_floor(frame, tops[t], most_labels, maxima, label_counts))
        n_kept = best_labels(
            frame, floor, shift, most_labels, label_counts, found, found_p, order, kept, kept_p
        )
        if n_candidates + n_beam * n_kept > len(candidates.total):
            candidates = more_candidates(candidates, n_candidates + n_beam * n_kept)
        n_candidates, best, least = extend(
            t,
            beam,
            kept,
            kept_p,
            n_kept,
            entries,
            n_beam,
            tree,
            first_child,
            next_sibling,
            alive,
            candidates,
            n_candidates,
            counts,
            n_counted,
            least,
            best,
            margin,
            bonus,
            lm_scale,
            lm,
        )
        n_next = best_first(
            counts, least, best, candidates.total, n_candidates, candidates.order, candidates.ranked
        )
        n_next = min(n_next, beam)
        while n_next > 1 and candidates.ranked[n_next - 1] < best * margin:
            n_next -= 1
        if n_next > width:
            width = min(beam, 2 * n_next)
            following = new_entries(width)
            first_child, next_sibling = np.empty(width, np.int64), np.empty(width, np.int64)
        n_nodes = survive(
            t,
            candidates,
            n_next,
            entries,
            n_beam,
            following,
            tree,
            table,
            n_nodes,
            bonus,
            lm_scale,
            lm,
        )
        entries, following, n_beam = following, entries, n_next
        if len(following.node) < width:
            following = new_entries(width)

    # The end of the sentence is scored.
    final = np.empty(n_beam)
    places = np.arange(n_beam)
    for i in range(n_beam):
        v = entries.node[i]
        final[i] = np.log(entries.total[i]) + log_scale
        if use_lm:
            end = lm_scale * advance(lm.trie, tree.lm_state[v], np.int32(lm.end_token))[0]
            tree.lm_score[v] += end
            final[i] += end
    sort_descending(final, places, n_beam)
    nodes = np.empty(n_beam, np.int64)
    for n in range(n_beam):
        nodes[n] = entries.node[places[n]]
    return tree, done, n_done, nodes, final


@inner
def follow_blank(entries, n_beam, tree, t):  # type: ignore[no-untyped-def]
    """Let all paths go on with a blank."""
    for i in range(n_beam):
        entries.pb[i], entries.pnb[i] = entries.total[i], 0.0
        tree.seen[entries.node[i]] = t


@inner
def carry_over(  # type: ignore[no-untyped-def]
    frame, shift, entries, n_beam, tree, first_child, next_sibling, candidates
):
    """Make every entry a candidate: blank, its last label again, and its parent's paths that now
    arrive at it. No other entry's can, so this is all the merging there is.

    Returns the number of candidates, the best one, and the highest total times reach.
    """
    node, pb, pnb, total = entries
    parent, label, _, _, factor, reach, slot, _, _ = tree
    entry_of, label_of, pb_of, pnb_of, total_of, _, _, _, _ = candidates
    blank = np.exp(frame[BLANK] - shift)
    for i in range(n_beam):
        first_child[i] = -1
    n_candidates = 0
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
    return n_candidates, best, highest


@inner
def rough_floor(frame, top, most, maxima, counts):  # type: ignore[no-untyped-def]
    """Return a value that at least ``most`` labels reach, and few more.

    Large inventories are read once, without a branch: of the maxima of interleaved parts, counted
    in steps of an eighth, ``most`` reach it.
    """
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
def best_labels(  # type: ignore[no-untyped-def]
    frame, floor, shift, most, counts, found, found_p, order, kept, kept_p
):
    """Put the ``most`` best labels (but the blank) of at least ``floor`` into ``kept``, best first,
    and their probabilities, exp(frame - shift), into ``kept_p``. Return how many there are.
    """
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
def extend(  # type: ignore[no-untyped-def]
    t,
    beam,
    kept,
    kept_p,
    n_kept,
    entries,
    n_beam,
    tree,
    first_child,
    next_sibling,
    alive,
    candidates,
    n_candidates,
    counts,
    n_counted,
    least,
    best,
    margin,
    bonus,
    lm_scale,
    lm,
):
    """Make candidates of entries and labels, both best first, until no further one can survive.

    Returns the number of candidates, the best one, and the lowest bucket of survivors.
    """
    node, pb, _, total = entries
    _, label, lm_state, _, _, reach, _, _, _ = tree
    entry_of, label_of, pb_of, pnb_of, total_of, gain_of, state_of, _, _ = candidates
    trie, token_of, _, _, _ = lm
    threshold = max(best * margin, lower_edge(least))
    for i in range(n_beam):
        v = node[i]
        bound = total[i] * reach[v]
        if n_kept == 0 or bound * kept_p[0] <= threshold:
            continue
        stamp = t * beam + i
        child = first_child[i]
        while child >= 0:
            alive[label[node[child]]] = stamp
            child = next_sibling[child]
        for k in range(n_kept):
            if bound * kept_p[k] <= threshold:
                break
            c = kept[k]
            source = pb[i] if c == label[v] else total[i]
            score = source * kept_p[k] * reach[v]
            if alive[c] == stamp or score <= threshold:
                continue
            if lm_scale > 0.0:
                gain, state = advance(trie, lm_state[v], token_of[c])
                gain = weighted(lm_scale, gain)
                score = source * kept_p[k] * np.exp(gain + bonus)
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
        while n_counted - counts[least] >= beam:
            n_counted -= counts[least]
            least += 1
        threshold = max(best * margin, lower_edge(least))
    return n_candidates, best, least


@inner
def survive(  # type: ignore[no-untyped-def]
    t, candidates, n_next, entries, n_beam, following, tree, table, n_nodes, bonus, lm_scale, lm
):
    """Make the best candidates the beam ``following``; return the number of nodes of the tree."""
    node, _, _, _ = entries
    next_node, next_pb, next_pnb, next_total = following
    parent, label, lm_state, lm_score, factor, reach, slot, born, seen = tree
    entry_of, label_of, pb_of, pnb_of, _, gain_of, state_of, order, ranked = candidates
    log10_best = lm.trie.log10_best
    for i in range(n_beam):
        slot[node[i]] = -1
    for j in range(n_next):
        at = order[j]
        v = node[entry_of[at]]
        if label_of[at] != BLANK:
            place = find_child(table, parent, label, v, label_of[at])
            w = table[place]
            if w < 0:
                w = n_nodes
                n_nodes += 1
                table[place] = w
                parent[w], label[w], born[w] = v, label_of[at], t
                if lm_scale > 0.0:
                    lm_state[w] = state_of[at]
                    lm_score[w] = lm_score[v] + gain_of[at]
                    factor[w] = np.exp(gain_of[at] + bonus)
                    reach[w] = np.exp(weighted(lm_scale, log10_best[state_of[at]]) + bonus)
                else:
                    lm_score[w], factor[w], reach[w] = 0.0, reach[0], reach[0]
            v = w
        slot[v], seen[v] = j, t
        next_node[j], next_pb[j], next_pnb[j], next_total[j] = v, pb_of[at], pnb_of[at], ranked[j]
    return n_nodes


@compiled
def sums_of_paths(log_probs, tops, labels, lengths):  # type: ignore[no-untyped-def]
    """Return `sum_of_paths` of each row of ``labels`` (N, longest).

    They are much like the first: where that is too much work, so are the others.
    """
    sums = np.full(len(labels), -np.inf)
    for n in range(len(labels)):
        if n == 0 or sums[n - 1] > -np.inf:
            sums[n] = sum_of_paths(log_probs, tops, labels[n, : lengths[n]])
    return sums


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
def decide(t, entries, n_beam, tree):  # type: ignore[no-untyped-def]
    """Drop entries that differ from the best one in what it said `HORIZON` frames ago and before.

    Nothing later tells such entries apart, so that in long utterances they would fill the beam, and
    the tree would hold each one's whole way. Returns how many entries stay.
    """
    node, pb, pnb, total = entries
    old = node[0]
    while old > 0 and tree.born[old] > t - HORIZON:
        old = tree.parent[old]
    n_staying = 0
    for i in range(n_beam):
        v = node[i]
        while v > old:  # parents have lower numbers
            v = tree.parent[v]
        tree.slot[node[i]] = -1
        if v == old:
            tree.slot[node[i]] = n_staying
            node[n_staying], pb[n_staying], pnb[n_staying] = node[i], pb[i], pnb[i]
            total[n_staying] = total[i]
            n_staying += 1
    return n_staying


@compiled
def settle(tree, n_nodes, entries, n_beam, done, n_done):  # type: ignore[no-untyped-def]
    """Make the longest prefix that all entries share the root, and write those before it down.

    So the tree stays small, and in the processor's cache, however long the utterance is. Row u of
    ``done`` is the settled prefix of length u: its last label, its first and last frame in the
    beam.

    Returns ``done`` and how many of its rows are filled.
    """
    node = entries.node
    parent, label, lm_state, lm_score, factor, reach, slot, born, seen = tree
    shared = node[0]
    for i in range(1, n_beam):
        other = node[i]
        while shared != other:  # parents have lower numbers
            if shared > other:
                shared = parent[shared]
            else:
                other = parent[other]
    n_all = n_done
    v = shared
    while v > 0:
        n_all += 1
        v = parent[v]
    if n_all > len(done):
        longer = np.empty((2 * n_all, 3), np.int64)
        for u in range(n_done):
            for k in range(3):
                longer[u, k] = done[u, k]
        done = longer
    v = parent[shared]
    for u in range(n_all - 1, n_done - 1, -1):
        done[u, 0], done[u, 1], done[u, 2] = label[v], born[v], seen[v]
        v = parent[v]
    if shared > 0:
        for v in range(shared + 1, n_nodes):
            if parent[v] == shared:
                parent[v] = 0
        for i in range(n_beam):
            if node[i] == shared:
                node[i] = 0
        label[0], lm_state[0], lm_score[0] = label[shared], lm_state[shared], lm_score[shared]
        factor[0], reach[0], slot[0] = factor[shared], reach[shared], slot[shared]
        born[0], seen[0] = born[shared], seen[shared]
    return done, n_all


@compiled
def read_off(tree, nodes, done, n_done):  # type: ignore[no-untyped-def]
    """Return labels (N, longest) of ``nodes``, lengths (N,) and, as ``current`` (N, 2, longest +
    1), the first and last frame with each prefix in the beam."""
    parent, label, _, _, _, _, _, born, seen = tree
    lengths = np.full(len(nodes), n_done)
    longest = 0
    for n in range(len(nodes)):
        v = nodes[n]
        while v > 0:
            lengths[n] += 1
            v = parent[v]
        longest = max(longest, lengths[n])
    labels = np.zeros((len(nodes), longest), np.int64)
    current = np.zeros((len(nodes), 2, longest + 1), np.int64)
    for n in range(len(nodes)):
        v = nodes[n]
        for u in range(lengths[n], -1, -1):
            if u >= n_done:
                last, first, final = label[v], born[v], seen[v]
                v = parent[v]
            else:
                last, first, final = done[u, 0], done[u, 1], done[u, 2]
            if u:
                labels[n, u - 1] = last
            current[n, 0, u], current[n, 1, u] = first, final
    return labels, lengths, current


@inner
def weighted(lm_scale, log10_prob):  # type: ignore[no-untyped-def]
    """Return the weighted natural logarithm, but never one whose exponential is 0: a label that is
    all but impossible may be the only one left."""
    return max(lm_scale * log10_prob, -500.0)


@compiled
def new_tree(room):  # type: ignore[no-untyped-def]
    """Return room for so many prefixes."""
    return Prefixes(
        np.empty(room, np.int64),
        np.empty(room, np.int64),
        np.empty(room, np.int64),
        np.empty(room),
        np.empty(room),
        np.empty(room),
        np.empty(room, np.int64),
        np.empty(room, np.int64),
        np.empty(room, np.int64),
    )


@compiled
def more_room(tree, room):  # type: ignore[no-untyped-def]
    """Return a copy of the tree with more room."""
    return Prefixes(
        resized(tree.parent, room),
        resized(tree.label, room),
        resized(tree.lm_state, room),
        resized(tree.lm_score, room),
        resized(tree.factor, room),
        resized(tree.reach, room),
        resized(tree.slot, room),
        resized(tree.born, room),
        resized(tree.seen, room),
    )


@inner
def keep_living(tree, living):  # type: ignore[no-untyped-def]
    """Keep what `prune_tree` kept, in its order."""
    for n in range(len(living)):
        v = living[n]
        tree.lm_state[n], tree.lm_score[n] = tree.lm_state[v], tree.lm_score[v]
        tree.factor[n], tree.reach[n] = tree.factor[v], tree.reach[v]
        tree.slot[n], tree.born[n], tree.seen[n] = tree.slot[v], tree.born[v], tree.seen[v]


@compiled
def new_entries(room):  # type: ignore[no-untyped-def]
    """Return room for so many entries."""
    return Entries(np.empty(room, np.int64), np.empty(room), np.empty(room), np.empty(room))


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
    """Return a copy with more room."""
    return Candidates(
        resized(candidates.entry, room),
        resized(candidates.label, room),
        resized(candidates.pb, room),
        resized(candidates.pnb, room),
        resized(candidates.total, room),
        resized(candidates.lm_gain, room),
        resized(candidates.lm_state, room),
        np.empty(room, np.int64),
        np.empty(room),
    )
