"""Charts as inline SVG: the style sheet colours them, so that they follow light, dark and print.

Elements with ``data-tip`` show it under the pointer; those with the same ``data-at`` are one place
in several charts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from asr.report.html import Attribute, Html, el
from asr.score.significance import Interval

Format = Callable[[float], str]
Place = Callable[[float], float]
#: Letters of a name before a row.
NAME = 24
#: The width of an `interval_bar`.
INTERVAL = 240


class Series(NamedTuple):
    """A curve: its name, its colour's class, and (x, y) of its points."""

    name: str
    colour: str
    points: Sequence[tuple[float, float]]


class Bar(NamedTuple):
    """A rate with its interval, and what its tip says."""

    name: str
    rate: float
    low: float
    high: float
    tip: str


class _Frame(NamedTuple):
    """The size of a picture, and the edges of the chart in it."""

    width: float
    height: float
    left: float
    end: float
    top: float
    floor: float


def ticks(low: float, high: float, most: int) -> list[float]:
    """At most ``most`` + 1 round numbers from ``low`` to ``high``, in steps of 1, 2 or 5."""
    if not high > low:
        return [low]
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(power * f for f in (1, 2, 5, 10) if (high - low) / (power * f) <= most or f == 10)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [k * step for k in range(first, last + 1)]


def percent(value: float) -> str:
    """A fraction as in an axis: ``40 %``."""
    return f"{100 * value:.3g} %"


def line_chart(
    title: str, series: Sequence[Series], shown: Format, marked: tuple[float, str] | None = None
) -> Html:
    """Curves over epochs. marked: an epoch that stands out, and why."""
    frame = _Frame(width=440, height=220, left=52, end=426, top=14, floor=190)
    points = [point for one in series for point in one.points]
    xs = sorted({x for x, _ in points})
    highest = max(y for _, y in points)
    lowest = min(0.0, *(y for _, y in points))
    if highest <= lowest:
        highest = lowest + (abs(lowest) or 1.0)
    first, last = xs[0], max(xs[-1], xs[0] + 1)
    x_at = _scale(first, last, frame.left, frame.end)
    y_at = _scale(lowest, highest * 1.04, frame.floor, frame.top)

    parts = _lines_across(frame, ticks(lowest, highest * 1.04, 5), y_at, shown)
    below = frame.floor + 17
    for x in sorted({first, *ticks(first, last, 6)}):
        if x == int(x) and (x == first or x_at(x) - frame.left > 20):
            parts.append(_text(f"{x:.0f}", x_at(x), below, "middle"))
    parts.append(_text("epoch", frame.left - 7, below, "end"))
    if marked is not None:
        x = x_at(marked[0])
        parts.append(_line(x, x, frame.top, frame.floor, "mark"))
        is_late = marked[0] > (first + last) / 2
        parts.append(_beside(marked[1], x, frame.top + 8, before=is_late))
    for one in series:
        places = [(x_at(x), y_at(y)) for x, y in one.points]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(el("polyline", points=line, class_=f"curve {one.colour}"))
        if len(places) == 1:
            ((x, y),) = places
            parts.append(el("circle", cx=x, cy=y, r=3, class_=f"dot {one.colour}"))
    step = (frame.end - frame.left) / max(len(xs) - 1, 1)
    for x in xs:
        values = [f"{one.name} {shown(y)}" for one in series for at, y in one.points if at == x]
        tip = f"epoch {x:.0f}: {', '.join(values)}"
        parts.append(_hit_column(frame, x_at(x), step, data_tip=tip, data_at=f"{x:.0f}"))
    latest = "; ".join(
        f"{one.name} from {shown(one.points[0][1])} to {shown(one.points[-1][1])}" for one in series
    )
    return _svg(frame.width, frame.height, parts, f"{title} over {len(xs)} epochs: {latest}")


def interval_bar(
    rate: float, inner: Interval, outer: Interval | None, axis: tuple[float, float]
) -> Html:
    """A rate as a dot on ``axis``, its intervals as a thick and a thin line."""
    height = 22
    x_at = _scale(*axis, 6, INTERVAL - 6)
    parts = [_line(x_at(x), x_at(x), 0, height, "grid") for x in ticks(*axis, 5)]
    for interval, kind in ((outer, "outer"), (inner, "inner")):
        if interval is not None and math.isfinite(interval.low):
            x1, x2 = x_at(interval.low), x_at(interval.high)
            parts.append(_line(x1, x2, height / 2, height / 2, kind))
    if math.isfinite(rate):
        parts.append(el("circle", cx=x_at(rate), cy=height / 2, r=4.5, class_="dot c1"))
    return _svg(INTERVAL, height, parts, None)


def interval_axis(axis: tuple[float, float]) -> Html:
    """The numbers under a column of `interval_bar`."""
    x_at = _scale(*axis, 6, INTERVAL - 6)
    return _svg(
        INTERVAL, 14, [_text(percent(x), x_at(x), 11, "middle") for x in ticks(*axis, 5)], None
    )


def columns_chart(title: str, bars: Sequence[Bar], overall: float, x_name: str) -> Html:
    """Rates side by side with their intervals and names below; ``overall`` is a line across."""
    frame = _Frame(width=900, height=250, left=52, end=808, top=14, floor=204)
    top_value = _top_value(bars, overall)
    y_at = _scale(0, top_value, frame.floor, frame.top)
    step = (frame.end - frame.left) / len(bars)
    thick = min(step * 0.6, 90.0)
    parts = _lines_across(frame, ticks(0, top_value, 5), y_at, percent)
    for i, bar in enumerate(bars):
        x = frame.left + step * (i + 0.5)
        if math.isfinite(bar.rate):
            y = y_at(bar.rate)
            parts.append(_rect(x - thick / 2, y, thick, frame.floor - y, "column"))
        if math.isfinite(bar.low):
            parts.append(_line(x, x, y_at(bar.low), y_at(bar.high), "whisker"))
        parts.append(_text(bar.name, x, frame.floor + 17, "middle"))
        parts.append(_hit_column(frame, x, step, data_tip=bar.tip))
    # Beside the columns, not above them, where it would hide them.
    y = y_at(overall)
    parts.append(_line(frame.left, frame.end, y, y, "mark"))
    parts.append(_text(_overall(overall), frame.end + 6, y + 4, kind="strong"))
    middle = (frame.left + frame.end) / 2
    parts.append(_text(x_name, middle, frame.height - 8, "middle", "axis"))
    return _svg(frame.width, frame.height, parts, title)


def rows_chart(title: str, bars: Sequence[Bar], overall: float) -> Html:
    """Rates under each other, each with its name before and its number behind, however many."""
    width, row, top = 900, 19, 40
    left, end = 16 + 6.4 * max(len(_short(bar.name, NAME)) for bar in bars), width - 64
    floor = top + row * len(bars)
    top_value = _top_value(bars, overall)
    x_at = _scale(0, top_value, left, end)
    parts: list[Html] = []
    for value in ticks(0, top_value, 8):
        x = x_at(value)
        parts += [_line(x, x, top, floor, "grid"), _text(percent(value), x, top - 6, "middle")]
    for i, bar in enumerate(bars):
        y = top + row * (i + 0.5)
        parts.append(_text(_short(bar.name, NAME), left - 7, y + 3.5, "end", "name"))
        if math.isfinite(bar.rate):
            parts.append(_rect(left, y - 6, x_at(bar.rate) - left, 12, "column"))
            parts.append(_text(f"{100 * bar.rate:.1f} %", width - 4, y + 3.5, "end"))
        if math.isfinite(bar.low):
            parts.append(_line(x_at(bar.low), x_at(bar.high), y, y, "whisker"))
        parts.append(_rect(0, y - row / 2, width, row, "hit", data_tip=bar.tip))
    x = x_at(overall)
    parts.append(_line(x, x, top - 18, floor, "mark"))
    parts.append(_beside(_overall(overall), x, 12, before=x >= (left + end) / 2))
    return _svg(width, floor + 6, parts, title)


def heat_map(
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    cells: Sequence[tuple[int, int, float, str]],
) -> Html:
    """Cells (row, column, share in [0, 1], tip); same names in both are the diagonal."""
    size, left, top = 18, 52, 46
    end, floor = left + size * len(columns), top + size * len(rows)
    parts: list[Html] = []
    for i, name in enumerate(rows):
        y = top + size * i
        parts.append(_text(_short(name), left - 6, y + size / 2 + 3.5, "end"))
        parts.append(_line(left, end, y, y, "grid"))
    for j, name in enumerate(columns):
        edge = left + size * j
        x, y = edge + size / 2 + 3.5, top - 6
        parts.append(_line(edge, edge, top, floor, "grid"))
        parts.append(_text(_short(name), x, y, transform=f"rotate(-90 {x:g} {y:g})"))
    for i, j, share, tip in cells:
        is_right = rows[i] == columns[j]
        # Errors are rarer than hits: a third of a row is as dark as can be.
        opacity = math.sqrt(share) if is_right else min(1.0, 3 * share) ** 0.7
        shade = round(max(opacity, 0.05), 2)
        kind = "cell right" if is_right else "cell wrong"
        place = left + size * j + 0.5, top + size * i + 0.5, size - 1, size - 1
        parts.append(_rect(*place, kind, fill_opacity=shade, data_tip=tip))
    return _svg(end + 4, floor + 4, parts, title)


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


def _scale(low: float, high: float, start: float, end: float) -> Place:
    """Where values from ``low`` to ``high`` lie; what is higher lies at ``end``, too."""
    return lambda value: start + (end - start) * (min(value, high) - low) / (high - low or 1)


def _text(
    content: str,
    x: float,
    y: float,
    anchor: str | None = None,
    kind: str | None = None,
    **more: Attribute,
) -> Html:
    return el("text", content, x=x, y=y, text_anchor=anchor, class_=kind, **more)


def _line(x1: float, x2: float, y1: float, y2: float, kind: str) -> Html:
    return el("line", x1=x1, x2=x2, y1=y1, y2=y2, class_=kind)


def _rect(x: float, y: float, width: float, height: float, kind: str, **more: Attribute) -> Html:
    return el("rect", x=x, y=y, width=width, height=height, class_=kind, **more)


def _lines_across(frame: _Frame, ys: Sequence[float], y_at: Place, shown: Format) -> list[Html]:
    """Lines at ``ys``, each with its number before it."""
    parts = []
    for y in ys:
        parts.append(_line(frame.left, frame.end, y_at(y), y_at(y), "grid"))
        parts.append(_text(shown(y), frame.left - 7, y_at(y) + 3.5, "end"))
    return parts


def _hit_column(frame: _Frame, x: float, width: float, **tip: str) -> Html:
    """What shows a tip wherever the pointer is, in the column around ``x``."""
    return _rect(x - width / 2, frame.top, width, frame.floor - frame.top, "hit", **tip)


def _beside(name: str, x: float, y: float, before: bool) -> Html:
    """The name of a line at ``x``."""
    return _text(name, x - 5 if before else x + 5, y, "end" if before else "start", "strong")


def _overall(rate: float) -> str:
    return f"all: {100 * rate:.1f} %"


def _top_value(bars: Sequence[Bar], overall: float) -> float:
    # A single utterance may be far above 1; it must not flatten all the others.
    highest = max((b.rate for b in bars if math.isfinite(b.rate)), default=1.0)
    widest = max((b.high for b in bars if math.isfinite(b.high)), default=highest)
    return max(min(widest, 1.5 * highest), overall, 1e-3) * 1.05


def _svg(width: float, height: float, parts: Sequence[Html], label: str | None) -> Html:
    named = {"role": "img", "aria_label": label} if label else {"aria_hidden": "true"}
    return el(
        "svg", parts, viewBox=f"0 0 {width:g} {height:g}", width=width, height=height, **named
    )


def _short(name: str, most: int = 8) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
