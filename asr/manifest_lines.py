"""Lines of a manifest as `asr prepare` writes them, read by compiled code, a block at a time.

They have the fields id, audio_filepath, offset (or none), duration, speaker and text (or none), in
that order, nothing that is escaped, and no words or phones. Everything else is for JSON's reader,
which takes several times as long. Text is (N,) code points; a span is where something begins and
ends in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from asr.compiled import compiled, inner

#: Different words in a block of text, at most; a table of twice as many places finds them again.
MOST_WORDS = 1 << 16
PLACES = 2 * MOST_WORDS
#: Digits that make a float without error: fewer than 2 ** 53, over a power of ten.
EXACT_DIGITS = 15
TENS = 10.0 ** np.arange(EXACT_DIGITS + 1)


def _points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le"), np.uint32)


ID = _points('{"id": "')
AUDIO = _points('", "audio_filepath": "')
OFFSET = _points('", "offset": ')
DURATION = _points(', "duration": ')
QUOTED_DURATION = _points('", "duration": ')
SPEAKER = _points(', "speaker": "')
TEXT = _points('", "text": "')
END = _points('"}')
TAR = _points(".tar")


@dataclass(frozen=True)
class PlainLines:
    """What n lines say: arrays (n,), of which ``shards`` points into ``tars`` (-1: in none).

    ids, audio: FNV-1a digests of the id, and of audio, a space and the offset.
    """

    ids: np.ndarray
    audio: np.ndarray
    durations: np.ndarray
    shards: np.ndarray
    member_starts: np.ndarray
    member_sizes: np.ndarray
    tars: list[str]
    words: set[str]
    speakers: set[str]


def read_plain_lines(text: str, n: int) -> PlainLines | None:
    """Read n lines; None where one of them is not as the module says, or something is wrong."""
    ids, audio = np.empty(n, np.uint64), np.empty(n, np.uint64)
    durations, shards = np.empty(n), np.empty(n, np.int32)
    member_starts, member_sizes = np.empty(n, np.int64), np.empty(n, np.uint32)
    seconds, tars, speakers = (np.zeros((n, 2), np.int32) for _ in range(3))
    words = np.empty((MOST_WORDS, 2), np.int32)
    points = _points(text)
    n_tars, n_speakers, n_words = read_lines(
        points, ids, audio, durations, seconds, shards, tars, member_starts, member_sizes, speakers,
        words,
    )  # fmt: skip
    if n_words < 0:
        return None
    for i in np.flatnonzero(np.isnan(durations)).tolist():
        durations[i] = float(text[seconds[i, 0] : seconds[i, 1]])
    if not durations.all():
        return None
    # A tar comes as often as lines of others come between its own.
    names = _cut(text, tars[:n_tars])
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return PlainLines(
        ids,
        audio,
        durations.astype(np.float32),
        # -1 takes the last.
        np.array([*(numbers[name] for name in names), -1], np.int32)[shards],
        member_starts,
        member_sizes,
        list(numbers),
        set(_spaced(points, words[:n_words]).tobytes().decode("utf-32-le").split()),
        set(_cut(text, speakers[:n_speakers])) - {""},
    )


def _cut(text: str, spans: np.ndarray) -> list[str]:
    return [text[start:end] for start, end in spans.tolist()]


@compiled
def _spaced(text, words):  # type: ignore[no-untyped-def]  # pragma: no cover
    """The code points of the words, a space after each: to cut them out one by one takes longer."""
    spaced = np.empty((words[:, 1] - words[:, 0] + 1).sum(), np.uint32)
    at = 0
    for start, end in words:
        spaced[at : at + end - start] = text[start:end]
        spaced[at + end - start] = 32
        at += end - start + 1
    return spaced


@compiled
def read_lines(  # type: ignore[no-untyped-def]  # pragma: no cover
    text, ids, audio, durations, seconds, shards, tars, member_starts, member_sizes, speakers, words
) -> Any:
    """Fill the arrays; returns how many tars, speakers and words there are, words -1 for not plain.

    Spans of tars and speakers are noted where they differ from the line before, those of words
    where they come for the first time. durations: nan where the span ``seconds`` has many digits.
    """
    n_tars, n_speakers, n_words, at = 0, 0, 0, 0
    tar, tar_end, speaker, speaker_end = 0, 0, 0, 0
    hashes, places = np.zeros(PLACES, np.uint64), np.full(PLACES, -1, np.int32)
    for i in range(len(ids)):
        name = expect(text, at, ID)
        end = string_end(text, name)
        if end <= name or has_space(text, name, end):
            return 0, 0, -1
        ids[i] = digest(text, name, end, FNV_START)

        start = expect(text, end, AUDIO)
        end = string_end(text, start)
        if end <= start or is_odd_path(text, start, end):
            return 0, 0, -1
        audio[i] = digest(text, start, end, FNV_START)
        colon, member_starts[i], member_sizes[i] = member(text, start, end)
        shards[i] = -1
        if colon > 0:
            if not same(text, tar, tar_end, start, colon):
                tar, tar_end = tars[n_tars, 0], tars[n_tars, 1] = start, colon
                n_tars += 1
            shards[i] = n_tars - 1

        at = expect(text, end, OFFSET)
        if at < 0:
            audio[i] = zero_offset(audio[i])
            at = expect(text, end, QUOTED_DURATION)
        else:
            _, end = number(text, at)
            if not is_shortest(text, at, end):
                return 0, 0, -1
            audio[i] = digest(text, at, end, fnv(audio[i], 32))
            at = expect(text, end, DURATION)
        durations[i], end = number(text, at)
        seconds[i, 0], seconds[i, 1] = at, end

        start = expect(text, end, SPEAKER)
        end = string_end(text, start)
        if not same(text, speaker, speaker_end, start, end):
            speaker, speaker_end = speakers[n_speakers, 0], speakers[n_speakers, 1] = start, end
            n_speakers += 1

        at = expect(text, end, TEXT)
        if at >= 0:
            end = string_end(text, at)
            n_words = add_words(text, at, end, words, n_words, hashes, places)
        at = expect(text, end, END)
        if at < 0 or n_words < 0:
            return 0, 0, -1
        if at < len(text):
            if text[at] != 10:
                return 0, 0, -1
            at += 1
    return n_tars, n_speakers, (n_words if at == len(text) else -1)


FNV_START = 0xCBF29CE484222325


@inner
def fnv(digest, point):  # type: ignore[no-untyped-def]  # pragma: no cover
    return (digest ^ np.uint64(point)) * np.uint64(0x100000001B3)


@inner
def digest(text, start, end, before):  # type: ignore[no-untyped-def]  # pragma: no cover
    """FNV-1a (Fowler, Noll and Vo), a code point at a time, going on from ``before``."""
    value = np.uint64(before)
    for at in range(start, end):
        value = fnv(value, text[at])
    return value


@inner
def zero_offset(before):  # type: ignore[no-untyped-def]  # pragma: no cover
    return fnv(fnv(fnv(fnv(before, 32), 48), 46), 48)


@inner
def expect(text, at, literal):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Where ``literal`` ends that should begin here; -1 where it does not, or ``at`` is -1."""
    n = len(literal)
    if at < 0 or at + n > len(text):
        return -1
    for i in range(n):
        if text[at + i] != literal[i]:
            return -1
    return at + n


@inner
def string_end(text, at):  # type: ignore[no-untyped-def]  # pragma: no cover
    """The quote that ends a string without anything escaped; -1 if it is none, or ``at`` is -1."""
    if at < 0:
        return -1
    while at < len(text) and text[at] >= 32 and text[at] != 34 and text[at] != 92:
        at += 1
    return at if at < len(text) and text[at] == 34 else -1


@inner
def is_space(point):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Whether `str.split` cuts there; controls are not in a string."""
    if point < 0x85:
        return point == 32
    return (
        point == 0x85
        or point == 0xA0
        or point == 0x1680
        or 0x2000 <= point <= 0x200A
        or point == 0x2028
        or point == 0x2029
        or point == 0x202F
        or point == 0x205F
        or point == 0x3000
    )


@inner
def has_space(text, start, end):  # type: ignore[no-untyped-def]  # pragma: no cover
    found = False
    for at in range(start, end):
        found |= is_space(text[at])
    return found


@inner
def same(text, start, end, other, other_end):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Whether two spans say the same."""
    equal = end - start == other_end - other
    i = 0
    while equal and start + i < end:
        equal = text[start + i] == text[other + i]
        i += 1
    return equal


@inner
def is_odd_path(text, start, end):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Whether `pathlib` would write it otherwise: ``./a``, ``a//b``, ``a/./b``."""
    if end - start > 1 and text[start] == 46 and text[start + 1] == 47:
        return True
    for at in range(start, end - 1):
        if text[at] == 47:
            if text[at + 1] == 47:
                return True
            if text[at + 1] == 46 and at + 2 < end and text[at + 2] == 47:
                return True
    return False


@inner
def number(text, at):  # type: ignore[no-untyped-def]  # pragma: no cover
    """A number without sign and exponent: its value (nan: too many digits for here), its end.

    The end is -1 where it is none, or ``at`` is -1.
    """
    if at < 0:
        return np.nan, -1
    start, n_digits, point, value = at, 0, -1, np.int64(0)
    while at < len(text) and (48 <= text[at] <= 57 or (text[at] == 46 and point < 0)):
        if text[at] == 46:
            point = at
        else:
            n_digits += 1
            if n_digits <= EXACT_DIGITS:
                value = 10 * value + np.int64(text[at]) - 48
        at += 1
    whole = (point if point >= 0 else at) - start
    if whole == 0 or point == at - 1 or (whole > 1 and text[start] == 48) or whole > EXACT_DIGITS:
        return np.nan, -1
    if n_digits > EXACT_DIGITS:
        return np.nan, at
    return value / TENS[at - point - 1 if point >= 0 else 0], at


@inner
def is_shortest(text, start, end):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Whether Python writes this `number` just so: 1.5 and 0.0, but not 1, 1.50 or 0.00001."""
    if end < 0 or end - start > EXACT_DIGITS + 1:
        return False
    point, first = -1, -1
    for at in range(start, end):
        if text[at] == 46:
            point = at
        elif text[at] != 48 and first < 0:
            first = at
    if point < 0 or (text[end - 1] == 48 and end - point > 2):
        return False
    return first < 0 or first <= point + 4


@inner
def member(text, start, end):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Of ``FILE.tar:OFFSET:SIZE`` where FILE.tar ends, and the numbers; zeros for anything else."""
    size, offset, factor = np.int64(0), np.int64(0), 1
    at = end - 1
    while at > start and 48 <= text[at] <= 57 and end - at <= 9:
        size += factor * (np.int64(text[at]) - 48)
        factor *= 10
        at -= 1
    second, factor = at, 1
    at -= 1
    while at > start and 48 <= text[at] <= 57 and second - at <= 18:
        offset += factor * (np.int64(text[at]) - 48)
        factor *= 10
        at -= 1
    if second == end - 1 or text[second] != 58 or at == second - 1 or text[at] != 58:
        return 0, 0, 0
    if at - 4 <= start or expect(text, at - 4, TAR) != at:
        return 0, 0, 0
    return at, offset, size


@inner
def add_words(  # type: ignore[no-untyped-def]  # pragma: no cover
    text, start, end, words, n_words, hashes, places
):
    """Note words that are new; returns how many there are now, -1 where they are too many."""
    at = start
    while at < end:
        if is_space(text[at]):
            at += 1
            continue
        first, value = at, np.uint64(FNV_START)
        while at < end and not is_space(text[at]):
            value = fnv(value, text[at])
            at += 1
        place = np.int64((value ^ (value >> np.uint64(32))) & np.uint64(PLACES - 1))
        while places[place] >= 0 and not (
            hashes[place] == value
            and same(text, words[places[place], 0], words[places[place], 1], first, at)
        ):
            place = (place + 1) & (PLACES - 1)
        if places[place] < 0:
            if n_words == MOST_WORDS:
                return -1
            hashes[place], places[place] = value, n_words
            words[n_words, 0], words[n_words, 1] = first, at
            n_words += 1
    return n_words
