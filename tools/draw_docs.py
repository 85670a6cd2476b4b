"""Draw beam.png, alignment.png and resumption.png of docs/images from what `asr demo` left.

python tools/draw_docs.py demo
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

import asr
from asr.decode.paths import ctc_align
from asr.labels import fold
from asr.types import Hypothesis

IMAGES = Path(__file__).parents[1] / "docs/images"
SENTENCE = "TEST/DR1/FANDREA/SX10"
#: Frames and prefixes that the picture of the beam shows.
FIRST, LAST, N_SHOWN = 72, 86, 6
EPOCHS = 8
#: After so many of them the second run is killed.
KILLED = (2, 5)


def main(demo: Path) -> None:
    """Write the three pictures."""
    recognizer = asr.Recognizer.load(demo / "run")
    waveform = asr.load_audio(demo / f"corpus/{SENTENCE}.WAV")
    (log_probs,) = recognizer.emissions([waveform])
    labels = recognizer.bundle.labels
    save(beam(log_probs, labels), "beam")
    said = [line.split()[2] for line in (demo / f"corpus/{SENTENCE}.PHN").read_text().splitlines()]
    folded = fold(said, recognizer.bundle.label_config.fold)
    save(alignment(log_probs, labels, folded), "alignment")
    with tempfile.TemporaryDirectory() as folder:
        save(resumption(demo, Path(folder)), "resumption")


def beam(log_probs: NDArray[np.float32], labels: asr.Labels) -> Figure:
    """The likeliest prefixes after each frame, each joined to the one it came from."""
    figure = Figure((11, 3.2), layout="constrained")
    axes = figure.add_subplot()
    options = asr.BeamOptions(nbest=N_SHOWN)
    before: list[Hypothesis] = []
    for t in range(FIRST, LAST):
        found = asr.beam_search(log_probs[: t + 1], options)
        best = found[0].acoustic
        for rank, hypothesis in enumerate(found):
            share = float(np.exp(hypothesis.acoustic - best))
            shade = str(0.85 * (1 - share**0.25))
            text = " ".join(labels.symbols[i] for i in hypothesis.labels[-4:])
            axes.text(t, rank, text, ha="center", va="center", fontsize=6.5, color=shade)
            parents = (hypothesis.labels, hypothesis.labels[:-1])
            came = [r for r, old in enumerate(before) if old.labels in parents]
            for old in came[:1]:
                axes.plot([t - 0.6, t - 0.4], [old, rank], color=shade, linewidth=1)
        before = found
    axes.set(xlim=(FIRST - 0.6, LAST - 0.4), ylim=(N_SHOWN - 0.4, -0.6), xlabel="frame")
    axes.set_ylabel("prefixes, best first\n(their last four labels)")
    plain(axes)
    axes.set_yticks([])
    return figure


def alignment(log_probs: NDArray[np.float32], labels: asr.Labels, phones: list[str]) -> Figure:
    """Probability of each of the text's phones over the frames, and the best path."""
    ids = labels.encode(phones)
    spans, _, _ = ctc_align(log_probs, ids)
    figure = Figure((10, 4.6), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(
        np.exp(log_probs[:, ids]).T, aspect="auto", origin="lower", cmap="Greys", vmin=0, vmax=1
    )
    ends = [*(start for start, _ in spans[1:]), len(log_probs)]
    steps = [
        [(start - 0.5, u), (end - 0.5, u), (end - 0.5, min(u + 1, len(ids) - 1))]
        for u, ((start, _), end) in enumerate(zip(spans, ends, strict=True))
    ]
    axes.add_collection(LineCollection(steps, colors="tab:red", linewidths=1.2))
    axes.set_yticks(range(len(ids)), phones, fontsize=7)
    axes.set_xlabel("frame")
    plain(axes)
    return figure


def resumption(demo: Path, folder: Path) -> Figure:
    """Loss by epoch of a run that went through and of one that was killed twice."""
    through, killed = folder / "through", folder / "killed"
    train(demo, through)
    for done in KILLED:
        process = subprocess.Popen(command(demo, killed))
        while len(losses(killed)) < done:
            if process.poll() is not None:
                sys.exit(f"asr train ended with status {process.returncode}")
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
    train(demo, killed)
    figure = Figure((6, 3.2), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(range(1, EPOCHS + 1), losses(through), color="0.6", linewidth=4, label="in one go")
    axes.plot(
        range(1, EPOCHS + 1),
        losses(killed),
        "o-",
        color="tab:red",
        markersize=4,
        linewidth=1,
        label="killed twice, resumed",
    )
    for n, done in enumerate(KILLED):
        axes.axvline(done + 0.5, color="tab:red", linestyle=":", label="" if n else "killed")
    axes.set(xlabel="epoch", ylabel="loss, nats a label")
    axes.legend(frameon=False)
    plain(axes)
    same = (through / "model/weights.safetensors").read_bytes() == (
        killed / "model/weights.safetensors"
    ).read_bytes()
    print(f"weights of both runs: {'equal, byte for byte' if same else 'DIFFERENT'}")
    return figure


def train(demo: Path, run: Path) -> None:
    """Train the picture's small recipe."""
    subprocess.run(command(demo, run), check=True)


def command(demo: Path, run: Path) -> list[str]:
    """Begin the run, or go on with it."""
    start = [sys.executable, "-m", "asr", "train"]
    if run.exists():
        return [*start, str(run), "--resume"]
    return [
        *start,
        "recipes/demo/ctc.yaml",
        f"corpus.root={demo / 'corpus'}",
        f"run_dir={run}",
        "model.hidden=48",
        f"trainer.max_epochs={EPOCHS}",
    ]


def losses(run: Path) -> list[float]:
    """Of the epochs that are done."""
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line)["loss"] for line in lines]


def plain(axes: Axes) -> None:
    """No frame above and to the right."""
    axes.spines[["top", "right"]].set_visible(False)


def save(figure: Figure, name: str) -> None:
    """As PNG for the pages."""
    figure.savefig(IMAGES / f"{name}.png", dpi=110)
    print(os.fspath(IMAGES / f"{name}.png"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
