"""From labels at frames to times: what was found, as users see it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from asr.audio.changes import change_s
from asr.audio.sources import Source
from asr.decode.paths import edges
from asr.labels import SILENCES, SPACE
from asr.model.bundle import Bundle
from asr.types import Hypothesis, Segment, Transcript

#: How far from where the net has it the sound may change where a phone begins.
NEAR_S = 0.05
#: A CTC label is taken to last so long at most beyond the frames that show it; silence has no end.
MAX_GROWTH_S = 0.1


def timed(
    bundle: Bundle,
    hypothesis: Hypothesis,
    log_probs: np.ndarray,
    source: Source,
    duration_s: float,
    start_s: float = 0.0,
    waveform: np.ndarray | None = None,
) -> Transcript:
    """A hypothesis in frames and ids -> a transcript in seconds and symbols.

    log_probs: (T, V), in which it was found; they begin ``start_s`` into the source and last
    ``duration_s``. waveform: (N,) of that stretch at the features' rate, see `settled`.
    """
    labels = bundle.labels
    times = label_times(bundle, log_probs, hypothesis.labels, hypothesis.spans, duration_s)
    if waveform is not None:
        times = settled(times, waveform, bundle.features.sample_rate, duration_s)
    segments = tuple(
        Segment(symbol, start_s + start, start_s + end, confidence)
        for symbol, (start, end), confidence in zip(
            labels.decode(hypothesis.labels), times, hypothesis.confidences, strict=True
        )
    )
    words = tuple(
        Segment(word, segments[first].start_s, segments[end - 1].end_s, confidence)
        for word, (first, end), confidence in zip(
            hypothesis.words or (),
            hypothesis.word_spans or (),
            hypothesis.word_confidences or (),
            strict=True,
        )
    )
    text = " ".join(w.label for w in words)
    if hypothesis.words is None:
        text = labels.join([s.label for s in segments])
    return Transcript(
        source.id,
        text,
        duration_s,
        hypothesis.score,
        segments,
        words,
        unit=labels.unit,
        audio=source.path,
        channel=source.channel,
    )


def label_times(
    bundle: Bundle,
    log_probs: np.ndarray,
    labels: Sequence[int],
    spans: Sequence[tuple[int, int]],
    duration_s: float,
) -> list[tuple[float, float]]:
    """Start and end in seconds of labels found at ``spans`` of frames (see `decode.paths.edges`).

    log_probs: (T, V) of the utterance, which lasts ``duration_s``. Times inside it are
    rounded to a tenth of a millisecond.
    """
    clock, transitions = bundle.clock, bundle.transitions
    most = MAX_GROWTH_S / clock.shift_s
    if bundle.criterion == "framewise":
        most = math.inf
        if transitions is not None:
            log_probs = log_probs - bundle.decoder.prior_weight * transitions.log_priors
    found = edges(log_probs, labels, spans, fillers_of(bundle), most)

    def seconds(edge: float) -> float:
        # The last frame may end half a hop before the audio does.
        if edge >= len(log_probs):
            return duration_s
        return round(min(clock.start_s(edge), duration_s), 4)

    return [(seconds(start), seconds(end)) for start, end in found.tolist()]


def settled(
    times: Sequence[tuple[float, float]], waveform: np.ndarray, rate: int, duration_s: float
) -> list[tuple[float, float]]:
    """Times of phones, each boundary moved to where the sound changes most within `NEAR_S` of it.

    None moves beyond the middle of the phone (or of the gap between two) on either side.

    times: as `label_times` gives them. waveform: (N,) in [-1, 1] at ``rate`` Hz.
    """
    edges = sorted({0.0, duration_s, *(edge for span in times for edge in span)})
    moved = {edge: edge for edge in edges}
    for before, edge, after in zip(edges, edges[1:], edges[2:], strict=False):
        since = max(edge - NEAR_S, (before + edge) / 2)
        until = min(edge + NEAR_S, (edge + after) / 2)
        change = change_s(waveform, rate, since, until)
        moved[edge] = edge if change is None else round(min(max(change, since), until), 4)
    return [(moved[start], moved[end]) for start, end in times]


def fillers_of(bundle: Bundle) -> tuple[int, ...]:
    """Ids of the silences, or of the space, that may stand between words."""
    labels = bundle.labels
    return tuple(labels.among({"phone": SILENCES, "char": (SPACE,)}.get(labels.unit, ())))
