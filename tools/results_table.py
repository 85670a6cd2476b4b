"""Make the results table of a recipe's README from run directories.

    python tools/results_table.py RUN...

One row a run and decoder, straight from results.json: nothing is typed by hand.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HEAD = ("decoder", "seed", "dev", "test", "training", "date")


def rate(found: dict[str, Any]) -> str:
    """Every error rate of one set and decoder."""
    rates = [f"{k} {100 * v['error_rate']:.1f}" for k, v in found.items() if isinstance(v, dict)]
    return ", ".join(rates)


def rows(run: Path) -> list[tuple[str, ...]]:
    """The rows of one run."""
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    minutes = f"{results['training_s'] / 60:.0f} min"
    date = json.loads((run / "environment.json").read_text(encoding="utf-8"))["date"][:10]
    return [
        (
            decoder,
            str(results["seed"]),
            rate(results["sets"]["dev"][decoder]),
            rate(results["sets"]["test"][decoder]),
            minutes,
            date,
        )
        for decoder in results["decoders"]
    ]


def main() -> None:
    """Print the table."""
    lines = [HEAD, ("---",) * len(HEAD)]
    for run in map(Path, sys.argv[1:]):
        lines += rows(run)
    for line in lines:
        print("| " + " | ".join(line) + " |")


if __name__ == "__main__":
    main()
