"""Small compiled pieces that the searches share: logarithms, heaps, sorts, a tree of labels."""

from __future__ import annotations

import numpy as np

from asr.system.jit import compiled, inner


@inner
def log_add(a, b):  # type: ignore[no-untyped-def]
    """log(exp(a) + exp(b)), also for -inf."""
    if a < b:
        a, b = b, a
    return a if b == -np.inf else a + np.log1p(np.exp(b - a))


@inner
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


@inner
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


@inner
def insertion_sort(score, slot, size):  # type: ignore[no-untyped-def]
    """Sort the first ``size`` pairs by falling score; quick where they are few or nearly sorted."""
    for i in range(1, size):
        key, s = score[i], slot[i]
        at = i
        while at > 0 and score[at - 1] < key:
            score[at], slot[at] = score[at - 1], slot[at - 1]
            at -= 1
        score[at], slot[at] = key, s


@inner
def sort_descending(score, slot, size):  # type: ignore[no-untyped-def]
    """Sort the first ``size`` pairs by falling score."""
    if size <= 64:
        insertion_sort(score, slot, size)
    else:
        for i in range(1, size):
            sift_up(score, slot, i)
        for last in range(size - 1, 0, -1):
            smallest, s = score[0], slot[0]
            replace_smallest(score, slot, last, score[last], slot[last])
            score[last], slot[last] = smallest, s


#: Of `bucket`: 11 bits of exponent and 2 of the mantissa.
N_BUCKETS = 1 << 13


@inner
def bucket(score):  # type: ignore[no-untyped-def]
    """Return a positive number's place on a logarithmic scale, four steps to each power of 2."""
    return np.float64(score).view(np.int64) >> 50


@inner
def lower_edge(place):  # type: ignore[no-untyped-def]
    """Return the smallest number of a bucket."""
    return np.int64(place << 50).view(np.float64)


@inner
def count_in(counts, score, least, n_counted, most):  # type: ignore[no-untyped-def]
    """Count ``score`` in its bucket; return the lowest bucket that may be among the best ``most``,
    and how many are counted from there on."""
    place = bucket(score)
    counts[place] += 1
    if place >= least:
        n_counted += 1
        while n_counted - counts[least] >= most:
            n_counted -= counts[least]
            least += 1
    return least, n_counted


@inner
def best_first(counts, least, best, scores, n, order, ranked):  # type: ignore[no-untyped-def]
    """Sort those of the ``n`` counted scores that lie in the buckets from ``least`` on.

    Their places go to ``order``, best first, they themselves to ``ranked``; the counts are emptied.
    The buckets have no branch for the processor to guess wrong, unlike a heap, and leave next to
    nothing to the sort by comparison.
    """
    n_sorted = fullest = 0
    for place in range(bucket(best), least - 1, -1):
        here = counts[place]
        counts[place] = n_sorted
        n_sorted += here
        fullest = max(fullest, here)
    for j in range(n):
        place = bucket(scores[j])
        if place >= least:
            order[counts[place]] = j
            ranked[counts[place]] = scores[j]
            counts[place] += 1
        else:
            counts[place] = 0
    counts[least : bucket(best) + 1] = 0
    if fullest <= 64:
        insertion_sort(ranked, order, n_sorted)
    else:
        sort_descending(ranked, order, n_sorted)
    return n_sorted


#: In a hash table, the numbers of nodes are below, and bits of their hash above.
MARK = 1 << 32


@inner
def find_child(table, parents, labels, parent, label):  # type: ignore[no-untyped-def]
    """Return where node (parent, label) stands in the hash ``table``, or the empty place for it;
    its number, negative if it is not there; and its mark: ``table[at] = mark + node`` puts it in.

    ``table`` holds marked numbers or -1, its size is a power of two (linear probing). By the marks,
    other nodes are passed without a look at what they are.
    """
    mask = len(table) - 1
    mixed = np.uint64(parent) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= np.uint64(label) * np.uint64(0xC2B2AE3D27D4EB4F)
    # Near the parent's number: of a large tree only what is new stays in the processor's cache.
    at = (3 * parent + (np.int64(mixed >> np.uint64(32)) & (mask >> 4))) & mask
    mark = np.int64(mixed & np.uint64(MARK // 2 - 1)) * MARK
    node = table[at] ^ mark
    while node >= MARK or (node >= 0 and (parents[node] != parent or labels[node] != label)):
        at = (at + 1) & mask
        node = table[at] ^ mark
    return at, node, mark


@compiled
def hash_table(parents, labels, n_nodes):  # type: ignore[no-untyped-def]
    """Return a hash table that holds the nodes 1 .. n_nodes - 1 and has room for all of them."""
    size = 1024
    while size < 2 * len(parents):
        size *= 2
    table = np.empty(size, np.int64)
    fill_hash(table, parents, labels, n_nodes)
    return table


@inner
def fill_hash(table, parents, labels, n_nodes):  # type: ignore[no-untyped-def]
    """Let a hash table hold the nodes 1 .. n_nodes - 1 alone."""
    table[:] = -1
    for node in range(1, n_nodes):
        at, _, mark = find_child(table, parents, labels, parents[node], labels[node])
        table[at] = mark + node


@compiled
def resized(array, room):  # type: ignore[no-untyped-def]
    """Return a copy of ``array`` with ``room`` places."""
    larger = np.empty(room, array.dtype)
    for i in range(min(len(array), room)):  # slices compile slowly
        larger[i] = array[i]
    return larger
