"""Nets of integers say nearly what they said in floating point, and the same in any batch."""

import pytest
import torch

from asr.nets.acoustic import AcousticModel
from asr.nets.config import RecurrentConfig
from asr.nets.frames import mask_padding
from asr.nets.quantized import quantized


def batch(n, n_features):
    """Utterances of like length, one a thousand times as loud as another; the last is 0."""
    generator = torch.Generator().manual_seed(0)
    lens = torch.randint(40, 60, (n,), generator=generator)
    lens[0] = 60
    x = torch.randn(n, 60, n_features, generator=generator)
    x *= 10 ** torch.linspace(-1.5, 1.5, n)[:, None, None]
    x[-1] = 0
    return mask_padding(x, lens), lens


@pytest.mark.parametrize(
    "config",
    [
        RecurrentConfig(hidden=24, layers=3, conv=(4, 4)),
        RecurrentConfig(hidden=24, layers=2, cell="gru"),
        RecurrentConfig(hidden=24, layers=2, bidirectional=False, residual=True, layer_norm=True),
        RecurrentConfig(hidden=24, layers=2, between=(16,), after=(16,), subsample=(2, 1)),
    ],
    ids=["conv", "gru", "residual", "mlp"],
)
@torch.inference_mode()
def test_neighbours_have_no_influence(config):
    torch.manual_seed(0)
    model = AcousticModel(config, 40, 7, n_bins=40).eval()
    x, lens = batch(12, 40)
    exact, exact_lens = model(x, lens)
    integers = quantized(model)
    together, together_lens = integers(x, lens)
    assert together_lens.tolist() == exact_lens.tolist()
    for i, n_frames in enumerate(lens.tolist()):
        alone, (n,) = integers(x[i : i + 1, :n_frames], lens[i : i + 1])
        assert torch.equal(alone[0], together[i, :n])
        # Weights of 8 bits and states of 7 in a random net: nearly the same, no more.
        assert (alone[0].exp() - exact[i, :n].exp()).abs().mean() < 0.02
