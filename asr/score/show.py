"""Scores as people and programs read them; nothing is counted here."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from asr.labels import SPACE
from asr.score.error_rate import (
    RATE_NAMES,
    UNIT_NAMES,
    error_rate,
    reference_length,
    utterance_error_rate,
)
from asr.score.significance import CONFIDENCE, Comparison, Interval, Test
from asr.types import Scores

if TYPE_CHECKING:
    from asr.score.alignment import Alignment


def summary_line(scores: Scores) -> str:
    """One line: the rate by its name, the counts behind it, and the policy.

    WER 12.33 %  [S 10, D 5, I 3 of 146 words; 20 utterances, 45.00 % wrong]  (words, as written)
    """
    name, units = RATE_NAMES[scores.unit], UNIT_NAMES[scores.unit]
    rate = error_rate(scores)
    shown = f"undefined, no reference {units}" if math.isnan(rate) else f"{rate:.2%}"
    wrong = utterance_error_rate(scores)
    return (
        f"{name} {shown.replace('%', ' %')}  [S {scores.substitutions}, D {scores.deletions}, "
        f"I {scores.insertions} of {reference_length(scores)} {units}; "
        f"{scores.utterances} utterance{'s' * (scores.utterances != 1)}"
        + ("" if math.isnan(wrong) else f", {wrong:.2%} wrong".replace("%", " %"))
        + f"]  ({scores.policy})"
    )


def as_json(scores: Scores) -> dict[str, Any]:
    """The figures as plain JSON values; a rate that is undefined is null."""
    return {
        "unit": scores.unit,
        "error_rate": _or_none(error_rate(scores)),
        "substitutions": scores.substitutions,
        "deletions": scores.deletions,
        "insertions": scores.insertions,
        "hits": scores.hits,
        "reference_length": reference_length(scores),
        "utterances": scores.utterances,
        "utterance_error_rate": _or_none(utterance_error_rate(scores)),
        "policy": scores.policy,
    }


def interval_line(over: Interval, groups: str, signed: bool = False) -> str:
    """``95 % interval 10.21 to 14.02 % over 240 utterances (bootstrap)``."""
    sign = "+" if signed else ""
    return (
        f"{CONFIDENCE:.0%} interval {100 * over.low:{sign}.2f} to {100 * over.high:{sign}.2f} % "
        f"over {over.groups} {groups} (bootstrap)"
    ).replace("95%", "95 %")


def plain(value: Interval | Test | None) -> dict[str, float | None] | None:
    """An interval or a test as plain JSON values; what is undefined is null."""
    if value is None:
        return None
    return {name: _or_none(number) for name, number in dataclasses.asdict(value).items()}


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """The difference of two systems as plain JSON values."""
    c = comparison
    return {
        "difference": _or_none(c.difference),
        "over_utterances": plain(c.over_utterances),
        "over_speakers": plain(c.over_speakers),
        "tests": {
            "mapsswe": plain(c.mapsswe),
            "mcnemar": plain(c.mcnemar),
            "sign": plain(c.sign),
            "wilcoxon": plain(c.wilcoxon),
        },
    }


def comparison_text(comparison: Comparison) -> str:
    """The difference of two systems, its intervals, and the tests, a line each."""
    c = comparison
    lines = [f"B less A: {100 * c.difference:+.2f} %"]
    lines.append("  " + interval_line(c.over_utterances, "utterances", signed=True))
    if c.over_speakers:
        lines.append("  " + interval_line(c.over_speakers, "speakers", signed=True))
    tests = [
        ("MAPSSWE", c.mapsswe, "Z {s:.3f} over {n} segments"),
        ("McNemar", c.mcnemar, "{s:.0f} of {n} utterances that one alone has wrong are B's"),
        ("sign", c.sign, "B is worse on {s:.0f} of {n} speakers"),
        ("Wilcoxon", c.wilcoxon, "Z {s:.3f} over {n} speakers"),
    ]
    for name, test, statistic in tests:
        if test:
            told = statistic.format(s=test.statistic, n=test.samples)
            lines.append(f"  {name:8}  p {test.p:<8.2g}  ({told})")
    return "\n".join(lines)


def aligned_text(alignment: Alignment, width: int) -> str:
    """REF, HYP and EVAL rows, column under column, wrapped to ``width`` terminal cells."""
    from rich.cells import cell_len

    rows = [
        [shown(column.reference) for column in alignment.columns],
        [shown(column.hypothesis) for column in alignment.columns],
        [column.error for column in alignment.columns],
    ]
    measure: Callable[[str], int] = cell_len
    padded: Callable[[str, int], str] = _padded
    if all(map(str.isascii, itertools.chain(*rows))):
        measure, padded = len, str.ljust
    widths = [max(map(measure, cells)) for cells in zip(*rows, strict=True)]
    blocks = []
    for start, end in _wrapped(widths, width - len("EVAL:")):
        lines = [
            f"{name} {' '.join(map(padded, row[start:end], widths[start:end]))}".rstrip()
            for name, row in zip(("REF: ", "HYP: ", "EVAL:"), rows, strict=True)
        ]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _padded(text: str, width: int) -> str:
    from rich.cells import cell_len

    return text + " " * (width - cell_len(text))


def _wrapped(widths: list[int], room: int) -> Iterator[tuple[int, int]]:
    """Cut columns into (start, end) rows that fit ``room``, a space before each column."""
    start = used = 0
    for i, width in enumerate(widths):
        if i > start and used + 1 + width > room:
            yield start, i
            start, used = i, 0
        used += 1 + width
    yield start, len(widths)


def shown(token: str | None) -> str:
    """A token as it is printed: a gap is ``*``, a space is made visible."""
    if token is None:
        return "*"
    return "␣" if token == SPACE else token


def _or_none(rate: float) -> float | None:
    return None if math.isnan(rate) else rate
