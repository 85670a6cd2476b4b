"""asr export: a model as one file for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from asr.cli import app
from asr.errors import InputError


@app.command()
def export(
    model: Annotated[Path, typer.Option(help="Model (or run) directory.")],
    onnx: Annotated[Path | None, typer.Option(help="The .onnx file to write.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="A folder to write, for all commands that use models without PyTorch."),
    ] = None,
    for_: Annotated[
        Literal["asr", "sherpa-onnx"],
        typer.Option("--for", help="Whose the folder is: of these commands, or of sherpa-onnx."),
    ] = "asr",
    streaming: Annotated[
        bool,
        typer.Option(
            "--streaming",
            help="With --onnx, for audio that comes piece by piece: the net's states go in and "
            "out. For models of one direction that need not see the whole utterance.",
        ),
    ] = False,
) -> None:
    """Write the model as ONNX, for other programs or for a small installation of this one.

    --out: all that a model directory holds, the net in ONNX: --model FOLDER then needs onnxruntime
    and no PyTorch. --for sherpa-onnx: model, tokens, lexicon and a graph of its words as its
    Zipformer CTC models have them, for models that were trained with features=kaldi80.

    --onnx: waveforms in, log-probabilities out, features inside. The labels, the sample rate and
    the settings of the decoder are in the file's metadata. Lexicon and language models are not:
    give them to asr transcribe --model FILE.onnx.
    """
    from asr.model.onnx import export as write
    from asr.model.onnx_folder import write_runtime
    from asr.model.sherpa import write_sherpa
    from asr.model.weights import load_bundle

    if (onnx is None) == (out is None):
        raise InputError("name either a file with --onnx, or a folder with --out")
    if onnx is not None and onnx.suffix != ".onnx":
        raise InputError(f"--onnx {onnx}: expected a name that ends in .onnx")
    if streaming and onnx is None:
        raise InputError("--streaming is for --onnx: a folder streams where the model does")
    if for_ == "sherpa-onnx" and out is None:
        raise InputError("--for sherpa-onnx writes a folder: name it with --out")
    bundle = load_bundle(model)
    if onnx is not None:
        write(bundle, onnx, streaming)
        size, name = onnx.stat().st_size, onnx
    else:
        assert out is not None
        (write_sherpa if for_ == "sherpa-onnx" else write_runtime)(bundle, out)
        size, name = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()), out
    rate, shift_s = bundle.features.sample_rate, bundle.clock.shift_s
    print(
        f"{name}: {size / 1e6:.1f} MB, {rate} Hz -> {len(bundle.labels)} labels "
        f"every {shift_s * 1000:g} ms"
    )
