"""Label searches of many short utterances, such as words of letters, in one compiled call."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr.decode.search.kernels import N_BUCKETS, hash_table
from asr.decode.search.labels import (
    Entries,
    Prefixes,
    Scratch,
    Search,
    Work,
    begin,
    search_frames,
    sum_of_paths,
)
from asr.decode.search.state import Reached
from asr.labels import BLANK
from asr.lm.ngram import advance as advance_lm
from asr.system.jit import compiled


class NBest(NamedTuple):
    """The K best label sequences of each of N utterances, best first.

    labels: (N, K, T), of which the first n_labels (N, K) count; -1 where there are fewer sequences.
    acoustic: summed over all CTC paths; added: what language model and bonus count. (N, K) each,
    natural logarithms.
    """

    labels: NDArray[np.int64]
    n_labels: NDArray[np.int64]
    acoustic: NDArray[np.float64]
    added: NDArray[np.float64]


def search_each(
    log_probs: NDArray[np.float32], lens: NDArray[np.int64], search: Search, nbest: int
) -> NBest:
    """Find what `beam_search` finds for each utterance, without spans and confidences.

    log_probs: (N, T, V), finite, of which utterance i has lens[i] frames.
    """
    nbest = min(nbest, search.beam)
    shape = len(log_probs), nbest
    found = NBest(
        np.zeros((*shape, log_probs.shape[1]), np.int64),
        np.full(shape, -1),
        np.zeros(shape),
        np.zeros(shape),
    )
    _search_each(log_probs, lens, search, float(begin(search).tree.reach[0]), found)
    return found


@compiled
def acoustic_scores(log_probs, lens, labels, n_labels):  # type: ignore[no-untyped-def]
    """Return the sums over all CTC paths (N, K) of the sequences of an `NBest`."""
    N, K = n_labels.shape
    sums = np.full((N, K), -np.inf)
    for i in range(N):
        frames = log_probs[i, : lens[i]]
        tops = best_values(frames)
        for k in range(K):
            if n_labels[i, k] >= 0:
                sums[i, k] = sum_of_paths(frames, tops, labels[i, k, : n_labels[i, k]])
    return sums


@compiled
def best_values(frames):  # type: ignore[no-untyped-def]
    """Return the best value of each frame."""
    tops = np.empty(len(frames), np.float32)
    for t in range(len(frames)):
        tops[t] = frames[t].max()
    return tops


@compiled
def _search_each(log_probs, lens, search, reach, found):  # type: ignore[no-untyped-def]
    T, n_labels = log_probs.shape[1:]
    work = _new_work(search.beam, T, n_labels, search.most_labels)
    for i in range(len(log_probs)):
        frames = log_probs[i, : lens[i]]
        tops = best_values(frames)
        _begin(work, search, reach)
        _, n_beam, _, _ = search_frames(frames, tops, search, work, Reached(0, 1, 1, 0.0))
        order, scores = _ranked(work, n_beam, search)
        for k in range(min(found.n_labels.shape[1], n_beam)):
            v = work.entries.node[order[k]]
            found.added[i, k] = scores[order[k]] - np.log(work.entries.total[order[k]])
            n = _write_way(work.tree, v, found.labels[i, k])
            found.n_labels[i, k] = n
            found.added[i, k] += work.tree.lm_score[v] + search.bonus * n
            found.acoustic[i, k] = sum_of_paths(frames, tops, found.labels[i, k, :n])


@compiled
def _new_work(beam, n_frames, n_labels, most_labels):  # type: ignore[no-untyped-def]
    """Room for a search of so many frames."""
    room = 1 + n_frames * beam
    tree = Prefixes(
        np.full(room, -1),
        np.zeros(room, np.int64),
        np.zeros(room, np.int64),
        np.zeros(room),
        np.zeros(room),
        np.zeros(room),
        np.zeros(room, np.int64),
        np.zeros(room, np.int64),
    )
    entries = Entries(np.zeros(beam, np.int64), np.zeros(beam), np.zeros(beam), np.zeros(beam))
    scratch = Scratch(
        np.zeros(N_BUCKETS, np.int64),
        np.zeros(N_BUCKETS, np.int64),
        np.empty(beam, np.int64),
        np.empty(beam, np.int64),
        np.empty(beam, np.int64),
        np.empty(n_labels, np.int64),
        np.empty(n_labels, np.int64),
        np.empty(n_labels),
        np.empty(n_labels, np.int64),
        np.empty(n_labels, np.int64),
        np.empty(n_labels),
        np.empty(4 * most_labels, np.float32),
    )
    table = hash_table(tree.parent, tree.code, 1)
    return Work(entries, tree, table, np.full(room, -1), scratch)


@compiled
def _begin(work, search, reach):  # type: ignore[no-untyped-def]
    """Stand before the first frame, as `begin`."""
    entries, tree = work.entries, work.tree
    entries.node[0], entries.pb[0], entries.pnb[0], entries.total[0] = 0, 1.0, 0.0, 1.0
    tree.parent[0], tree.code[0], tree.lm_state[0] = -1, BLANK, search.lm.start
    tree.lm_score[0], tree.factor[0], tree.reach[0] = 0.0, 1.0, reach
    tree.born[0], tree.seen[0] = 0, 0
    work.table[:] = -1
    work.slot[:] = -1
    work.slot[0] = 0
    work.scratch.alive[:] = -1


@compiled
def _ranked(work, n_beam, search):  # type: ignore[no-untyped-def]
    """Return the order of the hypotheses, best first, were this the end, and their scores."""
    scores = np.empty(n_beam)
    for j in range(n_beam):
        scores[j] = np.log(work.entries.total[j])
        if search.lm_scale > 0.0:
            state = work.tree.lm_state[work.entries.node[j]]
            gain, _ = advance_lm(search.lm.trie, state, search.lm.end_token)
            scores[j] += search.lm_scale * gain
    return np.argsort(-scores), scores


@compiled
def _write_way(tree, node, labels):  # type: ignore[no-untyped-def]
    """Write the labels on the way to ``node``; return how many they are."""
    n = 0
    v = node
    while v > 0:
        n += 1
        v = tree.parent[v]
    v = node
    for u in range(n - 1, -1, -1):
        labels[u] = tree.code[v]
        v = tree.parent[v]
    return n
