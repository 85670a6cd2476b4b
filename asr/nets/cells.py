"""Recurrent cells: the equations as the literature writes them, and a fast way to run each.

Every cell is a layer in one direction of time. Its ``step`` is the equations, one frame, plain and
differentiable: read that. Its ``run`` gives the same for all frames by torch's own kernel where
torch has one, else by ``cells_kernels.py``. In the equations W is ``weight_ih`` (what is seen),
U ``weight_hh`` (what is remembered) and b ``bias``, each with the gates' rows stacked in the order
of ``gates``; s() is the logistic sigmoid and * works element by element.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from asr.errors import InputError
from asr.nets import config
from asr.nets.kernels import CoupledKernel, PeepholeKernel, ResetBeforeKernel
from asr.nets.stepping import lstm

State = tuple[Tensor, ...]
"""What a cell remembers, (B, H) each: (h,), or (h, c) for the LSTMs. The output is h."""
Kernel = Callable[..., tuple[Tensor, ...]]
#: Of so many frames of one sequence at most, torch's plain kernel is faster than oneDNN's.
FEW_FRAMES = 16


class Cell(nn.Module):
    """One recurrent layer of ``hidden`` units that reads ``n_in`` features, forward in time.

    forget_bias: the initial bias of the gate that keeps the state (an LSTM's forget gate, a GRU's
    update gate; the tanh RNN has none). Gers et al. 2000 and Jozefowicz et al. 2015: with 1, errors
    flow back from the first day of training. The other biases start at zero.
    orthogonal: each gate's recurrent weights start as an orthogonal matrix (Saxe et al. 2014), else
    uniform within 1 / sqrt(hidden), as all other weights.
    """

    gates: ClassVar[tuple[str, ...]]
    keeps: ClassVar[str | None] = None
    states: ClassVar[tuple[str, ...]] = ("h",)

    def __init__(
        self, n_in: int, hidden: int, *, forget_bias: float = 1.0, orthogonal: bool = False
    ) -> None:
        super().__init__()
        self.n_in, self.hidden = n_in, hidden
        self.weight_ih = nn.Parameter(torch.empty(len(self.gates) * hidden, n_in))
        self.weight_hh = nn.Parameter(torch.empty(len(self.gates) * hidden, hidden))
        self.bias = nn.Parameter(torch.zeros(len(self.gates) * hidden))
        for weight in (self.weight_ih, self.weight_hh):
            nn.init.uniform_(weight, -(hidden**-0.5), hidden**-0.5)
        if orthogonal:
            for gate in self.weight_hh.detach().chunk(len(self.gates)):
                nn.init.orthogonal_(gate)
        if self.keeps is not None:
            keep = self.gates.index(self.keeps)
            nn.init.constant_(self.bias.detach().chunk(len(self.gates))[keep], forget_bias)

    def extra_repr(self) -> str:
        return f"{self.n_in}, {self.hidden}"

    def step(self, x: Tensor, state: State) -> State:
        """The equations: x (B, F) and the state of the frame before -> the state of this frame."""
        raise NotImplementedError

    def run(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """x (T, B, F), T >= 1, and the state before it -> outputs (T, B, H), the state after it."""
        raise NotImplementedError

    def project(self, x: Tensor) -> Tensor:
        """W x + b for all frames as one product; our own loops then go on in full precision."""
        return F.linear(x, self.weight_ih, self.bias).to(self.weight_hh.dtype)

    def forward(
        self, x: Tensor, lens: Tensor | None = None, state: State | None = None
    ) -> tuple[Tensor, State]:
        """x (B, T, F), lens (B,) frames, state (B, H) each -> outputs (B, T, H), state.

        Outputs are zero beyond each length, and the state returned is the one at each sequence's
        own last frame: given to the next call, it goes on where this one stopped. Without ``lens``
        every frame counts; without ``state`` it is zero.

        Raises:
            InputError: shapes that do not fit this cell, lengths that do not fit the frames.
        """
        if x.ndim != 3 or x.shape[2] != self.n_in or 0 in x.shape:
            raise InputError(
                f"cell input has shape {tuple(x.shape)}: expected (batch, frames, {self.n_in}), "
                "at least one frame"
            )
        B, T, _ = x.shape
        if state is None:
            state = tuple(self.weight_hh.new_zeros(B, self.hidden) for _ in self.states)
        if [s.shape for s in state] != [(B, self.hidden)] * len(self.states):
            raise InputError(
                f"cell state has shapes {[tuple(s.shape) for s in state]}: expected "
                f"({', '.join(self.states)}), each ({B}, {self.hidden})"
            )
        x = x.transpose(0, 1)
        if lens is None:
            output, state = self.run(x, state)
        else:
            if lens.shape != (B,) or not 0 <= int(lens.min()) <= int(lens.max()) <= T:
                raise InputError(f"lengths {lens.tolist()}: expected {B}, each 0 to {T} frames")
            output, state = self._run_to_lengths(x, lens, state)
        return output.transpose(0, 1), state

    def _run_to_lengths(self, x: Tensor, lens: Tensor, state: State) -> tuple[Tensor, State]:
        """`run`, longest sequence first, in a batch that shrinks where sequences end."""
        T, B, _ = x.shape
        ends, order = lens.to(x.device).sort(descending=True)
        original = order.argsort()
        x, state = x[:, order], tuple(s[order] for s in state)
        outputs, finished = [], []
        start, active = 0, B
        for end, count in zip(*ends.flip(0).unique_consecutive(return_counts=True), strict=True):
            if end > start:
                output, state = self.run(x[start:end, :active], state)
                outputs.append(F.pad(output, (0, 0, 0, B - active)))
            start, active = int(end), active - int(count)
            finished.append([s[active:] for s in state])
            state = tuple(s[:active] for s in state)
        outputs.append(x.new_zeros(T - start, B, self.hidden))
        # The shortest finished first, and the order is longest first.
        last = tuple(torch.cat(pieces[::-1])[original] for pieces in zip(*finished, strict=True))
        return torch.cat(outputs)[:, original], last


def run_kernel(
    kernel: Kernel, x: Tensor, state: State, weights: tuple[Tensor, ...]
) -> tuple[Tensor, State]:
    """`Cell.run` by torch's own ``kernel`` for one layer, whose weights are W, U and two biases."""
    if x.is_cuda:
        return run_cudnn(kernel, x, state, weights)
    if is_brief(x):
        # As if packed: what is not goes to oneDNN, which arranges the weights anew in each call.
        sizes = torch.ones(len(x), dtype=torch.int64)
        options = (True, 1, 0.0, False, False)
        output, *last = kernel(x[:, 0], sizes, joined(state), weights, *options)
        return output[:, None], tuple(s[0] for s in last)
    output, *last = kernel(x, joined(state), weights, True, 1, 0.0, False, False, False)
    return output, tuple(s[0] for s in last)


def is_brief(x: Tensor) -> bool:
    """Whether x (T, B, F) are a few frames of one stream on the CPU."""
    T, B, _ = x.shape
    is_short = B == 1 and T <= FEW_FRAMES and x.device.type == "cpu"
    return is_short and not torch.is_autocast_enabled("cpu")


def run_cudnn(
    kernel: Kernel, x: Tensor, state: State, weights: tuple[Tensor, ...]
) -> tuple[Tensor, State]:
    """`run_kernel` on a GPU, where cuDNN has its ways."""
    T, B, _ = x.shape
    # One block of memory, as cuDNN wants it: others are copied into one each time, with a warning.
    block = torch.cat([weight.flatten() for weight in weights])
    if torch.is_autocast_enabled("cuda"):
        # Autocast itself gives cuDNN float16, whatever it was told; small gradients vanish there.
        dtype = torch.get_autocast_dtype("cuda")
        x, block, state = x.to(dtype), block.to(dtype), tuple(s.to(dtype) for s in state)
    parts = block.split([weight.numel() for weight in weights])
    weights = tuple(part.view_as(w) for part, w in zip(parts, weights, strict=True))
    # What backward needs is kept only in training, which without dropout changes nothing else.
    options = (True, 1, 0.0, torch.is_grad_enabled(), False)
    with torch.autocast("cuda", enabled=False):
        if x.dtype == torch.bfloat16:
            # As if packed: else torch picks an algorithm for small layers that has no bfloat16.
            sizes = torch.full((T,), B)
            output, *last = kernel(x.flatten(0, 1), sizes, joined(state), weights, *options)
            output = output.view(T, B, -1)
        else:
            output, *last = kernel(x, joined(state), weights, *options, False)
    return output, tuple(s[0] for s in last)


def joined(state: State) -> Tensor | list[Tensor]:
    """The state as torch's kernels take it, one layer of (1, B, H) each."""
    layers = [s[None].contiguous() for s in state]
    return layers if len(layers) > 1 else layers[0]


class TanhRNN(Cell):
    """The recurrent net without gates (Elman 1990; Graves et al. 2013, eq. 1).

    h_t = tanh(W x_t + U h_{t-1} + b)
    """

    gates = ("h",)

    def step(self, x: Tensor, state: State) -> State:
        (h,) = state
        return (torch.tanh(x @ self.weight_ih.t() + h @ self.weight_hh.t() + self.bias),)

    def run(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        weights = (self.weight_ih, self.weight_hh, self.bias, torch.zeros_like(self.bias))
        return run_kernel(torch.rnn_tanh, x, state, weights)


class LSTM(Cell):
    """Long short-term memory with a forget gate (Hochreiter & Schmidhuber 1997; Gers et al. 2000).

    i_t = s(W_i x_t + U_i h_{t-1} + b_i)        input gate: what to write
    f_t = s(W_f x_t + U_f h_{t-1} + b_f)        forget gate: what to keep
    g_t = tanh(W_g x_t + U_g h_{t-1} + b_g)     candidate
    o_t = s(W_o x_t + U_o h_{t-1} + b_o)        output gate: what to show
    c_t = f_t * c_{t-1} + i_t * g_t             cell state
    h_t = o_t * tanh(c_t)

    The cell state is the constant error carousel: along it the derivative of c_t by c_{t-1} is f_t,
    with no weight and no squashing between, so where f_t is 1 an error comes back from any distance
    as large as it went in.
    """

    gates = ("i", "f", "g", "o")
    keeps = "f"
    states = ("h", "c")

    def step(self, x: Tensor, state: State) -> State:
        h, c = state
        a = x @ self.weight_ih.t() + h @ self.weight_hh.t() + self.bias
        a_i, a_f, a_g, a_o = a.chunk(4, dim=1)
        i, f, g, o = a_i.sigmoid(), a_f.sigmoid(), a_g.tanh(), a_o.sigmoid()
        c = f * c + i * g
        return o * c.tanh(), c

    def run(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        if is_brief(x) and x.dtype == torch.float32 and torch.is_inference_mode_enabled():
            h, c = (part[0].clone() for part in state)
            output = x.new_empty(len(x), self.hidden)
            projected = self.project(x[:, 0])
            arrays = (projected, self.weight_hh.detach(), h, c, output)
            lstm(*(array.numpy() for array in arrays))
            return output[:, None], (h[None], c[None])
        weights = (self.weight_ih, self.weight_hh, self.bias, torch.zeros_like(self.bias))
        return run_kernel(torch.lstm, x, state, weights)


class PeepholeLSTM(Cell):
    """The LSTM whose gates see the cell (Gers & Schmidhuber 2000; Graves et al. 2013, eq. 3-7).

    i_t = s(W_i x_t + U_i h_{t-1} + p_i * c_{t-1} + b_i)
    f_t = s(W_f x_t + U_f h_{t-1} + p_f * c_{t-1} + b_f)
    g_t = tanh(W_g x_t + U_g h_{t-1} + b_g)
    c_t = f_t * c_{t-1} + i_t * g_t
    o_t = s(W_o x_t + U_o h_{t-1} + p_o * c_t + b_o)
    h_t = o_t * tanh(c_t)

    A peephole is one weight from a unit's cell to that unit's gate: ``peepholes`` (3, H) are p_i,
    p_f and p_o. Through them a gate knows the cell even while the output gate hides it.
    """

    gates = ("i", "f", "g", "o")
    keeps = "f"
    states = ("h", "c")

    def __init__(
        self, n_in: int, hidden: int, *, forget_bias: float = 1.0, orthogonal: bool = False
    ) -> None:
        super().__init__(n_in, hidden, forget_bias=forget_bias, orthogonal=orthogonal)
        self.peepholes = nn.Parameter(torch.empty(3, hidden))
        nn.init.uniform_(self.peepholes, -(hidden**-0.5), hidden**-0.5)

    def step(self, x: Tensor, state: State) -> State:
        h, c = state
        p_i, p_f, p_o = self.peepholes
        a = x @ self.weight_ih.t() + h @ self.weight_hh.t() + self.bias
        a_i, a_f, a_g, a_o = a.chunk(4, dim=1)
        i, f, g = (a_i + p_i * c).sigmoid(), (a_f + p_f * c).sigmoid(), a_g.tanh()
        c = f * c + i * g
        o = (a_o + p_o * c).sigmoid()
        return o * c.tanh(), c

    def run(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        projected = self.project(x)
        with torch.autocast(x.device.type, enabled=False):
            output, c = PeepholeKernel.apply(projected, self.weight_hh, self.peepholes, *state)
        return output, (output[-1], c)


class CoupledLSTM(Cell):
    """The LSTM that writes what it forgets, i_t = 1 - f_t (Greff et al. 2017, "CIFG").

    f_t = s(W_f x_t + U_f h_{t-1} + b_f)
    o_t = s(W_o x_t + U_o h_{t-1} + b_o)
    g_t = tanh(W_g x_t + U_g h_{t-1} + b_g)
    c_t = f_t * c_{t-1} + (1 - f_t) * g_t
    h_t = o_t * tanh(c_t)
    """

    gates = ("f", "o", "g")
    keeps = "f"
    states = ("h", "c")

    def step(self, x: Tensor, state: State) -> State:
        h, c = state
        a = x @ self.weight_ih.t() + h @ self.weight_hh.t() + self.bias
        a_f, a_o, a_g = a.chunk(3, dim=1)
        f, o, g = a_f.sigmoid(), a_o.sigmoid(), a_g.tanh()
        c = f * c + (1 - f) * g
        return o * c.tanh(), c

    def run(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        projected = self.project(x)
        with torch.autocast(x.device.type, enabled=False):
            output, c = CoupledKernel.apply(projected, self.weight_hh, *state)
        return output, (output[-1], c)


class GRUResetAfter(Cell):
    """The gated recurrent unit as cuDNN and torch compute it: the reset after the product.

    r_t = s(W_r x_t + U_r h_{t-1} + b_r)                     reset gate
    z_t = s(W_z x_t + U_z h_{t-1} + b_z)                     update gate: forget and input in one
    n_t = tanh(W_n x_t + b_n + r_t * (U_n h_{t-1} + b_hn))   candidate
    h_t = z_t * h_{t-1} + (1 - z_t) * n_t

    All of U h_{t-1} is one product, at the price of one more bias, ``bias_hn`` (H,), inside the
    reset. Otherwise as `GRUResetBefore`; trained weights of the one do not fit the other.
    """

    gates = ("r", "z", "n")
    keeps = "z"

    def __init__(
        self, n_in: int, hidden: int, *, forget_bias: float = 1.0, orthogonal: bool = False
    ) -> None:
        super().__init__(n_in, hidden, forget_bias=forget_bias, orthogonal=orthogonal)
        self.bias_hn = nn.Parameter(torch.zeros(hidden))

    def step(self, x: Tensor, state: State) -> State:
        (h,) = state
        x_r, x_z, x_n = (x @ self.weight_ih.t() + self.bias).chunk(3, dim=1)
        h_r, h_z, h_n = (h @ self.weight_hh.t()).chunk(3, dim=1)
        r, z = (x_r + h_r).sigmoid(), (x_z + h_z).sigmoid()
        n = (x_n + r * (h_n + self.bias_hn)).tanh()
        return (z * h + (1 - z) * n,)

    def run(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        bias_hh = F.pad(self.bias_hn, (2 * self.hidden, 0))
        weights = (self.weight_ih, self.weight_hh, self.bias, bias_hh)
        return run_kernel(torch.gru, x, state, weights)


class GRUResetBefore(Cell):
    """The gated recurrent unit as first published: the reset before the product.

    Cho et al. 2014, eq. 5-8:
    r_t = s(W_r x_t + U_r h_{t-1} + b_r)
    z_t = s(W_z x_t + U_z h_{t-1} + b_z)
    h_t = z_t * h_{t-1} + (1 - z_t) * n_t
    n_t = tanh(W_n x_t + U_n (r_t * h_{t-1}) + b_n)
    """

    gates = ("r", "z", "n")
    keeps = "z"

    def step(self, x: Tensor, state: State) -> State:
        (h,) = state
        U_r, U_z, U_n = self.weight_hh.chunk(3)
        a_r, a_z, a_n = (x @ self.weight_ih.t() + self.bias).chunk(3, dim=1)
        r = (a_r + h @ U_r.t()).sigmoid()
        z = (a_z + h @ U_z.t()).sigmoid()
        n = (a_n + (r * h) @ U_n.t()).tanh()
        return (z * h + (1 - z) * n,)

    def run(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        projected = self.project(x)
        with torch.autocast(x.device.type, enabled=False):
            output = ResetBeforeKernel.apply(projected, self.weight_hh, *state)
        return output, (output[-1],)


CELLS: dict[str, type[Cell]] = dict(
    zip(
        config.CELLS,
        (TanhRNN, LSTM, PeepholeLSTM, CoupledLSTM, GRUResetAfter, GRUResetBefore),
        strict=True,
    )
)


def find_cell(name: str) -> type[Cell]:
    """The class of a cell by its name in configurations.

    Raises:
        InputError: there is none of that name; those that exist are listed.
    """
    if name not in CELLS:
        raise InputError(f"no cell is named {name!r}: choose one of {', '.join(CELLS)}")
    return CELLS[name]


def to_torch(cell: TanhRNN | LSTM | GRUResetAfter) -> nn.RNN | nn.LSTM | nn.GRU:
    """A torch module, one layer in one direction, with the weights of a cell."""
    kinds: dict[type[Cell], type[nn.RNN | nn.LSTM | nn.GRU]] = {
        TanhRNN: nn.RNN,
        LSTM: nn.LSTM,
        GRUResetAfter: nn.GRU,
    }
    module = kinds[type(cell)](cell.n_in, cell.hidden, batch_first=True).to(cell.bias)
    bias_hh = torch.zeros_like(cell.bias)
    if isinstance(cell, GRUResetAfter):
        bias_hh[2 * cell.hidden :] = cell.bias_hn
    module.load_state_dict(
        {
            "weight_ih_l0": cell.weight_ih,
            "weight_hh_l0": cell.weight_hh,
            "bias_ih_l0": cell.bias,
            "bias_hh_l0": bias_hh,
        }
    )
    return module
