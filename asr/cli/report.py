"""asr report: a run as one HTML file to read, listen to, print and send."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from asr.cli import app
from asr.cli.options import DeviceOption


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="A run directory of asr train, finished or not.")],
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("report.html"),
    set_name: Annotated[
        str | None, typer.Option("--set", help="Set to look into; by default a test set.")
    ] = None,
    decoder: Annotated[
        str | None, typer.Option(help="Decoder to look into; by default the best one on dev.")
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Write learning curves, error rates and confusions of RUN, with utterances to see and hear."""
    from asr.errors import InputError
    from asr.report.page import report as report_of
    from asr.system.files import write_text

    if out.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--out {out}: expected a name ending in .html")
    write_text(out, report_of(run, set_name, decoder, device))
    print(out)
