"""How long utterances last."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from asr.errors import InputError
from asr.plot.utterance import PICTURES
from asr.system.files import write_aside


def draw_durations(durations_s: Sequence[float], path: Path) -> None:
    """A histogram of durations in seconds, in the format of the path's suffix.

    Raises:
        InputError: ``path`` does not end in .png, .svg or .pdf, or cannot be written.
    """
    if path.suffix.lower() not in PICTURES:
        raise InputError(f"{path}: expected a name ending in {', '.join(PICTURES)}")
    figure = Figure(figsize=(8, 4.5), dpi=100, layout="constrained")
    axes = figure.subplots()
    axes.hist(durations_s, bins=50, color="#1f4e9c")
    axes.set_xlabel("seconds")
    axes.set_ylabel("utterances")
    axes.set_title(f"{len(durations_s)} utterances, {sum(durations_s) / 3600:.2f} hours")
    with write_aside(path) as aside:
        figure.savefig(aside)
