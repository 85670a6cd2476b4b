"""Layers over chunks and over the future: the parallel form against a plain loop."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from asr.errors import InputError
from asr.nets.acoustic import AcousticModel
from asr.nets.cells import CELLS
from asr.nets.config import Latency, RecurrentConfig
from asr.nets.convolution import RowConvolution
from asr.nets.recurrent import RecurrentStack

LATENCIES = [(4, 0), (4, 3), (3, 7), (50, 2), (1, 1)]


def stack_of(cell: str, chunk: tuple[int, ...], lookahead: tuple[int, ...]) -> RecurrentStack:
    torch.manual_seed(0)
    config = RecurrentConfig(
        cell=cell,
        layers=3,
        hidden=3,
        chunk=chunk,
        lookahead=lookahead,
        between=(6,),
        residual=True,
        layer_norm=True,
    )
    return RecurrentStack(config, 6).double()


def by_loop(stack: RecurrentStack, x: Tensor, chunk: int, lookahead: int) -> Tensor:
    """One utterance (1, T, F), chunk after chunk, each layer from its state on."""
    states = [None] * len(stack.layers)
    outputs = []
    for start in range(0, x.shape[1], chunk):
        window = x[:, start : start + chunk + lookahead]
        n = min(chunk, window.shape[1])
        for depth, layer in enumerate(stack.layers):
            ahead, states[depth] = layer.ahead(window[:, :n], None, states[depth])
            if window.shape[1] > n:
                beyond, _ = layer.ahead(window[:, n:], None, states[depth])
                ahead = torch.cat([ahead, beyond], 1)
            back = layer.back(window.flip(1))[0].flip(1)
            y = stack.norms[depth](torch.cat([ahead, back], 2))
            window = stack.mlps[depth](window + y if window.shape == y.shape else y)
        outputs.append(window[:, :n])
    return torch.cat(outputs, 1)


@pytest.mark.parametrize("latency", LATENCIES)
@pytest.mark.parametrize("cell", CELLS)
def test_all_chunks_at_once_are_as_one_after_the_other(cell: str, latency: tuple[int, int]) -> None:
    stack = stack_of(cell, latency[:1], latency[1:]).eval()
    x, lens = torch.randn(3, 17, 6).double(), torch.tensor([17, 5, 12])
    # What is beyond an utterance's length has no part in it.
    y, _ = stack(x, lens)
    for i, n in enumerate(lens.tolist()):
        expected = by_loop(stack, x[i : i + 1, :n], *latency)
        torch.testing.assert_close(y[i, :n], expected[0], rtol=0, atol=1e-12)
        assert not y[i, n:].any()


@pytest.mark.parametrize("cell", CELLS)
def test_chunks_have_the_gradient_that_differences_say(cell: str) -> None:
    torch.manual_seed(1)
    config = RecurrentConfig(cell=cell, layers=3, hidden=2, chunk=(2,), lookahead=(1,), dropout=0.0)
    stack = RecurrentStack(config, 2).double().eval()
    lens = torch.tensor([5, 3])
    x = torch.randn(2, 5, 2).double().requires_grad_()
    names, weights = zip(*stack.named_parameters(), strict=True)

    def run(x: Tensor, *weights: Tensor) -> Tensor:
        called = dict(zip(names, weights, strict=True))
        return torch.func.functional_call(stack, called, (x, lens))[0]

    assert torch.autograd.gradcheck(run, (x, *weights))


def test_one_chunk_over_all_is_the_whole_utterance() -> None:
    torch.manual_seed(2)
    stack = stack_of("lstm", (40,), (0,)).eval()
    whole = RecurrentStack(RecurrentConfig(layers=3, hidden=3, between=(6,), residual=True), 6)
    stack.norms = whole.norms
    whole.double().eval().load_state_dict(stack.state_dict())
    x, lens = torch.randn(2, 11, 6).double(), torch.tensor([11, 4])
    torch.testing.assert_close(stack(x, lens), whole(x, lens))


def test_training_draws_mostly_the_first_chunk_and_use_has_it() -> None:
    torch.manual_seed(0)
    stack = stack_of("gru", (2, 8), (1, 0))
    x, lens = torch.randn(1, 16, 6).double(), torch.tensor([16])

    def outputs(latency: Latency) -> Tensor:
        stack.eval().latency = latency
        return stack(x, lens)[0]

    small, large = outputs(Latency(2, 1)), outputs(Latency(8, 0))
    stack.dropout.p = 0.0
    for layers in stack.mlps:
        layers.eval()
    stack.train()
    for mlp in stack.mlps:
        for part in mlp:
            if isinstance(part, torch.nn.Dropout):
                part.p = 0.0
    drawn = [stack(x, lens)[0] for _ in range(60)]
    n_small = sum(torch.equal(y, small) for y in drawn)
    n_large = sum(torch.equal(y, large) for y in drawn)
    # Half of them, and of the others each second one: 45.
    assert n_small > 35
    assert n_large == 60 - n_small > 5
    fresh = stack_of("gru", (2, 8), (1, 0)).eval()
    assert torch.equal(fresh(x, lens)[0], small)


def test_noise_on_weights_is_drawn_once_for_all_chunks() -> None:
    config = RecurrentConfig(layers=1, hidden=3, chunk=(2,), lookahead=(1,), weight_noise=0.5)
    stack = RecurrentStack(RecurrentConfig(**{**vars(config), "dropout": 0.0}), 3)
    # All chunks of the backward direction see the same, so they say the same.
    x = torch.ones(1, 8, 3)
    y = stack(x, torch.tensor([8]))[0][0, :6, 3:].view(3, 2, 3)
    assert torch.equal(y[0], y[1])
    assert torch.equal(y[1], y[2])


def test_a_row_convolution_is_a_weighted_sum_over_frames_to_come() -> None:
    row = RowConvolution(2, 2)
    x = torch.randn(1, 5, 2)
    torch.testing.assert_close(row(x), x.unfold(1, 3, 1).sum(3) / 3**0.5)
    torch.nn.init.normal_(row.weight)
    y = row(x)
    for t in range(3):
        expected = sum(row.weight[:, 0, j] * x[0, t + j] for j in range(3))
        torch.testing.assert_close(y[0, t], expected)


def test_one_direction_sees_its_future_and_no_more() -> None:
    torch.manual_seed(3)
    config = RecurrentConfig(layers=2, hidden=4, bidirectional=False, future=2, conv=(2,))
    model = AcousticModel(config, 6, 5, n_bins=6).eval()
    torch.nn.init.normal_(model.row.weight)
    x, lens = torch.randn(2, 12, 6), torch.tensor([12, 7])
    x[1, 7:] = 0.0
    y, _ = model(x, lens)
    changed = x.clone()
    changed[0, 8:] += 1.0
    z, _ = model(changed, lens)
    # The convolution before the layers sees one frame more.
    assert torch.equal(y[0, :5], z[0, :5])
    assert not torch.equal(y[0, 5], z[0, 5])
    alone, _ = model(x[1:, :7], lens[1:])
    torch.testing.assert_close(alone[0], y[1, :7])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"chunk": (4,)}, "as many of the one as of the other"),
        ({"chunk": (4,), "lookahead": (2,), "bidirectional": False}, "both directions"),
        ({"future": 3}, "one direction"),
        ({"chunk": (4,), "lookahead": (0,), "subsample": (1, 2, 1)}, "a pyramid"),
        ({"chunk": (0,), "lookahead": (0,)}, "from 1"),
    ],
)
def test_settings_that_cannot_go_along_with_speech_are_refused(
    settings: dict[str, object], told: str
) -> None:
    with pytest.raises(InputError, match=told):
        RecurrentConfig(**settings)
