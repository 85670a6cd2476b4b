"""Compile inner loops with numba: once, told to the user, kept where there is a place for it."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from typing import Any

import numba
from numba.core import event

#: What the code of each compiled function is known by, by the function's id.
_stamps: dict[int, str] = {}
_unkept: set[int] = set()


def compiled(function: Callable[..., Any]) -> Any:
    """Decorator: compile on the first call, without the GIL, and keep the result on disk.

    It is kept in ``NUMBA_CACHE_DIR`` where that is set, else in the source's ``__pycache__``, else
    in the user's cache folder. Where none of them can be written to, each process compiles anew.

    numba counts references to arrays, atomically, and often in each round of a loop: where one is
    left by ``break`` or ``return`` from within ``while``, or where arrays are assigned anew. Small
    functions that take arrays and leave loops by their condition are free of it.
    """
    return _compiled(function)


def inner(function: Callable[..., Any]) -> Any:
    """`compiled` for what only compiled code calls and what makes no arrays: it becomes part of its
    callers, without an entry from Python, and counts no references to the arrays that it is given.
    """
    options = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return _compiled(function, **options, forceinline=True, _nrt=False)


def _compiled(function: Callable[..., Any], **options: Any) -> Any:
    try:
        dispatcher = numba.njit(cache=True, nogil=True, **options)(function)
    except RuntimeError:
        dispatcher = numba.njit(nogil=True, **options)(function)
        _unkept.add(id(dispatcher))
    # By itself numba knows what it kept by the function's own file alone, and an old callee or
    # constant from another file would stay in use.
    taken = []
    for name in function.__code__.co_names:
        value = function.__globals__.get(name)
        if id(value) in _stamps or isinstance(value, int | float | str):
            taken.append((name, _stamps.get(id(value), value)))
    own = function.__code__.co_code
    cache_file = getattr(getattr(dispatcher, "_cache", None), "_cache_file", None)
    if cache_file is not None:
        own = cache_file._source_stamp
        cache_file._source_stamp = (own, taken)
    _stamps[id(dispatcher)] = hashlib.sha256(repr((own, taken)).encode()).hexdigest()
    return dispatcher


class _Announcement(event.Listener):
    """Says, once, why the first use takes its time."""

    made = False

    def on_start(self, event: event.Event) -> None:
        found = id(event.data["dispatcher"])
        if found in _stamps and not self.made:
            self.made = True
            when = "once"
            if found in _unkept:
                when = "for this run only, as no cache folder can be written to"
            print(f"asr: compiling inner loops, {when}: about 10 s", file=sys.stderr, flush=True)

    def on_end(self, event: event.Event) -> None:
        pass


_announcement = _Announcement()
event.register("numba:compile", _announcement)
