"""The optimizer, and the learning rate: a function of the epoch, save for what the plateau adds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import nn

from asr.nets.acoustic import layer_of
from asr.train.config import OPTIMIZERS, OptimConfig, RunConfig
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


def learning_rate(config: RunConfig, state: State, epoch: float) -> float:
    """The rate at a (fractional) epoch: linear warm-up, then the schedule towards zero."""
    optim, last = config.optim, config.trainer.max_epochs
    if optim.schedule == "one_cycle":
        risen = cycle(config, epoch)
        floor = ONE_CYCLE_START if rising(config, epoch) else ONE_CYCLE_END
        return optim.lr * (floor + (1 - floor) * risen)
    if epoch < optim.warmup_epochs:
        # Not from zero: a first step with rate 0 would be a step for nothing.
        return optim.lr * max(epoch / optim.warmup_epochs, 0.01)
    done = (epoch - optim.warmup_epochs) / max(last - optim.warmup_epochs, 1e-9)
    if optim.schedule == "linear":
        return optim.lr * (1 - done)
    if optim.schedule == "cosine":
        return optim.lr * 0.5 * (1 + math.cos(math.pi * done))
    return optim.lr * state.lr_scale


def rate_of_extension(config: RunConfig, state: State, old_end: int) -> str:
    """A line on the rate in a run that has got to epoch ``old_end`` and now goes on from there."""
    schedule, end = config.optim.schedule, config.trainer.max_epochs
    now = learning_rate(config, state, state.epoch)
    if schedule in ("constant", "plateau"):
        return f"extended from {old_end} to {end} epochs: the learning rate stays at {now:.2g}"
    ending = replace(config, trainer=replace(config.trainer, max_epochs=old_end))
    return (
        f"extended from {old_end} to {end} epochs: the learning rate, which had fallen to "
        f"{learning_rate(ending, state, old_end):.2g}, begins again at {now:.2g}, where "
        f"optim.schedule={schedule} over {end} epochs has it now; a run of {end} epochs from the "
        f"start would have had other rates before"
    )


def rising(config: RunConfig, epoch: float) -> bool:
    """Whether a cycle is still on its way to the peak."""
    return epoch < config.optim.one_cycle_rise * config.trainer.max_epochs


def cycle(config: RunConfig, epoch: float) -> float:
    """How high a cycle stands at an epoch, 0 to 1: up to the peak and down, by half cosines."""
    last = config.trainer.max_epochs
    peak = config.optim.one_cycle_rise * last
    share = epoch / peak if rising(config, epoch) else (last - epoch) / (last - peak)
    return 0.5 * (1 - math.cos(math.pi * share))


def set_rate(
    optimizer: torch.optim.Optimizer, config: RunConfig, rate: float, epoch: float
) -> None:
    """Give the optimizer its learning rate, and under one-cycle Adam's first moment."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("share", 1.0)
        if config.optim.schedule == "one_cycle":
            drop = (ONE_CYCLE_BETA_HIGH - ONE_CYCLE_BETA_LOW) * cycle(config, epoch)
            group["betas"] = (ONE_CYCLE_BETA_HIGH - drop, group["betas"][1])


def follow_plateau(optim: OptimConfig, state: State, is_best: bool) -> None:
    """Under schedule=plateau, lower the rate after ``plateau_epochs`` epochs without a best."""
    state.since_plateau = 0 if is_best else state.since_plateau + 1
    if optim.schedule == "plateau" and state.since_plateau >= optim.plateau_epochs:
        state.lr_scale *= optim.plateau_factor
        state.since_plateau = 0
