"""Time and memory of the recurrent nets on the CPU: `python tools/bench_recurrent.py` (2 threads).

Stacks: a packed, bidirectional `nn.LSTM` against `RecurrentStack`, which flips each sequence within
its length and runs two passes over padded input. Cells: each against torch's own module where there
is one, against torch's padded `nn.LSTM`, and against a Python loop over the cell's equations.

Time: forward and backward; the candidates take turns, and a ratio is the median over the rounds of
the ratio within a round, so that a busy machine weighs on both sides alike.
Memory: `saved` is what autograd keeps between forward and backward without weights and input (the
storages that `saved_tensors_hooks` sees); `peak` is the growth of the resident set's high-water
mark over one forward and backward, in a process of its own that has run one short batch before.
"""

from __future__ import annotations

import multiprocessing
import platform
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from asr.nets.cells import CELLS, LSTM, GRUResetAfter, TanhRNN, to_torch
from asr.nets.config import RecurrentConfig
from asr.nets.recurrent import RecurrentLayer, RecurrentStack
from asr.train.rundir import processor_name

THREADS, B, T, F, H, LAYERS = 2, 16, 400, 256, 256, 3
ROUNDS = 7

Layer = Callable[[Tensor], Tensor]


def torch_layer(name: str) -> Layer:
    cell = CELLS[name](F, H)
    assert isinstance(cell, TanhRNN | LSTM | GRUResetAfter)
    module = to_torch(cell)
    return lambda x: module(x)[0]


def cell_layer(name: str) -> Layer:
    cell = CELLS[name](F, H)
    return lambda x: cell(x)[0]


def loop_layer(name: str) -> Layer:
    cell = CELLS[name](F, H)

    def loop(x: Tensor) -> Tensor:
        state = tuple(x.new_zeros(len(x), H) for _ in cell.states)
        outputs = []
        for x_t in x.unbind(1):
            state = cell.step(x_t, state)
            outputs.append(state[0])
        return torch.stack(outputs, dim=1)

    return loop


LAYERS_BY_KIND = {"torch": torch_layer, "ours": cell_layer, "loop": loop_layer}
CANDIDATES = [("torch", name) for name in ("rnn", "lstm", "gru")]
CANDIDATES += [(kind, name) for kind in ("ours", "loop") for name in CELLS]


def seconds(work: Callable[[], Tensor]) -> float:
    start = time.perf_counter()
    work().square().mean().backward()
    return time.perf_counter() - start


def interleaved(works: Mapping[str, Callable[[], Tensor]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every round; the candidates take turns. One round before is not counted."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds + 1):
        for name, work in works.items():
            times[name].append(seconds(work))
    return {name: values[1:] for name, values in times.items()}


def ratio(times: dict[str, list[float]], one: str, other: str) -> float:
    return median(a / b for a, b in zip(times[one], times[other], strict=True))


def saved_mib(layer: Layer, x: Tensor) -> float:
    """MiB that autograd keeps for backward, but for the weights and the input."""
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        # Only weights and the input are leaves; views share their base's storage.
        base = tensor if tensor._base is None else tensor._base
        if not (base.is_leaf and base.requires_grad):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = layer(x)
    del output
    return sum(storages.values()) / 2**20


def peak_mib(kind: str, name: str) -> float:
    """Growth of this process's peak resident set over one forward and backward."""
    torch.set_num_threads(THREADS)
    layer = LAYERS_BY_KIND[kind](name)
    x = torch.randn(B, T, F, requires_grad=True)
    seconds(lambda: layer(x[:, :4]))
    before = high_water_kib()
    seconds(lambda: layer(x))
    return (high_water_kib() - before) / 2**10


def high_water_kib() -> int:
    """Peak resident set of this process (Linux; getrusage would count the parent's too)."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0])


def bench_stacks() -> None:
    stack = RecurrentStack(RecurrentConfig(layers=LAYERS, hidden=H, dropout=0), F)
    packed = nn.LSTM(F, H, num_layers=LAYERS, bidirectional=True, batch_first=True)
    weights = {}
    for depth, layer in enumerate(stack.layers):
        assert isinstance(layer, RecurrentLayer)
        for cell, suffix in ((layer.ahead, ""), (layer.back, "_reverse")):
            assert isinstance(cell, LSTM)
            for name, weight in to_torch(cell).state_dict().items():
                weights[name.replace("_l0", f"_l{depth}") + suffix] = weight
    packed.load_state_dict(weights)
    x = torch.randn(B, T, F)
    lens = torch.randint(T // 2, T + 1, (B,))
    lens[0] = T

    def run_packed() -> Tensor:
        sequences = nn.utils.rnn.pack_padded_sequence(
            x, lens, batch_first=True, enforce_sorted=False
        )
        output, _ = packed(sequences)
        return nn.utils.rnn.pad_packed_sequence(output, batch_first=True)[0]

    difference = (stack(x, lens)[0] - run_packed()).abs().max().item()
    works = {"packed": run_packed, "padded": lambda: stack(x, lens)[0]}
    times = interleaved(works, ROUNDS)
    print(f"\n{LAYERS} x {H} bidirectional LSTM, lengths {T // 2} to {T}, forward and backward\n")
    print("| stack | ms | times padded |\n|---|---:|---:|")
    for name, label in (("packed", "packed `nn.LSTM`"), ("padded", "`RecurrentStack`, padded")):
        print(f"| {label} | {1e3 * median(times[name]):.0f} | {ratio(times, name, 'padded'):.2f} |")
    print(f"\nLargest difference between the outputs: {difference:.1e}")


def bench_cells() -> None:
    x = torch.randn(B, T, F, requires_grad=True)
    layers = {f"{kind} {name}": LAYERS_BY_KIND[kind](name) for kind, name in CANDIDATES}
    works = {key: partial(layer, x) for key, layer in layers.items()}
    times = interleaved(works, ROUNDS)
    saved = {key: saved_mib(layer, x) for key, layer in layers.items()}
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as fresh:
        kinds, names = zip(*CANDIDATES, strict=True)
        peak = dict(zip(layers, fresh.map(peak_mib, kinds, names), strict=True))
    print(
        f"\nOne layer, one direction, {H} units, every sequence {T} frames, forward and backward\n"
    )
    print(
        "| cell | ms | times torch's own | times torch's LSTM | loop, times ours "
        "| saved MiB | times torch's LSTM | peak MiB | times torch's LSTM |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for kind, name in CANDIDATES:
        if kind == "loop":
            continue
        key, own = f"{kind} {name}", f"torch {name}"
        cells = [
            f"torch `nn.{name.upper()}`" if kind == "torch" else f"`{name}`",
            f"{1e3 * median(times[key]):.0f}",
            f"{ratio(times, key, own):.2f}" if own in times and kind == "ours" else "",
            f"{ratio(times, key, 'torch lstm'):.2f}",
            f"{ratio(times, f'loop {name}', key):.1f}" if kind == "ours" else "",
            f"{saved[key]:.0f}",
            f"{saved[key] / saved['torch lstm']:.2f}",
            f"{peak[key]:.0f}",
            f"{peak[key] / peak['torch lstm']:.2f}",
        ]
        print(f"| {' | '.join(cells)} |")


def main() -> None:
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    print(
        f"{processor_name()}, {THREADS} threads; Python {platform.python_version()}, "
        f"torch {torch.__version__}; batch {B}, {T} frames, {F} features; "
        f"median of {ROUNDS} interleaved rounds"
    )
    bench_stacks()
    bench_cells()


if __name__ == "__main__":
    main()
