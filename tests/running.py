"""Short ways to run `asr` in this process, as a user would on the command line."""

import resource
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


def asr(monkeypatch, capsys, *words):
    """Run ``asr WORDS``; returns exit status, standard output and standard error."""
    monkeypatch.setattr(sys, "argv", ["asr", *map(str, words)])
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    return ended.value.code or 0, out, err


@contextmanager
def files_up_to(n_bytes):
    """What the system refuses meanwhile is as on a full disk: a file that grows beyond so much."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
