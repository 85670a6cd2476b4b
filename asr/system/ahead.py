"""Work that threads do before it is asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")


def made_by(
    pool: ThreadPoolExecutor, make: Callable[[Given], Made], given: Iterable[Given], depth: int
) -> Generator[Made, None, None]:
    """``make`` of each of ``given`` in turn, up to ``depth`` before they are asked for.

    The pool is shut down at the end: what is left early leaves no thread behind.
    """
    left = iter(given)
    try:
        waiting = deque(pool.submit(make, each) for each in islice(left, depth))
        while waiting:
            made = waiting.popleft().result()
            waiting.extend(pool.submit(make, each) for each in islice(left, 1))
            yield made
    finally:
        pool.shutdown(cancel_futures=True)
