"""Short ways to run `asr` in this process, as a user would on the command line."""

import os
import resource
import subprocess
import sys
from contextlib import contextmanager

import pytest

from asr.cli import main

# Small enough for seconds, large enough to learn the tones.
SMALL = [
    "features=logmel40",
    "model.layers=1",
    "model.hidden=32",
    "model.dropout=0",
    "augment=none",
    "optim.lr=0.02",
    "trainer.batch_size=4",
    # Bit for bit the same again is for the CPU; what a GPU does is in test_gpu.py.
    "trainer.device=cpu",
]
# Of a model that can go along with speech.
LIVE = ["features.normalize=online", "model.chunk=[4,8]", "model.lookahead=[2,2]"]


def asr(monkeypatch, capsys, *words):
    """Run ``asr WORDS``; returns exit status, standard output and standard error."""
    monkeypatch.setattr(sys, "argv", ["asr", *map(str, words)])
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    return ended.value.code or 0, out, err


@contextmanager
def serving(*words, env=None, log=subprocess.PIPE, python=("-m", "asr")):
    """``asr serve WORDS`` on a free port: its process and its address."""
    command = [sys.executable, *python, "serve", "--port", "0", *map(str, words)]
    process = subprocess.Popen(
        command,
        stdout=log,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | (env or {}),
    )
    try:
        told = []
        for line in process.stderr:
            told.append(line)
            if "serving" in line:
                break
        assert told, "the server ended"
        assert "serving" in told[-1], told
        yield process, told[-1].split()[-1]
    finally:
        process.kill()
        process.communicate()


@contextmanager
def files_up_to(n_bytes):
    """What the system refuses meanwhile is as on a full disk: a file that grows beyond so much."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
