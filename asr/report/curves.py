"""Learning curves."""

from __future__ import annotations

from asr.report import charts
from asr.report.charts import Series, percent
from asr.report.html import Child, Html, el
from asr.report.pieces import card, is_number, legend, number_shown
from asr.report.run import Run


def training(run: Run) -> Child:
    """A chart for each figure that metrics.jsonl has of the epochs."""
    drawn = []
    if losses := _losses(run):
        drawn.append(_curves("Training loss", "a label, natural logarithm", losses, number_shown))
    dev, best = dev_rate(run), best_epoch(run)
    if dev and (points := points_of(run, dev)):
        name = f"{dev.removeprefix('dev_')} on dev"
        mark = (float(best), f"best: epoch {best}") if best else None
        drawn.append(_curves(name, "after each epoch", [Series(name, "c1", points)], percent, mark))
    for key, title, more, show in (
        ("lr", "Learning rate", "at the end of each epoch", number_shown),
        ("blank_rate", "Blank rate", "share of dev's frames whose best label is blank", percent),
        ("gradient_norm", "Gradient norm", "mean, before clipping", number_shown),
        ("audio_s_per_s", "Speed", "seconds of audio a second", number_shown),
    ):
        points = points_of(run, key)
        if points and (key != "blank_rate" or any(y for _, y in points)):
            drawn.append(_curves(title, more, [Series(title.lower(), "c1", points)], show))
    return el("div", drawn, class_="grid-2")


def _curves(
    title: str,
    more: str,
    series: list[Series],
    show: charts.Format,
    mark: tuple[float, str] | None = None,
) -> Html:
    keys = legend((one.colour, one.name) for one in series) if len(series) > 1 else None
    return card(title, more, charts.line_chart(title, series, show, mark), keys=keys)


def _losses(run: Run) -> list[Series]:
    """A curve for each criterion: their losses do not compare."""
    points: dict[str, list[tuple[float, float]]] = {}
    for m in run.metrics:
        of = points.setdefault(str(m.get("criterion", "loss")), [])
        if is_number(m.get("loss")):
            of.append((float(m["epoch"]), float(m["loss"])))
    return [Series(name, f"c{1 + i % 3}", of) for i, (name, of) in enumerate(points.items()) if of]


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
