"""How far back a recurrent net remembers: the gradient over time, and a task that needs memory.

Two measurements over the same nets, all of nearly the same number of parameters and trained alike:

- the gradient: how much the output at the last frame, h_t, changes with the input and the state k
  frames before (Hochreiter 1991; Bengio, Simard & Frasconi 1994; Pascanu, Mikolov & Bengio 2013);
- recall: "Jane ... then" must be continued with "she", "John ... then" with "he", whatever the k
  words between. Each net is trained from scratch at each k.

`measure` does both and returns plain data for a JSON file; `memory_pictures.py` draws it.
"""

from __future__ import annotations

import copy
import math
import multiprocessing
import os
import signal
import statistics
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import asr
from asr.nets.cells import CELLS, Cell, TanhRNN
from asr.nets.recurrent import count_parameters

FORMAT = "carousel-memory-1"
#: The first pattern, the second pattern, and what continues it after each of the first.
NAMES = ("Jane", "John")
CUE = "then"
ANSWERS = ("she", "he")
FILLER = tuple("abcdefgh")
VOCABULARY = (*NAMES, CUE, *FILLER)
# Below this share of the largest, double precision says nothing of a singular value.
RESOLUTION = 1e-14


@dataclass(frozen=True)
class Protocol:
    """What all nets have in common.

    lengths: filler words k. parameters: of a whole net, met as nearly as a whole number of units
    allows. updates: of Adam at learning rate ``lr``, each on a fresh batch, the gradient clipped to
    norm ``clip_norm``. runs: trainings of each net at each k, which differ in weights and data.
    test_sequences: fresh ones, to count the right answers. gradient_sequences: to average over.
    """

    lengths: tuple[int, ...] = (5, 10, 20, 50, 100, 200)
    parameters: int = 6000
    updates: int = 400
    batch_size: int = 32
    lr: float = 1e-3
    clip_norm: float = 1.0
    runs: int = 3
    test_sequences: int = 500
    gradient_sequences: int = 4


QUICK = Protocol(
    lengths=(2, 5, 10),
    parameters=1000,
    updates=40,
    runs=1,
    test_sequences=100,
    gradient_sequences=2,
)


@dataclass(frozen=True)
class Start:
    """A cell and how its weights start; ``control``: beside the comparison, to explain it.

    The forget bias opens the carousel: the forget gate is s(5) = 0.993 at first, and s(5)^200 is
    still 0.26, where s(1)^200 is 6e-28. The original LSTM had no forget gate, that is 1.
    """

    cell: str
    forget_bias: float = 5.0
    orthogonal: bool = False
    control: bool = False


NETS = {name: Start(name) for name in CELLS} | {
    "rnn_orthogonal": Start("rnn", orthogonal=True, control=True),
    "lstm_forget_1": Start("lstm", forget_bias=1.0, control=True),
}


class Net(nn.Module):
    """A cell that reads one-hot words, and a choice between the answers after the last."""

    def __init__(self, start: Start, hidden: int) -> None:
        super().__init__()
        self.cell = CELLS[start.cell](
            len(VOCABULARY), hidden, forget_bias=start.forget_bias, orthogonal=start.orthogonal
        )
        self.choice = nn.Linear(hidden, len(ANSWERS))

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, F) -> logits of the answers (B, 2)."""
        outputs, _ = self.cell(x)
        return self.choice(outputs[:, -1])


def draw_sequences(k: int, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """n sequences: a name, k filler words, the cue -> one-hot (n, k + 2, F), answers (n,)."""
    answers = torch.randint(len(ANSWERS), (n,), generator=generator)
    filler = torch.randint(len(FILLER), (n, k), generator=generator) + VOCABULARY.index(FILLER[0])
    cue = torch.full((n, 1), VOCABULARY.index(CUE))
    words = torch.cat([answers[:, None], filler, cue], dim=1)
    return F.one_hot(words, len(VOCABULARY)).float(), answers


@cache
def choose_hidden(start: Start, parameters: int) -> int:
    """The number of units with which a net comes nearest to so many parameters."""

    def count(hidden: int) -> int:
        with torch.device("meta"):
            return count_parameters(Net(start, hidden))

    above = 1 + bisect_left(range(1, parameters), parameters, key=count)
    return min(max(above - 1, 1), above, key=lambda hidden: abs(count(hidden) - parameters))


def step_jacobians(cell: Cell, x: Tensor) -> tuple[Tensor, Tensor]:
    """The derivatives of each frame's state by the state before and by the frame's input.

    x (B, T, F). A state of (h, c) counts as one vector of S = 2 H numbers, h first; of (h,) alone
    S = H. Returns d s_t / d s_{t-1} (B, T, S, S) and d s_t / d x_t (B, T, S, F).
    """
    B, T, _ = x.shape
    states = [x.new_zeros(B, len(cell.states) * cell.hidden)]
    with torch.no_grad():
        for frame in x.unbind(1):
            parts = states[-1].chunk(len(cell.states), dim=1)
            states.append(torch.cat(cell.step(frame, parts), dim=1))
    # All frames of all sequences are one batch, since their states are known now.
    before = torch.stack(states[:-1], dim=1).flatten(0, 1).requires_grad_()
    inputs = x.flatten(0, 1).requires_grad_()
    after = torch.cat(cell.step(inputs, before.chunk(len(cell.states), dim=1)), dim=1)
    rows = [
        torch.autograd.grad(column.sum(), (before, inputs), retain_graph=True)
        for column in after.unbind(1)
    ]
    by_state, by_input = (torch.stack(parts, dim=1) for parts in zip(*rows, strict=True))
    return by_state.unflatten(0, (B, T)), by_input.unflatten(0, (B, T))


def gradients(cell: Cell, x: Tensor) -> dict[str, Tensor]:
    """The derivatives of the last output h_t by what lay k = 1 .. T - 1 frames before.

    x (B, T, F) -> "x": d h_t / d x_{t-k} (B, T - 1, H, F), and for each part of the state "h" (and
    "c"): d h_t / d h_{t-k} (B, T - 1, H, H). Each is a product of the `step_jacobians` between: of
    k factors, which is why it falls or grows exponentially (Pascanu et al. 2013, eq. 5).
    """
    by_state, by_input = step_jacobians(cell, x)
    back = torch.eye(by_state.shape[-1]).to(x)[: cell.hidden].expand(len(x), -1, -1)
    found: dict[str, list[Tensor]] = {name: [] for name in ("x", *cell.states)}
    for t in range(x.shape[1] - 1, 0, -1):
        back = back @ by_state[:, t]
        found["x"].append(back @ by_input[:, t - 1])
        for name, part in zip(cell.states, back.chunk(len(cell.states), dim=2), strict=True):
            found[name].append(part)
    return {name: torch.stack(parts, dim=1) for name, parts in found.items()}


def measure_gradients(net: Net, x: Tensor) -> dict[str, Any]:
    """Norms (largest singular values) of `gradients` by k, and the tanh RNN's singular values.

    Geometric means over the sequences of x (B, T, F), in double precision, each a list over k.
    "norms" has "x", "h" and perhaps "c". Of the tanh RNN alone there are "jacobians": "product" is
    d h_t / d h_{t-k} and "single" its last factor, d h_j / d h_{j-1} with j = t - k + 1, both as
    the "largest", "median" and "smallest" singular value (None where too small beside the largest
    to be known); and of the recurrent matrix U itself the largest singular value and eigenvalue.
    """
    cell, x = copy.deepcopy(net.cell).double(), x.double()
    spectra = {name: torch.linalg.svdvals(d) for name, d in gradients(cell, x).items()}
    found: dict[str, Any] = {"norms": {name: _over_k(s[..., 0]) for name, s in spectra.items()}}
    if isinstance(cell, TanhRNN):
        by_state, _ = step_jacobians(cell, x)
        single = torch.linalg.svdvals(by_state[:, 1:].flip(1))
        matrix = cell.weight_hh.detach()
        found["jacobians"] = {
            "product": _largest_median_smallest(spectra["h"]),
            "single": _largest_median_smallest(single),
            "recurrent_singular_value": torch.linalg.matrix_norm(matrix, ord=2).item(),
            "recurrent_eigenvalue": torch.linalg.eigvals(matrix).abs().max().item(),
        }
    return found


def _largest_median_smallest(singular_values: Tensor) -> dict[str, list[float | None]]:
    """(B, K, H), descending -> the three by k, over the sequences."""
    H = singular_values.shape[-1]
    resolved = singular_values > RESOLUTION * singular_values[..., :1]
    values = singular_values.where(resolved, torch.nan)
    places = {"largest": 0, "median": H // 2, "smallest": H - 1}
    return {name: _over_k(values[..., place]) for name, place in places.items()}


def _over_k(values: Tensor) -> list[float | None]:
    """Geometric mean over the first axis of (B, K); a list over k, None for what is not known."""
    means = values.log().mean(0).exp().tolist()
    return [None if math.isnan(mean) else mean for mean in means]


@dataclass(frozen=True)
class Trial:
    """One training: the net by its name in `NETS`, the filler's length, the seed of both."""

    net: str
    k: int
    seed: int


@dataclass(frozen=True)
class Outcome:
    """The share of right answers and, at the longest k, `measure_gradients` before and after."""

    accuracy: float
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None


def run_trial(trial: Trial, protocol: Protocol) -> Outcome:
    """Train one net from scratch and test it; the same trial gives the same outcome."""
    start = NETS[trial.net]
    generator = torch.Generator().manual_seed(trial.seed)
    with _one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(trial.seed)
        net = Net(start, choose_hidden(start, protocol.parameters))
        seen, _ = draw_sequences(trial.k, protocol.gradient_sequences, generator)
        longest = trial.k == max(protocol.lengths)
        before = measure_gradients(net, seen) if longest else None
        optimizer = torch.optim.Adam(net.parameters(), lr=protocol.lr)
        for _ in range(protocol.updates):
            x, answers = draw_sequences(trial.k, protocol.batch_size, generator)
            optimizer.zero_grad()
            F.cross_entropy(net(x), answers).backward()
            nn.utils.clip_grad_norm_(net.parameters(), protocol.clip_norm)
            optimizer.step()
        with torch.no_grad():
            x, answers = draw_sequences(trial.k, protocol.test_sequences, generator)
            accuracy = (net(x).argmax(1) == answers).double().mean().item()
        after = measure_gradients(net, seen) if longest else None
    return Outcome(accuracy, before, after)


@contextmanager
def _one_thread() -> Iterator[None]:
    """So small a net is fastest on one core, and its sums always come in the same order.

    What vanishes becomes 0: numbers below 1e-38, the denormal ones, are many times slower.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(threads)


def count_trials(protocol: Protocol) -> int:
    """How often `measure` will advance."""
    return len(NETS) * len(protocol.lengths) * protocol.runs


def measure(
    protocol: Protocol, seed: int, workers: int, advance: Callable[[], object]
) -> dict[str, Any]:
    """Both measurements over all `NETS`, as memory.json holds them.

    workers: trials at a time, each in a process of its own; with 1 all run in this one. They change
    the time that it takes and nothing else. advance: called after each of the trials.
    """
    trials = [
        Trial(net, k, seed=1000 * seed + run)
        for k, net, run in product(
            sorted(protocol.lengths, reverse=True), NETS, range(protocol.runs)
        )
    ]
    outcomes = {}
    if workers == 1:
        for trial in trials:
            outcomes[trial] = run_trial(trial, protocol)
            advance()
    else:
        # Not forked: torch's threads do not survive that.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, context, _start_worker) as pool:
            futures = {trial: pool.submit(run_trial, trial, protocol) for trial in trials}
            try:
                for future in as_completed(futures.values()):
                    future.result()
                    advance()
            finally:
                pool.shutdown(cancel_futures=True)
        outcomes = {trial: future.result() for trial, future in futures.items()}
    return _document(protocol, seed, outcomes)


def _start_worker() -> None:
    """Ctrl-C is for the first process to answer; when that ends, however it does, so do we."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _document(protocol: Protocol, seed: int, outcomes: dict[Trial, Outcome]) -> dict[str, Any]:
    """Gather the runs of each net: accuracies by k, gradients averaged geometrically."""
    longest = max(protocol.lengths)
    nets = {}
    for name, start in NETS.items():
        runs = {
            k: [o for trial, o in outcomes.items() if (trial.net, trial.k) == (name, k)]
            for k in protocol.lengths
        }
        accuracies = [[outcome.accuracy for outcome in runs[k]] for k in protocol.lengths]
        hidden = choose_hidden(start, protocol.parameters)
        nets[name] = asdict(start) | {
            "forget_bias": start.forget_bias if CELLS[start.cell].keeps else None,
            "hidden": hidden,
            "parameters": count_parameters(Net(start, hidden)),
            "accuracy": {
                "mean": [statistics.mean(a) for a in accuracies],
                "deviation": [statistics.pstdev(a) for a in accuracies],
                "runs": accuracies,
            },
            "gradient": {
                "before": _merge([outcome.before for outcome in runs[longest]]),
                "after": _merge([outcome.after for outcome in runs[longest]]),
            },
        }
    return {
        "format": FORMAT,
        "seed": seed,
        "protocol": asdict(protocol),
        "task": {"names": NAMES, "filler": FILLER, "cue": CUE, "answers": ANSWERS, "chance": 0.5},
        "recall_k": protocol.lengths,
        "gradient_k": list(range(1, longest + 2)),
        "nets": nets,
        "asr": asr.__version__,
        "torch": torch.__version__,
    }


def _merge(runs: Sequence[Any]) -> Any:
    """Documents of one shape -> one, with the geometric mean of each number; None if one is."""
    if isinstance(runs[0], dict):
        return {key: _merge([run[key] for run in runs]) for key in runs[0]}
    if isinstance(runs[0], list):
        return [_merge(values) for values in zip(*runs, strict=True)]
    if None in runs:
        return None
    return statistics.geometric_mean(runs) if min(runs) > 0 else 0.0
