"""`asr prepare`: a corpus as published -> manifests and an audit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from asr.cli import app, tell

OF_OWN = "Of folders and tables of one's own"


@app.command()
def prepare(
    corpus: Annotated[
        str,
        typer.Argument(
            help="timit, so762, synthetic, kaldi, librispeech, jsonl or webdataset; of one's own: "
            "folder, audio with text beside it (.TextGrid .eaf .ctm .vtt .srt .lab .txt), or "
            "table (.csv .tsv .parquet, Lhotse's cuts .jsonl.gz)"
        ),
    ],
    root: Annotated[Path, typer.Argument(help="where the corpus lies")],
    out: Annotated[Path, typer.Argument(help="folder for <set>.jsonl and audit.json")],
    *,
    shards: Annotated[
        str,
        typer.Option(
            metavar="N|SIZE",
            help="Also copy the audio into tars (KEY.flac, KEY.json): so many a set, or of a size "
            "such as 500MB. Train on them with corpus=streamed. Broken off, it goes on.",
        ),
    ] = "",
    tier: Annotated[
        str, typer.Option(help="Name of the tier of text.", rich_help_panel=OF_OWN)
    ] = "",
    phones: Annotated[
        str, typer.Option(help="Name of the tier of phones.", rich_help_panel=OF_OWN)
    ] = "",
    audio: Annotated[
        str, typer.Option(help="Name of the column of audio.", rich_help_panel=OF_OWN)
    ] = "",
    text: Annotated[
        str, typer.Option(help="Name of the column of text.", rich_help_panel=OF_OWN)
    ] = "",
    speaker: Annotated[
        str,
        typer.Option(
            metavar="COLUMN|PATTERN|NAME",
            help="Of a table the column; of a folder a pattern whose group is the speaker in the "
            r"path below ROOT, such as '(\w+)_\d+$', or the name of the only one; otherwise "
            "folders are.",
            rich_help_panel=OF_OWN,
        ),
    ] = "",
    split: Annotated[
        str,
        typer.Option(
            metavar="PERCENT",
            help="Of train, dev and test, drawn by speaker (80,10,10 where no folders or files "
            "are called so); 100 is one set.",
            rich_help_panel=OF_OWN,
        ),
    ] = "",
    seed: Annotated[int, typer.Option(help="Draws other speakers.", rich_help_panel=OF_OWN)] = 0,
) -> None:
    """Read a corpus, check it, and write its sets as JSONL manifests and an audit of its files."""
    from rich.console import Console
    from rich.table import Table

    from asr.corpora import Own
    from asr.corpora.own.config import shares_of
    from asr.corpora.prepare import SIZES, prepare_sets, sizes, told_of_tars, warnings
    from asr.system.progress import progress_bar

    own = Own(tier, phones, speaker, audio, text, shares_of(split), seed)
    with progress_bar() as bar:
        loaded, written = prepare_sets(corpus, root, out, own, shards, bar)
    table = Table("set")
    for column in SIZES:
        table.add_column(column, justify="right")
    for name, utterances in loaded.sets.items():
        table.add_row(name, *sizes(utterances))
    Console().print(table)
    for line in loaded.audit.notes:
        typer.echo(line)
    for line in warnings(loaded.audit):
        tell(line)
    for reason, n_dropped in loaded.audit.dropped.items():
        typer.echo(f"{n_dropped} dropped: {reason}")
    for name, tars in written.items():
        typer.echo(told_of_tars(name, tars))
    typer.echo(f"{loaded.audit.used} of {loaded.audit.found} utterances are in {out}")
