"""Emissions of whole sets, also where memory is short."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from asr.audio.features import FeatureConfig, frame_clock
from asr.data.examples import Example
from asr.errors import InputError
from asr.model.emissions import emissions
from asr.nets.acoustic import AcousticNet
from asr.types import Utterance

FEATURES = FeatureConfig(n_mels=8)


def bundle(model):
    clock = frame_clock(FEATURES)
    return SimpleNamespace(features=FEATURES, clock=clock, model=model, streams=False)


class Cramped(AcousticNet):
    """Has room for a batch of so many."""

    def __init__(self, most):
        super().__init__()
        self.most = most

    def forward(self, x, lens):
        if len(x) > self.most:
            # Four exabytes: the allocator's own words.
            torch.empty(1 << 60)
        return x.log_softmax(-1), lens


@pytest.fixture
def examples():
    def example(i, n_frames):
        nobody = Utterance(f"u{i}", Path(), "s", n_frames / 100)
        return Example(nobody, torch.randn(n_frames, 8).numpy(), (), None)

    return [example(i, n) for i, n in enumerate((30, 7, 22, 15, 9, 40, 12))]


@pytest.mark.parametrize("most", [1, 2, 5])
def test_where_memory_is_short_batches_are_halved(examples, most):
    ticks = []
    wanted = emissions(bundle(Cramped(7)), examples)
    found = emissions(bundle(Cramped(most)), examples, ticks.append)
    assert list(found) == list(wanted) == [e.utterance.id for e in examples]
    assert all(np.array_equal(found[i], wanted[i]) for i in wanted)
    assert ticks == [7]


def test_an_utterance_too_large_alone_is_one_line(examples):
    with pytest.raises(InputError, match=r"^utterance u5: out of memory on cpu with its 40 frames"):
        emissions(bundle(Cramped(0)), examples)


def test_other_errors_are_not_taken_for_it(examples):
    class Broken(AcousticNet):
        def forward(self, x, lens):
            raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        emissions(bundle(Broken()), examples)


def test_batches_go_where_the_model_is(examples, monkeypatch):
    # There is none for "meta".
    monkeypatch.setattr(torch, "autocast", lambda *args, **options: nullcontext())
    devices = set()

    class Elsewhere(AcousticNet):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1, device="meta"))

        def forward(self, x, lens):
            devices.update((x.device.type, lens.device.type))
            return torch.zeros(len(x), x.shape[1], 3), torch.full((len(x),), x.shape[1])

    found = emissions(bundle(Elsewhere()), examples)
    assert devices == {"meta"}
    assert len(found) == len(examples)
