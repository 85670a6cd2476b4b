"""Prefix beam search over the words of a lexicon: the compiled part of `asr.decode.beam`."""

from __future__ import annotations

import numpy as np
from numba import njit

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
from asr.labels import BLANK
from asr.lm.ngram import advance


@njit(cache=True, nogil=True)
def search_words(  # type: ignore[no-untyped-def]
    log_probs, floors, beam, nbest, score_prune, bonus, lm_scale, lm, tree
):
    """Return words (N, longest), counts (N,), unfinished (N,), acoustic (N,), LM scores (N,) and,
    as ``current`` (N, 2, longest + 1), the first and last frame with each history in the beam.

    A hypothesis is a pair (words so far, place). The places are: 0, nothing said yet; n, inside a
    word at tree node n; N + n, after a word that ended at node n; 2 N + k, in separator k. A place
    knows the last label, which is all that CTC needs, so whatever brings the same words to the same
    place is summed: several spellings, with or without silence. Word histories are nodes of a tree
    found by hash, and hold the language model's state.

    ``unfinished`` is the tree node of a word cut off by the end of the utterance, given only where
    no hypothesis ends with a whole word; else 0. Where no path has any probability, N is 0.
    """
    n_frames = len(log_probs)
    label, first_child, first_word, ends_word, separators, required, most_ways = tree
    ahead = lm.ahead
    use_lm = lm_scale > 0.0
    n_nodes_tree = len(label)
    after, separator = n_nodes_tree, 2 * n_nodes_tree
    n_separators = len(separators)

    # Word histories. ext is weighted LM and bonus together. There is room for all that one frame
    # may bring: growing within the inner loops would make them several times slower.
    most_new = beam * most_ways
    room = max(1 << 13, 2 * most_new)
    parent = np.empty(room, np.int64)
    word = np.empty(room, np.int64)
    lm_state = np.empty(room, np.int64)
    lm_score = np.empty(room)
    ext = np.empty(room)
    table = hash_table(parent, word, 0)
    born = np.empty(room, np.int64)
    seen = np.empty(room, np.int64)
    born[0] = seen[0] = 0
    parent[0], word[0], lm_state[0], lm_score[0], ext[0] = -1, -1, lm.start, 0.0, 0.0
    n_histories = 1

    # The beam, best first.
    n_beam = 1
    history = np.zeros(beam, np.int64)
    place = np.zeros(beam, np.int64)
    pb = np.full(beam, -np.inf)
    pnb = np.full(beam, -np.inf)
    total = np.full(beam, -np.inf)
    pb[0] = total[0] = 0.0

    # Candidates, found by (history, place) through a hash that is emptied after each frame.
    c_history = np.empty(beam + most_new, np.int64)
    c_place = np.empty(beam + most_new, np.int64)
    c_pb = np.empty(beam + most_new)
    c_pnb = np.empty(beam + most_new)
    c_at = np.empty(beam + most_new, np.int64)
    c_table = hash_table(c_history, c_place, 0)
    heap = np.empty(beam)
    heap_slot = np.empty(beam, np.int64)
    kept = np.empty(first_child[1] - 1, np.int64)
    kept_score = np.empty(len(kept))
    for t in range(n_frames):
        frame = log_probs[t]
        if n_histories + most_new > room:
            # Only the histories that lead to a living hypothesis are needed on.
            living = prune_tree(table, parent, word, n_histories, history[:n_beam])
            n_histories = len(living)
            lm_state[:n_histories] = lm_state[living]
            lm_score[:n_histories] = lm_score[living]
            ext[:n_histories] = ext[living]
            born[:n_histories], seen[:n_histories] = born[living], seen[living]
            if 2 * n_histories + most_new > room:
                room = 4 * n_histories + most_new
                parent, word = resized(parent, room), resized(word, room)
                lm_state = resized(lm_state, room)
                lm_score, ext = resized(lm_score, room), resized(ext, room)
                born, seen = resized(born, room), resized(seen, room)
                table = hash_table(parent, word, n_histories)

        # 1. Carry over: blank, or the last label again.
        n_cand = n_beam
        best_score = -np.inf
        for i in range(n_beam):
            c_history[i], c_place[i] = history[i], place[i]
            c_pb[i] = total[i] + frame[BLANK]
            c_pnb[i] = -np.inf
            p = place[i]
            if p > 0:
                last = separators[p - separator] if p >= separator else label[p % after]
                c_pnb[i] = pnb[i] + frame[last]
            c_at[i] = find_child(c_table, c_history, c_place, history[i], p)
            c_table[c_at[i]] = i
            score = log_add(c_pb[i], c_pnb[i]) + ext[history[i]]
            if use_lm and 0 < p < after:
                score += lm_scale * ahead[p]
            best_score = max(best_score, score)
            heap[i], heap_slot[i] = score, i
            sift_up(heap, heap_slot, i)
        # The heap holds the best candidates so far at the score that they came with. Merging only
        # raises it, so once the heap is full, nothing below its smallest can survive.
        n_heap = n_beam
        threshold = best_score - score_prune
        if n_heap == beam:
            threshold = max(threshold, heap[0])

        # 2. The labels that begin words, best first.
        n_kept = 0
        for n in range(first_child[0], first_child[1]):
            if frame[label[n]] >= floors[t]:
                kept[n_kept], kept_score[n_kept] = n, frame[label[n]]
                n_kept += 1
        sort_descending(kept_score, kept, n_kept)

        # 3. Extend.
        for i in range(n_beam):
            p = place[i]
            h = history[i]
            inside = 0 < p < after
            if inside or p == 0:
                last = label[p] if p > 0 else BLANK
            else:
                last = separators[p - separator] if p >= separator else label[p - after]
            # The most that a whole word, or any step into or within a word, can add.
            word_gain, gain = bonus, max(bonus, 0.0)
            if use_lm:
                word_gain += lm_scale * lm.trie.log10_best[lm_state[h]]
                gain = max(word_gain, lm_scale * ahead[p if inside else 0])
            # Tree nodes that the next label may lead to.
            if inside:
                low, high = first_child[p], first_child[p + 1]
            elif after <= p < separator and required:
                low, high = 0, 0
            else:
                low, high = 0, n_kept
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
                        to, w = after + n, ends_word[way]
                    way += 1
                    h_to = h
                    if w < 0:
                        score = acoustic + ext[h]
                        if use_lm and to < after:
                            score += lm_scale * ahead[to]
                    else:
                        if acoustic + ext[h] + word_gain <= threshold:
                            continue
                        at = find_child(table, parent, word, h, w)
                        h_to = table[at]
                        if h_to >= 0:
                            score = acoustic + ext[h_to]
                        else:
                            added, state = 0.0, 0
                            if use_lm:
                                added, state = advance(lm.trie, lm_state[h], lm.token_of[w])
                                added *= lm_scale
                            score = acoustic + ext[h] + added + bonus
                            if score <= threshold:
                                continue
                            h_to = n_histories
                            n_histories += 1
                            table[at] = h_to
                            parent[h_to], word[h_to], lm_state[h_to] = h, w, state
                            lm_score[h_to] = lm_score[h] + added
                            ext[h_to] = ext[h] + added + bonus
                            born[h_to] = -1
                    if score <= threshold:
                        continue
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

        # 4. The best become the beam.
        for j in range(n_cand):
            c_table[c_at[j]] = -1
        n_heap = 0
        best_score = -np.inf
        for j in range(n_cand):
            p = c_place[j]
            score = log_add(c_pb[j], c_pnb[j]) + ext[c_history[j]]
            if use_lm and 0 < p < after:
                score += lm_scale * ahead[p]
            if score == -np.inf or score < best_score - score_prune:
                continue
            best_score = max(best_score, score)
            if n_heap < beam:
                heap[n_heap], heap_slot[n_heap] = score, j
                n_heap += 1
                sift_up(heap, heap_slot, n_heap - 1)
            elif score > heap[0]:
                replace_smallest(heap, heap_slot, n_heap, score, j)
        if n_heap == 0:
            n_beam = 0
            break
        sort_descending(heap, heap_slot, n_heap)
        while heap[n_heap - 1] < best_score - score_prune:
            n_heap -= 1
        n_beam = n_heap
        for j in range(n_beam):
            at = heap_slot[j]
            history[j], place[j] = c_history[at], c_place[at]
            if born[history[j]] < 0:
                born[history[j]] = t
            seen[history[j]] = t
            pb[j], pnb[j], total[j] = c_pb[at], c_pnb[at], log_add(c_pb[at], c_pnb[at])

    # Sum the places in which the same words may end; the end of the sentence is scored.
    final_history = np.empty(n_beam, np.int64)
    final_place = np.zeros(n_beam, np.int64)
    acoustic_of = np.full(n_beam, -np.inf)
    n_final = 0
    for whole in (True, False):
        for i in range(n_beam):
            if (place[i] == 0 or place[i] >= after) != whole:
                continue
            j = 0
            while j < n_final and (
                final_history[j] != history[i] or (not whole and final_place[j] != place[i])
            ):
                j += 1
            if j == n_final:
                final_history[j] = history[i]
                final_place[j] = 0 if whole else place[i]
                n_final += 1
            acoustic_of[j] = log_add(acoustic_of[j], total[i])
        if n_final:
            break
    scores = np.empty(n_final)
    lm_of = np.zeros(n_final)
    order = np.arange(n_final)
    for j in range(n_final):
        h = final_history[j]
        end = 0.0
        if use_lm:
            end = lm_scale * advance(lm.trie, lm_state[h], lm.end_token)[0]
        lm_of[j] = lm_score[h] + end
        scores[j] = acoustic_of[j] + ext[h] + end
    sort_descending(scores, order, n_final)
    n_best = min(nbest, n_final)
    order = order[:n_best]
    counts = np.zeros(n_best, np.int64)
    longest = 0
    for n in range(n_best):
        v = final_history[order[n]]
        while v > 0:
            counts[n] += 1
            v = parent[v]
        longest = max(longest, counts[n])
    words = np.zeros((n_best, longest), np.int64)
    current = np.zeros((n_best, 2, longest + 1), np.int64)
    for n in range(n_best):
        v = final_history[order[n]]
        for u in range(counts[n] - 1, -1, -1):
            words[n, u] = word[v]
            current[n, 0, u + 1], current[n, 1, u + 1] = born[v], seen[v]
            v = parent[v]
        current[n, 0, 0], current[n, 1, 0] = born[0], seen[0]
    return words, counts, final_place[order], acoustic_of[order], lm_of[order], current
