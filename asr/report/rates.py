"""Error rates of every set through every decoder, with their intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence

from asr.report import charts
from asr.report.html import Child, Html, el
from asr.report.pieces import CONFIDENCE_SHOWN, figure, heads, interval_shown, rate_shown
from asr.report.run import Judged, Rate, Run
from asr.score.error_rate import reference_length


def error_rates(run: Run, judged: Judged) -> Child:
    """A table for each rate; the row of ``judged`` is highlighted."""
    names = list(dict.fromkeys(name for j in run.judged for name in j.rates))
    hint = (
        f"Intervals hold the rate with {CONFIDENCE_SHOWN} confidence (bootstrap): the thick line "
        "over utterances, the thin one over speakers. The highlighted row is looked into below."
    )
    return [*(_table(name, run, judged) for name in names), el("p", hint, class_="hint")]


def _table(name: str, run: Run, judged: Judged) -> Html:
    rows = [(j, j.rates[name]) for j in run.judged if name in j.rates]
    axis = _axis([rate for _, rate in rows])
    body = []
    before = None
    for j, rate in rows:
        is_first = j.set != before
        before = j.set
        marks = ["first"] * is_first + ["chosen"] * (j is judged)
        body.append(
            el(
                "tr",
                el("th", j.set if is_first else "", scope="row"),
                el("td", j.decoder),
                _cells(rate, axis),
                class_=" ".join(marks) or None,
            )
        )
    columns = [("set", ""), ("decoder", ""), (name, "num"), ("interval", "num"), ("", "bar")]
    columns += [(kind, "num") for kind in ("substituted", "deleted", "inserted")]
    columns += [("wrong utterances", "num")]
    foot = el(
        "tr",
        el("td", "", colspan=4),
        el("td", charts.interval_axis(axis), class_="bar"),
        el("td", "", colspan=4),
    )
    content = el("table", heads(columns), el("tbody", body), el("tfoot", foot), class_="rates")
    return figure(_rate_title(name), rows[0][1].scores.policy, content)


def _cells(rate: Rate, axis: tuple[float, float]) -> list[Html]:
    """The rate, its intervals as numbers and drawn, and the shares of each kind of error."""
    scores, over_speakers = rate.scores, rate.over_speakers
    inner = (rate.over_utterances.low, rate.over_utterances.high)
    outer = None
    tip = f"over {rate.over_utterances.groups} utterances {interval_shown(*inner)}"
    if over_speakers:
        outer = (over_speakers.low, over_speakers.high)
        tip += f", over {over_speakers.groups} speakers {interval_shown(*outer)}"
    bar = charts.interval_bar(rate.value, inner, outer, axis)
    n = reference_length(scores)
    shares = [
        rate_shown(count / n if n else math.nan)
        for count in (scores.substitutions, scores.deletions, scores.insertions)
    ]
    wrong = f"{scores.wrong_utterances} of {scores.utterances}"
    return [
        el("td", el("b", rate_shown(rate.value)), class_="num"),
        el("td", interval_shown(*inner), class_="num soft"),
        el("td", bar, class_="bar", data_tip=tip),
        *(el("td", shown, class_="num soft") for shown in (*shares, wrong)),
    ]


def _rate_title(name: str) -> str:
    whole = {"PER": "Phone error rate", "CER": "Character error rate", "WER": "Word error rate"}
    return f"{whole[name]} ({name})"


def _axis(rates: Sequence[Rate]) -> tuple[float, float]:
    """From the lowest to the highest end of the intervals, rounded outwards."""
    ends = [rate.value for rate in rates]
    for rate in rates:
        for interval in (rate.over_utterances, rate.over_speakers):
            if interval is not None:
                ends += [interval.low, interval.high]
    known = [end for end in ends if math.isfinite(end)] or [0.0, 1.0]
    low, high = min(known), max(known)
    first, second, *_ = [*charts.ticks(low, high, 5), low + 0.01, low + 0.02]
    width = max(second - first, 1e-3)
    return math.floor(low / width) * width, math.ceil(high / width) * width
