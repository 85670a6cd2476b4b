"""The optimizer, and the learning rate: a function of the epoch, save for what the plateau adds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from asr.nets.acoustic import layer_of
from asr.train.config import OPTIMIZERS, OptimConfig
from asr.train.state import State

# One-cycle (Smith 2018) with the figures of torch's OneCycleLR: where the rate begins and ends as
# shares of its peak, and Adam's first moment, which falls while the rate rises.
ONE_CYCLE_START, ONE_CYCLE_END = 1 / 25, 1 / 25e4
ONE_CYCLE_BETA_HIGH, ONE_CYCLE_BETA_LOW = 0.95, 0.85


def new_optimizer(
    config: OptimConfig, model: nn.Module, shares: Mapping[str, float] | None = None
) -> torch.optim.Optimizer:
    """The configured optimizer of the model's weights.

    shares: of the learning rate, by layer (`layer_of`); the others' is 1.
    """
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        share = (shares or {}).get(layer_of(name), 1.0)
        groups.setdefault(share, []).append(parameter)
    kind = OPTIMIZERS[config.name]
    return kind(
        [{"params": parameters, "share": share} for share, parameters in groups.items()],
        lr=config.lr,
        weight_decay=config.weight_decay,
        fused=True,
    )


@dataclass(frozen=True)
class Schedule:
    """The learning rate over a training of ``n_epochs``, at any (fractional) epoch of it."""

    config: OptimConfig
    n_epochs: int

    def rate(self, epoch: float, scale: float) -> float:
        """Linear warm-up, then the schedule towards zero; ``scale`` is what a plateau left."""
        config = self.config
        if config.schedule == "one_cycle":
            floor = ONE_CYCLE_START if self.is_rising(epoch) else ONE_CYCLE_END
            return config.lr * (floor + (1 - floor) * self.height(epoch))
        if epoch < config.warmup_epochs:
            # Not from zero: a first step with rate 0 would be a step for nothing.
            return config.lr * max(epoch / config.warmup_epochs, 0.01)
        done = (epoch - config.warmup_epochs) / max(self.n_epochs - config.warmup_epochs, 1e-9)
        if config.schedule == "linear":
            return config.lr * (1 - done)
        if config.schedule == "cosine":
            return config.lr * 0.5 * (1 + math.cos(math.pi * done))
        return config.lr * scale

    def is_rising(self, epoch: float) -> bool:
        """Whether a cycle is still on its way to the peak."""
        return epoch < self.config.one_cycle_rise * self.n_epochs

    def height(self, epoch: float) -> float:
        """How high a cycle stands, 0 to 1: up to the peak and down, by half cosines."""
        last = self.n_epochs
        peak = self.config.one_cycle_rise * last
        share = epoch / peak if self.is_rising(epoch) else (last - epoch) / (last - peak)
        return 0.5 * (1 - math.cos(math.pi * share))

    def apply(self, optimizer: torch.optim.Optimizer, epoch: float, scale: float) -> float:
        """Give the optimizer its rate, which is returned; under one-cycle Adam's moment, too."""
        rate = self.rate(epoch, scale)
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("share", 1.0)
            if self.config.schedule == "one_cycle":
                drop = (ONE_CYCLE_BETA_HIGH - ONE_CYCLE_BETA_LOW) * self.height(epoch)
                group["betas"] = (ONE_CYCLE_BETA_HIGH - drop, group["betas"][1])
        return rate


def rate_of_extension(config: OptimConfig, state: State, old_end: int, end: int) -> str:
    """A line on the rate in a run that has got to epoch ``old_end`` and goes on to ``end``."""
    now = Schedule(config, end).rate(state.epoch, state.lr_scale)
    if config.schedule in ("constant", "plateau"):
        return f"extended from {old_end} to {end} epochs: the learning rate stays at {now:.2g}"
    return (
        f"extended from {old_end} to {end} epochs: the learning rate, which had fallen to "
        f"{Schedule(config, old_end).rate(old_end, state.lr_scale):.2g}, begins again at "
        f"{now:.2g}, where optim.schedule={config.schedule} over {end} epochs has it now; a run of "
        f"{end} epochs from the start would have had other rates before"
    )


def follow_plateau(config: OptimConfig, state: State, is_best: bool) -> None:
    """Under schedule=plateau, lower the rate after ``plateau_epochs`` epochs without a best."""
    state.since_plateau = 0 if is_best else state.since_plateau + 1
    if config.schedule == "plateau" and state.since_plateau >= config.plateau_epochs:
        state.lr_scale *= config.plateau_factor
        state.since_plateau = 0
