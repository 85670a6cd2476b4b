"""What numba compiles: told once, kept on disk, made anew when a callee changes."""

import os
import subprocess
import sys
from pathlib import Path

import numba.core.caching

import asr
from asr.system import jit as module

CALLER = """
from asr.system.jit import compiled
from callee import f, OFFSET

@compiled
def g(x):
    return later(x)

@compiled
def later(x):
    return f(x) + OFFSET

print(g(1))
"""
CALLEE = """
from asr.system.jit import inner

OFFSET = {offset}

@inner
def f(x):
    return {factor} * x
"""

NAMED = """
from typing import NamedTuple
from asr.system.jit import compiled

class {name}(NamedTuple):
    x: int

@compiled
def g(value):
    return value.x

print(g({name}(7)))
"""


def run(folder, factor=2, offset=0, caller=CALLER):
    """Run the caller in a process of its own; returns what it printed, and standard error."""
    (folder / "caller.py").write_text(caller)
    (folder / "callee.py").write_text(CALLEE.format(factor=factor, offset=offset))
    path = os.pathsep.join([str(folder), str(Path(asr.__file__).parents[1])])
    settings = {"PYTHONPATH": path, "NUMBA_CACHE_DIR": str(folder / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", "import caller"],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout), done.stderr


def test_told_once_and_kept_until_something_changes(tmp_path):
    value, told = run(tmp_path)
    assert value == 2
    assert told.count("\n") == told.count("compiling") == told.count(", once") == 1
    assert run(tmp_path) == (2, "")
    # The callers' own file stays the same.
    value, told = run(tmp_path, factor=3, offset=10)
    assert (value, told.count("compiling")) == (13, 1)


def test_what_names_a_class_that_is_gone_is_made_anew(tmp_path):
    assert run(tmp_path, caller=NAMED.format(name="Old"))[0] == 7
    assert run(tmp_path, caller=NAMED.format(name="New"))[0] == 7
    assert run(tmp_path, caller=NAMED.format(name="New")) == (7, "")


def test_works_where_nothing_can_be_kept(monkeypatch, capfd):
    monkeypatch.setattr(numba.core.caching.CacheImpl, "_locator_classes", [])
    monkeypatch.setattr(module._announcement, "made", False)
    doubled = module.compiled(lambda x: 2 * x)
    assert doubled(4) == 8
    assert "no cache folder can be written to" in capfd.readouterr().err
