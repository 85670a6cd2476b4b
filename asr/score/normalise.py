"""What may be made alike on both sides before scoring; by default nothing is."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial

from asr.errors import InputError
from asr.system.text import without_punctuation

#: By name, in the order they are made; what the policy says of each.
NORMALISATIONS = {
    "numbers": "English numbers spelled out",
    "case": "in lower case",
    "punctuation": "without punctuation",
}
#: Characters that mean something in NIST transcripts.
_MARKUP = "{}/()@"
_NUMBER = re.compile(r"(?<![\w.])(\d{1,3}(?:,\d{3})+|\d+)(\.\d+)?(st|nd|rd|th)?(?![\w]|\.\d)", re.I)
#: Longer numbers are left as they are: nobody says them.
_MAX_DIGITS = 15


def named_ways(listed: str) -> tuple[str, ...]:
    """The names in a list with commas, as users give it."""
    return tuple(filter(None, map(str.strip, listed.split(","))))


def normaliser(names: Sequence[str], markup: bool) -> Callable[[str], str]:
    """A function that makes a text alike in the ways named, each one of `NORMALISATIONS`.

    case: lower case. punctuation: as `text.without_punctuation`. numbers: figures become English
    words ("21st" twenty-first, "3.5" three point five); needs the package num2words. ``markup``:
    the characters of NIST's alternatives and optional words stay.

    Raises:
        InputError: a name that does not exist, or num2words is not installed.
    """
    for name in names:
        if name not in NORMALISATIONS:
            raise InputError(
                f"normalisation {name!r} does not exist; choose from {', '.join(NORMALISATIONS)}"
            )
    steps: list[Callable[[str], str]] = []
    if "numbers" in names:
        steps.append(_spelled())
    if "case" in names:
        steps.append(str.lower)
    if "punctuation" in names:
        steps.append(partial(without_punctuation, kept=_MARKUP if markup else ""))

    def normalise(text: str) -> str:
        for step in steps:
            text = step(text)
        return text

    return normalise


def _spelled() -> Callable[[str], str]:
    try:
        from num2words import num2words
    except ImportError as error:
        raise InputError(
            "--normalise numbers needs num2words; install it with: pip install num2words"
        ) from error

    def spell(found: re.Match[str]) -> str:
        whole = found[1].replace(",", "")
        if len(whole) > _MAX_DIGITS:
            return found[0]
        if found[3]:
            return str(num2words(int(whole), to="ordinal")) if not found[2] else found[0]
        words = str(num2words(int(whole)))
        if found[2]:
            words += " point " + " ".join(num2words(int(digit)) for digit in found[2][1:])
        return words.replace(",", "")

    return lambda text: _NUMBER.sub(spell, text)
