"""Convolutions: over frames and mel bins before the first recurrent layer, over frames after."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from asr.nets.frames import mask_outside, mask_padding


class Convolutions(nn.Module):
    """3 x 3 convolutions with ReLU, each keeping all frames and every second bin.

    A filter finds its pattern at any height of the spectrum, as voices differ in it (Abdel-Hamid et
    al. 2014; before recurrent layers Sainath et al. 2015, Amodei et al. 2016). What is in a frame
    beside its bins, neighbours and deltas, are the channels of the first convolution.
    """

    def __init__(self, channels: tuple[int, ...], n_features: int, n_bins: int) -> None:
        super().__init__()
        self.n_bins = n_bins
        self.layers = nn.ModuleList()
        self.shapes: list[tuple[int, int]] = []
        n_in = n_features // n_bins
        for n_out in channels:
            self.layers.append(nn.Conv2d(n_in, n_out, kernel_size=3, stride=(1, 2), padding=1))
            self.shapes.append((n_in, n_bins))
            n_in, n_bins = n_out, (n_bins + 1) // 2
        self.size = n_in * n_bins

    def forward(self, x: torch.Tensor, lens: torch.Tensor) -> torch.Tensor:
        """x (B, T, n_features), zero beyond lens (B,) -> (B, T, size), again zero beyond them."""
        x = x.unflatten(2, (-1, self.n_bins)).transpose(1, 2)  # (B, channels, T, bins)
        # The CPU's kernels are about twice as fast with the channels next to each other in memory.
        x = x.contiguous(memory_format=torch.channels_last)
        for layer in self.layers:
            # The next one sees a frame beyond the end: nothing must be there, as in a batch of one.
            x = mask_padding(F.relu(layer(x)).transpose(1, 2), lens).transpose(1, 2)
        return x.transpose(1, 2).flatten(2)

    def begin(self, n_streams: int) -> list[torch.Tensor]:
        """What each layer has seen where a stream begins: two frames that are not there."""
        like = next(self.parameters())
        return [like.new_zeros(n_streams, n_in, 2, n_bins) for n_in, n_bins in self.shapes]

    def step(
        self,
        x: torch.Tensor,
        seen: Sequence[torch.Tensor],
        first: torch.Tensor,
        lens: torch.Tensor,
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """The next frames of streams: `forward` without its ends, a frame later in each layer.

        x: (B, T, n_features), frames from ``first`` (B,) on of streams that end at lens (B,).
        Returns (B, T, size), frames from first - number of layers on, and what is seen then.
        """
        x = x.unflatten(2, (-1, self.n_bins)).transpose(1, 2)
        after = []
        for layer, before in zip(self.layers, seen, strict=True):
            assert isinstance(layer, nn.Conv2d)
            x = torch.cat([before, x], 2)
            after.append(x[:, :, -2:])
            first = first - 1
            y = F.conv2d(x, layer.weight, layer.bias, (1, 2), padding=(0, 1))
            x = mask_outside(F.relu(y).transpose(1, 2), first, lens).transpose(1, 2)
        return x.transpose(1, 2).flatten(2), after


class RowConvolution(nn.Module):
    """Each unit's weighted sum over its own frame and ``future`` frames after it.

    Amodei et al. 2016 ("Deep Speech 2", section 3.7): what layers in one direction need to know of
    the future, at the price of as many frames of latency. It begins with the same weight for all:
    on so762 a framewise net (2 x 128, 6 epochs) so came to 62.8 % on dev, to 63.5 where it began
    with the last frame alone, and to 65.8 with its own alone.
    """

    def __init__(self, size: int, future: int) -> None:
        super().__init__()
        self.future = future
        self.weight = nn.Parameter(torch.full((size, 1, future + 1), (future + 1) ** -0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (B, T + future, size) -> (B, T, size)."""
        return F.conv1d(x.transpose(1, 2), self.weight, groups=x.shape[2]).transpose(1, 2)
