"""What the sections of a report are made of: figures, tables, and how numbers are shown."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeGuard

from asr.report.html import Child, Html, el
from asr.score.significance import CONFIDENCE

CONFIDENCE_SHOWN = f"{100 * CONFIDENCE:g} %"


def legend(keys: Iterable[tuple[str, str]]) -> Html:
    """Which class (of a colour) is which name."""
    return el(
        "span",
        [
            el("span", el("i", class_=f"key {kind}", aria_hidden="true"), name)
            for kind, name in keys
        ],
        class_="legend",
    )


def card(
    title: str, more: str | None, content: Child, kind: str = "", keys: Html | None = None
) -> Html:
    """A content below its title and what it shows."""
    about = el("span", more) if more is not None else None
    caption = el("figcaption", el("strong", title), about, keys)
    return el("figure", caption, content, class_=f"card {kind}".rstrip())


def figure(title: str, more: str, content: Child, kind: str = "", keys: Html | None = None) -> Html:
    """A card whose content may be wider than the window."""
    return card(title, more, el("div", content, class_="scroll"), kind, keys)


def folded(title: str, content: Child) -> Html:
    """What is shown on demand, and on paper."""
    return el("details", el("summary", title), el("div", content, class_="scroll"))


def heads(columns: Iterable[tuple[str, str]], scope: str | None = None) -> Html:
    """The head of a table: the name of each column, and its class."""
    cells = [el("th", name, scope=scope, class_=kind or None) for name, kind in columns]
    return el("thead", el("tr", cells))


def row(name: str, cells: Iterable[tuple[Child, str]]) -> Html:
    """A row of a table: its name, and each further cell with its class."""
    tds = [el("td", content, class_=kind or None) for content, kind in cells]
    return el("tr", el("th", name, scope="row"), tds)


def table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> Html:
    """The first column are names, numbers stand to the right."""
    kinds = [""] + [
        "num" if all(cell[:1].isdigit() or cell in ("", "–") for cell in column) else ""
        for column in list(zip(*rows, strict=True))[1:]
    ]
    body = [row(first, zip(cells, kinds[1:], strict=True)) for first, *cells in rows]
    return el("table", heads(zip(names, kinds, strict=True), "col"), el("tbody", body))


def pairs(rows: Sequence[Sequence[str]]) -> Html:
    """Names and values."""
    return el("dl", [[el("dt", key), el("dd", value)] for key, value in rows])


def value_shown(value: Any) -> str:
    """A JSON value for people."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(v, str) for v in value):
        return " ".join(value)
    return json.dumps(value, ensure_ascii=False)


def number_shown(value: float) -> str:
    """Three digits."""
    return f"{value:.3g}"


def rate_shown(value: float) -> str:
    """``41.59 %``; a dash where there is no rate."""
    return "–" if math.isnan(value) else f"{100 * value:.2f} %"


def interval_shown(low: float, high: float) -> str:
    """``40.6 to 42.6 %``; a dash where there is no interval."""
    return "–" if math.isnan(low) else f"{100 * low:.1f} to {100 * high:.1f} %"


def is_number(value: object) -> TypeGuard[float]:
    """Whether a JSON value is a number that can be drawn."""
    return isinstance(value, (int, float)) and math.isfinite(value)


def duration_shown(seconds: float) -> str:
    """``27 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def count_shown(n: int) -> str:
    """``4.19 M``."""
    for size, name in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if n >= size:
            return f"{n / size:.2f} {name}"
    return str(n)
