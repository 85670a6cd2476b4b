"""Error rates of every set through every decoder, with their intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence

from asr.report import charts
from asr.report.html import Child, Html, el
from asr.report.pieces import CONFIDENCE_SHOWN, interval_shown, rate_shown
from asr.report.run import Judged, Rate, Run
from asr.score.error_rate import reference_length


def error_rates(run: Run, judged: Judged) -> Child:
    """A table for each rate; the row of ``judged`` is highlighted."""
    names = list(dict.fromkeys(name for j in run.judged for name in j.rates))
    parts: list[Html] = []
    for name in names:
        rows = [(j, j.rates[name]) for j in run.judged if name in j.rates]
        axis = _axis([rate for _, rate in rows])
        body = []
        for i, (j, rate) in enumerate(rows):
            scores = rate.scores
            is_first = i == 0 or rows[i - 1][0].set != j.set
            marks = ["first"] * is_first + ["chosen"] * (j is judged)
            over_speakers = rate.over_speakers
            inner = (rate.over_utterances.low, rate.over_utterances.high)
            outer = (over_speakers.low, over_speakers.high) if over_speakers else None
            tip = f"over {rate.over_utterances.groups} utterances {interval_shown(*inner)}"
            if over_speakers and outer:
                tip += f", over {over_speakers.groups} speakers {interval_shown(*outer)}"
            n = reference_length(scores)
            body.append(
                el(
                    "tr",
                    el("th", j.set if is_first else "", scope="row"),
                    el("td", j.decoder),
                    el("td", el("b", rate_shown(rate.value)), class_="num"),
                    el("td", interval_shown(*inner), class_="num soft"),
                    el(
                        "td",
                        charts.interval_bar(rate.value, inner, outer, axis),
                        class_="bar",
                        data_tip=tip,
                    ),
                    *(
                        el("td", rate_shown(count / n if n else math.nan), class_="num soft")
                        for count in (scores.substitutions, scores.deletions, scores.insertions)
                    ),
                    el(
                        "td", f"{scores.wrong_utterances} of {scores.utterances}", class_="num soft"
                    ),
                    class_=" ".join(marks) or None,
                )
            )
        heads = [
            ("set", ""),
            ("decoder", ""),
            (name, "num"),
            ("interval", "num"),
            ("", "bar"),
            ("substituted", "num"),
            ("deleted", "num"),
            ("inserted", "num"),
            ("wrong utterances", "num"),
        ]
        parts.append(
            el(
                "figure",
                el(
                    "figcaption",
                    el("strong", _rate_title(name)),
                    el("span", rows[0][1].scores.policy),
                ),
                el(
                    "div",
                    el(
                        "table",
                        el("thead", el("tr", [el("th", h, class_=c or None) for h, c in heads])),
                        el("tbody", body),
                        el(
                            "tfoot",
                            el(
                                "tr",
                                el("td", "", colspan=4),
                                el("td", charts.interval_axis(axis), class_="bar"),
                                el("td", "", colspan=4),
                            ),
                        ),
                        class_="rates",
                    ),
                    class_="scroll",
                ),
                class_="card",
            )
        )
    parts.append(
        el(
            "p",
            f"Intervals hold the rate with {CONFIDENCE_SHOWN} confidence (bootstrap): the thick "
            "line over utterances, the thin one over speakers. The highlighted row is looked into "
            "below.",
            class_="hint",
        )
    )
    return parts


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
