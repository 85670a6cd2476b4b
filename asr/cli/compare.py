"""asr compare: several runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from asr.cli import app


@app.command()
def compare(
    runs: Annotated[
        list[Path], typer.Argument(help="Run directories of asr train, or folders of them.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Picture of the learning curves: .png, .svg or .pdf.")
    ] = None,
    json_out: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare RUNS, the best on dev first: settings that differ, error rates, time, parameters."""
    import json
    import sys

    from rich.console import Console

    from asr.report.compare import as_json, draw, tables
    from asr.report.compare import compare as compare_runs

    comparison = compare_runs(runs)
    if out is not None:
        draw(comparison, out)
    if json_out:
        print(json.dumps(as_json(comparison), indent=2))
        return
    # A file is as wide as its lines.
    console = Console() if sys.stdout.isatty() else Console(width=1_000_000)
    for table in tables(comparison, console.width):
        console.print(table, markup=False)
    print("(in brackets: 95 % intervals, bootstrapped over speakers where they are known)")
    for note in comparison.notes:
        print(f"note: {note}", file=sys.stderr)
    if out is not None:
        print(out)
