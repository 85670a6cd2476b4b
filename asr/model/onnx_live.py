"""The step of a model that streams as an ONNX graph, `asr.nets.live.Live` node by node."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn

from asr.audio import normalize
from asr.model.bundle import Bundle
from asr.model.onnx_graph import Graph, linear, log_probs_output, recurrent
from asr.nets.cells import Cell
from asr.nets.live import Live
from asr.nets.recurrent import RecurrentLayer


def live_metadata(bundle: Bundle, live: Live) -> dict[str, Any]:
    """What goes around the graph: which frames a step takes and gives, what normalises log-mel.

    Step n takes the stacked frames n chunk - lead ... of a stream and gives those n chunk -
    delay ... `asr.audio.normalize` tells what the constants of ``normalize`` do.
    """
    stats = bundle.stats
    constants = "WINDOW PRIOR_FRAMES PRIOR_LEVEL_FRAMES START_DB FADE_DB N_BANDS SHAPE_DB".split()
    return {
        "chunk": live.latency.chunk,
        "lookahead": live.latency.lookahead,
        "lead": live.lead,
        "delay": live.delay,
        "mean": [] if stats is None else stats.mean.tolist(),
        "std": [] if stats is None else stats.std.tolist(),
        "normalize": {name: getattr(normalize, name) for name in constants},
    }


def live_graph(bundle: Bundle, live: Live) -> Graph:
    """A step: ``frames`` (B, chunk, F) normalised and stacked, ``lens`` (B,), the state.

    The state is ``n_steps`` (B,) int64 and float32 tensors, all zero where a stream begins; each
    comes out as ``next_...``. Outputs are ``log_probs`` (B, chunk, V).
    """
    return _Step(bundle, live).graph


class _Step:
    def __init__(self, bundle: Bundle, live: Live) -> None:
        self.graph = graph = Graph()
        model, (chunk, lookahead) = live.model, live.latency
        x = graph.input("frames", np.float32, "B", chunk, bundle.features.size)
        self.lens = graph.input("lens", np.int64, "B")
        n_steps = graph.input("n_steps", np.int64, "B")
        graph.output("next_n_steps", graph("Add", n_steps, graph.integer(1)), np.int64, "B")
        first = graph("Mul", n_steps, graph.integer(chunk))
        self.first = graph("Sub", first, graph.integer(live.lead))
        x = self.inside(x, chunk)
        if model.conv is not None:
            x = self.convolved(model.conv, x, chunk)
        if lookahead:
            x = self.joined("ahead", x, lookahead, model.stack.n_in)
            self.first = graph("Sub", self.first, graph.integer(lookahead))
        x = self.stacked(live, x)
        if model.row is not None:
            size, future = model.stack.size, live.future
            x = self.joined("row", self.inside(x, chunk), future, size)
            x = graph("Transpose", x, perm=[0, 2, 1])
            x = graph("Conv", x, graph.constant(model.row.weight), group=size)
            x = graph("Transpose", x, perm=[0, 2, 1])
        log_probs_output(
            graph, bundle, graph("LogSoftmax", linear(graph, model.output, x), axis=-1)
        )

    def inside(self, x: str, n: int, *axes: int) -> str:
        """`features.mask_outside` of n frames, (B, n, ...) with as many more ``axes``."""
        graph = self.graph
        frames = graph.constant(np.arange(n), np.int64)
        frames = graph("Add", graph.column(self.first), frames)
        after = graph("GreaterOrEqual", frames, graph.integer(0))
        found = graph("And", after, graph("Less", frames, graph.column(self.lens)))
        return graph(
            "Where", graph("Unsqueeze", found, graph.integer(*(axes or (2,)))), x, graph.constant(0)
        )

    def state(self, name: str, *shape: int) -> str:
        return self.graph.input(name, np.float32, "B", *shape)

    def keep(self, name: str, value: str, *shape: int) -> None:
        self.graph.output(f"next_{name}", value, np.float32, "B", *shape)

    def last(self, x: str, n: int, axis: int) -> str:
        """The last n of an axis."""
        graph = self.graph
        return graph("Slice", x, graph.integer(-n), graph.integer(1 << 31), graph.integer(axis))

    def joined(self, name: str, x: str, n: int, size: int) -> str:
        """The n frames kept before x, and x; its last n are kept."""
        x = self.graph("Concat", self.state(name, n, size), x, axis=1)
        self.keep(name, self.last(x, n, 1), n, size)
        return x

    def convolved(self, conv: Any, x: str, chunk: int) -> str:
        """`Convolutions.step`."""
        graph = self.graph
        x = graph("Reshape", x, graph.integer(0, 0, -1, conv.n_bins))
        x = graph("Transpose", x, perm=[0, 2, 1, 3])
        for i, (layer, (n_in, n_bins)) in enumerate(zip(conv.layers, conv.shapes, strict=True)):
            x = graph("Concat", self.state(f"conv{i}", n_in, 2, n_bins), x, axis=2)
            self.keep(f"conv{i}", self.last(x, 2, 2), n_in, 2, n_bins)
            weights = graph.constant(layer.weight), graph.constant(layer.bias)
            x = graph("Relu", graph("Conv", x, *weights, strides=[1, 2], pads=[0, 1, 0, 1]))
            self.first = graph("Sub", self.first, graph.integer(1))
            x = self.inside(x, chunk, 1, 3)
        x = graph("Transpose", x, perm=[0, 2, 1, 3])
        return graph("Reshape", x, graph.integer(0, 0, conv.size))

    def stacked(self, live: Live, x: str) -> str:
        """`RecurrentStack.in_chunks` of one chunk."""
        graph, (chunk, lookahead) = self.graph, live.latency
        stack = live.model.stack
        left = graph("Sub", self.lens, self.first)
        left = graph("Min", left, graph.integer(chunk + lookahead))
        # Of none there is nothing to be known, but the operators want one at least.
        left = graph("Max", left, graph.integer(1))
        for depth, (layer, norm, mlp) in enumerate(
            zip(stack.layers, stack.norms, stack.mlps, strict=True)
        ):
            assert isinstance(layer, RecurrentLayer)
            assert isinstance(mlp, nn.Sequential)
            is_last = depth == len(stack.layers) - 1
            n_wanted = chunk if is_last else chunk + lookahead
            y = self.ahead(depth, layer.ahead, x, live, n_wanted)
            if layer.back is not None:
                turned, _ = recurrent(graph, [layer.back], x, left, direction="reverse")
                y = graph("Concat", y, self.head(turned, n_wanted), axis=2)
            if isinstance(norm, nn.LayerNorm):
                scale, bias = graph.constant(norm.weight), graph.constant(norm.bias)
                y = graph("LayerNormalization", y, scale, bias, epsilon=norm.eps)
            if stack.config.residual and layer.ahead.n_in == layer.size:
                y = graph("Add", self.head(x, n_wanted), y)
            for module in mlp:
                if isinstance(module, nn.Linear):
                    y = linear(graph, module, y)
                elif isinstance(module, nn.ReLU):
                    y = graph("Relu", y)
            x = y
        return x

    def head(self, x: str, n: int) -> str:
        graph = self.graph
        return graph("Slice", x, graph.integer(0), graph.integer(n), graph.integer(1))

    def ahead(self, depth: int, cell: Cell, x: str, live: Live, n_wanted: int) -> str:
        """Forward in time, from the kept states on and, in what is ahead, from those after it."""
        graph, chunk = self.graph, live.latency.chunk
        names = [f"{name}{depth}" for name in cell.states]
        states = [self.state(name, cell.hidden) for name in names]
        y, after = recurrent(graph, [cell], self.head(x, chunk), "", states)
        begun = graph.column(graph("GreaterOrEqual", self.first, graph.integer(0)))
        for name, value in zip(names, after, strict=True):
            self.keep(name, graph("Where", begun, value, graph.constant(0)), cell.hidden)
        if n_wanted == chunk:
            return y
        beyond, _ = recurrent(graph, [cell], self.last(x, n_wanted - chunk, 1), "", after)
        return graph("Concat", y, beyond, axis=1)
