"""A run directory: its files, its log, and what they say of the machine.

config.yaml, environment.json, audit.json, manifests/, train.log, metrics.jsonl, tensorboard/,
skipped.json, last.safetensors (all that resuming takes), model/ (the best epoch, a complete model
directory), decoded/ and results.json.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import asr
from asr.checkpoint import Bundle
from asr.decode.decoder import words_of
from asr.errors import InputError
from asr.files import write_aside, write_text
from asr.types import Hypothesis, Utterance

#: All that resuming takes; a run stopped before its first epoch's end has none and starts over.
LAST = "last.safetensors"

log = logging.getLogger("asr.train")


def check_run_dir(run: Path, resume: bool) -> None:
    """Refuse to run into an existing run, or to resume where there is none."""
    if resume and not (run / "config.yaml").is_file():
        raise InputError(f"{run}: nothing to resume: expected the config.yaml of a run there")
    if not resume and run.is_file():
        raise InputError(f"run_dir={run}: a file is in the way")
    # A run that failed before its first epoch ended may be begun anew with better settings.
    begun = (run / "config.yaml").is_file() and not (run / LAST).is_file()
    if not resume and run.is_dir() and any(run.iterdir()) and not begun:
        raise InputError(
            f"run_dir={run}: exists and is not empty; choose another, or go on with it: "
            f"asr train {run} --resume"
        )


def environment() -> dict[str, Any]:
    """What a figure needs beside it to be compared."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "asr": asr.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "command": sys.argv,
    }


def processor_name() -> str:
    """The processor's model, as far as the system tells."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()


def keep_metrics(run: Path, n_epochs: int) -> None:
    """Drop metrics of epochs that an interrupted run logged but did not save."""
    path = run / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    write_text(path, "".join(line + "\n" for line in lines[:n_epochs]))


def open_log(run: Path) -> None:
    """Log to the console and to train.log."""
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()
    log.setLevel(logging.INFO)
    log.propagate = False
    to_file = logging.FileHandler(run / "train.log", encoding="utf-8")
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    to_console = logging.StreamHandler(sys.stderr)
    to_console.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(to_file)
    log.addHandler(to_console)


def open_tensorboard(run: Path, epoch: int) -> Any:
    """TensorBoard's writer; events after ``epoch`` from an interrupted run are purged."""
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(run / "tensorboard"), purge_step=epoch + 1)


def write_hypotheses(
    path: Path, utterances: Sequence[Utterance], hypotheses: Sequence[Hypothesis], bundle: Bundle
) -> None:
    """One JSON line an utterance, as `asr score` reads them: id, speaker, text and phones."""
    with write_aside(path) as aside, aside.open("w", encoding="utf-8") as handle:
        for utterance, hypothesis in zip(utterances, hypotheses, strict=True):
            symbols = bundle.labels.decode(hypothesis.labels)
            words = [w for w, _, _ in words_of(hypothesis, bundle.labels)]
            line: dict[str, Any] = {"id": utterance.id, "speaker": utterance.speaker}
            line["text"] = " ".join(words)
            if bundle.labels.unit == "phone":
                line["phones"] = symbols
            line["score"] = hypothesis.score
            handle.write(json.dumps(line, ensure_ascii=False) + "\n")
