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
    from rich.table import Table

    from asr.report.compare import as_json, draw, rows
    from asr.report.compare import compare as compare_runs

    comparison = compare_runs(runs)
    if out is not None:
        draw(comparison, out)
    if json_out:
        print(json.dumps(as_json(comparison), indent=2))
        return
    cells = rows(comparison)
    heads = [run.name for run in comparison.runs]
    widths = [
        max(len(text) for text in (head, *(row[i] for _, row in cells)))
        for i, head in enumerate(heads)
    ]
    first = max(len(name) for name, _ in cells)
    full = 4 + first + sum(width + 3 for width in widths)
    console = Console(width=None if sys.stdout.isatty() else full)
    # As many runs side by side as the window holds.
    start = 0
    while start < len(heads):
        end, room = start + 1, console.width - 4 - first - widths[start] - 3
        while end < len(heads) and room >= widths[end] + 3:
            room -= widths[end] + 3
            end += 1
        table = Table("")
        for head in heads[start:end]:
            table.add_column(head, overflow="fold")
        for name, row in cells:
            table.add_row(name, *row[start:end])
        console.print(table, markup=False)
        start = end
    print("(in brackets: 95 % intervals, bootstrapped over speakers where they are known)")
    for note in comparison.notes:
        print(f"note: {note}", file=sys.stderr)
    if out is not None:
        print(out)
