"""A run directory: its files, its lock, its log, and what they say of the machine.

config.yaml, environment.json, audit.json, manifests/, train.log, metrics.jsonl, tensorboard/,
skipped.json, checkpoints/ (the last two, named by their step: each holds all that resuming takes),
model/ (the best epoch, a complete model directory), decoded/ and results.json.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import torch

import asr
from asr.decode.decoder import words_of
from asr.errors import InputError
from asr.model.bundle import Bundle
from asr.system.files import remove_leftovers, write_aside, write_text
from asr.system.lock import lock
from asr.types import Hypothesis, Utterance

LOCK, METRICS, RESULTS = ".lock", "metrics.jsonl", "results.json"

log = logging.getLogger("asr.train")


@contextmanager
def claim(run: Path, resume: bool) -> Iterator[None]:
    """Make the run directory where there is none, and be the only training in it.

    Raises:
        InputError: another training runs there; there is nothing to resume; or the folder is
            somebody else's, or an earlier run's, and this is not to go on with it.
    """
    if resume and not (run / "config.yaml").is_file():
        raise InputError(f"{run}: nothing to resume: expected the config.yaml of a run there")
    if run.is_file():
        raise InputError(f"run_dir={run}: a file is in the way")
    others = {p.name for p in run.iterdir()} - {LOCK} if run.is_dir() else set()
    if others and "config.yaml" not in others:
        raise InputError(f"run_dir={run}: exists and is not empty; choose another")
    try:
        run.mkdir(parents=True, exist_ok=True)
        lock = take_lock(run)
    except OSError as error:
        raise InputError(f"run_dir={run}: cannot be made ({error.strerror})") from error
    with lock:
        # A run that failed before its first checkpoint may be begun anew with better settings.
        if not resume and has_trained(run):
            raise InputError(
                f"run_dir={run}: exists and is not empty; choose another, or go on with it: "
                f"asr train {run} --resume"
            )
        remove_leftovers(run)
        try:
            yield
        finally:
            if {p.name for p in run.iterdir()} == {LOCK}:
                (run / LOCK).unlink()
                run.rmdir()


def take_lock(run: Path) -> IO[str]:
    """Lock the run directory; the lock ends with the file returned, or with the process.

    Raises:
        InputError: another process holds it.
    """
    while True:
        handle = (run / LOCK).open("a+", encoding="utf-8")
        try:
            lock(handle.fileno(), wait=False)
        except BlockingIOError:
            with handle:
                handle.seek(0)
                holder = handle.read().strip() or "another process"
            raise InputError(
                f"run_dir={run}: a training is already running there ({holder}); "
                f"wait for its end, or choose another"
            ) from None
        # A lock on a file that its holder has removed meanwhile guards nothing.
        if os.fstat(handle.fileno()).st_nlink:
            handle.truncate(0)
            handle.write(f"process {os.getpid()} on {platform.node()}")
            handle.flush()
            return handle
        handle.close()


def has_trained(run: Path) -> bool:
    """Whether the run got as far as a checkpoint or the end of an epoch."""
    metrics = run / METRICS
    return bool(checkpoints(run)) or (metrics.is_file() and metrics.stat().st_size > 0)


def checkpoints(run: Path) -> list[Path]:
    """The run's checkpoints, oldest first."""
    return sorted((run / "checkpoints").glob("[0-9]*.safetensors"))


def checkpoint_path(run: Path, step: int) -> Path:
    """The checkpoint after a step."""
    return run / "checkpoints" / f"{step:010d}.safetensors"


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


def add_metrics(run: Path, metrics: Mapping[str, Any]) -> None:
    """Append an epoch's figures to metrics.jsonl, synced.

    Raises:
        InputError: the disk is full or the file not writable.
    """
    path = run / METRICS
    try:
        with path.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(metrics) + "\n")
            handle.flush()
            os.fsync(handle.fileno())
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The epochs' figures; a line that a running or killed training left torn is passed over."""
    path, epochs = run / METRICS, []
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    for line in text.splitlines():
        with suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, dict) and isinstance(entry.get("epoch"), int):
                epochs.append(entry)
    return epochs


def keep_metrics(run: Path, n_epochs: int) -> None:
    """Drop metrics of epochs that an interrupted run did not save, and lines that are spoilt."""
    path = run / METRICS
    kept = {metrics["epoch"]: json.dumps(metrics) for metrics in read_metrics(run)}
    whole = [kept[epoch] for epoch in range(1, n_epochs + 1) if epoch in kept]
    if len(whole) < n_epochs:
        log.warning("%s: lacks %d of %d epochs", path, n_epochs - len(whole), n_epochs)
    write_text(path, "".join(line + "\n" for line in whole))


class LogFile(logging.FileHandler):
    """train.log; where the disk is full, lines are lost, and the checkpoint will say so."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Instead of a traceback on the console."""


def open_log(run: Path, is_main: bool = True) -> None:
    """Log to the console and to train.log; of several processes, one does."""
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()
    log.setLevel(logging.INFO if is_main else logging.ERROR)
    if not is_main:
        logging.getLogger("asr").setLevel(logging.ERROR)
    log.propagate = False
    to_console = logging.StreamHandler(sys.stderr)
    to_console.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(to_console)
    if is_main:
        to_file = LogFile(run / "train.log", encoding="utf-8")
        to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(to_file)


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
