"""Nets in 8-bit integers, for processors without fast bfloat16."""

from __future__ import annotations

import copy
import warnings

import torch
from torch import nn

from asr.errors import InputError
from asr.models.acoustic import AcousticModel
from asr.models.cells import LSTM, GRUResetAfter, State, to_torch


class _Cell(nn.Module):
    """A module of torch in the place of the cell that it computes."""

    def __init__(self, cell: LSTM | GRUResetAfter) -> None:
        super().__init__()
        self.layer = to_torch(cell)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, State]:
        output: torch.Tensor = self.layer(x)[0]
        return output, ()


def quantized(model: AcousticModel) -> AcousticModel:
    """A copy whose weights are int8, and whose inputs become so batch by batch (torch's "dynamic").

    Raises:
        InputError: torch has no such kernel for the model's cell.
    """
    model = copy.deepcopy(model)
    for layer in model.stack.layers:
        for name in ("ahead", "back"):
            cell = getattr(layer, name)
            if isinstance(cell, LSTM | GRUResetAfter):
                setattr(layer, name, _Cell(cell))
            elif cell is not None:
                raise InputError(
                    "precision int8 is for the cells lstm and gru; this model has another: use "
                    "bfloat16"
                )
    with warnings.catch_warnings():
        # Marked for removal in favour of torchao, which has nothing for recurrent layers.
        warnings.simplefilter("ignore", DeprecationWarning)
        changed: AcousticModel = torch.ao.quantization.quantize_dynamic(
            model, {nn.LSTM, nn.GRU, nn.Linear}, dtype=torch.qint8
        )
    return changed
