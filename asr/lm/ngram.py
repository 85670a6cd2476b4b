"""Backoff n-gram language models: estimate, read and write ARPA, query.

An n-gram model is a tree: the root is the empty context, the node reached by the tokens
w1 .. wn is that n-gram, and a node is at the same time the context (the state) in which the next
token is looked up. Probabilities are base-10 logarithms, as ARPA files have them.
"""

from __future__ import annotations

import gzip
import logging
import math
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr.errors import InputError
from asr.system.files import write_aside
from asr.system.jit import compiled
from asr.system.text import nfc

log = logging.getLogger(__name__)

UNK, BOS, EOS = "<unk>", "<s>", "</s>"
#: How texts and ARPA files write the unknown token.
UNKNOWNS = (UNK, "<UNK>")
#: log10 P(<unk>) where the ARPA file has none, as KenLM's ``unknown_missing_logprob``.
MISSING_UNK = -100.0
#: D1, D2, D3+ where the counts give none, as ``lmplz --discount_fallback``.
#: Of so many n-grams of one order, discounts ought to be there.
MANY = 1000
FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)
#: Real n-grams unpack to some 5 times their size in gzip, ever the same line to 1000 times.
MOST_PACKED = 100
LONGEST_LINE = 1 << 20


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
        for node, parent in enumerate(_parents(self.trie.first_child).tolist(), start=1):
            names.append((*names[parent], self.tokens[self.trie.token[node]]))
            yield (
                names[node],
                float(self.trie.log10_prob[node]),
                float(self.trie.log10_backoff[node]),
            )

    def write_arpa(self, path: Path) -> None:
        """Write an ARPA file, gzipped if its name ends in .gz."""
        depths = np.zeros(len(self.trie.token), np.int64)
        for node, parent in enumerate(_parents(self.trie.first_child).tolist(), start=1):
            depths[node] = depths[parent] + 1
        counts = np.bincount(depths, minlength=self.order + 1)[1:]
        with write_aside(path) as aside, _open(aside, "wt") as out:
            out.write("\\data\\\n")
            out.writelines(f"ngram {n}={count}\n" for n, count in enumerate(counts, start=1))
            depth = 0
            for gram, prob, backoff in self.grams():
                if len(gram) > depth:
                    depth = len(gram)
                    out.write(f"\n\\{depth}-grams:\n")
                tail = f"\t{backoff:.7g}" if depth < self.order else ""
                out.write(f"{prob:.7g}\t{' '.join(gram)}{tail}\n")
            out.write("\n\\end\\\n")

    @classmethod
    def read_arpa(cls, path: Path) -> NGram:
        """Read an ARPA file, plain or gzipped (.gz).

        Raises:
            InputError: no such file, or a malformed line, with its number.
        """
        try:
            return _parse_arpa(_lines(Path(path)), path)
        except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
            raise InputError(f"{path}: cannot be read as an ARPA file ({error})") from error

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
        room = _positions_in_sentence(stream)
        order = min(order, int(room.max()) + 1)
        # Per order (index n - 1): each n-gram's parent node, last token, suffix (a row of the order
        # below) and counts. `ending` is the n-gram that ends at each position of the stream.
        ending = stream.astype(np.int64) + 1
        parents = [np.zeros(len(tokens), np.int64)]
        last = [np.arange(len(tokens))]
        suffix = [np.zeros(len(tokens), np.int64)]
        counts = [np.bincount(stream, minlength=len(tokens))]
        from_bos = [last[0] == 1]
        offset = 1
        for n in range(2, order + 1):
            at = np.flatnonzero(room >= n - 1)
            keys = ending[at - 1] * len(tokens) + stream[at]
            unique, example, inverse, count = np.unique(
                keys, return_index=True, return_inverse=True, return_counts=True
            )
            parents.append(unique // len(tokens))
            last.append(unique % len(tokens))
            suffix.append(ending[at][example] - offset)
            counts.append(count)
            from_bos.append(from_bos[-1][parents[-1] - offset])
            offset += len(parents[-2])
            ending = np.zeros(len(stream), np.int64)
            ending[at] = offset + inverse
        # Below the highest order, count the distinct tokens to the left instead of occurrences.
        for n in range(order - 1):
            left = np.bincount(suffix[n + 1], minlength=len(counts[n]))
            counts[n] = np.where(from_bos[n], counts[n], left)
        counts[0][1] = 0

        size = 1 + sum(len(c) for c in counts)
        prob, backoff = np.zeros(size), np.ones(size)
        lower = np.array([1.0 / (len(tokens) - 1)])  # uniform; <s> is never predicted
        first = 1
        for n in range(order):
            discount = np.array([0.0, *_discounts(counts[n], n + 1)])
            grade = np.minimum(counts[n], 3)
            total = np.bincount(parents[n], counts[n], minlength=size)
            freed = np.bincount(parents[n], discount[grade], minlength=size)
            context = total > 0
            backoff[context] = freed[context] / total[context]
            here = (counts[n] - discount[grade]) / total[parents[n]]
            here += backoff[parents[n]] * lower[suffix[n]]
            if n == 0:
                here[1] = 1.0
            prob[first : first + len(here)] = here
            first += len(here)
            lower = here
        return cls(
            order,
            tuple(tokens),
            _trie(
                np.concatenate(parents),
                np.concatenate(last),
                len(tokens),
                np.log10(np.maximum(prob, 1e-99)),
                np.log10(np.maximum(backoff, 1e-99)),
            ),
        )


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


def _trie(
    parents: NDArray[np.int64],
    last: NDArray[np.int64],
    n_tokens: int,
    log10_prob: NDArray[np.float64],
    log10_backoff: NDArray[np.float64],
) -> Trie:
    """Build the tree from the parent and last token of each n-gram, sorted by (parent, token)."""
    size = 1 + len(parents)
    parents = np.concatenate([[-1], parents])
    token = np.concatenate([[-1], last])
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
        log10_prob.astype(np.float64),
        log10_backoff.astype(np.float64),
        shorter.astype(np.int32),
        after.astype(np.int32),
        best,
    )


def _parents(first_child: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return the parent of each node but the root."""
    return np.repeat(np.arange(len(first_child) - 1), np.diff(first_child))


def _open(path: Path, mode: str) -> IO[str]:
    encoding = "utf-8-sig" if mode == "rt" else "utf-8"
    if path.suffix == ".gz":
        return gzip.open(path, mode, encoding=encoding)  # type: ignore[return-value]
    return path.open(mode.rstrip("t"), encoding=encoding)


def _lines(path: Path) -> Iterator[str]:
    """The lines of a file, which may be a bomb: gzip packs a gigabyte of zeros in a megabyte."""
    most = path.stat().st_size * MOST_PACKED if path.suffix == ".gz" else math.inf
    n_read = 0
    with _open(path, "rt") as handle:
        while line := handle.readline(LONGEST_LINE):
            n_read += len(line)
            if len(line) == LONGEST_LINE:
                raise InputError(f"{path}: no ARPA file: a line has {LONGEST_LINE} characters")
            if n_read > most:
                raise InputError(f"{path}: no ARPA file: unpacks to {MOST_PACKED} times its size")
            yield nfc(line)


def _parse_arpa(lines: Iterable[str], path: Path) -> NGram:
    """Read the sections of an ARPA file; the n-grams of a section may stand in any order."""
    declared: dict[int, int] = {}
    tokens = {UNK: 0, BOS: 1, EOS: 2}
    # Node of each n-gram by (node of its context, token), and by node: that key and its values.
    # Nodes are numbered as read here and sorted at the end.
    keys: dict[tuple[int, int], int] = {}
    probs, backoffs = [0.0], [0.0]
    section = 0  # 0 is \data\, n is \n-grams:
    found = 0
    number = 0
    state = "head"

    def fail(number: int, message: str) -> InputError:
        return InputError(f"{path}:{number}: {message}")

    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if state == "head":
            if text == "\\data\\":
                state = "data"
            continue
        if not text:
            continue
        if text.startswith("\\") and (text.endswith("-grams:") or text == "\\end\\"):
            if not declared:
                raise fail(number, "no 'ngram N=COUNT' line before the first section")
            if section and found != declared[section]:
                raise fail(
                    number, f"\\data\\ promises {declared[section]} {section}-grams, found {found}"
                )
            expected = "\\end\\" if section == len(declared) else f"\\{section + 1}-grams:"
            if text != expected:
                raise fail(number, f"expected {expected}, found {text}")
            if text == "\\end\\":
                state = "end"
                break
            section, found, state = section + 1, 0, "grams"
        elif state == "data":
            name, _, count = text.partition("=")
            order = name.removeprefix("ngram").strip()
            if not re.fullmatch(r"ngram\s*\d{1,9}\s*=\s*\d{1,15}", text):
                raise fail(number, f"expected 'ngram N=COUNT', found {text!r}")
            if int(order) != len(declared) + 1:
                raise fail(number, f"expected 'ngram {len(declared) + 1}=COUNT', found {text!r}")
            declared[int(order)] = int(count)
        else:
            fields = text.split()
            if len(fields) not in (section + 1, section + 2):
                raise fail(
                    number,
                    f"expected a log10 probability, {section} tokens and perhaps a backoff weight, "
                    f"found {len(fields)} fields",
                )
            try:
                prob = float(fields[0])
                backoff = float(fields[section + 1]) if len(fields) == section + 2 else 0.0
            except ValueError as error:
                raise fail(number, f"not a number ({error})") from error
            if math.isnan(prob) or math.isnan(backoff) or prob > 0 or backoff == math.inf:
                raise fail(number, "a log10 probability must be a number of at most 0")
            gram = [UNK if w in UNKNOWNS else w for w in fields[1 : section + 1]]
            if section == 1:
                tokens.setdefault(gram[0], len(tokens))
            context = 0
            for depth, token in enumerate(gram):
                number_of = tokens.get(token)
                if number_of is None:
                    raise fail(number, f"token {token!r} is not among the 1-grams")
                key = (context, number_of)
                if depth == section - 1:
                    if key in keys:
                        raise fail(number, f"{section}-gram {' '.join(gram)!r} stands twice")
                    keys[key] = len(probs)
                    probs.append(prob)
                    backoffs.append(backoff)
                elif key not in keys:
                    raise fail(
                        number, f"context {' '.join(gram[: depth + 1])!r} is not among its n-grams"
                    )
                else:
                    context = keys[key]
            found += 1
    if state != "end":
        missing = "\\data\\" if state == "head" else "\\end\\"
        raise fail(number, f"the file ends before {missing}")
    return _sorted_model(len(declared), tokens, keys, probs, backoffs)


def _sorted_model(
    order: int,
    tokens: dict[str, int],
    keys: dict[tuple[int, int], int],
    probs: list[float],
    backoffs: list[float],
) -> NGram:
    """Number the nodes by (order, parent, token)."""
    for special, prob in ((0, MISSING_UNK), (1, 0.0), (2, MISSING_UNK)):
        if (0, special) not in keys:
            keys[(0, special)] = len(probs)
            probs.append(prob)
            backoffs.append(0.0)
    levels: list[list[tuple[int, int, int]]] = [[] for _ in range(order)]
    depth = {0: 0}
    for (context, token), node in sorted(keys.items(), key=lambda item: item[1]):
        depth[node] = depth[context] + 1
        levels[depth[context]].append((context, token, node))
    renumbered = {0: 0}
    rows: list[tuple[int, int, int]] = []
    for level in levels:
        for context, token, node in sorted((renumbered[c], t, n) for c, t, n in level):
            renumbered[node] = len(rows) + 1
            rows.append((context, token, node))
    parents, last, nodes = np.array(rows, np.int64).T
    picked = np.concatenate([[0], nodes])
    return NGram(
        order,
        tuple(tokens),
        _trie(parents, last, len(tokens), np.array(probs)[picked], np.array(backoffs)[picked]),
    )
