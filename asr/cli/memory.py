"""asr memory: why gradients vanish, and what the constant error carousel does about it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from asr.cli import app
from asr.errors import InputError


@app.command()
def memory(
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for memory.json, gradient.png, recall.png.")
    ],
    seed: Annotated[int, typer.Option(min=0, help="Of weights and data.")] = 1,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="A few seconds, small nets, short distances: to see that it works."
        ),
    ] = False,
) -> None:
    """Measure how far back each recurrent cell remembers, and draw it.

    All cells, at equal numbers of parameters: how the gradient falls with the distance in time,
    before and after training, and how often "Jane ... then" is continued with "she" (and "John ..."
    with "he") over k words between. Takes minutes. docs/recurrent-nets.md explains what one sees.
    """
    import json
    import os

    from rich.console import Console
    from rich.table import Table

    from asr.nets.memory import QUICK, Protocol, count_trials, measure
    from asr.plot.memory import LOOKS, draw_gradient, draw_recall
    from asr.system.files import write_text
    from asr.system.progress import progress_bar

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be made a folder ({error.strerror})") from error
    protocol = QUICK if quick else Protocol()
    with progress_bar() as progress:
        task = progress.add_task("trainings", total=count_trials(protocol))
        found = measure(
            protocol,
            seed,
            1 if quick else min(os.cpu_count() or 1, 8),
            lambda: progress.advance(task),
        )
    write_text(out / "memory.json", json.dumps(found, indent=2) + "\n")
    draw_gradient(found, out / "gradient.png")
    draw_recall(found, out / "recall.png")

    table = Table("right answers at k =", *map(str, found["recall_k"]))
    for name, net in found["nets"].items():
        table.add_row(
            LOOKS[name].title, *(f"{100 * mean:.0f} %" for mean in net["accuracy"]["mean"])
        )
    Console().print(table)
    print(f"{out}/memory.json   {out}/gradient.png   {out}/recall.png")
