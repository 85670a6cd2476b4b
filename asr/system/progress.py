"""The progress bar of everything that takes long."""

from __future__ import annotations

import os
import sys

import rich.progress
from rich.console import Console


def progress_bar(*columns: str) -> rich.progress.Progress:
    """A bar on standard error, there only where a person watches; ``columns`` are task fields.

    Of the processes that torchrun starts only the first draws.
    """
    return rich.progress.Progress(
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        *(rich.progress.TextColumn("{task.fields[" + name + "]}") for name in columns),
        rich.progress.TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty() or os.environ.get("RANK", "0") != "0",
        # What goes to a file or a pipe must not be drawn above the bar instead.
        redirect_stdout=sys.stdout.isatty(),
    )
