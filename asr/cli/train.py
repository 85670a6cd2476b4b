"""asr train: run a recipe."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asr.cli import app
from asr.errors import InputError
from asr.system.interrupts import ignore, listen

if TYPE_CHECKING:
    from asr.train.config import RunConfig


@app.command()
def train(
    recipe: Annotated[
        str, typer.Argument(help="A recipe such as recipes/so762/ctc.yaml, or a run to resume.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Settings to change: corpus.root=DIR run_dir=DIR seed=1 optim.lr=3e-4"),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in RECIPE, as does resume=RUN.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Learn one batch by heart: does learning work at all?")
    ] = False,
    show: Annotated[
        bool,
        typer.Option("--show", help="Print every setting, its value and what it means; no run."),
    ] = False,
    multirun: Annotated[
        bool,
        typer.Option("--multirun", "-m", help="One run for each of seed=1,2, in run_dir/0 ..."),
    ] = False,
) -> None:
    """Train a recipe into run_dir, choose the best epoch on dev, score dev and test."""
    from asr.train.recipe import load_config, read_config
    from asr.train.recipe import multirun as run_all

    changes = list(overrides or [])
    if show:
        from asr.train.config import described

        if resume:
            config, _ = read_config(Path(recipe) / "config.yaml", changes)
        else:
            config, _ = load_config(recipe, changes)
        print("\n".join(described(config)))
        return
    if multirun and (resume or check):
        raise InputError("-m trains anew several times: without --resume and --check")
    if resume:
        if moved := [c for c in changes if c.startswith(("run_dir=", "resume="))]:
            raise InputError(f"{moved[0]}: --resume goes on in {recipe}; move the folder instead")
        config, resolved = read_config(Path(recipe) / "config.yaml", changes)
        config.run_dir = recipe
        run(config, resolved, resume=True)
        return
    if multirun:
        run_all(recipe, changes, run_one)
        return
    config, resolved = load_config(recipe, changes)
    if check:
        learn_by_heart(config)
        return
    config.run_dir = config.run_dir or config.resume
    if not config.run_dir:
        raise InputError("run_dir is not set: add run_dir=DIR, the folder for the results")
    if config.resume not in ("", config.run_dir):
        raise InputError(f"resume={config.resume} and run_dir={config.run_dir} differ")
    run(config, resolved, resume=bool(config.resume))


def run_one(config: RunConfig, resolved: str) -> float | None:
    """One run of a sweep; returns its model's dev error rate, which a sweeper may minimise."""
    if config.resume:
        raise InputError("-m trains anew: without resume=; for one run: asr train RUN --resume")
    try:
        results = run(config, resolved)
    except typer.Exit as stop:
        # A run that fails lets the others go on, but who presses Ctrl-C means all of them.
        raise KeyboardInterrupt from stop
    if not results:
        return None
    plainest = next(iter(results["sets"]["dev"].values()))
    rate: float = next(iter(plainest.values()))["error_rate"]
    return rate


def run(config: RunConfig, resolved: str, resume: bool = False) -> dict[str, Any]:
    """Train, summarise, return the results; stopped by a signal, say how to go on."""
    from asr.train.loop import train
    from asr.train.world import OtherProcessError, from_torchrun

    rank, size = from_torchrun("RANK", 0), from_torchrun("WORLD_SIZE", 1)
    # Once more for the processes that a sweep's launcher has made.
    listen()
    try:
        results = train(config, resolved, resume)
    except KeyboardInterrupt:
        # All is saved: pressed again, it need not show what was being cleared away.
        ignore()
        if rank == 0:
            begun = (Path(config.run_dir) / "config.yaml").is_file()
            told = f"go on with: asr train {config.run_dir} --resume"
            print(f"asr: stopped; {told if begun else 'nothing was begun'}", file=sys.stderr)
        raise typer.Exit(130) from None
    except OtherProcessError:
        # One line is enough for all.
        if rank > 0:
            raise typer.Exit(2) from None
        raise
    except InputError as error:
        if size == 1:
            raise
        raise InputError(f"process {rank} of {size}: {error}") from error
    if rank == 0:
        summarise(results, config.run_dir)
    return results


def learn_by_heart(config: RunConfig) -> None:
    """Overfit one batch; exit with 1 where the model does not learn it."""
    from asr.train.check import overfit

    if not overfit(config):
        raise typer.Exit(1)


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
