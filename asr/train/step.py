"""One step of a training: forward, backward, update."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from asr.nets.losses import IGNORE, ctc_loss, framewise_loss, joint_loss
from asr.train.config import LossConfig, RunConfig, TrainerConfig
from asr.train.world import World
from asr.types import Batch


@dataclass(frozen=True)
class Step:
    """What a step was like, over all processes.

    loss: nats per label or labelled frame, of ``n_labels``. gradient_norm: before clipping.
    stopping: some process was asked to stop.
    """

    loss: float
    n_labels: float
    gradient_norm: float
    stopping: bool

    @property
    def is_good(self) -> bool:
        """Whether the model was updated."""
        return math.isfinite(self.loss) and math.isfinite(self.gradient_norm)


@dataclass(frozen=True)
class StepConfig:
    """What a step is like: ``criterion`` is "ctc" or "framewise", ``loss`` has its weights."""

    criterion: str
    loss: LossConfig
    precision: str
    clip_norm: float

    @classmethod
    def of(cls, config: RunConfig, criterion: str) -> StepConfig:
        """As a run is configured."""
        return cls(criterion, config.loss, config.trainer.precision, config.optim.clip_norm)


def step(
    config: StepConfig,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    world: World,
    stop: bool = False,
) -> Step:
    """Forward, backward, clip, update; the update is left out where loss or gradient is not finite.

    ``batch`` is this process' part; without ids it is a filler that counts nothing. The loss is
    the mean over the labels of all parts, so that it does not matter how a batch is cut.
    """
    features, feature_lens, targets, target_lens = (
        t.to(world.device, non_blocking=True)
        for t in (batch.features, batch.feature_lens, batch.targets, batch.target_lens)
    )
    short = config.precision == "bfloat16"
    with torch.autocast(world.device.type, torch.bfloat16, enabled=short):
        log_probs, lens = model(features, feature_lens)
    joint = config.loss.framewise_weight
    if config.criterion == "ctc":
        if joint and batch.frames is not None:
            frames = batch.frames.to(world.device, non_blocking=True)
            loss = joint_loss(log_probs, lens, targets, target_lens, frames, joint)
        else:
            loss = ctc_loss(log_probs, lens, targets, target_lens)
        n_labels = int(batch.target_lens.sum())
    else:
        loss = framewise_loss(log_probs, targets, config.loss.label_smoothing)
        n_labels = int((batch.targets != IGNORE).sum())
    weight = max(n_labels, 1)
    if not batch.ids:
        # Finite whatever the filler's labels are, and still there for the processes to average.
        loss, weight, n_labels = log_probs.sum() * 0, 0, 0
    loss_sum, all_labels, stopping = world.sum(float(loss.detach()) * weight, n_labels, stop)
    mean = loss_sum / max(all_labels, 1)
    optimizer.zero_grad(set_to_none=True)
    norm = math.nan
    if math.isfinite(mean):
        if world.size > 1:
            # DistributedDataParallel takes the mean of the gradients, equal parts or not.
            loss = loss * (world.size * weight / max(all_labels, 1))
        loss.backward()
        total_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        norm = float(total_norm)
        if math.isfinite(norm):
            optimizer.step()
    return Step(mean, all_labels, norm, bool(stopping))


def out_of_memory(config: TrainerConfig, number: int, batch: Batch) -> str:
    """The line that names the batch and the settings to change."""
    n_batch, n_frames = batch.features.shape[:2]
    return (
        f"out of memory in step {number}: a batch of {n_batch} utterances, padded to "
        f"{n_frames} frames each ({' '.join(batch.ids)}); lower "
        f"trainer.max_batch_s={config.max_batch_s:g}, "
        f"trainer.batch_size={config.batch_size} or "
        f"trainer.max_utterance_s={config.max_utterance_s:g} and begin another run"
    )
