"""Word, character and phone error rates: counts over a whole corpus, never a mean of rates.

    error rate = (substitutions + deletions + insertions) / (substitutions + deletions + hits)

`align` is the one rich result; everything shown or written is a view of it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, NamedTuple

from asr.errors import InputError
from asr.labels import SILENCE, SILENCE_POLICIES, fold
from asr.types import Scores

RATE_NAMES = {"word": "WER", "char": "CER", "phone": "PER"}
UNIT_NAMES = {"word": "words", "char": "characters", "phone": "phones"}
#: What is silence before folding, too. Closures are silence only once timit39 has made them so.
SILENCES = frozenset({SILENCE, "h#", "pau"})

_SILENCE_SHOWN = {"count": "counted", "merge": "merged", "ignore": "ignored"}
_ERRORS = {"equal": "", "substitute": "S", "delete": "D", "insert": "I"}


class Column(NamedTuple):
    """One column of an alignment: ``error`` is "" (a hit), "S", "D" or "I"."""

    reference: str | None
    hypothesis: str | None
    error: str


@dataclass(frozen=True, slots=True)
class Alignment:
    """One utterance's reference set against its hypothesis, with its counts."""

    columns: tuple[Column, ...]
    hits: int
    substitutions: int
    deletions: int
    insertions: int

    @classmethod
    def of(cls, columns: Iterable[Column]) -> Alignment:
        """Count the errors of ``columns``."""
        listed = tuple(columns)
        errors = Counter(column.error for column in listed)
        return cls(listed, errors[""], errors["S"], errors["D"], errors["I"])

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def reference_length(self) -> int:
        return self.hits + self.substitutions + self.deletions


def align(pairs: Iterable[tuple[Sequence[str], Sequence[str]]]) -> list[Alignment]:
    """Align (reference, hypothesis) token sequences by minimum edit distance, through jiwer.

    Tokens may be any strings, spaces and empty ones included; either side may be empty.
    """
    import jiwer

    # jiwer would split strings at spaces; the empty Compose leaves lists of tokens as they are.
    references: Any = []
    hypotheses: Any = []
    for reference, hypothesis in pairs:
        references.append(list(reference))
        hypotheses.append(list(hypothesis))
    as_is = jiwer.Compose([])
    output = jiwer.process_words(references, hypotheses, as_is, as_is)
    alignments = []
    for reference, hypothesis, chunks in zip(
        references, hypotheses, output.alignments, strict=True
    ):
        columns: list[Column] = []
        for chunk in chunks:
            said = reference[chunk.ref_start_idx : chunk.ref_end_idx]
            heard = hypothesis[chunk.hyp_start_idx : chunk.hyp_end_idx]
            error = _ERRORS[chunk.type]
            columns += [Column(r, h, error) for r, h in zip_longest(said, heard)]
        alignments.append(Alignment.of(columns))
    return alignments


def total(alignments: Iterable[Alignment], unit: str, policy: str) -> Scores:
    """Add up the counts of a corpus. ``policy`` says how tokens were made: see `policy_name`."""
    hits = substitutions = deletions = insertions = utterances = wrong = 0
    for alignment in alignments:
        hits += alignment.hits
        substitutions += alignment.substitutions
        deletions += alignment.deletions
        insertions += alignment.insertions
        utterances += 1
        wrong += alignment.errors > 0
    return Scores(
        unit=unit,
        substitutions=substitutions,
        deletions=deletions,
        insertions=insertions,
        hits=hits,
        utterances=utterances,
        wrong_utterances=wrong,
        policy=policy,
    )


def score_pairs(
    pairs: Iterable[tuple[Sequence[str], Sequence[str]]], unit: str, policy: str
) -> Scores:
    """Score (reference, hypothesis) token sequences: `align`, then `total`."""
    return total(align(pairs), unit, policy)


def reference_length(scores: Scores) -> int:
    """Number of reference tokens: substitutions + deletions + hits."""
    return scores.substitutions + scores.deletions + scores.hits


def error_rate(scores: Scores) -> float:
    """Errors as a fraction of the reference length; nan where the references hold no token."""
    errors = scores.substitutions + scores.deletions + scores.insertions
    length = reference_length(scores)
    return errors / length if length else math.nan


def utterance_error_rate(scores: Scores) -> float:
    """Fraction of utterances with at least one error; nan where there are no utterances."""
    return scores.wrong_utterances / scores.utterances if scores.utterances else math.nan


def phone_policy(
    symbols: Iterable[str], folding: str, silence: str, where: str = "labels"
) -> list[str]:
    """Prepare one side of a phone pair: fold, then count, merge or ignore silences.

    ``count`` leaves silences as they are (Kaldi), ``merge`` keeps the first of neighbouring
    ones (SpeechBrain), ``ignore`` removes them all. Use the same policy on both sides.

    Raises:
        InputError: no such folding or policy, or a symbol outside the folding's inventory.
    """
    if silence not in SILENCE_POLICIES:
        raise InputError(
            f"silence policy {silence!r} does not exist; "
            f"choose one of {', '.join(SILENCE_POLICIES)}"
        )
    folded = fold(symbols, folding, where)
    if silence == "count":
        return folded
    if silence == "ignore":
        return [symbol for symbol in folded if symbol not in SILENCES]
    return [
        symbol
        for before, symbol in zip([None, *folded], folded, strict=False)
        if symbol not in SILENCES or before not in SILENCES
    ]


def policy_name(
    unit: str, folding: str = "none", silence: str = "count", alignment: str = "edit"
) -> str:
    """Say how the tokens were made and aligned, for printing beside every figure."""
    as_written = "as written" if alignment == "edit" else "in lower case"
    if unit != "phone":
        policy = f"{UNIT_NAMES[unit]}, {as_written}"
    else:
        made = as_written if folding == "none" else f"folded to {folding}"
        policy = f"phones {made}, silence {_SILENCE_SHOWN[silence]}"
    return policy if alignment == "edit" else f"{policy}, NIST alignment"
