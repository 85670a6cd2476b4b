"""asr combine: several models as one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from asr.cli import app


@app.command()
def combine(
    models: Annotated[list[Path], typer.Argument(help="Model (or run) directories.")],
    out: Annotated[Path, typer.Option(help="The model directory to write.")],
) -> None:
    """Write several models as one, whose label probabilities are averaged: an ensemble.

    They must have the same labels, features and frames, as runs of one recipe with different seeds
    do; their nets may differ. Decoder, lexicon and language models are the first one's: choose the
    decoder's weights anew with asr tune.
    """
    from asr.model.bundle import save_lexicon
    from asr.model.ensemble import combined
    from asr.model.weights import load_bundle, save_bundle
    from asr.nets.recurrent import count_parameters
    from asr.system.files import write_folder_aside

    bundle = combined({str(model): load_bundle(model) for model in models})
    with write_folder_aside(out) as aside:
        save_bundle(aside, bundle)
        save_lexicon(aside, bundle)
    print(f"{out}: {1 + len(bundle.others)} nets, {count_parameters(bundle.model) / 1e6:.2f} M")
