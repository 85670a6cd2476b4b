"""Stacks of recurrent layers over padded batches, exact for every length."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from asr.nets.cells import CELLS, Cell, State
from asr.nets.config import Latency, RecurrentConfig
from asr.nets.frames import mask_padding, stack_frames

#: A cell's run over x (B, T, F) from a state.
Run = Callable[[torch.Tensor, State | None], tuple[torch.Tensor, State]]


def reverse_within(x: torch.Tensor, lens: torch.Tensor) -> torch.Tensor:
    """Turn each sequence of x (B, T, F) back to front within its length; padding stays last."""
    if len(x) == 1 and x.device.type == "cpu" and not torch.is_grad_enabled():
        # A stream by itself, whose step is short: what turns many costs as much as a tenth of it.
        n = int(lens)
        return x.flip(1) if n == x.shape[1] else torch.cat([x[:, :n].flip(1), x[:, n:]], 1)
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


class Windows(NamedTuple):
    """Chunks with what they see beyond their ends, as a batch.

    x: (B n, W, F), the n chunks of an utterance one after the other; lens: (B n,) frames of each
    that lie within the utterance. is_cut: whether what a chunk sees ahead is as the next ones are.
    """

    x: torch.Tensor
    lens: torch.Tensor
    n: int
    chunk: int
    is_cut: bool = False

    def main(self, x: torch.Tensor) -> torch.Tensor:
        """The chunks in one: (B n, at least ``chunk``, F) -> (B, n chunk, F)."""
        if self.n == 1:
            return x[:, : self.chunk]
        frames = x.transpose(0, 1)[: self.chunk].unflatten(1, (-1, self.n))  # (chunk, B, n, F)
        return frames.permute(2, 0, 1, 3).flatten(0, 1).transpose(0, 1)

    def cut(self, x: torch.Tensor) -> torch.Tensor:
        """The inverse: (B, n chunk, F) -> (B n, chunk, F)."""
        if self.n == 1:
            return x
        frames = x.transpose(0, 1).unflatten(0, (self.n, self.chunk))  # (n, chunk, B, F)
        return frames.permute(1, 2, 0, 3).flatten(1, 2).transpose(0, 1)


def windows_of(x: torch.Tensor, lens: torch.Tensor, latency: Latency) -> Windows:
    """Cut x (B, T, F) with lens (B,) into chunks and what they see ahead."""
    chunk, lookahead = latency
    n = -(-x.shape[1] // chunk)
    firsts = chunk * torch.arange(n, device=x.device)
    window_lens = (lens[:, None] - firsts).clamp(0, chunk + lookahead).flatten()
    return Windows(frames_of_windows(x, n, latency), window_lens, n, chunk, is_cut=True)


def frames_of_windows(x: torch.Tensor, n: int, latency: Latency) -> torch.Tensor:
    """The ``n`` chunks of x (B, T, F) with what they see ahead: (B n, W, F), zeros beyond T."""
    chunk, lookahead = latency
    B, T, n_features = x.shape
    padded = F.pad(x.transpose(0, 1), (0, 0, 0, 0, 0, n * chunk + lookahead - T))
    frames = padded.unfold(0, chunk + lookahead, chunk)  # (n, B, F, W)
    frames = frames.permute(3, 1, 0, 2).reshape(chunk + lookahead, B * n, n_features)
    return frames.transpose(0, 1)


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

    def in_chunks(
        self, windows: Windows, state: State | None, n_wanted: int
    ) -> tuple[torch.Tensor, State]:
        """`forward` over chunks, of which each sees so far and no further, from a state on.

        The backward direction begins at the end of each window; the forward one goes on from chunk
        to chunk, and from each chunk's end into its look ahead. Returns the first ``n_wanted``
        frames of the windows, (B n, n_wanted, size), and the forward state after the last chunk.
        """
        ahead, after = self._ahead_in_chunks(self._drawn(self.ahead), windows, state, n_wanted)
        if self.back is None:
            return ahead, after
        x, lens = windows.x, windows.lens
        back = reverse_within(self._run(self.back, reverse_within(x, lens)), lens)[:, :n_wanted]
        both = [ahead.transpose(0, 1), back.transpose(0, 1)]
        return torch.cat(both, dim=2).transpose(0, 1), after

    def _ahead_in_chunks(
        self, run: Run, windows: Windows, state: State | None, n_wanted: int
    ) -> tuple[torch.Tensor, State]:
        x, chunk = windows.x, windows.chunk
        main = windows.main(x)
        if n_wanted == chunk:
            y, after = run(main, state)
            return windows.cut(y), after
        if windows.is_cut:
            # What a chunk sees ahead is what the next ones are: so are the outputs.
            y, after = run(main, state)
            return frames_of_windows(y, windows.n, Latency(chunk, x.shape[1] - chunk)), after
        outputs, states = [], []
        for piece in main.split(chunk, dim=1):
            y, after = run(piece, state)
            outputs.append(y.transpose(0, 1))
            states.append(state := after)
        # (B, n) chunks are a batch, b n + k each.
        ends = tuple(torch.stack(parts, dim=1).flatten(0, 1) for parts in zip(*states, strict=True))
        beyond, _ = run(x[:, chunk:], ends)
        y = torch.stack(outputs, dim=2)
        return torch.cat([y.flatten(1, 2), beyond.transpose(0, 1)]).transpose(0, 1), after

    def _run(self, cell: Cell, x: torch.Tensor) -> torch.Tensor:
        return self._drawn(cell)(x, None)[0]

    def _drawn(self, cell: Cell) -> Run:
        """The cell, in training with the weights that it draws for this batch."""
        if not self.training or not (self.config.weight_noise or self.config.drop_connect):
            return lambda x, state: cell(x) if state is None else cell(x, None, state)
        weights: dict[str, torch.Tensor] = dict(cell.named_parameters())
        if self.config.weight_noise:
            weights = {
                name: weight + self.config.weight_noise * torch.randn_like(weight)
                for name, weight in weights.items()
            }
        weights["weight_hh"] = F.dropout(weights["weight_hh"], self.config.drop_connect)
        return lambda x, state: torch.func.functional_call(cell, weights, (x, None, state))


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
        self.config, self.n_in = config, n_in
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
        #: In which chunks it hears, but in training, where each batch draws.
        self.latency = config.latencies[0] if config.chunk else None

    def forward(self, x: torch.Tensor, lens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """x (B, T, F) with lens (B,) frames -> (B, T', size), zero beyond its lengths (B,)."""
        latency = self.latency
        if self.config.chunk and self.training:
            latency = self._drawn()
        if latency is not None:
            windows = windows_of(x, lens, latency)
            y, _ = self.in_chunks(windows, [None] * len(self.layers))
            return mask_padding(windows.main(y)[:, : x.shape[1]].contiguous(), lens), lens
        for depth, layer in enumerate(self.layers):
            x = self._after(depth, x, layer(x, lens))
            if self.config.subsample:
                x, lens = stack_frames(x, lens, self.config.subsample[depth])
            x = self.mlps[depth](x)
        return mask_padding(x.contiguous(), lens), lens

    def _drawn(self) -> Latency:
        """The first latency half of the time, else any: what serves many serves each less well."""
        latencies = self.config.latencies
        drawn = int(torch.randint(2 * len(latencies), ()))
        return latencies[drawn] if drawn < len(latencies) else latencies[0]

    def in_chunks(
        self, windows: Windows, states: Sequence[State | None]
    ) -> tuple[torch.Tensor, list[State]]:
        """Chunks (`Windows`), from the layers' states on -> (B n, chunk, size), states after it.

        What lies beyond lengths is arbitrary. Of the last layer nobody asks for what it makes of
        frames ahead, and what the first makes of them forward in time it makes once.
        """
        states_after = []
        for depth, (layer, state) in enumerate(zip(self.layers, states, strict=True)):
            is_last = depth == len(self.layers) - 1
            n_wanted = windows.chunk if is_last else windows.x.shape[1]
            assert isinstance(layer, RecurrentLayer)
            y, after = layer.in_chunks(windows, state, n_wanted)
            x = self.mlps[depth](self._after(depth, windows.x[:, :n_wanted], y))
            windows = windows._replace(x=x, is_cut=False)
            states_after.append(after)
        return windows.x, states_after

    def _after(self, depth: int, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """What becomes of a layer's output y and its input x."""
        y = self.dropout(self.norms[depth](y))
        return x + y if self.config.residual and x.shape == y.shape else y


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
