"""asr transcribe: audio files to text with times."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asr.cli import app
from asr.errors import InputError

if TYPE_CHECKING:
    from asr.types import Transcript


class Format(StrEnum):
    """What to print."""

    text = "text"
    json = "json"


class DecoderName(StrEnum):
    """The searches."""

    greedy = "greedy"
    beam = "beam"
    viterbi = "viterbi"


ModelOption = Annotated[
    str,
    typer.Option(
        metavar="DIR|FILE.onnx|torchaudio:NAME[=WEIGHTS]",
        help="Model (or run) directory; an ONNX file, of asr export or with a .json beside it; or "
        "a CTC model of torchaudio, which fetches its weights unless they are given.",
    ),
]
SEARCH = "Search"
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


@app.command()
def transcribe(
    files: Annotated[list[Path], typer.Argument(help="Audio files of any format and rate.")],
    model: ModelOption,
    format: Annotated[
        Format, typer.Option(help="text: path, tab, text. json: a line a file, with times.")
    ] = Format.text,
    decoder: Annotated[
        DecoderName | None,
        typer.Option(help="Instead of the model's own.", rich_help_panel=SEARCH),
    ] = None,
    beam: BeamOption = None,
    nbest: Annotated[
        int | None, typer.Option(min=1, help="Alternatives, in JSON.", rich_help_panel=SEARCH)
    ] = None,
    lexicon: LexiconOption = None,
    no_lexicon: NoLexiconOption = False,
    lm: LmOption = None,
    lm_weight: Annotated[
        float | None, typer.Option(min=0, help="Of the LM.", rich_help_panel=SEARCH)
    ] = None,
    bonus: Annotated[
        float | None, typer.Option(help="For each label, or word.", rich_help_panel=SEARCH)
    ] = None,
    unknown: Annotated[
        float | None,
        typer.Option(help="Price of a word outside the lexicon.", rich_help_panel=SEARCH),
    ] = None,
    hotword: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WORDS:BOOST", help="More likely by BOOST; repeat.", rich_help_panel=SEARCH
        ),
    ] = None,
    rescore: RescoreOption = None,
    rescore_weight: Annotated[
        float | None, typer.Option(min=0, help="Of that LM.", rich_help_panel=SEARCH)
    ] = None,
) -> None:
    """Transcribe FILES to standard output, in order; bad files are told and skipped.

    The search, its lexicon, language models and weights are the model's own (see asr tune) where
    no option changes them. Weights and boosts are in natural logarithms.
    """
    from asr.decoding import DecodingOptions
    from asr.foreign import load_model
    from asr.formats import to_jsonl
    from asr.recognizer import Recognizer

    if nbest is not None and nbest > 1 and format is not Format.json:
        raise InputError(f"--nbest {nbest}: alternatives are for --format json; text has the best")
    options = DecodingOptions(
        decoder=decoder and decoder.value,
        beam=beam,
        nbest=nbest,
        lexicon=lexicon_named(lexicon, no_lexicon),
        lm=lm,
        lm_weight=lm_weight,
        bonus=bonus,
        unknown=unknown,
        hotword=tuple(hotword or ()),
        rescore=rescore,
        rescore_weight=rescore_weight,
    )
    recognizer = Recognizer(load_model(model), options, tell)
    n_failed = 0

    def failed(path: Path, error: InputError) -> None:
        nonlocal n_failed
        n_failed += 1
        tell(str(error))

    def written(transcript: Transcript) -> str:
        if format is Format.json:
            return to_jsonl(transcript)
        return f"{transcript.id}\t{transcript.text}\n"

    for transcript in recognizer.transcribe_files(files, failed):
        sys.stdout.write(written(transcript))
        sys.stdout.flush()
    if n_failed:
        tell(f"{n_failed} of {len(files)} files could not be read")
        raise typer.Exit(1)


def tell(line: str) -> None:
    """Say something beside the output."""
    print(f"asr: {line}", file=sys.stderr)
