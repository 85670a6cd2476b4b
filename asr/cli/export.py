"""asr export: a model as one file for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from asr.cli import app
from asr.errors import InputError


@app.command()
def export(
    model: Annotated[Path, typer.Option(help="Model (or run) directory.")],
    onnx: Annotated[Path, typer.Option(help="The .onnx file to write.")],
    streaming: Annotated[
        bool,
        typer.Option(
            "--streaming",
            help="For audio that comes piece by piece: the net's states go in and out. For models "
            "of one direction that need not see the whole utterance.",
        ),
    ] = False,
) -> None:
    """Write the model as ONNX: waveforms in, log-probabilities out, features inside.

    The labels, the sample rate and the settings of the decoder are in the file's metadata. Lexicon
    and language models are not: give them to asr transcribe --model FILE.onnx.
    """
    from asr.model.bundle import load_bundle
    from asr.model.onnx import export as write

    if onnx.suffix != ".onnx":
        raise InputError(f"--onnx {onnx}: expected a name that ends in .onnx")
    bundle = load_bundle(model)
    write(bundle, onnx, streaming)
    rate, shift_s = bundle.features.sample_rate, bundle.clock.shift_s
    print(
        f"{onnx}: {onnx.stat().st_size / 1e6:.1f} MB, {rate} Hz -> {len(bundle.labels)} labels "
        f"every {shift_s * 1000:g} ms"
    )
