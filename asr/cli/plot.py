"""asr plot: a picture of an utterance and of what a model hears in it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from asr.cli import app


@app.command()
def plot(
    audio: Annotated[Path, typer.Argument(help="An audio file.")],
    out: Annotated[Path, typer.Option(help="Picture to write: .png, .svg or .pdf.")],
    model: Annotated[
        Path | None, typer.Option(help="Model (or run) directory: adds posteriors and words.")
    ] = None,
) -> None:
    """Draw waveform, log-mel and, with a model, posteriors with the labels and words found."""
    from asr.audio import load_audio
    from asr.decoding import DecodingOptions
    from asr.recognizer import Recognizer
    from asr.report.picture import plot_audio

    recognizer = Recognizer.load(model) if model else None
    if recognizer and recognizer.bundle.criterion == "ctc" and recognizer.bundle.lexicon:
        # Phones alone would leave the words out that the model knows.
        words = DecodingOptions(decoder="beam", lexicon="model")
        recognizer = Recognizer(recognizer.bundle, words)
    waveform = recognizer.read(audio) if recognizer else load_audio(audio)
    plot_audio(waveform, out, audio.name, recognizer)
    print(out)
