"""Memory that nobody needs any more: Python's, and what the C library keeps where it is glibc."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress

#: mallopt's number: how many arenas threads share.
M_ARENA_MAX = -8


@contextmanager
def loading() -> Iterator[None]:
    """Collect no garbage: of the modules and models that are loaded meanwhile nothing is any."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collects:
            gc.enable()


def give_back_memory() -> None:
    """Return to the system what is free: batches of all lengths leave gaps, which glibc keeps."""
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def share_memory(n_arenas: int) -> None:
    """Let threads to come take memory from so few arenas: each keeps the most it ever had."""
    with suppress(AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, n_arenas)
