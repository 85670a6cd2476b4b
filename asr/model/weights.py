"""The weights of model directories and training states, in PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from asr.errors import InputError
from asr.model.bundle import (
    CONFIG,
    FORMAT,
    Bundle,
    arrays_of,
    load_parts,
    model_folder,
    save_parts,
    under,
    with_arrays,
)
from asr.nets.acoustic import AcousticModel, Ensemble, sketched
from asr.nets.tensors import load_tensors, save_tensors

WEIGHTS = "weights.safetensors"


def save_bundle(folder: Path, bundle: Bundle) -> None:
    """Write a model directory; each file is replaced whole, the weights last."""
    save_parts(folder, bundle)
    save_weights(folder, bundle)


def save_weights(
    folder: Path, bundle: Bundle, weights: Mapping[str, torch.Tensor] | None = None
) -> None:
    """Replace the weights of a model directory, nothing else: the model's own, or ``weights``."""
    weights = bundle.model.state_dict() if weights is None else weights
    tensors = {f"model.{k}": t for k, t in weights.items()}
    tensors |= {name: torch.from_numpy(array) for name, array in arrays_of(bundle).items()}
    save_tensors(folder / WEIGHTS, tensors, {"format": FORMAT})


def load_bundle(folder: Path) -> Bundle:
    """Read a model directory, or the model of a run directory.

    Raises:
        InputError: something is missing, of another version, or of another shape than the
            configuration says; the line names the file.
    """
    folder = model_folder(folder)
    parts = load_parts(folder)
    tensors, _ = load_tensors(folder / WEIGHTS)
    features, labels = parts["features"], parts["labels"]
    architectures = (parts["architecture"], *parts["others"])

    def make() -> nn.Module:
        nets = [
            AcousticModel(a, features.size, len(labels), features.n_mels) for a in architectures
        ]
        return Ensemble(nets) if len(nets) > 1 else nets[0]

    weights = under("model.", tensors)
    # Settings come from outside: nothing is allocated for a net that the weights do not fill.
    try:
        sketch = sketched(make)
    except InputError as error:
        raise InputError(f"{folder / CONFIG}: {error}") from error
    check_weights(sketch, weights, folder / WEIGHTS)
    model = make()
    model.load_state_dict(weights)
    rest = {k: t.numpy() for k, t in tensors.items() if not k.startswith("model.")}
    return with_arrays(parts, model.eval(), rest)


def load_weights(model: torch.nn.Module, tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Load ``tensors`` into ``model``.

    Raises:
        InputError: names or shapes differ; the line names the first difference.
    """
    check_weights(model, tensors, path)
    model.load_state_dict(tensors)


def check_weights(model: torch.nn.Module, tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Refuse ``tensors`` that are not the weights of ``model``.

    Raises:
        InputError: names or shapes differ; the line names the first difference.
    """
    own = model.state_dict()
    for name in sorted(own.keys() | tensors.keys()):
        if name not in tensors or name not in own:
            side = "the file lacks" if name not in tensors else "the model does not have"
            raise InputError(f"{path}: another architecture than configured: {side} {name!r}")
        if own[name].shape != tensors[name].shape:
            raise InputError(
                f"{path}: {name!r} has shape {tuple(tensors[name].shape)}, "
                f"the configured model expects {tuple(own[name].shape)}"
            )
