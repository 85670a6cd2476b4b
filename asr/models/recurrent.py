"""Stacks of recurrent layers over padded batches, exact for every length."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from asr.errors import InputError
from asr.features import mask_padding, stack_frames
from asr.models.cells import CELLS


@dataclass
class RecurrentConfig:
    """A stack of ``layers`` recurrent layers with ``hidden`` units in each direction.

    between: widths of the MLP after each recurrent layer but the last. after: widths of the MLP
    after the last. subsample: join that many neighbouring frames after each layer (a pyramid,
    Chan et al. 2016); empty for none. dropout: between layers.
    """

    cell: str = "lstm"
    layers: int = 3
    hidden: int = 256
    bidirectional: bool = True
    between: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    subsample: tuple[int, ...] = ()
    dropout: float = 0.3

    def __post_init__(self) -> None:
        if self.cell not in CELLS:
            raise InputError(
                f"model.cell={self.cell!r} does not exist; choose one of {', '.join(CELLS)}"
            )
        if self.layers < 1 or self.hidden < 1 or min([1, *self.between, *self.after]) < 1:
            raise InputError("model: layers, hidden, between and after must all be 1 or more")
        if not 0 <= self.dropout < 1:
            raise InputError(f"model.dropout={self.dropout}: expected 0 to below 1")
        if self.subsample and len(self.subsample) != self.layers:
            raise InputError(
                f"model.subsample={list(self.subsample)}: expected one factor for each of the "
                f"{self.layers} layers"
            )
        if min([1, *self.subsample]) < 1:
            raise InputError(f"model.subsample={list(self.subsample)}: expected 1 or more")

    @property
    def subsampling(self) -> int:
        """Input frames to an output frame."""
        factor = 1
        for step in self.subsample:
            factor *= step
        return factor


def reverse_within(x: torch.Tensor, lens: torch.Tensor) -> torch.Tensor:
    """Turn each sequence of x (B, T, F) back to front within its length; padding stays last."""
    frames = torch.arange(x.shape[1], device=x.device)
    index = torch.where(frames < lens[:, None], lens[:, None] - 1 - frames, frames)  # (B, T)
    return x.gather(1, index[:, :, None].expand_as(x))


class RecurrentLayer(nn.Module):
    """One recurrent layer, forward in time or (Schuster & Paliwal 1997) in both directions.

    The backward direction runs forward over sequences turned within their own lengths, so padding
    always comes last and no frame ever sees it. Packed sequences say the same but leave the fast
    CPU kernels of torch (tools/bench_recurrent.py measures how much).
    """

    def __init__(self, cell: str, n_in: int, hidden: int, bidirectional: bool) -> None:
        super().__init__()
        self.ahead = CELLS[cell](n_in, hidden)
        self.back = CELLS[cell](n_in, hidden) if bidirectional else None
        self.size = hidden * (1 + bidirectional)

    def forward(self, x: torch.Tensor, lens: torch.Tensor) -> torch.Tensor:
        """(B, T, F), lens (B,) -> (B, T, size); what lies beyond a length is arbitrary."""
        ahead, _ = self.ahead(x)
        if self.back is None:
            return ahead
        back, _ = self.back(reverse_within(x, lens))
        return torch.cat([ahead, reverse_within(back, lens)], dim=2)


class RecurrentStack(nn.Module):
    """Recurrent layers with dropout, subsampling and MLP layers between and after them."""

    def __init__(self, config: RecurrentConfig, n_in: int) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList()
        self.mlps = nn.ModuleList()
        size = n_in
        for depth in range(config.layers):
            layer = RecurrentLayer(config.cell, size, config.hidden, config.bidirectional)
            size = layer.size * (config.subsample[depth] if config.subsample else 1)
            widths = config.after if depth == config.layers - 1 else config.between
            self.layers.append(layer)
            self.mlps.append(mlp(size, widths, config.dropout))
            size = widths[-1] if widths else size
        self.dropout = nn.Dropout(config.dropout)
        self.size = size

    def forward(self, x: torch.Tensor, lens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """x (B, T, F) with lens (B,) frames -> (B, T', size), zero beyond its lengths (B,)."""
        for depth, (layer, mlp_layers) in enumerate(zip(self.layers, self.mlps, strict=True)):
            x = layer(x, lens)
            if self.config.subsample:
                x, lens = stack_frames(x, lens, self.config.subsample[depth])
            x = mlp_layers(self.dropout(x))
        return mask_padding(x, lens), lens


def mlp(n_in: int, widths: tuple[int, ...], dropout: float) -> nn.Sequential:
    """Linear layers with ReLU and dropout, frame by frame; no widths, no layer."""
    layers = nn.Sequential()
    for width in widths:
        layers.extend([nn.Linear(n_in, width), nn.ReLU(), nn.Dropout(dropout)])
        n_in = width
    return layers
