"""The padded bidirectional stack: equal to packing, and to each utterance alone."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from asr.errors import InputError
from asr.models.acoustic import AcousticModel
from asr.models.recurrent import RecurrentConfig, RecurrentStack, reverse_within


def batch(lens, n_in, seed=0):
    generator = torch.Generator().manual_seed(seed)
    xs = [torch.randn(n, n_in, generator=generator) for n in lens]
    return nn.utils.rnn.pad_sequence(xs, True), torch.tensor(lens), xs


def test_sequences_are_turned_within_their_lengths():
    x = torch.tensor([[1, 2, 3, 4], [5, 6, 0, 0]]).unsqueeze(2)
    turned = reverse_within(x, torch.tensor([4, 2])).squeeze(2)
    assert turned.tolist() == [[4, 3, 2, 1], [6, 5, 0, 0]]


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
    ],
)
def test_alone_and_in_a_batch_agree(config):
    torch.manual_seed(1)
    model = AcousticModel(config, 10, 7).eval()
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
    ],
)
def test_wrong_settings_are_refused(wrong, told):
    with pytest.raises(InputError, match=told):
        RecurrentConfig(**wrong)
