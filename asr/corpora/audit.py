"""What a corpus gives: its sets of utterances, and an account of the files it was read from."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from asr.audio.read import MAX_OVERSHOOT_S, audio_duration_s
from asr.data.utterances import Listed, Utterances
from asr.errors import InputError
from asr.types import Utterance

#: Wraps the sequence that a loader works through, to show progress.
Track = Callable[[Sequence[Any]], Iterable[Any]]


@dataclass(frozen=True)
class Audit:
    """Which files were met; loaders fill the collections, `asr prepare` writes them down.

    found: utterances met, used: utterances in some set. missing, corrupt and stray name files with
    the reason; missing and corrupt ones cost their utterance. dropped counts what was left out on
    purpose. deviations are sentences on what differs from the corpus as published, notes on what
    was taken for what.
    """

    found: int = 0
    used: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    corrupt: dict[str, str] = field(default_factory=dict)
    stray: dict[str, str] = field(default_factory=dict)
    deviations: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Corpus:
    """Utterances by set, the audit of their files, and the folder where the corpus was found.

    join: makes one set to train on of several.
    """

    sets: Mapping[str, Sequence[Utterance]]
    audit: Audit
    root: Path
    join: Callable[[Sequence[Any]], Utterances] = Listed.joined


def audited_duration_s(path: Path, audit: Audit) -> float | None:
    """Return the length of an audio file, or note it as missing or corrupt and return None."""
    try:
        return audio_duration_s(path)
    except InputError as error:
        reason = str(error).removeprefix(f"{path}: ")
        # Unlike Path.exists, for any name, however long.
        there = os.path.exists(path)  # noqa: PTH110
        (audit.corrupt if there else audit.missing)[str(path)] = reason
        return None


def measured(paths: Iterable[Path], audit: Audit, track: Track) -> dict[Path, float]:
    """Return the length in seconds of each audio file that is there and whole; note the others."""
    durations = {}
    for path in track(list(dict.fromkeys(paths))):
        duration_s = audited_duration_s(path, audit)
        if duration_s is not None:
            durations[path] = duration_s
    return durations


def audible(
    utterances: Iterable[Utterance], durations: Mapping[Path, float], audit: Audit
) -> list[Utterance]:
    """The utterances that lie within their audio, as `measured`; those that reach beyond are noted.

    One of infinite duration ends where its audio does.
    """
    kept = []
    for utterance in utterances:
        if utterance.audio not in durations:
            continue
        audio_s = durations[utterance.audio]
        if utterance.duration_s == math.inf:
            utterance = replace(utterance, duration_s=audio_s - utterance.offset_s)
        end_s = utterance.offset_s + utterance.duration_s
        if utterance.offset_s < audio_s and end_s <= audio_s + MAX_OVERSHOOT_S:
            kept.append(utterance)
        else:
            audit.corrupt[f"{utterance.audio} ({utterance.id})"] = (
                f"the utterance ends at {end_s:.3f} s, the audio at {audio_s:.3f} s"
            )
    return kept
