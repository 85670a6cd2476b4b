"""Options that several commands have."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from asr.errors import InputError


class Unit(StrEnum):
    """What is counted, or modelled."""

    WORD = "word"
    CHAR = "char"
    PHONE = "phone"


class DecoderName(StrEnum):
    """The searches."""

    greedy = "greedy"
    beam = "beam"
    viterbi = "viterbi"


class Folding(StrEnum):
    """Foldings of phones."""

    NONE = "none"
    TIMIT48 = "timit48"
    TIMIT39 = "timit39"
    CMU40 = "cmu40"


COMPUTING, SEARCH = "Computing", "Search"
DeviceOption = Annotated[
    str,
    typer.Option(
        metavar="auto|cpu|cuda|cuda:N|mps",
        help="What the net computes on; auto: a CUDA GPU where there is one.",
        rich_help_panel=COMPUTING,
    ),
]
LexiconOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|model|cmudict|lm",
        help="Search words: of a file (word and phones a line; for letters, a word a line), of "
        "the model, or those of --lm, as CMUdict pronounces them (phones) or by letters (lm).",
        rich_help_panel=SEARCH,
    ),
]
NoLexiconOption = Annotated[
    bool, typer.Option("--no-lexicon", help="Search labels.", rich_help_panel=SEARCH)
]
LmOption = Annotated[
    str | None,
    typer.Option(
        metavar="LM|none",
        help="Language model over words, or without lexicon over labels: an ARPA file or what "
        "asr lm train --kind lstm wrote.",
        rich_help_panel=SEARCH,
    ),
]
DecoderOption = Annotated[
    DecoderName | None,
    typer.Option(help="Instead of the model's own.", rich_help_panel=SEARCH),
]
LmWeightOption = Annotated[
    float | None, typer.Option(min=0, help="Of the LM.", rich_help_panel=SEARCH)
]
BonusOption = Annotated[
    float | None, typer.Option(help="For each label, or word.", rich_help_panel=SEARCH)
]
UnknownOption = Annotated[
    float | None,
    typer.Option(help="Price of a word outside the lexicon.", rich_help_panel=SEARCH),
]
HotwordOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="WORDS:BOOST", help="More likely by BOOST; repeat.", rich_help_panel=SEARCH
    ),
]
BeamOption = Annotated[int | None, typer.Option(min=1, help="Width.", rich_help_panel=SEARCH)]
RescoreOption = Annotated[
    str | None,
    typer.Option(
        metavar="LM|none",
        help="Language model that sorts the best hypotheses anew.",
        rich_help_panel=SEARCH,
    ),
]


def lexicon_named(lexicon: str | None, no_lexicon: bool) -> str | None:
    """Join the two options that speak of one thing."""
    if lexicon is not None and no_lexicon:
        raise InputError(f"--lexicon {lexicon} and --no-lexicon: choose one")
    return "none" if no_lexicon else lexicon


def read_keys(path: Path | None) -> tuple[str, ...]:
    """The keys of a file."""
    from asr.system.text import read_text

    if path is None:
        return ()
    keys = tuple(line.strip() for line in read_text(path).splitlines() if line.strip())
    if not keys:
        raise InputError(f"--key-file {path}: holds no key")
    return keys
