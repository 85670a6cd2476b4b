"""Annotations of recordings: Praat's TextGrid, ELAN's eaf, NIST's ctm, SRT and WebVTT, as tiers."""

from __future__ import annotations

import html
import io
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from asr.errors import InputError
from asr.system.text import UTF_16, decoded, nfc, read_bytes, read_text

#: A word, its recording and channel, start and duration in a ctm.
_CTM = re.compile(r"(\S+)\s+(\S+)\s+(\d*\.?\d+)\s+(\d*\.?\d+)\s+(\S+)(?:\s.*)?", re.ASCII)
#: Tiers of one kind for each speaker: MFA's "anna - words", ELAN's "words@anna".
_OF_SPEAKER = re.compile(r"(?P<mfa>.+?) - (?P<name>.+)|(?P<base>[^@]+)@(?P<elan>[^@]+)")


class Interval(NamedTuple):
    """A stretch of a recording and its label, which is empty where nothing is said.

    Times in seconds; None: the file has none. number: which of its tier's it is, from 1 on.
    """

    start_s: float | None
    end_s: float | None
    label: str
    number: int


class Tier(NamedTuple):
    """Intervals in the order of the file. name: without the speaker's; type: ELAN's linguistic."""

    name: str
    intervals: tuple[Interval, ...]
    speaker: str = ""
    type: str = ""


def read_annotations(path: Path) -> list[Tier]:
    """Read a file by its suffix, a key of `READERS`.

    Raises:
        InputError: it cannot be read, or holds no tier of intervals.
    """
    try:
        tiers = READERS[path.suffix.lower()](path)
    except (InputError, OSError):
        raise
    except Exception as error:
        # The libraries raise whatever they stumble over.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{path}: cannot be read as {path.suffix} ({reason[:200]}); write it anew"
        ) from error
    if not tiers:
        raise InputError(f"{path}: holds no tier of intervals")
    return tiers


def _read_textgrid(path: Path) -> list[Tier]:
    from praatio.utilities.textgrid_io import parseTextgridStr

    data = read_bytes(path)
    if data.startswith(b"ooBinaryFile"):
        raise InputError(f"{path}: is a binary TextGrid; save it as text")
    found = parseTextgridStr(_text(path, data), includeEmptyIntervals=True)
    tiers = []
    for tier in found["tiers"]:
        if tier["class"] != "IntervalTier":
            continue
        intervals = tuple(
            Interval(float(start), float(end), nfc(label), number)
            for number, (start, end, label) in enumerate(tier["entries"], 1)
        )
        tiers.append(Tier(*_named(nfc(tier["name"]), intervals)))
    return tiers


def _text(path: Path, data: bytes) -> str:
    """A TextGrid's text: Praat writes UTF-8, UTF-16, or Latin-1 where that has all letters."""
    try:
        return decoded(path, data, as_is=True)
    except InputError:
        if data.startswith(UTF_16):
            raise
        return data.decode("latin-1").replace("\r\n", "\n").replace("\r", "\n")


def _read_eaf(path: Path) -> list[Tier]:
    from pympi.Elan import Eaf

    read_bytes(path)  # to tell what the system refuses
    document = Eaf(str(path), suppress_version_warning=True)
    tiers = []
    for name, (_, _, attributes, _) in document.tiers.items():
        spans = [
            (start, end, nfc(label))
            for start, end, label, *_ in document.get_annotation_data_for_tier(name)
        ]
        intervals = tuple(
            Interval(_in_seconds(start), _in_seconds(end), label, number)
            for number, (start, end, label) in enumerate(_joined(spans), 1)
        )
        base, intervals, speaker = _named(nfc(name), intervals)
        speaker = nfc(attributes.get("PARTICIPANT") or "") or speaker
        tiers.append(Tier(base, intervals, speaker, nfc(attributes["LINGUISTIC_TYPE_REF"])))
    return [tier for tier in tiers if tier.intervals]


def _in_seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def _joined(
    spans: list[tuple[int | None, int | None, str]],
) -> list[tuple[int | None, int | None, str]]:
    """Annotations in order; those that share a time, or lack one between them, as one.

    So stand words that subdivide a sentence: they have its time, or inner borders without any.
    """
    placed, at = [], 0
    for span in spans:
        at = at if span[0] is None else span[0]
        placed.append((at, span))
    joined: list[tuple[int | None, int | None, str]] = []
    for _, (start, end, label) in sorted(placed, key=lambda one: one[0]):
        if joined and (joined[-1][:2] == (start, end) or (start, joined[-1][1]) == (None, None)):
            start, _, before = joined.pop()
            label = f"{before} {label}"
        joined.append((start, end, label))
    return joined


def _named(name: str, intervals: tuple[Interval, ...]) -> tuple[str, tuple[Interval, ...], str]:
    found = _OF_SPEAKER.fullmatch(name)
    if not found:
        return name, intervals, ""
    return found["name"] or found["base"], intervals, found["mfa"] or found["elan"]


def _read_ctm(path: Path) -> list[Tier]:
    words: list[Interval] = []
    recording = None
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip() or line.startswith(";"):
            continue
        found = _CTM.fullmatch(line.strip())
        if not found:
            raise InputError(
                f"{path}:{number}: expected 'file channel start duration word', found {line[:60]!r}"
            )
        recording = recording or found.group(1, 2)
        if found.group(1, 2) != recording:
            raise InputError(
                f"{path}:{number}: is of {' '.join(found.group(1, 2))}, the lines above of "
                f"{' '.join(recording)}; give each recording, of one channel, a ctm of its own"
            )
        start_s = float(found[3])
        words.append(Interval(start_s, start_s + float(found[4]), found[5], len(words) + 1))
    return [Tier("words", tuple(words))] if words else []


def _read_captions(path: Path) -> list[Tier]:
    import webvtt

    text, kind = read_text(path), path.suffix.lower()[1:]
    captions = webvtt.from_buffer(io.StringIO(text), format=kind).captions
    n_cues = sum("-->" in line for line in text.split("\n"))
    if len(captions) < n_cues:
        raise InputError(f"{path}: of {n_cues} cues, {n_cues - len(captions)} are malformed")
    by_voice: dict[str, list[Interval]] = defaultdict(list)
    for number, caption in enumerate(captions, 1):
        start_s, end_s = (
            time.in_milliseconds() / 1000 for time in (caption.start_time, caption.end_time)
        )
        label = html.unescape(caption.text) if kind == "vtt" else caption.text
        by_voice[nfc(caption.voice or "")].append(Interval(start_s, end_s, label, number))
    return [Tier("text", tuple(cues), voice) for voice, cues in by_voice.items()]


#: By suffix in lower case; of several beside one recording, the first counts.
READERS: dict[str, Callable[[Path], list[Tier]]] = {
    ".textgrid": _read_textgrid,
    ".eaf": _read_eaf,
    ".ctm": _read_ctm,
    ".vtt": _read_captions,
    ".srt": _read_captions,
}
