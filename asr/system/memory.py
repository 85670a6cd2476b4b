"""Memory that the C library keeps for itself, where it is glibc."""

from __future__ import annotations

import ctypes
from contextlib import suppress

#: mallopt's number: how many arenas threads share.
M_ARENA_MAX = -8


def give_back_memory() -> None:
    """Return to the system what is free: batches of all lengths leave gaps, which glibc keeps."""
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def share_memory(n_arenas: int) -> None:
    """Let threads to come take memory from so few arenas: each keeps the most it ever had."""
    with suppress(AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, n_arenas)
