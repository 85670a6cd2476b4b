import pytest
import torch
from torch import nn

from asr.train.averaging import MovingAverage, Snapshots, in_place_of


def model_of(*values):
    model = nn.Linear(2, 1, bias=False)
    model.weight.data[:] = torch.tensor([values])
    return model


def test_the_moving_average_warms_up_and_then_decays():
    model = model_of(0.0, 4.0)
    moving = MovingAverage(model, 0.5)
    average = torch.tensor([[0.0, 4.0]])
    for n in range(1, 30):
        model.weight.data += 1
        moving.update(model)
        keep = min(0.5, (1 + n) / (10 + n))
        average = keep * average + (1 - keep) * model.weight.detach()
    torch.testing.assert_close(moving.weights["weight"], average)
    assert not moving.weights["weight"].requires_grad


def test_a_moving_average_goes_on_from_its_state():
    model = model_of(1.0, 2.0)
    whole, other = MovingAverage(model, 0.9), MovingAverage(model_of(7.0, 7.0), 0.9)
    for value in range(6):
        model.weight.data *= value
        whole.update(model)
        if value == 3:
            other.load({k: t.clone() for k, t in whole.state().items()})
        if value > 3:
            other.update(model)
    assert torch.equal(other.weights["weight"], whole.weights["weight"])


def test_the_models_own_weights_come_back_bit_for_bit():
    model = model_of(0.1, 0.2)
    before = model.weight.detach().clone()
    with in_place_of(model, {"weight": torch.ones(1, 2)}):
        assert model(torch.ones(1, 2)).item() == 2
    assert torch.equal(model.weight, before)


@pytest.mark.parametrize(("best", "epochs", "mean"), [(False, [3, 4], 3.5), (True, [1, 4], 2.5)])
def test_snapshots_average_the_last_or_the_best(best, epochs, mean):
    snapshots = Snapshots(2, best)
    for epoch, rate in ((1, 0.2), (2, 0.5), (3, 0.4), (4, 0.3)):
        snapshots.add(epoch, rate, {"w": torch.tensor([float(epoch)])})
        again = Snapshots(2, best)
        again.load(snapshots.state())
        snapshots = again
    assert sorted(snapshots.kept) == epochs
    assert snapshots.average()["w"].item() == mean
    assert snapshots.average()["w"].dtype == torch.float32


def test_snapshots_are_copies_and_none_are_kept_where_none_are_wanted():
    weight = torch.zeros(1)
    snapshots, none = Snapshots(1, best=False), Snapshots(0, best=False)
    for kept in (snapshots, none):
        kept.add(1, 0.5, {"w": weight})
    weight += 1
    assert snapshots.average()["w"].item() == 0
    assert not none.kept
    assert not none.state()
