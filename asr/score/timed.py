"""NIST's stm (segments of recordings) and ctm (time-marked words), and how words find segments.

As in sctk 2.4 (``stm2ctm.c``): the channels of recordings are brought together by name, in
either case; a word belongs to the first segment that ends after the word's middle, the last
segment takes the rest. Segments with IGNORE_TIME_SEGMENT_IN_SCORING, and their words, do not count.
"""

from __future__ import annotations

import math
import re
import string
import struct
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from asr.errors import InputError
from asr.score.lines import Line, Matched, Span, Transcripts, filled, short

_IGNORED = ("IGNORE_TIME_SEGMENT_IN_SCORING", "IGNORETIMESEGMENTINSCORING")
_STM_LINE = re.compile(
    r"[ \t]*(\S+)[ \t]+(\S+)[ \t]+(\S+)[ \t]+(\S+)[ \t]+(\S+)(?:[ \t]+<\S*)?(?:[ \t]+(.*))?",
    re.ASCII | re.DOTALL,
)
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def read_stm(path: Path, rows: Sequence[str], _: bool = False) -> Iterator[tuple[str, Line]]:
    """Lines of ``file channel speaker start end [<labels>] words``; ids are speaker-number.

    Ignored segments have no text.

    Raises:
        InputError: a malformed line, or a segment that begins before the one above it.
    """
    n_of_speaker: Counter[str] = Counter()
    latest: dict[tuple[str, str], tuple[float, str]] = {}
    for where, row in filled(path, rows, comment=";;"):
        found = _STM_LINE.fullmatch(row)
        if not found:
            raise InputError(
                f"{where}: expected 'file channel speaker start end words', found {short(row)}"
            )
        file, channel, speaker = found[1], found[2], found[3]
        start_s, end_s = _seconds(found[4], where), _seconds(found[5], where)
        if end_s < start_s:
            raise InputError(f"{where}: the segment ends ({found[5]}) before it starts")
        _check_order(latest, (file, channel), start_s, where)
        span = Span(file, channel, start_s, end_s)
        text = found[6] or ""
        if any(mark in text.upper() for mark in _IGNORED):
            yield (
                f"ignored {where.rpartition(':')[2]}",
                Line(where, None, speaker=speaker, span=span),
            )
        else:
            # The ids that sclite gives.
            yield (
                f"{speaker}-{n_of_speaker[speaker]:03}",
                Line(where, text, speaker=speaker, span=span),
            )
            n_of_speaker[speaker] += 1


def read_ctm(path: Path, rows: Sequence[str], _: bool = False) -> Iterator[tuple[str, Line]]:
    """Lines of ``file channel start duration word [confidence]``; an utterance every channel.

    ``<ALT_BEGIN>``, ``<ALT>`` and ``<ALT_END>``, whose times are *, become ``{ a / b }``. An id is
    the file, and where that has several channels ``file channel``.

    Raises:
        InputError: a malformed line, or a word that begins before the one above it.
    """
    channels: dict[tuple[str, str], list[tuple[float, str]]] = defaultdict(list)
    places: dict[tuple[str, str], str] = {}
    latest: dict[tuple[str, str], tuple[float, str]] = {}
    opened: tuple[str, str] | None = None
    middle_s = 0.0
    alternatives: list[list[str]] = []
    where = str(path)
    for where, row in filled(path, rows, comment=";"):
        fields = row.split()
        if len(fields) < 5:
            raise InputError(
                f"{where}: expected 'file channel start duration word', found {short(row)}"
            )
        file, channel, start, duration, word = fields[:5]
        key = file, channel
        places.setdefault(key, where)
        mark = word.upper()
        if mark.startswith("<ALT"):
            if mark == "<ALT_BEGIN>" and opened is None:
                opened, middle_s, alternatives = key, -math.inf, [[]]
            elif mark == "<ALT>" and opened == key:
                alternatives.append([])
            elif mark == "<ALT_END>" and opened == key:
                texts = [" ".join(words) or "@" for words in alternatives]
                channels[key].append((middle_s, "{ " + " / ".join(texts) + " }"))
                opened = None
            else:
                raise InputError(
                    f"{where}: {short(word)} out of place; alternatives are <ALT_BEGIN>, words, "
                    "<ALT>, words, <ALT_END>, of one channel"
                )
            continue
        start_s, duration_s = _seconds(start, where), _seconds(duration, where)
        if opened not in (None, key):
            raise InputError(f"{where}: another channel inside alternatives; <ALT_END> is missing")
        if opened:
            alternatives[-1].append(word)
            middle_s = max(middle_s, start_s + duration_s / 2)
        else:
            _check_order(latest, key, start_s, where)
            channels[key].append((start_s + duration_s / 2, word))
    if opened:
        raise InputError(f"{where}: the file ends inside alternatives; <ALT_END> is missing")
    n_channels = Counter(file for file, _ in channels)
    for (file, channel), words in channels.items():
        span = Span(file, channel, -math.inf, math.inf)
        utterance = file if n_channels[file] == 1 else f"{file} {channel}"
        text = " ".join(text for _, text in words)
        yield utterance, Line(places[file, channel], text, span=span, words=tuple(words))


def segmented(references: Transcripts, hypotheses: Transcripts) -> Matched:
    """Give the words of a ctm to the segments of an stm, in the order of the stm.

    ``missing`` and ``unscored`` are channels: of the stm without words, and the other way round.

    Raises:
        InputError: the hypotheses are no ctm, or not one channel fits.
    """
    if hypotheses.format != "ctm":
        raise InputError(
            f"{hypotheses.path}: is {hypotheses.format}; segments of an stm ({references.path}) "
            "need a hypothesis with times, a ctm"
        )
    segments: dict[tuple[str, str], list[tuple[str, Line, float]]] = defaultdict(list)
    for utterance, line in references.lines.items():
        if line.span:
            # In single precision, as sclite reads it: the middle of a word may fall on an end.
            (end_s,) = struct.unpack("f", struct.pack("f", min(line.span.end_s, 1e30)))
            segments[_channel(line.span)].append((utterance, line, end_s))
    words_of: dict[tuple[str, str], tuple[tuple[float, str], ...]] = {}
    for line in hypotheses.lines.values():
        if line.span and line.words is not None:
            channel = _channel(line.span)
            if channel in words_of:
                raise InputError(
                    f"{line.where}: channel {short(' '.join(channel))} in upper and lower case"
                )
            words_of[channel] = line.words
    unscored = tuple(" ".join(channel) for channel in words_of if channel not in segments)
    missing = tuple(" ".join(channel) for channel in segments if channel not in words_of)
    if words_of and len(unscored) == len(words_of):
        raise InputError(
            f"{references.path} and {hypotheses.path} have no file and channel in common "
            f"(first ones: {short(missing[0])} and {short(unscored[0])}); give both the same names"
        )
    found: dict[str, str] = {}
    for channel, lines in segments.items():
        words = words_of.get(channel, ())
        begin = 0
        for n, (utterance, _, end_s) in enumerate(lines, 1):
            end = begin
            if n == len(lines):
                end = len(words)
            while end < len(words) and words[end][0] < end_s:
                end += 1
            found[utterance] = " ".join(text for _, text in words[begin:end])
            begin = end
    kept = {i: line for i, line in references.lines.items() if line.text is not None}
    if not kept:
        raise InputError(f"{references.path}: every segment is ignored; there is nothing to score")
    pairs = tuple((line, Line(line.where, found[i])) for i, line in kept.items())
    return Matched(tuple(kept), pairs, missing, unscored)


def _channel(span: Span) -> tuple[str, str]:
    return span.file.translate(_LOWER), span.channel.translate(_LOWER)


def _check_order(
    latest: dict[tuple[str, str], tuple[float, str]],
    channel: tuple[str, str],
    start_s: float,
    where: str,
) -> None:
    before_s, there = latest.get(channel, (-math.inf, ""))
    if start_s < before_s:
        raise InputError(
            f"{where}: starts at {start_s:g} s, before {there} ({before_s:g} s) of the same "
            "channel; sort the file by file, channel and start"
        )
    latest[channel] = start_s, where


def _seconds(text: str, where: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise InputError(f"{where}: expected a time in seconds, found {short(text)}")
    return seconds
