"""Runs side by side: what differs in their settings, and what came of it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.table import Table

from asr.errors import InputError
from asr.labels import LabelConfig
from asr.nets.recurrent import count_parameters
from asr.report.curves import best_epoch
from asr.report.run import Run, read_run
from asr.score.error_rate import RATE_NAMES, policy_name
from asr.score.show import plain, short_names
from asr.system.files import walked, write_aside
from asr.train.recipe import read_config
from asr.train.rundir import METRICS, has_trained
from asr.train.state import flat

CONFIG = "config.yaml"
PICTURES = (".png", ".svg", ".pdf")
#: Settings that differ between any two runs and change nothing.
PLACES = {"run_dir", "resume"}


@dataclass(frozen=True)
class Curve:
    """Dev error rate (a fraction) after each epoch, and the training time in seconds by then.

    best: index of the epoch whose weights were kept or would be.
    """

    epochs: list[int]
    rates: list[float]
    wall_s: list[float]
    best: int | None


@dataclass(frozen=True)
class Compared:
    """One run. rates: "test greedy PER" -> error_rate and interval (95 %, None: too few).

    name: what tells its folder from those of the others.
    """

    name: str
    folder: str
    settings: dict[str, Any]
    finished: bool
    rate_name: str
    policy: str
    curve: Curve
    parameters: int | None
    rates: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Comparison:
    """Runs, the settings that are not alike in all of them, and what a reader should know."""

    runs: list[Compared]
    differing: list[str]
    notes: list[str]


def compare(folders: Sequence[Path]) -> Comparison:
    """Read runs, finished or not; those without anything to compare are left out and noted.

    The best on dev come first. A folder of runs stands for all that are below it. The intervals are
    bootstrapped over speakers, or over utterances where speakers are not known.

    Raises:
        InputError: a folder neither is a run nor holds one, or holds spoilt files; no run has
            anything to compare.
    """
    runs, notes = [], []
    for folder in dict.fromkeys(run for given in folders for run in runs_in(given)):
        config, _ = read_config(folder / CONFIG)
        if not has_trained(folder) or not (folder / METRICS).stat().st_size:
            notes.append(f"{folder}: left out, its first epoch has not ended")
            continue
        run = read_run(folder)
        runs.append(compared(run, flat(asdict(config)), config.labels))
        notes += [f"{folder}: {note}" for note in run.notes]
        if not runs[-1].finished:
            n_done, n_all = runs[-1].curve.epochs[-1], config.trainer.max_epochs
            notes.append(f"{folder}: unfinished, {n_done} of {n_all} epochs; no test rates yet")
    names = short_names([Path(run.folder) for run in runs])
    runs = [replace(run, name=name) for run, name in zip(runs, names, strict=True)]
    runs.sort(
        key=lambda run: math.inf if run.curve.best is None else run.curve.rates[run.curve.best]
    )
    if not runs:
        raise InputError(f"nothing to compare: {'; '.join(notes)}")
    keys = list(dict.fromkeys(key for run in runs for key in run.settings))
    alike = [key for key in keys if all(r.settings[key] == runs[0].settings[key] for r in runs)]
    policies = sorted({run.policy for run in runs})
    if len(policies) > 1:
        notes.append(f"error rates are of different kinds and not to be compared: {policies}")
    sets = [k for k in ("corpus.kind", "corpus.root", "corpus.dev", "corpus.test") if k in keys]
    if unlike := [key for key in sets if key not in alike]:
        notes.append(f"the runs may be judged on different utterances: {', '.join(unlike)} differ")
    return Comparison(runs, [k for k in keys if k not in alike and k not in PLACES], notes)


def runs_in(folder: Path) -> list[Path]:
    """The run that a folder is, or the runs below it, in the order of the numbers in their names.

    Raises:
        InputError: it neither is one nor holds any.
    """
    if (folder / CONFIG).is_file() or not folder.is_dir():
        return [folder]
    found = [at for at, names in walked(folder) if CONFIG in names and at.name != ".hydra"]
    outer = [at for at in found if not any(other in at.parents for other in found)]
    if not outer:
        raise InputError(f"{folder}: neither is a run nor holds one: expected {CONFIG} there")
    return sorted(outer, key=_by_numbers)


def _by_numbers(path: Path) -> list[tuple[int, str]]:
    return [(int(part) if part.isdecimal() else -1, part) for part in re.split(r"(\d+)", str(path))]


def compared(run: Run, settings: dict[str, Any], labels: LabelConfig) -> Compared:
    """What of a run stands beside others."""
    rate_name = RATE_NAMES[labels.unit]
    rates = {}
    for of in run.scored:
        for name, rate in of.rates.items():
            interval = rate.over_speakers or rate.over_utterances
            rates[f"{of.set} {of.decoder} {name}"] = {
                "error_rate": rate.value if math.isfinite(rate.value) else None,
                "interval": plain(interval),
            }
    model = run.bundle.model if run.bundle else None
    epochs = [m["epoch"] for m in run.metrics]
    best = best_epoch(run)
    return Compared(
        name=run.folder.name,
        folder=str(run.folder),
        settings=settings,
        finished=bool(run.results),
        rate_name=rate_name,
        policy=policy_name(labels.unit, labels.score_fold, labels.silence),
        curve=Curve(
            epochs,
            [m[f"dev_{rate_name}"] for m in run.metrics],
            [m["wall_s"] for m in run.metrics],
            epochs.index(best) if best is not None else None,
        ),
        parameters=count_parameters(model) if model else None,
        rates=rates,
    )


def as_json(comparison: Comparison) -> dict[str, Any]:
    """For programs: rates as fractions, times in seconds."""
    return {
        "runs": [
            {
                **asdict(run),
                "best_epoch": run.curve.epochs[best] if best is not None else None,
                "best_dev_rate": run.curve.rates[best] if best is not None else None,
                "training_s": run.curve.wall_s[-1] if run.curve.wall_s else None,
                "settings": {key: run.settings[key] for key in comparison.differing},
            }
            for run in comparison.runs
            for best in [run.curve.best]
        ],
        "notes": comparison.notes,
    }


def rows(comparison: Comparison) -> list[tuple[str, list[str]]]:
    """The table: what each row is, and its cell for each run."""
    runs = comparison.runs
    table = [(key, [str(r.settings[key]) for r in runs]) for key in comparison.differing]
    table.append(("parameters", [f"{r.parameters:,}" if r.parameters else "" for r in runs]))
    table.append(("epochs", [f"{len(r.curve.epochs)}{'' if r.finished else ' ...'}" for r in runs]))
    table.append(("training time", [clock(r.curve.wall_s) for r in runs]))
    table.append(("best epoch on dev", [best_cell(r) for r in runs]))
    for key in dict.fromkeys(key for r in runs for key in r.rates):
        table.append((key, [rate_cell(r.rates.get(key)) for r in runs]))
    return table


def tables(comparison: Comparison, most: int) -> Iterator[Table]:
    """`rows` as tables with as many runs side by side as ``most`` characters hold."""
    cells = rows(comparison)
    columns = list(zip(*(row for _, row in cells), strict=True))
    heads = [run.name for run in comparison.runs]
    widths = [3 + max(map(len, (h, *of))) for h, of in zip(heads, columns, strict=True)]
    first = 4 + max(len(name) for name, _ in cells)
    start = 0
    while start < len(heads):
        end = start + 1
        while end < len(heads) and first + sum(widths[start : end + 1]) <= most:
            end += 1
        table = Table("")
        for head in heads[start:end]:
            table.add_column(head, overflow="fold")
        for name, row in cells:
            table.add_row(name, *row[start:end])
        yield table
        start = end


def clock(wall_s: Sequence[float]) -> str:
    """The last of the times as h:mm:ss."""
    seconds = round(wall_s[-1]) if wall_s else 0
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def best_cell(run: Compared) -> str:
    """The lowest dev error rate and its epoch."""
    best = run.curve.best
    if best is None:
        return ""
    return f"{run.rate_name} {100 * run.curve.rates[best]:.2f} %, epoch {run.curve.epochs[best]}"


def rate_cell(rate: Mapping[str, Any] | None) -> str:
    """An error rate with its interval, in percent."""
    if rate is None or rate["error_rate"] is None:
        return ""
    text = f"{100 * rate['error_rate']:.2f} %"
    interval = rate["interval"]
    if interval is None:
        return text
    return f"{text} ({100 * interval['low']:.1f} to {100 * interval['high']:.1f})"


def draw(comparison: Comparison, out: Path) -> None:
    """Dev error rate against epochs and against training time; a dot is a run's best epoch.

    Raises:
        InputError: ``out`` does not end in .png, .svg or .pdf, or cannot be written.
    """
    if out.suffix.lower() not in PICTURES:
        raise InputError(f"{out}: expected a name ending in {', '.join(PICTURES)}")
    n_lines = len(comparison.runs)
    figure = Figure(figsize=(11, 4.5 + 0.22 * n_lines), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    for number, run in enumerate(comparison.runs):
        curve = run.curve
        percent = [100 * rate for rate in curve.rates]
        # Ten colours; the dashes tell further runs apart, and all of them in grey print.
        style = {"color": f"C{number % 10}", "linestyle": ("-", "--", "-.", ":")[number % 4]}
        for axes, x in ((left, curve.epochs), (right, [s / 60 for s in curve.wall_s])):
            (line,) = axes.plot(x, percent, **style)
            if curve.best is not None:
                axes.plot(x[curve.best], percent[curve.best], "o", color=style["color"])
        line.set_label(label_of(run, comparison.differing))
    names = sorted({run.rate_name for run in comparison.runs})
    left.set_ylabel(f"dev {' or '.join(names)} (%)")
    left.set_xlabel("epoch")
    right.set_xlabel("training time (minutes)")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    legend = figure.legend(loc="outside lower center")
    for text in legend.get_texts():
        # A dollar in a file's name is no formula.
        text.set_parse_math(False)
    with write_aside(out) as aside:
        figure.savefig(aside, dpi=100)


def label_of(run: Compared, differing: Sequence[str]) -> str:
    """A run in the legend: its settings where they are few, and what kind of rate it has."""
    settings = ", ".join(f"{key}={run.settings[key]}" for key in differing)
    about = settings if len(differing) <= 3 else ""
    return f"{run.name} ({run.rate_name}{'; ' if about else ''}{about})"
