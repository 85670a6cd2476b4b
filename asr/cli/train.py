"""asr train: run a recipe."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asr.cli import app
from asr.errors import InputError

if TYPE_CHECKING:
    from asr.recipe import RunConfig


@app.command()
def train(
    recipe: Annotated[
        str, typer.Argument(help="A recipe such as recipes/so762/ctc.yaml, or a run to resume.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Settings to change: corpus.root=DIR run_dir=DIR seed=1 optim.lr=3e-4"),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in RECIPE.")] = False,
    multirun: Annotated[
        bool, typer.Option("--multirun", "-m", help="One run for each of: seed=1,2 ...")
    ] = False,
) -> None:
    """Train a recipe into run_dir, choose the best epoch on dev, score dev and test."""
    from asr.config import load_config, read_config, sweep

    changes = list(overrides or [])
    if resume:
        if changes or multirun:
            raise InputError("--resume goes on with a run as it was configured: no overrides")
        config, resolved = read_config(Path(recipe) / "config.yaml")
        config.run_dir = recipe
        run(config, resolved, resume=True)
        return
    jobs = sweep(changes) if multirun else [changes]
    # All of them are composed before the first one runs.
    composed = [load_config(recipe, job) for job in jobs]
    for number, (job, (config, resolved)) in enumerate(zip(jobs, composed, strict=True)):
        if not config.run_dir:
            raise InputError("run_dir is not set: add run_dir=DIR, the folder for the results")
        if multirun:
            config.run_dir = str(Path(config.run_dir) / str(number))
            print(f"run {number + 1} of {len(jobs)}: {' '.join(job)}")
        run(config, resolved)


def run(config: RunConfig, resolved: str, resume: bool = False) -> None:
    """Train and summarise; stopped by Ctrl-C or SIGTERM, say how to go on."""
    from asr.training import train

    # A batch system's SIGTERM ends a run as Ctrl-C does: files whole, the way on told.
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, signal.default_int_handler)
    try:
        results = train(config, resolved, resume)
    except KeyboardInterrupt:
        print(f"asr: stopped; go on with: asr train {config.run_dir} --resume", file=sys.stderr)
        raise typer.Exit(130) from None
    summarise(results, config.run_dir)


def summarise(results: dict[str, Any], run_dir: str) -> None:
    """Print the error rates beside each other and where the run lies."""
    from rich.console import Console
    from rich.table import Table

    rates = sorted({r for set_ in results["sets"].values() for d in set_.values() for r in d})
    rates = [r for r in rates if r != "decoding_s"]
    table = Table("set", "decoder", *rates, title=results["policy"])
    for set_name, decoders in results["sets"].items():
        for decoder, found in decoders.items():
            cells = [
                f"{100 * found[r]['error_rate']:.2f} %"
                if r in found and found[r]["error_rate"] is not None
                else ""
                for r in rates
            ]
            table.add_row(set_name, decoder, *cells)
    Console().print(table)
    print(f"model: {run_dir}/model   results: {run_dir}/results.json")
