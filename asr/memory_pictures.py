"""The two pictures of `asr memory`, from what memory.json holds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from asr.files import write_aside

TITLES = {
    "rnn": "tanh RNN",
    "lstm": "LSTM",
    "peephole": "peephole LSTM",
    "coupled": "coupled LSTM",
    "gru": "GRU",
    "gru_before": "GRU, reset before",
    "rnn_orthogonal": "tanh RNN, orthogonal start",
    "lstm_forget_1": "LSTM, forget bias 1",
}
COLOURS = {
    "rnn": "#c0392b",
    "lstm": "#1f4e9c",
    "peephole": "#4a90d9",
    "coupled": "#16a0b0",
    "gru": "#2e7d32",
    "gru_before": "#8bc34a",
    "rnn_orthogonal": "#e08e79",
    "lstm_forget_1": "#8d8fb5",
}
FLOOR, CEILING = 1e-12, 1e2
#: Distance between two labels beside each other, as a part of the axes' height.
LABEL_HEIGHT = 0.052


def draw_gradient(found: dict[str, Any], path: Path) -> None:
    """Gradients over k before and after training, with the tanh RNN's singular values, as PNG."""
    figure = Figure(figsize=(12, 8.4), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 3, sharex=True, sharey=True)
    figure.suptitle(
        "The tanh RNN's gradient vanishes exponentially; along the LSTM's cell it stays",
        fontsize=15,
        fontweight="bold",
    )
    k = found["gradient_k"]
    titles = (
        "by the memory: ‖∂h(t) / ∂c(t−k)‖, without a cell ∂h(t−k)",
        "by the input: ‖∂h(t) / ∂x(t−k)‖",
        "tanh RNN: singular values",
    )
    for row, stage in zip(axes, ("before", "after"), strict=True):
        for axis, title in zip(row, titles, strict=True):
            axis.set_title(title if stage == "before" else "", fontsize=10.5)
            axis.set_yscale("log")
            axis.set_ylim(FLOOR, CEILING)
            axis.set_xlim(0, k[-1])
            _clean(axis)
        row[0].set_ylabel(f"{stage} training", fontsize=12, fontweight="bold")
        memory, by_input = [], []
        for name, net in found["nets"].items():
            norms = net["gradient"][stage]["norms"]
            style = {"color": COLOURS[name], "linestyle": "--" if net["control"] else "-"}
            state = norms.get("c", norms["h"])
            row[0].plot(k, state, linewidth=1.6, **style)
            row[1].plot(k, norms["x"], linewidth=1.6, **style)
            memory.append((TITLES[name], COLOURS[name], state))
            by_input.append((TITLES[name], COLOURS[name], norms["x"]))
        _label(row[0], k, memory)
        _label(row[1], k, by_input)
        _singular_values(row[2], k, found["nets"]["rnn"]["gradient"][stage]["jacobians"])
    for axis in axes[1]:
        axis.set_xlabel("k, frames back from the last")
    with write_aside(path) as aside:
        figure.savefig(aside)


def draw_recall(found: dict[str, Any], path: Path) -> None:
    """Right answers against k, the mean over the runs with each run as a point, as PNG."""
    figure = Figure(figsize=(12, 6.6), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    task, k = found["task"], found["recall_k"]
    axis.set_title(
        "Who came first? The tanh RNN falls to chance, the gated cells hold",
        fontsize=15,
        fontweight="bold",
        loc="left",
    )
    axis.set_xscale("log")
    axis.set_xticks(k, map(str, k))
    axis.minorticks_off()
    axis.set_xlabel(
        f'k, random words between "{task["names"][0]}" or "{task["names"][1]}" and '
        f'"{task["cue"]}", after which "{task["answers"][0]}" or "{task["answers"][1]}" is right'
    )
    axis.set_ylabel("right answers (%)")
    axis.set_ylim(35, 105)
    axis.axhline(100 * task["chance"], color="grey", linewidth=1, linestyle=":")
    axis.annotate("chance", (k[0], 100 * task["chance"] - 2.5), color="grey")
    _clean(axis)
    lines = []
    for name, net in found["nets"].items():
        mean = [100 * a for a in net["accuracy"]["mean"]]
        style = {"color": COLOURS[name], "linestyle": "--" if net["control"] else "-"}
        axis.plot(k, mean, linewidth=2, **style)
        for length, runs in zip(k, net["accuracy"]["runs"], strict=True):
            axis.plot([length] * len(runs), [100 * r for r in runs], ".", color=COLOURS[name])
        lines.append((TITLES[name], COLOURS[name], mean))
    _label(axis, k, lines)
    with write_aside(path) as aside:
        figure.savefig(aside)


def _singular_values(axis: Axes, k: Sequence[int], jacobians: dict[str, Any]) -> None:
    """Of the product of Jacobians, and of its last factor alone; names at the lines."""
    lines = []
    for kind, colour, title in (
        ("single", "#7f8c8d", "one Jacobian"),
        ("product", "#c0392b", "product of k"),
    ):
        for which, width in (("largest", 2.0), ("median", 1.4), ("smallest", 0.9)):
            values = jacobians[kind][which]
            axis.plot(k, [float("nan") if v is None else v for v in values], colour, lw=width)
            lines.append((f"{title}, {which}", colour, values))
    _label(axis, k, lines)


def _clean(axis: Axes) -> None:
    """No box, a faint grid."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(color="0.92")
    axis.set_axisbelow(True)


def _label(
    axis: Axes, k: Sequence[int], lines: Sequence[tuple[str, str, Sequence[float | None]]]
) -> None:
    """Write each line's name right of the axes at the line's end, none upon another.

    A line that leaves the axes at the bottom, or ends, gets its name there, and the k of that.
    """
    low, high = axis.get_ylim()
    to_part = axis.transScale.transform
    bottom, top = to_part((1, low))[1], to_part((1, high))[1]
    labels = []
    for title, colour, values in lines:
        seen = [(x, y) for x, y in zip(k, values, strict=True) if y is not None and y >= low]
        x, y = seen[-1]
        if x < k[-1]:
            title += f" (to k = {x})"
        labels.append([(to_part((x, y))[1] - bottom) / (top - bottom), title, colour])
    labels.sort()
    _spread(labels)
    for part, title, colour in labels:
        axis.text(
            1.02, part, title, color=colour, fontsize=9, va="center", transform=axis.transAxes
        )


def _spread(labels: list[list[Any]]) -> None:
    """Push labels apart, from the lowest to the highest, and back below the top."""
    for below, label in pairwise(labels):
        label[0] = max(label[0], below[0] + LABEL_HEIGHT)
    ceiling = 1.0
    for label in reversed(labels):
        label[0] = min(label[0], ceiling)
        ceiling = label[0] - LABEL_HEIGHT
