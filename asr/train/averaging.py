"""Averages of a model's weights over a training, which are often better than the last weights.

Both kinds offer what resuming takes as named tensors (``state``) and take it back (``load``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from asr.system.interrupts import deferred


def weights_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Everything of the model that is averaged: its floating-point parameters and buffers."""
    return {k: t for k, t in model.state_dict().items() if t.is_floating_point()}


@contextmanager
def in_place_of(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Let ``model`` have other ``weights`` for a while; its own come back bit for bit."""
    own = {k: t.clone() for k, t in weights_of(model).items()}
    try:
        model.load_state_dict(weights, strict=False)
        yield
    finally:
        # Stopped halfway, a training would save a model of two halves.
        with deferred():
            model.load_state_dict(own, strict=False)


class MovingAverage:
    """Exponential moving average of the weights, one update a step (Polyak & Juditsky 1992).

    The n-th update keeps min(``decay``, (1 + n) / (10 + n)) of the average, so that the weights
    of the first steps are soon forgotten (as TensorFlow's ExponentialMovingAverage).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.n_updates = 0
        self.weights = {k: t.clone() for k, t in weights_of(model).items()}

    def update(self, model: nn.Module) -> None:
        """Take in the weights after a step."""
        self.n_updates += 1
        keep = min(self.decay, (1 + self.n_updates) / (10 + self.n_updates))
        now = weights_of(model)
        torch._foreach_lerp_(list(self.weights.values()), [now[k] for k in self.weights], 1 - keep)

    def state(self) -> dict[str, torch.Tensor]:
        """All that `load` takes."""
        return {"n_updates": torch.tensor(self.n_updates)} | {
            f"weights.{k}": t for k, t in self.weights.items()
        }

    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """Go on from what `state` gave."""
        self.n_updates = int(state["n_updates"])
        for name, weight in self.weights.items():
            weight.copy_(state[f"weights.{name}"])


class Snapshots:
    """The weights after some epochs, the last or the best ``most`` of them, to be averaged.

    As Kaldi's nnet3-combine and Vaswani et al. 2017 do with the last checkpoints.
    """

    def __init__(self, most: int, best: bool) -> None:
        self.most, self.best = most, best
        self.kept: dict[int, tuple[float, dict[str, torch.Tensor]]] = {}

    def add(self, epoch: int, rate: float, weights: Mapping[str, torch.Tensor]) -> None:
        """Keep a copy of ``weights`` where ``epoch`` is among the last (or ``rate`` the lowest)."""
        if not self.most:
            return
        self.kept[epoch] = (rate, {k: t.detach().cpu().clone() for k, t in weights.items()})
        if len(self.kept) > self.most:
            first = min(self.kept)
            # Of equally good epochs the earlier goes.
            worst = max(self.kept, key=lambda e: (self.kept[e][0], -e))
            del self.kept[worst if self.best else first]

    def average(self) -> dict[str, torch.Tensor]:
        """The mean of what was kept."""
        sums: dict[str, torch.Tensor] = {}
        for _, weights in self.kept.values():
            for name, weight in weights.items():
                sums[name] = sums[name] + weight.double() if name in sums else weight.double()
        return {name: (total / len(self.kept)).float() for name, total in sums.items()}

    def state(self) -> dict[str, torch.Tensor]:
        """All that `load` takes."""
        tensors = {}
        for epoch, (rate, weights) in self.kept.items():
            tensors[f"{epoch}.rate"] = torch.tensor(rate, dtype=torch.float64)
            tensors |= {f"{epoch}.weights.{name}": weight for name, weight in weights.items()}
        return tensors

    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """Go on from what `state` gave."""
        self.kept = {}
        for epoch in sorted({int(name.partition(".")[0]) for name in state}):
            prefix = f"{epoch}.weights."
            weights = {k.removeprefix(prefix): t for k, t in state.items() if k.startswith(prefix)}
            self.kept[epoch] = (float(state[f"{epoch}.rate"]), weights)
