"""Charts as inline SVG: the style sheet colours them, so that they follow light, dark and print.

Elements with ``data-tip`` show it under the pointer; those with the same ``data-at`` are one place
in several charts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from asr.report.html import Html, el

Format = Callable[[float], str]
Place = Callable[[float], float]
#: Letters of a name before a row.
NAME = 24


@dataclass(frozen=True)
class Series:
    """A curve: its name, its colour's class, and (x, y) of its points."""

    name: str
    colour: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Bar:
    """A rate with its interval, and what its tip says."""

    name: str
    rate: float
    low: float
    high: float
    tip: str


def ticks(low: float, high: float, most: int) -> list[float]:
    """At most ``most`` + 1 round numbers from ``low`` to ``high``, in steps of 1, 2 or 5."""
    if not high > low:
        return [low]
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    for factor in (1, 2, 5, 10):
        if (high - low) / (step * factor) <= most:
            step *= factor
            break
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [k * step for k in range(first, last + 1)]


def percent(value: float) -> str:
    """A fraction as in an axis: ``40 %``."""
    return f"{100 * value:.3g} %"


class _Frame(NamedTuple):
    """The size of a picture, and where the chart lies in it."""

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float

    @property
    def floor(self) -> float:
        """The y of the chart's lower edge."""
        return self.height - self.bottom

    @property
    def end(self) -> float:
        """The x of the chart's right edge."""
        return self.width - self.right

    def lines(self, ys: Sequence[float], y_at: Place, shown: Format) -> list[Html]:
        """Lines across at ``ys``, each with its number before it."""
        parts = []
        for y in ys:
            place = {"y1": y_at(y), "y2": y_at(y)}
            parts.append(el("line", x1=self.left, x2=self.end, **place, class_="grid"))
            parts.append(el("text", shown(y), x=self.left - 7, y=y_at(y) + 3.5, text_anchor="end"))
        return parts

    def hit(self, x: float, width: float, **tip: str) -> Html:
        """What shows a tip wherever the pointer is, in the column around ``x``."""
        place = {"x": x - width / 2, "y": self.top, "width": width, "height": self.floor - self.top}
        return el("rect", **place, class_="hit", **tip)


def line_chart(
    title: str,
    series: Sequence[Series],
    shown: Format,
    marked: tuple[float, str] | None = None,
    from_zero: bool = True,
) -> Html:
    """Curves over epochs. marked: an epoch that stands out, and why."""
    frame = _Frame(width=440, height=220, left=52, right=14, top=14, bottom=30)
    points = [point for one in series for point in one.points]
    xs = sorted({x for x, _ in points})
    highest = max(y for _, y in points)
    lowest = min(0.0 if from_zero else math.inf, *(y for _, y in points))
    if highest <= lowest:
        highest = lowest + (abs(lowest) or 1.0)
    first, last = xs[0], max(xs[-1], xs[0] + 1)

    def x_at(x: float) -> float:
        return frame.left + (frame.end - frame.left) * (x - first) / (last - first)

    def y_at(y: float) -> float:
        span = highest * 1.04 - lowest or 1
        return frame.floor - (frame.floor - frame.top) * (y - lowest) / span

    parts = frame.lines(ticks(lowest, highest * 1.04, 5), y_at, shown)
    below = frame.floor + 17.0
    for x in sorted({first, *ticks(first, last, 6)}):
        if x == int(x) and (x == first or x_at(x) - frame.left > 20):
            parts.append(el("text", f"{x:.0f}", x=x_at(x), y=below, text_anchor="middle"))
    parts.append(el("text", "epoch", x=frame.left - 7, y=below, text_anchor="end"))
    if marked is not None:
        parts += _mark(frame, x_at(marked[0]), marked[1], marked[0] > (first + last) / 2)
    for one in series:
        places = " ".join(f"{x_at(x):.1f},{y_at(y):.1f}" for x, y in one.points)
        parts.append(el("polyline", points=places, class_=f"curve {one.colour}"))
        if len(one.points) == 1:
            ((x, y),) = one.points
            parts.append(el("circle", cx=x_at(x), cy=y_at(y), r=3, class_=f"dot {one.colour}"))
    step = (frame.end - frame.left) / max(len(xs) - 1, 1)
    for x in xs:
        values = [f"{one.name} {shown(y)}" for one in series for at, y in one.points if at == x]
        tip = f"epoch {x:.0f}: {', '.join(values)}"
        parts.append(frame.hit(x_at(x), step, data_tip=tip, data_at=f"{x:.0f}"))
    latest = "; ".join(
        f"{one.name} from {shown(one.points[0][1])} to {shown(one.points[-1][1])}" for one in series
    )
    label = f"{title} over {len(xs)} epochs: {latest}"
    return _svg(frame.width, frame.height, parts, label)


def _mark(frame: _Frame, x: float, name: str, before: bool) -> list[Html]:
    """A line at ``x`` with its name beside it, on the left if ``before``."""
    x_name, anchor = (x - 5, "end") if before else (x + 5, "start")
    return [
        el("line", x1=x, x2=x, y1=frame.top, y2=frame.floor, class_="mark"),
        el("text", name, x=x_name, y=frame.top + 8, text_anchor=anchor, class_="strong"),
    ]


def interval_bar(
    rate: float,
    inner: tuple[float, float],
    outer: tuple[float, float] | None,
    axis: tuple[float, float],
) -> Html:
    """A rate as a dot on ``axis``, its intervals as a thick and a thin line."""
    width, height = 240, 22
    low, high = axis

    def x_at(value: float) -> float:
        return 6 + (width - 12) * (value - low) / (high - low or 1)

    middle = height / 2
    parts = [
        el("line", x1=x_at(x), x2=x_at(x), y1=0, y2=height, class_="grid")
        for x in ticks(low, high, 5)
    ]
    for interval, name in ((outer, "outer"), (inner, "inner")):
        if interval is not None and math.isfinite(interval[0]):
            x1, x2 = map(x_at, interval)
            parts.append(el("line", x1=x1, x2=x2, y1=middle, y2=middle, class_=name))
    if math.isfinite(rate):
        parts.append(el("circle", cx=x_at(rate), cy=middle, r=4.5, class_="dot c1"))
    return _svg(width, height, parts, None)


def interval_axis(axis: tuple[float, float]) -> Html:
    """The numbers under a column of `interval_bar`."""
    width = 240
    low, high = axis
    parts = [
        el(
            "text",
            percent(x),
            x=6 + (width - 12) * (x - low) / (high - low or 1),
            y=11,
            text_anchor="middle",
        )
        for x in ticks(low, high, 5)
    ]
    return _svg(width, 14, parts, None)


def columns_chart(title: str, bars: Sequence[Bar], overall: float, x_name: str) -> Html:
    """Rates side by side with their intervals and names below; ``overall`` is a line across."""
    frame = _Frame(width=900, height=250, left=52, right=92, top=14, bottom=46)
    top_value = _top_value(bars, overall)

    def y_at(y: float) -> float:
        return frame.floor - (frame.floor - frame.top) * min(y, top_value) / top_value

    step = (frame.end - frame.left) / len(bars)
    parts = frame.lines(ticks(0, top_value, 5), y_at, percent)
    for i, bar in enumerate(bars):
        x, thick = frame.left + step * (i + 0.5), min(step * 0.6, 90.0)
        if math.isfinite(bar.rate):
            y, tall = y_at(bar.rate), frame.floor - y_at(bar.rate)
            place = {"x": x - thick / 2, "y": y, "width": thick, "height": tall}
            parts.append(el("rect", **place, class_="column"))
        if math.isfinite(bar.low):
            ends = {"y1": y_at(bar.low), "y2": y_at(bar.high)}
            parts.append(el("line", x1=x, x2=x, **ends, class_="whisker"))
        parts.append(el("text", bar.name, x=x, y=frame.floor + 17, text_anchor="middle"))
        parts.append(frame.hit(x, step, data_tip=bar.tip))
    # Beside the columns, not above them, where it would hide them.
    y = y_at(overall)
    parts.append(el("line", x1=frame.left, x2=frame.end, y1=y, y2=y, class_="mark"))
    parts.append(el("text", _overall(overall), x=frame.end + 6, y=y + 4, class_="strong"))
    middle = {"x": (frame.left + frame.end) / 2, "y": frame.height - 8.0}
    parts.append(el("text", x_name, **middle, text_anchor="middle", class_="axis"))
    return _svg(frame.width, frame.height, parts, title)


def rows_chart(title: str, bars: Sequence[Bar], overall: float) -> Html:
    """Rates under each other, each with its name before and its number behind, however many."""
    width, row, right, top = 900, 19, 64, 40
    left = 16 + 6.4 * max(len(_short(bar.name, NAME)) for bar in bars)
    height = top + row * len(bars) + 6
    top_value = _top_value(bars, overall)

    def x_at(x: float) -> float:
        return left + (width - left - right) * min(x, top_value) / top_value

    parts: list[Html] = []
    for x in ticks(0, top_value, 8):
        parts.append(el("line", x1=x_at(x), x2=x_at(x), y1=top, y2=height - 6, class_="grid"))
        parts.append(el("text", percent(x), x=x_at(x), y=top - 6, text_anchor="middle"))
    for i, bar in enumerate(bars):
        y = top + row * (i + 0.5)
        name = _short(bar.name, NAME)
        parts.append(el("text", name, x=left - 7, y=y + 3.5, text_anchor="end", class_="name"))
        if math.isfinite(bar.rate):
            place = {"x": left, "y": y - 6, "width": x_at(bar.rate) - left, "height": 12}
            parts.append(el("rect", **place, class_="column"))
            parts.append(
                el("text", f"{100 * bar.rate:.1f} %", x=width - 4, y=y + 3.5, text_anchor="end")
            )
        if math.isfinite(bar.low):
            ends = {"x1": x_at(bar.low), "x2": x_at(bar.high)}
            parts.append(el("line", **ends, y1=y, y2=y, class_="whisker"))
        place = {"x": 0, "y": y - row / 2, "width": width, "height": row}
        parts.append(el("rect", **place, class_="hit", data_tip=bar.tip))
    x = x_at(overall)
    parts.append(el("line", x1=x, x2=x, y1=top - 18, y2=height - 6, class_="mark"))
    after = x < (left + width - right) / 2
    x, anchor = (x + 5, "start") if after else (x - 5, "end")
    parts.append(el("text", _overall(overall), x=x, y=12, text_anchor=anchor, class_="strong"))
    return _svg(width, height, parts, title)


def _overall(rate: float) -> str:
    return f"all: {100 * rate:.1f} %"


def _top_value(bars: Sequence[Bar], overall: float) -> float:
    # A single utterance may be far above 1; it must not flatten all the others.
    highest = max((b.rate for b in bars if math.isfinite(b.rate)), default=1.0)
    widest = max((b.high for b in bars if math.isfinite(b.high)), default=highest)
    return max(min(widest, 1.5 * highest), overall, 1e-3) * 1.05


def heat_map(
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    cells: Sequence[tuple[int, int, float, str]],
) -> Html:
    """Cells (row, column, share in [0, 1], tip); same names in both are the diagonal."""
    size, left, top = 18, 52, 46
    width, height = left + size * len(columns) + 4, top + size * len(rows) + 4
    parts: list[Html] = []
    for i, name in enumerate(rows):
        y = top + size * (i + 0.5) + 3.5
        parts.append(el("text", _short(name), x=left - 6, y=y, text_anchor="end"))
        parts.append(
            el("line", x1=left, x2=width - 4, y1=top + size * i, y2=top + size * i, class_="grid")
        )
    for j, name in enumerate(columns):
        x = left + size * (j + 0.5)
        parts.append(
            el("line", x1=x - size / 2, x2=x - size / 2, y1=top, y2=height - 4, class_="grid")
        )
        parts.append(
            el(
                "text",
                _short(name),
                x=x + 3.5,
                y=top - 6,
                transform=f"rotate(-90 {x + 3.5:g} {top - 6:g})",
            )
        )
    for i, j, share, tip in cells:
        is_right = rows[i] == columns[j]
        kind = "cell right" if is_right else "cell wrong"
        # Errors are rarer than hits: a third of a row is as dark as can be.
        opacity = math.sqrt(share) if is_right else min(1.0, 3 * share) ** 0.7
        parts.append(
            el(
                "rect",
                x=left + size * j + 0.5,
                y=top + size * i + 0.5,
                width=size - 1,
                height=size - 1,
                class_=kind,
                fill_opacity=round(max(opacity, 0.05), 2),
                data_tip=tip,
            )
        )
    return _svg(width, height, parts, title)


def envelope(low: Sequence[float], high: Sequence[float]) -> Html:
    """A waveform between its lowest and highest samples in each column; fills its box."""
    n = len(low)
    points = [*enumerate(high), *reversed(list(enumerate(low)))]
    shape = "M" + "L".join(f"{x} {-round(100 * y)}" for x, y in points) + "Z"
    return el(
        "svg",
        el("path", d=shape, class_="wave"),
        viewBox=f"0 -100 {max(n - 1, 1)} 200",
        preserveAspectRatio="none",
        aria_hidden="true",
    )


def _svg(width: float, height: float, parts: Sequence[Html], label: str | None) -> Html:
    named = {"role": "img", "aria_label": label} if label else {"aria_hidden": "true"}
    return el(
        "svg", parts, viewBox=f"0 0 {width:g} {height:g}", width=width, height=height, **named
    )


def _short(name: str, most: int = 8) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
