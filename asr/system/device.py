"""What nets compute on."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

from asr.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import nn

#: Every name of a device.
NAMES = "auto|cpu|cuda|cuda:N|mps"
#: The names that are true of the CPU.
OF_CPU = ("auto", "cpu")


def pick_device(name: str, setting: str = "device ") -> torch.device:
    """The device of that name, one of `NAMES`; auto takes a CUDA GPU where there is one.

    setting: what the name was given as, for messages.

    Raises:
        InputError: there is no such name, or no such device here.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?|mps", name):
        raise InputError(f"{setting}{name}: expected one of {NAMES.replace('|', ', ')}")
    import torch

    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        name = "cuda" if n_gpus else "cpu"
    if name.startswith("cuda") and not n_gpus:
        raise InputError(f"{setting}{name}: torch finds no GPU here; use auto or cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= n_gpus:
        raise InputError(f"{setting}{name}: torch finds {n_gpus} GPUs here, counted from cuda:0")
    if name == "mps" and not torch.backends.mps.is_available():
        raise InputError(f"{setting}{name}: torch finds no GPU of Apple here; use auto or cpu")
    return device


def device_of(model: nn.Module) -> torch.device:
    """Where a net's weights are; the CPU where it has none."""
    import torch

    weights = next(model.parameters(), None)
    return torch.device("cpu") if weights is None else weights.device


def set_threads(n: int) -> None:
    """Let PyTorch, where it is in use, compute with so many threads."""
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(n)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of the GPU (an own class) or of the machine (told in words)."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or any(
            words in str(error)
            for words in ("DefaultCPUAllocator", "CUDA error: out of memory", "STATUS_ALLOC_FAILED")
        )
    )
