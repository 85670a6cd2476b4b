"""Where the errors are: by length, speaker, and phone (character, word), and confusions."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from asr.report import charts
from asr.report.charts import Bar, percent
from asr.report.html import Child, Html, el
from asr.report.pieces import (
    card,
    figure,
    folded,
    heads,
    interval_shown,
    legend,
    rate_shown,
    row,
    table,
)
from asr.report.run import Rate, ScoredSet
from asr.score.alignment import Alignments
from asr.score.error_rate import total
from asr.score.report import ERROR_NAMES, error_counts, error_shown, total_of
from asr.score.show import shown
from asr.score.significance import bootstrap
from asr.types import Scores

#: Bins of utterance length hold about so many utterances at least.
FEWEST_IN_BIN, MOST_BINS = 12, 8
#: A confusion matrix of more kinds of tokens would be unreadable.
MOST_CONFUSED = 70
MOST_TOKENS, MOST_LISTED = 60, 12


def speakers(of: ScoredSet) -> Child:
    """The error rate of every speaker."""
    rate = of.main
    places: dict[str, list[int]] = defaultdict(list)
    for i, utterance in enumerate(of.utterances):
        places[utterance.speaker].append(i)
    found = [_bar(name, at, rate) for name, at in places.items()]
    found.sort(key=lambda f: (1.0 if math.isnan(f[0].rate) else -f[0].rate, f[0].name))
    bars = [bar for bar, _ in found]
    names = ["speaker", "utterances", rate.units, rate.name, "interval"]
    names += ["substituted", "deleted", "inserted"]
    rows = []
    for bar, s in found:
        rates = rate_shown(bar.rate), interval_shown(bar.low, bar.high)
        errors = s.substitutions, s.deletions, s.insertions
        sizes = s.utterances, s.reference_length
        rows.append([bar.name, *map(str, sizes), *rates, *map(str, errors)])
    title = f"{rate.name} of {len(bars)} speakers, the highest first, with intervals"
    return [
        figure(
            f"{rate.name} by speaker",
            f"{of.title}; {len(bars)} speakers, the highest rate first",
            charts.rows_chart(title, bars, rate.value),
            "rows",
        ),
        folded(f"All {len(bars)} speakers as a table", table(names, rows)),
    ]


def lengths(of: ScoredSet) -> Child:
    """The error rate of short and of long utterances."""
    rate = of.main
    durations = np.array([u.duration_s for u in of.utterances])
    n_bins = max(1, min(MOST_BINS, len(durations) // FEWEST_IN_BIN))
    bars = []
    for places in np.array_split(np.argsort(durations, kind="stable"), n_bins):
        ends = dict.fromkeys(f"{durations[places[i]]:.1f}" for i in (0, -1))
        bars.append(_bar(" to ".join(ends), places.tolist(), rate)[0])
    title = f"{rate.name} of utterances by length: " + "; ".join(b.tip for b in bars)
    return figure(
        f"{rate.name} by length of the utterance",
        f"{of.title}; about as many utterances in each column",
        charts.columns_chart(title, bars, rate.value, "seconds"),
    )


def _bar(name: str, places: Sequence[int], rate: Rate) -> tuple[Bar, Scores]:
    """The rate of the utterances at ``places``."""
    group = rate.alignments.subset(places)
    scores = total(group, rate.scores.unit, rate.scores.policy)
    value = scores.error_rate
    # Of one utterance there is nothing to draw again.
    low = high = math.nan
    tip = f"{name}: {rate_shown(value)}, 1 utterance"
    if len(group) > 1:
        low, high, _ = bootstrap(group, np.arange(len(group)))
        tip = f"{name}: {rate_shown(value)}, {interval_shown(low, high)}, {len(group)} utterances"
    return Bar(name, value, low, high, tip), scores


class TokenCounts(NamedTuple):
    """How often each token was said, right, deleted, inserted; and what it was taken for."""

    said: Counter[str]
    right: Counter[str]
    deleted: Counter[str]
    inserted: Counter[str]
    heard_as: dict[str, Counter[str]]


def token_counts(alignments: Alignments) -> TokenCounts:
    """Count the tokens of all columns."""
    counts = TokenCounts(Counter(), Counter(), Counter(), Counter(), defaultdict(Counter))
    for (said, heard, error), n in alignments.column_counts(hits=True).items():
        if said is None:
            counts.inserted[heard or ""] += n
            continue
        counts.said[said] += n
        if not error:
            counts.right[said] += n
        elif heard is None:
            counts.deleted[said] += n
        else:
            counts.heard_as[said][heard] += n
    return counts


def tokens(of: ScoredSet, counts: TokenCounts) -> Child:
    """How often each phone (character, word) was right, substituted, deleted and inserted."""
    said, unit = counts.said, of.main.units.removesuffix("s")
    names = sorted(said, key=lambda t: (counts.right[t] - said[t], t))[:MOST_TOKENS]
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
        ", ".join(filter(None, [of.title, of_all, "most errors first"])),
        el("div", tables, class_="columns"),
        keys=legend((kind, kind) for kind in ("right", "substituted", "deleted")),
    )


def _token_row(token: str, counts: TokenCounts) -> Html:
    n, right, deleted = counts.said[token], counts.right[token], counts.deleted[token]
    shares = {"right": right / n, "substituted": (n - right - deleted) / n, "deleted": deleted / n}
    told = ", ".join(f"{percent(share)} {kind}" for kind, share in shares.items())
    bar = el(
        "span",
        [el("i", class_=k, style=f"width:{100 * s:.2f}%") for k, s in shares.items() if s],
        class_="stack",
        role="img",
        aria_label=told,
        data_tip=f"{shown(token)}: {told}",
    )
    taken_for = [f"{shown(t)} {count}" for t, count in counts.heard_as[token].most_common(3)]
    cells = [
        (str(n), "num soft"),
        (f"{100 * (n - right) / n:.1f} %", "num"),
        (bar, "wide"),
        (str(counts.inserted[token]), "num soft"),
        (", ".join(taken_for), "soft"),
    ]
    return row(shown(token), cells)


def confusions(of: ScoredSet, counts: TokenCounts) -> Child:
    """What was taken for what, as a matrix and as lists of the most frequent errors."""
    units = of.main.units
    heard = (token for row in counts.heard_as.values() for token in row)
    names = sorted({*counts.said, *counts.inserted, *heard})
    parts: list[Html] = []
    if names and len(names) <= MOST_CONFUSED:
        title = f"Confusion matrix of {len(names)} {units}: rows were said, columns were heard"
        told = [shown(name) for name in names]
        cells = _cells(names, counts)
        parts.append(
            figure(
                "Confusion matrix",
                f"{of.title}; rows were said, columns were heard; the stronger, the larger the "
                f"share of the row. Last column: not heard; last row: inserted",
                charts.heat_map(title, [*told, "inserted"], [*told, "deleted"], cells),
                "matrix",
            )
        )
    lists = []
    for error, listed in error_counts(of.main.alignments).items():
        rows = [[error_shown(column, "→"), str(n)] for column, n in listed[:MOST_LISTED]]
        listing = table([units.removesuffix("s"), "times"], rows) if rows else None
        more = total_of(listed) if listed else "none"
        lists.append(card(f"{ERROR_NAMES[error].capitalize()}s", more, listing))
    return [*parts, el("div", lists, class_="grid-3")]


def _cells(names: Sequence[str], counts: TokenCounts) -> list[tuple[int, int, float, str]]:
    """The cells of the matrix, as `charts.heat_map` takes them."""
    cells = []
    n_inserted = counts.inserted.total()
    for i, token in enumerate(names):
        n, name = counts.said[token], shown(token)
        heard = [(counts.heard_as[token][other], f"heard as {shown(other)}") for other in names]
        heard[i] = counts.right[token], "right"
        for j, (count, what) in enumerate([*heard, (counts.deleted[token], "deleted")]):
            if count:
                told = f"{name} {what}: {count} of {n}, {percent(count / n)}"
                cells.append((i, j, count / n, told))
        if count := counts.inserted[token]:
            cells.append((len(names), i, count / n_inserted, f"{name} inserted {count} times"))
    return cells
