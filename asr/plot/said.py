"""What is known to have been said in audio: by a manifest, or by TIMIT's files beside it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from asr.corpora.tree import labels_beside
from asr.data.manifest import read_manifest
from asr.decode.paths import ctc_align, frame_align_words
from asr.errors import InputError
from asr.labels import SPACE, fold_segments, unit_symbols
from asr.model.bundle import Bundle
from asr.recognize.aligner import Aligner
from asr.recognize.times import label_times
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


def timed(
    bundle: Bundle, log_probs: np.ndarray, symbols: Sequence[str], duration_s: float
) -> list[Segment]:
    """Labels with the times at which the model's output (T, V) shows them; none that do not fit."""
    labels, transitions = bundle.labels, bundle.transitions
    try:
        ids = labels.encode(symbols)
        if bundle.criterion == "framewise" and transitions is not None:
            log_priors = bundle.decoder.prior_weight * transitions.log_priors
            spans = frame_align_words(
                log_probs,
                [((i,),) for i in ids],
                min_durations=transitions.min_durations,
                log_priors=log_priors,
            )[2]
        else:
            spans = ctc_align(log_probs, ids)[0]
    except InputError:
        return []
    times = label_times(bundle, log_probs, ids, spans, duration_s)
    return [Segment(s, *time) for s, time in zip(symbols, times, strict=True)]


def reference(
    bundle: Bundle, log_probs: np.ndarray, utterance: Utterance
) -> tuple[list[Segment], list[Segment]]:
    """Words and labels that were said, at their known times, else where the model has them."""
    unit = bundle.labels.unit
    words, labels = with_times(utterance.words), with_times(utterance.phones)
    if unit != "phone":
        labels = spelled(bundle, log_probs, utterance, utterance.text)
        return words or grouped(labels, unit), labels
    if utterance.phones and not labels:
        symbols = unit_symbols(utterance, unit, bundle.label_config.fold)
        labels = timed(bundle, log_probs, symbols, utterance.duration_s)
    return words or word_times(bundle, log_probs, utterance, utterance.text), labels


def spelled(
    bundle: Bundle, log_probs: np.ndarray, utterance: Utterance, text: str | None
) -> list[Segment]:
    """The letters (or words) of a text in time."""
    symbols = unit_symbols(replace(utterance, text=text or ""), bundle.labels.unit)
    return timed(bundle, log_probs, symbols, utterance.duration_s)


def with_times(segments: Sequence[Segment] | None) -> list[Segment]:
    """The segments, if all have times."""
    known = all(s.start_s is not None and s.end_s is not None for s in segments or ())
    return list(segments or ()) if known else []


def word_times(
    bundle: Bundle, log_probs: np.ndarray, utterance: Utterance, text: str | None
) -> list[Segment]:
    """Words aligned by the model's lexicon; none where it has none, or lacks a word."""
    if not text or bundle.lexicon is None:
        return []
    try:
        aligner = Aligner(bundle, "word", bundle.lexicon)
        return list(aligner.align(replace(utterance, text=text), log_probs).words)
    except InputError:
        return []


def grouped(labels: Sequence[Segment], unit: str) -> list[Segment]:
    """Words out of letters between spaces; word labels as they are."""
    if unit == "word":
        return list(labels)
    words: list[Segment] = []
    starts_word = True
    for letter in labels:
        if letter.label == SPACE:
            starts_word = True
        elif starts_word:
            words.append(letter)
            starts_word = False
        else:
            words[-1] = replace(words[-1], label=words[-1].label + letter.label, end_s=letter.end_s)
    return words
