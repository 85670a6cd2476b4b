"""How often pronunciations are wrong, against a dictionary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asr.g2p.model import Pronouncer
from asr.g2p.words import Dictionary
from asr.score.alignment import align


@dataclass(frozen=True)
class Rates:
    """Shares of wrong words, and of phone errors to the phones of the reference.

    A word is right as any of its pronunciations; its phone errors are those against the nearest
    one, of several equally near ones the longest.
    """

    word_error_rate: float
    phone_error_rate: float
    words: int

    def __str__(self) -> str:
        return (
            f"{self.word_error_rate:.2%} of {self.words} words wrong, "
            f"{self.phone_error_rate:.2%} of their phones"
        )


def rates(found: Sequence[Sequence[str]], dictionary: Dictionary) -> Rates:
    """Score the phones ``found`` for each of the dictionary's words, in its order."""
    ways = list(dictionary.by_word.values())
    pairs = [(way, phones) for phones, of in zip(found, ways, strict=True) for way in of]
    alignments = align(pairs)
    word = np.repeat(np.arange(len(ways)), [len(of) for of in ways])
    errors, lengths = alignments.errors, alignments.reference_lengths
    order = np.lexsort((-lengths, errors, word))
    nearest = order[np.unique(word[order], return_index=True)[1]]
    return Rates(
        float(np.mean(errors[nearest] > 0)),
        float(errors[nearest].sum() / lengths[nearest].sum()),
        len(ways),
    )


def score(model: Pronouncer, dictionary: Dictionary) -> Rates:
    """Score what ``model`` says of the dictionary's words."""
    ways = model.pronounce(list(dictionary.by_word))
    return rates([best[0].phones if best else () for best in ways], dictionary)
