"""What ONNX graphs are made of: nodes, recurrent layers, the output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from asr.errors import InputError
from asr.model.bundle import Bundle
from asr.nets.cells import (
    LSTM,
    Cell,
    CoupledLSTM,
    GRUResetAfter,
    GRUResetBefore,
    PeepholeLSTM,
    TanhRNN,
)

if TYPE_CHECKING:
    import onnx

#: LayerNormalization came with 17; the version of the file format is the one of that time.
OPSET, IR_VERSION = 17, 8
#: The operator of each cell, and the order in which it wants the gates.
OPERATORS: dict[type[Cell], tuple[str, str]] = {
    TanhRNN: ("RNN", "h"),
    LSTM: ("LSTM", "iofg"),
    PeepholeLSTM: ("LSTM", "iofg"),
    CoupledLSTM: ("LSTM", "iofg"),
    GRUResetAfter: ("GRU", "zrn"),
    GRUResetBefore: ("GRU", "zrn"),
}


class Graph:
    """An ONNX graph under construction; values go by their names."""

    def __init__(self) -> None:
        try:
            import onnx
        except ImportError as error:
            raise InputError(
                "asr export needs the onnx package: pip install 'carousel-asr[onnx]'"
            ) from error
        self.onnx = onnx
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, dtype: type, *shape: str | int) -> str:
        """Declare an input; a name among the dimensions stands for any number."""
        self.inputs.append(self._value(name, dtype, shape))
        return name

    def output(self, name: str, value: str, dtype: type, *shape: str | int) -> None:
        """Declare ``value`` to be the output ``name``."""
        self.nodes.append(self.onnx.helper.make_node("Identity", [value], [name]))
        self.outputs.append(self._value(name, dtype, shape))

    def _value(self, name: str, dtype: type, shape: Sequence[str | int]) -> onnx.ValueInfoProto:
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self.onnx.helper.make_tensor_value_info(name, kind, shape)

    def constant(self, value: Any, dtype: type = np.float32) -> str:
        """A tensor that the file holds."""
        if isinstance(value, torch.Tensor):
            value = value.detach().cpu().numpy()
        name = f"constant{len(self.constants)}"
        self.constants.append(self.onnx.numpy_helper.from_array(np.array(value, dtype), name))
        return name

    def integer(self, *values: int) -> str:
        """A vector of integers, as the operators want axes, shapes and bounds."""
        return self.constant(values, np.int64)

    def apply(
        self, operator: str, *inputs: str, n_outputs: int = 1, **attributes: Any
    ) -> list[str]:
        """Add a node; the names of its outputs. An input that is "" is left out."""
        outputs = [f"{operator}{len(self.nodes)}.{i}" for i in range(n_outputs)]
        self.nodes.append(self.onnx.helper.make_node(operator, inputs, outputs, **attributes))
        return outputs

    def __call__(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """`apply` for an operator with one output."""
        return self.apply(operator, *inputs, **attributes)[0]

    def size(self, value: str, axis: int) -> str:
        """The size (1,) of a dimension."""
        return self("Shape", value, start=axis, end=axis + 1)

    def count(self, n: str) -> str:
        """0 ... n - 1 (n,) for an n of shape (1,)."""
        stop = self("Squeeze", n)
        return self("Range", self.constant(0, np.int64), stop, self.constant(1, np.int64))

    def column(self, values: str) -> str:
        """(B,) -> (B, 1)."""
        return self("Unsqueeze", values, self.integer(1))

    def model(self, properties: Mapping[str, str] = {}) -> onnx.ModelProto:
        """The model, checked."""
        helper = self.onnx.helper
        graph = helper.make_graph(
            self.nodes, "carousel", self.inputs, self.outputs, initializer=self.constants
        )
        model = helper.make_model(
            graph,
            producer_name="carousel-asr",
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
        )
        helper.set_model_props(model, dict(properties))
        self.onnx.checker.check_model(model, full_check=True)
        return model


def recurrent(
    graph: Graph,
    cells: Sequence[Cell],
    x: str,
    lens: str,
    state: Sequence[str] = (),
    direction: str = "forward",
) -> tuple[str, list[str]]:
    """One cell, or two in both directions: (B, T, F) -> (B, T, size), states (B, H) after it.

    lens: (B,), at least 1 each, or "" where all rows are as long. The states come out where
    ``state`` goes in.
    """
    first = cells[0]
    operator, _ = OPERATORS[type(first)]
    W, R, B, P = zip(*map(_weights, cells), strict=True)
    inputs = [
        graph("Transpose", x, perm=[1, 0, 2]),
        *(graph.constant(np.stack(each)) for each in (W, R, B)),
        graph("Cast", lens, to=graph.onnx.TensorProto.INT32) if lens else "",
        *(graph("Unsqueeze", each, graph.integer(0)) for each in state),
    ]
    attributes: dict[str, Any] = {
        "hidden_size": first.hidden,
        "direction": direction if len(cells) == 1 else "bidirectional",
    }
    if isinstance(first, PeepholeLSTM):
        inputs += [""] * (7 - len(inputs)) + [graph.constant(np.stack(P))]
    if operator == "GRU":
        attributes["linear_before_reset"] = int(isinstance(first, GRUResetAfter))
    n_states = len(first.states)
    y, *last = graph.apply(operator, *inputs, n_outputs=1 + n_states, **attributes)
    # (T, directions, B, H) -> (B, T, directions, H) -> (B, T, directions * H)
    y = graph("Transpose", y, perm=[2, 0, 1, 3])
    y = graph("Reshape", y, graph.integer(0, 0, len(cells) * first.hidden))
    return y, [graph("Squeeze", each, graph.integer(0)) for each in last[: len(state)]]


def _weights(cell: Cell) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A cell's W (gates * H, F), R (gates * H, H), B (2 * gates * H,) and P (peepholes * H,)."""

    def by_gate(rows: torch.Tensor) -> dict[str, np.ndarray]:
        chunks = rows.detach().cpu().numpy().astype(np.float32)
        gates = dict(zip(cell.gates, np.split(chunks, len(cell.gates)), strict=True))
        if isinstance(cell, CoupledLSTM):
            # 1 - s(a) = s(-a): the input gate is a forget gate with its weights turned round.
            gates["i"] = -gates["f"]
        return gates

    _, order = OPERATORS[type(cell)]
    W, R, b_in = (
        np.concatenate([by_gate(rows)[gate] for gate in order])
        for rows in (cell.weight_ih, cell.weight_hh, cell.bias)
    )
    b_hidden = np.zeros_like(b_in)
    if isinstance(cell, GRUResetAfter):
        b_hidden[2 * cell.hidden :] = cell.bias_hn.detach().cpu().numpy()
    P = np.zeros(0, np.float32)
    if isinstance(cell, PeepholeLSTM):
        p_i, p_f, p_o = cell.peepholes.detach().cpu().numpy()
        P = np.concatenate([p_i, p_o, p_f])
    return W, R, np.concatenate([b_in, b_hidden]), P


def linear(graph: Graph, module: nn.Linear, x: str) -> str:
    """The layer's equation."""
    product = graph("MatMul", x, graph.constant(module.weight.t()))
    return graph("Add", product, graph.constant(module.bias))


def log_probs_output(graph: Graph, bundle: Bundle, value: str) -> None:
    """Declare ``value`` to be the log-probabilities."""
    graph.output("log_probs", value, np.float32, "B", "T", len(bundle.labels))
