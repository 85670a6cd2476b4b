"""Label searches of many short utterances, such as words of letters, in one compiled call."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr.decode.emission import best_values
from asr.decode.search.labels import HORIZON, Search, begin, search_frames, sum_of_paths
from asr.decode.search.state import Frames, Reached, roomy
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
    # So much that no tree is ever pruned.
    room = 1 + log_probs.shape[1] * search.beam
    work = roomy(begin(search).work, 1, search.beam, room, search)
    _search_each(log_probs, lens, search, HORIZON, work, found)
    return found


@compiled
def acoustic_scores(log_probs, lens, labels, n_labels):  # type: ignore[no-untyped-def]
    """Return the sums over all CTC paths (N, K) of the sequences of an `NBest`."""
    N, K = n_labels.shape
    sums = np.full((N, K), -np.inf)
    for i in range(N):
        frames = log_probs[i, : lens[i]]
        tops, _ = best_values(frames)
        for k in range(K):
            if n_labels[i, k] >= 0:
                sums[i, k] = sum_of_paths(frames, tops, labels[i, k, : n_labels[i, k]])
    return sums


@compiled
def _search_each(log_probs, lens, search, horizon, work, found):  # type: ignore[no-untyped-def]
    for i in range(len(log_probs)):
        frames = log_probs[i, : lens[i]]
        tops, _ = best_values(frames)
        _begin(work)
        start = Reached(0, 1, 1, 0, 0.0, False)
        reached = search_frames(Frames(frames, tops, 0, False), search, horizon, work, start)
        order, scores = _ranked(work, reached.n_beam, search)
        for k in range(min(found.n_labels.shape[1], reached.n_beam)):
            entry = work.entries[order[k]]
            found.added[i, k] = scores[order[k]] - np.log(entry.total)
            n = _write_way(work.tree, entry.node, found.labels[i, k])
            found.n_labels[i, k] = n
            found.added[i, k] += work.tree[entry.node].lm_score + search.bonus * n
            found.acoustic[i, k] = sum_of_paths(frames, tops, found.labels[i, k, :n])


@compiled
def _begin(work):  # type: ignore[no-untyped-def]
    """Stand before the first frame, as `begin`; the root of the tree stays what it is."""
    entry = work.entries[0]
    entry.node, entry.pb, entry.pnb, entry.total = 0, 1.0, 0.0, 1.0
    work.table[:] = -1
    work.scratch.alive[:] = -1


@compiled
def _ranked(work, n_beam, search):  # type: ignore[no-untyped-def]
    """Return the order of the hypotheses, best first, were this the end, and their scores."""
    scores = np.empty(n_beam)
    for j in range(n_beam):
        scores[j] = np.log(work.entries[j].total)
        if search.lm_scale > 0.0:
            state = work.tree[work.entries[j].node].lm_state
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
        v = tree[v].parent
    v = node
    for u in range(n - 1, -1, -1):
        labels[u] = tree[v].code
        v = tree[v].parent
    return n
