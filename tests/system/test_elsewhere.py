"""What other systems lack, taken away from this one."""

from __future__ import annotations

import subprocess
import sys

#: As Windows' standard library is: imports must do without.
LIKE_WINDOWS = """
import asyncio, importlib, multiprocessing, pkgutil, signal, sys, types
import matplotlib.pyplot, numba, onnxruntime, safetensors.torch, soundfile, torch, torchaudio, typer
import hydra, orjson, praatio, pympi, rich.console, tensorboard, uvicorn, webvtt, yaml
import asr.system.jit
sys.modules["fcntl"] = sys.modules["resource"] = None
del signal.SIGUSR1, signal.SIGHUP
sys.modules["msvcrt"] = types.ModuleType("msvcrt")
sys.platform = "win32"
import asr
for module in pkgutil.walk_packages(asr.__path__, "asr."):
    if not module.name.startswith(("asr.serve.", "asr.__main__")):
        importlib.import_module(module.name)
from asr.system.interrupts import ENDINGS
assert len(ENDINGS) == 2
"""


def test_all_but_the_server_can_be_imported_where_there_is_no_posix() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIKE_WINDOWS], capture_output=True, text=True, timeout=300
    )
    assert not done.returncode, done.stderr
