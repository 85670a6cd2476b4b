"""The picture of one utterance after an epoch, for TensorBoard: what was said, what is heard."""

from __future__ import annotations

import math
from itertools import groupby
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from asr.audio.features import FeatureConfig
from asr.data.examples import Example, label_segments
from asr.decode.paths import ctc_align
from asr.errors import InputError
from asr.labels import BLANK, SPACE, unit_symbols
from asr.model.bundle import Bundle
from asr.types import Segment

# A label has a row where it is this likely in some frame, or the likeliest.
SEEN = 0.1
#: Marks of frequency axes, and points between them.
HERTZ, LEAST_APART = (250, 500, 1000, 2000, 4000, 8000, 16_000), 11.0


def picture(example: Example, log_probs: np.ndarray, bundle: Bundle, criterion: str) -> Figure:
    """Spectrogram, reference and best path, and posteriors of an utterance on one time axis.

    The reference stands at its own times where they are known, else at those of its best CTC path.

    Args:
        log_probs: (T, V) natural logarithms from the model.
        criterion: that the model is being trained with, ctc or framewise.
    """
    shift_s = bundle.clock.shift_s
    figure = Figure(figsize=(12, 7))
    top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=(3, 1, 3))
    figure.subplots_adjust(0.08, 0.07, 0.99, 0.94, hspace=0.08)
    figure.suptitle(example.utterance.id, parse_math=False)
    image = np.asarray(example.features).T
    duration_s = image.shape[1] * bundle.features.hop_length / bundle.features.sample_rate
    low = float(np.quantile(image, 0.01))
    top.imshow(
        image, origin="lower", aspect="auto", extent=(0, duration_s, 0, len(image)), vmin=low
    )
    mark_hertz(top, bundle.features)

    draw_lane(middle, 1, reference(example, log_probs, bundle, criterion))
    draw_lane(middle, 0, best_path(log_probs, bundle, criterion))
    middle.set_ylim(0, 2)
    middle.set_yticks([0.5, 1.5], ["best path", "reference"])

    posteriors = np.exp(log_probs)
    seen = np.union1d(np.flatnonzero(posteriors.max(0) > SEEN), posteriors.argmax(1))
    end_s = len(posteriors) * shift_s
    bottom.imshow(
        posteriors[:, seen].T,
        aspect="auto",
        extent=(0, end_s, len(seen), 0),
        vmin=0,
        vmax=1,
        cmap="Blues",
        interpolation="nearest",
    )
    names = ["blank" if i == BLANK else shown(bundle.labels.symbols[i]) for i in seen]
    bottom.set_yticks(np.arange(len(seen)) + 0.5, names, fontsize=7, parse_math=False)
    bottom.set_xlim(0, duration_s)
    bottom.set_xlabel("seconds")
    return figure


def reference(
    example: Example, log_probs: np.ndarray, bundle: Bundle, criterion: str
) -> list[Segment]:
    """What was said and when; nothing where neither file nor model can tell the times."""
    unit, folding = bundle.label_config.unit, bundle.label_config.fold
    where = f"utterance {example.utterance.id}"
    try:
        known = label_segments(example.utterance, unit, folding) if unit != "char" else []
        if known and all(s.start_s is not None and s.end_s is not None for s in known):
            return known
        if criterion != "ctc":
            return []
        symbols = unit_symbols(example.utterance, unit, folding)
        spans, _, _ = ctc_align(log_probs, bundle.labels.encode(symbols, where))
    except InputError:
        # Dev may hold labels that the model does not know, or more than fit.
        return []
    shift_s = bundle.clock.shift_s
    return [
        Segment(symbol, start * shift_s, end * shift_s)
        for symbol, (start, end) in zip(symbols, spans, strict=True)
    ]


def best_path(log_probs: np.ndarray, bundle: Bundle, criterion: str) -> list[Segment]:
    """The runs of equal labels in the most likely label of each frame, without blanks."""
    shift_s = bundle.clock.shift_s
    found, start = [], 0
    # A framewise model has no blank.
    first = 0 if criterion == "ctc" else 1
    for label, run in groupby(log_probs[:, first:].argmax(1) + first):
        end = start + sum(1 for _ in run)
        if label != BLANK:
            symbol = bundle.labels.symbols[label]
            found.append(Segment(symbol, start * shift_s, end * shift_s))
        start = end
    return found


def draw_lane(axes: Axes, lane: int, segments: list[Segment]) -> None:
    """Named boxes where the segments are."""
    bars = [(s.start_s or 0.0, (s.end_s or 0.0) - (s.start_s or 0.0)) for s in segments]
    axes.broken_barh(bars, (lane + 0.05, 0.9), facecolor="0.85", edgecolor="white")
    for segment, (start_s, length_s) in zip(segments, bars, strict=True):
        write_name(axes, start_s + length_s / 2, lane, shown(segment.label), 7)


def write_name(axes: Axes, middle_s: float, lane: int, name: str, size: float) -> None:
    """Write a name into the middle of a box in a lane, in points."""
    look: dict[str, Any] = {"ha": "center", "va": "center", "parse_math": False, "clip_on": True}
    axes.text(middle_s, lane + 0.5, name, fontsize=size, **look)


def mark_hertz(axes: Axes, config: FeatureConfig) -> None:
    """Mark frequencies on an axis that counts mel bins, each centred on its half (HTK's scale)."""

    def mel(hertz: float) -> float:
        return 2595 * math.log10(1 + hertz / 700)

    low, high = mel(config.min_hz), mel(config.max_hz)
    marks: dict[float, str] = {}
    points_per_bin = axes.bbox.height * 72 / axes.figure.dpi / config.n_mels
    for hertz in HERTZ:
        place = (mel(hertz) - low) / (high - low) * (config.n_mels + 1) - 0.5
        place = min(max(place, 0.0), float(config.n_mels))
        points = (place - max(marks, default=-math.inf)) * points_per_bin
        if config.min_hz <= hertz <= config.max_hz and points > LEAST_APART:
            marks[place] = str(hertz)
    axes.set_ylim(0, config.n_mels)
    axes.set_yticks(list(marks), list(marks.values()))
    axes.set_ylabel("hertz")


def shown(symbol: str) -> str:
    """A symbol that can be seen."""
    return "␣" if symbol == SPACE else symbol
