"""Short ways to run `asr` in this process, as a user would on the command line."""

import sys

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
]


def asr(monkeypatch, capsys, *words):
    """Run ``asr WORDS``; returns exit status, standard output and standard error."""
    monkeypatch.setattr(sys, "argv", ["asr", *map(str, words)])
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    return ended.value.code or 0, out, err
