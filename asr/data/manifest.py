"""Manifests: one utterance a line as JSON, with NeMo's field names.

Canonical fields: ``id``, ``audio_filepath``, ``offset``, ``duration`` (seconds), ``speaker``,
``text``, ``words``, ``phones``. The last two are lists whose items are a label or, where times are
known, ``[label, start_s, end_s]`` relative to the utterance. Only ``audio_filepath`` is required,
so that NeMo's own manifests are read as they are; further fields are ignored.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Container, Iterable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from asr.audio.read import audio_duration_s
from asr.errors import InputError
from asr.labels import is_unicode
from asr.system.files import write_text
from asr.system.text import nfc, plain_text, read_text
from asr.types import Segment, Utterance


def read_manifest(
    path: Path, failed: Callable[[str, InputError], None] | None = None
) -> list[Utterance]:
    """Read a JSONL manifest.

    Relative audio paths are taken from the manifest's folder. A missing id becomes the stem of the
    audio file (with the offset in milliseconds where there is one, numbered where still not
    unique), a missing speaker the id, and a missing duration is read from the audio.

    ``failed`` gets a line (as ``path:line``) that cannot be used, and why, and the rest goes on;
    without it, the first such line ends the reading.

    Raises:
        InputError: ``path:line: ...`` for a line that is not JSON, lacks ``audio_filepath``, has a
            field of the wrong type, a time that cannot be or an id that was there before; also
            where there is no such file or it holds no utterance that can be used.
    """
    path = Path(path)
    # As it is, for it names files; and JSON may escape what is to be composed.
    lines = read_text(path, as_is=True).split("\n")
    folder = path.parent.absolute()
    utterances: list[Utterance] = []
    first_line: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            utterance = utterance_of(parsed(line), folder)
            if utterance.id in first_line:
                raise InputError(
                    f"id {utterance.id!r} was already used on line {first_line[utterance.id]}"
                )
        except InputError as error:
            where = f"{path}:{number}"
            if failed is None:
                raise InputError(f"{where}: {error}") from error
            failed(where, error)
            continue
        if utterance.id:
            first_line[utterance.id] = number
        utterances.append(utterance)
    if not utterances:
        raise InputError(f"{path}: no line with an utterance; expected one JSON object a line")
    return with_names(utterances, set(first_line))


def is_manifest(path: Path) -> bool:
    """Whether a file is called as manifests are; NeMo's end in .json."""
    return path.suffix.lower() in (".jsonl", ".json")


def write_manifest(path: Path, utterances: Iterable[Utterance]) -> None:
    """Write a manifest that `read_manifest` gives back equal; whole or not at all.

    Raises:
        InputError: the file cannot be written.
    """
    lines = [json.dumps(record_of(u), ensure_ascii=False) + "\n" for u in utterances]
    try:
        write_text(path, "".join(lines))
    except UnicodeEncodeError as error:
        raise InputError(
            f"{path}: an audio path is not UTF-8 ({error.object[error.start - 40 : error.end]!r}); "
            "rename that file"
        ) from error


def plain(utterance: Utterance, known: Container[str] = ()) -> Utterance:
    """The utterance as it is trained on: its text and its words as `plain_text` makes them.

    known: words that a lexicon writes so. A timed word that comes apart shares its time evenly.
    """
    if utterance.text is not None:
        utterance = replace(utterance, text=plain_text(utterance.text, known))
    if utterance.words is not None:
        words = [piece for word in utterance.words for piece in _plain_words(word, known)]
        utterance = replace(utterance, words=tuple(words))
    return utterance


def _plain_words(word: Segment, known: Container[str]) -> list[Segment]:
    labels = plain_text(word.label, known).split()
    if word.start_s is None or word.end_s is None or labels == [word.label]:
        return [replace(word, label=label) for label in labels]
    edges = np.linspace(word.start_s, word.end_s, len(labels) + 1).tolist()
    return [
        replace(word, label=label, start_s=start, end_s=end)
        for label, (start, end) in zip(labels, pairwise(edges), strict=True)
    ]


def record_of(utterance: Utterance) -> dict[str, Any]:
    """The utterance as a line of a manifest has it."""
    record: dict[str, Any] = {
        "id": utterance.id,
        "audio_filepath": str(utterance.audio.absolute()),
        "offset": utterance.offset_s,
        "duration": utterance.duration_s,
        "speaker": utterance.speaker,
    }
    if utterance.text is not None:
        record["text"] = utterance.text
    for name, segments in (("words", utterance.words), ("phones", utterance.phones)):
        if segments is not None:
            record[name] = [_item(segment) for segment in segments]
    return record


def _item(segment: Segment) -> str | list[Any]:
    if segment.start_s is None or segment.end_s is None:
        return segment.label
    return [segment.label, segment.start_s, segment.end_s]


def parsed(line: str | bytes) -> dict[str, Any]:
    """The JSON object that a line holds.

    Raises:
        InputError: it holds none.
    """
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON ({error}); expected one object a line") from error
    if not isinstance(record, dict):
        raise InputError(f"expected a JSON object, found {type(record).__name__}")
    return record


def utterance_of(record: dict[str, Any], folder: Path) -> Utterance:
    """Check a line's object; an id or a speaker that is not given stays empty.

    Raises:
        InputError: a field is missing, of the wrong type, or no time that can be.
    """
    audio = _named_so(record, "audio_filepath")
    if not audio:
        raise InputError("field 'audio_filepath' is missing")
    name = nfc(_named_so(record, "id"))
    if name.split() not in ([], [name]):
        raise InputError(f"field 'id' must not hold white space, found {name!r}")
    offset_s = _seconds(record, "offset") or 0.0
    duration_s = _seconds(record, "duration")
    if duration_s is None:
        duration_s = audio_duration_s(folder / audio) - offset_s
    if duration_s <= 0:
        raise InputError(f"field 'duration' must be positive, found {duration_s:g}")
    return Utterance(
        id=name,
        audio=folder / audio,
        speaker=nfc(_named_so(record, "speaker")),
        duration_s=duration_s,
        offset_s=offset_s,
        text=_spoken(record),
        words=_segments(record, "words"),
        phones=_segments(record, "phones"),
    )


def _text(record: dict[str, Any], name: str) -> str | None:
    value = record.get(name)
    if value is not None and not isinstance(value, str):
        raise InputError(f"field {name!r} must be a string, found {value!r}")
    return value


def _named_so(record: dict[str, Any], name: str) -> str:
    """What a file could be called, or part of it; empty where it is not given."""
    value = _text(record, name) or ""
    if not may_name_file(value):
        raise InputError(f"field {name!r} has NUL or half a character: {value[:60]!r}")
    return value


def may_name_file(text: str) -> bool:
    """Whether a file's name may hold ``text``: NUL ends one; any byte has its surrogate in Python,
    but half a character, as JSON's escapes can make, is no byte.
    """
    try:
        return b"\0" not in text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False


def _spoken(record: dict[str, Any]) -> str | None:
    text = _text(record, "text")
    if text and not is_unicode(text):
        raise InputError(f"field 'text' has half a character (a lone surrogate): {text[:60]!r}")
    return nfc(text) if text else text


def _seconds(record: dict[str, Any], name: str) -> float | None:
    value = record.get(name)
    return None if value is None else _time(value, f"field {name!r}")


def _time(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{where} must be a number of seconds, found {value!r}")
    try:
        seconds = float(value)
    except OverflowError:
        seconds = math.inf
    if not 0 <= seconds < math.inf:
        raise InputError(f"{where} must be a time of at least 0 s, found {value!r}"[:200])
    return seconds


def _segments(record: dict[str, Any], name: str) -> tuple[Segment, ...] | None:
    items = record.get(name)
    if items is None:
        return None
    if not isinstance(items, list):
        raise InputError(f"field {name!r} must be a list, found {items!r}")
    return tuple(_segment(item, f"field {name!r}, item {i}") for i, item in enumerate(items, 1))


def _segment(item: object, where: str) -> Segment:
    label = item[0] if isinstance(item, list) and item else item
    if isinstance(label, str) and not is_unicode(label):
        raise InputError(f"{where} has half a character (a lone surrogate): {label[:60]!r}")
    if isinstance(item, str) and item:
        return Segment(nfc(item))
    if not isinstance(item, list) or len(item) != 3 or not isinstance(item[0], str) or not item[0]:
        raise InputError(f"{where} must be a label or [label, start, end], found {item!r}")
    start_s, end_s = _time(item[1], where), _time(item[2], where)
    if end_s < start_s:
        raise InputError(f"{where} ends before it starts: {item!r}")
    return Segment(nfc(item[0]), start_s, end_s)


def default_id(utterance: Utterance) -> str:
    """The id of an utterance that came without: its file's stem, and its offset if it has one."""
    stem = "_".join(nfc(utterance.audio.stem).split()) or "utterance"
    return stem + (f"-{round(utterance.offset_s * 1000):07d}" if utterance.offset_s else "")


def with_names(utterances: Iterable[Utterance], taken: set[str]) -> list[Utterance]:
    """Give ids to utterances that came without, other than those ``taken``; speakers likewise."""
    copies: Counter[str] = Counter()
    named = []
    for utterance in utterances:
        name = utterance.id
        if not name:
            name = stem = default_id(utterance)
            while name in taken:
                copies[stem] += 1
                name = f"{stem}-{copies[stem] + 1}"
            taken.add(name)
        named.append(replace(utterance, id=name, speaker=utterance.speaker or name))
    return named
