"""The two pictures of `asr memory`, from what memory.json holds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from asr.system.files import write_aside


class Look(NamedTuple):
    """How a net is named and drawn."""

    title: str
    colour: str


LOOKS = {
    "rnn": Look("tanh RNN", "#c0392b"),
    "lstm": Look("LSTM", "#1f4e9c"),
    "peephole": Look("peephole LSTM", "#4a90d9"),
    "coupled": Look("coupled LSTM", "#16a0b0"),
    "gru": Look("GRU", "#2e7d32"),
    "gru_before": Look("GRU, reset before", "#8bc34a"),
    "rnn_orthogonal": Look("tanh RNN, orthogonal start", "#e08e79"),
    "lstm_forget_1": Look("LSTM, forget bias 1", "#8d8fb5"),
}
FLOOR, CEILING = 1e-12, 1e2
#: Distance between two labels beside each other, as a part of the axes' height.
LABEL_HEIGHT = 0.052


def draw_gradient(found: dict[str, Any], path: Path) -> None:
    """Gradients over k before and after training, with the tanh RNN's singular values, as PNG."""
    figure = Figure(figsize=(12, 12), dpi=100, layout="constrained")
    figure.suptitle(_gradient_title(found["nets"]), fontsize=16, fontweight="bold")
    axes = figure.subplots(3, 2, sharex=True, sharey=True)
    k = found["gradient_k"]
    axes[0, 0].set_ylabel("by the memory, ‖∂h(t) / ∂c(t−k)‖\n(∂h(t−k) where there is no cell c)")
    axes[1, 0].set_ylabel("by the input, ‖∂h(t) / ∂x(t−k)‖")
    axes[2, 0].set_ylabel("tanh RNN: singular values\nof the Jacobians ∂h(j) / ∂h(j−1)")
    for column, stage in zip(axes.T, ("before", "after"), strict=True):
        column[0].set_title(f"{stage} training", fontsize=13, fontweight="bold")
        column[-1].set_xlabel("k, frames back from the last")
        for axis in column:
            axis.set_yscale("log")
            axis.set_ylim(FLOOR, CEILING)
            axis.set_xlim(0, k[-1])
            axis.tick_params(labelleft=True)
            _clean(axis)
        memory, by_input = [], []
        for name, net in found["nets"].items():
            norms = net["gradient"][stage]["norms"]
            memory.append((LOOKS[name].title, _style(name, net), norms.get("c", norms["h"])))
            by_input.append((LOOKS[name].title, _style(name, net), norms["x"]))
        _lines(column[0], k, memory)
        _lines(column[1], k, by_input)
        jacobians = found["nets"]["rnn"]["gradient"][stage]["jacobians"]
        singular = [
            (f"{title}, {which}", {"color": colour, "linewidth": width}, jacobians[kind][which])
            for kind, colour, title in (
                ("single", "#7f8c8d", "each alone"),
                ("product", LOOKS["rnn"].colour, "product of k"),
            )
            for which, width in (("largest", 2.2), ("median", 1.5), ("smallest", 0.9))
        ]
        _lines(column[2], k, singular)
    with write_aside(path) as aside:
        figure.savefig(aside)


def draw_recall(found: dict[str, Any], path: Path) -> None:
    """Right answers against k, a panel a net: each run as a point, the mean as a line; as PNG."""
    figure = Figure(figsize=(12, 6.2), dpi=100, layout="constrained")
    task, k, nets = found["task"], found["recall_k"], found["nets"]
    figure.suptitle(_recall_title(nets), fontsize=16, fontweight="bold")
    figure.supxlabel(
        f'k, random words between {" or ".join(task["names"])} and "{task["cue"]}", after which '
        f"{' or '.join(task['answers'])} is right"
    )
    figure.supylabel("right answers (%)")
    axes = figure.subplots(2, len(nets) // 2, sharex=True, sharey=True)
    for axis, (name, net) in zip(axes.flat, nets.items(), strict=True):
        title, colour = LOOKS[name]
        for other in nets.values():
            axis.plot(k, [100 * a for a in other["accuracy"]["mean"]], color="0.85", linewidth=1)
        axis.axhline(100 * task["chance"], color="grey", linewidth=1, linestyle=":")
        axis.plot(k, [100 * a for a in net["accuracy"]["mean"]], linewidth=2.5, **_style(name, net))
        for length, runs in zip(k, net["accuracy"]["runs"], strict=True):
            axis.plot([length] * len(runs), [100 * r for r in runs], ".", color=colour)
        axis.set_title(title, fontsize=11.5, color=colour, fontweight="bold")
        axis.set_xscale("log")
        axis.set_xticks(k, map(str, k))
        axis.minorticks_off()
        axis.set_ylim(-4, 104)
        _clean(axis)
    axes[0, 0].annotate("chance", (k[0], 100 * task["chance"] - 9), color="grey")
    with write_aside(path) as aside:
        figure.savefig(aside)


def _gradient_title(nets: dict[str, Any]) -> str:
    """What one sees, where one sees it: at the longest k, before training."""
    last = {
        name: net["gradient"]["before"]["norms"]["x"][-1]
        for name, net in nets.items()
        if not net["control"]
    }
    if all(last["rnn"] < 1e-6 * norm for name, norm in last.items() if name != "rnn"):
        return "Untrained, the tanh RNN's gradient vanishes; the gated cells' comes through"
    return "The gradient of the last output, back through time"


def _recall_title(nets: dict[str, Any]) -> str:
    """What one sees, where one sees it: at the longest k."""
    last = {n: net["accuracy"]["mean"][-1] for n, net in nets.items() if not net["control"]}
    if last["rnn"] < 0.6 and all(mean > 0.9 for name, mean in last.items() if name != "rnn"):
        return "Who came first? The tanh RNN falls to chance, the gated cells remember"
    return "Who came first? Right answers after k words"


def _style(name: str, net: dict[str, Any]) -> dict[str, Any]:
    """Colour of a net, dashes for a control."""
    return {"color": LOOKS[name].colour, "linestyle": "--" if net["control"] else "-"}


def _clean(axis: Axes) -> None:
    """No box, a faint grid."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(color="0.92")
    axis.set_axisbelow(True)


def _lines(
    axis: Axes,
    k: Sequence[int],
    lines: Sequence[tuple[str, dict[str, Any], Sequence[float | None]]],
) -> None:
    """Plot lines on logarithmic axes, each with its name right of its end, none upon another.

    Where a line ends before the last k, or leaves the axes below, its name says at which k.
    """
    bottom, top = (math.log10(limit) for limit in axis.get_ylim())
    labels = []
    for title, style, values in lines:
        axis.plot(k, [math.nan if v is None else v for v in values], **style)
        seen = [(x, y) for x, y in zip(k, values, strict=True) if y is not None and y >= FLOOR]
        x, y = seen[-1]
        if x < k[-1]:
            title += f" (k ≤ {x})"
        labels.append([(math.log10(y) - bottom) / (top - bottom), title, style["color"]])
    labels.sort()
    for below, label in pairwise(labels):
        label[0] = max(label[0], below[0] + LABEL_HEIGHT)
    ceiling = 1.0
    for label in reversed(labels):
        label[0] = min(label[0], ceiling)
        ceiling = label[0] - LABEL_HEIGHT
    for height, title, colour in labels:
        axis.annotate(
            title, (1.02, height), xycoords="axes fraction", color=colour, fontsize=9, va="center"
        )
