"""Learning curves."""

from __future__ import annotations

from asr.report import charts
from asr.report.charts import Series, percent
from asr.report.html import Child, el
from asr.report.pieces import is_number, legend, number_shown
from asr.report.run import Run


def training(run: Run) -> Child:
    """A chart for each figure that metrics.jsonl has of the epochs."""
    best = best_epoch(run)
    dev = dev_rate(run)
    figures: list[tuple[str, str, list[Series], charts.Format, tuple[float, str] | None]] = []
    losses = _phases(run, "loss")
    if losses:
        figures.append(("Training loss", "a label, natural logarithm", losses, number_shown, None))
    if dev:
        points = points_of(run, dev)
        name = dev.removeprefix("dev_")
        if points:
            mark = (float(best), f"best: epoch {best}") if best else None
            series = [Series(f"{name} on dev", "c1", points)]
            figures.append((f"{name} on dev", "after each epoch", series, percent, mark))
    for key, title, more, show in (
        ("lr", "Learning rate", "at the end of each epoch", number_shown),
        ("blank_rate", "Blank rate", "share of dev's frames whose best label is blank", percent),
        ("gradient_norm", "Gradient norm", "mean, before clipping", number_shown),
        ("audio_s_per_s", "Speed", "seconds of audio a second", number_shown),
    ):
        points = points_of(run, key)
        if points and (key != "blank_rate" or any(y for _, y in points)):
            figures.append((title, more, [Series(title.lower(), "c1", points)], show, None))
    drawn = [
        el(
            "figure",
            el(
                "figcaption",
                el("strong", title),
                el("span", more),
                legend((one.colour, one.name) for one in series) if len(series) > 1 else None,
            ),
            charts.line_chart(title, series, show, mark),
            class_="card",
        )
        for title, more, series, show, mark in figures
    ]
    return el("div", drawn, class_="grid-2")


def _phases(run: Run, key: str) -> list[Series]:
    """A curve for each criterion: their losses do not compare."""
    names = list(dict.fromkeys(str(m.get("criterion", key)) for m in run.metrics))
    found = []
    for i, name in enumerate(names):
        points = [
            (float(m["epoch"]), float(m[key]))
            for m in run.metrics
            if str(m.get("criterion", key)) == name and is_number(m.get(key))
        ]
        if points:
            found.append(Series(name, f"c{1 + i % 3}", points))
    return found


def points_of(run: Run, key: str) -> list[tuple[float, float]]:
    """(epoch, value) of a metric, where it is a finite number."""
    return [(float(m["epoch"]), float(m[key])) for m in run.metrics if is_number(m.get(key))]


def dev_rate(run: Run) -> str | None:
    """The metric that is the error rate on dev."""
    keys = (key for m in run.metrics for key in m)
    return next((key for key in keys if key.startswith("dev_")), None)


def best_epoch(run: Run) -> int | None:
    """The epoch whose weights were kept, or in an unfinished run would be."""
    if is_number(run.results.get("best_epoch")):
        return int(run.results["best_epoch"])
    key = dev_rate(run) or ""
    last = [m for m in run.metrics if m.get("criterion") == run.metrics[-1].get("criterion")]
    rates = [(float(m[key]), int(m["epoch"])) for m in last if is_number(m.get(key))]
    return min(rates)[1] if rates else None
