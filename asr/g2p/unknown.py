"""Words that a lexicon lacks, pronounced by their letters."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

from asr.decode.lexicon import Lexicon
from asr.decode.pronunciations import MOST_TOLD, Entry, as_known, read_entries
from asr.g2p.model import Pronouncer
from asr.g2p.words import lexicon_line
from asr.labels import Labels, fold, folding_named

#: The model that comes along, trained on CMUdict's words.
ENGLISH = Path(__file__).parent / "english"


def folder_of(model: str) -> Path:
    """The folder of a model that is named so, or its own path."""
    return ENGLISH if model == "english" else Path(model)


@cache
def _english() -> Pronouncer:
    return Pronouncer.load(ENGLISH)


def pronounced(
    words: Iterable[str], labels: Labels, folding: str, corrected: Path | None = None
) -> list[tuple[str, list[str]]]:
    """Words and their pronunciations in a model's phones, as English has them.

    corrected: a lexicon whose words are taken from there. Words in other letters, and all where
    the model has other phones, are left out.

    Raises:
        InputError: ``corrected`` cannot be read, or has phones that the model lacks.
    """
    wanted = dict.fromkeys(words)
    known = folding_named(folding) or labels.ids
    found: list[tuple[str, list[str]]] = []
    if corrected is not None and corrected.is_file():
        for where, word, phones, _ in read_entries(corrected, known):
            symbols = fold(phones, folding, where)
            labels.encode(symbols, where)
            found.append((word, symbols))
    there = {word for word, _ in found}
    rest = [word for word in wanted if word not in there]
    if not rest:
        return found
    guessed = [
        Entry("asr g2p", word, ways[0].phones)
        for word, ways in zip(rest, _english().pronounce(rest), strict=True)
        if ways
    ]
    for where, word, phones, _ in as_known(guessed, known, cmudict=True):
        if all(phone in known for phone in phones):
            symbols = fold(phones, folding, where)
            if symbols and all(symbol in labels.ids for symbol in symbols):
                found.append((word, symbols))
    return found


def extended(lexicon: Lexicon, found: Iterable[tuple[str, list[str]]], labels: Labels) -> Lexicon:
    """The lexicon with these words beside its own."""
    return lexicon.with_entries([(word, labels.encode(phones)) for word, phones in found])


def told(found: list[tuple[str, list[str]]]) -> str:
    """A line about words that were pronounced."""
    shown = [f"{word} ({' '.join(phones)})" for word, phones in found[:MOST_TOLD]]
    return (
        f"{len({word for word, _ in found})} words that the lexicon lacks are pronounced by their "
        f"letters: {', '.join(shown)}{', ...' * (len(found) > MOST_TOLD)}"
    )


def lines(found: Iterable[tuple[str, list[str]]]) -> str:
    """A lexicon of the words, to correct."""
    return "".join(lexicon_line(word, phones) + "\n" for word, phones in found)
