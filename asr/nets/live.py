"""An acoustic model that goes along with speech: a chunk a step, with a state in between."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from asr.nets.acoustic import AcousticModel
from asr.nets.cells import State
from asr.nets.config import Latency
from asr.nets.frames import mask_outside
from asr.nets.recurrent import RecurrentLayer, Windows


class Live(nn.Module):
    """Steps of an `AcousticModel` for streams at different places; equal to it over the whole.

    Frames go in by chunks, the first after ``lead`` frames that are not there, so that what the
    convolutions and the chunk see ahead is whole chunks: a step is the same computation wherever a
    stream stands. Log-probabilities come out ``delay`` frames later.

    latency: of which chunks, one of those that the model is trained for; in stacks of one direction
    any, without a look ahead.
    """

    def __init__(self, model: AcousticModel, latency: Latency) -> None:
        super().__init__()
        self.model, self.latency = model, latency
        chunk, lookahead = latency
        self.n_conv = len(model.conv.layers) if model.conv is not None else 0
        self.future = model.row.future if model.row is not None else 0
        self.lead = -(self.n_conv + lookahead) % chunk
        self.delay = self.n_conv + lookahead + self.lead + self.future

    def begin(self, n_streams: int) -> State:
        """The state of streams that begin: (n_streams, ...) each."""
        model = self.model
        like = model.output.weight
        convs = [] if model.conv is None else model.conv.begin(n_streams)
        ahead = [like.new_zeros(n_streams, self.latency.lookahead, model.stack.n_in)]
        cells = [layer.ahead for layer in self.layers]
        states = [like.new_zeros(n_streams, cell.hidden) for cell in cells for _ in cell.states]
        row = [like.new_zeros(n_streams, self.future, model.stack.size)]
        n_steps = torch.zeros(n_streams, dtype=torch.int64, device=like.device)
        parts = (convs, ahead if self.latency.lookahead else [], states, row if self.future else [])
        return (n_steps, *chain.from_iterable(parts))

    def renewed(self, state: State) -> State:
        """The state with layers that begin, after the frames before them."""
        first = 1 + self.n_conv + bool(self.latency.lookahead)
        end = first + sum(len(layer.ahead.states) for layer in self.layers)
        zeros = tuple(map(torch.zeros_like, state[first:end]))
        return (*state[:first], *zeros, *state[end:])

    @property
    def layers(self) -> list[RecurrentLayer]:
        """The recurrent layers."""
        return [layer for layer in self.model.stack.layers if isinstance(layer, RecurrentLayer)]

    def forward(
        self, x: torch.Tensor, lens: torch.Tensor, state: State
    ) -> tuple[torch.Tensor, State]:
        """A step of streams that have taken n steps, each its own number.

        x: (B, chunk, F), frames n chunk - lead ... of the streams. lens: (B,) int64, frames of each
        from its start to its end, or `ENDLESS`. Returns log-probabilities (B, chunk, V), of the
        frames n chunk - delay ..., arbitrary where those do not exist, and the state after it.
        """
        model, (chunk, lookahead) = self.model, self.latency
        n_steps, *kept = state
        first = chunk * n_steps - self.lead
        x = mask_outside(x, first, lens)
        after: list[torch.Tensor] = []
        if model.conv is not None:
            x, convs = model.conv.step(x, kept[: self.n_conv], first, lens)
            after, kept, first = [*convs], kept[self.n_conv :], first - self.n_conv
        if lookahead:
            x, kept, first = torch.cat([kept[0], x], 1), kept[1:], first - lookahead
            after.append(x[:, chunk:])
        windows = Windows(x, (lens - first).clamp(0, chunk + lookahead), 1, chunk)
        states = self._by_layer(kept)
        x, states = model.stack.in_chunks(windows, states)
        # What was not there leaves no trace.
        begun = (first >= 0)[:, None]
        after += [part * begun.to(part.dtype) for layer in states for part in layer]
        if model.row is not None:
            x = torch.cat([kept[-1], mask_outside(x, first, lens)], 1)
            after.append(x[:, chunk:])
            x = model.row(x)
        return model.output(x).float().log_softmax(dim=2), (n_steps + 1, *after)

    @torch.inference_mode()
    def take(
        self, frames: Sequence[NDArray[np.float32]], lens: Sequence[int], states: Sequence[State]
    ) -> tuple[NDArray[np.float32], list[State]]:
        """A step of streams with frames (chunk, F) each: `forward` with arrays.

        states: of one stream each. Returns log-probabilities (B, chunk, V) and the states after it.
        """
        state = tuple(map(torch.cat, zip(*states, strict=True)))
        device = state[0].device
        x = torch.from_numpy(np.stack(frames)).to(device)
        log_probs, after = self(x, torch.tensor(lens, device=device), state)
        parted = [tuple(part[i : i + 1] for part in after) for i in range(len(frames))]
        return log_probs.cpu().numpy(), parted

    def _by_layer(self, parts: Sequence[torch.Tensor]) -> list[State]:
        grouped, at = [], 0
        for layer in self.layers:
            n = len(layer.ahead.states)
            grouped.append(tuple(parts[at : at + n]))
            at += n
        return grouped
