"""asr align: audio and its text to the times of words and phones."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from asr.cli import app, tell
from asr.cli.options import DeviceOption
from asr.errors import InputError, one_line


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
            help="Model (or run) directory, FILE.onnx, or torchaudio:BUNDLE, perhaps with "
            "=WEIGHTS; framewise ones are exacter."
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
    device: DeviceOption = "auto",
) -> None:
    """Find where in AUDIO each word and phone of its TEXT lies, or do so for a whole MANIFEST.

    What cannot be aligned (audio too short for its text, a word that the lexicon lacks) is listed,
    the rest goes on, and the exit status is 1.
    """
    from asr.audio.read import STDIN
    from asr.recognize.aligner import Aligner
    from asr.recognize.alignments import (
        MANIFEST,
        align_into,
        utterances_of,
        write_joined,
        written,
    )
    from asr.recognize.transcripts import formats_named
    from asr.system.files import remove_abandoned
    from asr.system.progress import progress_bar

    names = list(dict.fromkeys(name.strip().lower() for name in format.split(",")))
    others = [name for name in names if name != MANIFEST]
    formats = formats_named(",".join(others)) if others else {}
    if out is None and (text is None or names != others or len(names) > 1):
        raise InputError("--out is missing: name a folder (or, for one format, a file)")
    if source == STDIN and MANIFEST in names:
        raise InputError("--format manifest: names audio files, and standard input is none")
    if {"jsonl", MANIFEST} <= set(names):
        raise InputError(f"--format {format}: jsonl and manifest would be one file; choose one")
    aligner = Aligner.load(model, unit, lexicon, device)
    if "wrd" in names and aligner.unit == "phone":
        raise InputError("--format wrd: aligned by phones there are no words; choose phn")
    joined = {n for n in names if n == MANIFEST or formats[n].joins or text is not None}
    n_failed = 0
    with progress_bar() as progress:

        def failed(name: str, reason: str | InputError) -> None:
            nonlocal n_failed
            n_failed += 1
            progress.console.print(
                f"asr: {one_line(f'{name}: {reason}')}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )

        utterances = utterances_of(source, text, aligner.unit, failed)
        apart = {name: formats[name] for name in names if name not in joined}
        task = progress.add_task("aligning", total=len(utterances))
        tick = partial(progress.advance, task)
        found = align_into(out or Path(), aligner, utterances, apart, failed, tick)
    if out is not None and out.is_dir():
        remove_abandoned(out)
    stem = utterances[0].id if text and utterances else source.stem
    for name in joined if found else ():
        if out is None:
            sys.stdout.write(written(name, found[0][1]))
        else:
            write_joined(out, name, found, stem, single=text is not None and len(names) == 1)
    if out is not None:
        print(f"{out}: {len(found)} of {len(found) + n_failed} utterances aligned")
    if n_failed:
        if missing := aligner.missing(utterances):
            tell(missing)
        tell(f"{n_failed} of {len(found) + n_failed} utterances not aligned")
        raise typer.Exit(1)
