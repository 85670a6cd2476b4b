"""Prefix beam search over the words of a lexicon: the compiled part of `asr.decode.search.beam`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from copy import deepcopy
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
from asr.decode.search.state import (
    NEVER,
    OPEN,
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


#: Words said, as of `Work.tree`. lm_state: of the n-gram, or the row of `Neural`; ~row where that
#: of the words but for the last one is all that is known. lm_score: weighted. bonus: of words,
#: hotwords and unknown words.
#: ext: what the probabilities hold of both, and factor: what the last word alone adds. reach: no
#: next word has a larger factor.
HISTORY = np.dtype(
    [(name, int) for name in ("parent", "code", "born", "seen", "since", "said", "lm_state")]
    + [("hot_state", int)]
    + [(name, float) for name in ("lm_score", "bonus", "ext", "factor", "reach")]
)
#: One of the beam: history, place and last label; the probability of its paths that end in blank
#: (pb), in the last label (pnb), and in either (total: where the net is too sure of itself, the
#: smaller part is lost in it); the factor by which a place inside a word is judged.
#:
#: A hypothesis is a pair (words so far, place). The places are: 0, nothing said yet; n, inside a
#: word at tree node n; N + n, after a word that ended at node n; 2 N + k, in separator k;
#: 2 N + K + c, in or after an unknown word, at label c. A place knows the last label, which is all
#: that CTC needs, so whatever brings the same words to the same place is summed: several
#: spellings, with or without silence.
#:
#: Codes, with W words and V labels: w < W, a word; W, an unknown word of any labels. Where unknown
#: words are spelled, W + 1 + V + n V + c: an unknown word begins with the labels to tree node n
#: and then c (if c is the blank, that is all of it); W + 1 + c: it goes on with c.
#:
#: Probabilities are scaled by each frame's best, and hold the factors of their histories (language
#: model and bonuses), so that the inner loops only multiply and add.
ENTRY = np.dtype(
    [(name, int) for name in ("node", "place", "last")]
    + [(name, float) for name in ("pb", "pnb", "total", "judge")]
)
#: What may come into the next beam, found by (node, place). score: (pb + pnb) times judge. at: its
#: place in the hash. order, ranked: where `best_first` puts its result.
CANDIDATE = np.dtype(
    [(name, int) for name in ("node", "place", "last", "at", "order")]
    + [(name, float) for name in ("pb", "pnb", "judge", "score", "ranked")]
)
#: A way on from an entry: to a place, by a label, with a code for the word that it ends or begins
#: (-1: none), and a probability.
STEP = np.dtype([("to", int), ("by", int), ("code", int), ("p", float)])
#: prob, stamp: by label. opened, opened_p: the labels that may extend a hypothesis.
CHOICE = np.dtype([("prob", float), ("stamp", int), ("opened", int), ("opened_p", float)])


class Scratch(NamedTuple):
    """Room that each frame fills anew. counts: see `count_in`. table: the hash of the candidates,
    left empty. wanted: entries whose histories' rows of `Neural` the frame takes."""

    counts: NDArray[np.int64]
    candidates: NDArray[np.void]
    table: NDArray[np.int64]
    choice: NDArray[np.void]
    steps: NDArray[np.void]
    wanted: NDArray[np.bool_]


class Neural(NamedTuple):
    """What a neural language model says of histories, a row each.

    log_probs (R, W + 1 + M): natural, of each of the lexicon's W words as the next, of the end, and
    of the best word at or below each of the M nodes of the lexicon's tree where words part
    (look-ahead, Ortmanns et al. 1996, here by the model's own probabilities). column (N,): where in
    a row each node of the tree has its best word.
    """

    weight: float
    log_probs: NDArray[np.float32]
    column: NDArray[np.int64]


class Words(NamedTuple):
    """What scores words, by an n-gram or a neural model; the first ``n_words`` codes are words of
    the lexicon."""

    scoring: Scoring
    lm: BoundNGram
    hot: Hotwords
    n_words: int
    neural: Neural | None = None


class Search(NamedTuple):
    """What is searched for, and how wide.

    margin: what has a smaller share of the best is dropped. label_prune: labels this much below the
    frame's best extend no hypothesis. ahead (N,): what the best word below a
    tree node counts; scoring.ahead_scale makes it natural logarithms. spelled: whether unknown
    words are. root_child, separator_of (V,): the tree node, or 0, that each label begins words at,
    and which separator it is, or -1.
    """

    beam: int
    margin: float
    label_prune: float
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

    def most_new(self, width: int) -> int:
        """Return how many histories at most a frame brings to so many hypotheses."""
        return width * self.most_steps

    def scratch(self, width: int) -> Scratch:
        """Return room for what frames fill."""
        candidates = np.empty(width * (1 + self.most_steps), CANDIDATE)
        choice = np.zeros(len(self.root_child), CHOICE)
        choice["stamp"] = -1
        table = hash_table(candidates["node"], candidates["place"], 0)
        steps = np.empty(self.most_steps, STEP)
        wanted = np.zeros(width, np.bool_)
        return Scratch(np.zeros(N_BUCKETS, np.int64), candidates, table, choice, steps, wanted)


class Places(NamedTuple):
    """Where kinds of places and of codes (see `ENTRY`) begin; whether unknown words are of any
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
    bounded = math.exp(min(max(reach, -MOST), MOST))
    start = search.words.lm.start
    whole = (-1, -1, 0, 0, NEVER, NEVER, start, 0, 0.0, 0.0, 0.0, 0.0, bounded)
    root = np.array([whole], HISTORY)
    entry = np.array([(0, 0, 0, 1.0, 0.0, 1.0, 1.0)], ENTRY)
    # There is room for all that one frame may bring to `width` hypotheses.
    width = min(search.beam, ROOM)
    return begun(search, entry, root, width, 2 * search.most_new(width))


def advance(
    state: State,
    log_probs: NDArray[np.float32],
    tops: NDArray[np.float32],
    search: Search,
    horizon: Horizon = OPEN,
    ending: bool = False,
) -> None:
    """Go on over the frames of ``log_probs`` (T, V), whose best values are ``tops``; ``ending`` is
    that of `Frames`."""
    frames = Frames(log_probs, tops, state.reached.t, ending)
    run(state, frames, search, horizon, search_frames)


def found(state: State, search: Search) -> Iterator[Found]:
    """Yield the hypotheses, were this the end, best first; none where no path has any probability.

    The places in which the same words may end are summed, and the sentence's end is scored.
    """
    if search.spelled and search.unknown and state.reached.t:
        end = np.full((1, len(search.root_child)), -np.inf, np.float32)
        end[:, BLANK] = 0.0
        state = deepcopy(state)
        advance(state, end, np.zeros(1, np.float32), search, ending=True)
    entries, lm = state.entries, search.words.lm
    nodes, unfinished, sums = ends_of(
        entries["node"].tolist(),
        entries["place"].tolist(),
        np.log(entries["total"]).tolist(),
        len(search.tree.label),
    )
    histories, neural = state.work.tree[nodes], search.words.neural
    acoustic = sums + state.reached.log_scale - histories["ext"]
    lm_score, bonus = histories["lm_score"], histories["bonus"]
    if search.words.scoring.lm_scale > 0.0:
        ends = end_scores(lm.trie, histories["lm_state"], lm.end_token)
        lm_score = lm_score + search.words.scoring.lm_scale * ends
    if neural is not None:
        ends = neural.log_probs[histories["lm_state"], search.words.n_words].astype(float)
        lm_score = lm_score + neural.weight * ends
    if len(search.words.hot.end):
        bonus = bonus + search.words.hot.end[histories["hot_state"]]
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
def search_frames(frames, search, horizon, work, reached):  # type: ignore[no-untyped-def]
    """Search on, as long as there is room for what one frame may bring; return how far it came."""
    log_probs, tops, first, ending = frames
    scratch = work.scratch
    places = places_of(search, ending)
    most_steps = len(scratch.steps)
    best = 0.0
    for i in range(reached.n_beam):
        best = max(best, work.entries[i].total * work.entries[i].judge)
    goes_on = True
    while goes_on and reached.n_beam > 0 and reached.t < first + len(log_probs):
        most_new = reached.n_beam * most_steps
        goes_on, reached = make_room(work, reached, most_new, work.width * most_steps)
        if goes_on:
            t, n_beam, n_nodes, n_settled, log_scale, _ = reached
            frame = log_probs[t - first]
            shift = frame[BLANK]
            for c in range(1, len(frame)):
                shift = max(shift, frame[c])
            shift += np.log(best)
            floor = tops[t - first] - np.float32(search.label_prune)
            n_open = open_labels(frame, floor, shift, scratch.choice)
            standing = carry_over(frame, shift, n_beam, search, work)
            waits = wants_rows(n_beam, n_open, standing, search, work, search.words.neural)
            reached = Reached(t, n_beam, n_nodes, n_settled, log_scale, waits)
            goes_on = not waits
        if goes_on:
            for i in range(n_beam):
                stamp = t * search.beam + i
                n_steps = ways_on(i, stamp, n_open, standing.threshold, places, search, work)
                standing, n_nodes = take_steps(i, n_steps, standing, n_nodes, places, search, work)
            best = standing.best
            n_beam = select(t, standing, search, work)
            t += 1
            if n_beam > 0 and (horizon.first + t) % horizon.every == 0:
                n_beam = look(t, n_beam, horizon, work)
            reached = Reached(t, n_beam, n_nodes, n_settled, log_scale + shift, False)
    return reached


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
def open_labels(frame, floor, shift, choice):  # type: ignore[no-untyped-def]
    """List the labels that may extend a hypothesis, best first; return how many."""
    n_open = 0
    for c in range(1, len(frame)):
        p = np.exp(frame[c] - shift) if frame[c] >= floor else 0.0
        choice[c].prob = p
        if p > 0.0:
            choice[n_open].opened, choice[n_open].opened_p = c, p
            n_open += 1
    sort_descending(choice.opened_p, choice.opened, n_open)
    return n_open


@inner
def carry_over(frame, shift, n_beam, search, work):  # type: ignore[no-untyped-def]
    """Make every entry a candidate: blank, or its last label again."""
    counts, candidates, table, choice, _, _ = work.scratch
    blank = np.exp(frame[BLANK] - shift)
    best = 0.0
    for i in range(n_beam):
        entry, candidate = work.entries[i], candidates[i]
        c = entry.last
        pb, pnb = entry.total * blank, 0.0
        if c != BLANK:
            p = choice[c].prob
            pnb = entry.pnb * (p if p > 0.0 else np.exp(frame[c] - shift))
        score = (pb + pnb) * entry.judge
        candidate.node, candidate.place, candidate.last = entry.node, entry.place, c
        candidate.pb, candidate.pnb, candidate.judge = pb, pnb, entry.judge
        candidate.score = score
        best = max(best, score)
        at, _, mark = find_child(table, candidates.node, candidates.place, entry.node, entry.place)
        candidate.at = at
        table[at] = mark + i
    least, n_counted = bucket(best * search.margin), 0
    for i in range(n_beam):
        least, n_counted = count_in(counts, candidates[i].score, least, n_counted, search.beam)
    threshold = max(best * search.margin, lower_edge(least))
    return Standing(n_beam, best, least, n_counted, threshold)


@inner
def wants_rows(n_beam, n_open, standing, search, work, neural):  # type: ignore[no-untyped-def]
    """Whether there are histories whose next word may survive the frame, whatever its probability,
    and which lack a row of the neural model. They are marked, and nothing is carried over then."""
    if neural is None:
        return False
    counts, candidates, table, choice, _, wanted = work.scratch
    after, best, second, first = len(search.tree.label), 0.0, 0.0, -1
    for k in range(n_open):
        if search.root_child[choice[k].opened] > 0 and second == 0.0:
            if first < 0:
                first, best = choice[k].opened, choice[k].opened_p
            else:
                second = choice[k].opened_p
    most = np.exp(max(search.words.scoring.bonus, 0.0))
    waits = False
    for i in range(n_beam):
        entry = work.entries[i]
        said = after <= entry.place < 2 * after
        p = entry.total * best
        if said and entry.last == first:
            # The same label again needs a blank between.
            p = max(entry.pb * best, entry.total * second)
        wanted[i] = work.tree[entry.node].lm_state < 0 and p * most > standing.threshold
        if said and search.tree.required:
            wanted[i] = False
        waits = waits or wanted[i]
    if waits:
        for j in range(standing.n):
            table[candidates[j].at] = -1
            counts[bucket(candidates[j].score)] = 0
    return waits


@inner
def ways_on(i, stamp, n_open, threshold, places, search, work):  # type: ignore[no-untyped-def]
    """List the ways on from entry ``i`` that may be above the threshold; return how many."""
    entry = work.entries[i]
    _, candidates, _, choice, steps, _ = work.scratch
    after, separator, any_, letter, spelling, filler, spelled, ending, root_judge, _ = places
    label, first_child, first_word, _, _, required, _ = search.tree
    unknown_label = search.words.scoring.unknown_label
    p, last, in_blank, total = entry.place, entry.last, entry.pb, entry.total
    n_labels = len(choice)
    inside = 0 < p < after
    in_unknown = p >= any_
    whole = after <= p < separator or in_unknown
    begins = not inside and not (required and whole) and work.tree[entry.node].lm_state >= 0
    separates = p == 0 or whole or (inside and first_word[p] == first_word[p + 1])
    # The most that a whole word, any step into or within a word, or another step can add.
    most = most_ahead(entry, inside, root_judge, search, work, search.words.neural)
    if separator < any_ or filler or spelled:
        most = max(most, 1.0)
    most *= total
    n_steps = 0
    if ending and inside and separates:
        p_c = candidates[i].pb + candidates[i].pnb
        n_steps = put(steps, 0, separator, last, spelling + p * n_labels, p_c)
    # First the tree's children of this place, then, unless within a word, any label.
    child = first_child[p] if inside else 0
    n_children = first_child[p + 1] - child if inside else 0
    for k in range(n_children + (0 if inside and not spelled else n_open)):
        if k < n_children:
            n = child + k
            c = label[n]
            choice[c].stamp = stamp
            if most * choice[c].prob <= threshold:
                continue
        else:
            c = choice[k - n_children].opened
            n = search.root_child[c] if begins else 0
            if most * choice[c].prob <= threshold:
                break
        p_c = (in_blank if c == last else total) * choice[c].prob
        if n > 0:
            n_steps = put_node(steps, n_steps, n, p_c, spelled, search.tree)
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
        elif spelled and inside and choice[c].stamp != stamp:
            new = spelling + p * n_labels + c
        elif spelled and begins and n == 0:
            new = spelling + c
        if new >= 0:
            n_steps = put(steps, n_steps, any_ + c, c, new, p_c)
    return n_steps


@inner
def take_steps(  # type: ignore[no-untyped-def]
    i, n_steps, standing, n_histories, places, search, work
):
    """Score the ways on from entry ``i``, and make them candidates or add to those that there are.

    Returns the standing and the number of histories.
    """
    entry, histories, history_table = work.entries[i], work.tree, work.table
    counts, candidates, table, _, steps, _ = work.scratch
    scoring = search.words.scoring
    n_candidates, best, least, n_counted, threshold = standing
    h, inside = entry.node, 0 < entry.place < places.after
    judge = entry.judge if inside else places.root_judge
    for k in range(n_steps):
        to, w, p_c = steps[k].to, steps[k].code, steps[k].p
        h_to, judge_to = h, 1.0
        if w < 0:
            if p_c * max(1.0, judge) <= threshold:
                continue
            if to < places.after:
                promise = promise_at(to, histories[h], search, search.words.neural)
                judge_to = max(places.unknown_judge, promise)
        else:
            goes_on = places.letter <= w < places.spelling
            most = 1.0 if goes_on else most_factor(histories[h], w, scoring, search.words.neural)
            if p_c * most <= threshold:
                continue
            at, h_to, mark = find_child(history_table, histories.parent, histories.code, h, w)
            if h_to < 0:
                h_to = n_histories
                n_histories += 1
                history_table[at] = mark + h_to
                add_history(histories[h_to], histories[h], h, w, goes_on, search.words)
            if histories[h_to].lm_state < 0:
                histories[h_to].lm_state = next_state(histories[h], search.words.neural)
            p_c *= histories[h_to].factor
        score = p_c * judge_to
        if score <= threshold:
            continue
        at, j, mark = find_child(table, candidates.node, candidates.place, h_to, to)
        candidate = candidates[j if j >= 0 else n_candidates]
        if j >= 0:
            counts[bucket(candidate.score)] -= 1
            was_counted = bucket(candidate.score) >= least
            candidate.pnb += p_c
            score = (candidate.pb + candidate.pnb) * candidate.judge
            n_counted -= was_counted
        else:
            table[at] = mark + n_candidates
            n_candidates += 1
            candidate.at, candidate.node, candidate.place = at, h_to, to
            candidate.last, candidate.pb, candidate.pnb = steps[k].by, 0.0, p_c
            candidate.judge = judge_to
        candidate.score = score
        best = max(best, score)
        least, n_counted = count_in(counts, score, least, n_counted, search.beam)
        threshold = max(best * search.margin, lower_edge(least))
    return Standing(n_candidates, best, least, n_counted, threshold), n_histories


@inner
def put(steps, n, to, by, code, p):  # type: ignore[no-untyped-def]
    """Add to the ``n`` ways on; return how many there are then."""
    steps[n].to, steps[n].by, steps[n].code, steps[n].p = to, by, code, p
    return n + 1


@inner
def promise_at(to, history, search, neural):  # type: ignore[no-untyped-def]
    """Return the factor by which place ``to`` in a word after a history is judged."""
    if neural is None:
        return promised(search.ahead[to], search.words.scoring)
    return bounded_exp(neural.weight * neural.log_probs[history.lm_state, neural.column[to]])


@inner
def most_ahead(entry, inside, root_judge, search, work, neural):  # type: ignore[no-untyped-def]
    """Return a factor that no next word after an entry exceeds, nor the judgement of a place in
    one; ``root_judge`` is that of places in which words begin."""
    history = work.tree[entry.node]
    if neural is None:
        return max(history.reach, entry.judge if inside else root_judge)
    if history.lm_state < 0:
        return 0.0
    ahead = neural.log_probs[history.lm_state, neural.column[entry.place if inside else 0]]
    return bounded_exp(neural.weight * ahead + max(search.words.scoring.bonus, 0.0))


@inner
def most_factor(history, w, scoring, neural):  # type: ignore[no-untyped-def]
    """Return a factor that word ``w`` after a history does not exceed."""
    if neural is None:
        return history.reach
    return bounded_exp(weighted(history, w, neural) + scoring.bonus)


@inner
def put_node(steps, n_steps, n, p, spelled, tree):  # type: ignore[no-untyped-def]
    """`put` the ways to tree node ``n``: on in a word, and the ends of words."""
    if spelled or tree.first_child[n] < tree.first_child[n + 1]:
        n_steps = put(steps, n_steps, n, tree.label[n], -1, p)
    for at in range(tree.first_word[n], tree.first_word[n + 1]):
        n_steps = put(steps, n_steps, len(tree.label) + n, tree.label[n], tree.word[at], p)
    return n_steps


@inner
def promised(ahead, scoring):  # type: ignore[no-untyped-def]
    """Return the factor by which a place in a word is judged whose best word counts ``ahead``."""
    return bounded_exp(scoring.ahead_scale * ahead + scoring.bonus)


@inner
def add_history(new, old, h, w, goes_on, words):  # type: ignore[no-untyped-def]
    """Make a history of history ``h``, the ``old`` one, and code ``w``, which may be a letter that
    goes on."""
    lm_scale, _, bonus, unknown, _ = words.scoring
    known, state, hot_to = w < words.n_words, next_state(old, words.neural), old.hot_state
    added, gain, most_gain = 0.0, 0.0, bonus
    if not goes_on:
        gain = bonus if known else bonus + unknown
        if lm_scale > 0.0:
            token = words.lm.token_of[w] if known else 0  # <unk>
            added, state = advance_lm(words.lm.trie, state, token)
            added *= lm_scale
        added += weighted(old, w, words.neural)
        if len(words.hot.end) > 0:
            hot_w = words.hot.token[w] if known else 0
            gain += words.hot.gain[hot_to, hot_w]
            hot_to = words.hot.next[hot_to, hot_w]
    if lm_scale > 0.0:
        most_gain += lm_scale * words.lm.trie.log10_best[state]
    if len(words.hot.end) > 0:
        most_gain += words.hot.best[hot_to]
    new.parent, new.code, new.born = h, w, -1
    new.since, new.said = NEVER, NEVER
    new.lm_state, new.hot_state = state, hot_to
    new.lm_score = old.lm_score + added
    new.bonus = old.bonus + gain
    new.ext = old.ext + min(max(added + gain, -MOST), MOST)
    new.factor = bounded_exp(added + gain)
    new.reach = bounded_exp(most_gain)


@inner
def weighted(history, w, neural):  # type: ignore[no-untyped-def]
    """Return what the neural model counts for word ``w`` after a history."""
    return 0.0 if neural is None else neural.weight * neural.log_probs[history.lm_state, w]


@inner
def next_state(history, neural):  # type: ignore[no-untyped-def]
    """Return the state after another word, as long as no model has read it."""
    return history.lm_state if neural is None else ~history.lm_state


@inner
def select(t, standing, search, work):  # type: ignore[no-untyped-def]
    """Make the best candidates the beam after frame ``t``; return how many they are."""
    counts, candidates, table, _, _, _ = work.scratch
    order, ranked = candidates.order, candidates.ranked
    n, best, least, _, _ = standing
    n_beam = best_first(counts, least, best, candidates.score, n, order, ranked)
    n_beam = min(n_beam, search.beam)
    while n_beam > 0 and ranked[n_beam - 1] < best * search.margin:
        n_beam -= 1
    while n_beam > 0 and ranked[n_beam - 1] <= 0.0:
        n_beam -= 1
    for j in range(n):
        table[candidates[j].at] = -1
    for i in range(n_beam):
        entry, candidate = work.entries[i], candidates[order[i]]
        entry.node, entry.place, entry.last = candidate.node, candidate.place, candidate.last
        entry.pb, entry.pnb, entry.judge = candidate.pb, candidate.pnb, candidate.judge
        entry.total = candidate.pb + candidate.pnb
        history = work.tree[candidate.node]
        if history.born < 0:
            history.born = t
        history.seen = t
    return n_beam


@inner
def bounded_exp(x):  # type: ignore[no-untyped-def]
    """exp within +-MOST, but 0 where a word is impossible."""
    return 0.0 if x == -np.inf else np.exp(min(max(x, -MOST), MOST))
