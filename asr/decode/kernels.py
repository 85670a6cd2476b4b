"""Small compiled pieces that the searches share: logarithms, a heap, a sort, a tree of labels."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def log_add(a, b):  # type: ignore[no-untyped-def]
    """log(exp(a) + exp(b)), also for -inf."""
    if a < b:
        a, b = b, a
    return a if b == -np.inf else a + np.log1p(np.exp(b - a))


@njit(cache=True, nogil=True)
def sift_up(heap, slot, at):  # type: ignore[no-untyped-def]
    """Let the last entry of a heap (smallest on top; scores and slots) rise to its place."""
    score, s = heap[at], slot[at]
    while at > 0:
        above = (at - 1) >> 1
        if heap[above] <= score:
            break
        heap[at], slot[at] = heap[above], slot[above]
        at = above
    heap[at], slot[at] = score, s


@njit(cache=True, nogil=True)
def replace_smallest(heap, slot, size, score, s):  # type: ignore[no-untyped-def]
    """Put ``score`` with slot ``s`` in the place of a heap's smallest entry."""
    at = 0
    while True:
        below = 2 * at + 1
        if below >= size:
            break
        if below + 1 < size and heap[below + 1] < heap[below]:
            below += 1
        if heap[below] >= score:
            break
        heap[at], slot[at] = heap[below], slot[below]
        at = below
    heap[at], slot[at] = score, s


@njit(cache=True, nogil=True)
def sort_descending(score, slot, size):  # type: ignore[no-untyped-def]
    """Sort the first ``size`` pairs by falling score."""
    if size <= 64:
        for i in range(1, size):
            key, s = score[i], slot[i]
            at = i
            while at > 0 and score[at - 1] < key:
                score[at], slot[at] = score[at - 1], slot[at - 1]
                at -= 1
            score[at], slot[at] = key, s
    else:
        for i in range(1, size):
            sift_up(score, slot, i)
        for last in range(size - 1, 0, -1):
            smallest, s = score[0], slot[0]
            replace_smallest(score, slot, last, score[last], slot[last])
            score[last], slot[last] = smallest, s


@njit(cache=True, nogil=True)
def find_child(table, parents, labels, parent, label):  # type: ignore[no-untyped-def]
    """Return where node (parent, label) stands in the hash ``table``, or the empty place for it.

    ``table`` holds node ids or -1, its size is a power of two (linear probing).
    """
    mask = len(table) - 1
    mixed = np.uint64(parent) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= np.uint64(label) * np.uint64(0xC2B2AE3D27D4EB4F)
    at = np.int64(mixed >> np.uint64(32)) & mask
    while table[at] >= 0:
        node = table[at]
        if parents[node] == parent and labels[node] == label:
            break
        at = (at + 1) & mask
    return at


@njit(cache=True, nogil=True)
def hash_table(parents, labels, n_nodes):  # type: ignore[no-untyped-def]
    """Return a hash table that holds the nodes 1 .. n_nodes - 1 and has room for all of them."""
    size = 1024
    while size < 2 * len(parents):
        size *= 2
    table = np.full(size, -1, np.int64)
    for node in range(1, n_nodes):
        table[find_child(table, parents, labels, parents[node], labels[node])] = node
    return table


@njit(cache=True, nogil=True)
def resized(array, room):  # type: ignore[no-untyped-def]
    """Return a copy of ``array`` with ``room`` places."""
    larger = np.empty(room, array.dtype)
    larger[: len(array)] = array
    return larger


@njit(cache=True, nogil=True)
def prune_tree(table, parents, labels, n_nodes, living):  # type: ignore[no-untyped-def]
    """Keep the nodes on the way to ``living``, renumber all in place, and return the ids kept.

    A branch without living nodes can be made anew without harm. Parents stand before children.
    """
    new = np.full(n_nodes, -1, np.int64)
    new[0] = 0
    for node in living:
        while new[node] < 0:
            new[node] = 0
            node = parents[node]
    kept = np.empty(n_nodes, np.int64)
    n_kept = 0
    for node in range(n_nodes):
        if new[node] == 0:
            kept[n_kept], new[node] = node, n_kept
            n_kept += 1
    table[:] = -1
    for n in range(1, n_kept):
        parents[n], labels[n] = new[parents[kept[n]]], labels[kept[n]]
        table[find_child(table, parents, labels, parents[n], labels[n])] = n
    for i in range(len(living)):
        living[i] = new[living[i]]
    return kept[:n_kept]
