"""Rows of tables: CSV and TSV with a header, parquet as Hugging Face has it, Lhotse's cuts."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from asr.corpora.own.config import Own
from asr.data.manifest import parsed
from asr.errors import InputError
from asr.score.table import FILES, IDS, SEPARATORS, TEXTS
from asr.system.text import decoded, nfc, read_bytes

SPEAKERS = "speaker speaker_id client_id spk_id spk user_id".split()
SPLITS = ("split",)
#: Lines that a cell in quotes may go over; one that goes further was never closed.
MOST_LINES = 50
INSTALL_PYARROW = "install pyarrow: pip install 'carousel-asr[parquet]'"


class Row(NamedTuple):
    """What a row says of an utterance. data: its audio, where that lies in the table itself.

    duration_s: None stands for all that there is.
    """

    where: str
    audio: str
    text: str
    speaker: str = ""
    id: str = ""
    set: str = ""
    data: bytes | None = None
    start_s: float = 0.0
    duration_s: float | None = None


class Fault(NamedTuple):
    """A row that cannot be used, and why."""

    where: str
    reason: str


Rows = Iterator[Row | Fault]
Tell = Callable[[str], object]


class _Columns(NamedTuple):
    """The names of columns; empty: the table has none such."""

    audio: str
    text: str
    speaker: str
    id: str
    split: str


def read_rows(path: Path, own: Own, tell: Tell) -> Rows:
    """Read a table by its suffix, a key of `KINDS`; ``tell`` gets what was taken for what.

    Raises:
        InputError: it cannot be read, or lacks a column.
    """
    return KINDS[suffix_of(path)](path, own, tell)


def suffix_of(path: Path) -> str:
    """The key of `KINDS` that the name ends with, or nothing."""
    return next((suffix for suffix in KINDS if path.name.lower().endswith(suffix)), "")


def _columns(path: Path, header: Sequence[str], own: Own, tell: Tell) -> _Columns:
    """Find the columns by the names that are told, or by usual names in any case.

    Raises:
        InputError: there is none of audio or text, or none of a name that is told.
    """
    lowered = {name.lower(): name for name in reversed(header)}
    found = []
    for option, told, usual in (
        ("audio", own.audio, FILES),
        ("text", own.text, TEXTS),
        ("speaker", own.speaker, SPEAKERS),
        ("", "", IDS),
        ("", "", SPLITS),
    ):
        name = told if told in header else next((lowered[n] for n in usual if n in lowered), "")
        if (told and told not in header) or (not name and option in ("audio", "text")):
            raise InputError(
                f"{path}: has no column {told or ' or '.join(usual[:3])!r} (--{option}); its "
                f"columns are {', '.join(header)[:300] or 'without names'}"
            )
        found.append(name)
    columns = _Columns(*found)
    named = [f"{c!r} {what}" for what, c in columns._asdict().items() if c]
    tell(f"columns: {', '.join(named)}")
    return columns


def _separated(path: Path, own: Own, tell: Tell) -> Rows:
    lines = decoded(path, read_bytes(path), as_is=True).split("\n")
    if suffix_of(path) == ".tsv":
        separator = "\t"
    else:
        separator = max(SEPARATORS, key=lines[0].count)
    rows = _split(lines, separator)
    _, header = next(rows)
    names = [nfc(cell.strip()) for cell in header] if isinstance(header, list) else []
    columns = _columns(path, names, own, tell)
    at = [names.index(name) if name else -1 for name in columns]
    for number, cells in rows:
        where = f"{path}:{number}"
        if isinstance(cells, str):
            yield Fault(where, f"is not CSV ({cells})")
        elif len(cells) != len(names):
            if any(cells):
                yield Fault(where, f"expected {len(names)} cells, found {len(cells)}")
        else:
            audio, text, speaker, id_, split = (cells[i].strip() if i >= 0 else "" for i in at)
            yield Row(where, audio, text, speaker, id_, split)


def _split(lines: Sequence[str], separator: str) -> Iterator[tuple[int, list[str] | str]]:
    """The cells of each row, or why it has none, after the number of its first line."""
    at = 0
    while at < len(lines):
        number = at + 1
        if separator == "\t":
            # Quotes are part of the text, but around a cell, as pandas writes them.
            yield number, [_bare(cell) for cell in lines[at].split("\t")]
            at += 1
            continue
        some = (lines[i] + "\n" for i in range(at, min(at + MOST_LINES, len(lines))))
        reader = csv.reader(some, delimiter=separator, strict=True)
        try:
            yield number, next(reader)
            at += reader.line_num
        except csv.Error as error:
            yield number, str(error)
            # What an open quote would swallow is read for itself.
            at += 1


def _bare(cell: str) -> str:
    inner = cell[1:-1]
    if len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in inner.replace('""', ""):
        return inner.replace('""', '"')
    return cell


def _parquet(path: Path, own: Own, tell: Tell) -> Rows:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise InputError(f"{path}: {INSTALL_PYARROW}") from error
    try:
        with parquet.ParquetFile(path) as table:
            columns = _columns(path, table.schema_arrow.names, own, tell)
            wanted = [name for name in columns if name]
            number = 0
            for batch in table.iter_batches(batch_size=64, columns=wanted):
                for record in batch.to_pylist():
                    number += 1
                    yield _parquet_row(f"{path}, row {number}", record, columns)
    except (ArrowException, OSError) as error:
        raise InputError(f"{path}: is no parquet that can be read ({error})"[:400]) from error


def _parquet_row(where: str, record: dict[str, Any], columns: _Columns) -> Row | Fault:
    if record[columns.text] is None:
        return Fault(where, f"column {columns.text!r} is empty")
    text, speaker, id_, split = (
        "" if not name or record[name] is None else str(record[name]) for name in columns[1:]
    )
    audio = record[columns.audio]
    if isinstance(audio, str | bytes):
        audio = {"path" if isinstance(audio, str) else "bytes": audio}
    found = audio if isinstance(audio, dict) else {}
    name, data = found.get("path") or "", found.get("bytes")
    if not isinstance(name, str) or not isinstance(data, bytes | None) or not (name or data):
        return Fault(where, f"column {columns.audio!r} holds neither a path nor bytes of audio")
    return Row(where, name, text, speaker, id_, split, data)


def _cuts(path: Path, own: Own, tell: Tell) -> Rows:
    tell("Lhotse's cuts, an utterance each supervision")
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield from _cut(f"{path}:{number}", line)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error


def _cut(where: str, line: bytes) -> Rows:
    try:
        cut = parsed(line)
        if "recording" not in cut:
            raise InputError(
                "is no cut of Lhotse with a recording; what asr and NeMo write is of kind jsonl"
            )
        audio = _source_of(cut)
        supervisions = cut.get("supervisions") or []
        if not supervisions:
            raise InputError("has no supervision, which would tell the text")
        for one in supervisions:
            yield Row(
                where,
                audio,
                str(one.get("text") or ""),
                str(one.get("speaker") or ""),
                str(one.get("id") or cut.get("id") or ""),
                start_s=float(cut["start"]) + float(one["start"]),
                duration_s=float(one["duration"]),
            )
    except InputError as error:
        yield Fault(where, str(error))
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        yield Fault(where, f"is no cut as Lhotse writes it ({error!r})"[:200])


def _source_of(cut: dict[str, Any]) -> str:
    """The file that a cut lies in, as it lies there."""
    kind, recording = cut.get("type"), cut["recording"]
    (source, *others) = recording["sources"]
    if kind not in ("MonoCut", "Cut", None) or others:
        raise InputError(f"is a {kind} of {1 + len(others)} sources, not a MonoCut of one file")
    if source["type"] != "file":
        raise InputError(
            f"audio from a {source['type']} is not fetched ({str(source['source'])[:60]!r}); write "
            "it to files"
        )
    if len(source.get("channels") or [0]) > 1:
        raise InputError("is one channel of several; write each to a file of its own")
    if recording.get("transforms"):
        raise InputError("its recording has transforms; write what they give to files")
    return str(source["source"])


KINDS: dict[str, Callable[[Path, Own, Tell], Rows]] = {
    ".csv": _separated,
    ".tsv": _separated,
    ".parquet": _parquet,
    ".jsonl": _cuts,
    ".jsonl.gz": _cuts,
}
