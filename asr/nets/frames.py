"""What nets do with frames of padded batches."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence


def mask_padding(x: torch.Tensor, lens: torch.Tensor) -> torch.Tensor:
    """Zero x (B, T, ...) beyond lens (B,)."""
    inside = torch.arange(x.shape[1], device=x.device) < lens[:, None]  # (B, T)
    return x * inside.reshape(*inside.shape, *[1] * (x.dim() - 2)).to(x.dtype)


def mask_outside(x: torch.Tensor, first: torch.Tensor, lens: torch.Tensor) -> torch.Tensor:
    """Zero x (B, T, ...), whose frames begin at ``first`` (B,), before 0 and from lens (B,) on."""
    frames = torch.arange(x.shape[1], device=x.device) + first[:, None]
    inside = (frames >= 0) & (frames < lens[:, None])
    return x * inside.reshape(*inside.shape, *[1] * (x.dim() - 2)).to(x.dtype)


def repeat_last(x: torch.Tensor, lens: torch.Tensor, n_frames: int, first: int = 0) -> torch.Tensor:
    """Frames first ... first + n_frames - 1 of x (B, T, F), its edges repeated outside it."""
    wanted = torch.arange(first, first + n_frames, device=x.device)
    index = wanted.clamp(min=0).minimum(lens[:, None] - 1).clamp(min=0)  # (B, n_frames)
    return x.gather(1, index[:, :, None].expand(-1, -1, x.shape[2]))


def stack_frames(
    x: torch.Tensor, lens: torch.Tensor, factor: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Join each ``factor`` neighbouring frames: (B, T, F) -> (B, ceil(T / factor), F * factor).

    A last group that is not full is filled with the utterance's own last frame.
    """
    if factor == 1:
        return x, lens
    n_groups = math.ceil(x.shape[1] / factor)
    filled = repeat_last(x, lens, n_groups * factor)
    stacked = filled.reshape(len(x), n_groups, factor * x.shape[2])
    lens = (lens + factor - 1).div(factor, rounding_mode="floor")
    return mask_padding(stacked, lens), lens


def padded_frames(
    matrices: Sequence[NDArray[np.float32]],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Matrices (T, F) -> (B, T, F), zeros beyond their lengths (B,)."""
    lens = torch.tensor([len(m) for m in matrices])
    return pad_sequence([torch.from_numpy(m) for m in matrices], batch_first=True), lens
