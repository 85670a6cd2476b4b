"""Backoff n-gram language models: estimate and query.

An n-gram model is a tree: the root is the empty context, the node reached by the tokens
w1 .. wn is that n-gram, and a node is at the same time the context (the state) in which the next
token is looked up. Probabilities are base-10 logarithms, as ARPA files have them.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr.errors import InputError
from asr.lm import arpa
from asr.lm.arpa import BOS, EOS, UNK, UNKNOWNS, Grams
from asr.system.jit import compiled

#: Ids in every language model: of what begins a sentence, which is read and never predicted, and of
#: what ends it. 0 is what it does not know.
START, END = 1, 2

log = logging.getLogger(__name__)

#: D1, D2, D3+ where the counts give none, as ``lmplz --discount_fallback``.
#: Of so many n-grams of one order, discounts ought to be there.
MANY = 1000
FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)
#: Peak memory of estimating, for each token and order, where every n-gram is different (measured).
BYTES_A_TOKEN = 170


class Trie(NamedTuple):
    """The model in arrays, for compiled code. Node 0 is the root, node 1 + t unigram t.

    The children of node s are the nodes first_child[s] .. first_child[s + 1] - 1, sorted by token.
    shorter[s]: the longest proper suffix of s that is a node, where a failed lookup goes on after
    adding log10_backoff[s]. after[s]: the context in which the token after the n-gram s is looked
    up: s or its longest suffix that can make a difference. log10_best[s]: no token is more
    probable after s.
    """

    first_child: NDArray[np.int32]
    token: NDArray[np.int32]
    log10_prob: NDArray[np.float64]
    log10_backoff: NDArray[np.float64]
    shorter: NDArray[np.int32]
    after: NDArray[np.int32]
    log10_best: NDArray[np.float64]


class BoundNGram(NamedTuple):
    """An n-gram seen through another inventory: symbol i is the model's token ``token_of[i]``.

    ahead: for a lexicon's words, what each node of its prefix tree promises (log10).
    """

    trie: Trie
    token_of: NDArray[np.int32]
    start: int
    end_token: int
    ahead: NDArray[np.float64]


#: Stands in where there is no language model: compiled code wants one type.
NO_LM = BoundNGram(
    Trie(*(np.zeros(0, t) for t in (np.int32, np.int32, float, float, np.int32, np.int32, float))),
    np.zeros(0, np.int32),
    0,
    0,
    np.zeros(0),
)


@compiled
def advance(trie: Trie, state: int, token: int) -> tuple[float, int]:
    """Return log10 P(token | state) and the next state."""
    score = 0.0
    found = 1 + token if state == 0 else -1
    while found < 0:
        low, high = trie.first_child[state], trie.first_child[state + 1]
        while low < high:
            middle = (low + high) >> 1
            if trie.token[middle] < token:
                low = middle + 1
            else:
                high = middle
        if low < trie.first_child[state + 1] and trie.token[low] == token:
            found = low
        else:
            score += trie.log10_backoff[state]
            state = trie.shorter[state]
            if state == 0:
                found = 1 + token
    return score + trie.log10_prob[found], trie.after[found]


@dataclass(frozen=True)
class NGram:
    """A backoff model over string tokens; ``tokens`` begins with ``<unk>``, ``<s>``, ``</s>``."""

    order: int
    tokens: tuple[str, ...]
    trie: Trie

    def __post_init__(self) -> None:
        object.__setattr__(self, "_ids", {token: i for i, token in enumerate(self.tokens)})

    @property
    def start(self) -> int:
        """The state at the start of a sentence, after ``<s>``."""
        return int(self.trie.after[1 + 1])

    def id(self, token: str) -> int:
        """Token -> id; 0 (``<unk>``) for a token that the model does not know."""
        return self._ids.get(token, 0)  # type: ignore[attr-defined]

    def advance(self, state: int, token: str) -> tuple[float, int]:
        """Return log10 P(token | state) and the next state."""
        score, after = advance(self.trie, state, self.id(token))
        return float(score), int(after)

    def scores(self, sentence: Sequence[str], bos: bool = True, eos: bool = True) -> list[float]:
        """Return log10 P of each token of ``sentence`` and, if ``eos``, of its end."""
        state, scores = self.start if bos else 0, []
        for token in [*sentence, EOS] if eos else sentence:
            score, state = self.advance(state, token)
            scores.append(score)
        return scores

    def score(self, sentence: Sequence[str], bos: bool = True, eos: bool = True) -> float:
        """Return log10 P(sentence), as KenLM's ``Model.score``."""
        return math.fsum(self.scores(sentence, bos, eos))

    def bind(self, symbols: Sequence[str]) -> BoundNGram:
        """Bind to the decoder's inventory: labels' symbols or a lexicon's words.

        A symbol that the model does not know is scored as ``<unk>``.
        """
        token_of = np.array([self.id(symbol) for symbol in symbols], np.int32)
        return BoundNGram(self.trie, token_of, self.start, self.id(EOS), np.zeros(0))

    def grams(self) -> Iterator[tuple[tuple[str, ...], float, float]]:
        """Yield each n-gram with its log10 probability and backoff, shorter ones first."""
        names: list[tuple[str, ...]] = [()]
        first_child = self.trie.first_child
        parents = np.repeat(np.arange(len(first_child) - 1), np.diff(first_child))
        for node, parent in enumerate(parents.tolist(), start=1):
            names.append((*names[parent], self.tokens[self.trie.token[node]]))
            yield (
                names[node],
                float(self.trie.log10_prob[node]),
                float(self.trie.log10_backoff[node]),
            )

    def write_arpa(self, path: Path) -> None:
        """Write an ARPA file, gzipped if its name ends in .gz."""
        # The children of the first n-gram of an order are the first of the next.
        firsts = [1]
        for _ in range(self.order):
            firsts.append(int(self.trie.first_child[firsts[-1]]))
        arpa.write(path, np.diff(firsts).tolist(), self.grams())

    @classmethod
    def read_arpa(cls, path: Path) -> NGram:
        """Read an ARPA file, plain or gzipped (.gz).

        Raises:
            InputError: no such file, or a malformed line, with its number.
        """
        return cls.of(arpa.read(Path(path)))

    @classmethod
    def estimate(cls, sentences: Iterable[Sequence[str]], order: int) -> NGram:
        """Estimate by interpolated modified Kneser-Ney smoothing, unpruned.

        Chen & Goodman (1998), equations 26 and 27, with the choices of KenLM's ``lmplz``
        (Heafield et al. 2013): n-grams that begin with ``<s>`` keep their raw counts, ``<unk>`` is
        a unigram never seen, unigrams are interpolated with the uniform distribution over all
        tokens but ``<s>``, and P(<s>) is 1. Where the counts give no valid discounts, those of
        ``lmplz --discount_fallback`` are used, with a warning. Where no sentence is that long, the
        order is lower.

        Raises:
            InputError: no sentence, an order below 1, a sentence that holds a reserved token, or
                counts that would not fit the memory there is.
        """
        if order < 1:
            raise InputError(f"n-gram order must be 1 or more, found {order}")
        tokens, stream = _number(sentences)
        _check_memory(len(stream), order)
        levels = _counted(stream, order, len(tokens))
        size = 1 + sum(len(level.counts) for level in levels)
        prob, backoff = np.zeros(size), np.ones(size)
        lower = np.array([1.0 / (len(tokens) - 1)])  # uniform; <s> is never predicted
        first = 1
        for n, (parents, _, suffix, counts) in enumerate(levels, start=1):
            discount = np.array([0.0, *_discounts(counts, n)])
            grade = np.minimum(counts, 3)
            total = np.bincount(parents, counts, minlength=size)
            freed = np.bincount(parents, discount[grade], minlength=size)
            context = total > 0
            backoff[context] = freed[context] / total[context]
            here = (counts - discount[grade]) / total[parents]
            here += backoff[parents] * lower[suffix]
            if n == 1:
                here[1] = 1.0
            prob[first : first + len(here)] = here
            first += len(here)
            lower = here
        return cls.of(
            Grams(
                len(levels),
                tuple(tokens),
                np.concatenate([level.parents for level in levels]),
                np.concatenate([level.last for level in levels]),
                np.log10(np.maximum(prob, 1e-99)),
                np.log10(np.maximum(backoff, 1e-99)),
            )
        )

    @classmethod
    def of(cls, grams: Grams) -> NGram:
        """The model with these n-grams."""
        return cls(grams.order, grams.tokens, _trie(grams))


class _Level(NamedTuple):
    """The n-grams of one order: parent node, last token, suffix (a row of the order below)."""

    parents: NDArray[np.int64]
    last: NDArray[np.int64]
    suffix: NDArray[np.int64]
    counts: NDArray[np.int64]


def _counted(stream: NDArray[np.int32], order: int, n_tokens: int) -> list[_Level]:
    """The n-grams of the sentences in ``stream``, counted as Kneser and Ney do.

    The order is lower where no sentence is that long.
    """
    room = _positions_in_sentence(stream)
    unigrams = np.arange(n_tokens)
    nothing = np.zeros(n_tokens, np.int64)
    levels = [_Level(nothing, unigrams, nothing, np.bincount(stream, minlength=n_tokens))]
    from_bos = [unigrams == 1]
    # The n-gram that ends at each position of the stream.
    ending = stream.astype(np.int64) + 1
    offset = 1
    for n in range(2, min(order, int(room.max()) + 1) + 1):
        at = np.flatnonzero(room >= n - 1)
        keys = ending[at - 1] * n_tokens + stream[at]
        unique, example, inverse, count = np.unique(
            keys, return_index=True, return_inverse=True, return_counts=True
        )
        parents = unique // n_tokens
        levels.append(_Level(parents, unique % n_tokens, ending[at][example] - offset, count))
        from_bos.append(from_bos[-1][parents - offset])
        offset += len(levels[-2].parents)
        ending = np.zeros(len(stream), np.int64)
        ending[at] = offset + inverse
    # Below the highest order, count the distinct tokens to the left instead of occurrences.
    for n, (level, above) in enumerate(pairwise(levels)):
        left = np.bincount(above.suffix, minlength=len(level.counts))
        levels[n] = level._replace(counts=np.where(from_bos[n], level.counts, left))
    levels[0].counts[1] = 0
    return levels


def _number(sentences: Iterable[Sequence[str]]) -> tuple[list[str], NDArray[np.int32]]:
    """Return the tokens, sorted after the special ones, and all sentences as one stream of ids.

    ``<unk>`` in a sentence is a token like others: it stands for the words too rare to keep.
    """
    seen: dict[str, int] = {UNK: 0, BOS: 1, EOS: 2}
    stream: list[int] = []
    for sentence in sentences:
        stream.append(1)
        for token in sentence:
            number = seen.setdefault(UNK if token in UNKNOWNS else token, len(seen))
            if number in (1, 2):
                raise InputError(f"language model text holds the reserved token {token!r}")
            stream.append(number)
        stream.append(2)
    if len(seen) == 3:
        raise InputError("language model text is empty: there is no token to estimate from")
    tokens = [UNK, BOS, EOS, *sorted(t for t in seen if seen[t] > 2)]
    renumber = np.empty(len(seen), np.int32)
    for number, token in enumerate(tokens):
        renumber[seen[token]] = number
    return tokens, renumber[np.array(stream, np.int32)]


def _check_memory(n_tokens: int, order: int) -> None:
    needed, there = n_tokens * order * BYTES_A_TOKEN, available_bytes()
    if needed > there:
        raise InputError(
            f"counting {order}-grams over {n_tokens} tokens may take {needed / 1e9:.1f} GB, and "
            f"{there / 1e9:.1f} GB of memory are free; lower --order or take less text"
        )


def available_bytes() -> float:
    """Memory that can still be had, where the system tells; else no bound."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return math.inf
    return next((1024.0 * int(x.split()[1]) for x in lines if x.startswith("MemAvai")), math.inf)


def _positions_in_sentence(stream: NDArray[np.int32]) -> NDArray[np.int64]:
    starts = np.flatnonzero(stream == 1)
    lengths = np.diff(np.append(starts, len(stream)))
    return np.arange(len(stream)) - np.repeat(starts, lengths)


def _discounts(counts: NDArray[np.int64], n: int) -> tuple[float, float, float]:
    """Return D1, D2, D3+ from counts of counts (Chen & Goodman 1998, equation 26)."""
    n1, n2, n3, n4 = (int((counts == k).sum()) for k in (1, 2, 3, 4))
    if n1 and n2 and n3:
        y = n1 / (n1 + 2 * n2)
        found = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
        if all(0 <= d <= k for k, d in enumerate(found, start=1)):
            return found
    # Few are so wherever labels are few; of many it says that the text repeats itself.
    log.log(
        logging.WARNING if len(counts) >= MANY else logging.DEBUG,
        "%d-grams are too few or too regular for Kneser-Ney discounts; using %s, %s and %s",
        n,
        *FALLBACK_DISCOUNTS,
    )
    return FALLBACK_DISCOUNTS


def _trie(grams: Grams) -> Trie:
    """Build the tree for queries."""
    n_tokens, log10_prob, log10_backoff = len(grams.tokens), grams.log10_prob, grams.log10_backoff
    size = 1 + len(grams.parents)
    parents = np.concatenate([[-1], grams.parents])
    token = np.concatenate([[-1], grams.last])
    keys = parents * n_tokens + token  # rising, because a parent stands before its children
    first_child = np.searchsorted(parents, np.arange(size + 1))
    # shorter(s w) is shorter(s) w where that is a node, else shorter(shorter(s)) w, and so on
    # (the failure links of Aho & Corasick 1975), for all n-grams of an order at once.
    shorter = np.zeros(size, np.int64)
    # A node without children and backoff weight says no more than its suffix, and decoders then
    # merge more.
    plain = (first_child[:-1] == first_child[1:]) & (log10_backoff == 0)
    after = np.where(plain, 0, np.arange(size))
    best = np.full(size, -np.inf)
    np.maximum.at(best, parents[1:], np.where(token[1:] == 1, -np.inf, log10_prob[1:]))
    first = first_child[1]
    best[1:first] = np.maximum(best[1:first], log10_backoff[1:first] + best[0])
    while first < size:
        order = np.arange(first, first_child[first])
        nodes, context = order, shorter[parents[order]]
        while len(nodes):
            wanted = context * n_tokens + token[nodes]
            found = np.minimum(np.searchsorted(keys, wanted), size - 1)
            hit = keys[found] == wanted
            shorter[nodes[hit]] = found[hit]
            nodes, context = nodes[~hit], shorter[context[~hit]]
        after[order] = np.where(plain[order], after[shorter[order]], order)
        best[order] = np.maximum(best[order], log10_backoff[order] + best[shorter[order]])
        first = first_child[first]
    return Trie(
        first_child.astype(np.int32),
        token.astype(np.int32),
        log10_prob,
        log10_backoff,
        shorter.astype(np.int32),
        after.astype(np.int32),
        best,
    )


def perplexity(scores: Iterable[Sequence[float]]) -> float:
    """10 to the mean negative log10 probability of a token, the ends of sentences included."""
    every = [score for sentence in scores for score in sentence]
    mean = -math.fsum(every) / len(every)
    return 10.0**mean if mean < 300 else math.inf
