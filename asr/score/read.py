"""Transcripts to score: plain text, trn, stm and ctm, JSONL, Kaldi text, TIMIT's sidecar files."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from asr.errors import InputError
from asr.labels import SPACE, is_unicode
from asr.score.error_rate import phone_policy
from asr.score.lines import Line, Matched, Transcripts, filled, short
from asr.score.table import read_table, separator_in, separator_of
from asr.score.timed import read_ctm, read_stm, segmented
from asr.system.files import walked
from asr.system.text import decoded, nfc, read_bytes

#: How a format is chosen, as users read it; `_detect` does it.
FORMAT_RULE = (
    "By default .trn, .stm, .ctm, .jsonl (or .json), .csv and .tsv say so themselves, a file named "
    "'text' is kaldi and a folder timit; else a header with the names of such columns means csv, "
    "a tab in every line tsv; else .txt is txt; else a first line that begins with { or [ means "
    "jsonl, a final (id) in every line trn, times in every line stm or ctm, and anything else txt. "
    "txt whose lines all have ids that the other file has, too, is kaldi or trn."
)

_BY_SUFFIX = {f".{name}": name for name in ("trn", "stm", "ctm", "jsonl", "csv", "tsv")}
_BY_SUFFIX[".json"] = "jsonl"
_TRN = r"(.*)\(([^()\s]+)\)[^\S\n]*"
# NIST tools take lines that begin with ;; as comments.
_TRN_LINES = re.compile(rf"^(?:;;.*|{_TRN}|[^\S\n]*|(.+))$", re.MULTILINE)
# A final id.
_TRN_IDS = re.compile(r"\(([^()\s]+)\)[ \t]*$", re.MULTILINE)
# What may be an id where nobody said so: words of texts seldom have digits or underscores.
_ID = re.compile(r"\S*[\d_]\S*").fullmatch
_ID_IN_BRACKETS = re.compile(r"\([^()\s]+\)").fullmatch
_TIME = r"(?:\d+\.?\d*|\.\d+)"
_STM = re.compile(rf"\s*(?:\S+\s+){{3}}{_TIME}\s+{_TIME}(?:\s.*)?")
_CTM = re.compile(rf"\s*\S+\s+\S+\s+(?:{_TIME}|\*)\s+(?:{_TIME}|\*)\s+\S+(?:\s.*)?")
# TIMIT's sentences come after their first and last sample.
_TIMED_SENTENCE = re.compile(r"\s*\d+\s+\d+(?=\s|$)", re.ASCII)
_SIDECARS = (".phn", ".wrd", ".txt")


class PlainTrn(Mapping[str, Line]):
    """The lines of a trn file of plain words, made when they are looked at.

    rows: the lines as they stand, each with its id, the only word in brackets, at its end.
    """

    def __init__(self, path: Path, rows: Sequence[str], ids: Sequence[str]) -> None:
        self.rows = rows
        self.ids = ids
        self._path = path

    @cached_property
    def made(self) -> dict[str, Line]:
        return dict(_read_trn(self._path, self.rows, False))

    def __getitem__(self, utterance: str) -> Line:
        return self.made[utterance]

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __len__(self) -> int:
        return len(self.ids)


class PlainPairs(Sequence[tuple[Line, Line]]):
    """The pairs of two `PlainTrn` that have the same ids, made when they are looked at."""

    def __init__(self, said: PlainTrn, heard: PlainTrn) -> None:
        self.rows = said.rows, heard.rows
        self._sides = said, heard

    @cached_property
    def _made(self) -> list[tuple[Line, Line]]:
        said, heard = self._sides
        return list(zip(said.made.values(), heard.made.values(), strict=True))

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return self._made[index]

    def __len__(self) -> int:
        return len(self.rows[0])


def read_transcripts(
    path: Path, format: str | None = None, hypothesis: bool = False
) -> Transcripts:
    """Read a file or folder; ``format`` is one of `FORMATS`, by default chosen by `FORMAT_RULE`.

    ``hypothesis`` says which side this is: NeMo writes hypotheses as ``pred_text`` into the
    manifest whose ``text`` is the reference.

    Raises:
        InputError: unreadable file, malformed line or duplicate id, named as ``file:line``.
    """
    if path.is_dir():
        if format not in (None, "timit"):
            raise InputError(f"{path}: is a folder; expected a file of format {format}")
        return _gathered(path, "timit", _read_folder(path))
    return parse_transcripts(path, read_bytes(path), format, hypothesis)


def parse_transcripts(
    path: Path, data: bytes, format: str | None = None, hypothesis: bool = False
) -> Transcripts:
    """`read_transcripts` of a file whose content is at hand; ``path`` names it in messages."""
    rows = _rows(path, data)
    format = format or _detect(path, rows)
    if format not in FORMATS:
        raise InputError(f"format {format!r} does not exist; choose one of {', '.join(FORMATS)}")
    if format == "trn" and (plain := _plain_trn(path, rows)):
        return Transcripts(path, format, plain)
    return _gathered(path, format, FORMATS[format](path, rows, hypothesis))


def match(references: Transcripts, hypotheses: Transcripts) -> Matched:
    """Pair by utterance id, in the order of the references; plain text by line number.

    Hypotheses whose id is no reference's go to the reference with the same audio file, or, where
    that is unique, with the same file name, ``speaker_name``, or an id that is such a name. The
    words of a ctm go to the segments of an stm by their times.

    Raises:
        InputError: no references; one side is plain text, or stm, and the other does not fit;
            two plain texts of different length; not a single id in common.
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
    if ref.format == "stm":
        return segmented(ref, hyp)
    if isinstance(ref.lines, PlainTrn) and isinstance(hyp.lines, PlainTrn):
        if ref.lines.ids == hyp.lines.ids:
            return Matched(tuple(ref.lines), PlainPairs(ref.lines, hyp.lines), (), ())
        ref, hyp = replace(ref, lines=ref.lines.made), replace(hyp, lines=hyp.lines.made)
    hyp = _renamed(ref, hyp)
    missing = tuple(i for i in ref.lines if i not in hyp.lines)
    unscored = tuple(i for i in hyp.lines if i not in ref.lines)
    if hyp.lines and len(missing) == len(ref.lines):
        raise InputError(
            f"{ref.path} ({ref.format}) and {hyp.path} ({hyp.format}) have no utterance id in "
            f"common (first ones: {short(missing[0])} and {short(unscored[0])}); give both the "
            "same ids, or say with --format what they are"
        )
    pairs = tuple(zip(ref.lines.values(), map(hyp.lines.get, ref.lines), strict=True))
    return Matched(tuple(ref.lines), pairs, missing, unscored)


def _rows(path: Path, data: bytes) -> list[str]:
    # Not splitlines(): it also splits at characters that may stand inside a transcript.
    rows = decoded(path, data).split("\n")
    if rows[-1] == "":
        rows.pop()
    return rows


def _gathered(path: Path, format: str, found: Iterable[tuple[str, Line]]) -> Transcripts:
    lines: dict[str, Line] = {}
    for utterance, line in found:
        if utterance in lines:
            raise InputError(
                f"{line.where}: utterance id {short(utterance)} was given before, "
                f"at {lines[utterance].where}; every id must stand once"
            )
        lines[utterance] = line
    return Transcripts(path, format, lines)


def _renamed(ref: Transcripts, hyp: Transcripts) -> Transcripts:
    """``hyp`` with the references' ids in the place of its own, wherever just one fits."""
    if hyp.lines.keys() <= ref.lines.keys():
        return hyp
    owners: dict[str, set[str]] = defaultdict(set)
    for i, line in ref.lines.items():
        for name in _names(i, line, ref.path):
            owners[name].add(i)
    lines: dict[str, Line] = {}
    for i, line in hyp.lines.items():
        utterance = i
        if i not in ref.lines:
            fitting = (owners.get(name, set()) for name in _names(i, line, hyp.path))
            utterance = next((next(iter(one)) for one in fitting if len(one) == 1), i)
        if utterance in lines:
            raise InputError(f"{line.where}: a second hypothesis for {short(utterance)}")
        lines[utterance] = line
    return replace(hyp, lines=lines)


def _names(utterance: str, line: Line, named_in: Path) -> list[str]:
    """What else an utterance may be called, the surest first; in lower case but for whole paths."""
    names = [utterance.lower()]
    paths = [Path(utterance)]
    if line.audio is not None:
        # Manifests mean their own folder, command lines the current one.
        places = line.audio.absolute(), (named_in.parent / line.audio).absolute()
        names = [*map(str, places), *names]
        paths = [line.audio, *paths]
    for path in paths:
        stem = path.stem.lower()
        names += [f"{path.parent.name.lower()}_{stem}", stem]
    return names


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


def texts(matched: Matched) -> tuple[list[str], list[str]]:
    """The texts of every reference and its hypothesis; a missing hypothesis is empty.

    Raises:
        InputError: a line has no text.
    """
    said = [line.text for line, _ in matched.pairs]
    heard = [line.text if line else "" for _, line in matched.pairs]
    if None in said or None in heard:
        where = next(
            line.where for pair in matched.pairs for line in pair if line and line.text is None
        )
        raise InputError(f"{where}: has no text to score")
    return cast("list[str]", said), cast("list[str]", heard)


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
    if separator_of(rows):
        return "csv"
    filled = [row for row in rows if row.strip()]
    if filled and all("\t" in row for row in filled):
        return "tsv"
    if suffix != ".txt" and filled:
        if filled[0].lstrip()[0] in "{[":
            return "jsonl"
        spoken = [row for row in filled if not row.startswith(";;")]
        for format, fits in (
            ("trn", re.compile(_TRN).fullmatch),
            ("stm", _STM.fullmatch),
            ("ctm", _CTM.fullmatch),
        ):
            if spoken and all(map(fits, spoken)):
                return format
    return "txt"


def identified(ref: Transcripts, hyp: Transcripts) -> tuple[Transcripts, Transcripts]:
    """Both, with plain text read as kaldi or trn where its lines have ids that the other has, too.

    Raises:
        InputError: both sides' lines seem to have ids, of which only some are the same.
    """
    if "txt" not in (ref.format, hyp.format):
        return ref, hyp
    for format, position, is_id in (("kaldi", 0, _ID), ("trn", -1, _ID_IN_BRACKETS)):
        sides = [_ids(side, position) for side in (ref, hyp)]
        if not all(sides):
            continue
        few, many = sorted(map(set, sides), key=len)
        both = ref.format == hyp.format
        reordered = both and few == many and sides[0] != sides[1]
        if both and not reordered and not all(map(is_id, few | many)):
            continue
        if format == "kaldi" and all(separator_in(i) for i in few | many):
            raise InputError(
                f"{ref.path}, {hyp.path}: seem to be CSV without a header; begin each with one, "
                "such as id,text, or say --format kaldi or txt if they are no tables"
            )
        if reordered and not all(map(is_id, few | many)):
            raise InputError(
                f"{ref.path}, {hyp.path}: the same first words in another order: say --format "
                f"{format} if they are ids, or --format txt if they are words"
            )
        if few <= many and len(few) > 1:
            return _split(ref, format, position), _split(hyp, format, position)
        if few & many:
            raise InputError(
                f"{ref.path}, {hyp.path}: ids seem to stand in each line, and not the same ones; "
                f"say --format {format}, or --format txt if they are words"
            )
    return ref, hyp


def _ids(transcripts: Transcripts, position: int) -> list[str]:
    """The words at ``position`` in lines of plain text, if each stands once; of others, the ids."""
    if transcripts.format != "txt":
        # As they would stand in the lines of the other side.
        return [f"({i})" if position else i for i in transcripts.lines]
    cut = str.rsplit if position else str.split
    words = [cut(line.text, maxsplit=1) for line in transcripts.lines.values() if line.text]
    ids = [of[position] for of in words if of]
    return ids if len(set(ids)) == len(ids) else []


def _split(transcripts: Transcripts, format: str, position: int) -> Transcripts:
    """Lines of plain text as those of a format that has ids."""
    if transcripts.format != "txt":
        return transcripts
    lines = {}
    for line in transcripts.lines.values():
        if line.text and (words := line.text.split()):
            utterance = words.pop(position).strip("()" if position else "")
            lines[utterance] = line._replace(text=" ".join(words))
    return Transcripts(transcripts.path, format, lines)


def _read_txt(path: Path, rows: Sequence[str], _: bool) -> Iterator[tuple[str, Line]]:
    for number, row in enumerate(rows, 1):
        yield str(number), Line(f"{path}:{number}", row)


def _read_trn(path: Path, rows: Sequence[str], _: bool) -> Iterator[tuple[str, Line]]:
    prefix = f"{path}:"
    # All lines in one go: twice as fast as one by one.
    for number, (text, utterance, other) in enumerate(_TRN_LINES.findall("\n".join(rows)), 1):
        if utterance:
            yield utterance, Line(f"{prefix}{number}", text)
        elif other:
            raise InputError(
                f"{prefix}{number}: expected 'words (utterance_id)', found {short(other)}"
            )


def _plain_trn(path: Path, rows: Sequence[str]) -> PlainTrn | None:
    """The lines as `PlainTrn`, if all are such and no id stands twice."""
    text = "\n".join(rows)
    if any(mark in text for mark in "{}@;*\\") or any(text.count(b) != len(rows) for b in "()"):
        return None
    ids = _TRN_IDS.findall(text)
    return PlainTrn(path, rows, ids) if len(set(ids)) == len(rows) else None


def _read_kaldi(path: Path, rows: Sequence[str], _: bool) -> Iterator[tuple[str, Line]]:
    for where, row in filled(path, rows):
        utterance, *text = row.split(maxsplit=1)
        yield utterance, Line(where, text[0] if text else "")


def _read_tsv(path: Path, rows: Sequence[str], hypothesis: bool) -> Iterator[tuple[str, Line]]:
    if separator_of(rows) == "\t":
        yield from read_table(path, rows, hypothesis)
        return
    for where, row in filled(path, rows):
        name, tab, text = row.partition("\t")
        if not tab or not name.strip():
            raise InputError(f"{where}: expected 'path TAB text', found {short(row)}")
        audio = Path(name.strip())
        yield str(audio), Line(where, text, audio=audio)


def _read_jsonl(path: Path, rows: Sequence[str], hypothesis: bool) -> Iterator[tuple[str, Line]]:
    for where, entry in _json_entries(path, rows):
        if not isinstance(entry, dict):
            raise InputError(
                f"{where}: expected a JSON object with id and text, found {short(entry)}"
            )
        utterance = entry.get("id")
        audio = None
        if isinstance(entry.get("audio_filepath"), str):
            audio = Path(nfc(entry["audio_filepath"]))
            utterance = str(audio) if utterance is None else utterance
        if not isinstance(utterance, str) or not utterance:
            raise InputError(
                f"{where}: expected 'id' (or 'audio_filepath'), a string; found neither"
            )
        text, speaker = entry.get("text"), entry.get("speaker")
        if hypothesis:
            text = entry.get("pred_text", text)
        for name, value in (("text", text), ("speaker", speaker)):
            if value is not None and not isinstance(value, str):
                raise InputError(f"{where}: expected '{name}' to be a string, found {short(value)}")
        for name, value in (("'text'", text), ("the id", utterance)):
            if value and not is_unicode(value):
                raise InputError(f"{where}: {name} has half a character (a lone surrogate)")
        phones = _phones(entry.get("phones", entry.get("labels")), where)
        yield nfc(utterance), Line(where, nfc(text) if text else text, phones, speaker, audio)


def _json_entries(path: Path, rows: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """One JSON value a line, or one document: a list of them or a single one."""
    try:
        document = json.loads("\n".join(rows))
    except (ValueError, RecursionError):
        for where, row in filled(path, rows):
            try:
                yield where, json.loads(row)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{where}: is not JSON ({error})") from error
        return
    if isinstance(document, list):
        yield from ((f"{path}: entry {n}", entry) for n, entry in enumerate(document, 1))
    else:
        yield f"{path}:1", document


def _phones(value: Any, where: str) -> tuple[str, ...] | None:
    if value is None:
        return None
    labels = []
    for phone in value if isinstance(value, list) else [value]:
        if isinstance(phone, list) and phone:
            phone = phone[0]
        elif isinstance(phone, dict):
            phone = phone.get("label")
        if not isinstance(phone, str) or not is_unicode(phone):
            raise InputError(
                f"{where}: expected 'phones' to be a list of labels, [label, start, end] or "
                f"objects with a label, found {short(value)}"
            )
        labels.append(nfc(phone))
    return tuple(labels)


def _read_folder(root: Path) -> Iterator[tuple[str, Line]]:
    """Sidecars .PHN, .WRD and .TXT in either case; an id is the path below ``root``."""
    files: dict[str, dict[str, Path]] = defaultdict(dict)
    for folder, names in walked(root):
        for name in names:
            place = Path(folder, name)
            suffix = place.suffix.lower()
            if suffix not in _SIDECARS:
                continue
            of = files[nfc(place.with_suffix("").relative_to(root).as_posix())]
            if suffix in of:
                raise InputError(f"{place}: a second copy of {of[suffix]}")
            of[suffix] = place
    if not files:
        raise InputError(f"{root}: no .PHN, .WRD or .TXT file (in either case) in this folder")
    for utterance in sorted(files):
        of = files[utterance]
        phones = tuple(_sidecar_labels(of[".phn"])) if ".phn" in of else None
        text = None
        if ".wrd" in of:
            text = " ".join(_sidecar_labels(of[".wrd"]))
        elif ".txt" in of:
            text = " ".join(_rows(of[".txt"], read_bytes(of[".txt"])))
            if timed := _TIMED_SENTENCE.match(text):
                text = text[timed.end() :]
        place = next(iter(of.values()))
        # TIMIT's folders are its speakers.
        speaker = place.parent.name if place.parent != root else None
        yield utterance, Line(str(place), text, phones, speaker, place.with_suffix(""))


def _sidecar_labels(path: Path) -> Iterator[str]:
    for where, row in filled(path, _rows(path, read_bytes(path))):
        fields = row.split(maxsplit=2)
        if len(fields) < 3 or not (fields[0].isdecimal() and fields[1].isdecimal()):
            raise InputError(f"{where}: expected 'start end label', found {short(row)}")
        yield fields[2].rstrip()


Reader = Callable[[Path, Sequence[str], bool], Iterator[tuple[str, Line]]]
FORMATS: dict[str, Reader] = {
    "txt": _read_txt,
    "trn": _read_trn,
    "stm": read_stm,
    "ctm": read_ctm,
    "jsonl": _read_jsonl,
    "kaldi": _read_kaldi,
    "csv": read_table,
    "tsv": _read_tsv,
}
