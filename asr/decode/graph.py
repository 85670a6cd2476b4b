"""The search for words as one graph, for decoders of other programs: what OpenFst calls an HLG.

Labels go in, a frame each, and words come out; weights are costs, natural logarithms with the
other sign. What is searched and what it counts is that of `asr.decode.search.words`, but that a
decoder of graphs takes the best path where we sum over all, and that it may back off to a shorter
context where the longer one knows the word, if that is cheaper, as such graphs do (Mohri et al.
2002): it never is where n-grams are interpolated, as those of `asr lm train` are.

A state of the language model has a prefix tree of the words that it knows itself, and goes on to
that of the next shorter context at the price of backing off. Inside a word, a tree's node is two
states, the label and the blank after it. After a word the last label is known, since the same label
again needs a blank between.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np

from asr.decode.decoder import Decoder
from asr.decode.lexicon import Lexicon
from asr.labels import BLANK
from asr.lm.ngram import BoundNGram, advance
from asr.system.files import write_aside

#: The arcs of OpenFst's "standard" type, as its files have them. 0 in and out is nothing.
ARC = np.dtype([("into", "<i4"), ("out", "<i4"), ("cost", "<f4"), ("to", "<i4")])
NOTHING = 0
#: Header of an OpenFst file: magic number, types, version, flags (no tables of symbols), and
#: properties (it is all there, and can be changed; nothing else is promised).
MAGIC, VERSION, FLAGS, PROPERTIES = 2125659606, 2, 0, 3


class Way(NamedTuple):
    """A word as a state of the language model knows it: what it costs, and the state after it."""

    spelling: tuple[int, ...]
    word: int
    cost: float
    after: int


class Step(NamedTuple):
    """A frame of ``label``, which leads to a state, costs, and may end a word (else -1)."""

    label: int
    to: int
    cost: float
    word: int = -1


class WordGraph:
    """The words of ``lexicon`` under ``lm``, as states that are made when first named.

    Args:
        lexicon: without words that are spelled.
        lm: bound to the lexicon, or none.
        scale: of its base-10 logarithms.
        bonus: of each word.
        label_costs: (V,) of each label, a frame each time.
    """

    def __init__(
        self,
        lexicon: Lexicon,
        lm: BoundNGram | None,
        scale: float,
        bonus: float,
        label_costs: Sequence[float],
    ) -> None:
        self.lexicon, self.lm, self.scale, self.bonus = lexicon, lm, scale, bonus
        self.label_costs = label_costs
        self.arcs: list[list[tuple[int, int, float, int]]] = []
        self.finals: list[float] = []
        self._ids: dict[tuple[object, ...], int] = {}
        self._waiting: list[tuple[object, ...]] = []
        self._trees: dict[int, list[Step]] = {}
        self._words_of: dict[int, list[int]] = {}
        for word, token in enumerate([] if lm is None else lm.token_of.tolist()):
            self._words_of.setdefault(token, []).append(word)
        self._at("begin", 0 if lm is None else lm.start)
        while self._waiting:
            key = self._waiting.pop()
            getattr(self, f"_{key[0]}")(self._ids[key], *key[1:])

    def write(self, path: Path) -> None:
        """Write it as OpenFst's ``VectorFst<StdArc>``, whole or not at all."""
        n_arcs = sum(map(len, self.arcs))
        counts = (VERSION, FLAGS, PROPERTIES, 0, len(self.arcs), n_arcs)
        parts = [struct.pack("<i", MAGIC)]
        parts += [struct.pack("<i", len(name)) + name for name in (b"vector", b"standard")]
        parts.append(struct.pack("<iiQqqq", *counts))
        for final, arcs in zip(self.finals, self.arcs, strict=True):
            parts += [struct.pack("<fq", final, len(arcs)), np.array(arcs, ARC).tobytes()]
        with write_aside(path) as aside:
            aside.write_bytes(b"".join(parts))

    def _at(self, *key: object) -> int:
        """The state of a kind and place, made where it is new."""
        if key not in self._ids:
            self._ids[key] = len(self.arcs)
            self.arcs.append([])
            self.finals.append(math.inf)
            self._waiting.append(key)
        return self._ids[key]

    def _says(self, here: int, label: int, to: int, cost: float = 0.0, word: int = -1) -> None:
        """A frame of ``label``; labels count from 1 in the graph, and so do words."""
        self.arcs[here].append((label + 1, word + 1, cost + self.label_costs[label], to))

    def _goes_on(self, here: int, to: int, cost: float = 0.0) -> None:
        """Without a frame."""
        self.arcs[here].append((NOTHING, NOTHING, cost, to))

    def _begin(self, here: int, state: int) -> None:
        self.finals[here] = self._end(state)
        self._says(here, BLANK, here)
        self._separate(here, state, BLANK)
        self._goes_on(here, self._at("words", state, BLANK))

    def _after(self, here: int, state: int, last: int) -> None:
        """In the last label of a word, or (the blank) after it."""
        self._stay("after", here, state, last)
        self._separate(here, state, last)
        if not self.lexicon.required:
            self._goes_on(here, self._at("words", state, last))

    def _separated(self, here: int, state: int, last: int) -> None:
        """In a separator, or (the blank) after it."""
        self._stay("separated", here, state, last)
        self._goes_on(here, self._at("words", state, last))

    def _stay(self, kind: str, here: int, state: int, last: int) -> None:
        """More frames of ``last``, then blanks; or the end."""
        self.finals[here] = self._end(state)
        self._says(here, last, here)
        if last != BLANK:
            self._says(here, BLANK, self._at(kind, state, BLANK))

    def _separate(self, here: int, state: int, last: int) -> None:
        for label in self.lexicon.separators:
            if label != last:
                self._says(here, label, self._at("separated", state, label))

    def _words(self, here: int, state: int, last: int) -> None:
        """Where a word begins, other than with the label ``last``."""
        if state not in self._trees:
            self._trees[state] = self._steps(self._ways(state), 0, 0.0)
        self._take(here, self._trees[state], last)
        if state:
            assert self.lm is not None
            trie = self.lm.trie
            cost = -self.scale * float(trie.log10_backoff[state])
            self._goes_on(here, self._at("words", int(trie.shorter[state]), last), cost)

    def _take(self, here: int, steps: list[Step], last: int) -> None:
        for label, to, cost, word in steps:
            if label != last:
                self._says(here, label, to, cost, word)

    def _steps(self, ways: list[Way], depth: int, paid: float) -> list[Step]:
        """The ways on after the first ``depth`` labels, which ``ways`` have in common.

        What a word costs is paid as soon as it is sure: the least of all that may yet come.
        """
        steps = []
        for label, group in groupby(ways, key=lambda way: way.spelling[depth]):
            below = list(group)
            for way in below:
                if len(way.spelling) == depth + 1:
                    to = self._at("after", way.after, label)
                    steps.append(Step(label, to, way.cost - paid, way.word))
            longer = [way for way in below if len(way.spelling) > depth + 1]
            if longer:
                least = min(way.cost for way in longer)
                to = self._inside(label, longer, depth + 1, least)
                steps.append(Step(label, to, least - paid))
        return steps

    def _inside(self, label: int, ways: list[Way], depth: int, paid: float) -> int:
        """A new state in ``label``, and one in the blank after it."""
        said, rest = len(self.arcs), len(self.arcs) + 1
        self.arcs += [[], []]
        self.finals += [math.inf, math.inf]
        self._says(said, label, said)
        self._says(said, BLANK, rest)
        self._says(rest, BLANK, rest)
        steps = self._steps(ways, depth, paid)
        self._take(said, steps, label)
        self._take(rest, steps, BLANK)
        return said

    def _ways(self, state: int) -> list[Way]:
        """What ``state`` knows of words itself, in the order of a prefix tree."""
        return sorted(
            Way(spelling, word, cost - self.bonus, after)
            for word, cost, after in self._known(state)
            for spelling in self.lexicon.spellings[word]
        )

    def _known(self, state: int) -> list[tuple[int, float, int]]:
        """The words that ``state`` knows itself, with their costs and the states after them."""
        if self.lm is None:
            return [(word, 0.0, 0) for word in range(len(self.lexicon.words))]
        trie = self.lm.trie
        first, last = trie.first_child[state], trie.first_child[state + 1]
        return [
            (word, -self.scale * float(trie.log10_prob[child]), int(trie.after[child]))
            for child in range(first, last)
            for word in self._words_of.get(int(trie.token[child]), ())
        ]

    def _end(self, state: int) -> float:
        if self.lm is None:
            return 0.0
        return -self.scale * float(advance(self.lm.trie, state, self.lm.end_token)[0])


def word_graph(decoder: Decoder) -> WordGraph:
    """What ``decoder`` searches words in, but for hotwords, words outside the lexicon and a second
    pass; its language model over words is an n-gram, or there is none."""
    search, lexicon = decoder.word_search, decoder.lexicon
    assert lexicon is not None
    scoring = search.words.scoring
    costs = np.zeros(len(decoder.labels))
    if decoder.log_priors is not None:
        costs = decoder.config.word_prior_weight * decoder.log_priors.astype(float)
    lm = search.words.lm if scoring.lm_scale else None
    return WordGraph(lexicon, lm, scoring.lm_scale, scoring.bonus, costs.tolist())
