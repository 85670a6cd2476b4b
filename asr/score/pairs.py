"""Pairs of references and hypotheses scored as chosen: what is counted, and made alike before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from asr.errors import InputError
from asr.score.error_rate import UNIT_NAMES, policy_name
from asr.score.lines import Matched
from asr.score.normalise import checked_ways, normaliser
from asr.score.read import PlainPairs, texts, token_pairs

if TYPE_CHECKING:
    from asr.score.alignment import Alignments

ALIGNMENTS = ("edit", "nist")


def checked_policy(
    unit: str,
    alignment: str,
    fold: str,
    silence: str,
    normalise: Sequence[str],
    glm: str = "",
) -> str:
    """The name of these choices, as `policy_name`.

    Raises:
        InputError: one does not exist, or does not go with the unit.
    """
    for name, value, known in (("unit", unit, UNIT_NAMES), ("alignment", alignment, ALIGNMENTS)):
        if value not in known:
            raise InputError(f"{name} {value!r} does not exist; choose one of {', '.join(known)}")
    if unit != "phone" and (fold != "none" or silence != "count"):
        raise InputError(f"fold and silence are for phones, not for unit {unit}")
    if unit == "phone" and normalise:
        raise InputError("normalise is for words and characters, not for phones")
    if unit == "char" and alignment == "nist":
        raise InputError("alignment nist is for words and phones, not for unit char")
    if glm and (unit != "word" or alignment != "nist"):
        raise InputError(
            f"{glm}: rules may give alternatives, which only alignment nist knows, for words; "
            "say --alignment nist"
        )
    ways = checked_ways(normalise, markup=alignment == "nist")
    return policy_name(unit, fold, silence, alignment, ways, glm)


def align_matched(
    matched: Matched, unit: str, alignment: str, fold: str, silence: str, normalise: Sequence[str]
) -> Alignments:
    """Align every reference with its hypothesis, by choices that `checked_policy` has passed.

    Raises:
        InputError: a line that cannot be scored so.
    """
    # numpy is not for asr --help.
    from asr.score.alignment import align, align_texts
    from asr.score.nist import align_nist, align_plain

    if unit == "word" and not normalise and isinstance(matched.pairs, PlainPairs):
        if alignment == "edit":
            return align_texts(*matched.pairs.rows, ids=True)
        return align_plain(*matched.pairs.rows, ids=True)
    if unit == "phone":
        pairs = token_pairs(matched, unit, fold, silence)
        if alignment == "edit":
            return align(pairs)
        said, heard = ([" ".join(pair[side]) for pair in pairs] for side in (0, 1))
    else:
        said, heard = texts(matched)
        if normalise:
            made = normaliser(normalise, markup=alignment == "nist")
            said, heard = list(map(made, said)), list(map(made, heard))
    if alignment == "edit":
        return align_texts(said, heard, characters=unit == "char")
    places = [line.where for line, _ in matched.pairs]
    heard_places = [line.where if line else "" for _, line in matched.pairs]
    return align_nist(said, heard, (places, heard_places))
