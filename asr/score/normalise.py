"""What may be made alike on both sides before scoring; by default nothing is.

Numbers, contractions and spelling are English, by the rules of Whisper (Radford et al., "Robust
speech recognition via large-scale weak supervision", 2022, appendix C), from the package
whisper-normalizer, which carries them unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from asr.errors import InputError
from asr.system.text import without_punctuation

#: By name, in the order they are made; what the policy says of each.
NORMALISATIONS = {
    "whisper": "by Whisper's English rules",
    "case": "in lower case",
    "punctuation": "without punctuation",
    "contractions": "English contractions in full",
    "numbers": "English numbers in figures",
    "spelling": "in American spelling",
}
#: They know words in lower case only.
_ENGLISH = ("contractions", "numbers", "spelling")
#: They make several words of one, among which NIST's marks would no longer mean the same.
_NOT_NIST = ("whisper", "contractions")
#: Characters that mean something in NIST transcripts.
_MARKUP = "{}/()@"
#: What is said like a number of three or four figures: ten thirty.
_TIME = re.compile(r"\b(\d{1,2}):([0-5]\d)\b")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_TENS = re.compile(r"\b(twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety)-(?=[a-z])")


def named_ways(listed: str) -> tuple[str, ...]:
    """The names in a list with commas, as users give it."""
    return tuple(filter(None, map(str.strip, listed.split(","))))


def checked_ways(names: Sequence[str], markup: bool) -> tuple[str, ...]:
    """The ways named and those that they bring with them, in the order they are made.

    Raises:
        InputError: a name that does not exist, or does not go with the others or with ``markup``.
    """
    for name in names:
        if name not in NORMALISATIONS:
            raise InputError(
                f"normalisation {name!r} does not exist; choose from {', '.join(NORMALISATIONS)}"
            )
        if markup and name in _NOT_NIST:
            raise InputError(
                f"normalisation {name!r} is not for alignment nist, whose marks it would spoil; "
                "NIST's way is a file of rules (--glm)"
            )
    if "whisper" in names and len(set(names)) > 1:
        raise InputError("normalisation 'whisper' has rules of its own for all: name it alone")
    wanted = {*names, *(("case",) if set(names) & set(_ENGLISH) else ())}
    return tuple(name for name in NORMALISATIONS if name in wanted)


def normaliser(names: Sequence[str], markup: bool) -> Callable[[str], str]:
    """A function that makes a text alike in the ways named, each one of `NORMALISATIONS`.

    case: lower case. punctuation: as `text.without_punctuation`. contractions: "don't" is do not,
    "mr" mister. numbers: "twenty five dollars" is $25, "ten thirty" and "10:30" are 1030, "fifty
    percent" is 50%, "nineteen eighty four" 1984; words with punctuation at them are no numbers.
    spelling: "colour" is color. whisper: Whisper's rules as they are, with the order, the fillers
    and brackets left out and all else that makes figures comparable with published ones.
    ``markup``: the characters of NIST's alternatives and optional words stay.

    Raises:
        InputError: as `checked_ways`, or whisper-normalizer is not installed.
    """
    makers: dict[str, Callable[[], Callable[[str], str]]] = {
        "whisper": lambda: _whisper().EnglishTextNormalizer(),
        "case": lambda: str.lower,
        "punctuation": lambda: partial(without_punctuation, kept=_MARKUP if markup else ""),
        "contractions": _in_full,
        "numbers": _in_figures,
        "spelling": lambda: _whisper().EnglishSpellingNormalizer(),
    }
    ways = checked_ways(names, markup)
    # Before punctuation parts them.
    times: list[Callable[[str], str]] = [partial(_TIME.sub, r"\1\2")] if "numbers" in ways else []
    steps = [*times, *(makers[name]() for name in ways)]

    def normalise(text: str) -> str:
        for step in steps:
            text = step(text)
        return text

    return normalise


def _whisper() -> Any:
    try:
        from whisper_normalizer import english
    except ImportError as error:
        raise InputError(
            "normalising English needs whisper-normalizer; install it with: "
            "pip install 'carousel-asr[english]'"
        ) from error
    return english


def _in_full() -> Callable[[str], str]:
    rules = [
        (re.compile(pattern), full)
        for pattern, full in _whisper().EnglishTextNormalizer().replacers.items()
    ]

    def expand(text: str) -> str:
        for pattern, full in rules:
            text = pattern.sub(full, text)
        return text

    return expand


def _in_figures() -> Callable[[str], str]:
    numbers: Callable[[str], str] = _whisper().EnglishNumberNormalizer()

    def figures(text: str) -> str:
        return numbers(_TENS.sub(r"\1 ", _THOUSANDS.sub("", text)))

    return figures
