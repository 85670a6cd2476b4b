"""How far back a net remembers: planted answers for the gradient, and the task."""

import json

import pytest
import torch
from running import asr

from asr.nets import memory
from asr.nets.cells import CELLS, LSTM, TanhRNN
from asr.nets.memory import NETS, QUICK, Net, Protocol, Trial, draw_sequences, gradients, run_trial
from asr.nets.recurrent import count_parameters

TINY = Protocol(
    lengths=(1, 3),
    parameters=400,
    updates=3,
    batch_size=4,
    runs=2,
    test_sequences=20,
    gradient_sequences=2,
)
F, H, T = 5, 4, 7


def zeroed(cell):
    for parameter in cell.parameters():
        torch.nn.init.zeros_(parameter)
    return cell.double()


def random_cell(name):
    torch.manual_seed(1)
    return CELLS[name](F, H).double(), torch.randn(2, T, F, dtype=torch.double)


def scaled_rotation(factor):
    torch.manual_seed(1)
    return factor * torch.nn.init.orthogonal_(torch.empty(H, H, dtype=torch.double))


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.5])
def test_gradient_of_a_linear_net_is_the_power_of_its_matrix(factor):
    # With no input the state stays 0, where tanh is the identity.
    cell = zeroed(TanhRNN(F, H))
    cell.weight_hh.data = scaled_rotation(factor)
    cell.weight_ih.data = 3 * torch.eye(H, F, dtype=torch.double)
    found = gradients(cell, torch.zeros(1, T, F, dtype=torch.double))
    for k in range(1, T):
        power = torch.linalg.matrix_power(cell.weight_hh.detach(), k)
        torch.testing.assert_close(found["h"][0, k - 1], power)
        norm = torch.linalg.matrix_norm(found["x"][0, k - 1], ord=2).item()
        assert norm == pytest.approx(3 * factor**k)


@pytest.mark.parametrize(("forget_bias", "forget"), [(50.0, 1.0), (0.0, 0.5)])
def test_carousel_keeps_what_the_forget_gate_keeps(forget_bias, forget):
    cell = zeroed(LSTM(F, H))
    cell.bias.data[H : 2 * H] = forget_bias
    found = gradients(cell, torch.zeros(1, T, F, dtype=torch.double))
    for k in range(1, T):
        shown = 0.5 * forget**k * torch.eye(H, dtype=torch.double)  # the output gate is s(0)
        torch.testing.assert_close(found["c"][0, k - 1], shown)
        assert found["h"][0, k - 1].abs().max() == 0


@pytest.mark.parametrize("name", CELLS)
def test_product_of_jacobians_is_what_autograd_finds(name):
    cell, x = random_cell(name)
    found = gradients(cell, x)

    def last(*inputs):
        x, *state = inputs
        return cell(x, state=tuple(state))[0][:, -1]

    start = [x.new_zeros(2, H) for _ in cell.states]
    by_input, *_ = torch.autograd.functional.jacobian(last, (x, *start))
    for k in range(1, T):
        _, state = cell(x[:, : T - k])
        tail = tuple(s.detach() for s in state)
        _, *by_state = torch.autograd.functional.jacobian(last, (x[:, T - k :], *tail))
        for b in range(2):
            torch.testing.assert_close(found["x"][b, k - 1], by_input[b, :, b, T - 1 - k])
            for part, expected in zip(cell.states, by_state, strict=True):
                torch.testing.assert_close(found[part][b, k - 1], expected[b, :, b])


def test_singular_values_of_a_scaled_rotation():
    net = Net(NETS["rnn"], H)
    zeroed(net.cell)
    net.cell.weight_hh.data = scaled_rotation(0.5)
    found = memory.measure_gradients(net, torch.zeros(2, T, len(memory.VOCABULARY)))
    jacobians = found["jacobians"]
    for which in ("largest", "median", "smallest"):
        assert jacobians["single"][which] == pytest.approx([0.5] * (T - 1))
        assert jacobians["product"][which] == pytest.approx([0.5**k for k in range(1, T)])
    assert jacobians["recurrent_singular_value"] == pytest.approx(0.5)
    assert jacobians["recurrent_eigenvalue"] == pytest.approx(0.5)
    assert found["norms"]["h"] == jacobians["product"]["largest"]


def test_singular_values_too_small_to_be_known_are_none():
    net = Net(NETS["rnn"], H)
    zeroed(net.cell)
    net.cell.weight_hh.data = torch.diag(torch.tensor([1, 1, 1e-3, 1e-5], dtype=torch.double))
    found = memory.measure_gradients(net, torch.zeros(1, T, len(memory.VOCABULARY)))
    smallest = found["jacobians"]["product"]["smallest"]
    assert smallest[:2] == pytest.approx([1e-5, 1e-10])
    assert smallest[2:] == [None] * 4


@pytest.mark.parametrize("k", [0, 1, 20])
def test_sequences_start_with_the_name_that_the_answer_tells(k):
    x, answers = draw_sequences(k, 400, torch.Generator().manual_seed(1))
    assert x.shape == (400, k + 2, len(memory.VOCABULARY))
    assert (x.sum(2) == 1).all()
    words = [[memory.VOCABULARY[i] for i in row] for row in x.argmax(2).tolist()]
    for row, answer in zip(words, answers.tolist(), strict=True):
        assert row[0] == memory.NAMES[answer]
        assert row[-1] == memory.CUE
        assert set(row[1:-1]) <= set(memory.FILLER)
    assert 0.4 < answers.double().mean() < 0.6
    again, _ = draw_sequences(k, 400, torch.Generator().manual_seed(1))
    assert torch.equal(x, again)


def test_nets_have_equal_numbers_of_parameters():
    budget = Protocol().parameters
    for start in NETS.values():
        net = Net(start, memory.choose_hidden(start, budget))
        assert count_parameters(net) == pytest.approx(budget, rel=0.02)


def test_training_learns_the_task():
    few = Protocol(lengths=(3,), parameters=1000, updates=100, lr=1e-2, gradient_sequences=1)
    assert run_trial(Trial("lstm", 3, seed=1), few).accuracy > 0.95


def test_trial_leaves_torch_as_it_was():
    torch.manual_seed(7)
    expected, threads = torch.rand(1), torch.get_num_threads()
    torch.manual_seed(7)
    run_trial(Trial("rnn", 1, seed=1), TINY)
    assert torch.equal(torch.rand(1), expected)
    assert torch.get_num_threads() == threads


def test_measurement_is_complete_and_the_same_again():
    steps = []
    found = memory.measure(TINY, seed=1, workers=1, advance=lambda: steps.append(1))
    assert len(steps) == memory.count_trials(TINY) == 8 * 2 * 2
    assert json.loads(json.dumps(found))["nets"].keys() == NETS.keys()
    assert found["gradient_k"] == [1, 2, 3, 4]
    for name, net in found["nets"].items():
        assert [len(runs) for runs in net["accuracy"]["runs"]] == [2, 2]
        for stage in ("before", "after"):
            gradient = net["gradient"][stage]
            assert gradient["norms"].keys() == {"x", *CELLS[net["cell"]].states}
            assert all(len(norms) == 4 for norms in gradient["norms"].values())
            assert ("jacobians" in gradient) == name.startswith("rnn")
    assert memory.measure(TINY, seed=1, workers=1, advance=lambda: None) == found
    assert memory.measure(TINY, seed=2, workers=1, advance=lambda: None) != found


@pytest.mark.slow
def test_workers_change_nothing():
    alone = memory.measure(QUICK, seed=1, workers=1, advance=lambda: None)
    assert memory.measure(QUICK, seed=1, workers=2, advance=lambda: None) == alone


def test_command_writes_numbers_and_pictures(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(memory, "QUICK", TINY)
    status, out, _ = asr(monkeypatch, capsys, "memory", "--quick", "--out", tmp_path / "new")
    assert status == 0
    assert "peephole LSTM" in out
    found = json.loads((tmp_path / "new" / "memory.json").read_text())
    assert found["format"] == memory.FORMAT
    assert found["protocol"]["lengths"] == [1, 3]
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == [
        "gradient.png",
        "memory.json",
        "recall.png",
    ]
    for name in ("gradient.png", "recall.png"):
        assert (tmp_path / "new" / name).read_bytes().startswith(b"\x89PNG")


def test_command_refuses_a_file_as_folder(monkeypatch, capsys, tmp_path):
    (tmp_path / "file").touch()
    status, _, err = asr(monkeypatch, capsys, "memory", "--quick", "--out", tmp_path / "file")
    assert status == 2
    assert err.startswith(f"asr: --out {tmp_path / 'file'}: cannot be made a folder")
    assert err.count("\n") == 1
