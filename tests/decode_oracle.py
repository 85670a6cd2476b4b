"""Slow and plain answers for the decoders' tests."""

import itertools
import math
from collections import defaultdict

import numpy as np
import torch

BIGRAM = ["a b a a", "b b a", "a", "b a b"]


def draw(seed, T, V, spread=3.0, holes=0.0):
    """Log-softmax of noise (T, V) float32; a share ``holes`` of the cells is -inf."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(T, V)) * spread
    gone = rng.random((T, V)) < holes
    gone[np.arange(T), rng.integers(V, size=T)] = False
    scores[gone] = -np.inf
    top = scores.max(axis=1, keepdims=True)
    return (scores - top - np.log(np.exp(scores - top).sum(axis=1, keepdims=True))).astype(
        np.float32
    )


def draw_sure(seed, T, V, gap):
    """As `draw`, of a net too sure of itself: all but one label of a frame are up to ``gap`` nats
    below it."""
    rng = np.random.default_rng(seed)
    scores = -gap * rng.random((T, V))
    scores[np.arange(T), rng.integers(V, size=T)] = 0.0
    return (scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))).astype(np.float32)


def collapse(path):
    return tuple(k for k, _ in itertools.groupby(path) if k != 0)


def all_sums(log_probs):
    """Label sequence -> log of the summed probability of all its paths."""
    T, V = log_probs.shape
    sums = defaultdict(float)
    for path in itertools.product(range(V), repeat=T):
        sums[collapse(path)] += math.exp(sum(float(log_probs[t, c]) for t, c in enumerate(path)))
    return {labels: math.log(p) for labels, p in sums.items() if p > 0}


def sum_of_paths(log_probs, labels):
    """Log of the summed probability of all paths of ``labels``, as torch has it."""
    return -float(
        torch.nn.functional.ctc_loss(
            torch.from_numpy(log_probs).double()[:, None],
            torch.tensor([labels], dtype=torch.long).reshape(1, len(labels)),
            torch.tensor([len(log_probs)]),
            torch.tensor([len(labels)]),
            reduction="sum",
        )
    )


def all_words(labels, lexicon):
    """What words of the lexicon ``labels`` can be read as, as word ids, in however many ways."""
    readings = set()

    def read(at, words, word_before, separator_before):
        if at == len(labels):
            readings.add(tuple(words))
            return
        if labels[at] in lexicon.separators and not separator_before:
            read(at + 1, words, False, True)
        if word_before and lexicon.required:
            return
        for word, spellings in enumerate(lexicon.spellings):
            for spelling in spellings:
                if labels[at : at + len(spelling)] == spelling:
                    read(at + len(spelling), [*words, word], True, False)

    read(0, [], False, False)
    return readings


def log_add(a, b):
    return float(np.logaddexp(a, b))


def textbook_beam(log_probs, beam, lm=None, symbols=None, lm_weight=0.0, bonus=0.0):
    """Hannun et al. 2014, with dictionaries and logarithms: [(score, labels)], best first."""
    start = lm.start if lm else 0
    entries = {(): (0.0, -math.inf)}
    extra = {(): (0.0, start)}
    weight = lm_weight * math.log(10)
    for frame in log_probs.astype(np.float64):
        following = defaultdict(lambda: (-math.inf, -math.inf))
        for prefix, (pb, pnb) in entries.items():
            for c, p in enumerate(frame):
                if c == 0:
                    b, nb = following[prefix]
                    following[prefix] = (log_add(b, log_add(pb, pnb) + p), nb)
                    continue
                longer = (*prefix, c)
                if prefix and prefix[-1] == c:
                    b, nb = following[prefix]
                    following[prefix] = (b, log_add(nb, pnb + p))
                b, nb = following[longer]
                source = pb if prefix and prefix[-1] == c else log_add(pb, pnb)
                following[longer] = (b, log_add(nb, source + p))
                if longer not in extra:
                    gain, state = lm.advance(extra[prefix][1], symbols[c]) if lm else (0.0, 0)
                    extra[longer] = (extra[prefix][0] + weight * gain + bonus, state)
        ranked = sorted(following, key=lambda y: -log_add(*following[y]) - extra[y][0])[:beam]
        entries = {y: following[y] for y in ranked if log_add(*following[y]) > -math.inf}
    final = []
    for y, (pb, pnb) in entries.items():
        end = weight * lm.advance(extra[y][1], "</s>")[0] if lm else 0.0
        final.append((log_add(pb, pnb) + extra[y][0] + end, y))
    return sorted(final, reverse=True)
