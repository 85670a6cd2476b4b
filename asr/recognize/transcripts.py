"""Transcripts as text in the formats that other programs read.

A writer takes a `Transcript` and returns text. Labels of recognisers are taken as they come: they
may leave gaps, overlap, or last no time at all; each writer mends what its format cannot say.
"""

from __future__ import annotations

import json
import mimetypes
import os
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from asr.errors import InputError
from asr.labels import SILENT
from asr.types import Segment, Transcript

SAMPLE_RATE = 16_000
#: Subtitles: two lines of 42 characters, 7 seconds at most (BBC and Netflix guidelines agree).
LINE_CHARACTERS, CUE_LINES, CUE_S = 42, 2, 7.0
#: A silence after which a new subtitle begins.
PAUSE_S = 0.8
#: Characters that XML has no way to write.
_NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


def as_json(transcript: Transcript) -> dict[str, Any]:
    """A transcript as a JSON object; times in seconds."""
    found: dict[str, Any] = {
        "id": transcript.id,
        "audio_filepath": str(transcript.audio or transcript.id),
        "text": transcript.text,
        "duration": round(transcript.duration_s, 4),
        **scored(transcript),
    }
    if transcript.nbest:
        found["nbest"] = _alternatives(transcript)
    if transcript.segments:
        found["segments"] = [part_of(segment) for segment in transcript.segments]
    if transcript.channel is not None:
        found["channel"] = transcript.channel
    return found


def from_json(found: object) -> Transcript:
    """The transcript that `as_json` wrote; alternatives, and labels of segments, are left behind.

    Raises:
        InputError: it is none.
    """
    try:
        record: Any = found
        labels, words = (
            tuple(
                Segment(str(s["label"]), float(s["start_s"]), float(s["end_s"]), s["confidence"])
                for s in record[name]
            )
            for name in ("labels", "words")
        )
        whole = Transcript(
            str(record["id"]),
            str(record["text"]),
            float(record["duration"]),
            float(record["score"]),
            labels,
            words,
            unit=str(record.get("unit", "label")),
            audio=Path(record["audio_filepath"]),
            channel=record.get("channel"),
        )
        parts = [
            replace(
                whole,
                text=str(part["text"]),
                score=float(part["score"]),
                labels=within(labels, part["start_s"], part["end_s"]),
                words=within(words, part["start_s"], part["end_s"]),
            )
            for part in record.get("segments", ())
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"not a transcript as asr transcribe writes it ({error!r})") from error
    return replace(whole, segments=tuple(parts))


def within(segments: Sequence[Segment], start_s: float, end_s: float) -> tuple[Segment, ...]:
    """Those that begin in a stretch of time."""
    return tuple(s for s in segments if start_s <= _start_s(s) < end_s)


def to_json(transcript: Transcript) -> str:
    """One indented JSON object."""
    return dumped(as_json(transcript), indent=2)


def to_jsonl(transcript: Transcript) -> str:
    """One JSON object on one line."""
    return dumped(as_json(transcript))


def to_txt(transcript: Transcript) -> str:
    """The text on one line."""
    return " ".join(transcript.text.split()) + "\n"


def to_trn(transcript: Transcript) -> str:
    """NIST's transcript line: the text and the id in parentheses."""
    text = " ".join(transcript.text.split())
    if text.startswith(";;"):
        text = " " + text  # else the line would be a comment
    return f"{text} ({_name(transcript.id)})\n"


def to_ctm(transcript: Transcript) -> str:
    """NIST's time-marked words (labels, where no words are known), a line each, in time order:

    recording, channel, start and duration in seconds, word, and the confidence where there is one.

    Raises:
        InputError: a segment has no time.
    """
    lines = []
    channel = str(transcript.channel or 1)
    # The channels of a recording share its name, as they do in an stm.
    recording = transcript.id.removesuffix(f".ch{transcript.channel}")
    for s in sorted(_timed(transcript, transcript.words or transcript.labels), key=_start_s):
        # Rounded first, so that neighbours still meet.
        start_s, end_s = round(_start_s(s), 4), round(_end_s(s), 4)
        fields = [_name(recording), channel, f"{start_s:.4f}"]
        fields.append(f"{max(0.0, end_s - start_s):.4f}")
        fields.append(_token(s.label))
        if s.confidence is not None:
            fields.append(f"{s.confidence:.4f}")
        lines.append(" ".join(fields) + "\n")
    return "".join(lines)


def to_phn(transcript: Transcript, sample_rate: int = SAMPLE_RATE) -> str:
    """TIMIT's ``.PHN``: a line a label: start, end (samples) and label.

    Raises:
        InputError: a segment has no time.
    """
    return _samples(_timed(transcript, transcript.labels), sample_rate)


def to_wrd(transcript: Transcript, sample_rate: int = SAMPLE_RATE) -> str:
    """TIMIT's ``.WRD``: a line a word: start, end (samples) and word.

    Raises:
        InputError: a segment has no time.
    """
    return _samples(_timed(transcript, transcript.words), sample_rate)


def to_textgrid(transcript: Transcript) -> str:
    """Praat's TextGrid (long form): a tier of words and one of labels, where there are any.

    Its intervals must cover the file one after the other: silence and gaps become empty intervals
    in either tier, an overlap goes to the later segment, and what lasts no time gets a tenth of a
    millisecond.

    Raises:
        InputError: a segment has no time.
    """
    from praatio.utilities.textgrid_io import getTextgridAsStr

    tiers = _tiers(transcript, 1e-4)
    ends = [tier[-1][1] for tier in tiers.values() if tier]
    # Praat refuses a file without any length.
    end_s = max([1, round(transcript.duration_s * 1e4), *ends]) / 1e4
    written = [
        {
            "class": "IntervalTier",
            "name": name,
            "xmin": 0.0,
            "xmax": end_s,
            "entries": [(first / 1e4, last / 1e4, label) for first, last, label in tier],
        }
        for name, tier in tiers.items()
    ]
    found = {"xmin": 0.0, "xmax": end_s, "tiers": written}
    return getTextgridAsStr(found, "long_textgrid", True, minimumIntervalLength=None)


def to_eaf(transcript: Transcript) -> str:
    """ELAN's annotations: the tiers of `to_textgrid`, linked to the audio, in milliseconds.

    Raises:
        InputError: a segment has no time.
    """
    from pympi.Elan import Eaf, to_string

    document = Eaf(author="Carousel")
    document.remove_tier("default")
    audio = transcript.audio
    # Unlike Path.is_file, for any name, however long.
    if audio is not None and os.path.isfile(audio):  # noqa: PTH113
        kind = mimetypes.guess_type(audio.name)[0] or "audio/x-wav"
        document.add_linked_file(audio.absolute().as_uri(), mimetype=kind)
    tiers = _tiers(transcript, 1e-3)
    for name in tiers:
        document.add_tier(name)
    spans = [(*span, name) for name, tier in tiers.items() for span in tier]
    # ELAN keeps its slots of time in their order; here each end of each annotation has its own.
    ends = sorted(
        (at, which, n) for n, span in enumerate(spans) for which, at in enumerate(span[:2])
    )
    slots = {(n, which): document.generate_ts_id(at) for at, which, n in ends}
    for n, (_, _, label, name) in enumerate(spans):
        annotation = document.generate_annotation_id()
        document.annotations[annotation] = name
        document.tiers[name][0][annotation] = (slots[n, 0], slots[n, 1], label, None)
    document.properties = [("lastUsedAnnotation", document.maxaid)]
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{to_string(document)}\n'


def _tiers(transcript: Transcript, tick_s: float) -> dict[str, list[tuple[int, int, str]]]:
    """Words, and labels without silence, as spans in ticks with labels that XML may hold."""
    tiers = {}
    if transcript.words or not transcript.labels:
        tiers["words"] = _in_order(_timed(transcript, transcript.words), tick_s)
    if transcript.labels:
        tiers[f"{transcript.unit}s"] = _in_order(_timed(transcript, _sounds(transcript)), tick_s)
    return {
        name: [(first, last, _NO_XML.sub("\ufffd", " ".join(s.split()))) for first, last, s in tier]
        for name, tier in tiers.items()
    }


def to_srt(transcript: Transcript) -> str:
    """SubRip subtitles. The format has no escapes: an arrow in the text is shortened to ``->``.

    Raises:
        InputError: a segment has no time.
    """
    return "".join(
        f"{number}\n{_clock(start, ',')} --> {_clock(end, ',')}\n{re.sub('-{2,}>', '->', text)}\n\n"
        for number, (start, end, text) in enumerate(_cues(transcript), 1)
    )


def to_vtt(transcript: Transcript) -> str:
    """WebVTT subtitles, with ``&``, ``<`` and ``>`` escaped.

    Raises:
        InputError: a segment has no time.
    """
    cues = []
    for start, end, text in _cues(transcript):
        text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        cues.append(f"{_clock(start, '.')} --> {_clock(end, '.')}\n{text}\n\n")
    return "WEBVTT\n\n" + "".join(cues)


class Format(NamedTuple):
    """A format: the suffix of its files, its writer, and whether files of it may be joined."""

    suffix: str
    write: Callable[[Transcript], str]
    joins: bool = False


FORMATS: dict[str, Format] = {
    "txt": Format(".txt", to_txt, joins=True),
    "json": Format(".json", to_json),
    "jsonl": Format(".jsonl", to_jsonl, joins=True),
    "srt": Format(".srt", to_srt),
    "vtt": Format(".vtt", to_vtt),
    "ctm": Format(".ctm", to_ctm, joins=True),
    "trn": Format(".trn", to_trn, joins=True),
    "textgrid": Format(".TextGrid", to_textgrid),
    "eaf": Format(".eaf", to_eaf),
    "phn": Format(".PHN", to_phn),
    "wrd": Format(".WRD", to_wrd),
}


def formats_named(names: str) -> dict[str, Format]:
    """Return the formats of a list such as ``srt,json``.

    Raises:
        InputError: a name that does not exist.
    """
    wanted = [name.strip().lower() for name in names.split(",") if name.strip()]
    for name in wanted:
        if name not in FORMATS:
            raise InputError(f"format {name!r} does not exist; choose from {', '.join(FORMATS)}")
    if not wanted:
        raise InputError(f"no format named; choose from {', '.join(FORMATS)}")
    return {name: FORMATS[name] for name in wanted}


def scored(transcript: Transcript) -> dict[str, Any]:
    return {
        "score": round(transcript.score, 4),
        "labels": [segment_fields(s) for s in transcript.labels],
        "words": [segment_fields(s) for s in transcript.words],
    }


def _alternatives(transcript: Transcript) -> list[dict[str, Any]]:
    return [{"text": other.text, **scored(other)} for other in transcript.nbest]


def part_of(transcript: Transcript) -> dict[str, Any]:
    """A segment of a recording; its labels and words stand among the recording's."""
    spans = [segment_fields(s) for s in transcript.words or transcript.labels]
    found = {
        "start_s": spans[0]["start_s"],
        "end_s": spans[-1]["end_s"],
        "text": transcript.text,
        "score": round(transcript.score, 4),
    }
    if transcript.nbest:
        found["nbest"] = _alternatives(transcript)
    return found


def segment_fields(segment: Segment) -> dict[str, Any]:
    found: dict[str, Any] = {"label": segment.label}
    for name in ("start_s", "end_s", "confidence"):
        value = getattr(segment, name)
        found[name] = None if value is None else round(value, 4)
    return found


def dumped(value: Any, indent: int | None = None) -> str:
    """A value as JSON on one line, or indented; any file name in it stays what it is."""
    text = json.dumps(value, ensure_ascii=False, indent=indent) + "\n"
    # A file name's bytes that are not UTF-8 come as lone surrogates: JSON can escape those.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _name(utterance: str) -> str:
    """An id as NIST's formats can hold it: one word without parentheses, no comment."""
    printable = utterance.encode("utf-8", "replace").decode("utf-8")
    return re.sub(r"[\s()]+|^;+", "_", printable) or "_"


def _token(label: str) -> str:
    """A label as one word."""
    return "_".join(label.split()) or "_"


def _timed(transcript: Transcript, segments: Sequence[Segment]) -> Sequence[Segment]:
    for segment in segments:
        if segment.start_s is None or segment.end_s is None:
            raise InputError(
                f"{transcript.id}: {segment.label!r} has no time, which this format needs; "
                "write txt, trn or json"
            )
    return segments


def _sounds(transcript: Transcript) -> list[Segment]:
    """The labels without silences and spaces, which for readers are where nothing is."""
    silent = () if transcript.unit == "word" else SILENT
    return [s for s in transcript.labels if s.label not in silent]


def _start_s(segment: Segment) -> float:
    return segment.start_s or 0.0


def _end_s(segment: Segment) -> float:
    return segment.end_s or 0.0


def _samples(segments: Sequence[Segment], sample_rate: int) -> str:
    return "".join(
        f"{round(_start_s(s) * sample_rate)} {round(_end_s(s) * sample_rate)} {_token(s.label)}\n"
        for s in segments
    )


def _in_order(segments: Sequence[Segment], tick_s: float) -> list[tuple[int, int, str]]:
    """Spans in ticks, sorted, each a tick at least, none beginning before the last one's end."""
    spans: list[tuple[int, int, str]] = []
    for segment in sorted(segments, key=_start_s):
        # Rounded as in JSON first, so that what is read from that is written alike.
        first = max(0, round(round(_start_s(segment), 4) / tick_s))
        last = round(round(_end_s(segment), 4) / tick_s)
        if spans:
            begun, ended, label = spans[-1]
            first = max(first, begun + 1)
            spans[-1] = begun, min(ended, first), label
        spans.append((first, max(last, first + 1), segment.label))
    return spans


def _cues(transcript: Transcript) -> list[tuple[int, int, str]]:
    """Subtitles of (start, end, text), times in milliseconds.

    Words are gathered up to a pause, `CUE_S` seconds or two full lines; where no words are known,
    the labels but silence are the words.
    """
    cues: list[tuple[int, int, list[str]]] = []
    segments = transcript.words or _sounds(transcript)
    for first, last, label in _in_order(_timed(transcript, segments), 1e-3):
        word = _token(label)
        if cues:
            start, end, words = cues[-1]
            n_lines = len(_wrapped([*words, word]))
            pause, length = (first - end) / 1000, (last - start) / 1000
            if n_lines <= CUE_LINES and length <= CUE_S and pause < PAUSE_S:
                cues[-1] = start, last, [*words, word]
                continue
        cues.append((first, last, [word]))
    return [(start, end, "\n".join(_wrapped(words))) for start, end, words in cues]


def _wrapped(words: Sequence[str]) -> list[str]:
    text = " ".join(words)
    return textwrap.wrap(text, LINE_CHARACTERS, break_long_words=False, break_on_hyphens=False)


def _clock(milliseconds: int, point: str) -> str:
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}{point}{milliseconds:03d}"
