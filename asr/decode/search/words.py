"""Prefix beam search over the words of a lexicon: the compiled part of `asr.decode.search.beam`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache, partial
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
    sort_descending,
)
from asr.decode.search.state import NOTHING, Found, Reached, State, codes_to, end_scores, run
from asr.labels import BLANK
from asr.lm.ngram import BoundNGram
from asr.lm.ngram import advance as advance_lm
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
    itself, the smaller part is lost in it); the factor by which a place inside a word is judged.

    A hypothesis is a pair (words so far, place). The places are: 0, nothing said yet; n, inside a
    word at tree node n; N + n, after a word that ended at node n; 2 N + k, in separator k;
    2 N + K + c, in or after an unknown word, at label c. A place knows the last label, which is all
    that CTC needs, so whatever brings the same words to the same place is summed: several
    spellings, with or without silence.

    Codes, with W words and V labels: w < W, a word; W, an unknown word of any labels. Where unknown
    words are spelled, W + 1 + V + n V + c: an unknown word begins with the labels to tree node n
    and then c (if c is the blank, that is all of it); W + 1 + c: it goes on with c.

    Probabilities are scaled by each frame's best, and hold the factors of their histories (language
    model and bonuses), so that the inner loops only multiply and add.
    """

    node: NDArray[np.int64]
    place: NDArray[np.int64]
    last: NDArray[np.int64]
    pb: NDArray[np.float64]
    pnb: NDArray[np.float64]
    total: NDArray[np.float64]
    judge: NDArray[np.float64]


class Candidates(NamedTuple):
    """What may become the next beam, as `Entries`, found by (history, place).

    score: (pb + pnb) times judge. at: place in the hash ``table``, which is left empty. order,
    ranked: where `best_first` puts its result.
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
    table: NDArray[np.int64]


class Steps(NamedTuple):
    """The ways on from one entry: to a place, by a label, with a code for the word that it ends or
    begins (-1: none), and a probability."""

    to: NDArray[np.int64]
    by: NDArray[np.int64]
    code: NDArray[np.int64]
    p: NDArray[np.float64]


class Scratch(NamedTuple):
    """Room that each frame fills anew. counts: see `count_in`. prob, opened, opened_p, stamps: by
    label."""

    counts: NDArray[np.int64]
    prob: NDArray[np.float64]
    opened: NDArray[np.int64]
    opened_p: NDArray[np.float64]
    stamps: NDArray[np.int64]
    steps: Steps


class Words(NamedTuple):
    """What scores words; the first ``n_words`` codes are words of the lexicon."""

    scoring: Scoring
    lm: BoundNGram
    hot: Hotwords
    n_words: int


class Search(NamedTuple):
    """What is searched for, and how wide.

    margin: what has a smaller share of the best is dropped. ahead (N,): what the best word below a
    tree node counts; scoring.ahead_scale makes it natural logarithms. spelled: whether unknown
    words are. root_child, separator_of (V,): the tree node, or 0, that each label begins words at,
    and which separator it is, or -1.
    """

    beam: int
    margin: float
    words: Words
    tree: Tree
    ahead: NDArray[np.float64]
    spelled: bool
    root_child: NDArray[np.int64]
    separator_of: NDArray[np.int64]

    @property
    def unknown(self) -> bool:
        """Whether there may be unknown words."""
        return self.words.scoring.unknown > -math.inf

    @property
    def most_steps(self) -> int:
        """One label more leads from any hypothesis to at most so many."""
        return self.tree.most_ways + 1 + (2 * len(self.root_child) if self.unknown else 0)


class Room(NamedTuple):
    """What `search_frames` works on; ``table`` is the hash of the histories."""

    entries: Entries
    histories: Histories
    table: NDArray[np.int64]
    candidates: Candidates
    scratch: Scratch


class Frames(NamedTuple):
    """Frames from ``first`` on. floors (T,): labels below do not extend a hypothesis."""

    log_probs: NDArray[np.float32]
    floors: NDArray[np.float32]
    first: int


class Places(NamedTuple):
    """Where kinds of places and of codes (see `State`) begin; whether unknown words are of any
    labels (filler) or spelled; whether this is no frame but the end; the factors by which what
    begins a word is judged."""

    after: int
    separator: int
    unknown: int
    letter: int
    spelling: int
    filler: bool
    spelled: bool
    ending: bool
    root_judge: float
    unknown_judge: float


class Standing(NamedTuple):
    """The number of candidates and the best score so far. `Search.beam` of them or fewer are
    counted (n_counted) from bucket ``least`` on; what is not above ``threshold`` cannot survive."""

    n: int
    best: float
    least: int
    n_counted: int
    threshold: float


def by_label(tree: Tree, n_labels: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return root_child and separator_of of `Search`."""
    root_child = np.zeros(n_labels, np.int64)
    root_child[tree.label[1 : tree.first_child[1]]] = np.arange(1, tree.first_child[1])
    separator_of = np.full(n_labels, -1, np.int64)
    separator_of[tree.separators] = np.arange(len(tree.separators))
    return root_child, separator_of


def begin(search: Search) -> State:
    """Return the state before the first frame."""
    reach = search.words.scoring.bonus
    if search.words.scoring.lm_scale > 0.0:
        reach += search.words.scoring.lm_scale * float(
            search.words.lm.trie.log10_best[search.words.lm.start]
        )
    if len(search.words.hot.end):
        reach += float(search.words.hot.best[0])
    histories = Histories(*(np.zeros(1, t) for t in 4 * [np.int64] + 5 * [float] + 2 * [np.int64]))
    histories.parent[0] = histories.code[0] = -1
    histories.lm_state[0] = search.words.lm.start
    histories.reach[0] = math.exp(min(max(reach, -MOST), MOST))
    entries = Entries(*(np.zeros(1, t) for t in 3 * [np.int64] + 4 * [float]))
    entries.pb[0] = entries.total[0] = entries.judge[0] = 1.0
    # There is room for all that one frame may bring to `width` hypotheses.
    width = min(search.beam, ROOM)
    room = 2 * width * search.most_steps
    return State(Reached(0, 1, 1, 0.0), entries, histories, NOTHING, 0, width, room)


def advance(
    state: State,
    log_probs: NDArray[np.float32],
    floors: NDArray[np.float32],
    search: Search,
    ending: bool = False,
) -> State:
    """Return the state after the frames of ``log_probs`` (T, V), of which labels below ``floors``
    (T,) do not extend a hypothesis.

    ending: this is no frame but the end, a certain blank, which ends words that are cut off.
    """
    n_labels = len(search.root_child)
    scratch = Scratch(
        np.zeros(N_BUCKETS, np.int64),
        np.zeros(n_labels),
        np.zeros(n_labels, np.int64),
        np.zeros(n_labels),
        np.full(n_labels, -1, np.int64),
        Steps(*(np.empty(search.most_steps, t) for t in 3 * [np.int64] + [float])),
    )
    candidates_of = cache(partial(new_candidates, search))
    before = state.reached.t

    def go_on(
        entries: Entries, tree: Histories, table: NDArray[np.int64], width: int, reached: Reached
    ) -> Reached:
        work = Room(entries, tree, table, candidates_of(width), scratch)
        frames = Frames(log_probs, floors, before)
        return search_frames(frames, ending, search, work, reached)

    end = before + len(log_probs)
    return run(state, end, search.beam, lambda width: width * search.most_steps, go_on)


def new_candidates(search: Search, width: int) -> Candidates:
    """Return room for what a frame makes of ``width`` hypotheses."""
    size = width * (1 + search.most_steps)
    node, place, last, at, order = (np.empty(size, np.int64) for _ in range(5))
    pb, pnb, judge, score, ranked = (np.empty(size) for _ in range(5))
    table = hash_table(node, place, 0)
    return Candidates(node, place, last, pb, pnb, judge, score, at, order, ranked, table)


def found(state: State, search: Search) -> Iterator[Found]:
    """Yield the hypotheses, were this the end, best first; none where no path has any probability.

    The places in which the same words may end are summed, and the sentence's end is scored.
    """
    if search.spelled and search.unknown and state.reached.t:
        end = np.full((1, len(search.root_child)), -np.inf, np.float32)
        end[:, BLANK] = 0.0
        state = advance(state, end, np.zeros(1, np.float32), search, ending=True)
    entries, histories, lm = state.entries, state.tree, search.words.lm
    nodes, unfinished, sums = ends_of(
        entries.node.tolist(),
        entries.place.tolist(),
        np.log(entries.total).tolist(),
        len(search.tree.label),
    )
    acoustic = sums + state.reached.log_scale - histories.ext[nodes]
    lm_score, bonus = histories.lm_score[nodes], histories.bonus[nodes]
    if search.words.scoring.lm_scale > 0.0:
        ends = end_scores(lm.trie, histories.lm_state[nodes], lm.end_token)
        lm_score += search.words.scoring.lm_scale * ends
    if len(search.words.hot.end):
        bonus += search.words.hot.end[histories.hot_state[nodes]]
    for j in np.argsort(-(acoustic + lm_score + bonus), kind="stable").tolist():
        codes, current = codes_to(state, int(nodes[j]))
        parts = float(acoustic[j]), float(lm_score[j]), float(bonus[j])
        yield Found(codes, unfinished[j], *parts, current)


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
def search_frames(frames, ending, search, room, reached):  # type: ignore[no-untyped-def]
    """Search on, as long as there is ``room`` (changed in place) for what one frame may bring.

    Returns how far it came.
    """
    log_probs, floors, first = frames
    entries, histories, _, candidates, scratch = room
    t, n_beam, n_histories, log_scale = reached
    places = places_of(search, ending)
    most_steps = len(scratch.steps.to)
    best = 0.0
    for i in range(n_beam):
        best = max(best, entries.total[i] * entries.judge[i])
    while (
        t < first + len(log_probs)
        and n_beam > 0
        and n_beam * (1 + most_steps) <= len(candidates.history)
        and n_histories + n_beam * most_steps <= len(histories.parent)
    ):
        frame = log_probs[t - first]
        shift = frame[BLANK]
        for c in range(1, len(frame)):
            shift = max(shift, frame[c])
        shift += np.log(best)
        log_scale += shift
        n_open = open_labels(frame, floors[t - first], shift, scratch)
        standing = carry_over(frame, shift, n_beam, search, room)
        for i in range(n_beam):
            stamp = t * search.beam + i
            n_steps = ways_on(i, stamp, n_open, standing.threshold, places, search, room)
            standing, n_histories = take_steps(
                i, n_steps, standing, n_histories, places, search, room
            )
        best = standing.best
        n_beam = select(t, standing, search, room)
        t += 1
    return t, n_beam, n_histories, log_scale


@inner
def places_of(search, ending):  # type: ignore[no-untyped-def]
    """Return the `Places` of a search."""
    scoring, n_labels, n_nodes = (
        search.words.scoring,
        len(search.root_child),
        len(search.tree.label),
    )
    unknown = scoring.unknown > -np.inf
    root_judge = promised(search.ahead[0], scoring)
    unknown_judge = 0.0
    if unknown and search.spelled:
        unknown_judge = bounded_exp(scoring.bonus + scoring.unknown)
        if scoring.lm_scale > 0.0:
            unknown_judge *= bounded_exp(
                scoring.lm_scale * search.words.lm.trie.log10_prob[1]
            )  # <unk>
        root_judge = max(root_judge, unknown_judge)
    return Places(
        n_nodes,
        2 * n_nodes,
        2 * n_nodes + len(search.tree.separators),
        search.words.n_words + 1,
        search.words.n_words + 1 + n_labels,
        unknown and not search.spelled,
        unknown and search.spelled,
        ending,
        root_judge,
        unknown_judge,
    )


@inner
def open_labels(frame, floor, shift, scratch):  # type: ignore[no-untyped-def]
    """List the labels that may extend a hypothesis, best first; return how many."""
    prob, opened, opened_p = scratch.prob, scratch.opened, scratch.opened_p
    n_open = 0
    for c in range(1, len(frame)):
        prob[c] = np.exp(frame[c] - shift) if frame[c] >= floor else 0.0
        if prob[c] > 0.0:
            opened[n_open], opened_p[n_open] = c, prob[c]
            n_open += 1
    sort_descending(opened_p, opened, n_open)
    return n_open


@inner
def carry_over(frame, shift, n_beam, search, room):  # type: ignore[no-untyped-def]
    """Make every entry a candidate: blank, or its last label again."""
    history, place, last, _, pnb, total, judge = room.entries
    history_of, place_of, last_of, pb_of, pnb_of, judge_of, score_of, at_of, _, _, table = (
        room.candidates
    )
    counts, prob = room.scratch.counts, room.scratch.prob
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
        at_of[i] = find_child(table, history_of, place_of, history[i], place[i])
        table[at_of[i]] = i
    least, n_counted = bucket(best * search.margin), 0
    for i in range(n_beam):
        least, n_counted = count_in(counts, score_of[i], least, n_counted, search.beam)
    threshold = max(best * search.margin, lower_edge(least))
    return Standing(n_beam, best, least, n_counted, threshold)


@inner
def ways_on(i, stamp, n_open, threshold, places, search, room):  # type: ignore[no-untyped-def]
    """List the ways on from entry ``i`` that may be above the threshold; return how many."""
    entries, histories, _, candidates, scratch = room
    after, separator, any_, letter, spelling, filler, spelled, ending, root_judge, _ = places
    label, first_child, first_word, ends_word, _, required, _ = search.tree
    _, prob, opened, _, stamps, steps = scratch
    unknown_label = search.words.scoring.unknown_label
    p, last, in_blank, total = entries.place[i], entries.last[i], entries.pb[i], entries.total[i]
    n_labels = len(prob)
    inside = 0 < p < after
    in_unknown = p >= any_
    whole = after <= p < separator or in_unknown
    begins = not inside and not (required and whole)
    separates = p == 0 or whole or (inside and first_word[p] == first_word[p + 1])
    # The most that a whole word, or any step into or within a word, can add.
    reach = histories.reach[entries.node[i]]
    most = total * max(1.0, reach, entries.judge[i] if inside else root_judge)
    n_steps = 0
    if ending and inside and separates:
        p_c = candidates.pb[i] + candidates.pnb[i]
        n_steps = put(steps, 0, separator, last, spelling + p * n_labels, p_c)
    # First the tree's children of this place, then, unless within a word, any label.
    child = first_child[p] if inside else 0
    n_children = first_child[p + 1] - child if inside else 0
    for k in range(n_children + (0 if inside and not spelled else n_open)):
        if k < n_children:
            n = child + k
            c = label[n]
            stamps[c] = stamp
            if most * prob[c] <= threshold:
                continue
        else:
            c = opened[k - n_children]
            n = search.root_child[c] if begins else 0
            if most * prob[c] <= threshold:
                break
        p_c = (in_blank if c == last else total) * prob[c]
        if n > 0:
            if spelled or first_child[n] < first_child[n + 1]:
                n_steps = put(steps, n_steps, n, c, -1, p_c)
            for at in range(first_word[n], first_word[n + 1]):
                n_steps = put(steps, n_steps, after + n, c, ends_word[at], p_c)
        if k < n_children:
            continue
        s = search.separator_of[c]
        if s >= 0:
            if separates:
                new = spelling + p * n_labels if inside else -1
                n_steps = put(steps, n_steps, separator + s, c, new, p_c)
            continue
        if filler and in_unknown:
            n_steps = put(steps, n_steps, any_ + c, c, -1, p_c * unknown_label)
        new = -1
        if filler and begins:
            new = search.words.n_words
            p_c *= unknown_label
        elif spelled and in_unknown:
            new = letter + c
        elif spelled and inside and stamps[c] != stamp:
            new = spelling + p * n_labels + c
        elif spelled and begins and n == 0:
            new = spelling + c
        if new >= 0:
            n_steps = put(steps, n_steps, any_ + c, c, new, p_c)
    return n_steps


@inner
def take_steps(  # type: ignore[no-untyped-def]
    i, n_steps, standing, n_histories, places, search, room
):
    """Score the ways on from entry ``i``, and make them candidates or add to those that there are.

    Returns the standing and the number of histories.
    """
    entries, histories, history_table, candidates, scratch = room
    history_of, place_of, last_of, pb_of, pnb_of, judge_of, score_of, at_of, _, _, table = (
        candidates
    )
    step_to, step_by, step_code, step_p = scratch.steps
    counts, scoring = scratch.counts, search.words.scoring
    n_candidates, best, least, n_counted, threshold = standing
    h, inside = entries.node[i], 0 < entries.place[i] < places.after
    judge = entries.judge[i] if inside else places.root_judge
    for k in range(n_steps):
        to, w, p_c = step_to[k], step_code[k], step_p[k]
        h_to, judge_to = h, 1.0
        if w < 0:
            if p_c * max(1.0, judge) <= threshold:
                continue
            if to < places.after:
                judge_to = max(places.unknown_judge, promised(search.ahead[to], scoring))
        else:
            goes_on = places.letter <= w < places.spelling
            if p_c * (1.0 if goes_on else histories.reach[h]) <= threshold:
                continue
            at = find_child(history_table, histories.parent, histories.code, h, w)
            h_to = history_table[at]
            if h_to < 0:
                h_to = n_histories
                n_histories += 1
                history_table[at] = h_to
                add_history(histories, h_to, h, w, goes_on, search.words)
            p_c *= histories.factor[h_to]
        score = p_c * judge_to
        if score <= threshold:
            continue
        at = find_child(table, history_of, place_of, h_to, to)
        j = table[at]
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
            table[at] = j
            at_of[j], history_of[j], place_of[j], last_of[j] = at, h_to, to, step_by[k]
            pb_of[j], pnb_of[j], judge_of[j], score_of[j] = 0.0, p_c, judge_to, score
        best = max(best, score)
        least, n_counted = count_in(counts, score, least, n_counted, search.beam)
        threshold = max(best * search.margin, lower_edge(least))
    return Standing(n_candidates, best, least, n_counted, threshold), n_histories


@inner
def put(steps, n, to, by, code, p):  # type: ignore[no-untyped-def]
    """Add to the ``n`` ways on; return how many there are then."""
    steps.to[n], steps.by[n], steps.code[n], steps.p[n] = to, by, code, p
    return n + 1


@inner
def promised(ahead, scoring):  # type: ignore[no-untyped-def]
    """Return the factor by which a place in a word is judged whose best word counts ``ahead``."""
    return bounded_exp(scoring.ahead_scale * ahead + scoring.bonus)


@inner
def add_history(histories, new, h, w, goes_on, words):  # type: ignore[no-untyped-def]
    """Make history ``new`` of history ``h`` and code ``w``, which may be a letter that goes on."""
    lm_scale, _, bonus, unknown, _ = words.scoring
    known, state, hot_to = w < words.n_words, histories.lm_state[h], histories.hot_state[h]
    added, gain, most_gain = 0.0, 0.0, bonus
    if not goes_on:
        gain = bonus if known else bonus + unknown
        if lm_scale > 0.0:
            token = words.lm.token_of[w] if known else 0  # <unk>
            added, state = advance_lm(words.lm.trie, state, token)
            added *= lm_scale
        if len(words.hot.end) > 0:
            hot_w = words.hot.token[w] if known else 0
            gain += words.hot.gain[hot_to, hot_w]
            hot_to = words.hot.next[hot_to, hot_w]
    if lm_scale > 0.0:
        most_gain += lm_scale * words.lm.trie.log10_best[state]
    if len(words.hot.end) > 0:
        most_gain += words.hot.best[hot_to]
    histories.parent[new], histories.code[new], histories.born[new] = h, w, -1
    histories.lm_state[new], histories.hot_state[new] = state, hot_to
    histories.lm_score[new] = histories.lm_score[h] + added
    histories.bonus[new] = histories.bonus[h] + gain
    histories.ext[new] = histories.ext[h] + min(max(added + gain, -MOST), MOST)
    histories.factor[new] = bounded_exp(added + gain)
    histories.reach[new] = bounded_exp(most_gain)


@inner
def select(t, standing, search, room):  # type: ignore[no-untyped-def]
    """Make the best candidates the beam after frame ``t``; return how many they are."""
    history, place, last, pb, pnb, total, judge = room.entries
    (
        history_of,
        place_of,
        last_of,
        pb_of,
        pnb_of,
        judge_of,
        score_of,
        at_of,
        order,
        ranked,
        table,
    ) = room.candidates
    born, seen = room.histories.born, room.histories.seen
    n, best, least, _, _ = standing
    n_beam = best_first(room.scratch.counts, least, best, score_of, n, order, ranked)
    n_beam = min(n_beam, search.beam)
    while n_beam > 0 and ranked[n_beam - 1] < best * search.margin:
        n_beam -= 1
    while n_beam > 0 and ranked[n_beam - 1] <= 0.0:
        n_beam -= 1
    for j in range(n):
        table[at_of[j]] = -1
    for i in range(n_beam):
        j = order[i]
        h = history_of[j]
        history[i], place[i], last[i] = h, place_of[j], last_of[j]
        pb[i], pnb[i], total[i] = pb_of[j], pnb_of[j], pb_of[j] + pnb_of[j]
        judge[i] = judge_of[j]
        if born[h] < 0:
            born[h] = t
        seen[h] = t
    return n_beam


@inner
def bounded_exp(x):  # type: ignore[no-untyped-def]
    """exp within +-MOST, but 0 where a word is impossible."""
    return 0.0 if x == -np.inf else np.exp(min(max(x, -MOST), MOST))
