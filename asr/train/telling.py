"""What a training tells of itself: metrics, lines of the log, the progress bar and TensorBoard."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

from asr.model.emissions import emissions
from asr.score.error_rate import RATE_NAMES
from asr.train.averaging import in_place_of
from asr.train.config import RunConfig
from asr.train.rundir import log, open_tensorboard
from asr.train.state import State, Totals, Training

#: A greedy output with more blank than this has hardly any label in it.
ALL_BLANK = 0.98
#: Share of the training time that pictures for TensorBoard may take: where epochs last seconds, not
#: every one of them gets its picture.
DRAWING = 0.02


def epoch_metrics(
    training: Training, totals: Totals, criterion: str, rate: float, blanks: float
) -> dict[str, Any]:
    """A line of metrics.jsonl: the sums over an epoch's steps as means and rates, and dev.

    skipped: utterances of train that are left out, as found until then; skipped.json says why.
    """
    config, state = training.config, training.state
    return {
        "epoch": state.epoch,
        "criterion": criterion,
        "loss": totals.loss / max(totals.n_labels, 1),
        f"dev_{RATE_NAMES[config.labels.unit]}": rate,
        "blank_rate": blanks,
        "lr": totals.lr,
        "gradient_norm": totals.gradient_norm / max(totals.n_good, 1),
        "audio_s_per_s": totals.frames * config.features.hop_s / totals.wall_s,
        "labels_per_s": totals.n_labels / totals.wall_s,
        "waiting": totals.waited_s / totals.wall_s,
        "padding": 1 - totals.frames / totals.padded_frames,
        "skipped": len(training.skipped["train"]),
        "bad_steps": state.bad_steps,
        "wall_s": state.trained_s,
    }


def log_epoch(config: RunConfig, metrics: dict[str, Any], is_best: bool) -> None:
    """Tell how an epoch went."""
    rate_name = RATE_NAMES[config.labels.unit]
    log.info(
        "epoch %d/%d  %s loss %.3f  dev %s %.2f %%%s  blank %.0f %%  lr %.2g  gradient %.2f  "
        "%.0f x real time  %.0f labels/s  waiting %.1f %%  padding %.1f %%  skipped %d",
        metrics["epoch"],
        config.trainer.max_epochs,
        metrics["criterion"],
        metrics["loss"],
        rate_name,
        100 * metrics[f"dev_{rate_name}"],
        " *" if is_best else "",
        100 * metrics["blank_rate"],
        metrics["lr"],
        metrics["gradient_norm"],
        metrics["audio_s_per_s"],
        metrics["labels_per_s"],
        100 * metrics["waiting"],
        100 * metrics["padding"],
        metrics["skipped"],
    )
    if metrics["criterion"] == "ctc" and metrics["blank_rate"] > ALL_BLANK:
        log.info(
            "nearly every frame is blank: CTC's usual first phase, over within a few epochs; "
            "if it stays, raise optim.lr or begin with loss.framewise_epochs"
        )


def how_it_goes(config: RunConfig, state: State) -> str:
    """What stands beside the progress bar."""
    totals, best = state.totals, ""
    if state.best_rate is not None:
        best = f"best dev {RATE_NAMES[config.labels.unit]} {100 * state.best_rate:.1f} %  "
    return (
        f"loss {totals.loss / max(totals.n_labels, 1):.3f}  {best}"
        f"{totals.frames * config.features.hop_s / totals.wall_s:.0f} x real time  "
        f"waiting {100 * totals.waited_s / totals.wall_s:.0f} %"
    )


@contextmanager
def board(training: Training) -> Iterator[Callable[[dict[str, Any]], None]]:
    """What shows an epoch's metrics in TensorBoard, with a picture now and then; rank 0 does."""
    if not training.world.is_main:
        yield lambda metrics: None
        return
    drawing_s = 0.0

    def show(metrics: dict[str, Any]) -> None:
        nonlocal drawing_s
        for name, value in metrics.items():
            if name not in ("epoch", "criterion"):
                tensorboard.add_scalar(name, value, metrics["epoch"])
        if drawing_s <= DRAWING * training.state.trained_s:
            began = time.perf_counter()
            with in_place_of(training.model, training.weights):
                add_picture(tensorboard, training, metrics["criterion"])
            drawing_s += time.perf_counter() - began

    # Its thread must not outlive the interpreter.
    with closing(open_tensorboard(training.run, training.state.epoch)) as tensorboard:
        yield show


def add_picture(tensorboard: Any, training: Training, criterion: str) -> None:
    """Show in TensorBoard what the model hears in an utterance of dev, the one of median length."""
    # Matplotlib takes a while to import, which commands that only read a run need not wait for.
    from asr.plot.epoch import picture

    dev, bundle = training.scored["dev"], training.bundle
    example = sorted(dev, key=lambda e: len(e.features))[len(dev) // 2]
    (log_probs,) = emissions(bundle, [example]).values()
    figure = picture(example, log_probs, bundle, criterion)
    tensorboard.add_figure("dev", figure, training.state.epoch)
