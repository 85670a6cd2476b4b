"""Draw dev error against training time, of runs of ours and of others.

    python tools/draw_training.py OUT.png "NAME=DIR" ...

DIR holds a metrics.jsonl with the fields dev_PER and wall_s, as `asr train` and
tools/speechbrain_timit.py write it. Several directories of one name are drawn in one colour.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from asr.system.files import write_aside


def curve(folder: Path) -> tuple[list[float], list[float]]:
    """Minutes and percent, one of each for an epoch."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    epochs = [json.loads(line) for line in lines]
    return [e["wall_s"] / 60 for e in epochs], [100 * e["dev_PER"] for e in epochs]


def main() -> None:
    """Read, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("runs", nargs="+", metavar="NAME=DIR")
    chosen = parser.parse_args()
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    colours: dict[str, str] = {}
    for run in chosen.runs:
        name, _, folder = run.partition("=")
        is_new = name not in colours
        colour = colours.setdefault(name, f"C{len(colours)}")
        axes.plot(*curve(Path(folder)), color=colour, label=name if is_new else None)
    axes.set_xlabel("training time (minutes of one core)")
    axes.set_ylabel("phone errors on dev (%)")
    axes.grid(alpha=0.3)
    axes.legend()
    with write_aside(chosen.out) as aside:
        figure.savefig(aside, dpi=100)


if __name__ == "__main__":
    main()
