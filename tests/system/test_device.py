"""The names of devices, and what there is of them."""

import pytest
import torch

from asr.errors import InputError
from asr.system.device import pick_device


@pytest.fixture
def gpus(monkeypatch):
    """As if there were so many."""

    def there_are(n):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: n > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: n)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)

    return there_are


@pytest.mark.parametrize(
    ("n", "name", "device"),
    [
        (0, "auto", "cpu"),
        (2, "auto", "cuda"),
        (2, "cpu", "cpu"),
        (2, "cuda", "cuda"),
        (2, "cuda:1", "cuda:1"),
    ],
)
def test_names_of_devices(gpus, n, name, device):
    gpus(n)
    assert pick_device(name) == torch.device(device)


@pytest.mark.parametrize(
    ("n", "name", "told"),
    [
        (0, "cuda", "device cuda: torch finds no GPU here; use auto or cpu"),
        (0, "cuda:1", "device cuda:1: torch finds no GPU here; use auto or cpu"),
        (2, "cuda:2", "device cuda:2: torch finds 2 GPUs here, counted from cuda:0"),
        (1, "mps", "device mps: torch finds no GPU of Apple here; use auto or cpu"),
        (1, "tpu", "device tpu: expected one of auto, cpu, cuda, cuda:N, mps"),
        (1, "cuda:", "device cuda:: expected one of auto, cpu, cuda, cuda:N, mps"),
    ],
)
def test_what_is_not_there_is_one_line(gpus, n, name, told):
    gpus(n)
    with pytest.raises(InputError) as error:
        pick_device(name)
    assert str(error.value) == told
