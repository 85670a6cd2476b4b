"""Transcripts to score: plain text, NIST trn, JSONL, Kaldi text and path-tab-text lines."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asr.errors import InputError
from asr.labels import SPACE
from asr.score.error_rate import phone_policy

#: How a format is chosen, as users read it; `_detect` does it.
FORMAT_RULE = (
    "By default .trn, .jsonl (or .json) and .tsv say so themselves and a file named 'text' is "
    "kaldi; else a tab in every line means tsv; else .txt is txt; else a first line that begins "
    "with { or [ means jsonl, a final (id) in every line trn, and anything else txt."
)

_BY_SUFFIX = {".trn": "trn", ".jsonl": "jsonl", ".json": "jsonl", ".tsv": "tsv"}
_TRN = re.compile(r"(?P<text>.*)\((?P<id>[^()\s]+)\)\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Line:
    """One utterance of a transcript file; phones, speaker and audio where the file gives them."""

    where: str
    text: str | None
    phones: tuple[str, ...] | None = None
    speaker: str | None = None
    audio: Path | None = None


@dataclass(frozen=True, slots=True)
class Transcripts:
    """A transcript file: its lines by utterance id; plain text has line numbers for ids."""

    path: Path
    format: str
    lines: dict[str, Line]


@dataclass(frozen=True, slots=True)
class Matched:
    """References and hypotheses brought together; ``missing`` hypotheses are scored as empty."""

    ids: tuple[str, ...]
    pairs: tuple[tuple[Line, Line | None], ...]
    missing: tuple[str, ...]
    unscored: tuple[str, ...]


def read_transcripts(
    path: Path, format: str | None = None, hypothesis: bool = False
) -> Transcripts:
    """Read a transcript file; ``format`` is one of `FORMATS`, by default chosen by `FORMAT_RULE`.

    ``hypothesis`` says which side this is: NeMo writes hypotheses as ``pred_text`` into the
    manifest whose ``text`` is the reference.

    Raises:
        InputError: unreadable file, malformed line or duplicate id, named as ``file:line``.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: is not UTF-8 text (byte {error.start}); convert it first"
        ) from error
    # Not splitlines(): it also splits at characters that may stand inside a transcript.
    rows = [row.removesuffix("\r") for row in text.split("\n")]
    if rows[-1] == "":
        rows.pop()
    format = format or _detect(path, rows)
    if format not in FORMATS:
        raise InputError(f"format {format!r} does not exist; choose one of {', '.join(FORMATS)}")
    lines: dict[str, Line] = {}
    for utterance, line in FORMATS[format](path, rows, hypothesis):
        if utterance in lines:
            raise InputError(
                f"{line.where}: utterance id {utterance!r} was given before, "
                f"at {lines[utterance].where}; every id must stand once"
            )
        lines[utterance] = line
    return Transcripts(path, format, lines)


def match(references: Transcripts, hypotheses: Transcripts) -> Matched:
    """Pair by utterance id, in the order of the references; plain text by line number.

    Hypotheses that name only their audio go to the reference with the same audio file, or, where
    that is unique, with the same file name or an id that is that name.

    Raises:
        InputError: no references; one side is plain text and the other is not; two plain texts
            of different length; not a single id in common.
    """
    ref, hyp = references, hypotheses
    if not ref.lines:
        raise InputError(f"{ref.path}: holds no transcripts; expected at least one reference")
    if (ref.format == "txt") != (hyp.format == "txt"):
        plain, named = (ref, hyp) if ref.format == "txt" else (hyp, ref)
        raise InputError(
            f"{plain.path}: plain text has no utterance ids to match those of {named.path} "
            f"({named.format}); if it has, say which format it is with --format"
        )
    if ref.format == "txt" and len(ref.lines) != len(hyp.lines):
        raise InputError(
            f"{ref.path} has {len(ref.lines)} lines and {hyp.path} has {len(hyp.lines)}; "
            "plain text is matched by line, so both need the same number"
        )
    hyp = _named_by_audio(ref, hyp)
    missing = tuple(i for i in ref.lines if i not in hyp.lines)
    unscored = tuple(i for i in hyp.lines if i not in ref.lines)
    if hyp.lines and len(missing) == len(ref.lines):
        raise InputError(
            f"{ref.path} and {hyp.path} have no utterance id in common "
            f"(first ones: {missing[0]!r} and {unscored[0]!r}); give both the same ids"
        )
    pairs = tuple((line, hyp.lines.get(i)) for i, line in ref.lines.items())
    return Matched(tuple(ref.lines), pairs, missing, unscored)


def _named_by_audio(ref: Transcripts, hyp: Transcripts) -> Transcripts:
    """``hyp`` with the references' ids in the place of audio paths, wherever one fits."""
    owners: dict[str, list[str]] = {}
    for i, line in ref.lines.items():
        names = {Path(i).stem}
        if line.audio is not None:
            # Manifests mean their own folder, command lines the current one.
            names |= {line.audio.stem, *_places(line.audio, ref.path)}
        for name in names:
            owners.setdefault(name, []).append(i)
    lines: dict[str, Line] = {}
    for i, line in hyp.lines.items():
        utterance = i
        if i not in ref.lines and line.audio is not None:
            for name in (*_places(line.audio, hyp.path), line.audio.stem):
                if len(owners.get(name, ())) == 1:
                    utterance = owners[name][0]
                    break
        if utterance in lines:
            raise InputError(f"{line.where}: a second hypothesis for {utterance!r}")
        lines[utterance] = line
    return Transcripts(hyp.path, hyp.format, lines)


def _places(audio: Path, named_in: Path) -> tuple[str, str]:
    """Where a path in a file may point: from the current folder or from the file's own."""
    return str(audio.absolute()), str((named_in.parent / audio).absolute())


def tokens(line: Line, unit: str, folding: str = "none", silence: str = "count") -> list[str]:
    """Split one utterance into words, characters (a space is `labels.SPACE`) or phones.

    Raises:
        InputError: the line has no text, or a phone is not in the folding's inventory.
    """
    if unit == "phone" and line.phones is not None:
        return phone_policy(line.phones, folding, silence, line.where)
    if line.text is None:
        raise InputError(
            f"{line.where}: has no {'phones and no ' * (unit == 'phone')}text to score"
        )
    words = line.text.split()
    if unit == "phone":
        return phone_policy(words, folding, silence, line.where)
    if unit == "char":
        return [SPACE if c == " " else c for c in " ".join(words)]
    return words


def token_pairs(
    matched: Matched, unit: str, folding: str = "none", silence: str = "count"
) -> list[tuple[list[str], list[str]]]:
    """(reference, hypothesis) tokens of every reference; a missing hypothesis is empty.

    Raises:
        InputError: as `tokens`.
    """
    return [
        (
            tokens(reference, unit, folding, silence),
            tokens(hypothesis, unit, folding, silence) if hypothesis else [],
        )
        for reference, hypothesis in matched.pairs
    ]


def _detect(path: Path, rows: Sequence[str]) -> str:
    suffix = path.suffix.lower()
    if suffix in _BY_SUFFIX:
        return _BY_SUFFIX[suffix]
    if path.name == "text":
        return "kaldi"
    filled = [row for row in rows if row.strip()]
    if filled and all("\t" in row for row in filled):
        return "tsv"
    if suffix != ".txt" and filled:
        if filled[0].lstrip()[0] in "{[":
            return "jsonl"
        if all(_TRN.fullmatch(row) for row in filled):
            return "trn"
    return "txt"


def _read_txt(path: Path, rows: Sequence[str], _: bool) -> Iterator[tuple[str, Line]]:
    for number, row in enumerate(rows, 1):
        yield str(number), Line(f"{path}:{number}", row)


def _read_trn(path: Path, rows: Sequence[str], _: bool) -> Iterator[tuple[str, Line]]:
    for number, row in enumerate(rows, 1):
        # NIST tools take lines that begin with ;; as comments.
        if not row.strip() or row.startswith(";;"):
            continue
        found = _TRN.fullmatch(row)
        if not found:
            raise InputError(
                f"{path}:{number}: expected 'words (utterance_id)', found {_short(row)}"
            )
        yield found["id"], Line(f"{path}:{number}", found["text"])


def _read_kaldi(path: Path, rows: Sequence[str], _: bool) -> Iterator[tuple[str, Line]]:
    for number, row in enumerate(rows, 1):
        if row.strip():
            utterance, *text = row.split(maxsplit=1)
            yield utterance, Line(f"{path}:{number}", text[0] if text else "")


def _read_tsv(path: Path, rows: Sequence[str], _: bool) -> Iterator[tuple[str, Line]]:
    for number, row in enumerate(rows, 1):
        if not row.strip():
            continue
        name, tab, text = row.partition("\t")
        if not tab or not name.strip():
            raise InputError(f"{path}:{number}: expected 'path TAB text', found {_short(row)}")
        audio = Path(name.strip())
        yield str(audio), Line(f"{path}:{number}", text, audio=audio)


def _read_jsonl(path: Path, rows: Sequence[str], hypothesis: bool) -> Iterator[tuple[str, Line]]:
    for where, entry in _json_entries(path, rows):
        if not isinstance(entry, dict):
            raise InputError(
                f"{where}: expected a JSON object with id and text, found {_short(entry)}"
            )
        utterance = entry.get("id")
        audio = None
        if isinstance(entry.get("audio_filepath"), str):
            audio = Path(entry["audio_filepath"])
            utterance = str(audio) if utterance is None else utterance
        if not isinstance(utterance, str) or not utterance:
            raise InputError(
                f"{where}: expected 'id' (or 'audio_filepath'), a string; found neither"
            )
        text = entry.get("text")
        if hypothesis:
            text = entry.get("pred_text", text)
        if text is not None and not isinstance(text, str):
            raise InputError(f"{where}: expected 'text' to be a string, found {_short(text)}")
        speaker = entry.get("speaker")
        if speaker is not None and not isinstance(speaker, str):
            raise InputError(f"{where}: expected 'speaker' to be a string, found {_short(speaker)}")
        yield (
            utterance,
            Line(
                where,
                text,
                _phones(entry.get("phones", entry.get("labels")), where),
                speaker,
                audio,
            ),
        )


def _json_entries(path: Path, rows: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """One JSON value a line, or one document: a list of them or a single one."""
    try:
        document = json.loads("\n".join(rows))
    except (ValueError, RecursionError):
        for number, row in enumerate(rows, 1):
            if row.strip():
                yield f"{path}:{number}", _parse(row, f"{path}:{number}")
        return
    if isinstance(document, list):
        yield from ((f"{path}: entry {n}", entry) for n, entry in enumerate(document, 1))
    else:
        yield f"{path}:1", document


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: is not JSON ({error})") from error


def _phones(value: Any, where: str) -> tuple[str, ...] | None:
    if value is None:
        return None
    labels = []
    for phone in value if isinstance(value, list) else [value]:
        if isinstance(phone, list) and phone:
            phone = phone[0]
        elif isinstance(phone, dict):
            phone = phone.get("label")
        if not isinstance(phone, str):
            raise InputError(
                f"{where}: expected 'phones' to be a list of labels, [label, start, end] or "
                f"objects with a label, found {_short(value)}"
            )
        labels.append(phone)
    return tuple(labels)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


Reader = Callable[[Path, Sequence[str], bool], Iterator[tuple[str, Line]]]
FORMATS: dict[str, Reader] = {
    "txt": _read_txt,
    "trn": _read_trn,
    "jsonl": _read_jsonl,
    "kaldi": _read_kaldi,
    "tsv": _read_tsv,
}
