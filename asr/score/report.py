"""What sclite users expect: a summary by speaker, errors by frequency, aligned pairs."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import numpy as np

from asr.score.alignment import Alignments
from asr.score.error_rate import RATE_NAMES, error_rate, reference_length, utterance_error_rate
from asr.score.show import aligned_text, as_json, shown, summary_line
from asr.system.files import write_text
from asr.types import Scores

ERROR_NAMES = {"S": "substitution", "D": "deletion", "I": "insertion"}
ERROR_HEADER = ("error", "reference", "hypothesis", "count")
COLUMN_HEADER = ("id", "reference", "hypothesis", "error")
_WIDTH = 100
#: What cells of formulas begin with (OWASP, "CSV injection").
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


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


def by_speaker(
    alignments: Alignments, speakers: Sequence[str], unit: str, policy: str
) -> dict[str, Scores]:
    """Scores of every speaker, by name; "" is the one of utterances whose speaker is unknown."""
    names, groups = np.unique(np.array(speakers, dtype=object), return_inverse=True)
    counts = np.column_stack(
        (alignments.counts, np.ones(len(alignments), np.int64), alignments.errors > 0)
    )
    sums = np.zeros((len(names), counts.shape[1]), np.int64)
    np.add.at(sums, groups, counts)
    like = Scores(unit, 0, 0, 0, 0, 0, 0, policy)
    return {name: _scores(like, row) for name, row in zip(names, sums.tolist(), strict=True)}


def error_counts(alignments: Alignments) -> list[ErrorCount]:
    """Substitutions, deletions, insertions; within each the most frequent first."""
    kinds = alignments.column_counts(hits=False).items()
    return sorted(
        (ErrorCount(c.error, c.reference, c.hypothesis, n) for c, n in kinds),
        key=lambda e: ("SDI".index(e.error), -e.count, e.reference or "", e.hypothesis or ""),
    )


def write_report(
    folder: Path,
    scores: Scores,
    ids: Sequence[str],
    speakers: Sequence[str],
    alignments: Alignments,
    unmatched: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Write report.txt, report.json and {speakers,utterances,errors,aligned}.csv into ``folder``.

    ids, speakers: of every utterance; the speaker is "" where none is known. unmatched: ids without
    a counterpart, by what was done with them.

    Raises:
        InputError: the folder cannot be written to.
    """
    unmatched = dict(unmatched or {})
    of_speakers = by_speaker(alignments, speakers, scores.unit, scores.policy)
    listed_speakers = [{"speaker": s} | _figures(of) for s, of in of_speakers.items()]
    errors = error_counts(alignments)
    listed_errors = [
        {
            "error": ERROR_NAMES[e.error],
            "reference": e.reference,
            "hypothesis": e.hypothesis,
            "count": e.count,
        }
        for e in errors
    ]
    listed_utterances, documents, pairs, columns = [], [], [], []
    for i, speaker, a in zip(ids, speakers, alignments, strict=True):
        counts = a.hits, a.substitutions, a.deletions, a.insertions, 1, a.errors > 0
        figures = {"id": i, "speaker": speaker} | _figures(_scores(scores, counts))
        listed_utterances.append(figures)
        documents.append(json.dumps(figures | {"alignment": a.columns}, ensure_ascii=False))
        told = f"H {a.hits}, S {a.substitutions}, D {a.deletions}, I {a.insertions}"
        pairs.append(f"{i}  [{told}]\n{aligned_text(a, _WIDTH)}")
        columns += [(i, *column) for column in a.columns]

    text = _text(scores, of_speakers, errors)
    lost = [f"{fate}: {len(ids)}\n{' '.join(ids)}" for fate, ids in unmatched.items() if ids]
    write_text(folder / "report.txt", "\n\n".join([*text, *lost, *pairs]) + "\n")
    document = as_json(scores) | unmatched | {"speakers": listed_speakers, "errors": listed_errors}
    # A line an utterance: a corpus may have many.
    head = json.dumps(document, ensure_ascii=False, indent=1).removesuffix("\n}")
    utterances = ",\n  ".join(documents)
    write_text(folder / "report.json", f'{head},\n "utterance_list": [\n  {utterances}\n ]\n}}\n')
    for name, rows in (("speakers", listed_speakers), ("utterances", listed_utterances)):
        write_text(folder / f"{name}.csv", _csv(rows[0], (row.values() for row in rows)))
    rows_of_errors = (row.values() for row in listed_errors)
    write_text(folder / "errors.csv", _csv(ERROR_HEADER, rows_of_errors))
    write_text(folder / "aligned.csv", _csv(COLUMN_HEADER, columns))


def _scores(like: Scores, counts: Sequence[int]) -> Scores:
    """From hits, substitutions, deletions, insertions, utterances and wrong utterances."""
    hits, substitutions, deletions, insertions, utterances, wrong = map(int, counts)
    return replace(
        like,
        hits=hits,
        substitutions=substitutions,
        deletions=deletions,
        insertions=insertions,
        utterances=utterances,
        wrong_utterances=wrong,
    )


def _figures(scores: Scores) -> dict[str, Any]:
    figures = as_json(scores)
    del figures["unit"], figures["policy"]
    return figures


def _csv(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """CSV with a header line; what is undefined stays empty.

    A text that a spreadsheet would take for a formula has a ' before it.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow(
            f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell
            for cell in row
        )
    return text.getvalue()


def _text(
    scores: Scores, speakers: dict[str, Scores], errors: Sequence[ErrorCount]
) -> Iterator[str]:
    yield summary_line(scores)
    yield _speaker_table(scores, speakers)
    for letter, name in ERROR_NAMES.items():
        listed = [e for e in errors if e.error == letter]
        lines = [f"{name.capitalize()}s: {sum(e.count for e in listed)} of {len(listed)} kinds"]
        for e in listed:
            tokens = [shown(t) for t in (e.reference, e.hypothesis) if t is not None]
            lines.append(f"{e.count:6}  {' -> '.join(tokens)}")
        yield "\n".join(lines)


def _percent(rate: float) -> str:
    return "-" if math.isnan(rate) else f"{100 * rate:.2f} %"


def _speaker_table(scores: Scores, speakers: dict[str, Scores]) -> str:
    """Counts as in sclite's rsum and the rates in %, a speaker a line.

    At the end all speakers together, and the mean, standard deviation and median over speakers,
    as sclite has them: of rates, that is, and no corpus rates.
    """
    head = ["speaker", "utts", "ref", "hit", "sub", "del", "ins", RATE_NAMES[scores.unit], "wrong"]
    figures = [_table_row(of) for of in speakers.values()]
    rows = [head]
    for name, row in zip([s or "?" for s in speakers], figures, strict=True):
        rows.append([name, *(f"{n:.0f}" for n in row[:6]), *map(_percent, row[6:])])
    total = _table_row(scores)
    rows.append(["all", *(f"{n:.0f}" for n in total[:6]), *map(_percent, total[6:])])
    if len(figures) > 1:
        for name, statistic in (("mean", mean), ("s.d.", stdev), ("median", median)):
            values = []
            for column in zip(*figures, strict=True):
                known = [value for value in column if not math.isnan(value)]
                values.append(statistic(known) if len(known) > 1 else math.nan)
            rows.append([name, *(f"{n:.1f}" for n in values[:6]), *map(_percent, values[6:])])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        row[0].ljust(widths[0])
        + "".join(f"  {cell:>{w}}" for cell, w in zip(row[1:], widths[1:], strict=True))
        for row in rows
    )


def _table_row(scores: Scores) -> list[float]:
    return [
        scores.utterances,
        reference_length(scores),
        scores.hits,
        scores.substitutions,
        scores.deletions,
        scores.insertions,
        error_rate(scores),
        utterance_error_rate(scores),
    ]
