"""Compile inner loops with numba: once, told to the user, kept where there is a place for it."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba.core import event
from numba.core.caching import FunctionCache

#: When the source of each compiled function was last changed, by the function's id.
_sources: dict[int, Any] = {}
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


def summing(function: Callable[..., Any]) -> Any:
    """`compiled`, adding in whatever order is fastest on the machine: so the last bits differ from
    one to another.
    """
    return _compiled(function, fastmath={"reassoc", "contract", "nsz"})


def _compiled(function: Callable[..., Any], **options: Any) -> Any:
    dispatcher = numba.njit(nogil=True, **options)(function)
    try:
        dispatcher._cache = cache = _Cache(function)
        _sources[id(dispatcher)] = cache.source
    except RuntimeError:
        _sources[id(dispatcher)] = function.__code__.co_code
        _unkept.add(id(dispatcher))
    return dispatcher


class _Cache(FunctionCache):
    """Knows what it kept by all that it was made of. By itself numba knows it by the function's own
    file alone, and an old callee or constant from another file would stay in use."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self.source = self._cache_file._source_stamp

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        # Not before: callees may be defined after their callers.
        self._cache_file._source_stamp = (self.source, _made_of(self._py_func))
        try:
            return super().load_overload(sig, target_context)
        except (AttributeError, ImportError):
            # What another version kept may name classes that are gone.
            try:
                self.flush()
            except OSError:
                self.disable()
            return None


def _made_of(function: Callable[..., Any]) -> str:
    """Return a hash of the callees and constants that become part of the function's code."""
    functions, parts = [function], []
    for caller in functions:
        for name in caller.__code__.co_names:
            value: Any = caller.__globals__.get(name)
            if id(value) in _sources:
                parts.append((name, _sources[id(value)]))
                if value.py_func not in functions:
                    functions.append(value.py_func)
            elif isinstance(value, int | float | str | np.dtype):
                parts.append((name, value))
            elif hasattr(value, "_fields"):
                parts.append((name, value._fields))
    return hashlib.sha256(repr(parts).encode()).hexdigest()


class _Announcement(event.Listener):
    """Says, once, why the first use takes its time."""

    made = False

    def on_start(self, event: event.Event) -> None:
        found = id(event.data["dispatcher"])
        if found in _sources and not self.made:
            self.made = True
            when = "once"
            if found in _unkept:
                when = "for this run only, as no cache folder can be written to"
            print(f"asr: compiling inner loops, {when}: about 10 s", file=sys.stderr, flush=True)

    def on_end(self, event: event.Event) -> None:
        pass


_announcement = _Announcement()
event.register("numba:compile", _announcement)
