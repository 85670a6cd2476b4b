"""The padded bidirectional stack: equal to packing, and to each utterance alone."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from asr.errors import InputError
from asr.nets.acoustic import AcousticModel
from asr.nets.config import RecurrentConfig
from asr.nets.recurrent import Dropout, RecurrentStack, reverse_within


def batch(lens, n_in, seed=0):
    generator = torch.Generator().manual_seed(seed)
    xs = [torch.randn(n, n_in, generator=generator) for n in lens]
    return nn.utils.rnn.pad_sequence(xs, True), torch.tensor(lens), xs


def test_sequences_are_turned_within_their_lengths():
    x = torch.tensor([[1, 2, 3, 4], [5, 6, 0, 0]]).unsqueeze(2)
    turned = reverse_within(x, torch.tensor([4, 2])).squeeze(2)
    assert turned.tolist() == [[4, 3, 2, 1], [6, 5, 0, 0]]


@pytest.mark.parametrize("n", [0, 1, 3, 5])
def test_a_stream_by_itself_is_turned_as_in_a_batch(n: int) -> None:
    x, lens = torch.randn(2, 5, 3), torch.tensor([n, 4])
    with torch.no_grad():
        assert torch.equal(reverse_within(x[:1], lens[:1]), reverse_within(x, lens)[:1])


def test_gradients_are_turned_too():
    x = torch.randn(3, 5, 2, dtype=torch.float64, requires_grad=True)
    lens = torch.tensor([5, 1, 3])
    assert torch.autograd.gradcheck(lambda x: reverse_within(x, lens), x)
    assert torch.autograd.gradgradcheck(lambda x: reverse_within(x, lens), x)


@pytest.mark.parametrize("p", [0.3, 0.75])
def test_dropout_drops_its_share_and_keeps_the_mean(p):
    torch.manual_seed(0)
    x = torch.ones(7, 90, 101, requires_grad=True)
    y = Dropout(p)(x)
    assert y.unique().tolist() == pytest.approx([0, 1 / (1 - p)], rel=1e-4)
    assert (y == 0).float().mean().item() == pytest.approx(p, abs=0.01)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())
    torch.manual_seed(0)
    assert torch.equal(Dropout(p)(x), y)
    assert torch.equal(Dropout(p).eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)


def test_equal_to_packed_lstm_with_gradients():
    torch.manual_seed(0)
    packed = nn.LSTM(6, 5, num_layers=2, bidirectional=True, batch_first=True)
    stack = RecurrentStack(RecurrentConfig(layers=2, hidden=5, dropout=0.0), 6)
    for depth, layer in enumerate(stack.layers):
        for cell, suffix in ((layer.ahead, ""), (layer.back, "_reverse")):
            bias = packed.get_parameter(f"bias_ih_l{depth}{suffix}") + packed.get_parameter(
                f"bias_hh_l{depth}{suffix}"
            )
            with torch.no_grad():
                cell.weight_ih.copy_(packed.get_parameter(f"weight_ih_l{depth}{suffix}"))
                cell.weight_hh.copy_(packed.get_parameter(f"weight_hh_l{depth}{suffix}"))
                cell.bias.copy_(bias)
    x, lens, _ = batch([9, 1, 6, 9, 3], 6)
    x.requires_grad_()
    theirs, _ = pad_packed_sequence(
        packed(pack_padded_sequence(x, lens, True, enforce_sorted=False))[0], True
    )
    weight = torch.randn_like(theirs)
    (gradient,) = torch.autograd.grad((theirs * weight).sum(), x)
    ours, _ = stack(x, lens)
    (own_gradient,) = torch.autograd.grad((ours * weight).sum(), x)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(own_gradient, gradient, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "config",
    [
        RecurrentConfig(layers=3, hidden=16),
        RecurrentConfig(layers=2, hidden=8, bidirectional=False),
        RecurrentConfig(layers=2, hidden=8, between=(7, 5), after=(9,)),
        RecurrentConfig(layers=3, hidden=8, subsample=(1, 2, 3), between=(6,)),
        RecurrentConfig(units=(12, 6, 4), layer_norm=True, cell="peephole"),
        RecurrentConfig(layers=3, hidden=8, residual=True, cell="gru", weight_noise=0.1),
        RecurrentConfig(layers=2, hidden=8, cell="coupled", drop_connect=0.5, orthogonal=True),
        RecurrentConfig(layers=1, hidden=8, conv=(3, 4)),
    ],
)
def test_alone_and_in_a_batch_agree(config):
    torch.manual_seed(1)
    model = AcousticModel(config, 10, 7, n_bins=5).eval()
    x, lens, xs = batch([25, 4, 13, 1], 10)
    together, out_lens = model(x, lens)
    for i, alone in enumerate(xs):
        single, n = model(alone[None], torch.tensor([len(alone)]))
        assert int(n[0]) == int(out_lens[i]) == -(-len(alone) // config.subsampling)
        torch.testing.assert_close(together[i, : out_lens[i]], single[0], atol=1e-5, rtol=1e-5)


def test_output_is_a_distribution():
    model = AcousticModel(RecurrentConfig(layers=1, hidden=4), 3, 6)
    log_probs, _ = model(torch.randn(2, 5, 3), torch.tensor([5, 2]))
    torch.testing.assert_close(log_probs.exp().sum(2), torch.ones(2, 5))


def test_padding_gets_no_gradient():
    model = AcousticModel(RecurrentConfig(layers=2, hidden=4, dropout=0.0), 3, 6)
    x = torch.randn(2, 6, 3, requires_grad=True)
    log_probs, _ = model(x, torch.tensor([6, 2]))
    log_probs[1, :2].sum().backward()
    assert (x.grad[1, 2:] == 0).all()
    assert (x.grad[1, :2] != 0).all()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"cell": "lstn"}, "lstm"),
        ({"layers": 0}, "layers"),
        ({"dropout": 1.0}, "dropout"),
        ({"layers": 2, "subsample": (2,)}, "subsample"),
        ({"units": (3, 0)}, "units"),
        ({"conv": (0,)}, "conv"),
        ({"conv_dropout": 1.0}, "conv_dropout"),
        ({"drop_connect": -0.1}, "drop_connect"),
        ({"weight_noise": -1.0}, "weight_noise"),
    ],
)
def test_wrong_settings_are_refused(wrong, told):
    with pytest.raises(InputError, match=told):
        RecurrentConfig(**wrong)


def test_units_one_by_one():
    stack = RecurrentStack(RecurrentConfig(units=(7, 5, 3)), 4)
    assert [layer.size for layer in stack.layers] == [14, 10, 6]
    assert stack.size == 6


def test_residual_adds_the_input_where_widths_agree():
    torch.manual_seed(0)
    config = RecurrentConfig(layers=2, hidden=4, dropout=0.0)
    plain = RecurrentStack(config, 8)
    residual = RecurrentStack(RecurrentConfig(layers=2, hidden=4, dropout=0.0, residual=True), 8)
    residual.load_state_dict(plain.state_dict())
    x, lens = torch.randn(2, 5, 8), torch.tensor([5, 5])
    first = x + plain.layers[0](x, lens)
    torch.testing.assert_close(residual(x, lens)[0], first + plain.layers[1](first, lens))


@pytest.mark.parametrize("setting", ["weight_noise", "drop_connect"])
@pytest.mark.parametrize("cell", ["rnn", "lstm", "peephole", "gru_before"])
def test_perturbed_weights_act_in_training_alone_and_get_gradients(setting, cell):
    torch.manual_seed(0)
    stack = RecurrentStack(
        RecurrentConfig(cell=cell, layers=1, hidden=5, dropout=0.0, **{setting: 0.5}), 3
    )
    x, lens = torch.randn(2, 6, 3), torch.tensor([6, 4])
    before = {name: p.clone() for name, p in stack.named_parameters()}
    one, two = stack(x, lens)[0], stack(x, lens)[0]
    assert not torch.allclose(one, two)
    one.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in stack.parameters())
    assert all(torch.equal(p, before[name]) for name, p in stack.named_parameters())
    stack.eval()
    assert torch.equal(stack(x, lens)[0], stack(x, lens)[0])


def test_dropped_recurrent_weights_are_zero_or_scaled():
    torch.manual_seed(0)
    stack = RecurrentStack(RecurrentConfig(layers=1, hidden=50, drop_connect=0.25), 3)
    seen = {}
    cell = stack.layers[0].ahead
    cell.register_forward_pre_hook(lambda module, _: seen.update(w=module.weight_hh.detach()))
    stack(torch.randn(1, 2, 3), torch.tensor([2]))
    ratio = seen["w"] / cell.weight_hh.detach()
    dropped = ratio == 0
    assert 0.2 < dropped.float().mean() < 0.3
    torch.testing.assert_close(ratio[~dropped], torch.full_like(ratio[~dropped], 1 / 0.75))


@pytest.mark.parametrize("cell", ["rnn", "lstm", "peephole", "coupled", "gru", "gru_before"])
def test_bfloat16_is_near_float32(cell):
    torch.manual_seed(0)
    model = AcousticModel(RecurrentConfig(cell=cell, layers=2, hidden=16, dropout=0.0), 8, 5)
    x, lens = torch.randn(3, 12, 8), torch.tensor([12, 7, 9])
    exact, _ = model(x, lens)
    with torch.autocast("cpu", torch.bfloat16):
        short, _ = model(x, lens)
    assert short.dtype == torch.float32
    torch.testing.assert_close(short, exact, atol=0.05, rtol=0.05)
    short.sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in model.parameters())
