"""Words as letters, and what a dictionary says of them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asr.decode.pronunciations import STRESS, Entry, read_entries
from asr.errors import InputError
from asr.labels import BLANK_SYMBOL, CMU_40, Labels
from asr.system.text import nfc

#: The letter before the first and after the last of a word.
EDGE = 0
#: What stands for the edge in a list of letters: no letter of a word, which has no white space.
EDGE_SYMBOL = " "


@dataclass(frozen=True)
class Letters:
    """An inventory: ``symbols[id]``, the edge of a word first. folded: case makes no difference."""

    symbols: tuple[str, ...]
    folded: bool

    @cached_property
    def ids(self) -> dict[str, int]:
        """Letter -> id."""
        return {letter: i for i, letter in enumerate(self.symbols)}

    def encode(self, word: str) -> list[int] | None:
        """A word's ids, an edge before and after; None where it has none, or one that is not known.

        A letter with an accent that is not known is taken without it.
        """
        ids = [EDGE]
        for letter in nfc(word.casefold() if self.folded else word):
            known = self.ids.get(letter)
            if known is None:
                known = self.ids.get(unicodedata.normalize("NFD", letter)[0])
            if known is None:
                return None
            ids.append(known)
        return [*ids, EDGE] if len(ids) > 1 else None

    @classmethod
    def of(cls, words: Iterable[str]) -> Letters:
        """All letters of ``words``, which are folded where they are so already."""
        words = list(words)
        letters = {letter for word in words for letter in word}
        return cls((EDGE_SYMBOL, *sorted(letters)), all(word == word.casefold() for word in words))


@dataclass(frozen=True)
class Dictionary:
    """Words and their pronunciations, each once. source: the file."""

    source: Path
    entries: tuple[Entry, ...]

    @cached_property
    def by_word(self) -> dict[str, list[tuple[str, ...]]]:
        """The pronunciations of each word."""
        found: dict[str, list[tuple[str, ...]]] = {}
        for entry in self.entries:
            found.setdefault(entry.word, []).append(entry.phones)
        return found

    @classmethod
    def read(cls, path: Path, known: Sequence[str] = ()) -> Dictionary:
        """Read one in any form of `read_entries`, without stress.

        known: phones that a model has; by default CMUdict's stress is taken off what has it.

        Raises:
            InputError: it cannot be read, or a word has no phones.
        """
        entries = read_entries(path, known)
        if not known:
            entries = read_entries(path, unstressed(entries))
        for entry in entries:
            if not entry.phones:
                raise InputError(f"{entry.where}: expected a word and its phones, found the word")
        once = {(entry.word, entry.phones): entry for entry in entries}
        return cls(Path(path), tuple(once.values()))

    def phones(self) -> Labels:
        """The inventory of its phones."""
        seen = {phone for entry in self.entries for phone in entry.phones}
        return Labels("phone", (BLANK_SYMBOL, *sorted(seen)))


def unstressed(entries: Iterable[Entry]) -> set[str]:
    """The phones, CMUdict's without their stress; figures of other phones may be tones."""
    phones = {phone for entry in entries for phone in entry.phones}
    bare = {phone.rstrip(STRESS) for phone in phones}
    return bare if {phone.lower() for phone in bare} <= CMU_40.keys() else phones


def padded(rows: Sequence[Sequence[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows side by side, (N, longest), zero beyond their lengths (N,), and these."""
    lens = np.array([len(row) for row in rows])
    table = np.zeros((len(rows), lens.max(initial=0)), np.int64)
    table[np.arange(table.shape[1]) < lens[:, None]] = [i for row in rows for i in row]
    return table, lens


def lexicon_line(word: str, phones: Sequence[str], probability: float | None = None) -> str:
    """A line of a dictionary, as `read_entries` takes it."""
    shown = [] if probability is None else [f"{probability:.4f}"]
    return "\t".join([word, *shown, " ".join(phones)])
