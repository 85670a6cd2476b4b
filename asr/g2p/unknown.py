"""Words that a lexicon lacks, pronounced by their letters."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from asr.decode.lexicon import Lexicon, Pronounce
from asr.decode.pronunciations import MOST_TOLD, Entry, as_known, read_entries
from asr.g2p.words import lexicon_line
from asr.labels import Labels, fold, folding_named
from asr.system.files import write_text
from asr.system.text import counted

if TYPE_CHECKING:
    from asr.g2p.model import Pronouncer

log = logging.getLogger(__name__)

#: The model that comes along, trained on CMUdict's words.
ENGLISH = Path(__file__).parent / "english"
#: Where pronunciations of unknown words are written in a folder, and read again.
PRONOUNCED = "pronounced.txt"
Spoken = tuple[str, list[str]]
"""A word and its phones."""


def folder_of(model: str) -> Path:
    """The folder of a model that is named so, or its own path."""
    return ENGLISH if model == "english" else Path(model)


@cache
def _english() -> Pronouncer | None:
    try:
        from asr.g2p.model import Pronouncer
    except ModuleNotFoundError as error:
        log.warning(
            "%s is not installed: words that the lexicon lacks are not pronounced by their letters",
            error.name,
        )
        return None
    return Pronouncer.load(ENGLISH)


class Pronounced(NamedTuple):
    """Words with their phones. guessed: by their letters; taken: from a corrected file, in which
    others are that nobody asked for."""

    guessed: Sequence[Spoken] = ()
    taken: Sequence[Spoken] = ()
    others: Sequence[Spoken] = ()

    @property
    def entries(self) -> list[Spoken]:
        """All of them."""
        return [*self.others, *self.taken, *self.guessed]


def pronounced(
    words: Iterable[str], labels: Labels, folding: str, corrected: Path | None = None
) -> Pronounced:
    """Words and their pronunciations in a model's phones, as English has them.

    corrected: a lexicon whose words are taken from there. Words in other letters, and all where
    the model has other phones or PyTorch is missing, are left out.

    Raises:
        InputError: ``corrected`` cannot be read, or has phones that the model lacks.
    """
    wanted = dict.fromkeys(words)
    known = folding_named(folding) or labels.ids
    taken: list[Spoken] = []
    others: list[Spoken] = []
    if corrected is not None and corrected.is_file():
        for where, word, phones, _ in read_entries(corrected, known):
            symbols = fold(phones, folding, where)
            labels.encode(symbols, where)
            (taken if word in wanted else others).append((word, symbols))
    there = {word for word, _ in taken}
    rest = [word for word in wanted if word not in there]
    pronouncer = _english() if rest else None
    if pronouncer is None:
        return Pronounced((), taken, others)
    said = [
        Entry("asr g2p", word, ways[0].phones)
        for word, ways in zip(rest, pronouncer.pronounce(rest), strict=True)
        if ways
    ]
    guessed: list[Spoken] = []
    for where, word, phones, _ in as_known(said, known, cmudict=True):
        if all(phone in known for phone in phones):
            symbols = fold(phones, folding, where)
            if symbols and all(symbol in labels.ids for symbol in symbols):
                guessed.append((word, symbols))
    return Pronounced(guessed, taken, others)


def pronouncing(
    labels: Labels, folding: str, path: Path | None, tell: Callable[[str], None]
) -> Pronounce:
    """What gives words their labels as `pronounced` does, and tells and writes what it guesses.

    path: where corrected words are taken from, and guessed ones written.
    """

    def pronounce(words: Iterable[str]) -> list[tuple[str, list[int]]]:
        found = pronounced(words, labels, folding, path)
        if line := noted(found, path):
            tell(line)
        return [(word, labels.encode(phones)) for word, phones in (*found.taken, *found.guessed)]

    return pronounce


def extended(lexicon: Lexicon, found: Iterable[Spoken], labels: Labels) -> Lexicon:
    """The lexicon with these words beside its own."""
    return lexicon.with_entries([(word, labels.encode(phones)) for word, phones in found])


def noted(found: Pronounced, path: Path | None) -> str:
    """Write guessed words to ``path``, to correct them there; return a line about what was found.

    The line is empty where nothing was.
    """
    parts = []
    if found.guessed:
        shown = ", ".join(f"{word} ({' '.join(said)})" for word, said in found.guessed[:MOST_TOLD])
        parts.append(
            f"{counted(len(found.guessed), 'word')} without a pronunciation, taken by the letters: "
            f"{shown}{', ...' * (len(found.guessed) > MOST_TOLD)}"
        )
        if path is not None:
            write_text(path, lines(found.entries))
            parts[-1] += f"; correct them in {path} and run again"
    if found.taken:
        n_taken = len({word for word, _ in found.taken})
        parts.append(f"{counted(n_taken, 'word')} that the lexicon lacks taken from {path}")
    return "; ".join(parts)


def lines(found: Iterable[Spoken]) -> str:
    """A lexicon of the words, to correct."""
    return "".join(lexicon_line(word, phones) + "\n" for word, phones in found)
