"""asr align: audio and its text to the times of words and phones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from asr.cli import app, tell
from asr.cli.options import DeviceOption


@app.command()
def align(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="AUDIO|MANIFEST",
            help="An audio file (- for audio on standard input), or a .jsonl manifest.",
        ),
    ],
    model: Annotated[
        str,
        typer.Option(
            help="Model (or run) directory, several with commas between, FILE.onnx, or "
            "torchaudio:BUNDLE, perhaps with =WEIGHTS, hf:USER/NAME; framewise ones are exacter."
        ),
    ],
    text: Annotated[
        Path | None, typer.Argument(metavar="[TEXT]", help="The text of AUDIO: words, or phones.")
    ] = None,
    format: Annotated[
        str,
        typer.Option(
            help="textgrid, eaf, ctm, phn, wrd, json, jsonl, srt, vtt, txt, trn or manifest (one "
            "with the times, to train on); several with commas."
        ),
    ] = "textgrid",
    out: Annotated[
        Path | None,
        typer.Option(
            help="For AUDIO a file (standard output by default), for MANIFEST a folder; also a "
            "folder for several formats and a file for a MANIFEST's ctm, jsonl, txt, trn, manifest."
        ),
    ] = None,
    unit: Annotated[
        Literal["word", "phone"] | None,
        typer.Option(help="By default word where words can be spelled, else phone."),
    ] = None,
    lexicon: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|cmudict",
            help="Instead of the model's: lines of a word and its phones, or all of CMUdict.",
        ),
    ] = None,
    pronounced: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|none",
            help="Words that the lexicon lacks, as they are pronounced: taken from FILE where they "
            "stand, else by their letters (English), and written there; none: refuse them.",
            show_default="pronounced.txt in the folder of --out",
        ),
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Find where in AUDIO each word and phone of its TEXT lies, or do so for a whole MANIFEST.

    What cannot be aligned (audio too short for its text, a word that neither the lexicon nor
    --pronounced has) is listed, the rest goes on, and the exit status is 1.
    """
    from asr.recognize.aligner import Aligner
    from asr.recognize.alignments import align_named

    def load() -> Aligner:
        return Aligner.load(model, unit, lexicon, device)

    if not align_named(source, text, format, out, load, tell, pronounced):
        raise typer.Exit(1)
