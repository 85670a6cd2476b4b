"""What sclite users expect: a summary by speaker, errors by frequency, aligned pairs."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean, median, stdev

import numpy as np

from asr.score.alignment import Alignments, Column
from asr.score.error_rate import RATE_NAMES, scores_of
from asr.score.show import aligned_text, as_json, figures, shown, summary_line
from asr.system.files import write_text
from asr.types import Scores

ERROR_NAMES = {"S": "substitution", "D": "deletion", "I": "insertion"}
_WIDTH = 100
#: What cells of formulas begin with (OWASP, "CSV injection").
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def speaker_of(utterance: str) -> str:
    """The part of an utterance id before its first ``-`` or ``_``, as NIST's spu_id has it."""
    speaker, *rest = re.split("[-_]", utterance, maxsplit=1)
    return speaker if rest else ""


def by_speaker(
    alignments: Alignments, speakers: Sequence[str], unit: str, policy: str
) -> dict[str, Scores]:
    """Scores of every speaker, by name; "" is the one of utterances whose speaker is unknown."""
    names, groups = np.unique(np.array(speakers, dtype=object), return_inverse=True)
    sums = np.zeros((len(names), 6), np.int64)
    np.add.at(sums, groups, alignments.tallies)
    return {
        name: scores_of(row, unit, policy) for name, row in zip(names, sums.tolist(), strict=True)
    }


def error_counts(alignments: Alignments) -> dict[str, list[tuple[Column, int]]]:
    """How often each kind of wrong column is there, the most frequent first, by `ERROR_NAMES`."""
    counts = sorted(
        alignments.column_counts(hits=False).items(),
        key=lambda of: (-of[1], of[0].reference or "", of[0].hypothesis or ""),
    )
    return {error: [of for of in counts if of[0].error == error] for error in ERROR_NAMES}


def total_of(listed: Sequence[tuple[Column, int]]) -> str:
    """``12 of 7 kinds``."""
    return f"{sum(n for _, n in listed)} of {len(listed)} kinds"


def error_shown(column: Column, arrow: str) -> str:
    """What was said and what was heard; one alone where the other is nothing."""
    return f" {arrow} ".join(shown(token) for token in column[:2] if token is not None)


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
    unit, policy = scores.unit, scores.policy
    of_speakers = by_speaker(alignments, speakers, unit, policy)
    listed_speakers = [{"speaker": s} | figures(of) for s, of in of_speakers.items()]
    errors = error_counts(alignments)
    listed_errors = [
        {"error": ERROR_NAMES[error], "reference": said, "hypothesis": heard, "count": n}
        for listed in errors.values()
        for (said, heard, error), n in listed
    ]
    tallies = alignments.tallies.tolist()
    listed_utterances, documents, pairs, columns = [], [], [], []
    for i, speaker, counts, a in zip(ids, speakers, tallies, alignments, strict=True):
        listed = {"id": i, "speaker": speaker} | figures(scores_of(counts, unit, policy))
        listed_utterances.append(listed)
        documents.append(json.dumps(listed | {"alignment": a.columns}, ensure_ascii=False))
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
    for name, listing in (("speakers", listed_speakers), ("utterances", listed_utterances)):
        write_text(folder / f"{name}.csv", _csv(listing[0], (row.values() for row in listing)))
    rows_of_errors = (row.values() for row in listed_errors)
    write_text(
        folder / "errors.csv", _csv(("error", "reference", "hypothesis", "count"), rows_of_errors)
    )
    write_text(folder / "aligned.csv", _csv(("id", *Column._fields), columns))


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
    scores: Scores,
    speakers: dict[str, Scores],
    errors: Mapping[str, Sequence[tuple[Column, int]]],
) -> Iterator[str]:
    yield summary_line(scores)
    yield _speaker_table(scores, speakers)
    for error, listed in errors.items():
        lines = [f"{ERROR_NAMES[error].capitalize()}s: {total_of(listed)}"]
        lines += [f"{n:6}  {error_shown(column, '->')}" for column, n in listed]
        yield "\n".join(lines)


def _speaker_table(scores: Scores, speakers: dict[str, Scores]) -> str:
    """Counts as in sclite's rsum and the rates in %, a speaker a line.

    At the end all speakers together, and the mean, standard deviation and median over speakers,
    as sclite has them: of rates, that is, and no corpus rates.
    """
    head = ["speaker", "utts", "ref", "hit", "sub", "del", "ins", RATE_NAMES[scores.unit], "wrong"]
    numbers = [_numbers(of) for of in speakers.values()]
    rows = [
        head,
        *([name or "?", *_cells(n, 0)] for name, n in zip(speakers, numbers, strict=True)),
    ]
    rows.append(["all", *_cells(_numbers(scores), 0)])
    if len(numbers) > 1:
        for name, statistic in (("mean", mean), ("s.d.", stdev), ("median", median)):
            values = []
            for column in zip(*numbers, strict=True):
                known = [value for value in column if not math.isnan(value)]
                values.append(statistic(known) if len(known) > 1 else math.nan)
            rows.append([name, *_cells(values, 1)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    )


def _numbers(s: Scores) -> list[float]:
    counts = s.utterances, s.reference_length, s.hits, s.substitutions, s.deletions, s.insertions
    return [*counts, s.error_rate, s.utterance_error_rate]


def _cells(numbers: Sequence[float], digits: int) -> list[str]:
    """Counts, and then two rates."""
    rates = ["-" if math.isnan(rate) else f"{100 * rate:.2f} %" for rate in numbers[6:]]
    return [*(f"{n:.{digits}f}" for n in numbers[:6]), *rates]
