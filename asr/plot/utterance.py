"""Pictures of a stretch of audio: waveform, log-mel, posteriors and what was said on one axis.

Up to `ROW_S` seconds are one row; more is wrapped like text, at a scale that leaves it readable.
"""

from __future__ import annotations

import math
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from asr.audio.features import FeatureConfig, LogMel
from asr.audio.windows import Stretch
from asr.errors import InputError, one_line
from asr.labels import BLANK
from asr.model.bundle import Bundle
from asr.plot.colours import distinct_colours
from asr.plot.epoch import mark_hertz, shown, write_name
from asr.plot.said import inside, said
from asr.recognize.recognizer import Recognizer
from asr.system.files import write_aside
from asr.types import Segment, Transcript, Utterance

PICTURES = (".png", ".svg", ".pdf")
#: Seconds in a row at most, and inches: phones of 30 ms still have room for their names.
ROW_S, ROW_WIDTH, LEAST_WIDTH, INCHES_PER_S = 5.0, 16.0, 12.0, 4.0
#: Pictures of more would be too high for their viewers (a PNG has 65535 pixels at most).
MOST_S = 600.0
#: A part is heard with so much around it, as a model of whole utterances needs it.
CONTEXT_S = 10.0
LEFT, RIGHT, TOP, BOTTOM = 1.0, 0.15, 0.45, 0.55
#: Points of text, and the least that can be read.
TEXT, LEAST_TEXT = 9.0, 4.0
#: Width of a letter as a share of its size (DejaVu Sans has 0.61 on average).
LETTER = 0.64
#: A label is named where it is so probable.
NAMED = 0.2
Lane = tuple[str, Sequence[Segment]]
Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Heights:
    """Inches of each panel in a row, and between panels and rows."""

    waveform: float
    log_mel: float
    lane: float
    posteriors: float
    gap: float
    below: float


#: One row has the place to show more.
LARGE = Heights(1.5, 3.0, 0.4, 4.4, 0.12, 0.3)
SMALL = Heights(0.55, 1.1, 0.26, 1.4, 0.09, 0.45)


@dataclass(frozen=True)
class Scene:
    """What there is to draw of some audio; times are those of the whole of it.

    waveform: (N,) at ``features.sample_rate`` from ``first_s`` on. stretches: the posteriors of
    ``bundle``, frames counted from there.
    """

    waveform: NDArray[np.float32]
    first_s: float
    features: FeatureConfig
    lanes: Sequence[Lane] = ()
    bundle: Bundle | None = None
    stretches: Sequence[Stretch] = ()
    image: NDArray[np.float32] = field(init=False)

    def __post_init__(self) -> None:
        # (T, F) -> (F, T)
        object.__setattr__(self, "image", LogMel(self.features)(self.waveform).T)


def plot_audio(
    waveform: np.ndarray,
    out: Path,
    title: str,
    recognizer: Recognizer | None = None,
    first_s: float = 0.0,
    stretch: tuple[float, float] | None = None,
    utterances: Sequence[Utterance] = (),
) -> None:
    """Draw a waveform (N,), its log-mel and, with a recognizer, its posteriors, phones and words.

    ``waveform`` is at the recognizer's sample rate (16 kHz without one), and begins at ``first_s``
    of the audio; only ``stretch`` (from, to) of that is drawn. ``utterances`` tell what was said.

    Raises:
        InputError: ``out`` is no picture or ``stretch`` too long (see `checked`), nobody knows when
            it was said (see `said.said`), or it cannot be written.
    """
    features = recognizer.bundle.features if recognizer else FeatureConfig()
    last_s = first_s + len(waveform) / features.sample_rate
    start_s, end_s = stretch or (first_s, last_s)
    checked(out, end_s - start_s)
    lanes: list[Lane] = []
    stretches: list[Stretch] = []
    if recognizer:
        transcript, stretches = recognizer.traced(waveform)
        lanes = transcript_lanes(transcript, first_s)
        heard = [shown(s.label) for s in inside(lanes[0][1], (start_s, end_s))]
        title = f"{title}: {' '.join(heard)}"
    bundle = recognizer.bundle if recognizer else None
    whole = stretches[0].log_probs if len(stretches) == 1 else None
    known = said(utterances, (first_s, last_s), bundle, whole)
    names = ("words", "letters" if bundle and bundle.labels.unit == "char" else "phones")
    lanes += [
        (f"said: {n}", segments) for n, segments in zip(names, known, strict=True) if segments
    ]
    scene = Scene(waveform, first_s, features, lanes, bundle, stretches)
    figure = drawn(scene, (start_s, end_s), title)
    with write_aside(out) as aside, warnings.catch_warnings():
        # Of characters that the font lacks: boxes in the picture say the same.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(aside, dpi=100)


def checked(out: Path, duration_s: float) -> None:
    """See that a picture of so many seconds can be drawn.

    Raises:
        InputError: its name does not end in .png, .svg or .pdf, or it would be longer than
            `MOST_S`.
    """
    if out.suffix.lower() not in PICTURES:
        raise InputError(f"{out}: expected a name ending in {', '.join(PICTURES)}")
    if duration_s > MOST_S:
        raise InputError(
            f"{out}: {duration_s:.0f} s of audio are too many for a picture, {MOST_S:.0f} s fit; "
            "choose a part with --start and --end"
        )


def rows_of(start_s: float, end_s: float) -> list[tuple[float, float]]:
    """Rows of (from, to) seconds: one, or several of as many whole seconds."""
    duration_s = end_s - start_s
    n_rows = max(1, math.ceil(duration_s / ROW_S))
    if n_rows == 1:
        return [(start_s, end_s)]
    row_s = math.ceil(duration_s / n_rows)
    edges = [start_s + i * row_s for i in range(math.ceil(duration_s / row_s))]
    return list(pairwise([*edges, end_s]))


def drawn(scene: Scene, stretch: tuple[float, float], heading: str) -> Figure:
    """The figure of a stretch (from, to) of a scene, row under row."""
    rows = rows_of(*stretch)
    heights = LARGE if len(rows) == 1 else SMALL
    longest = rows[0][1] - rows[0][0]
    least = LEAST_WIDTH if len(rows) == 1 else ROW_WIDTH
    width = min(max(least, INCHES_PER_S * longest), ROW_WIDTH)
    inner = width - LEFT - RIGHT
    panels = [("waveform", heights.waveform), ("log-mel", heights.log_mel)]
    if scene.lanes:
        panels.append(("lanes", heights.lane * len(scene.lanes)))
    if scene.bundle:
        panels.append(("posteriors", heights.posteriors))
    row_height = sum(h + heights.gap for _, h in panels) + heights.below
    height = TOP + BOTTOM - heights.below + row_height * len(rows)
    figure = Figure(figsize=(width, height))
    # A file's name may hold any bytes, and a dollar in it is no formula.
    heading = one_line(heading).encode("utf-8", "replace").decode("utf-8")
    heading = textwrap.shorten(heading, int(9 * width), placeholder=" ...")
    figure.text(0.5, 1 - 0.2 / height, heading, ha="center", va="center", parse_math=False)
    for i, (start_s, end_s) in enumerate(rows):
        top = height - TOP - i * row_height
        axes: dict[str, Axes] = {}
        for name, panel in panels:
            share = (end_s - start_s) / longest
            low, wide, high = (top - panel) / height, inner * share / width, panel / height
            axes[name] = figure.add_axes((LEFT / width, low, wide, high))
            axes[name].set_xlim(start_s, end_s)
            top -= panel + heights.gap
        _draw_row(axes, scene, 72 * inner / longest)
    axes[panels[-1][0]].set_xlabel("seconds")
    return figure


def _draw_row(axes: dict[str, Axes], scene: Scene, points_per_s: float) -> None:
    for one in list(axes.values())[:-1]:
        one.tick_params(axis="x", labelbottom=False)
    draw_waveform(axes["waveform"], scene)
    draw_log_mel(axes["log-mel"], scene)
    if scene.lanes:
        draw_lanes(axes["lanes"], scene, points_per_s)
    if scene.bundle:
        draw_posteriors(axes["posteriors"], scene, points_per_s)


def draw_waveform(axes: Axes, scene: Scene) -> None:
    """The waveform's envelope in the seconds of ``axes``, 2000 columns at most."""
    rate = scene.features.sample_rate
    start_s, end_s = axes.get_xlim()
    first = round((start_s - scene.first_s) * rate)
    samples = scene.waveform[first : max(round((end_s - scene.first_s) * rate), first + 1)]
    n_columns = min(2000, len(samples))
    columns = np.array_split(samples, n_columns)
    times = np.linspace(start_s, end_s, n_columns)
    low, high = [c.min() for c in columns], [c.max() for c in columns]
    axes.fill_between(times, low, high, color="0.3", linewidth=0.5)
    loudest = float(np.abs(scene.waveform).max()) or 1.0
    axes.set_ylim(-1.05 * loudest, 1.05 * loudest)
    axes.set_ylabel("waveform", fontsize=min(10, axes.bbox.height / 8))
    axes.set_yticks([])


def draw_log_mel(axes: Axes, scene: Scene) -> None:
    """The log-mel spectrogram; each frame lies around its own centre."""
    config, image = scene.features, scene.image
    start_s, end_s = axes.get_xlim()
    hop_s = config.hop_s
    first = max(0, math.floor((start_s - scene.first_s) / hop_s))
    part = image[:, first : math.ceil((end_s - scene.first_s) / hop_s) + 1]
    left = scene.first_s + (first - 0.5) * hop_s
    extent = (left, left + part.shape[1] * hop_s, 0, config.n_mels)
    # Digital silence would take the whole scale: the quietest hundredth shares one colour.
    low, high = float(np.quantile(image, 0.01)), float(image.max())
    axes.imshow(part, origin="lower", aspect="auto", extent=extent, vmin=low, vmax=high)
    axes.set_xlim(start_s, end_s)
    mark_hertz(axes, config)


def draw_posteriors(axes: Axes, scene: Scene, points_per_s: float) -> None:
    """Each label's probability over time; the blank in grey, labels named at their peaks."""
    assert scene.bundle is not None
    clock, criterion = scene.bundle.clock, scene.bundle.criterion
    colours, symbols = label_colours(scene.bundle), scene.bundle.labels.symbols
    peaks: list[tuple[float, float, str]] = []
    for first, last, log_probs in _visible(axes, scene):
        times = scene.first_s + np.array([clock.centre_s(frame) for frame in range(first, last)])
        probabilities = np.exp(log_probs)
        for label, symbol in enumerate(symbols):
            curve = probabilities[:, label]
            if label == BLANK:
                if criterion == "ctc":
                    axes.fill_between(times, curve, color="0.9", linewidth=0)
            elif curve.max() > NAMED:
                axes.plot(times, curve, linewidth=1.3, color=colours[symbol])
                peaks += [(curve[at], times[at], symbol) for at in peaks_of(curve)]
    start_s, end_s = axes.get_xlim()
    named = [peak for peak in peaks if start_s <= peak[1] < end_s]
    _name_peaks(axes, named, colours, points_per_s)
    axes.set_yticks([0, 0.5, 1])
    axes.set_ylabel("probability" + ("\n(grey: blank)" if criterion == "ctc" else ""))


def _visible(axes: Axes, scene: Scene) -> Iterator[tuple[int, int, NDArray[np.float32]]]:
    """Frames (first, last + 1, log_probs) of the posteriors in the seconds of ``axes``."""
    assert scene.bundle is not None
    start_s, end_s = (x - scene.first_s for x in axes.get_xlim())
    for stretch in scene.stretches:
        # A frame more on either side, so that curves reach the edges.
        begin = math.floor(start_s / scene.bundle.clock.shift_s) - 1 - stretch.first
        end = math.ceil(end_s / scene.bundle.clock.shift_s) + 1 - stretch.first
        begin, end = max(0, begin), min(len(stretch.log_probs), end)
        if begin < end:
            yield stretch.first + begin, stretch.first + end, stretch.log_probs[begin:end]


def peaks_of(curve: NDArray[np.floating]) -> list[int]:
    """The highest place of each run above `NAMED`."""
    best = curve > NAMED
    firsts = np.flatnonzero(best & ~np.r_[False, best[:-1]])
    lasts = [first + np.argmin(np.r_[best[first:], False]) for first in firsts]
    return [
        int(first + curve[first:last].argmax()) for first, last in zip(firsts, lasts, strict=True)
    ]


def _name_peaks(
    axes: Axes,
    peaks: Sequence[tuple[float, float, str]],
    colours: Mapping[str, Colour],
    points_per_s: float,
) -> None:
    """Name peaks (probability, seconds, label) above them, higher where another name is.

    The probable ones come first; where two names are above each other, a third has no place.
    """
    above = 2 * TEXT + 6
    room = axes.bbox.height * 72 / axes.figure.dpi - above
    axes.set_ylim(0, 1 + above / room)
    placed: list[tuple[float, float, float]] = []
    for height, time, symbol in sorted(peaks, reverse=True):
        name = shown(symbol)
        x, y, half = time * points_per_s, height * room + 2, TEXT * LETTER * len(name) / 2
        while others := [b for a, b, h in placed if abs(x - a) < half + h and abs(y - b) < TEXT]:
            y = max(others) + TEXT + 0.1
        lift = y - height * room
        if lift > 2 * TEXT:
            continue
        placed.append((x, y, half))
        axes.annotate(
            name,
            (time, height),
            xytext=(0, lift),
            textcoords="offset points",
            ha="center",
            color=colours[symbol],
            fontsize=TEXT,
            parse_math=False,
        )


def label_colours(bundle: Bundle) -> dict[str, Colour]:
    """The colour of each label of a model."""
    colours = distinct_colours()
    return {s: colours[i % len(colours)] for i, s in enumerate(bundle.labels.symbols[1:])}


def transcript_lanes(transcript: Transcript, start_s: float = 0.0) -> list[Lane]:
    """The transcript's words and labels by name, as far as there are any, ``start_s`` later."""
    unit = {"phone": "phones", "char": "letters"}.get(transcript.unit, "words")
    lanes = {"words": transcript.words, unit: transcript.labels}
    return [
        (name, [_later(s, start_s) for s in segments])
        for name, segments in lanes.items()
        if segments
    ] or [(unit, ())]


def _later(segment: Segment, seconds: float) -> Segment:
    start_s, end_s = segment.start_s or 0.0, segment.end_s or 0.0
    return replace(segment, start_s=start_s + seconds, end_s=end_s + seconds)


def draw_lanes(axes: Axes, scene: Scene, points_per_s: float) -> None:
    """Boxes with the names of words and labels, where they are said; labels in their colours."""
    colours = label_colours(scene.bundle) if scene.bundle else {}
    left_s, right_s = axes.get_xlim()
    for lane, (name, segments) in enumerate(reversed(scene.lanes)):
        for segment in segments:
            # What is cut by the row's end has its name in both parts.
            start_s = max(segment.start_s or 0.0, left_s)
            width_s = min(segment.end_s or 0.0, right_s) - start_s
            if width_s <= 0:
                continue
            colour = "tab:blue" if name.endswith("words") else colours.get(segment.label, "0.5")
            place, band = [(start_s, width_s)], (lane + 0.06, 0.88)
            axes.broken_barh(place, band, facecolor=colour, edgecolor="white", alpha=0.25)
            text = shown(segment.label)
            size = min(TEXT, width_s * points_per_s / (LETTER * max(1, len(text))))
            if size >= LEAST_TEXT:
                write_name(axes, start_s + width_s / 2, lane, text, size)
    axes.set_xlim(left_s, right_s)
    axes.set_ylim(0, len(scene.lanes))
    names = [name for name, _ in reversed(scene.lanes)]
    axes.set_yticks([i + 0.5 for i in range(len(names))], names)
    axes.tick_params(axis="both", length=0)
    for side in axes.spines.values():
        side.set_visible(False)
