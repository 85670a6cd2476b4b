"""`asr synthesize OUT`: speak a small TIMIT-style corpus with espeak-ng."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from asr.cli import app


@app.command()
def synthesize(
    out: Annotated[Path, typer.Argument(help="Folder to write the corpus to; must not exist.")],
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same bytes.")] = 0,
    train: Annotated[int, typer.Option(min=1, help="Utterances in TRAIN.")] = 600,
    dev: Annotated[int, typer.Option(min=1, help="Utterances in DEV.")] = 60,
    test: Annotated[int, typer.Option(min=1, help="Utterances in TEST.")] = 60,
    text: Annotated[
        Path | None,
        typer.Option(help="Speak lines of this file, each once at most, instead of a grammar's."),
    ] = None,
    every_voice: Annotated[
        bool, typer.Option("--every-voice", help="TRAIN: as many voices as espeak-ng has.")
    ] = False,
) -> None:
    """Speak a TIMIT-style corpus with espeak-ng: synthetic voices, exact phone times."""
    from asr.corpora.synthetic import synthesize

    n_skipped = synthesize(out, seed, train, dev, test, text, every_voice)
    left_out = f"; {n_skipped} of them left out, which espeak-ng does not speak word by word"
    print(
        f"{out}: {train} utterances in TRAIN, {dev} in DEV, {test} in TEST"
        + left_out * bool(n_skipped)
    )
