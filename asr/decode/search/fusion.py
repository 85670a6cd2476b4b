"""Prefix beam search with a recurrent language model in every step (shallow fusion).

The score of a hypothesis is that of `asr.decode.search.beam`, with the recurrent model in the place
of the n-gram (Gulcehre et al. 2015). Only compiled code is fast enough for the search, and only
large products are fast for the model, so the two take turns: each utterance's search runs on alone
until it meets words so far (a history) whose next words it cannot do without; what all searches
lack is then computed as one batch, and they go on. A history that nothing could follow and survive
in the beam, whatever its probability, is never computed.

Labels without a lexicon are the words of a lexicon in which each label spells itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from asr.decode.emission import checked
from asr.decode.lexicon import Lexicon, Tree
from asr.decode.search.beam import BeamOptions, beam_search, hypotheses_of, label_hypotheses
from asr.decode.search.kernels import (
    find_child,
    hash_table,
    log_add,
    replace_smallest,
    resized,
    sift_up,
    sort_descending,
)
from asr.decode.search.state import Found
from asr.decode.search.words import ROOM, ends_of
from asr.errors import InputError
from asr.labels import BLANK
from asr.lm.lstm import END, NeuralLM
from asr.lm.net import START
from asr.system.jit import compiled
from asr.types import Hypothesis

#: Utterances searched side by side; more make larger batches for the language model.
AT_ONCE = 32
#: Bytes that all searches may take before fewer are made side by side.
SEARCH_BYTES = 1 << 30
#: Histories that the language model reads at once, and scores that they may take: what stays in the
#: processor's cache.
ROWS_AT_ONCE = 256
SCORES_AT_ONCE = 1 << 24


def fused_search(
    log_probs: Sequence[np.ndarray],
    lm: NeuralLM,
    symbols: Sequence[str],
    options: BeamOptions = BeamOptions(),
    lexicon: Lexicon | None = None,
    seen_as: Callable[[Sequence[int]], Hashable] = tuple,
) -> list[list[Hypothesis]]:
    """Find the best label sequences, or word sequences, of each utterance under CTC and ``lm``.

    Args:
        log_probs: (T, V) natural logarithms of each utterance, blank 0.
        lm: over the labels' symbols or, with a lexicon, over its words; what it does not know is
            scored as ``<unk>``. The end of the sentence is scored too.
        symbols: (V,) of the labels, blank first.
        lexicon: find only its words.
        seen_as: as for `beam_search`.

    Returns:
        For each utterance what `beam_search` returns for one. A result does not depend on the
        utterances beside it, but for rounding.

    Raises:
        InputError: a frame without a finite best value, another number of labels than of symbols,
            a lexicon of other labels, a model that knows none of them, no path spells words of the
            lexicon, or unknown words are allowed.
    """
    if options.unknown_penalty < math.inf:
        raise InputError(
            "unknown words need an n-gram: the search with a neural language model finds none"
        )
    if options.lm_weight == 0:
        return [beam_search(x, options, lexicon=lexicon, seen_as=seen_as) for x in log_probs]
    found: list[list[Hypothesis]] = [[] for _ in log_probs]
    words = lexicon or Lexicon(tuple(symbols[1:]), tuple(((i,),) for i in range(1, len(symbols))))
    words.check(len(symbols))
    rows = Rows(lm, words)
    # In each search, up to twice the beam in rows, and for each as many histories as may follow.
    row_bytes = rows.log_probs[0].nbytes + rows.states[0].nbytes + 80 * words.tree.most_ways
    at_once = max(1, min(AT_ONCE, SEARCH_BYTES // (2 * min(options.beam, ROOM) * row_bytes)))
    scratch = Scratch.empty(options.beam, min(options.beam, ROOM), words)
    waiting = iter(range(len(log_probs)))
    searches: dict[int, Search] = {}
    while True:
        for i in waiting:
            frames = checked(log_probs[i])
            if frames.shape[1] != len(symbols):
                raise InputError(
                    f"log-probabilities have {frames.shape[1]} labels, expected {len(symbols)}"
                )
            searches[i] = Search.begin(frames, options, words)
            if len(searches) == at_once:
                break
        if not searches:
            return found
        needed = []
        for i, search in list(searches.items()):
            lacking = search.run(rows, scratch, options, words)
            if len(lacking):
                needed.append((search, lacking))
                continue
            finals, frames = search.found(rows, options, words), search.log_probs
            if lexicon is None:
                labels = (final._replace(codes=[w + 1 for w in final.codes]) for final in finals)
                found[i] = label_hypotheses(labels, frames, options.nbest, seen_as)
            else:
                found[i] = hypotheses_of(finals, frames, options.nbest, lexicon)
            del searches[i]
        if needed:
            rows.compute(needed, list(searches.values()))


class Tables(NamedTuple):
    """A tree of histories: ``word[h]`` after history ``parent[h]``; 0 is the empty one.

    lm: weighted log-probability. ext: lm and bonus. row: in `Rows`, or -1. born, seen: the first
    and last frame in the beam.
    """

    parent: NDArray[np.int64]
    word: NDArray[np.int64]
    row: NDArray[np.int64]
    born: NDArray[np.int64]
    seen: NDArray[np.int64]
    lm: NDArray[np.float64]
    ext: NDArray[np.float64]


class Beam(NamedTuple):
    """The hypotheses, best first: a history, a place, and the log-probability of its paths that end
    in blank (pb), in its last label (pnb), and in either (total). Places are those of
    `asr.decode.search.words.State`."""

    history: NDArray[np.int64]
    place: NDArray[np.int64]
    pb: NDArray[np.float64]
    pnb: NDArray[np.float64]
    total: NDArray[np.float64]

    @classmethod
    def empty(cls, size: int) -> Beam:
        history, place = np.zeros(size, np.int64), np.zeros(size, np.int64)
        return cls(history, place, *(np.full(size, -np.inf) for _ in range(3)))


class Scratch(NamedTuple):
    """Candidates of one frame, found by (history, place) through ``table``, which is left empty."""

    history: NDArray[np.int64]
    place: NDArray[np.int64]
    pb: NDArray[np.float64]
    pnb: NDArray[np.float64]
    at: NDArray[np.int64]
    table: NDArray[np.int64]
    heap: NDArray[np.float64]
    slot: NDArray[np.int64]
    kept: NDArray[np.int64]
    kept_score: NDArray[np.float64]

    @classmethod
    def empty(cls, beam: int, width: int, lexicon: Lexicon) -> Scratch:
        """Room for what a frame makes of ``width`` hypotheses, and for the ``beam`` best of it."""
        size = width * (1 + lexicon.tree.most_ways)
        history, place, at = (np.empty(size, np.int64) for _ in range(3))
        pb, pnb = np.empty(size), np.empty(size)
        table = hash_table(history, place, 0)
        n_first = int(lexicon.tree.first_child[1]) - 1
        most = min(beam, size)
        heap, slot = np.empty(most), np.empty(most, np.int64)
        kept = np.empty(n_first, np.int64), np.empty(n_first)
        return cls(history, place, pb, pnb, at, table, heap, slot, *kept)


class Rows:
    """What the language model knows of histories: a row each, for all searches. Row 0 is of none.

    states (R, S, H). log_probs (R, W + 1 + M): natural, of each of the lexicon's W words as the
    next, of the end, and of the best word at or below each of the M nodes of the lexicon's tree
    where words part (look-ahead, Ortmanns et al. 1996, here by the model's own probabilities).
    column (N,): where in a row each node of the tree has its best word.
    """

    def __init__(self, lm: NeuralLM, lexicon: Lexicon) -> None:
        self.lm = lm
        self.tokens = np.array([*lm.encode(lexicon.words), END])
        if not self.tokens[:-1].any():
            raise InputError(
                f"the language model (of unit {lm.config.unit}) knows none of the "
                f"{len(lexicon.words)} symbols that may be found, such as {lexicon.words[0]!r}"
            )
        self.column, self.members, self.first_member = parting_nodes(lexicon.tree)
        width = len(self.tokens) + len(self.first_member) - 1
        self.log_probs = np.empty((1, width), np.float32)
        self.states = lm.initial_state()
        self.free: list[int] = []
        self._read(np.zeros(1, np.int64), np.zeros(1, np.int64), np.array([START]))

    def compute(self, needed: list[tuple[Search, NDArray[np.int64]]], alive: list[Search]) -> None:
        """Give a row to each of the ``needed`` histories of searches."""
        count = sum(len(lacking) for _, lacking in needed)
        if count > len(self.free):
            self._make_room(count, alive)
        sources, tokens = [], []
        for search, lacking in needed:
            tables = search.tables
            sources.append(tables.row[tables.parent[lacking]])
            tokens.append(self.tokens[tables.word[lacking]])
        new = np.array([self.free.pop() for _ in range(count)], np.int64)
        source, token = np.concatenate(sources), np.concatenate(tokens)
        self._read(new, source, token)
        first = 0
        for search, lacking in needed:
            search.tables.row[lacking] = new[first : first + len(lacking)]
            first += len(lacking)

    def _read(
        self, new: NDArray[np.int64], source: NDArray[np.int64], token: NDArray[np.int64]
    ) -> None:
        """Fill the rows ``new`` with what reading a token each makes of the rows ``source``."""
        n_tokens = len(self.tokens)
        step = max(1, min(ROWS_AT_ONCE, SCORES_AT_ONCE // len(self.lm.tokens)))
        for first in range(0, len(new), step):
            part = slice(first, first + step)
            log_probs, self.states[new[part]] = self.lm.advance(
                self.states[source[part]], torch.from_numpy(token[part])
            )
            self.log_probs[new[part], :n_tokens] = log_probs.numpy()[:, self.tokens]
        look_ahead(self.log_probs, new, n_tokens, self.members, self.first_member)

    def _make_room(self, count: int, alive: list[Search]) -> None:
        """Free the rows that no beam needs; where that is not half of all, double them."""
        used = np.zeros(len(self.log_probs), bool)
        used[0] = True
        for search in alive:
            used[search.rows_in_use()] = True
        for search in alive:
            row = search.tables.row[: search.counts[2]]
            row[~used[row]] = -1
        n_rows, n_free = len(used), int((~used).sum())
        room = n_rows
        while room - n_rows + n_free < max(count, room // 2):
            room *= 2
        if room > n_rows:
            log_probs = np.empty((room, self.log_probs.shape[1]), np.float32)
            states = self.states.new_empty(room, *self.states.shape[1:])
            log_probs[:n_rows], states[:n_rows] = self.log_probs, self.states
            self.log_probs, self.states = log_probs, states
        self.free = [*np.flatnonzero(~used).tolist(), *range(n_rows, room)]


@dataclass
class Search:
    """The search through one utterance, as far as it has come.

    counts: frames done, hypotheses in the beam, histories.
    """

    log_probs: NDArray[np.float32]
    floors: NDArray[np.float32]
    tables: Tables
    table: NDArray[np.int64]
    beam: Beam
    counts: NDArray[np.int64]

    @classmethod
    def begin(
        cls, log_probs: NDArray[np.float32], options: BeamOptions, lexicon: Lexicon
    ) -> Search:
        width, ways = min(options.beam, ROOM), lexicon.tree.most_ways
        room = 2 * width * ways
        parent, word, row, born, seen = (np.zeros(room, np.int64) for _ in range(5))
        tables = Tables(parent, word, row, born, seen, np.zeros(room), np.zeros(room))
        tables.parent[0] = tables.word[0] = -1
        beam = Beam.empty(min(options.beam, width * (1 + ways)))
        beam.pb[0] = beam.total[0] = 0.0
        floors = log_probs.max(axis=1, initial=-np.inf) - np.float32(options.label_prune)
        table = hash_table(tables.parent, tables.word, 0)
        return cls(log_probs, floors, tables, table, beam, np.array([0, 1, 1]))

    def run(
        self, rows: Rows, scratch: Scratch, options: BeamOptions, lexicon: Lexicon
    ) -> NDArray[np.int64]:
        """Go on to the end; return the histories whose rows that takes first, none at the end."""
        while True:
            lacking = search_on(
                self.log_probs,
                self.floors,
                options.beam,
                float(options.score_prune),
                float(options.bonus),
                float(options.lm_weight),
                lexicon.tree,
                rows.log_probs,
                rows.column,
                self.tables,
                self.table,
                self.beam,
                scratch,
                self.counts,
            )
            if len(lacking) or self.counts[0] == len(self.log_probs):
                return np.unique(lacking)
            n_beam = int(self.counts[1])
            if n_beam * (1 + lexicon.tree.most_ways) > len(scratch.history):
                scratch = Scratch.empty(options.beam, min(options.beam, 2 * n_beam), lexicon)
                before, self.beam = self.beam, Beam.empty(len(scratch.heap))
                for column in range(len(before)):
                    self.beam[column][:n_beam] = before[column][:n_beam]
            self._make_room(n_beam * lexicon.tree.most_ways)

    def _make_room(self, most_new: int) -> None:
        """Only the histories that lead to a living hypothesis are needed on."""
        _, n_beam, n = self.counts.tolist()
        living = self.beam.history[:n_beam]
        kept = ways_to(self.tables.parent, n, living)
        new = np.empty(n, np.int64)
        new[kept] = np.arange(len(kept))
        room, n = len(self.tables.parent), len(kept)
        if 2 * n + most_new > room:
            room = 4 * n + most_new
        self.tables = Tables(*(resized(values[kept], room) for values in self.tables))
        self.tables.parent[1:n] = new[self.tables.parent[1:n]]
        living[:] = new[living]
        self.table = hash_table(self.tables.parent, self.tables.word, n)
        self.counts[2] = n

    def rows_in_use(self) -> NDArray[np.int64]:
        """The rows of the histories in the beam; for want of one, of the history before."""
        living = np.unique(self.beam.history[: self.counts[1]])
        row = self.tables.row
        return np.where(row[living] >= 0, row[living], row[self.tables.parent[living]])

    def found(self, rows: Rows, options: BeamOptions, lexicon: Lexicon) -> Iterator[Found]:
        """The hypotheses, best first; where none ends with a whole word, those that are cut off."""
        tables, n_beam = self.tables, self.counts[1]
        after, n_words = len(lexicon.tree.label), len(lexicon.words)
        ends = ends_of(
            self.beam.history[:n_beam].tolist(),
            self.beam.place[:n_beam].tolist(),
            self.beam.total[:n_beam].tolist(),
            after,
        )
        finals = []
        for history, unfinished, acoustic in zip(*ends, strict=True):
            lm = float(tables.lm[history])
            lm += options.lm_weight * float(rows.log_probs[tables.row[history], n_words])
            chain = [history]
            while chain[-1] > 0:
                chain.append(tables.parent[chain[-1]])
            chain.reverse()
            words = tables.word[chain[1:]].tolist()
            current = np.stack([tables.born[chain], tables.seen[chain]])
            bonus = options.bonus * len(words)
            finals.append(Found(words, unfinished, float(acoustic), lm, bonus, current))
        yield from sorted(finals, key=lambda final: -final.score)


def parting_nodes(
    tree: Tree,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return column (N,), members and first_member (M + 1,) of `Rows`.

    A node below which there is one word has that word's column. One with a single child and no word
    of its own has its child's. Column W + 1 + m is the best of the columns
    members[first_member[m] : first_member[m + 1]]; earlier m come first.
    """
    n_words = int(tree.word.max()) + 1
    column = np.empty(len(tree.label), np.int64)
    members: list[int] = []
    first_member = [0]
    for node in range(len(tree.label) - 1, -1, -1):  # children stand after their parents
        words = tree.word[tree.first_word[node] : tree.first_word[node + 1]].tolist()
        children = column[tree.first_child[node] : tree.first_child[node + 1]].tolist()
        below = sorted({*words, *children})
        if len(below) == 1:
            column[node] = below[0]
            continue
        column[node] = n_words + len(first_member)
        members.extend(below)
        first_member.append(len(members))
    return column, np.array(members, np.int64), np.array(first_member)


@compiled
def ways_to(parents, n_nodes, living):  # type: ignore[no-untyped-def]
    """Return the nodes on the way to ``living``, parents before children."""
    needed = np.zeros(n_nodes, np.bool_)
    needed[0] = True
    for node in living:
        while not needed[node]:
            needed[node] = True
            node = parents[node]
    return np.flatnonzero(needed)


@compiled
def look_ahead(log_probs, rows, n_tokens, members, first_member):  # type: ignore[no-untyped-def]
    """Set what ``rows`` of log_probs hold for the nodes where words part."""
    for row in rows:
        for m in range(len(first_member) - 1):
            best = np.float32(-np.inf)
            for at in range(first_member[m], first_member[m + 1]):
                best = max(best, log_probs[row, members[at]])
            log_probs[row, n_tokens + m] = best


@compiled
def search_on(  # type: ignore[no-untyped-def]
    log_probs,
    floors,
    beam,
    score_prune,
    bonus,
    lm_weight,
    tree,
    lm_log_probs,
    column,
    tables,
    table,
    entries,
    scratch,
    counts,
):
    """Search from frame ``counts[0]`` on; return the histories whose rows the next step takes.

    They may repeat. None are returned at the end, or where ``tables`` or ``scratch`` have no room
    for another frame. All arguments from ``tables`` on are changed in place.

    The search is that of `asr.decode.search.words`.
    """
    label, first_child, first_word = tree.label, tree.first_child, tree.first_word
    separators = tree.separators
    after, separator = len(label), 2 * len(label)
    n_separators = len(separators)
    history, place, pb, pnb, total = entries
    parent, word, row, born, seen, lm, ext = tables
    c_history, c_place, c_pb, c_pnb, c_at, c_table, heap, heap_slot, kept, kept_score = scratch
    n_frames = len(log_probs)
    n_beam, n_histories = counts[1], counts[2]
    lacking = np.empty(len(history), np.int64)
    for t in range(counts[0], n_frames):
        counts[0], counts[1], counts[2] = t, n_beam, n_histories
        room = len(parent) - n_histories
        if n_beam * tree.most_ways > room or n_beam * (1 + tree.most_ways) > len(c_history):
            return lacking[:0]
        frame = log_probs[t]

        # 1. Carry over: blank, or the last label again. The heap holds the best candidates so far
        # at the score that they came with. Merging only raises it, so once the heap is full,
        # nothing below its smallest can survive.
        best_score = -np.inf
        for i in range(n_beam):
            p, h = place[i], history[i]
            c_pb[i] = total[i] + frame[BLANK]
            c_pnb[i] = -np.inf
            if p > 0:
                last = separators[p - separator] if p >= separator else label[p % after]
                c_pnb[i] = pnb[i] + frame[last]
            score = log_add(c_pb[i], c_pnb[i]) + ext[h]
            if 0 < p < after:
                score += lm_weight * lm_log_probs[row[h], column[p]]
            best_score = max(best_score, score)
            heap[i], heap_slot[i] = score, i
            sift_up(heap, heap_slot, i)
        n_heap = n_beam
        threshold = best_score - score_prune
        if n_heap == beam:
            threshold = max(threshold, heap[0])

        # 2. The labels that begin words, best first.
        n_kept = 0
        for n in range(first_child[0], first_child[1]):
            if frame[label[n]] >= floors[t] and frame[label[n]] > -np.inf:
                kept[n_kept], kept_score[n_kept] = n, frame[label[n]]
                n_kept += 1
        sort_descending(kept_score, kept, n_kept)

        # 3. Histories whose next word may survive, whatever its probability, have to be known.
        n_lacking = 0
        for i in range(n_beam):
            h = history[i]
            said = after <= place[i] < separator
            if row[h] >= 0 or n_kept == 0 or (said and tree.required):
                continue
            best = kept_score[0]
            if said and label[kept[0]] == label[place[i] - after]:
                # The same label again needs a blank between.
                best += pb[i] - total[i]
                if n_kept > 1:
                    best = max(best, kept_score[1])
            if total[i] + best + ext[h] + max(bonus, 0.0) > threshold:
                lacking[n_lacking] = h
                n_lacking += 1
        if n_lacking:
            return lacking[:n_lacking]

        # 4. Extend.
        n_cand = n_beam
        for i in range(n_beam):
            c_history[i], c_place[i] = history[i], place[i]
            c_at[i] = find_child(c_table, c_history, c_place, history[i], place[i])
            c_table[c_at[i]] = i
        for i in range(n_beam):
            p, h = place[i], history[i]
            inside = 0 < p < after
            if inside or p == 0:
                last = label[p] if p > 0 else BLANK
            else:
                last = separators[p - separator] if p >= separator else label[p - after]
            # Tree nodes that the next label may lead to.
            if inside:
                low, high = first_child[p], first_child[p + 1]
            elif row[h] < 0 or (after <= p < separator and tree.required):
                low, high = 0, 0
            else:
                low, high = 0, n_kept
            # The most that a step into or within a word can add.
            gain = max(bonus, 0.0)
            if low < high:
                gain += lm_weight * lm_log_probs[row[h], column[p if inside else 0]]
            end = high if inside or p >= separator else high + n_separators
            k = low - 1
            while k + 1 < end:
                k += 1
                if k >= high:
                    n, c = -1, separators[k - high]
                else:
                    n = k if inside else kept[k]
                    c = label[n]
                if frame[c] < floors[t]:
                    continue
                if total[i] + frame[c] + ext[h] + (gain if n >= 0 else 0.0) <= threshold:
                    if not inside and k < high:
                        k = high - 1  # word beginnings are sorted: no other can survive
                    continue
                acoustic = (pb[i] if c == last else total[i]) + frame[c]
                # Into the separator or on in the word, unless it ends here; then its end for each
                # word that does.
                if n < 0:
                    way, ways_end = -1, 0
                else:
                    way, ways_end = first_word[n] - 1, first_word[n + 1]
                    if first_child[n] == first_child[n + 1]:
                        way += 1
                while way < ways_end:
                    if n < 0:
                        to, w = separator + k - high, -1
                    elif way < first_word[n]:
                        to, w = n, -1
                    else:
                        to, w = after + n, tree.word[way]
                    way += 1
                    h_to = h
                    if w < 0:
                        score = acoustic + ext[h]
                        if to < after:
                            score += lm_weight * lm_log_probs[row[h], column[to]]
                        if score <= threshold:
                            continue
                    else:
                        added = lm_weight * lm_log_probs[row[h], w]
                        score = acoustic + ext[h] + added + bonus
                        if score <= threshold:
                            continue
                        at = find_child(table, parent, word, h, w)
                        h_to = table[at]
                        if h_to < 0:
                            h_to = n_histories
                            n_histories += 1
                            table[at] = h_to
                            parent[h_to], word[h_to], row[h_to], born[h_to] = h, w, -1, -1
                            lm[h_to] = lm[h] + added
                            ext[h_to] = ext[h] + added + bonus
                    at = find_child(c_table, c_history, c_place, h_to, to)
                    if c_table[at] >= 0:
                        j = c_table[at]
                        c_pnb[j] = log_add(c_pnb[j], acoustic)
                        continue
                    c_table[at] = n_cand
                    c_at[n_cand] = at
                    c_history[n_cand], c_place[n_cand] = h_to, to
                    c_pb[n_cand], c_pnb[n_cand] = -np.inf, acoustic
                    n_cand += 1
                    if n_heap < beam:
                        heap[n_heap] = score
                        n_heap += 1
                        sift_up(heap, heap_slot, n_heap - 1)
                    else:
                        replace_smallest(heap, heap_slot, n_heap, score, 0)
                    best_score = max(best_score, score)
                    threshold = max(threshold, best_score - score_prune)
                    if n_heap == beam:
                        threshold = max(threshold, heap[0])

        # 5. The best become the beam.
        for j in range(n_cand):
            c_table[c_at[j]] = -1
        n_heap = 0
        best_score = -np.inf
        for j in range(n_cand):
            h, p = c_history[j], c_place[j]
            score = log_add(c_pb[j], c_pnb[j]) + ext[h]
            if 0 < p < after:
                score += lm_weight * lm_log_probs[row[h], column[p]]
            if score == -np.inf or score < best_score - score_prune:
                continue
            best_score = max(best_score, score)
            if n_heap < beam:
                heap[n_heap], heap_slot[n_heap] = score, j
                n_heap += 1
                sift_up(heap, heap_slot, n_heap - 1)
            elif score > heap[0]:
                replace_smallest(heap, heap_slot, n_heap, score, j)
        sort_descending(heap, heap_slot, n_heap)
        while n_heap and heap[n_heap - 1] < best_score - score_prune:
            n_heap -= 1
        n_beam = n_heap
        for j in range(n_beam):
            at = heap_slot[j]
            history[j], place[j] = c_history[at], c_place[at]
            if born[history[j]] < 0:
                born[history[j]] = t
            seen[history[j]] = t
            pb[j], pnb[j], total[j] = c_pb[at], c_pnb[at], log_add(c_pb[at], c_pnb[at])
    counts[0], counts[1], counts[2] = n_frames, n_beam, n_histories
    ends = history[:n_beam]
    return ends[row[ends] < 0]
