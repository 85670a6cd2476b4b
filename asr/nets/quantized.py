"""Nets in 8-bit integers, for processors without fast bfloat16."""

from __future__ import annotations

import copy
import warnings

import torch
import torch.nn.functional as F
from torch import nn

from asr.errors import InputError
from asr.nets.acoustic import AcousticModel
from asr.nets.cells import LSTM, GRUResetAfter, State, to_torch
from asr.nets.frames import mask_padding

#: A bias that shuts or opens a gate for good: the logistic function is 0 or 1 at it.
SURE = 100.0
#: A layer's input lies below one of these: few enough that most utterances run together.
BOUNDS = (1.0, *(2.0 * 4**k for k in range(12)))
#: Biases that keep the state of a unit as it is.
KEEP = {"i": -SURE, "f": SURE, "o": SURE, "z": SURE}


class _Cell(nn.Module):
    """A cell of integers, from states that stay in [-1, 1] to such with two units at its ends.

    torch's kernels take a tensor's scale from its extremes ("dynamic"), so that the states of an
    utterance would depend on those of its neighbours. Two units more that are 1 and -1 at every
    frame give the extremes.
    """

    def __init__(self, cell: LSTM | GRUResetAfter) -> None:
        super().__init__()
        self.hidden, self.has_memory = cell.hidden, isinstance(cell, LSTM)
        self.layer = to_torch(_with_ends(cell))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, State]:
        """x (B, T, F) -> (B, T, hidden)."""
        ends = F.pad(torch.tensor([1.0, -1.0]), (self.hidden, 0)).repeat(1, len(x), 1)
        output: torch.Tensor = self.layer(x, (ends, SURE * ends) if self.has_memory else ends)[0]
        return output[:, :, : self.hidden], ()


class _Layer(nn.Module):
    """A layer of such cells, whose input has a scale that depends on the utterance alone.

    Two frames more hold the extremes: the first of `BOUNDS` that no input exceeds, and 0, or where
    there is less, the opposite. Utterances with the same extremes run together.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor, lens: torch.Tensor) -> torch.Tensor:
        """As `RecurrentLayer`."""
        # What lies beyond a length is arbitrary and sets no scale.
        most = mask_padding(x.amax(2), lens).amax(1)
        least = mask_padding(x.amin(2), lens).amin(1)
        steps = torch.tensor(BOUNDS)
        above = torch.bucketize(torch.maximum(most, -least), steps[:-1])
        bounds = torch.where(least < 0, -steps[above], steps[above])
        distinct = bounds.unique().tolist()
        if len(distinct) == 1:
            return self._within(x, lens, distinct[0])
        rows = [(bounds == bound).nonzero()[:, 0] for bound in distinct]
        parts = [self._within(x[r], lens[r], b) for r, b in zip(rows, distinct, strict=True)]
        return torch.cat(parts)[torch.cat(rows).argsort()]

    def _within(self, x: torch.Tensor, lens: torch.Tensor, bound: float) -> torch.Tensor:
        """With inputs from 0 to ``bound``, or where that is negative from it to its opposite."""
        B, T, n_features = x.shape
        low, high = min(bound, 0.0), abs(bound)
        framed = x.new_zeros(B, T + 2, n_features)
        torch.clamp(x, low, high, out=framed[:, :T])
        framed[0, T, 0], framed[0, T + 1, 0] = low, high
        output: torch.Tensor = self.layer(framed, lens)
        return output[:, :T]


def _with_ends(cell: LSTM | GRUResetAfter) -> LSTM | GRUResetAfter:
    """The cell with two units more, which keep their states and reach no other."""
    wide = type(cell)(cell.n_in, cell.hidden + 2)
    for name, values in cell.named_parameters():
        n_gates = len(values) // cell.hidden
        columns = (0, 2) if name == "weight_hh" else (0, 0) if values.dim() == 2 else ()
        gates = [F.pad(gate, (*columns, 0, 2)) for gate in values.detach().chunk(n_gates)]
        if name == "bias":
            for gate, symbol in zip(gates, cell.gates, strict=True):
                gate[cell.hidden :] = KEEP.get(symbol, 0.0)
        wide.get_parameter(name).data = torch.cat(gates)
    return wide


def quantized(model: nn.Module) -> AcousticModel:
    """A copy whose recurrent layers compute in integers; the same for an utterance in any batch.

    Raises:
        InputError: torch has no such kernel for the model's cell, the model goes in chunks, or it
            is an ensemble.
    """
    if not isinstance(model, AcousticModel):
        raise InputError("precision int8 is for single nets; this is an ensemble: use bfloat16")
    if model.stack.latency is not None:
        raise InputError(
            "precision int8 is for models that hear all at once or go in one direction; this one "
            "goes in chunks: use bfloat16"
        )
    model = copy.deepcopy(model)
    for depth, layer in enumerate(model.stack.layers):
        for name in ("ahead", "back"):
            cell = getattr(layer, name)
            if isinstance(cell, LSTM | GRUResetAfter):
                setattr(layer, name, _Cell(cell))
            elif cell is not None:
                raise InputError(
                    "precision int8 is for the cells lstm and gru; this model has another: use "
                    "bfloat16"
                )
        model.stack.layers[depth] = _Layer(layer)
    with warnings.catch_warnings():
        # Marked for removal in favour of torchao, which has nothing for recurrent layers.
        warnings.simplefilter("ignore", DeprecationWarning)
        changed: AcousticModel = torch.ao.quantization.quantize_dynamic(
            model, {nn.LSTM, nn.GRU}, dtype=torch.qint8
        )
    return changed
