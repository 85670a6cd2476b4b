"""`asr prepare`: a corpus as published -> manifests and an audit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asr.cli import app, tell
from asr.errors import InputError

if TYPE_CHECKING:
    from asr.corpora import Audit

SHOWN = 3
OF_OWN = "Of folders and tables of one's own"
#: Options that only one kind has.
ONLY = {"tier": "folder", "phones": "folder", "audio": "table", "text": "table"}


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

    from asr.corpora import OWN, Own, load_corpus
    from asr.corpora.own.config import shares_of
    from asr.corpora.prepare import write_sets
    from asr.corpora.shards import shard_size
    from asr.system.progress import progress_bar

    size = shard_size(shards) if shards else None
    if corpus == "streamed":
        raise InputError("streamed is how prepared manifests are trained on; prepare them as jsonl")
    own = Own(tier, phones, speaker, audio, text, shares_of(split), seed)
    if own != Own() and corpus not in OWN:
        raise InputError(
            f"{corpus} says itself what is what: --tier, --phones, --audio, --text, --speaker, "
            f"--split and --seed are for {' and '.join(OWN)}"
        )
    for option, kind in ONLY.items():
        if getattr(own, option) and corpus != kind:
            raise InputError(f"--{option} is for {kind}, not {corpus}")
    with progress_bar() as bar:
        loaded = load_corpus(
            corpus,
            root,
            lambda files: bar.track(files, description="reading the corpus"),
            replace(own, kept=out / "audio") if corpus in OWN else None,
        )
        written = write_sets(out, loaded, size, bar)
    table = Table("set")
    for column in ("utterances", "speakers", "hours", "words", "phones"):
        table.add_column(column, justify="right")
    for name, utterances in loaded.sets.items():
        table.add_row(
            name,
            str(len(utterances)),
            str(len({u.speaker for u in utterances})),
            f"{sum(u.duration_s for u in utterances) / 3600:.2f}",
            str(sum(len((u.text or "").split()) for u in utterances)),
            str(sum(len(u.phones or ()) for u in utterances)),
        )
    Console().print(table)
    for line in loaded.audit.notes:
        typer.echo(line)
    for line in _warnings(loaded.audit):
        tell(line)
    for reason, n_dropped in loaded.audit.dropped.items():
        typer.echo(f"{n_dropped} dropped: {reason}")
    for name, tars in written.items():
        n_bytes, seconds = sum(t.bytes for t in tars), sum(t.seconds for t in tars)
        typer.echo(
            f"{name}: {sum(t.utterances for t in tars)} utterances in {len(tars)} tars, "
            f"{n_bytes / 1e6:.1f} MB, {seconds / 3600:.2f} h"
        )
    typer.echo(f"{loaded.audit.used} of {loaded.audit.found} utterances are in {out}")


def _warnings(audit: Audit) -> list[str]:
    """What the user should know of: deviations in full, the first few of the files left out."""
    lines = [f"warning: {deviation}" for deviation in audit.deviations]
    for kind in ("missing", "corrupt", "stray"):
        files: dict[str, str] = getattr(audit, kind)
        if files:
            lines.append(f"warning: {len(files)} files {kind} (all in audit.json)")
            lines += [f"  {path}: {reason}" for path, reason in list(files.items())[:SHOWN]]
    return lines
