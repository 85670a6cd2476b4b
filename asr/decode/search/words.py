"""Prefix beam search over the words of a lexicon: the compiled part of `asr.decode.search.beam`.

The frames' loop takes arrays in tuples, takes these apart once, and assigns none anew: numba counts
references to arrays, and that would take as long as the search itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr.decode.lexicon import Hotwords, Tree
from asr.decode.search.kernels import (
    N_BUCKETS,
    best_first,
    bucket,
    count_in,
    find_child,
    hash_table,
    lower_edge,
    prune_tree,
    sort_descending,
)
from asr.labels import BLANK
from asr.lm.ngram import BoundNGram, advance
from asr.system.jit import compiled, inner

#: Hypotheses that there is room for at first, if the beam is not narrower.
ROOM = 1024
#: One word's factor is kept within exp(+-400), so that products stay far from where doubles end.
MOST = 400.0


class Scoring(NamedTuple):
    """What words count beside their sounds, in natural logarithms.

    lm_scale: weight times log 10. ahead_scale: of the look-ahead. bonus: of a word. unknown: of an
    unknown word besides, -inf where there are none. unknown_label: factor of each label of an
    unknown word that is not spelled.
    """

    lm_scale: float
    ahead_scale: float
    bonus: float
    unknown: float
    unknown_label: float


class Histories(NamedTuple):
    """Words said, as a tree: node v is node parent[v] and then code[v]; 0 is the start.

    lm_score: weighted. bonus: of words, hotwords and unknown words. ext: what the probabilities
    hold of both, and factor: what the last word alone adds. reach: no next word has a larger
    factor. born, seen: the first and the last frame in the beam.
    """

    parent: NDArray[np.int64]
    code: NDArray[np.int64]
    lm_state: NDArray[np.int64]
    hot_state: NDArray[np.int64]
    lm_score: NDArray[np.float64]
    bonus: NDArray[np.float64]
    ext: NDArray[np.float64]
    factor: NDArray[np.float64]
    reach: NDArray[np.float64]
    born: NDArray[np.int64]
    seen: NDArray[np.int64]


class Entries(NamedTuple):
    """The beam, best first: history, place and last label; the probability of their paths that end
    in blank (pb), in the last label (pnb), and in either (total: where the net is too sure of
    itself, the smaller part is lost in it); the factor by which a place inside a word is judged."""

    history: NDArray[np.int64]
    place: NDArray[np.int64]
    last: NDArray[np.int64]
    pb: NDArray[np.float64]
    pnb: NDArray[np.float64]
    total: NDArray[np.float64]
    judge: NDArray[np.float64]


class Candidates(NamedTuple):
    """What may become the next beam, as `Entries`, found by (history, place).

    score: (pb + pnb) times judge. at: place in the hash. order, ranked: where `best_first` puts its
    result.
    """

    history: NDArray[np.int64]
    place: NDArray[np.int64]
    last: NDArray[np.int64]
    pb: NDArray[np.float64]
    pnb: NDArray[np.float64]
    judge: NDArray[np.float64]
    score: NDArray[np.float64]
    at: NDArray[np.int64]
    order: NDArray[np.int64]
    ranked: NDArray[np.float64]


class Scratch(NamedTuple):
    """Room that each frame fills anew. counts: see `count_in`. prob, opened, opened_p, stamps: by
    label. step_*: the ways on from one entry: to a place, by a label, with a probability and a code
    for the word that it ends or begins (-1: none)."""

    counts: NDArray[np.int64]
    prob: NDArray[np.float64]
    opened: NDArray[np.int64]
    opened_p: NDArray[np.float64]
    stamps: NDArray[np.int64]
    step_to: NDArray[np.int64]
    step_by: NDArray[np.int64]
    step_code: NDArray[np.int64]
    step_p: NDArray[np.float64]


class Found(NamedTuple):
    """A hypothesis of `search_words`.

    codes: of its words. unfinished: the tree node of a word cut off by the end of the utterance,
    given only where no hypothesis ends with a whole word, and of several the likeliest; else 0.
    acoustic: summed over the places in which the words may end, or be cut off. current (2, 1 +
    codes): the first and the last frame with the codes so far, and no more, in the beam.
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


def search_words(
    log_probs: NDArray[np.float32],
    floors: NDArray[np.float32],
    beam: int,
    score_prune: float,
    scoring: Scoring,
    lm: BoundNGram,
    tree: Tree,
    ahead: NDArray[np.float64],
    hot: Hotwords,
    spelled: bool,
    n_words: int,
) -> Iterator[Found]:
    """Return the hypotheses, best first; none where no path has any probability.

    floors (T,): labels below do not extend a hypothesis.

    A hypothesis is a pair (words so far, place). The places are: 0, nothing said yet; n, inside a
    word at tree node n; N + n, after a word that ended at node n; 2 N + k, in separator k;
    2 N + K + c, in or after an unknown word, at label c. A place knows the last label, which is all
    that CTC needs, so whatever brings the same words to the same place is summed: several
    spellings, with or without silence.

    Codes, with W words and V labels: w < W, a word; W, an unknown word of any labels. Where unknown
    words are ``spelled``, W + 1 + V + n V + c: an unknown word begins with the labels to tree node
    n and then c (if c is the blank, that is all of it); W + 1 + c: it goes on with c.

    Probabilities are scaled by each frame's best, and hold the factors of their histories (language
    model and bonuses), so that the inner loops only multiply and add.

    ahead (N,): what the best word below a tree node counts; scoring.ahead_scale makes it natural
    logarithms. spelled: whether unknown words are.
    """
    n_frames, n_labels = log_probs.shape
    unknown = scoring.unknown > -math.inf
    if spelled and unknown and n_frames:
        # One more frame, a certain blank, ends words that are cut off within the lexicon's tree.
        end = np.full(n_labels, -np.inf, np.float32)
        end[BLANK] = 0.0
        log_probs, floors = np.vstack([log_probs, end]), np.append(floors, np.float32(0.0))

    # There is room for all that one frame may bring to `width` hypotheses.
    most_steps = tree.most_ways + 1 + (2 * n_labels if unknown else 0)
    width = min(beam, ROOM)
    room = 2 * width * most_steps
    histories = Histories(
        *(np.empty(room, t) for t in 4 * [np.int64] + 5 * [float] + 2 * [np.int64])
    )
    for values in histories:
        values[0] = 0
    histories.parent[0] = histories.code[0] = -1
    reach = scoring.bonus
    if scoring.lm_scale > 0.0:
        reach += scoring.lm_scale * float(lm.trie.log10_best[lm.start])
    if len(hot.end):
        reach += float(hot.best[0])
    histories.lm_state[0], histories.reach[0] = lm.start, math.exp(min(max(reach, -MOST), MOST))
    table = hash_table(histories.parent, histories.code, 0)
    entries, candidates, c_table = _room_for(beam, width, most_steps)
    entries.pb[0] = entries.total[0] = entries.judge[0] = 1.0
    scratch = Scratch(
        np.zeros(N_BUCKETS, np.int64),
        np.zeros(n_labels),
        np.zeros(n_labels, np.int64),
        np.zeros(n_labels),
        np.full(n_labels, -1, np.int64),
        *(np.empty(most_steps, t) for t in 3 * [np.int64] + [float]),
    )
    root_child = np.zeros(n_labels, np.int64)
    root_child[tree.label[1 : tree.first_child[1]]] = np.arange(1, tree.first_child[1])
    separator_of = np.full(n_labels, -1, np.int64)
    separator_of[tree.separators] = np.arange(len(tree.separators))

    t, n_beam, n_histories, log_scale = 0, 1, 1, 0.0
    while t < len(log_probs) and n_beam:
        t, n_beam, n_histories, log_scale = search_frames(
            log_probs,
            floors,
            n_frames,
            beam,
            math.exp(-score_prune),
            scoring,
            lm,
            tree,
            ahead,
            hot,
            spelled,
            n_words,
            root_child,
            separator_of,
            entries,
            histories,
            table,
            candidates,
            c_table,
            scratch,
            t,
            n_beam,
            n_histories,
            log_scale,
        )
        if t < len(log_probs) and n_beam:
            # Only the histories that lead to a living hypothesis are needed on.
            living = prune_tree(
                table, histories.parent, histories.code, n_histories, entries.history[:n_beam]
            )
            n_histories = len(living)
            for values in histories[2:]:
                values[:n_histories] = values[living]
            if n_beam > width:
                width, before = min(beam, 2 * n_beam), entries
                entries, candidates, c_table = _room_for(beam, width, most_steps)
                for column in range(len(entries)):
                    entries[column][:n_beam] = before[column][:n_beam]
            if 2 * n_histories + width * most_steps > room:
                room = 4 * n_histories + width * most_steps
                histories = Histories._make(np.resize(values, room) for values in histories)
                table = hash_table(histories.parent, histories.code, n_histories)
    return _finals(entries, n_beam, histories, len(tree.label), log_scale, scoring, lm, hot)


def _room_for(
    beam: int, width: int, most_steps: int
) -> tuple[Entries, Candidates, NDArray[np.int64]]:
    """Room for what a frame makes of ``width`` hypotheses, and an empty hash of the candidates."""
    size = width * (1 + most_steps)
    entries = Entries(*(np.zeros(min(beam, size), t) for t in 3 * [np.int64] + 4 * [float]))
    candidates = Candidates(
        *(np.empty(size, t) for t in 3 * [np.int64] + 4 * [float] + 2 * [np.int64] + [float])
    )
    return entries, candidates, hash_table(candidates.history, candidates.place, 0)


def _finals(
    entries: Entries,
    n_beam: int,
    histories: Histories,
    after: int,
    log_scale: float,
    scoring: Scoring,
    lm: BoundNGram,
    hot: Hotwords,
) -> Iterator[Found]:
    """Sum the places in which the same words may end, score the sentence's end, and read off."""
    totals = np.log(entries.total[:n_beam]).tolist()
    nodes, unfinished, sums = ends_of(
        entries.history[:n_beam].tolist(), entries.place[:n_beam].tolist(), totals, after
    )
    acoustic = sums + log_scale - histories.ext[nodes]
    lm_score, bonus = histories.lm_score[nodes], histories.bonus[nodes]
    if scoring.lm_scale > 0.0:
        lm_score += scoring.lm_scale * end_scores(lm.trie, histories.lm_state[nodes], lm.end_token)
    if len(hot.end):
        bonus += hot.end[histories.hot_state[nodes]]
    for j in np.argsort(-(acoustic + lm_score + bonus), kind="stable").tolist():
        v, chain = int(nodes[j]), [int(nodes[j])]
        while v > 0:
            v = int(histories.parent[v])
            chain.append(v)
        chain.reverse()
        yield Found(
            histories.code[chain[1:]].tolist(),
            unfinished[j],
            float(acoustic[j]),
            float(lm_score[j]),
            float(bonus[j]),
            np.stack([histories.born[chain], histories.seen[chain]]),
        )


def ends_of(
    histories: list[int], places: list[int], totals: list[float], after: int
) -> tuple[NDArray[np.int64], list[int], NDArray[np.float64]]:
    """Sum hypotheses, whose logarithms are ``totals``, with the same words.

    Returns:
        The histories (N,) that end with a whole word, 0 for each, and the sums (N,); where none
        does, those that are cut off, each with the place where it likeliest is.
    """
    whole = [place == 0 or place >= after for place in places]
    counted = any(whole)
    sums: dict[int, float] = {}
    best: dict[int, tuple[float, int]] = {}
    for history, place, total, ends in zip(histories, places, totals, whole, strict=True):
        if ends == counted:
            this = total, 0 if ends else place
            known = history in sums
            sums[history] = float(np.logaddexp(sums[history], total)) if known else total
            best[history] = max(best[history], this) if known else this
    unfinished = [place for _, place in best.values()]
    return np.array(list(sums), np.int64), unfinished, np.array(list(sums.values()))


@compiled
def end_scores(trie, states, end_token):  # type: ignore[no-untyped-def]
    """Return log10 P(end | state) of each state."""
    scores = np.empty(len(states))
    for i in range(len(states)):
        scores[i], _ = advance(trie, states[i], end_token)
    return scores


@compiled
def search_frames(  # type: ignore[no-untyped-def]
    log_probs,
    floors,
    n_frames,
    beam,
    margin,
    scoring,
    lm,
    tree,
    ahead,
    hot,
    spelled,
    n_words,
    root_child,
    separator_of,
    entries,
    histories,
    table,
    candidates,
    c_table,
    scratch,
    first,
    n_beam,
    n_histories,
    log_scale,
):
    """Search from frame ``first`` on, as long as there is room for what one frame may bring.

    Frame n_frames, where there is one, is no frame but the end. Returns the next frame, the numbers
    of entries and of histories, and the logarithm of the probabilities' scale.
    """
    lm_scale, ahead_scale, bonus, unknown_cost, unknown_label = scoring
    label, first_child, first_word, ends_word, separators, required, _ = tree
    trie, token_of, _, _, _ = lm
    log10_best = trie.log10_best
    hot_token, hot_next, hot_gain, hot_end, hot_best, _, _, _ = hot
    history, place, last, pb, pnb, total, judge = entries
    parent, code, lm_state, hot_state, lm_score, bonus_of, ext, factor, reach, born, seen = (
        histories
    )
    history_of, place_of, last_of, pb_of, pnb_of, judge_of, score_of, at_of, order, ranked = (
        candidates
    )
    counts, prob, opened, opened_p, stamps, step_to, step_by, step_code, step_p = scratch
    use_lm, use_hot, unknown = lm_scale > 0.0, len(hot_end) > 0, unknown_cost > -np.inf
    filler, spelled = unknown and not spelled, unknown and spelled
    n_labels, n_nodes, most_steps = len(prob), len(label), len(step_to)
    after, separator, any_ = n_nodes, 2 * n_nodes, 2 * n_nodes + len(separators)
    letter, spelling = n_words + 1, n_words + 1 + n_labels
    root_judge, unknown_judge = bounded_exp(ahead_scale * ahead[0] + bonus), 0.0
    if spelled:
        unknown_judge = bounded_exp(bonus + unknown_cost)
        if use_lm:
            unknown_judge *= bounded_exp(lm_scale * trie.log10_prob[1])  # <unk>
        root_judge = max(root_judge, unknown_judge)
    best = 0.0
    for i in range(n_beam):
        best = max(best, total[i] * judge[i])
    t = first
    while (
        t < len(log_probs)
        and n_beam > 0
        and n_beam * (1 + most_steps) <= len(history_of)
        and n_histories + n_beam * most_steps <= len(parent)
    ):
        frame = log_probs[t]

        # 1. The labels that may extend a hypothesis, best first.
        shift = frame[BLANK]
        for c in range(1, n_labels):
            shift = max(shift, frame[c])
        shift += np.log(best)
        log_scale += shift
        n_open = 0
        for c in range(1, n_labels):
            prob[c] = np.exp(frame[c] - shift) if frame[c] >= floors[t] else 0.0
            if prob[c] > 0.0:
                opened[n_open], opened_p[n_open] = c, prob[c]
                n_open += 1
        sort_descending(opened_p, opened, n_open)

        # 2. Carry over: blank, or the last label again.
        blank = np.exp(frame[BLANK] - shift)
        best = 0.0
        for i in range(n_beam):
            c = last[i]
            history_of[i], place_of[i], last_of[i] = history[i], place[i], c
            pb_of[i], pnb_of[i] = total[i] * blank, 0.0
            if c != BLANK:
                pnb_of[i] = pnb[i] * (prob[c] if prob[c] > 0.0 else np.exp(frame[c] - shift))
            judge_of[i], score_of[i] = judge[i], (pb_of[i] + pnb_of[i]) * judge[i]
            best = max(best, score_of[i])
            at_of[i] = find_child(c_table, history_of, place_of, history[i], place[i])
            c_table[at_of[i]] = i
        n_candidates = n_beam
        # `beam` candidates or fewer are counted from bucket `least` on; below, none can survive.
        least, n_counted = bucket(best * margin), 0
        for i in range(n_beam):
            least, n_counted = count_in(counts, score_of[i], least, n_counted, beam)
        threshold = max(best * margin, lower_edge(least))

        # 3. Extend.
        for i in range(n_beam):
            h, p = history[i], place[i]
            inside = 0 < p < after
            in_unknown = p >= any_
            whole = after <= p < separator or in_unknown
            begins = not inside and not (required and whole)
            separates = p == 0 or whole or (inside and first_word[p] == first_word[p + 1])
            # The most that a whole word, or any step into or within a word, can add.
            most = total[i] * max(1.0, reach[h], judge[i] if inside else root_judge)
            n_steps = 0
            if t == n_frames and inside and separates:
                step_to[0], step_by[0], step_p[0] = separator, last[i], pb_of[i] + pnb_of[i]
                step_code[0] = spelling + p * n_labels
                n_steps = 1
            # First the tree's children of this place, then, unless within a word, any label.
            child = first_child[p] if inside else 0
            n_children = first_child[p + 1] - child if inside else 0
            for k in range(n_children + (0 if inside and not spelled else n_open)):
                if k < n_children:
                    n = child + k
                    c = label[n]
                    stamps[c] = t * beam + i
                    if most * prob[c] <= threshold:
                        continue
                else:
                    c = opened[k - n_children]
                    n = root_child[c] if begins else 0
                    if most * prob[c] <= threshold:
                        break
                p_c = (pb[i] if c == last[i] else total[i]) * prob[c]
                if n > 0:
                    if spelled or first_child[n] < first_child[n + 1]:
                        step_to[n_steps], step_by[n_steps] = n, c
                        step_code[n_steps], step_p[n_steps] = -1, p_c
                        n_steps += 1
                    for at in range(first_word[n], first_word[n + 1]):
                        step_to[n_steps], step_by[n_steps] = after + n, c
                        step_code[n_steps], step_p[n_steps] = ends_word[at], p_c
                        n_steps += 1
                if k < n_children:
                    continue
                s = separator_of[c]
                if s >= 0:
                    if separates:
                        step_to[n_steps], step_by[n_steps] = separator + s, c
                        step_code[n_steps] = spelling + p * n_labels if inside else -1
                        step_p[n_steps] = p_c
                        n_steps += 1
                    continue
                if filler and in_unknown:
                    step_to[n_steps], step_by[n_steps] = any_ + c, c
                    step_code[n_steps], step_p[n_steps] = -1, p_c * unknown_label
                    n_steps += 1
                new = -1
                if filler and begins:
                    new = n_words
                    p_c *= unknown_label
                elif spelled and in_unknown:
                    new = letter + c
                elif spelled and inside and stamps[c] != t * beam + i:
                    new = spelling + p * n_labels + c
                elif spelled and begins and n == 0:
                    new = spelling + c
                if new >= 0:
                    step_to[n_steps], step_by[n_steps] = any_ + c, c
                    step_code[n_steps], step_p[n_steps] = new, p_c
                    n_steps += 1

            for k in range(n_steps):
                to, w, p_c = step_to[k], step_code[k], step_p[k]
                h_to, judge_to = h, 1.0
                if w < 0:
                    if p_c * max(1.0, judge[i] if inside else root_judge) <= threshold:
                        continue
                    if to < after:
                        judge_to = max(unknown_judge, bounded_exp(ahead_scale * ahead[to] + bonus))
                else:
                    goes_on = letter <= w < spelling
                    if p_c * (1.0 if goes_on else reach[h]) <= threshold:
                        continue
                    at = find_child(table, parent, code, h, w)
                    h_to = table[at]
                    if h_to < 0:
                        h_to = n_histories
                        n_histories += 1
                        table[at] = h_to
                        parent[h_to], code[h_to], born[h_to] = h, w, -1
                        added, state, gain, hot_to = 0.0, lm_state[h], 0.0, hot_state[h]
                        if not goes_on:
                            if use_lm:
                                token = token_of[w] if w < n_words else 0  # <unk>
                                added, state = advance(trie, lm_state[h], token)
                                added *= lm_scale
                            gain = bonus if w < n_words else bonus + unknown_cost
                            if use_hot:
                                hot_w = hot_token[w] if w < n_words else 0
                                gain += hot_gain[hot_state[h], hot_w]
                                hot_to = hot_next[hot_state[h], hot_w]
                        lm_state[h_to], hot_state[h_to] = state, hot_to
                        lm_score[h_to] = lm_score[h] + added
                        bonus_of[h_to] = bonus_of[h] + gain
                        factor[h_to] = bounded_exp(added + gain)
                        ext[h_to] = ext[h] + min(max(added + gain, -MOST), MOST)
                        most_gain = bonus
                        if use_lm:
                            most_gain += lm_scale * log10_best[state]
                        if use_hot:
                            most_gain += hot_best[hot_to]
                        reach[h_to] = bounded_exp(most_gain)
                    p_c *= factor[h_to]
                score = p_c * judge_to
                if score <= threshold:
                    continue
                at = find_child(c_table, history_of, place_of, h_to, to)
                j = c_table[at]
                if j >= 0:
                    counts[bucket(score_of[j])] -= 1
                    was_counted = bucket(score_of[j]) >= least
                    pnb_of[j] += p_c
                    score_of[j] = (pb_of[j] + pnb_of[j]) * judge_of[j]
                    score = score_of[j]
                    n_counted -= was_counted
                else:
                    j = n_candidates
                    n_candidates += 1
                    c_table[at] = j
                    at_of[j], history_of[j], place_of[j], last_of[j] = at, h_to, to, step_by[k]
                    pb_of[j], pnb_of[j], judge_of[j], score_of[j] = 0.0, p_c, judge_to, score
                best = max(best, score)
                least, n_counted = count_in(counts, score, least, n_counted, beam)
                threshold = max(best * margin, lower_edge(least))

        # 4. The best become the beam.
        n_beam = best_first(counts, least, best, score_of, n_candidates, order, ranked)
        n_beam = min(n_beam, beam)
        while n_beam > 0 and ranked[n_beam - 1] < best * margin:
            n_beam -= 1
        while n_beam > 0 and ranked[n_beam - 1] <= 0.0:
            n_beam -= 1
        for j in range(n_candidates):
            c_table[at_of[j]] = -1
        for i in range(n_beam):
            j = order[i]
            h = history_of[j]
            history[i], place[i], last[i] = h, place_of[j], last_of[j]
            pb[i], pnb[i], total[i], judge[i] = (
                pb_of[j],
                pnb_of[j],
                pb_of[j] + pnb_of[j],
                judge_of[j],
            )
            if born[h] < 0:
                born[h] = t
            seen[h] = t
        t += 1
    return t, n_beam, n_histories, log_scale


@inner
def bounded_exp(x):  # type: ignore[no-untyped-def]
    """exp within +-MOST, but 0 where a word is impossible."""
    return 0.0 if x == -np.inf else np.exp(min(max(x, -MOST), MOST))
