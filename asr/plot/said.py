"""What is known to have been said in audio: by a manifest, or by TIMIT's files beside it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from asr.corpora.tree import labels_beside
from asr.data.manifest import read_manifest
from asr.errors import InputError
from asr.labels import fold_segments
from asr.model.bundle import Bundle
from asr.report.evidence import reference, with_times
from asr.types import Segment, Utterance

#: A picture and an utterance that differ less in their ends are the same stretch of audio.
SAME_S = 0.05


def known(audio: Path, manifest: Path | None) -> list[Utterance]:
    """The utterances of ``audio`` in the manifest, or without one those of TIMIT's label files.

    Raises:
        InputError: the manifest cannot be read, or says nothing of this audio; or label files that
            cannot be read.
    """
    if manifest is None:
        beside = labels_beside(audio)
        return [beside] if beside else []
    found = [u for u in read_manifest(manifest) if u.audio.resolve() == audio.resolve()]
    if not found:
        raise InputError(f"{manifest}: holds no utterance of {audio}; name one that does")
    if not any(u.words or u.phones or u.text for u in found):
        raise InputError(f"{manifest}: has neither words, phones nor text of {audio}")
    return found


def said(
    utterances: Sequence[Utterance],
    stretch: tuple[float, float],
    bundle: Bundle | None = None,
    log_probs: np.ndarray | None = None,
) -> tuple[list[Segment], list[Segment]]:
    """Words and labels in a stretch (from, to) of the audio, in the seconds of the whole of it.

    Those of unknown times are aligned by ``bundle`` to ``log_probs`` (T, V) of the stretch, where
    it is the whole utterance, and else left out. Phones are folded as the model's, if they can be.

    Raises:
        InputError: all times are unknown.
    """
    words: list[Segment] = []
    labels: list[Segment] = []
    for u in utterances:
        ends = (u.offset_s, u.offset_s + u.duration_s)
        found = with_times(u.words), with_times(u.phones)
        if bundle is not None and log_probs is not None and np.allclose(ends, stretch, 0, SAME_S):
            found = reference(bundle, log_probs, u)
        for side, segments in zip((words, labels), found, strict=True):
            side += [
                replace(s, start_s=s.start_s + u.offset_s, end_s=s.end_s + u.offset_s)
                for s in segments
                if s.start_s is not None and s.end_s is not None
            ]
    if utterances and not words and not labels:
        raise InputError(
            f"{utterances[0].id}: the times of what was said are not known; "
            "asr align --format manifest finds them"
        )
    if bundle is not None and bundle.labels.unit == "phone":
        with suppress(InputError):
            labels = fold_segments(labels, bundle.label_config.fold)
    return inside(words, stretch), inside(labels, stretch)


def inside(segments: Sequence[Segment], stretch: tuple[float, float]) -> list[Segment]:
    """The parts of segments that lie in a stretch."""
    cut = [
        replace(s, start_s=max(s.start_s or 0.0, stretch[0]), end_s=min(s.end_s or 0.0, stretch[1]))
        for s in segments
    ]
    return [s for s in cut if (s.start_s or 0.0) < (s.end_s or 0.0)]
