"""Make the results tables of a recipe's README from run directories.

    python tools/results_table.py [NAME=]RUN[,RUN...] ...

Each argument is a system: the runs of one recipe with one or more seeds. A row is a system through
one decoder: the mean over its seeds with their standard deviation, the shares of substitutions,
deletions and insertions on test, the bootstrap interval of its rate there by speaker, and what `asr
score --compare` says of it against the row before it, the same decoder of the system before: the
difference on test, the interval of that by speaker, and the p of Wilcoxon's test over speakers.
Several seeds are judged as one system that heard every utterance so many times. Runs without
decoded/ have their rates alone. Nothing is typed by hand.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import lcm
from pathlib import Path
from typing import Any

import numpy as np

from asr.cli import tell
from asr.errors import InputError
from asr.score.alignment import Alignments
from asr.score.error_rate import RATE_NAMES
from asr.score.significance import compare, intervals
from asr.score.systems import BY_POLICY, Choices, System, score_files

HEAD = (
    *("decoder", "system", "seeds", "dev", "test", "S / D / I", "95 % by speaker"),
    *("against the row before", "training", "date"),
)


@dataclass(frozen=True)
class Row:
    """One rate of a system through one decoder; scored: its runs' test sets, or none of them."""

    decoder: str
    rate: str
    dev: list[dict[str, Any]]
    test: list[dict[str, Any]]
    scored: list[System]


def rows_of(runs: Sequence[Path], results: Sequence[dict[str, Any]]) -> Iterator[Row]:
    """The rows of a system, by what its first run was decoded and scored with."""
    for decoder, found in results[0]["sets"]["test"].items():
        for rate in RATE_NAMES.values():
            if rate in found:
                dev, test = (
                    [r["sets"][name][decoder][rate] for r in results] for name in ("dev", "test")
                )
                choices = BY_POLICY[found[rate]["policy"]]
                scored = [
                    scored_again(run, decoder, choices, known["error_rate"])
                    for run, known in zip(runs, test, strict=True)
                    if (run / "decoded").is_dir()
                ]
                yield Row(decoder, rate, dev, test, scored if len(scored) == len(runs) else [])


def scored_again(run: Path, decoder: str, choices: Choices, known: float) -> System:
    """A run's decoded test set.

    Raises:
        InputError: it has another error rate than results.json says.
    """
    heard = run / f"decoded/test.{decoder}.jsonl"
    (system,) = score_files(run / "manifests/test.jsonl", [heard], choices, tell)
    if abs(system.scores.error_rate - known) > 1e-9:
        raise InputError(
            f"{heard}: {RATE_NAMES[choices.unit]} {100 * system.scores.error_rate:.2f} %, where "
            f"results.json says {100 * known:.2f} %: they are not of one run"
        )
    return system


def joined(systems: Sequence[System], times: int) -> tuple[Alignments, list[str]]:
    """The alignments of all seeds as those of one system, so many times over; and the speakers."""
    parts = [system.alignments for system in systems] * times
    ends = np.cumsum(np.concatenate([[0], *(np.diff(part.first) for part in parts)]))

    def placed() -> Any:
        raise NotImplementedError("counts alone are looked at")

    codes = np.concatenate([part.codes for part in parts])
    return Alignments(codes, ends, placed), [s for _ in parts for s in systems[0].speakers]


def percent(found: Sequence[dict[str, Any]]) -> str:
    """The mean error rate, and of several the standard deviation."""
    rates = [of["error_rate"] for of in found]
    shown = f"{100 * statistics.mean(rates):.1f}"
    return f"{shown} ± {100 * statistics.stdev(rates):.1f}" if len(rates) > 1 else shown


def kinds(found: Sequence[dict[str, Any]]) -> str:
    """How often something was substituted, deleted and inserted, in percent of what was said."""
    said = sum(of["reference_length"] for of in found)
    counts = [sum(of[k] for of in found) for k in ("substitutions", "deletions", "insertions")]
    return " / ".join(f"{100 * count / said:.1f}" for count in counts)


def interval(row: Row) -> str:
    """Where the rate on test may lie, speakers drawn anew."""
    if not row.scored:
        return ""
    _, over = intervals(*joined(row.scored, 1))
    return f"{100 * over.low:.1f} to {100 * over.high:.1f}" if over else ""


def gain(before: Row | None, row: Row) -> str:
    """What changed since the row before, its interval by speaker, and p."""
    if before is None or not before.scored or not row.scored:
        return ""
    n = lcm(len(before.scored), len(row.scored))
    a, speakers = joined(before.scored, n // len(before.scored))
    b, _ = joined(row.scored, n // len(row.scored))
    if before.scored[0].matched.ids != row.scored[0].matched.ids:
        raise InputError(
            f"{before.scored[0].path}, {row.scored[0].path}: test sets of other utterances cannot "
            "be compared"
        )
    found = compare(a, b, speakers)
    shown = f"{100 * found.difference:+.1f}"
    if (over := found.over_speakers) and found.wilcoxon:
        shown += f" ({100 * over.low:+.1f} to {100 * over.high:+.1f}), p {found.wilcoxon.p:.2g}"
    return shown


def table(systems: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The cells of every row, decoder by decoder."""
    rows: dict[tuple[str, str], list[tuple[Row, tuple[str, ...], tuple[str, ...]]]] = {}
    for named in systems:
        name, _, folders = named.rpartition("=")
        runs = [Path(folder) for folder in folders.split(",")]
        results = [json.loads((run / "results.json").read_text(encoding="utf-8")) for run in runs]
        # What judge_model.py judged was not trained there.
        trained = [r for r in results if "seed" in r]
        seeds = ", ".join(str(r["seed"]) for r in trained)
        minutes = [r["training_s"] / 60 for r in trained]
        spent = f"{statistics.mean(minutes):.0f} min" if minutes else ""
        date = max(r["environment"]["date"] for r in results)[:10]
        for row in rows_of(runs, results):
            of = rows.setdefault((row.decoder, row.rate), [])
            of.append((row, (name or runs[0].name, seeds), (spent, date)))
    for (decoder, rate), of in rows.items():
        before = None
        for row, names, rest in of:
            rates = (f"{rate} {percent(row.dev)}", f"{rate} {percent(row.test)}")
            sure = (kinds(row.test), interval(row), gain(before, row))
            yield (decoder, *names, *rates, *sure, *rest)
            before = row


def main() -> None:
    """Print the table."""
    try:
        for cells in (HEAD, ("---",) * len(HEAD), *table(sys.argv[1:])):
            print("| " + " | ".join(cells) + " |")
    except InputError as error:
        sys.exit(f"results_table: {error}")


if __name__ == "__main__":
    main()
