"""Named tensors in files: weights, and what an optimizer remembers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from asr.errors import InputError
from asr.system.files import write_aside

CHECKSUM = "checksum"


def save_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]
) -> None:
    """Write a safetensors file, with a checksum among its metadata, aside; sync and rename it.

    Raises:
        InputError: the disk is full or the folder not writable; an older file at ``path`` survives.
    """
    kept = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    with write_aside(path) as aside:
        try:
            save_file(kept, aside, {**metadata, CHECKSUM: checksum(kept, metadata)})
        except SafetensorError as error:
            raise InputError(f"{path}: cannot be written ({error})") from error
        _sort_metadata(aside)


def _sort_metadata(path: Path) -> None:
    """Give a file that safetensors wrote its metadata in order: there it is drawn by chance."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        if len(text) <= size:
            file.seek(8)
            file.write(text.ljust(size))


def load_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read a safetensors file: tensors and metadata.

    Raises:
        InputError: missing, truncated, not safetensors, or not what was saved.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected weights saved by asr train")
    try:
        with safe_open(path, framework="pt") as handle:
            tensors = {k: handle.get_tensor(k) for k in handle.keys()}  # noqa: SIM118
            metadata = dict(handle.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error})") from error
    # Files from elsewhere have none.
    expected = metadata.pop(CHECKSUM, None)
    if expected is not None and expected != checksum(tensors, metadata):
        raise InputError(f"{path}: corrupt: its contents are not what was saved (checksum)")
    return tensors, metadata


def checksum(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> str:
    """A digest of contiguous tensors on the CPU and of texts, names and shapes included."""
    digest = hashlib.blake2b(json.dumps(sorted(metadata.items())).encode(), digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimizer's memory (moments, steps) as named tensors."""
    return {
        f"{index}.{slot}": torch.as_tensor(value)
        for index, slots in optimizer.state_dict()["state"].items()
        for slot, value in slots.items()
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]
) -> None:
    """Give the optimizer the memory that `optimizer_tensors` took."""
    slots: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, slot = name.partition(".")
        slots.setdefault(int(index), {})[slot] = tensor.clone()
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": slots, "param_groups": groups})
