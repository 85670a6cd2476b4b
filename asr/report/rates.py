"""Error rates of every set through every decoder, with their intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence

from asr.report import charts
from asr.report.html import Child, Html, el
from asr.report.pieces import CONFIDENCE_SHOWN, figure, heads, interval_shown, rate_shown
from asr.report.run import Rate, Run, ScoredSet
from asr.score.error_rate import UNIT_NAMES


def error_rates(run: Run, chosen: ScoredSet) -> Child:
    """A table for each rate; the row of ``chosen`` is highlighted."""
    names = list(dict.fromkeys(name for of in run.scored for name in of.rates))
    hint = (
        f"Intervals hold the rate with {CONFIDENCE_SHOWN} confidence (bootstrap): the thick line "
        "over utterances, the thin one over speakers. The highlighted row is looked into below."
    )
    return [*(_table(name, run, chosen) for name in names), el("p", hint, class_="hint")]


def _table(name: str, run: Run, chosen: ScoredSet) -> Html:
    rows = [(of, of.rates[name]) for of in run.scored if name in of.rates]
    axis = _axis([rate for _, rate in rows])
    body = []
    before = None
    for of, rate in rows:
        is_first, before = of.set != before, of.set
        marks = ["first"] * is_first + ["chosen"] * (of is chosen)
        names = el("th", of.set if is_first else "", scope="row"), el("td", of.decoder)
        body.append(el("tr", names, _cells(rate, axis), class_=" ".join(marks) or None))
    columns = [("set", ""), ("decoder", ""), (name, "num"), ("interval", "num"), ("", "bar")]
    columns += [(kind, "num") for kind in ("substituted", "deleted", "inserted")]
    columns += [("wrong utterances", "num")]
    beside = el("td", "", colspan=4)
    foot = el("tr", beside, el("td", charts.interval_axis(axis), class_="bar"), beside)
    content = el("table", heads(columns), el("tbody", body), el("tfoot", foot), class_="rates")
    scores = rows[0][1].scores
    unit = UNIT_NAMES[scores.unit].removesuffix("s").capitalize()
    return figure(f"{unit} error rate ({name})", scores.policy, content)


def _cells(rate: Rate, axis: tuple[float, float]) -> list[Html]:
    """The rate, its intervals as numbers and drawn, and the shares of each kind of error."""
    s, inner, outer = rate.scores, rate.over_utterances, rate.over_speakers
    tip = f"over {inner.groups} utterances {interval_shown(inner.low, inner.high)}"
    if outer:
        tip += f", over {outer.groups} speakers {interval_shown(outer.low, outer.high)}"
    shares = [
        rate_shown(count / s.reference_length if s.reference_length else math.nan)
        for count in (s.substitutions, s.deletions, s.insertions)
    ]
    wrong = f"{s.wrong_utterances} of {s.utterances}"
    return [
        el("td", el("b", rate_shown(rate.value)), class_="num"),
        el("td", interval_shown(inner.low, inner.high), class_="num soft"),
        el("td", charts.interval_bar(rate.value, inner, outer, axis), class_="bar", data_tip=tip),
        *(el("td", shown, class_="num soft") for shown in (*shares, wrong)),
    ]


def _axis(rates: Sequence[Rate]) -> tuple[float, float]:
    """From the lowest to the highest end of the intervals, rounded outwards."""
    intervals = [i for r in rates for i in (r.over_utterances, r.over_speakers) if i is not None]
    ends = [*(rate.value for rate in rates), *(end for i in intervals for end in (i.low, i.high))]
    known = [end for end in ends if math.isfinite(end)] or [0.0, 1.0]
    low, high = min(known), max(known)
    first, second, *_ = [*charts.ticks(low, high, 5), low + 0.01, low + 0.02]
    width = max(second - first, 1e-3)
    return math.floor(low / width) * width, math.ceil(high / width) * width
