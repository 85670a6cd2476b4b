"""Ctrl-C, SIGTERM, SIGUSR1 and SIGHUP: they end a command tidily, and cut nothing in two."""

from __future__ import annotations

import faulthandler
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

#: Ctrl-C, what batch systems send before they kill, and that the terminal is gone. Windows has two.
NAMES = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP")
ENDINGS: tuple[signal.Signals, ...] = tuple(
    getattr(signal, name) for name in NAMES if hasattr(signal, name)
)


def listen() -> None:
    """Let each of `ENDINGS` raise `KeyboardInterrupt`; for the start of a process' work.

    From here on the system runs signal handlers on a stack of their own. On the common one their
    frame lands just below the stack pointer, where oneDNN's backward kernels for recurrent nets
    keep data, and the heap is soon corrupt. Python asks for the other stack (SA_ONSTACK), and
    faulthandler is what sets one up in the main thread, which is the one that gets the signals.
    """
    if not faulthandler.is_enabled():
        faulthandler.enable(file=2)
    for number in ENDINGS:
        # What nohup starts goes on without the terminal.
        if number.name != "SIGHUP" or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)


def ignore() -> None:
    """Let none of `ENDINGS` disturb what is left to do before the end."""
    for number in ENDINGS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Hold back `ENDINGS` until the block is done, then raise `KeyboardInterrupt`.

    Yields a function that tells whether one has come, for long blocks that can end early.
    Only the main thread gets signals; elsewhere this does nothing.
    """
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)

    handlers = {}
    try:
        if threading.current_thread() is threading.main_thread():
            for number in ENDINGS:
                if signal.getsignal(number) != signal.SIG_IGN:
                    handlers[number] = signal.signal(number, note)
        yield lambda: bool(came)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt
