"""Where the errors are: by length, speaker, and phone (character, word), and confusions."""

from __future__ import annotations

import math
from collections import Counter
from typing import NamedTuple

import numpy as np

from asr.report import charts
from asr.report.charts import Bar, percent
from asr.report.html import Child, Html, el
from asr.report.pieces import figure, folded, heads, interval_shown, legend, rate_shown, table
from asr.report.run import Judged, Rate, subset
from asr.score.alignment import Alignments
from asr.score.error_rate import UNIT_NAMES, error_rate, reference_length, total
from asr.score.report import error_counts
from asr.score.show import shown
from asr.score.significance import bootstrap

#: Bins of utterance length hold about so many utterances at least.
FEWEST_IN_BIN, MOST_BINS = 12, 8
#: A confusion matrix of more kinds of tokens would be unreadable.
MOST_CONFUSED = 70
MOST_TOKENS, MOST_LISTED = 60, 12


def speakers(judged: Judged, looked_into: str) -> Child:
    """The error rate of every speaker."""
    rate = judged.main
    places: dict[str, list[int]] = {}
    for i, utterance in enumerate(judged.utterances):
        places.setdefault(utterance.speaker, []).append(i)
    groups = {name: subset(rate.alignments, at) for name, at in places.items()}
    bars = sorted(
        (_bar(name, group, rate) for name, group in groups.items()),
        key=lambda b: (1.0 if math.isnan(b.rate) else -b.rate, b.name),
    )
    title = f"{rate.name} of {len(bars)} speakers, the highest first, with intervals"
    rows = []
    for bar in bars:
        scores = total(groups[bar.name], rate.scores.unit, rate.scores.policy)
        rows.append(
            [
                bar.name,
                str(scores.utterances),
                str(reference_length(scores)),
                rate_shown(bar.rate),
                interval_shown(bar.low, bar.high),
                str(scores.substitutions),
                str(scores.deletions),
                str(scores.insertions),
            ]
        )
    return [
        figure(
            f"{rate.name} by speaker",
            f"{looked_into}; {len(bars)} speakers, the highest rate first",
            charts.rows_chart(title, bars, rate.value),
            "rows",
        ),
        folded(
            f"All {len(bars)} speakers as a table",
            table(
                [
                    "speaker",
                    "utterances",
                    UNIT_NAMES[rate.scores.unit],
                    rate.name,
                    "interval",
                    "substituted",
                    "deleted",
                    "inserted",
                ],
                rows,
            ),
        ),
    ]


def lengths(judged: Judged, looked_into: str) -> Child:
    """The error rate of short and of long utterances."""
    rate = judged.main
    durations = np.array([u.duration_s for u in judged.utterances])
    n_bins = max(1, min(MOST_BINS, len(durations) // FEWEST_IN_BIN))
    bars = []
    for places in np.array_split(np.argsort(durations, kind="stable"), n_bins):
        first, last = durations[places[0]], durations[places[-1]]
        name = f"{first:.1f} to {last:.1f}" if f"{first:.1f}" != f"{last:.1f}" else f"{first:.1f}"
        bars.append(_bar(name, subset(rate.alignments, places.tolist()), rate))
    title = f"{rate.name} of utterances by length: " + "; ".join(b.tip for b in bars)
    return figure(
        f"{rate.name} by length of the utterance",
        f"{looked_into}; about as many utterances in each column",
        charts.columns_chart(title, bars, rate.value, "seconds"),
    )


def _bar(name: str, group: Alignments, rate: Rate) -> Bar:
    value = error_rate(total(group, rate.scores.unit, rate.scores.policy))
    interval = bootstrap(group, np.arange(len(group)))
    low, high = interval.low, interval.high
    tip = f"{name}: {rate_shown(value)}, {interval_shown(low, high)}, {len(group)} utterances"
    # Of one utterance there is nothing to draw again.
    if len(group) < 2:
        low = high = math.nan
        tip = f"{name}: {rate_shown(value)}, 1 utterance"
    return Bar(name, value, low, high, tip)


def tokens(rate: Rate, units: str, looked_into: str) -> Child:
    """How often each phone (character, word) was right, substituted, deleted and inserted."""
    counts = _token_counts(rate.alignments)
    said, unit = counts.said, units.removesuffix("s")
    wrong = {token: n - counts.right[token] for token, n in said.items()}
    names = sorted(said, key=lambda t: (-wrong[t], t))[:MOST_TOKENS]
    rows = [_token_row(token, counts) for token in names]
    columns = [(unit, ""), ("said", "num"), ("wrong", "num"), ("", "wide"), ("inserted", "num")]
    columns += [("most often heard as", "")]
    half = (len(rows) + 1) // 2
    tables = [
        el("table", heads(columns), el("tbody", part), class_="tokens")
        for part in (rows[:half], rows[half:])
        if part
    ]
    of_all = f"the {len(names)} with most errors of {len(said)}" if len(said) > len(names) else ""
    return figure(
        f"Errors by {unit}",
        ", ".join(filter(None, [looked_into, of_all, "most errors first"])),
        el("div", tables, class_="columns"),
        keys=legend((kind, kind) for kind in ("right", "substituted", "deleted")),
    )


def _token_row(token: str, counts: _TokenCounts) -> Html:
    n, right, deleted = counts.said[token], counts.right[token], counts.deleted[token]
    parts = [
        (right / n, "right"),
        ((n - right - deleted) / n, "substituted"),
        (deleted / n, "deleted"),
    ]
    told = ", ".join(f"{percent(share)} {kind}" for share, kind in parts)
    bar = el(
        "span",
        [el("i", class_=kind, style=f"width:{100 * share:.2f}%") for share, kind in parts if share],
        class_="stack",
        role="img",
        aria_label=told,
        data_tip=f"{shown(token)}: {told}",
    )
    taken_for = [f"{shown(t)} {count}" for t, count in counts.heard_as[token].most_common(3)]
    return el(
        "tr",
        el("th", shown(token), scope="row"),
        el("td", str(n), class_="num soft"),
        el("td", f"{100 * (n - right) / n:.1f} %", class_="num"),
        el("td", bar, class_="wide"),
        el("td", str(counts.inserted[token]), class_="num soft"),
        el("td", ", ".join(taken_for), class_="soft"),
    )


class _TokenCounts(NamedTuple):
    """How often each token was said, right, deleted, inserted; and what it was taken for."""

    said: Counter[str]
    right: Counter[str]
    deleted: Counter[str]
    inserted: Counter[str]
    heard_as: dict[str, Counter[str]]


def _token_counts(alignments: Alignments) -> _TokenCounts:
    counts = _TokenCounts(Counter(), Counter(), Counter(), Counter(), {})
    said, right, deleted, inserted, heard_as = counts
    hits = alignments.codes == 0
    for number, count in zip(*np.unique(alignments.said[hits], return_counts=True), strict=True):
        token = alignments.tokens[number]
        said[token] += int(count)
        right[token] += int(count)
    for kind, count in alignments.error_kinds().items():
        if kind.reference is None:
            inserted[kind.hypothesis or ""] += count
            continue
        said[kind.reference] += count
        if kind.hypothesis is None:
            deleted[kind.reference] += count
        else:
            heard_as.setdefault(kind.reference, Counter())[kind.hypothesis] += count
    for token in said:
        heard_as.setdefault(token, Counter())
    return counts


def confusions(rate: Rate, units: str, looked_into: str) -> Child:
    """What was taken for what, as a matrix and as lists of the most frequent errors."""
    said, right, deleted, inserted, heard_as = _token_counts(rate.alignments)
    names = sorted(set(said) | set(inserted) | {h for c in heard_as.values() for h in c})
    unit = units.removesuffix("s")
    parts: list[Html] = []
    if names and len(names) <= MOST_CONFUSED:
        cells = []
        n_inserted = sum(inserted.values())
        for i, token in enumerate(names):
            n = said[token]
            row = heard_as.get(token, Counter()) + Counter({token: right[token]})
            for j, other in enumerate(names):
                if row[other]:
                    what = "right" if other == token else f"heard as {shown(other)}"
                    cells.append((i, j, row[other] / n, _told(token, what, row[other], n)))
            if deleted[token]:
                told = _told(token, "deleted", deleted[token], n)
                cells.append((i, len(names), deleted[token] / n, told))
            if inserted[token]:
                share = inserted[token] / n_inserted
                tip = f"{shown(token)} inserted {inserted[token]} times"
                cells.append((len(names), i, share, tip))
        title = f"Confusion matrix of {len(names)} {units}: rows were said, columns were heard"
        shown_names = [shown(name) for name in names]
        parts.append(
            figure(
                "Confusion matrix",
                f"{looked_into}; rows were said, columns were heard; the stronger, the larger the "
                f"share of the row. Last column: not heard; last row: inserted",
                charts.heat_map(
                    title, [*shown_names, "inserted"], [*shown_names, "deleted"], cells
                ),
                "matrix",
            )
        )
    errors = error_counts(rate.alignments)
    lists = []
    for letter, name in (("S", "Substitutions"), ("D", "Deletions"), ("I", "Insertions")):
        listed = [e for e in errors if e.error == letter]
        rows = []
        for e in listed[:MOST_LISTED]:
            tokens = [shown(t) for t in (e.reference, e.hypothesis) if t is not None]
            rows.append([" → ".join(tokens), str(e.count)])
        n = sum(e.count for e in listed)
        more = f"{n} of {len(listed)} kinds" if n else "none"
        caption = el("figcaption", el("strong", name), el("span", more))
        lists.append(
            el("figure", caption, table([unit, "times"], rows) if rows else None, class_="card")
        )
    parts.append(el("div", lists, class_="grid-3"))
    return parts


def _told(token: str, what: str, count: int, n: int) -> str:
    return f"{shown(token)} {what}: {count} of {n}, {percent(count / n)}"
