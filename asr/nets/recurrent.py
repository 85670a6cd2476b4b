"""Stacks of recurrent layers over padded batches, exact for every length."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from asr.audio.features import mask_padding, stack_frames
from asr.errors import InputError
from asr.nets.cells import CELLS, Cell
from asr.system.settings import check, setting

MOST_LAYERS, MOST_UNITS = 64, 16_384
#: Frames that a pyramid of layers may join to one.
MOST_JOINED = 1024


@dataclass
class RecurrentConfig:
    """A stack of recurrent layers.

    The dropouts, drop_connect and weight_noise act in training alone.
    """

    cell: str = setting("lstm", "what the layers are made of", choices=tuple(CELLS))
    layers: int = setting(3, "recurrent layers", 1, MOST_LAYERS)
    hidden: int = setting(256, "units of a layer in each direction", 1, MOST_UNITS)
    units: tuple[int, ...] = setting(
        (), "widths of the layers one by one, instead of layers times hidden", 1, MOST_UNITS
    )
    bidirectional: bool = setting(True, "read the audio in both directions")
    conv: tuple[int, ...] = setting(
        (), "channels of the convolutions before the first layer", 1, MOST_UNITS
    )
    between: tuple[int, ...] = setting(
        (), "widths of the MLP after each recurrent layer but the last", 1, MOST_UNITS
    )
    after: tuple[int, ...] = setting((), "widths of the MLP after the last", 1, MOST_UNITS)
    subsample: tuple[int, ...] = setting(
        (),
        "join that many neighbouring frames after each layer (a pyramid, Chan et al. 2016); empty "
        "for none",
        1,
        64,
    )
    residual: bool = setting(False, "add a layer's input to its output where the widths agree")
    layer_norm: bool = setting(False, "normalise what each layer puts out (Ba et al. 2016)")
    conv_dropout: float = setting(0.2, "of what the convolutions put out", 0, below=1)
    dropout: float = setting(0.3, "of what each layer puts out", 0, below=1)
    drop_connect: float = setting(
        0.0,
        "of recurrent weights, drawn once a batch (Wan et al. 2013; Merity et al. 2018)",
        0,
        below=1,
    )
    weight_noise: float = setting(
        0.0,
        "standard deviation of Gaussian noise on the recurrent layers' weights, drawn once a batch "
        "(Graves 2011; 0.075 in Graves et al. 2013)",
        0,
        100,
    )
    forget_bias: float = setting(1.0, "what the forget gates' biases begin with", -100, 100)
    orthogonal: bool = setting(False, "recurrent weights begin orthogonal")

    def __post_init__(self) -> None:
        check(self, "model")
        if self.subsample and len(self.subsample) != len(self.widths):
            raise InputError(
                f"model.subsample={list(self.subsample)}: expected one factor for each of the "
                f"{len(self.widths)} layers"
            )
        if self.subsampling > MOST_JOINED:
            raise InputError(
                f"model.subsample={list(self.subsample)}: joins {self.subsampling} frames to one; "
                f"expected up to {MOST_JOINED}"
            )

    @property
    def widths(self) -> tuple[int, ...]:
        """Units of each layer, in each direction."""
        return tuple(self.units) or (self.hidden,) * self.layers

    @property
    def subsampling(self) -> int:
        """Input frames to an output frame."""
        return math.prod(self.subsample)


def reverse_within(x: torch.Tensor, lens: torch.Tensor) -> torch.Tensor:
    """Turn each sequence of x (B, T, F) back to front within its length; padding stays last."""
    return _Reverse.apply(x, lens)


class _Reverse(torch.autograd.Function):
    """Turning is its own inverse, so the gradient is turned too instead of being summed up.

    In memory frames come first, as recurrent kernels read and write them.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, lens: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(lens)
        B, T, n_features = x.shape
        frames = torch.arange(T, device=x.device)[:, None]
        sources = torch.where(frames < lens, lens - 1 - frames, frames)  # (T, B)
        rows = sources * B + torch.arange(B, device=x.device)
        turned = x.transpose(0, 1).reshape(T * B, n_features).index_select(0, rows.flatten())
        return turned.view(T, B, n_features).transpose(0, 1)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        (lens,) = ctx.saved_tensors
        return reverse_within(gradient, lens), None


class RecurrentLayer(nn.Module):
    """One recurrent layer, forward in time or (Schuster & Paliwal 1997) in both directions.

    The backward direction runs forward over sequences turned within their own lengths, so padding
    always comes last and no frame ever sees it. Packed sequences say the same but leave the fast
    CPU kernels of torch (tools/bench_recurrent.py measures how much).
    """

    def __init__(self, config: RecurrentConfig, n_in: int, hidden: int) -> None:
        super().__init__()
        self.config = config
        self.ahead = self._cell(n_in, hidden)
        self.back = self._cell(n_in, hidden) if config.bidirectional else None
        self.size = hidden * (1 + config.bidirectional)

    def _cell(self, n_in: int, hidden: int) -> Cell:
        cell, config = CELLS[self.config.cell], self.config
        return cell(n_in, hidden, forget_bias=config.forget_bias, orthogonal=config.orthogonal)

    def forward(self, x: torch.Tensor, lens: torch.Tensor) -> torch.Tensor:
        """(B, T, F), lens (B,) -> (B, T, size); what lies beyond a length is arbitrary."""
        ahead = self._run(self.ahead, x)
        if self.back is None:
            return ahead
        back = self._run(self.back, reverse_within(x, lens))
        both = [ahead.transpose(0, 1), reverse_within(back, lens).transpose(0, 1)]
        return torch.cat(both, dim=2).transpose(0, 1)

    def _run(self, cell: Cell, x: torch.Tensor) -> torch.Tensor:
        if not self.training or not (self.config.weight_noise or self.config.drop_connect):
            return cell(x)[0]
        weights: dict[str, torch.Tensor] = dict(cell.named_parameters())
        if self.config.weight_noise:
            weights = {
                name: weight + self.config.weight_noise * torch.randn_like(weight)
                for name, weight in weights.items()
            }
        weights["weight_hh"] = F.dropout(weights["weight_hh"], self.config.drop_connect)
        output, _ = torch.func.functional_call(cell, weights, (x,))
        return output


class Dropout(nn.Dropout):
    """Dropout of x (B, T, F), drawn from 16 random bits a value on the CPU.

    There torch draws in one thread, and that took 3 to 5 % of a step's time. The probability is
    rounded to a multiple of 2^-16.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.p == 0 or x.device.type != "cpu":
            return super().forward(x)
        B, T, n_features = x.shape
        drawn = torch.empty(math.ceil(x.numel() / 4), dtype=torch.int64).random_(-(2**63), None)
        values = drawn.view(torch.int16)[: x.numel()].view(T, B, n_features).transpose(0, 1)
        n_dropped = min(round(self.p * 2**16), 2**16 - 1)
        kept = (values >= n_dropped - 2**15).to(x.dtype)
        return x * (kept * (2**16 / (2**16 - n_dropped)))


class RecurrentStack(nn.Module):
    """Recurrent layers with norms, residuals, dropout, subsampling, and MLPs between and after."""

    def __init__(self, config: RecurrentConfig, n_in: int) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList()
        self.norms = nn.ModuleList()
        self.mlps = nn.ModuleList()
        size = n_in
        for depth, hidden in enumerate(config.widths):
            layer = RecurrentLayer(config, size, hidden)
            last = depth == len(config.widths) - 1
            size = layer.size * (config.subsample[depth] if config.subsample else 1)
            widths = config.after if last else config.between
            self.layers.append(layer)
            self.norms.append(nn.LayerNorm(layer.size) if config.layer_norm else nn.Identity())
            self.mlps.append(mlp(size, widths, config.dropout))
            size = widths[-1] if widths else size
        self.dropout = Dropout(config.dropout)
        self.size = size

    def forward(self, x: torch.Tensor, lens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """x (B, T, F) with lens (B,) frames -> (B, T', size), zero beyond its lengths (B,)."""
        for depth, layer in enumerate(self.layers):
            y = self.dropout(self.norms[depth](layer(x, lens)))
            x = x + y if self.config.residual and x.shape == y.shape else y
            if self.config.subsample:
                x, lens = stack_frames(x, lens, self.config.subsample[depth])
            x = self.mlps[depth](x)
        return mask_padding(x.contiguous(), lens), lens


def mlp(n_in: int, widths: tuple[int, ...], dropout: float) -> nn.Sequential:
    """Linear layers with ReLU and dropout, frame by frame; no widths, no layer."""
    layers = nn.Sequential()
    for width in widths:
        layers.extend([nn.Linear(n_in, width), nn.ReLU(), nn.Dropout(dropout)])
        n_in = width
    return layers


def count_parameters(net: nn.Module) -> int:
    """All trainable numbers of a net."""
    return sum(p.numel() for p in net.parameters())
