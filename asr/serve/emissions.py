"""What the net says about a stretch of a file: the numbers behind a picture of it."""

from __future__ import annotations

import base64
import math
from collections.abc import Generator, Sequence
from contextlib import closing
from typing import Any, NamedTuple

import numpy as np

from asr.errors import InputError
from asr.model.bundle import Bundle
from asr.model.emissions import certain_silence
from asr.recognize.recognizer import Job, Recognizer
from asr.recognize.transcripts import segment_fields
from asr.serve.contract import ApiError, given_twice, no_model, unknown
from asr.types import Segment

#: Seconds of a stretch at most, and of what is heard on either side of it.
MOST_S, CONTEXT_S = 60.0, 10.0
ENDED = "start: the file ends before it"


class Part(NamedTuple):
    """A stretch of a model's file, in seconds."""

    model: str
    start_s: float
    end_s: float


def part_asked(fields: Sequence[tuple[str, str]]) -> Part:
    """Read a form's fields: ``model``, and ``start`` and ``end`` in seconds.

    Raises:
        ApiError: a field that is missing, unknown, given twice, or of a wrong value.
    """
    found: dict[str, str] = {}
    for name, value in fields:
        if name not in ("model", "start", "end"):
            raise unknown(name)
        if name in found:
            raise given_twice(name)
        found[name] = value
    if not found.get("model"):
        raise no_model()
    start_s = _seconds("start", found.get("start", "0"))
    end_s = _seconds("end", found.get("end", str(start_s + MOST_S)))
    if not 0 < end_s - start_s <= MOST_S + 1e-6:
        expected = f"expected up to {MOST_S:g} s after start ({start_s:g})"
        raise ApiError(400, f"end: {expected}, found {end_s:g}", "end")
    return Part(found["model"], start_s, end_s)


def _seconds(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise ApiError(400, f"{name}: expected seconds, found '{text}'", name)
    return value


def heard_frames(recognizer: Recognizer, part: Part) -> tuple[int, int]:
    """The output frames (first, last + 1) of a file that are heard for a part of it.

    A file that is recognised as a whole is heard as a whole.
    """
    whole_s, shift_s = recognizer.windowing.whole_s, recognizer.bundle.clock.shift_s
    start_s = 0.0 if part.end_s <= whole_s else max(0.0, part.start_s - CONTEXT_S)
    end_s = max(whole_s, part.end_s + CONTEXT_S)
    return math.floor(start_s / shift_s), math.ceil(end_s / shift_s)


def samples_between(
    blocks: Generator[np.ndarray, None, None], first: int, end: int
) -> Generator[np.ndarray, None, None]:
    """Samples ``first`` ... ``end`` - 1 of blocks (N,); nothing is read beyond them.

    Raises:
        InputError: the blocks end before they begin.
    """
    n_before = 0
    with closing(blocks):
        for block in blocks:
            if len(block) > first - n_before:
                yield block[max(0, first - n_before) : end - n_before]
            n_before += len(block)
            if n_before >= end:
                return
    if n_before <= first:
        raise InputError(ENDED)


def described(
    bundle: Bundle, job: Job, labels: Sequence[Segment], part: Part, first: int
) -> dict[str, Any]:
    """The log-probabilities and the labels found in a part, as JSON.

    first: the frame of the file that ``job``, which is done, kept its posteriors and found
    ``labels``, begins with.

    Raises:
        ApiError: the file ends before the part begins.
    """
    clock = bundle.clock
    n_frames = math.ceil(job.n_samples / bundle.features.sample_rate / clock.shift_s)
    n_frames = max([n_frames, *(s.first + len(s.log_probs) for s in job.kept)])
    begin, end = math.floor(part.start_s / clock.shift_s), math.ceil(part.end_s / clock.shift_s)
    if begin >= first + n_frames:
        raise ApiError(400, ENDED, "file", "invalid_file")
    # Silence that was left out of a long recording is what it was taken for.
    whole = np.repeat(certain_silence(bundle), n_frames, axis=0)
    for stretch in job.kept:
        whole[stretch.first : stretch.first + len(stretch.log_probs)] = stretch.log_probs
    inside = whole[begin - first : end - first].astype("<f4")
    found = [segment_fields(label) for label in labels]
    for label in found:
        for name in ("start_s", "end_s"):
            label[name] = round(label[name] + first * clock.shift_s, 4)
    return {
        "object": "emissions",
        "model": part.model,
        "unit": bundle.labels.unit,
        "labels": list(bundle.labels.symbols),
        "first_s": round(clock.centre_s(begin), 4),
        "shift_s": clock.shift_s,
        "frames": len(inside),
        "log_probs": base64.b64encode(inside.tobytes()).decode(),
        "found": [f for f in found if f["start_s"] < part.end_s and f["end_s"] > part.start_s],
    }
