"""The acoustic model: features in, label log-probabilities out, in training and in use alike."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from asr.errors import InputError
from asr.nets.config import RecurrentConfig
from asr.nets.convolution import Convolutions, RowConvolution
from asr.nets.frames import padded_frames
from asr.nets.recurrent import Dropout, RecurrentStack, count_parameters
from asr.system.device import device_of, is_out_of_memory

#: Ten times the largest recurrent nets; training takes 16 bytes for each.
MOST_PARAMETERS = 1_000_000_000
Net = TypeVar("Net", bound=nn.Module)
Part = TypeVar("Part")


class AcousticNet(nn.Module):
    """What `AcousticModel` and `Ensemble` have in common: use outside of training."""

    @torch.inference_mode()
    def log_probs(
        self, matrices: Sequence[NDArray[np.float32]], precision: str = "float32"
    ) -> list[NDArray[np.float32]]:
        """Features (T, F) of each -> log-probabilities (T', V), computed where the weights are.

        precision: bfloat16 computes in that what it serves; else in what the weights are.

        Raises:
            MemoryError: there is too little.
        """
        self.eval()
        device = device_of(self)
        x, lens = padded_frames(matrices)
        try:
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                log_probs, lens = self(x.to(device), lens.to(device))
            rows = zip(log_probs, lens.tolist(), strict=True)
            return [row[:n].float().cpu().numpy() for row, n in rows]
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise MemoryError(f"on {device}") from error
            raise


class AcousticModel(AcousticNet):
    """A recurrent stack and a softmax over V labels (Graves et al. 2006 for CTC; blank is 0).

    n_bins: mel bins, of which a frame's ``n_features`` are a multiple; only convolutions, where
    the configuration asks for them before the stack, need to know.
    """

    def __init__(
        self, config: RecurrentConfig, n_features: int, n_labels: int, n_bins: int = 1
    ) -> None:
        super().__init__()
        self.conv = Convolutions(config.conv, n_features, n_bins) if config.conv else None
        self.conv_dropout: nn.Module = Dropout(config.conv_dropout)
        self.stack = RecurrentStack(config, self.conv.size if self.conv else n_features)
        self.row = RowConvolution(self.stack.size, config.future) if config.future else None
        self.output = nn.Linear(self.stack.size, n_labels)

    def forward(
        self, features: torch.Tensor, lens: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """features (B, T, F), lens (B,) frames -> log-probabilities (B, T', V), lengths (B,)."""
        x = features
        if self.conv is not None:
            x = self.conv_dropout(self.conv(x, lens))
        x, lens = self.stack(x, lens)
        if self.row is not None:
            x = self.row(F.pad(x, (0, 0, 0, self.row.future)))
        # In float32 even where the layers before compute in bfloat16.
        return self.output(x).float().log_softmax(dim=2), lens


def layer_of(weight: str) -> str:
    """The layer that one of an `AcousticModel`'s weights belongs to: "stack.layers.0"."""
    found = re.match(r"(?:conv|stack)\.\w+\.\d+|\w+", weight)
    assert found is not None
    return found[0]


def depth_of(layer: str) -> str:
    """What a layer has in common with its norm and its MLP: "stack.0"."""
    return re.sub(r"\.\w+\.", ".", layer)


class Ensemble(AcousticNet):
    """Several nets of the same features, frames and labels, whose probabilities are averaged."""

    def __init__(self, nets: Iterable[AcousticModel]) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets)

    def forward(
        self, features: torch.Tensor, lens: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As `AcousticModel.forward`."""
        found = [net(features, lens) for net in self.nets]
        log_probs = torch.stack([log_probs for log_probs, _ in found])  # (N, B, T', V)
        return log_probs.logsumexp(0) - math.log(len(found)), found[0][1]


class _Undrawn(TorchFunctionMode):
    """Draw nothing: for tensors without memory torch first imports its compiler, half a second."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        return kwargs["tensor"] if func is nn.init.normal_ else func(*args, **kwargs)


def sketched(make: Callable[[], Net]) -> Net:
    """The net that ``make`` makes, with names and shapes of its weights and no memory for them.

    Raises:
        InputError: it has more than `MOST_PARAMETERS`.
    """
    with torch.device("meta"), _Undrawn():
        net = make()
    if (n := count_parameters(net)) > MOST_PARAMETERS:
        raise InputError(
            f"the configured net has {n / 1e6:.0f} M parameters; expected up to "
            f"{MOST_PARAMETERS / 1e6:.0f} M: make its layers fewer or narrower"
        )
    return net


def read_part(path: Path, what: str, parse: Callable[[Path], Part]) -> Part:
    """What ``parse`` reads from a file of ``what``, such as "a language model".

    Raises:
        InputError: the file cannot be read, or is no such file; the line names it.
    """
    try:
        return parse(path)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        EOFError,
        zlib.error,
        RecursionError,
        SafetensorError,
    ) as error:
        raise InputError(f"{path}: not a file of {what} ({error})") from error


def filled(
    make: Callable[[], Net], weights: Mapping[str, torch.Tensor], path: Path, shapers: str
) -> Net:
    """The net that ``make`` makes, with the ``weights`` of the file ``path``.

    shapers: the files beside it that give the net its shape, for messages.

    Raises:
        InputError: weights of other shapes than the net's, or too large a net.
    """
    try:
        sketch = sketched(make)
    except InputError as error:
        raise InputError(f"{path.parent}: {error}") from error
    own = {name: tuple(tensor.shape) for name, tensor in sketch.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    for name in sorted(own.keys() | found.keys()):
        if own.get(name) != found.get(name):
            raise InputError(
                f"{path}: {name!r} has shape {found.get(name)}: {shapers} make it {own.get(name)}"
            )
    net = make()
    net.load_state_dict(weights)
    return net
