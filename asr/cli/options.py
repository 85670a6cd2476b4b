"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from inspect import Parameter, Signature, signature
from typing import Annotated, Any, Literal

import typer

from asr.decode.config import DecodingOptions
from asr.errors import InputError

#: What is counted, or modelled.
Unit = Literal["word", "char", "phone"]
#: Foldings of phones.
Folding = Literal["none", "timit48", "timit39", "cmu40"]
COMPUTING = "Computing"
SearchOption = partial(typer.Option, rich_help_panel="Search")
DeviceOption = Annotated[
    str,
    typer.Option(
        metavar="auto|cpu|cuda|cuda:N|mps",
        help="What the net computes on; auto: a CUDA GPU where there is one.",
        rich_help_panel=COMPUTING,
    ),
]
Command = Callable[..., None]


def decoding_options(
    decoder: Annotated[
        Literal["greedy", "beam", "viterbi"] | None,
        SearchOption(help="Instead of the model's own."),
    ] = None,
    beam: Annotated[int | None, SearchOption(min=1, help="Width.")] = None,
    nbest: Annotated[int | None, SearchOption(min=1, help="Alternatives, in JSON.")] = None,
    lexicon: Annotated[
        str | None,
        SearchOption(
            metavar="FILE|model|cmudict|lm",
            help="Search words: of a file (word and phones a line; for letters, a word a line), of "
            "the model, or those of --lm, as CMUdict pronounces them (phones) or by letters (lm).",
        ),
    ] = None,
    no_lexicon: Annotated[bool, SearchOption("--no-lexicon", help="Search labels.")] = False,
    lm: Annotated[
        str | None,
        SearchOption(
            metavar="LM|none",
            help="Language model over words, or without lexicon over labels: an ARPA file or what "
            "asr lm train --kind lstm wrote.",
        ),
    ] = None,
    lm_weight: Annotated[float | None, SearchOption(min=0, help="Of the LM.")] = None,
    bonus: Annotated[float | None, SearchOption(help="For each label, or word.")] = None,
    unknown: Annotated[
        float | None, SearchOption(help="Price of a word outside the lexicon.")
    ] = None,
    hotword: Annotated[
        list[str] | None,
        SearchOption(metavar="WORDS:BOOST", help="More likely by BOOST; repeat."),
    ] = None,
    rescore: Annotated[
        str | None,
        SearchOption(metavar="LM|none", help="Language model that sorts the best hypotheses anew."),
    ] = None,
    rescore_weight: Annotated[float | None, SearchOption(min=0, help="Of that LM.")] = None,
    pronounced: Annotated[
        str | None,
        SearchOption(
            metavar="FILE|none",
            help="Words of --lexicon, --lm and --hotword without pronunciation, as they are "
            "pronounced: taken from FILE where they stand, else by their letters (English), and "
            "written there; none: leave them out.",
        ),
    ] = None,
) -> DecodingOptions:
    """What a user changes of a model's search, an option each."""
    if lexicon is not None and no_lexicon:
        raise InputError(f"--lexicon {lexicon} and --no-lexicon: choose one")
    lexicon = "none" if no_lexicon else lexicon
    words = tuple(hotword or ())
    first = decoder, beam, nbest, lexicon, lm, lm_weight, bonus, unknown, words
    return DecodingOptions(*first, rescore, rescore_weight, pronounced)


def searching(*left_out: str) -> Callable[[Command], Command]:
    """Give a command those options of `decoding_options` that are not ``left_out``.

    They stand in the place of its parameter ``options``, which gets what they say.
    """

    def with_options(command: Command) -> Command:
        shared = signature(decoding_options, eval_str=True).parameters
        shown = {
            name: option.replace(kind=Parameter.KEYWORD_ONLY)
            for name, option in shared.items()
            if name not in left_out
        }

        @wraps(command)
        def run(**given: Any) -> None:
            options = decoding_options(**{name: given.pop(name) for name in shown})
            command(**given, options=options)

        parameters: list[Parameter] = []
        for parameter in signature(command, eval_str=True).parameters.values():
            parameters += shown.values() if parameter.name == "options" else [parameter]
        # What typer reads.
        run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return run

    return with_options
