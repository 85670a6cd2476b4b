"""N-grams made of n-grams: mixtures, with weights chosen on a text, and pruning."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from asr.errors import InputError
from asr.lm.arpa import BOS, EOS, UNK, Grams
from asr.lm.ngram import NGram, Trie, advance
from asr.system.jit import compiled

#: Weights that change by less are found.
SETTLED, MOST_ROUNDS = 1e-6, 1000
#: What is less is no probability, but the sum of rounding errors.
LEAST = 1e-9
SMALLEST = 1e-99


def mixed(models: Sequence[NGram], weights: Sequence[float]) -> NGram:
    """The linear interpolation of n-grams, as one n-gram, over the tokens of all.

    As SRILM's ``ngram -mix-lm`` (Stolcke 2002): each n-gram of any model gets the weighted mean of
    what the models say of it, and backoff weights are computed anew. A token that a model does not
    know has no probability there.

    Raises:
        InputError: the weights are not one for each model, above 0, with the sum 1.
    """
    if len(weights) != len(models) or min(weights) <= 0 or abs(sum(weights) - 1) > 1e-6:
        told = ", ".join(f"{w:g}" for w in weights)
        raise InputError(
            f"weights {told}: expected {len(models)} numbers above 0 whose sum is 1, one a model"
        )
    special = (UNK, BOS, EOS)
    tokens = (*special, *sorted({t for m in models for t in m.tokens}.difference(special)))
    number = {token: i for i, token in enumerate(tokens)}
    ids = [np.array([number[t] for t in m.tokens]) for m in models]
    parents, last = _union([m.trie for m in models], ids, len(tokens))
    prob = np.zeros(1 + len(parents))
    for model, weight in zip(models, weights, strict=True):
        token_of = np.array([model.id(t) for t in tokens])
        found = 10 ** _log10_probs(model.trie, token_of, parents, last)
        known = (token_of > 0) | (np.arange(len(tokens)) == 0)
        prob[1:] += weight * np.where(known[last], found, 0.0)
    prob[1 + number[BOS]] = 1.0
    return _with_backoffs(max(m.order for m in models), tokens, parents, last, prob)


def chosen_weights(models: Sequence[NGram], sentences: Sequence[Sequence[str]]) -> list[float]:
    """The weights under which the mixture finds ``sentences`` most probable, by EM.

    As SRILM's ``compute-best-mix``: tokens that no model knows do not count.

    Raises:
        InputError: no model knows any token.
    """
    tokens = [token for sentence in sentences for token in (*sentence, EOS)]
    probs = np.zeros((len(tokens), len(models)))
    for column, model in zip(probs.T, models, strict=True):
        column[:] = [10**score for sentence in sentences for score in model.scores(sentence)]
        column[[not model.id(token) and token != UNK for token in tokens]] = 0.0
    probs = probs[probs.sum(1) > 0]
    if not len(probs):
        raise InputError("the text to choose weights on has no token that a model knows")
    weights = np.full(len(models), 1 / len(models))
    for _ in range(MOST_ROUNDS):
        parts = probs * weights
        better = (parts / parts.sum(1, keepdims=True)).mean(0)
        change, weights = np.abs(better - weights).max(), better
        if change < SETTLED:
            break
    # None is left out for good: a weight of 0 is no mixture.
    weights = np.maximum(weights, SETTLED)
    return (weights / weights.sum()).tolist()


def pruned(model: NGram, threshold: float) -> NGram:
    """The n-gram without those n-grams that hardly change its perplexity.

    Stolcke 1998, section 3: from the longest to bigrams, those that are no context of others and
    whose loss would raise the perplexity by less than the share ``threshold``.

    Raises:
        InputError: the threshold is below 0.
    """
    if threshold < 0:
        raise InputError(f"--prune {threshold:g}: expected a number of 0 or more, such as 1e-8")
    trie = model.trie
    parents = _parents(trie)
    prob = 10**trie.log10_prob
    kept = np.ones(len(prob), bool)
    context = _context_probs(parents, prob, model.id(BOS), model.id(EOS))
    firsts = _levels(trie)
    for n in range(len(firsts) - 2, 0, -1):
        _prune_level(trie, context, kept, (firsts[n - 1], firsts[n]), threshold)
    renumbered = np.cumsum(kept) - 1
    kept[0] = False  # the root is no n-gram
    depth = max(n for n in range(1, len(firsts)) if kept[firsts[n - 1] : firsts[n]].any())
    left = renumbered[parents[kept]], trie.token[kept].astype(np.int64)
    return _with_backoffs(depth, model.tokens, *left, np.append(1.0, prob[kept]))


def _parents(trie: Trie) -> NDArray[np.int64]:
    """The parent of each node; the root's is -1."""
    return np.repeat(np.arange(-1, len(trie.first_child) - 1), [1, *np.diff(trie.first_child)])


def _levels(trie: Trie) -> list[int]:
    """The first node of each order, and one beyond the last node."""
    firsts = [1]
    while firsts[-1] < len(trie.token):
        firsts.append(int(trie.first_child[firsts[-1]]))
    return firsts


def _union(
    tries: Sequence[Trie], ids: Sequence[NDArray[np.int64]], n_tokens: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Parents and last tokens of all n-grams of any model. ids: the union's, by a model's."""
    places = [np.zeros(len(trie.token), np.int64) for trie in tries]
    levels = [_levels(trie) for trie in tries]
    above = [_parents(trie) for trie in tries]
    parents, last, first = [], [], 1
    for n in range(max(map(len, levels)) - 1):
        nodes = [slice(*level[n : n + 2]) if n + 1 < len(level) else slice(0) for level in levels]
        keys = [
            place[parent[at]] * n_tokens + own[trie.token[at]]
            for trie, own, place, parent, at in zip(tries, ids, places, above, nodes, strict=True)
        ]
        union = np.unique(np.concatenate(keys))
        for place, at, key in zip(places, nodes, keys, strict=True):
            place[at] = first + np.searchsorted(union, key)
        parents.append(union // n_tokens)
        last.append(union % n_tokens)
        first += len(union)
    return np.concatenate(parents), np.concatenate(last)


@compiled
def _log10_probs(
    trie: Trie,
    token_of: NDArray[np.int64],
    parents: NDArray[np.int64],
    last: NDArray[np.int64],
) -> NDArray[np.float64]:
    """What a model says of each n-gram of a tree, whose tokens are its ``token_of``."""
    found = np.zeros(len(parents))
    states = np.zeros(1 + len(parents), np.int64)
    for i in range(len(parents)):
        found[i], states[i + 1] = advance(trie, states[parents[i]], token_of[last[i]])
    return found


def _with_backoffs(
    order: int,
    tokens: tuple[str, ...],
    parents: NDArray[np.int64],
    last: NDArray[np.int64],
    prob: NDArray[np.float64],
) -> NGram:
    """The model with these probabilities, whose backoff weights make each context's sum 1."""
    log10_prob = np.log10(np.maximum(prob, SMALLEST))
    log10_prob[0] = 0.0
    plain = Grams(order, tokens, parents, last, log10_prob, np.zeros(len(prob)))
    trie = NGram.of(plain).trie
    _compute_backoffs(trie)
    return NGram.of(plain._replace(log10_backoff=trie.log10_backoff))


@compiled
def _unseen(trie: Trie, node: int) -> tuple[float, float]:
    """What a context leaves for tokens that it has not seen, and what a shorter one gives them."""
    free, lower = 1.0, 1.0
    for child in range(trie.first_child[node], trie.first_child[node + 1]):
        free -= 10 ** trie.log10_prob[child]
        lower -= 10 ** advance(trie, trie.shorter[node], trie.token[child])[0]
    return free, lower


@compiled
def _compute_backoffs(trie: Trie) -> None:
    """Fill in each context's share for what it has not seen; shorter contexts come first."""
    for node in range(1, len(trie.token)):
        free, lower = _unseen(trie, node)
        if trie.first_child[node] < trie.first_child[node + 1] and lower > LEAST:
            trie.log10_backoff[node] = math.log10(max(free / lower, SMALLEST))


def _context_probs(
    parents: NDArray[np.int64], prob: NDArray[np.float64], bos: int, eos: int
) -> NDArray[np.float64]:
    """How often each n-gram comes, as the model says; a sentence begins where one ends."""
    found = np.ones(len(prob))
    for node, parent in enumerate(parents.tolist()[1:], start=1):
        of_itself = prob[1 + eos] if node == 1 + bos else prob[node]
        found[node] = found[parent] * of_itself
    return found


@compiled
def _prune_level(
    trie: Trie,
    context: NDArray[np.float64],
    kept: NDArray[np.bool_],
    nodes: tuple[int, int],
    threshold: float,
) -> None:
    """Give up children of the contexts from ``nodes``' first to before its last."""
    for node in range(nodes[0], nodes[1]):
        free, lower = _unseen(trie, node)
        if free <= LEAST or lower <= LEAST:
            continue
        log_share = math.log(free / lower)
        for child in range(trie.first_child[node], trie.first_child[node + 1]):
            is_context = False
            for longer in range(trie.first_child[child], trie.first_child[child + 1]):
                is_context = is_context or kept[longer]
            if is_context:
                continue
            p = 10 ** trie.log10_prob[child]
            q = 10 ** advance(trie, trie.shorter[node], trie.token[child])[0]
            if p <= 0.0 or q <= 0.0:
                continue
            new_share = math.log((free + p) / (lower + q))
            cost = p * (math.log(q) + new_share - math.log(p)) + free * (new_share - log_share)
            if math.expm1(-context[node] * cost) < threshold:
                kept[child] = False
