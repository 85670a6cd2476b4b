"""asr transcribe: audio files to text with times."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from asr.cli import app, tell
from asr.cli.options import COMPUTING, DeviceOption, searching
from asr.decode.config import DecodingOptions

AUDIO = "Audio"


@app.command()
@searching()
def transcribe(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[AUDIO]...",
            help="Audio files of any format, rate and length; folders, with all audio below them; "
            "patterns such as 'a/**/*.flac'; tars and manifests (.tar, .jsonl); - for audio on "
            "standard input.",
        ),
    ] = None,
    *,
    model: Annotated[
        str | None,
        typer.Option(
            help="Model (or run) directory, several with commas between, FILE.onnx, or "
            "torchaudio:BUNDLE, perhaps with =WEIGHTS, hf:USER/NAME; with --server, what the "
            "server calls it."
        ),
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Ask what asr serve runs there; the search is the server's."
        ),
    ] = None,
    key_file: Annotated[
        Path | None, typer.Option(help="File whose first line is the server's key.")
    ] = None,
    listed: Annotated[
        Path | None,
        typer.Option(
            "--list",
            help="File of further names of AUDIO, one a line (or with NUL between, as of find "
            "-print0); - for such a list on standard input.",
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            help="txt, json, jsonl, srt, vtt, ctm, trn, textgrid, eaf, phn or wrd; with --out "
            "several with commas. On standard output json is a line a file, and text, the default, "
            "is path, tab, text.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for a file an input, in the inputs' folders.", readable=False),
    ] = None,
    redo: Annotated[bool, typer.Option("--redo", help="Replace outputs that exist.")] = False,
    channels: Annotated[
        Literal["mix", "each"],
        typer.Option(
            help="mix, or each: a transcript a channel (.ch1 ...).", rich_help_panel=AUDIO
        ),
    ] = "mix",
    window: Annotated[
        float | None,
        typer.Option(
            min=1,
            help="Audio beyond 30 s is cut at its quietest into windows of so many seconds at most "
            "(6; 20 for models of waveforms).",
            rich_help_panel=AUDIO,
        ),
    ] = None,
    keep_silence: Annotated[
        bool,
        typer.Option(
            "--keep-silence",
            help="Let the model hear long silence, too.",
            rich_help_panel=AUDIO,
        ),
    ] = False,
    adapt: Annotated[
        bool,
        typer.Option(
            "--adapt",
            help="Hear all twice, the second time by a net that is adapted to who speaks by what "
            "was understood first. A manifest says who speaks; other files are taken one by one.",
            rich_help_panel=COMPUTING,
        ),
    ] = False,
    precision: Annotated[
        Literal["float32", "bfloat16", "int8"],
        typer.Option(
            help="Of the net: bfloat16 is fast where the processor knows it, int8 elsewhere.",
            rich_help_panel=COMPUTING,
        ),
    ] = "float32",
    device: DeviceOption = "auto",
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(
            help="ray: on the cluster that RAY_ADDRESS names, or else on one of this machine's "
            "own; JSONL in parts goes to --out.",
            rich_help_panel=COMPUTING,
        ),
    ] = "local",
    options: DecodingOptions,
) -> None:
    """Transcribe AUDIO to standard output, in order, or to files.

    What cannot be read is listed at the end, the rest goes on, and the exit status is 1.

    The search, its lexicon, language models and weights are the model's own (see asr tune) where
    no option changes them. Weights and boosts are in natural logarithms.
    """
    from asr.recognize.files import Loading
    from asr.recognize.transcribing import Output, transcribe_named

    loading = Loading(model or "", options, window, keep_silence, precision, device, adapt)
    output = Output(format, out, redo, channels == "each", engine == "ray")
    try:
        succeeded = transcribe_named(files or [], listed, output, loading, tell, server, key_file)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    if not succeeded:
        raise typer.Exit(1)
