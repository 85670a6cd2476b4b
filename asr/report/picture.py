"""Pictures of one utterance: waveform, log-mel and posteriors on one time axis."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from asr.errors import InputError, one_line
from asr.features import FeatureConfig, LogMel
from asr.files import write_aside
from asr.labels import BLANK, SPACE
from asr.recognizer import Recognizer
from asr.types import Segment, Transcript

PICTURES = (".png", ".svg", ".pdf")


def plot_audio(
    waveform: np.ndarray, out: Path, title: str, recognizer: Recognizer | None = None
) -> None:
    """Draw a waveform (N,), its log-mel and, with a recognizer, its posteriors, phones and words.

    ``waveform`` is at the recognizer's sample rate (16 kHz without one).

    Raises:
        InputError: ``out`` does not end in .png, .svg or .pdf, or cannot be written.
    """
    if out.suffix.lower() not in PICTURES:
        raise InputError(f"{out}: expected a name ending in {', '.join(PICTURES)}")
    features = recognizer.bundle.features if recognizer else FeatureConfig()
    duration_s = len(waveform) / features.sample_rate
    transcript = recognizer.recognize([("", waveform)])[0] if recognizer else None
    lanes = transcript_lanes(transcript) if transcript else []
    heights = [1.0, 2.0] + [0.25 * len(lanes), 3.0] * bool(recognizer)
    # Wide enough for the names of phones, and still a size that viewers open.
    width = min(max(12.0, 4.0 * duration_s), 60.0)
    figure = Figure(figsize=(width, 1.6 * sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    heading = f"{title}: {transcript.text}" if transcript else title
    # A file's name may hold any bytes, and a dollar in it is no formula.
    heading = one_line(heading).encode("utf-8", "replace").decode("utf-8")
    figure.suptitle(textwrap.shorten(heading, int(9 * width), placeholder=" ..."), parse_math=False)
    draw_waveform(axes[0], waveform, duration_s)
    draw_log_mel(axes[1], waveform, features)
    if recognizer:
        (log_probs,) = recognizer.emissions([waveform])
        draw_lanes(axes[2], lanes)
        draw_posteriors(axes[3], log_probs, recognizer)
    axes[-1].set_xlim(0, duration_s)
    axes[-1].set_xlabel("seconds")
    with write_aside(out) as aside, warnings.catch_warnings():
        # Of characters that the font lacks: boxes in the picture say the same.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(aside, dpi=100)


def draw_waveform(axes: Axes, waveform: np.ndarray, duration_s: float) -> None:
    """The waveform's envelope, 2000 columns at most."""
    n_columns = min(2000, len(waveform))
    columns = np.array_split(waveform, n_columns)
    times = np.linspace(0, duration_s, n_columns)
    low, high = [c.min() for c in columns], [c.max() for c in columns]
    axes.fill_between(times, low, high, color="0.3", linewidth=0.5)
    axes.set_ylabel("waveform")
    axes.set_yticks([])


def draw_log_mel(axes: Axes, waveform: np.ndarray, config: FeatureConfig) -> None:
    """The log-mel spectrogram; each frame lies around its own centre."""
    features, _ = LogMel(config)(torch.from_numpy(waveform)[None], torch.tensor([len(waveform)]))
    image = features[0].numpy().T
    half_s = config.hop_length / config.sample_rate / 2
    extent = (-half_s, (2 * image.shape[1] - 1) * half_s, 0, config.n_mels)
    # Digital silence would take the whole scale: the quietest hundredth shares one colour.
    axes.imshow(image, origin="lower", aspect="auto", extent=extent, vmin=np.quantile(image, 0.01))
    axes.set_ylabel("log-mel bin")


def draw_posteriors(axes: Axes, log_probs: np.ndarray, recognizer: Recognizer) -> None:
    """Each label's probability over time; the blank in grey, labels named at their peaks."""
    times = [recognizer.bundle.clock.centre_s(frame) for frame in range(len(log_probs))]
    probabilities = np.exp(log_probs)
    for label, symbol in enumerate(recognizer.bundle.labels.symbols):
        curve = probabilities[:, label]
        if label == BLANK:
            axes.fill_between(times, curve, color="0.9", linewidth=0, label="blank")
        elif curve.max() > 0.2:
            (line,) = axes.plot(times, curve, linewidth=1.3)
            best = curve > 0.2
            for first in np.flatnonzero(best & ~np.r_[False, best[:-1]]):
                last = first + np.argmin(np.r_[best[first:], False])
                peak = first + int(curve[first:last].argmax())
                axes.annotate(
                    "␣" if symbol == SPACE else symbol,
                    (times[peak], curve[peak]),
                    xytext=(0, 3),
                    textcoords="offset points",
                    ha="center",
                    color=line.get_color(),
                    fontsize=9,
                    parse_math=False,
                )
    axes.set_ylim(0, 1.12)
    axes.set_ylabel("probability")
    axes.legend(loc="upper right", frameon=False)


def transcript_lanes(transcript: Transcript) -> list[tuple[str, tuple[Segment, ...]]]:
    """The transcript's words and labels by name, as far as there are any."""
    unit = {"phone": "phones", "char": "letters"}.get(transcript.unit, "words")
    lanes = {"words": transcript.words, unit: transcript.labels}
    return [(name, segments) for name, segments in lanes.items() if segments] or [(unit, ())]


def draw_lanes(axes: Axes, lanes: Sequence[tuple[str, tuple[Segment, ...]]]) -> None:
    """Boxes with the names of words and labels, where they are said."""
    for lane, (_, segments) in enumerate(reversed(lanes)):
        for segment in segments:
            start_s, end_s = segment.start_s or 0.0, segment.end_s or 0.0
            axes.broken_barh(
                [(start_s, end_s - start_s)],
                (lane + 0.06, 0.88),
                facecolor="tab:blue",
                edgecolor="white",
                alpha=0.2,
            )
            axes.text(
                (start_s + end_s) / 2,
                lane + 0.5,
                "␣" if segment.label == SPACE else segment.label,
                ha="center",
                va="center",
                fontsize=9,
                parse_math=False,
                clip_on=True,
            )
    axes.set_ylim(0, len(lanes))
    axes.set_yticks([i + 0.5 for i in range(len(lanes))], [name for name, _ in reversed(lanes)])
    axes.tick_params(axis="y", length=0)
    for side in axes.spines.values():
        side.set_visible(False)
