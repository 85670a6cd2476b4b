"""Word, character and phone error rates: counts over a whole corpus, never a mean of rates.

    error rate = (substitutions + deletions + insertions) / (substitutions + deletions + hits)

`alignment.align` is the one rich result; everything shown or written is a view of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from asr.errors import InputError
from asr.labels import SILENCE_POLICIES, SILENCES, fold
from asr.score.normalise import NORMALISATIONS
from asr.types import Scores

if TYPE_CHECKING:
    from asr.score.alignment import Alignments

RATE_NAMES = {"word": "WER", "char": "CER", "phone": "PER"}
UNIT_NAMES = {"word": "words", "char": "characters", "phone": "phones"}

_SILENCE_SHOWN = {"count": "counted", "merge": "merged", "ignore": "ignored"}


def scores_of(counts: Sequence[int], unit: str, policy: str) -> Scores:
    """Scores by counts as in `Alignments.tallies`; see `policy_name` for how tokens were made."""
    hits, substitutions, deletions, insertions, utterances, wrong = counts
    return Scores(unit, substitutions, deletions, insertions, hits, utterances, wrong, policy)


def total(alignments: Alignments, unit: str, policy: str) -> Scores:
    """Add up the counts of a corpus."""
    return scores_of(alignments.tallies.sum(0).tolist(), unit, policy)


def score_pairs(
    pairs: Iterable[tuple[Sequence[str], Sequence[str]]], unit: str, policy: str
) -> Scores:
    """Score (reference, hypothesis) token sequences: `alignment.align`, then `total`."""
    from asr.score.alignment import align

    return total(align(pairs), unit, policy)


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
    unit: str,
    folding: str = "none",
    silence: str = "count",
    alignment: str = "edit",
    normalisations: Sequence[str] = (),
    glm: str = "",
) -> str:
    """Say how the tokens were made and aligned, for printing beside every figure.

    normalisations: names out of `normalise.NORMALISATIONS`. glm: name of the file of rules.
    """
    ways = [way for name, way in NORMALISATIONS.items() if name in normalisations]
    if alignment == "nist" and "case" not in normalisations:
        ways.append(NORMALISATIONS["case"])
    if glm:
        ways.insert(0, f"by {glm}")
    as_written = ", ".join(ways) or "as written"
    if unit != "phone":
        policy = f"{UNIT_NAMES[unit]}, {as_written}"
    else:
        made = as_written if folding == "none" else f"folded to {folding}"
        policy = f"phones {made}, silence {_SILENCE_SHOWN[silence]}"
    return policy if alignment == "edit" else f"{policy}, NIST alignment"
