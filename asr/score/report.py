"""What sclite users expect: a summary by speaker, errors by frequency, aligned pairs."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asr.files import write_text
from asr.score.error_rate import (
    RATE_NAMES,
    Alignment,
    error_rate,
    reference_length,
    total,
    utterance_error_rate,
)
from asr.score.show import aligned_text, as_json, shown, summary_line
from asr.types import Scores

ERROR_NAMES = {"S": "substitution", "D": "deletion", "I": "insertion"}
ERROR_HEADER = ("error", "reference", "hypothesis", "count")
_WIDTH = 100


@dataclass(frozen=True, slots=True)
class Scored:
    """One scored utterance. The speaker is "" where none is known."""

    id: str
    speaker: str
    alignment: Alignment


@dataclass(frozen=True, slots=True)
class ErrorCount:
    """How often one token was taken for another, left out or put in."""

    error: str
    reference: str | None
    hypothesis: str | None
    count: int


def speaker_of(utterance: str) -> str:
    """The part of an utterance id before its first ``-`` or ``_``, as NIST's spu_id has it."""
    speaker, *rest = re.split("[-_]", utterance, maxsplit=1)
    return speaker if rest else ""


def by_speaker(utterances: Iterable[Scored], unit: str, policy: str) -> dict[str, Scores]:
    """Scores of every speaker, by name."""
    alignments = defaultdict(list)
    for utterance in utterances:
        alignments[utterance.speaker].append(utterance.alignment)
    return {s: total(alignments[s], unit, policy) for s in sorted(alignments)}


def error_counts(utterances: Iterable[Scored]) -> list[ErrorCount]:
    """Substitutions, deletions, insertions; within each the most frequent first."""
    counts = Counter(c for u in utterances for c in u.alignment.columns if c.error)
    listed = [ErrorCount(c.error, c.reference, c.hypothesis, n) for c, n in counts.items()]
    return sorted(
        listed,
        key=lambda e: ("SDI".index(e.error), -e.count, e.reference or "", e.hypothesis or ""),
    )


def write_report(folder: Path, scores: Scores, utterances: Sequence[Scored]) -> None:
    """Write report.txt, report.json, speakers.csv, utterances.csv and errors.csv into ``folder``.

    Raises:
        InputError: the folder cannot be written to.
    """
    speakers = by_speaker(utterances, scores.unit, scores.policy)
    errors = error_counts(utterances)
    rows = [(u, total([u.alignment], scores.unit, scores.policy)) for u in utterances]
    write_text(folder / "report.txt", _text(scores, speakers, errors, utterances))
    document = as_json(scores) | {
        "speakers": [{"speaker": s} | _figures(of) for s, of in speakers.items()],
        "errors": [
            {
                "error": ERROR_NAMES[e.error],
                "reference": e.reference,
                "hypothesis": e.hypothesis,
                "count": e.count,
            }
            for e in errors
        ],
        "utterance_list": [
            {"id": u.id, "speaker": u.speaker} | _figures(of) | {"alignment": u.alignment.columns}
            for u, of in rows
        ],
    }
    write_text(folder / "report.json", json.dumps(document, ensure_ascii=False, indent=1) + "\n")
    write_text(
        folder / "speakers.csv",
        _csv([{"speaker": s} | _figures(of) for s, of in speakers.items()]),
    )
    write_text(
        folder / "utterances.csv",
        _csv([{"id": u.id, "speaker": u.speaker} | _figures(of) for u, of in rows]),
    )
    write_text(folder / "errors.csv", _csv(document["errors"], ERROR_HEADER))


def _figures(scores: Scores) -> dict[str, Any]:
    figures = as_json(scores)
    del figures["unit"], figures["policy"]
    return figures


def _csv(rows: Sequence[dict[str, Any]], header: Sequence[str] = ()) -> str:
    """CSV with a header line, by default the keys of the rows; what is undefined stays empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, header or list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _text(
    scores: Scores,
    speakers: dict[str, Scores],
    errors: Sequence[ErrorCount],
    utterances: Sequence[Scored],
) -> str:
    sections = [summary_line(scores), _speaker_table(scores, speakers)]
    for letter, name in ERROR_NAMES.items():
        listed = [e for e in errors if e.error == letter]
        lines = [f"{name.capitalize()}s: {sum(e.count for e in listed)} of {len(listed)} kinds"]
        for e in listed:
            tokens = [shown(t) for t in (e.reference, e.hypothesis) if t is not None]
            lines.append(f"{e.count:6}  {' -> '.join(tokens)}")
        sections.append("\n".join(lines))
    for u in utterances:
        a = u.alignment
        counts = f"H {a.hits}, S {a.substitutions}, D {a.deletions}, I {a.insertions}"
        sections.append(f"{u.id}  [{counts}]\n{aligned_text(a, _WIDTH)}")
    return "\n\n".join(sections) + "\n"


def _percent(rate: float) -> str:
    return "-" if math.isnan(rate) else f"{100 * rate:.2f} %"


def _speaker_table(scores: Scores, speakers: dict[str, Scores]) -> str:
    """Counts as in sclite's rsum and the rate in %, a speaker a line, all of them at the end."""
    head = ["speaker", "utts", "ref", "hit", "sub", "del", "ins", RATE_NAMES[scores.unit], "wrong"]
    rows = [head]
    for name, of in [*((s or "?", of) for s, of in speakers.items()), ("all", scores)]:
        counts = (
            of.utterances,
            reference_length(of),
            of.hits,
            of.substitutions,
            of.deletions,
            of.insertions,
        )
        rates = (error_rate(of), utterance_error_rate(of))
        rows.append([name, *map(str, counts), *map(_percent, rates)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        row[0].ljust(widths[0])
        + "".join(f"  {cell:>{w}}" for cell, w in zip(row[1:], widths[1:], strict=True))
        for row in rows
    )
