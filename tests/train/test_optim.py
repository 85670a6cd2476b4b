import pytest
import torch

from asr.train.config import OptimConfig
from asr.train.optim import Schedule, follow_plateau
from asr.train.state import State


def schedule_of(name, **optim):
    return Schedule(OptimConfig(lr=1.0, schedule=name, **optim), 10)


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("constant", [0.01, 0.5, 1, 1, 1]),
        ("linear", [0.01, 0.5, 1, 0.5, 0]),
        ("cosine", [0.01, 0.5, 1, 0.5, 0]),
        ("plateau", [0.01, 0.5, 1, 1, 1]),
    ],
)
def test_rates_warm_up_and_follow_the_schedule(schedule, rates):
    found = [
        schedule_of(schedule, warmup_epochs=2.0).rate(epoch, 1.0) for epoch in (0, 1, 2, 6, 10)
    ]
    assert found == pytest.approx(rates)


def test_one_cycle_equals_torchs():
    schedule = schedule_of("one_cycle", one_cycle_rise=0.3)
    n_steps = 1000
    ours, theirs = (torch.optim.AdamW([torch.zeros(1, requires_grad=True)]) for _ in range(2))
    cycle = torch.optim.lr_scheduler.OneCycleLR(theirs, 1.0, total_steps=n_steps + 1)
    for number in range(n_steps):
        schedule.apply(ours, 10 * number / n_steps, 1.0)
        mine, other = ours.param_groups[0], theirs.param_groups[0]
        # torch puts the peak on step 299.3 of 1000, we on 300.
        assert mine["lr"] == pytest.approx(other["lr"], abs=5e-3)
        assert mine["betas"][0] == pytest.approx(other["betas"][0], abs=5e-4)
        assert mine["betas"][1] == 0.999
        theirs.step()
        cycle.step()


def test_other_schedules_leave_adams_moments_alone():
    optimizer = torch.optim.AdamW([torch.zeros(1, requires_grad=True)])
    assert schedule_of("constant", warmup_epochs=0).apply(optimizer, 3.0, 0.25) == 0.25
    assert optimizer.param_groups[0]["lr"] == 0.25
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.999)


def test_the_plateau_lowers_the_rate_after_epochs_without_a_best():
    schedule = schedule_of("plateau", plateau_epochs=2, plateau_factor=0.5, warmup_epochs=0)
    state, rates = State(), []
    for is_best in (True, False, False, False, True, False, False):
        follow_plateau(schedule.config, state, is_best)
        rates.append(schedule.rate(5, state.lr_scale))
    assert rates == [1, 1, 0.5, 0.5, 0.5, 0.5, 0.25]
