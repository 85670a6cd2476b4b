"""asr plot: a picture of audio and of what a model hears in it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from asr.cli import app
from asr.cli.options import DeviceOption
from asr.errors import InputError


@app.command()
def plot(
    audio: Annotated[Path, typer.Argument(help="An audio file.")],
    out: Annotated[Path, typer.Option(help="Picture to write: .png, .svg or .pdf.")],
    model: Annotated[
        str | None,
        typer.Option(help="Model (or run) directory or FILE.onnx: adds posteriors and words."),
    ] = None,
    start: Annotated[float, typer.Option(help="Seconds into AUDIO to begin at.")] = 0.0,
    end: Annotated[
        float | None, typer.Option(help="Seconds into AUDIO to end at; by default its end.")
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            metavar="MANIFEST",
            help="What was said in AUDIO, drawn below what is heard; by default TIMIT's .PHN and "
            ".WRD beside it, if any.",
        ),
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Draw waveform, log-mel and, with a model, posteriors with the labels and words found."""
    from asr.audio.read import audio_duration_s, load_audio
    from asr.decode.config import DecodingOptions
    from asr.plot.said import known
    from asr.plot.utterance import CONTEXT_S, checked, plot_audio
    from asr.recognize.recognizer import Recognizer

    duration_s = audio_duration_s(audio)
    end_s = checked_end_s(start, end, audio, duration_s)
    checked(out, end_s - start)
    utterances = known(audio, reference)
    recognizer = Recognizer.load(model, device) if model else None
    if recognizer and recognizer.bundle.criterion == "ctc" and recognizer.bundle.lexicon:
        # Phones alone would leave the words out that the model knows.
        words = DecodingOptions(decoder="beam", lexicon="model")
        recognizer = Recognizer(recognizer.bundle, words)
    rate = recognizer.bundle.features.sample_rate if recognizer else 16_000
    around_s = CONTEXT_S if recognizer else 0.0
    first_s, last_s = max(0.0, start - around_s), min(end_s + around_s, duration_s)
    waveform = load_audio(audio, rate, first_s, last_s - first_s)
    part = "" if start == 0 and end is None else f", {start:g} to {end_s:g} s"
    title = f"{audio.name}{part}"
    plot_audio(waveform, out, title, recognizer, first_s, (start, end_s), utterances)
    print(out)


def checked_end_s(start_s: float, end_s: float | None, audio: Path, duration_s: float) -> float:
    """Where a stretch of audio ends.

    Raises:
        InputError: it does not lie in the audio.
    """
    lasts = f"{audio} lasts {duration_s:.3f} s"
    if not 0 <= start_s < duration_s:
        raise InputError(f"--start {start_s:g}: {lasts}; begin before that, at 0 or later")
    if end_s is None:
        return duration_s
    # A thousandth more is the duration as it is shown.
    if not start_s < end_s <= duration_s + 0.001:
        raise InputError(f"--end {end_s:g}: {lasts}; end by then, and after --start {start_s:g}")
    return min(end_s, duration_s)
