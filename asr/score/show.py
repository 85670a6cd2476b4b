"""Scores as people and programs read them; nothing is counted here."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asr.labels import SPACE
from asr.score.error_rate import RATE_NAMES, UNIT_NAMES
from asr.score.significance import CONFIDENCE, Comparison, Interval, Test
from asr.types import Scores

if TYPE_CHECKING:
    from asr.score.alignment import Alignment


def summary_line(scores: Scores) -> str:
    """One line: the rate by its name, the counts behind it, and the policy.

    WER 12.33 %  [S 10, D 5, I 3 of 146 words; 20 utterances, 45.00 % wrong]  (words, as written)
    """
    s, units = scores, UNIT_NAMES[scores.unit]
    rate = (
        f"{100 * s.error_rate:.2f} %" if s.reference_length else f"undefined, no reference {units}"
    )
    wrong = f", {100 * s.utterance_error_rate:.2f} % wrong" if s.utterances else ""
    return (
        f"{RATE_NAMES[s.unit]} {rate}  [S {s.substitutions}, D {s.deletions}, I {s.insertions} of "
        f"{s.reference_length} {units}; {s.utterances} utterance{'s' * (s.utterances != 1)}{wrong}]"
        f"  ({s.policy})"
    )


def as_json(scores: Scores) -> dict[str, Any]:
    """The figures as plain JSON values, with what they are of."""
    return {"unit": scores.unit} | figures(scores) | {"policy": scores.policy}


def figures(scores: Scores) -> dict[str, Any]:
    """Counts and rates as plain JSON values; a rate that is undefined is null."""
    return {
        "error_rate": _or_none(scores.error_rate),
        "substitutions": scores.substitutions,
        "deletions": scores.deletions,
        "insertions": scores.insertions,
        "hits": scores.hits,
        "reference_length": scores.reference_length,
        "utterances": scores.utterances,
        "utterance_error_rate": _or_none(scores.utterance_error_rate),
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
    return {name: _or_none(number) for name, number in value._asdict().items()}


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """The difference of two systems as plain JSON values."""
    difference, over_utterances, over_speakers, *tests = comparison
    names = Comparison._fields[-len(tests) :]
    return {
        "difference": _or_none(difference),
        "over_utterances": plain(over_utterances),
        "over_speakers": plain(over_speakers),
        "tests": dict(zip(names, map(plain, tests), strict=True)),
    }


def comparison_text(comparison: Comparison, a: str = "A", b: str = "B") -> str:
    """The difference of two systems, its intervals, and the tests, a line each."""
    c = comparison
    lines = [f"{b} less {a}: {100 * c.difference:+.2f} %"]
    lines.append("  " + interval_line(c.over_utterances, "utterances", signed=True))
    if c.over_speakers:
        lines.append("  " + interval_line(c.over_speakers, "speakers", signed=True))
    tests = [
        ("MAPSSWE", c.mapsswe, f"Z {c.mapsswe.statistic:.3f} over", "segments"),
        ("McNemar", c.mcnemar, f"{b} alone has {c.mcnemar.statistic:.0f} wrong of", "utterances"),
    ]
    if c.sign and c.wilcoxon:
        tests += [
            ("sign", c.sign, f"{b} is worse on {c.sign.statistic:.0f} of", "speakers"),
            ("Wilcoxon", c.wilcoxon, f"Z {c.wilcoxon.statistic:.3f} over", "speakers"),
        ]
    for name, test, told, of in tests:
        p = f"p {test.p:<8.2g}"
        if math.isnan(test.p):
            p, told = "cannot say", "the same difference in all"
        lines.append(f"  {name:8}  {p}  ({told} {test.samples} {of})")
    return "\n".join(lines)


def short_names(paths: Sequence[Path]) -> list[str]:
    """What tells paths apart: without the folders and the ends that they share; never empty.

    >>> short_names([Path("runs/a/test.beam.jsonl"), Path("runs/b/test.beam.jsonl")])
    ['a', 'b']
    >>> short_names([Path("out/greedy.trn"), Path("out/beam.trn"), Path("out/beam.trn")])
    ['greedy', 'beam', 'beam (2)']
    """
    different = [path.absolute().parts for path in dict.fromkeys(paths)]
    shortest = min(map(len, different), default=0)
    first = last = 0
    while first < shortest - 1 and len({parts[first] for parts in different}) == 1:
        first += 1
    while last < shortest - first - 1 and len({parts[-1 - last] for parts in different}) == 1:
        last += 1
    names: list[str] = []
    for path in paths:
        parts = path.absolute().parts
        name = "/".join(parts[first : len(parts) - last])
        if not last and len({p.suffix for p in paths}) == 1 and path.is_file():
            name = name.removesuffix(path.suffix)
        copies = sum(p == path for p in paths[: len(names)])
        names.append(f"{name} ({copies + 1})" if copies else name)
    return names


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
