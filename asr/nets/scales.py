"""A factor for each unit of a net's layers, by which it is adapted to a voice.

Learning hidden unit contributions (Swietojanski & Renals 2014): the weights stay, and what a unit
puts out counts more or less.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from asr.nets.acoustic import AcousticModel
from asr.nets.recurrent import RecurrentLayer


class Scale(nn.Module):
    """x (..., n) times a factor for each of n units, between 0 and 2; exactly 1 to begin with."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.amplitude = nn.Parameter(torch.zeros(n))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * (2 * torch.sigmoid(self.amplitude))


def scaled(net: AcousticModel) -> tuple[AcousticModel, list[nn.Parameter]]:
    """A net that shares the memory of ``net``'s weights, and the amplitudes that it has beside.

    There is one for each unit that the convolutions end in, and for each of each recurrent layer.
    ``net`` is left as it is.
    """
    shared = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in net.parameters()}
    adapted = copy.deepcopy(net, dict(shared)).eval()
    scales = []

    def then(before: nn.Module, n: int) -> nn.Sequential:
        scales.append(Scale(n).to(net.output.weight.device))
        return nn.Sequential(before, scales[-1])

    if adapted.conv is not None:
        adapted.conv_dropout = then(adapted.conv_dropout, adapted.conv.size)
    norms = adapted.stack.norms
    for depth, layer in enumerate(adapted.stack.layers):
        assert isinstance(layer, RecurrentLayer)
        norms[depth] = then(norms[depth], layer.size)
    return adapted, [scale.amplitude for scale in scales]
