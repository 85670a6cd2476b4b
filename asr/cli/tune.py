"""asr tune: choose a model's decoding weights on a dev set, and calibrate its confidences."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asr.cli import app, tell
from asr.cli.options import DeviceOption, searching
from asr.decode.config import DecodingOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from asr.recognize.tuning import Calibrated, Trial, Tuned


@app.command()
@searching("decoder", "nbest", "lm_weight", "bonus", "unknown", "hotword", "rescore_weight")
def tune(
    manifest: Annotated[Path, typer.Argument(help="The dev set, as a .jsonl manifest.")],
    model: Annotated[str, typer.Option(help="Model directory (or run directory); changed.")],
    *,
    options: DecodingOptions,
    adapt: Annotated[
        bool,
        typer.Option(
            "--adapt", help="For asr transcribe --adapt: on the net adapted to each speaker."
        ),
    ] = False,
    device: DeviceOption = "auto",
    force: Annotated[bool, typer.Option("--force", help="Even on a test set.")] = False,
) -> None:
    """Find the weights, bonuses and beam with the lowest error rate on MANIFEST.

    What is found goes into the model directory, and so do --lexicon, --lm and --rescore: from then
    on asr transcribe uses them by itself. With none of them given, every decoder that the model has
    is tuned. Confidences are fitted to what was right. The net runs once: its outputs are kept
    beside the model directory, in <DIR>-emissions.
    """
    from rich.console import Console

    from asr.model.bundle import CONFIG, model_folder
    from asr.recognize.tuning import check_tunable, tune_model

    check_tunable(manifest, model, force)
    folder = model_folder(Path(model))
    outcome = tune_model(folder, manifest, options, device, tell, adapt)
    console = Console()
    for tuned in outcome.found:
        for table in tables(tuned):
            console.print(table)
        print(summary(tuned))
    if not outcome.found:
        tell("no language model or lexicon: there are no weights to choose; add --lm or --lexicon")
    console.print(calibration_table(outcome.calibrated))
    if outcome.lacking:
        tell(f"{manifest}: {outcome.lacking}")
    print(f"{folder}: weights and confidences stand in {folder / CONFIG}")


def percent(rate: float) -> str:
    """A rate in percent, without the sign."""
    return f"{100 * rate:.2f}"


def summary(tuned: Tuned) -> str:
    """What a search found, on one line."""
    best = tuned.best
    values = [f"{name} {getattr(best.config, name):g}" for name in tuned.search.axes]
    if tuned.search.beams:
        values.append(f"beam {best.config.beam}")
    return f"{tuned.search.title}: {', '.join(values)}: {percent(best.rate)} % errors"


def tables(tuned: Tuned) -> list[Table]:
    """The trials of one search: the coarse grid, then the refinement and the beams."""
    from rich.table import Table

    names = list(tuned.search.axes)
    grid = [t for t in tuned.trials if t.stage == "grid"]
    lowest = min(t.rate for t in grid)

    def beam_of(trial: Trial) -> str:
        searched = trial.config.name == "beam" and "rescore_weight" not in names
        return f", beam {trial.config.beam}" if searched else ""

    def shown(rate: float, best: float) -> str:
        return f"[bold]{percent(rate)}*[/bold]" if rate == best else percent(rate)

    *first, across = names
    coarse = Table(
        "",
        *(f"{value:g}" for value in tuned.search.axes[across]),
        title=f"{tuned.search.title}: errors in %" + beam_of(grid[0]),
        caption=f"down: {' '.join(first) or 'nothing'}, across: {across}",
    )
    width = len(tuned.search.axes[across])
    for row in range(0, len(grid), width):
        config = grid[row].config
        head = " ".join(f"{getattr(config, name):g}" for name in first)
        coarse.add_row(head, *(shown(t.rate, lowest) for t in grid[row : row + width]))
    fine = Table(*names, "", "errors in %", title="around the best")
    for t in tuned.trials[len(grid) :]:
        values = [f"{getattr(t.config, name):g}" for name in names]
        mark = "*" if t is tuned.best else ""
        fine.add_row(*values, beam_of(t).strip(", "), percent(t.rate) + mark)
    return [coarse, fine]


def calibration_table(reports: Sequence[Calibrated]) -> Table:
    """Expected calibration errors before and after."""
    from rich.table import Table

    table = Table(
        "decoder",
        "of",
        "count",
        "right",
        "before",
        "after",
        title="confidences: expected calibration error (10 bins, cross-validated)",
    )
    for r in reports:
        after = "too few" if r.after is None else f"{r.after:.3f}"
        count = str(r.count)
        table.add_row(r.title, f"{r.unit}s", count, f"{r.accuracy:.3f}", f"{r.before:.3f}", after)
    return table
