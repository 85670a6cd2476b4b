"""Prefix beam search over CTC outputs (Graves et al. 2006, section 3.2; Hannun et al. 2014)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit

from asr.decode.align import ctc_align, ctc_align_words
from asr.decode.emission import checked
from asr.decode.kernels import (
    find_child,
    hash_table,
    log_add,
    prune_tree,
    replace_smallest,
    resized,
    sift_up,
    sort_descending,
)
from asr.decode.lexicon import Lexicon
from asr.decode.words import search_words
from asr.errors import InputError
from asr.labels import BLANK
from asr.lm.ngram import NO_LM, BoundNGram, advance
from asr.types import Hypothesis

LOG_10 = math.log(10.0)
#: With a language model, at most this many labels of a frame (or the beam's width) are looked up.
MOST_LABELS = 256


@dataclass(frozen=True)
class BeamOptions:
    """How wide to search, and what the language model counts.

    beam: prefixes kept after each frame. nbest: hypotheses returned, at most.
    lm_weight: factor of the language model's log-probability. bonus: added for each label (each
    word, with a lexicon). label_prune: labels this much below the frame's best do not extend a
    prefix. score_prune: prefixes this much below the best are dropped. Both in natural logarithms;
    ``math.inf`` prunes nothing.
    """

    beam: int = 50
    nbest: int = 1
    lm_weight: float = 0.0
    bonus: float = 0.0
    label_prune: float = 12.0
    score_prune: float = 20.0

    def __post_init__(self) -> None:
        for name, lowest in (("beam", 1), ("nbest", 1), ("lm_weight", 0), ("label_prune", 0)):
            if not getattr(self, name) >= lowest:
                raise InputError(
                    f"beam search: {name} must be {lowest} or more, found {getattr(self, name)}"
                )
        if not self.score_prune >= 0 or not math.isfinite(self.bonus):
            raise InputError("beam search: score_prune must be 0 or more, bonus a finite number")


def beam_search(
    log_probs: np.ndarray,
    options: BeamOptions = BeamOptions(),
    lm: BoundNGram | None = None,
    lexicon: Lexicon | None = None,
) -> list[Hypothesis]:
    """Find the most probable label sequences, or word sequences, each summed over its CTC paths.

    Args:
        log_probs: (T, V) natural logarithms of one utterance, blank 0.
        lm: n-gram over the labels, ``NGram.bind(labels.symbols)``, or over the lexicon's words,
            ``Lexicon.bind(ngram)``; the end of the sentence is scored too.
        lexicon: find only its words.

    Returns:
        At most ``options.nbest`` different hypotheses, best first. ``acoustic`` is exact over the
        paths whose prefixes all survived; with a lexicon it sums the words' spellings, and
        ``labels`` are the best of these. Spans and confidences are those of the best path. If no
        hypothesis ends with a whole word, then the labels go on beyond the words.

    Raises:
        InputError: a frame without a finite best value, or no path spells words of the lexicon.
    """
    log_probs = checked(log_probs)
    symbols = log_probs.shape[1] if lexicon is None else len(lexicon.words)
    nodes = 0 if lexicon is None else len(lexicon.tree.label)
    if lm is not None and (len(lm.token_of), len(lm.ahead)) != (symbols, nodes):
        raise InputError(
            f"the language model is bound to {len(lm.token_of)} symbols, expected {symbols}: "
            + ("bind it to the labels' symbols" if lexicon is None else "use Lexicon.bind")
        )
    if lm is None or options.lm_weight == 0:
        lm, lm_scale = NO_LM, 0.0
    else:
        lm_scale = options.lm_weight * LOG_10
    floors = log_probs.max(axis=1, initial=-np.inf) - np.float32(options.label_prune)
    limits = (options.beam, options.nbest, float(options.score_prune), float(options.bonus))
    if lexicon is not None:
        words = search_words(log_probs, floors, *limits, lm_scale, lm, lexicon.tree)
        return _words(log_probs, lexicon, words, options.bonus)
    found = search_labels(log_probs, floors, *limits, lm_scale, lm)
    hypotheses = []
    for labels, length, acoustic, lm_score, current in zip(*found, strict=True):
        sequence = tuple(labels[:length].tolist())
        spans, confidences, _ = ctc_align(log_probs, sequence, tuple(current[:, : length + 1]))
        parts = float(acoustic), float(lm_score), options.bonus * len(sequence)
        hypotheses.append(Hypothesis(sequence, spans, confidences, sum(parts), *parts))
    return hypotheses


def _words(
    log_probs: np.ndarray,
    lexicon: Lexicon,
    found: tuple[np.ndarray, ...],
    bonus: float,
) -> list[Hypothesis]:
    """Spell and align what `search_words` found."""
    if len(found[0]) == 0:
        raise InputError(f"no words of the lexicon fit the {len(log_probs)} frames")
    hypotheses = []
    for words, count, unfinished, acoustic, lm_score, current in zip(*found, strict=True):
        words = words[:count].tolist()
        current = current[:, : count + 1]
        spellings = [lexicon.spellings[word] for word in words]
        if unfinished:
            spellings.append((lexicon.labels_to(int(unfinished)),))
            current = np.append(current, [[len(log_probs)]] * 2, axis=1)
        labels, word_spans, spans, confidences, _ = ctc_align_words(
            log_probs, spellings, lexicon.separators, lexicon.required, tuple(current)
        )
        parts = float(acoustic), float(lm_score), bonus * len(words)
        hypotheses.append(
            Hypothesis(
                labels,
                spans,
                confidences,
                sum(parts),
                *parts,
                tuple(lexicon.words[word] for word in words),
                word_spans[: len(words)],
            )
        )
    return hypotheses


@njit(cache=True, nogil=True)
def search_labels(  # type: ignore[no-untyped-def]
    log_probs, floors, beam, nbest, score_prune, bonus, lm_scale, lm
):
    """Return labels (N, longest), lengths (N,), acoustic (N,), weighted LM scores (N,) and, as
    ``current`` (N, 2, longest + 1), the first and last frame with each prefix in the beam.

    floors (T,): labels below do not extend a prefix. lm_scale: LM weight times log 10.

    A prefix is a node of a tree, (parent, label), and exists once, found by hash. A beam entry is a
    node with the log-probability of its paths that end in blank (pb) and in its label (pnb). The
    only other entry whose paths can become an entry's own is its parent's, so merging
    needs no search: it happens where the surviving prefix is carried over to the next frame.
    Candidates are made best first, and a heap of the best ``beam`` tells when no better can come.
    """
    n_frames, n_labels = log_probs.shape
    use_lm = lm_scale > 0.0

    # The tree. ext is what the prefix' score holds beside its acoustic: weighted LM and bonus.
    room = max(1 << 13, 32 * beam)
    parent = np.empty(room, np.int64)
    label = np.empty(room, np.int64)
    lm_state = np.empty(room, np.int64)
    lm_score = np.empty(room)
    ext = np.empty(room)
    slot = np.empty(room, np.int64)  # place in the beam, or -1
    born = np.empty(room, np.int64)  # first and last frame in the beam
    seen = np.empty(room, np.int64)
    table = hash_table(parent, label, 0)
    parent[0], label[0], lm_state[0], lm_score[0], ext[0], slot[0] = -1, BLANK, lm.start, 0, 0, 0
    born[0] = seen[0] = 0
    n_nodes = 1

    # The beam, best first, and its successor.
    n_beam = 1
    node = np.zeros(beam, np.int64)
    pb = np.full(beam, -np.inf)
    pnb = np.full(beam, -np.inf)
    total = np.full(beam, -np.inf)
    pb[0] = total[0] = 0.0
    next_node = np.empty(beam, np.int64)
    next_pb = np.empty(beam)
    next_pnb = np.empty(beam)
    next_total = np.empty(beam)

    # Candidates in the heap: `from_` is the entry extended by `by` (BLANK: carried over).
    heap = np.empty(beam)
    from_ = np.empty(beam, np.int64)
    by = np.empty(beam, np.int64)
    by_acoustic = np.empty(beam)
    by_lm = np.empty(beam)
    by_state = np.empty(beam, np.int64)
    heap_slot = np.empty(beam, np.int64)
    stay_pb = np.empty(beam)
    stay_pnb = np.empty(beam)
    first_child = np.empty(beam, np.int64)
    next_sibling = np.empty(beam, np.int64)
    alive = np.full(n_labels, -1, np.int64)  # stamp of the entry that has a living child by label
    reach = np.empty(beam)
    # Without language model, labels beyond the best beam + 1 have no chance in any prefix: its own
    # better extensions (and one may be its last label, which needs a blank before) fill the beam.
    most_labels = min(n_labels, max(beam + 1, MOST_LABELS if use_lm else 0))
    kept = np.empty(most_labels, np.int64)
    kept_score = np.empty(most_labels)

    for t in range(n_frames):
        frame = log_probs[t]
        # 1. Carry every prefix over: blank, its last label again, and its parent's paths that now
        # arrive at it.
        for i in range(n_beam):
            first_child[i] = -1
        n_heap = 0
        best_score = -np.inf
        for i in range(n_beam):
            v = node[i]
            last = label[v]
            stay_pb[i] = total[i] + frame[BLANK]
            arrive = -np.inf
            if last != BLANK:
                arrive = pnb[i] + frame[last]
                p = slot[parent[v]]
                if p >= 0:
                    next_sibling[i] = first_child[p]
                    first_child[p] = i
                    source = pb[p] if label[parent[v]] == last else total[p]
                    arrive = log_add(arrive, source + frame[last])
            stay_pnb[i] = arrive
            score = log_add(stay_pb[i], arrive)
            if score > -np.inf:
                heap[n_heap], heap_slot[n_heap] = score + ext[v], n_heap
                from_[n_heap], by[n_heap], by_acoustic[n_heap] = i, BLANK, score
                best_score = max(best_score, heap[n_heap])
                n_heap += 1
                sift_up(heap, heap_slot, n_heap - 1)

        # 2. The labels worth extending by, best first. `reach` bounds the score of an entry's
        # extensions but for their frame's score; at or below the threshold none can survive.
        threshold = best_score - score_prune
        if n_heap == beam:
            threshold = max(threshold, heap[0])
        highest = -np.inf
        for i in range(n_beam):
            reach[i] = total[i] + ext[node[i]] + bonus
            if use_lm:
                reach[i] += lm_scale * lm.trie.log10_best[lm_state[node[i]]]
            highest = max(highest, reach[i])
        floor = max(floors[t], threshold - highest)
        n_kept = 0
        for c in range(1, n_labels):
            if frame[c] >= floor and frame[c] > -np.inf:
                if n_kept < most_labels:
                    kept[n_kept], kept_score[n_kept] = c, frame[c]
                    n_kept += 1
                    sift_up(kept_score, kept, n_kept - 1)
                elif frame[c] > kept_score[0]:
                    replace_smallest(kept_score, kept, n_kept, frame[c], c)
        sort_descending(kept_score, kept, n_kept)

        # 3. Extend prefixes by labels, until no further label can survive.
        for i in range(n_beam):
            if n_kept == 0 or reach[i] + kept_score[0] <= threshold:
                continue
            v = node[i]
            stamp = t * beam + i
            child = first_child[i]
            while child >= 0:
                alive[label[node[child]]] = stamp
                child = next_sibling[child]
            for k in range(n_kept):
                c = kept[k]
                if reach[i] + kept_score[k] <= threshold:
                    break
                if alive[c] == stamp:
                    continue
                acoustic = (pb[i] if c == label[v] else total[i]) + kept_score[k]
                score = acoustic + ext[v] + bonus
                if score <= threshold:
                    continue
                gain, state = 0.0, 0
                if use_lm:
                    gain, state = advance(lm.trie, lm_state[v], lm.token_of[c])
                    gain *= lm_scale
                    score += gain
                    if score <= threshold:
                        continue
                if n_heap < beam:
                    at = n_heap
                    heap[n_heap], heap_slot[n_heap] = score, at
                    n_heap += 1
                    sift_up(heap, heap_slot, n_heap - 1)
                else:
                    at = heap_slot[0]
                    replace_smallest(heap, heap_slot, n_heap, score, at)
                from_[at], by[at], by_acoustic[at] = i, c, acoustic
                by_lm[at], by_state[at] = gain, state
                best_score = max(best_score, score)
                threshold = max(threshold, best_score - score_prune)
                if n_heap == beam:
                    threshold = max(threshold, heap[0])

        # 4. The survivors, best first, become the beam.
        sort_descending(heap, heap_slot, n_heap)
        while n_heap > 1 and heap[n_heap - 1] < best_score - score_prune:
            n_heap -= 1
        if n_nodes + n_heap > room:
            living = prune_tree(table, parent, label, n_nodes, node[:n_beam])
            n_nodes = len(living)
            lm_state[:n_nodes], lm_score[:n_nodes] = lm_state[living], lm_score[living]
            ext[:n_nodes], slot[:n_nodes] = ext[living], slot[living]
            born[:n_nodes], seen[:n_nodes] = born[living], seen[living]
            if 2 * n_nodes + beam > room:
                room = 4 * n_nodes + beam
                parent, label = resized(parent, room), resized(label, room)
                lm_state, lm_score = resized(lm_state, room), resized(lm_score, room)
                ext, slot = resized(ext, room), resized(slot, room)
                born, seen = resized(born, room), resized(seen, room)
                table = hash_table(parent, label, n_nodes)
        for j in range(n_heap):
            at = heap_slot[j]
            i = from_[at]
            if by[at] == BLANK:
                next_node[j] = node[i]
                next_pb[j], next_pnb[j] = stay_pb[i], stay_pnb[i]
            else:
                place = find_child(table, parent, label, node[i], by[at])
                w = table[place]
                if w < 0:
                    w = n_nodes
                    n_nodes += 1
                    table[place] = w
                    parent[w], label[w], slot[w], born[w] = node[i], by[at], -1, t
                    lm_state[w] = by_state[at]
                    lm_score[w] = lm_score[node[i]] + by_lm[at]
                    ext[w] = ext[node[i]] + by_lm[at] + bonus
                next_node[j] = w
                next_pb[j], next_pnb[j] = -np.inf, by_acoustic[at]
            next_total[j] = by_acoustic[at]
        for i in range(n_beam):
            slot[node[i]] = -1
        for j in range(n_heap):
            slot[next_node[j]] = j
            seen[next_node[j]] = t
        node, next_node = next_node, node
        pb, next_pb = next_pb, pb
        pnb, next_pnb = next_pnb, pnb
        total, next_total = next_total, total
        n_beam = n_heap

    # The end of the sentence is scored, then the best are read off the tree.
    final = np.empty(n_beam)
    order = np.arange(n_beam)
    for i in range(n_beam):
        v = node[i]
        if use_lm:
            lm_score[v] += lm_scale * advance(lm.trie, lm_state[v], lm.end_token)[0]
            ext[v] += lm_scale * advance(lm.trie, lm_state[v], lm.end_token)[0]
        final[i] = total[i] + ext[v]
    sort_descending(final, order, n_beam)
    n_best = min(nbest, n_beam)
    lengths = np.zeros(n_best, np.int64)
    acoustics = np.empty(n_best)
    lm_scores = np.empty(n_best)
    for n in range(n_best):
        v = node[order[n]]
        acoustics[n], lm_scores[n] = total[order[n]], lm_score[v]
        while v > 0:
            lengths[n] += 1
            v = parent[v]
    labels = np.zeros((n_best, lengths.max()), np.int64)
    current = np.zeros((n_best, 2, lengths.max() + 1), np.int64)
    for n in range(n_best):
        v = node[order[n]]
        for u in range(lengths[n] - 1, -1, -1):
            labels[n, u] = label[v]
            current[n, 0, u + 1], current[n, 1, u + 1] = born[v], seen[v]
            v = parent[v]
        current[n, 0, 0], current[n, 1, 0] = born[0], seen[0]
    return labels, lengths, acoustics, lm_scores, current
