"""asr check: a corpus before anything trains on it or aligns it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from asr.cli import app

SHOWN = 3


@app.command()
def check(
    root: Annotated[
        Path,
        typer.Argument(
            metavar="CORPUS|MANIFEST",
            help="A manifest, a folder of them as asr prepare writes it, or a --kind of corpus.",
        ),
    ],
    kind: Annotated[
        str, typer.Option(help="timit, so762, kaldi ... as for asr prepare.")
    ] = "jsonl",
    lexicon: Annotated[
        str | None,
        typer.Option(metavar="FILE|cmudict", help="That words are to be pronounced with."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="That is to be used: its labels, frames and lexicon.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Picture of the durations: .png, .svg or .pdf.")
    ] = None,
    json_out: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Find what would stop a training (exit status 1) and what is odd.

    Words without pronunciation, phones that the model does not know, text that does not fit its
    audio, clipping, silence, low rates, what is there twice, speakers in several sets.
    """
    import json

    from rich.console import Console
    from rich.table import Table

    from asr.corpora import load_corpus
    from asr.model.pretrained import load_model
    from asr.report.corpus import as_json, as_text, examine
    from asr.system.progress import progress_bar

    bundle = load_model(model, "cpu") if model is not None else None
    with progress_bar() as bar:
        corpus = load_corpus(kind, root, lambda files: bar.track(files, description="files"))
        total = sum(map(len, corpus.sets.values()))
        task = bar.add_task("listening", total=total)
        report = examine(corpus, lexicon, bundle, lambda: bar.advance(task))
    if plot is not None:
        from asr.plot.durations import draw_durations

        draw_durations(report.durations_s, plot)
    if json_out:
        print(json.dumps(as_json(report), indent=2))
    else:
        table = Table("set")
        for column in ("utterances", "speakers", "hours", "shortest", "median", "longest"):
            table.add_column(column, justify="right")
        for name, size in report.sets.items():
            counts, seconds = (str(size.utterances), str(size.speakers)), size[3:]
            table.add_row(name, *counts, f"{size.hours:.2f}", *(f"{s:.2f} s" for s in seconds))
        Console().print(table)
        print("\n".join(as_text(report, SHOWN)))
    if not report.is_sound:
        raise typer.Exit(1)
