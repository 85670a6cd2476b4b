"""The words that a decoder may find, as a prefix tree of their spellings in labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr.errors import InputError
from asr.labels import SILENCE, SPACE, Labels, fold
from asr.lm.ngram import BoundNGram, NGram

#: Symbols that may stand between words in phone inventories.
SILENCES = (SILENCE, "h#", "pau")


class Tree(NamedTuple):
    """The lexicon's prefix tree in arrays, for compiled code; node 0 is the root.

    The children of node n are first_child[n] .. first_child[n + 1] - 1, label[n] leads to n, and
    the words that end at n are word[first_word[n] : first_word[n + 1]]. separators: labels that
    may stand between words; required: one of them must. most_ways: one label more leads from any
    node to at most so many nodes and words.
    """

    label: NDArray[np.int32]
    first_child: NDArray[np.int32]
    first_word: NDArray[np.int32]
    word: NDArray[np.int32]
    separators: NDArray[np.int32]
    required: bool
    most_ways: int


@dataclass(frozen=True)
class Lexicon:
    """Words and their spellings: ``spellings[i]`` are the label sequences of ``words[i]``.

    separators: labels allowed before, between and after words (one at a time): silence between
    phones' words, where it is optional, or the space between characters' words, where it is
    ``required`` between two words.
    """

    words: tuple[str, ...]
    spellings: tuple[tuple[tuple[int, ...], ...], ...]
    separators: tuple[int, ...] = ()
    required: bool = False

    @classmethod
    def build(
        cls,
        entries: Iterable[tuple[str, Sequence[int]]],
        separators: Sequence[int] = (),
        required: bool = False,
    ) -> Lexicon:
        """Collect (word, label ids) pairs; a word may come with several spellings.

        Raises:
            InputError: no entries, or a word without labels.
        """
        spellings: dict[str, dict[tuple[int, ...], None]] = {}
        for word, labels in entries:
            if len(labels) == 0:
                raise InputError(f"lexicon: word {word!r} has no labels")
            spellings.setdefault(word, {})[tuple(labels)] = None
        if not spellings:
            raise InputError("lexicon: there is no word in it")
        return cls(
            tuple(spellings), tuple(map(tuple, spellings.values())), tuple(separators), required
        )

    @classmethod
    def read(cls, path: Path, labels: Labels, folding: str = "none") -> Lexicon:
        """Read a lexicon for ``labels``.

        Phones: lines of a word and its phones, which are folded; silence is optional between words.
        Characters: one word a line (anything after it is ignored), with spaces between words.

        Raises:
            InputError: no such file, a malformed line or a stray symbol, with the line number.
        """
        entries = []
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: cannot be read as a lexicon ({error})") from error
        for number, line in enumerate(lines, start=1):
            where = f"{path}:{number}"
            word, *phones = line.split() or [""]
            if not word:
                continue
            if labels.unit == "phone" and not phones:
                raise InputError(f"{where}: expected a word and its phones, found {line.strip()!r}")
            symbols = fold(phones, folding, where) if labels.unit == "phone" else list(word)
            entries.append((word, labels.encode(symbols, where)))
            if not symbols:
                raise InputError(f"{where}: folding {folding!r} leaves no phones of {word!r}")
        if not entries:
            raise InputError(f"{path}: no words in this lexicon")
        if labels.unit == "phone":
            silences = [labels.ids[s] for s in SILENCES if s in labels.ids]
            return cls.build(entries, silences)
        if SPACE not in labels.ids:
            raise InputError(f"{path}: the {labels.unit} inventory has no {SPACE} between words")
        return cls.build(entries, [labels.ids[SPACE]], required=True)

    @cached_property
    def tree(self) -> Tree:
        """The prefix tree."""
        spelled = sorted(
            (spelling, word) for word, found in enumerate(self.spellings) for spelling in found
        )
        # Level by level, so that siblings stand side by side and parents before children.
        label, first_child = [-1], []
        words: list[list[int]] = [[]]
        ranges = [(0, len(spelled))]  # the spellings below each node
        depth, level = 0, range(1)
        while level:
            begin = len(label)
            for node in level:
                first_child.append(len(label))
                low, high = ranges[node]
                while low < high:
                    spelling, word = spelled[low]
                    if len(spelling) == depth:
                        words[node].append(word)
                        low += 1
                        continue
                    end = low
                    while end < high and spelled[end][0][depth] == spelling[depth]:
                        end += 1
                    label.append(spelling[depth])
                    words.append([])
                    ranges.append((low, end))
                    low = end
            level = range(begin, len(label))
            depth += 1
        first_child.append(len(label))
        first_word = np.cumsum([0] + [len(w) for w in words])
        ways = np.diff(first_child) + np.diff(first_word[first_child])
        return Tree(
            np.array(label, np.int32),
            np.array(first_child, np.int32),
            first_word.astype(np.int32),
            np.array([w for found in words for w in found], np.int32),
            np.array(self.separators, np.int32),
            self.required,
            int(ways.max()) + len(self.separators),
        )

    def labels_to(self, node: int) -> tuple[int, ...]:
        """Return the labels on the way from the root of the tree to ``node``."""
        labels = []
        while node > 0:
            labels.append(int(self.tree.label[node]))
            node = int(np.searchsorted(self.tree.first_child, node, side="right")) - 1
        return tuple(reversed(labels))

    def bind(self, ngram: NGram) -> BoundNGram:
        """Bind a word n-gram to this lexicon, with its look-ahead.

        ``ahead[node]`` is the best unigram log10 probability of the words at or below a node: what
        a half-spoken word counts until its own score is known (Ortmanns et al. 1996).
        """
        bound = ngram.bind(self.words)
        tree = self.tree
        unigram = bound.trie.log10_prob[1 + bound.token_of[tree.word]]
        ahead = np.full(len(tree.label), -np.inf)
        np.maximum.at(
            ahead, np.repeat(np.arange(len(tree.label)), np.diff(tree.first_word)), unigram
        )
        parent = np.repeat(np.arange(len(tree.label)), np.diff(tree.first_child))
        for node in range(len(tree.label) - 1, 0, -1):  # children stand after their parents
            ahead[parent[node - 1]] = max(ahead[parent[node - 1]], ahead[node])
        return bound._replace(ahead=ahead)
