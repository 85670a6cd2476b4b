"""Every cell: kernel equal to equations, gradients right, lengths and states exact."""

import pytest
import torch
from torch import nn

from asr.errors import InputError
from asr.nets.cells import (
    CELLS,
    FEW_FRAMES,
    LSTM,
    GRUResetAfter,
    PeepholeLSTM,
    TanhRNN,
    find_cell,
    run_cudnn,
    run_kernel,
    to_torch,
)

B, T, F, H = 4, 6, 3, 4
LENS = torch.tensor([6, 1, 0, 4])


@pytest.fixture(params=CELLS)
def cell(request):
    torch.manual_seed(0)
    cell = CELLS[request.param](F, H).double()
    for parameter in cell.parameters():
        nn.init.normal_(parameter, std=0.5)
    return cell


def features(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def first_state(cell, n=B):
    return tuple(features(n, H, seed=2 + k) for k in range(len(cell.states)))


def by_the_equations(cell, x, lens, state):
    """`forward` as a loop over `step`: each sequence's state stands still where it has ended."""
    outputs = []
    for t in range(x.shape[1]):
        runs = (t < lens)[:, None]
        new = cell.step(x[:, t], state)
        state = tuple(torch.where(runs, n, s) for n, s in zip(new, state, strict=True))
        outputs.append(torch.where(runs, new[0], 0.0))
    return torch.stack(outputs, dim=1), state


def gradients(cell, output, state, x, first):
    weighted = (output * features(*output.shape, seed=7)).sum()
    for k, s in enumerate(state):
        weighted = weighted + (s * features(*s.shape, seed=8 + k)).sum()
    return torch.autograd.grad(weighted, [x, *first, *cell.parameters()])


@pytest.mark.parametrize("lens", [LENS, torch.full((B,), T)], ids=["ragged", "even"])
def test_equals_its_equations(cell, lens):
    x = features(B, T, F).requires_grad_()
    first = tuple(s.requires_grad_() for s in first_state(cell))
    output, state = cell(x, lens, first)
    expected, expected_state = by_the_equations(cell, x, lens, first)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(state, expected_state)
    torch.testing.assert_close(
        gradients(cell, output, state, x, first),
        gradients(cell, expected, expected_state, x, first),
    )


@pytest.mark.parametrize("lens", [None, LENS], ids=["no lengths", "lengths"])
def test_gradcheck(cell, lens):
    names = [name for name, _ in cell.named_parameters()]

    def run(x, *rest):
        state, weights = rest[: len(cell.states)], rest[len(cell.states) :]
        parameters = dict(zip(names, weights, strict=True))
        output, last = torch.func.functional_call(cell, parameters, (x, lens, state))
        return output, *last

    inputs = [features(B, T, F), *first_state(cell)]
    inputs += [parameter.detach().clone() for parameter in cell.parameters()]
    assert torch.autograd.gradcheck(run, [tensor.requires_grad_() for tensor in inputs])


def test_backward_twice_over_a_kept_graph(cell):
    output, _ = cell(features(B, T, F))
    loss = output.square().sum()
    once = torch.autograd.grad(loss, cell.parameters(), retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(loss, cell.parameters()), once)


def test_single_precision(cell):
    x = features(B, T, F)
    expected, _ = cell(x)
    output, _ = cell.float()(x.float())
    assert output.dtype == torch.float32
    torch.testing.assert_close(output, expected.float())


def test_alone_and_in_a_batch(cell):
    x, first = features(B, T, F), first_state(cell)
    output, state = cell(x, LENS, first)
    for b, n in enumerate(LENS.tolist()):
        assert not output[b, n:].any()
        own = tuple(s[b : b + 1] for s in first)
        if n:
            alone, own = cell(x[b : b + 1, :n], state=own)
            torch.testing.assert_close(output[b : b + 1, :n], alone)
        torch.testing.assert_close(tuple(s[b : b + 1] for s in state), own)


def test_padding_is_never_seen(cell):
    x = features(B, T, F)
    expected, expected_state = cell(x, LENS)
    x[torch.arange(T) >= LENS[:, None]] = float("nan")
    x.requires_grad_()
    output, state = cell(x, LENS)
    assert torch.equal(output, expected)
    assert all(map(torch.equal, state, expected_state))
    assert all(grad.isfinite().all() for grad in gradients(cell, output, state, x, ()))


def test_in_chunks_as_in_one(cell):
    x, lens = features(B, T, F), torch.tensor([6, 3, 1, 4])
    expected, expected_state = cell(x, lens)
    state, chunks, start = None, [], 0
    for size in (1, 2, 3):
        output, state = cell(x[:, start : start + size], (lens - start).clamp(0, size), state)
        chunks.append(output)
        start += size
    torch.testing.assert_close(torch.cat(chunks, dim=1), expected)
    torch.testing.assert_close(state, expected_state)


TORCH = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


def from_torch(module, layer=0, reverse=False):
    """A cell with the weights of one layer, in one direction, of a torch module.

    A reverse layer becomes a cell that runs forward: turn its sequences round before and after.
    """
    kinds = {nn.RNN: TanhRNN, nn.LSTM: LSTM, nn.GRU: GRUResetAfter}
    suffix = f"_l{layer}" + "_reverse" * reverse
    weight_ih, weight_hh, bias_ih, bias_hh = (
        getattr(module, name + suffix).detach()
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    cell = kinds[type(module)](weight_ih.shape[1], module.hidden_size).to(weight_ih)
    weights = {"weight_ih": weight_ih, "weight_hh": weight_hh, "bias": bias_ih + bias_hh}
    if isinstance(cell, GRUResetAfter):
        # torch splits every bias in two; only this half stands apart in the equations.
        weights["bias_hn"] = bias_hh[2 * cell.hidden :]
        weights["bias"][2 * cell.hidden :] = bias_ih[2 * cell.hidden :]
    cell.load_state_dict(weights)
    return cell


@pytest.mark.parametrize("name", TORCH)
def test_from_torch(name):
    torch.manual_seed(0)
    module = TORCH[name](F, H, num_layers=2, bidirectional=True, batch_first=True).double()
    x, n = features(B, T, F), 2 * H
    ahead = from_torch(module, layer=0)
    back = from_torch(module, layer=0, reverse=True)
    below = torch.cat([ahead(x)[0], back(x.flip(1))[0].flip(1)], dim=2)
    assert below.shape[2] == n
    ahead, back = from_torch(module, layer=1), from_torch(module, layer=1, reverse=True)
    output = torch.cat([ahead(below)[0], back(below.flip(1))[0].flip(1)], dim=2)
    torch.testing.assert_close(output, module(x)[0])


@pytest.mark.parametrize("name", TORCH)
def test_to_torch_and_back(name):
    torch.manual_seed(0)
    cell = CELLS[name](F, H).double()
    for parameter in cell.parameters():
        nn.init.normal_(parameter)
    x, first = features(B, T, F), first_state(cell)
    module = to_torch(cell)
    assert isinstance(module, TORCH[name])
    states = tuple(s[None] for s in first)
    expected, last = module(x, states if name == "lstm" else states[0])
    output, state = cell(x, state=first)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(state[0], last[0][0] if name == "lstm" else last[0])
    again = from_torch(module)
    assert type(again) is type(cell)
    torch.testing.assert_close(again.state_dict(), cell.state_dict())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", TORCH)
def test_the_gpus_way_is_the_cpus(name, dtype):
    """What tests/test_gpu.py asks of a GPU, here with the kernels of the CPU."""
    kernel = {"rnn": torch.rnn_tanh, "lstm": torch.lstm, "gru": torch.gru}[name]
    n_gates = len(CELLS[name].gates) * H
    shapes = [(n_gates, F), (n_gates, H), (n_gates,), (n_gates,)]
    inputs = [features(T, B, F), *(features(B, H, seed=k) for k in range(len(CELLS[name].states)))]
    inputs += [features(*shape, seed=4 + k) for k, shape in enumerate(shapes)]
    found = []
    for run in (run_kernel, run_cudnn):
        x, *rest = (i.to(dtype).requires_grad_() for i in inputs)
        output, last = run(kernel, x, tuple(rest[:-4]), tuple(rest[-4:]))
        total = output.square().sum() + sum(s.sum() for s in last)
        found.append([output, *last, *torch.autograd.grad(total, [x, *rest])])
    close = {} if dtype == torch.float64 else {"atol": 0.05, "rtol": 0.05}
    torch.testing.assert_close(*found, **close)


def test_packed_torch_gives_the_same_last_states():
    torch.manual_seed(0)
    module = nn.LSTM(F, H, batch_first=True).double()
    x, lens = features(B, T, F), torch.tensor([6, 1, 3, 3])
    packed = nn.utils.rnn.pack_padded_sequence(x, lens, batch_first=True, enforce_sorted=False)
    output, (h, c) = module(packed)
    expected, _ = nn.utils.rnn.pad_packed_sequence(output, batch_first=True)
    output, state = from_torch(module)(x, lens)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(state, (h[0], c[0]))


@pytest.mark.parametrize("n_frames", [1, 13, FEW_FRAMES, FEW_FRAMES + 1])
def test_a_few_frames_of_a_stream_are_as_its_equations(n_frames):
    torch.manual_seed(0)
    cell = LSTM(7, 19)
    # As far out as tanh can be told from 1, and farther.
    x = torch.linspace(-60, 60, n_frames * 7).reshape(1, n_frames, 7)
    begun = (torch.randn(1, 19).tanh(), 3 * torch.randn(1, 19))
    kept = tuple(part.clone() for part in begun)
    with torch.inference_mode():
        output, after = cell(x, None, begun)
        state, expected = begun, []
        for t in range(n_frames):
            state = cell.step(x[:, t], state)
            expected.append(state[0])
    torch.testing.assert_close(output, torch.stack(expected, dim=1), rtol=0, atol=2e-6)
    for found, right in zip(after, state, strict=True):
        torch.testing.assert_close(found, right, rtol=0, atol=2e-6)
    assert all(map(torch.equal, begun, kept))


def test_planted_carousel():
    """Forget gate open, input gate shut: the cell state stays for ever, whatever comes in."""
    for name in ("lstm", "peephole"):
        cell = CELLS[name](F, 1)
        for parameter in cell.parameters():
            nn.init.zeros_(parameter)
        with torch.no_grad():
            cell.bias.copy_(torch.tensor([-100.0, 100.0, 0.0, 0.0]))
        c0 = torch.full((1, 1), 0.7, requires_grad=True)
        _, (h, c) = cell(torch.ones(1, 1000, F), state=(torch.zeros(1, 1), c0))
        assert c.item() == pytest.approx(0.7)
        assert h.item() == pytest.approx(0.5 * torch.tensor(0.7).tanh().item())
        (carried,) = torch.autograd.grad(c, c0)
        assert carried.item() == pytest.approx(1.0)


def test_peepholes_look_at_the_right_cell_state():
    """Only peepholes speak: i and f from c_{t-1} = 0.5, o from the new c_t."""
    cell = PeepholeLSTM(1, 1).double()
    for parameter in cell.parameters():
        nn.init.zeros_(parameter)
    with torch.no_grad():
        cell.peepholes.copy_(torch.tensor([[1.0], [2.0], [3.0]]))
        cell.bias[2] = 1.0
    first = (torch.zeros(1, 1).double(), torch.full((1, 1), 0.5).double())
    _, (h, c) = cell(torch.zeros(1, 1, 1).double(), state=first)
    i, f = torch.sigmoid(torch.tensor([0.5, 1.0]).double())
    expected = f * 0.5 + i * torch.tanh(torch.tensor(1.0).double())
    torch.testing.assert_close(c.squeeze(), expected)
    torch.testing.assert_close(h.squeeze(), torch.sigmoid(3 * expected) * torch.tanh(expected))


def test_resets_differ():
    torch.manual_seed(0)
    after = GRUResetAfter(F, H)
    before = CELLS["gru_before"](F, H)
    before.load_state_dict({k: v for k, v in after.state_dict().items() if k != "bias_hn"})
    x = torch.ones(1, 3, F)
    torch.testing.assert_close(after(x)[0][:, 0], before(x)[0][:, 0])  # nothing yet to reset
    assert not torch.allclose(after(x)[0], before(x)[0], atol=1e-4)


@pytest.mark.parametrize("name", CELLS)
def test_initialisation(name):
    torch.manual_seed(0)
    cell = CELLS[name](F, H, forget_bias=2.5, orthogonal=True)
    for gate, bias, weight in zip(
        cell.gates,
        cell.bias.chunk(len(cell.gates)),
        cell.weight_hh.chunk(len(cell.gates)),
        strict=True,
    ):
        assert torch.equal(bias, torch.full((H,), 2.5 if gate == cell.keeps else 0.0))
        torch.testing.assert_close(weight @ weight.t(), torch.eye(H))
    plain = CELLS[name](F, H)
    assert plain.weight_hh.abs().max() <= H**-0.5
    if cell.keeps:
        assert plain.bias.sum() == H


def test_wrong_input_is_named():
    cell = CELLS["lstm"](F, H)
    x = torch.zeros(2, T, F)
    with pytest.raises(InputError, match=r"\(2, 6, 7\): expected \(batch, frames, 3\)"):
        cell(torch.zeros(2, T, 7))
    with pytest.raises(InputError, match=r"expected \(h, c\), each \(2, 4\)"):
        cell(x, state=(torch.zeros(2, H),))
    with pytest.raises(InputError, match=r"expected \(h, c\), each \(2, 4\)"):
        cell(x, state=(torch.zeros(3, H), torch.zeros(3, H)))
    with pytest.raises(InputError, match=r"\[7, 1\]: expected 2, each 0 to 6"):
        cell(x, torch.tensor([7, 1]))
    with pytest.raises(InputError, match=r"'lstn'.*lstm, peephole"):
        find_cell("lstn")
