"""Several processes that train one model, as `torchrun` starts them; one process is the plain case.

torchrun names the processes in the environment (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR) and
starts them again when one dies. Gradients travel through DistributedDataParallel; the few figures
that all must agree on travel here.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from asr.errors import InputError

# A dead process is noticed at once, by its closed connection. This is for the slow: the first
# process decodes dev while the others wait.
TIMEOUT = timedelta(hours=2)
# How long a process that waits for others to start is deaf to signals.
DEAF = timedelta(seconds=1)


class OtherProcessError(InputError):
    """Another process of this training has ended before its time."""


@dataclass(frozen=True)
class World:
    """This process among ``size``; rank 0 is the one that writes, logs and judges."""

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def sum(self, *values: float) -> list[float]:
        """The sums of each value over all processes."""
        if self.size == 1:
            return list(values)
        together = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(together)
        return together.tolist()

    def gather(self, numbers: Sequence[int]) -> list[int]:
        """The numbers of all processes, one after the other."""
        if self.size == 1:
            return list(numbers)
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(sizes, torch.tensor([len(numbers)]))
        longest = max(int(n) for n in sizes)
        parts = [torch.zeros(longest, dtype=torch.int64) for _ in range(self.size)]
        padded = torch.tensor([*numbers, *[0] * (longest - len(numbers))], dtype=torch.int64)
        dist.all_gather(parts, padded)
        return [i for part, n in zip(parts, sizes, strict=True) for i in part[: int(n)].tolist()]

    def from_main(self, *values: float) -> list[float]:
        """The values that rank 0 has; the others wait for them."""
        if self.size == 1:
            return list(values)
        together = torch.tensor(values, dtype=torch.float64)
        dist.broadcast(together, src=0)
        return together.tolist()

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model to train: with several processes, one whose gradients are averaged."""
        if self.size == 1:
            return model
        ids = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=ids)


@contextmanager
def join(device: torch.device) -> Iterator[World]:
    """Join the processes that torchrun started; without torchrun, a world of one.

    ``device`` "cuda" becomes this process' own GPU.

    Raises:
        InputError: there are more processes than GPUs.
        OtherProcessError: another process has ended.
    """
    size = from_torchrun("WORLD_SIZE", 1)
    if size == 1:
        yield World(device)
        return
    rank, local_rank = from_torchrun("RANK"), from_torchrun("LOCAL_RANK")
    backend = "gloo"
    if device.type == "cuda":
        if local_rank >= torch.cuda.device_count():
            raise InputError(
                f"torchrun started more processes here than there are GPUs "
                f"({torch.cuda.device_count()}): lower --nproc-per-node, or use trainer.device=cpu"
            )
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
        # Figures travel as CPU tensors, so that they wait for no GPU.
        backend = "cpu:gloo,cuda:nccl"
    from_torchrun("MASTER_PORT")
    try:
        store, rank, size = next(dist.rendezvous("env://", timeout=TIMEOUT))
        store = own_part(store, rank, size)
        dist.init_process_group(backend, timeout=TIMEOUT, store=store, rank=rank, world_size=size)
        yield World(device, rank, size)
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        raise OtherProcessError(
            "another process of this training has ended; what it or the system printed says why"
        ) from error
    dist.destroy_process_group()


def own_part(store: dist.Store, rank: int, size: int) -> dist.Store:
    """The part of a store that only the processes started together with this one know.

    torchrun keeps one store over its restarts: in the common part lie the addresses of the dead.
    Nothing that it tells the processes counts the restarts alike on all machines, so that rank 0
    draws a name for the part, and answers each of the others there: the dead do not.
    """
    me = uuid.uuid4().hex
    if rank == 0:
        store.set("first", me)
        for other in range(1, size):
            while not comes(store, f"{me}/{other}"):
                pass
            store.set(f"{me}/{store.get(f'{me}/{other}').decode()}", "")
        return dist.PrefixStore(me, store)
    while True:
        if comes(store, "first"):
            first = store.get("first").decode()
            store.set(f"{first}/{rank}", me)
            if comes(store, f"{first}/{me}"):
                return dist.PrefixStore(first, store)


def comes(store: dist.Store, key: str) -> bool:
    """Whether the store gets ``key`` within a moment."""
    with suppress(dist.DistStoreError):
        store.wait([key], DEAF)
        return True
    return False


def restarts() -> bool:
    """Whether torchrun was told to start the processes again when one dies (--max-restarts)."""
    return from_torchrun("TORCHELASTIC_MAX_RESTARTS", 0) > 0


def from_torchrun(name: str, default: int | None = None) -> int:
    """A number that torchrun leaves in the environment.

    Raises:
        InputError: it is missing, and there is no ``default``; or it is no number.
    """
    value = os.environ.get(name, default)
    try:
        return int(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise InputError(
            f"the environment has {name}={value}, as no torchrun leaves it: start several "
            f"processes with torchrun, and one after `unset RANK LOCAL_RANK WORLD_SIZE`"
        ) from None
