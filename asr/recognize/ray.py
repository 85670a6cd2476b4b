"""Transcribing on a Ray cluster: a JSONL file for each part of the work.

The process that a user starts plans the parts and writes their files; Ray Data spreads the parts
over actors, each with a model of its own. A part is there whole or not at all: whatever is killed,
starting again does what is missing.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from asr.audio.read import tar_member
from asr.audio.sources import Failed, Source
from asr.errors import InputError
from asr.recognize.recognizer import Recognizer
from asr.recognize.transcripts import as_json, dumped
from asr.system.files import write_text
from asr.system.progress import progress_bar

PLAN, FORMAT = "parts.json", "carousel-parts-1"
#: Bytes of audio in a part: about an hour of FLAC, some 20 s of one core's work, lost when killed.
PART_BYTES = 64 << 20
#: What a second is taken for where a file holds more than is meant: 16 bits at 16 kHz.
BYTES_PER_S = 32_000
#: A file is taken for so many bytes at least, so that no part has more than 1024.
LEAST_BYTES = 64 << 10
#: Workers that a part may cost: one that exhausts their memory would kill them for ever.
MOST_RETRIES = 5


@dataclass(frozen=True)
class Done:
    """A part that was transcribed: its number, the lines of its file and its seconds of audio."""

    number: int
    text: str
    heard_s: float


def transcribe_parts(
    sources: Sequence[Source],
    out: Path,
    make: Callable[[], Recognizer],
    settings: str,
    redo: bool,
    tell: Callable[[str], None],
    failed: Failed,
) -> None:
    """Transcribe on the cluster that RAY_ADDRESS names, or else one of this machine's own.

    Writes ``out/part-000000.jsonl`` ..., a line for each source in order; of one that cannot be
    read, the line has ``error`` instead of a transcript, and ``failed`` gets it, too. Parts that
    are there are left alone unless ``redo``. ``make`` is called on each worker, which sees files by
    the same names as this process. ``settings`` says what the transcripts follow from.

    Raises:
        InputError: ray is not installed or its cluster not reached, ``out`` holds parts of other
            sources or settings, or cannot be written to.
    """
    cluster()
    parts = _plan(sources, out, settings, redo)
    files = [out / f"part-{number:06d}.jsonl" for number in range(len(parts))]
    missing = [(number, parts[number]) for number, file in enumerate(files) if not file.exists()]
    if n_there := len(parts) - len(missing):
        tell(f"{n_there} of {len(parts)} parts are there (--redo replaces them)")
    if missing:
        make()  # What is wrong with model or options is said here, not by each worker.
        heard_s = 0.0
        with progress_bar("speed") as bar, closing(on_ray(missing, make)) as done:
            task = bar.add_task("transcribing", total=len(missing), speed="")
            for part in done:
                write_text(files[part.number], part.text)
                heard_s += part.heard_s
                bar.update(task, advance=1, speed=f"{heard_s / 60:.0f} min of audio")
    for file in files:
        if file.exists():
            for path, error in _errors(file):
                failed(path, error)
        else:
            failed(file, InputError(f"{file}: its workers died; run this again or see Ray's logs"))


def cluster() -> Any:
    """The module ray, or one line on how to get it.

    Raises:
        InputError: it is not installed.
    """
    try:
        import ray.data
    except ImportError as error:
        raise InputError(
            f"--engine ray: {error.name or 'ray'} is not installed; "
            "run pip install 'carousel-asr[ray]'"
        ) from error
    return ray


def on_ray(parts: Sequence[tuple[int, str]], make: Callable[[], Recognizer]) -> Generator[Done]:
    """Transcribe numbered parts on a cluster; those whose workers fail do not come back.

    Raises:
        InputError: no cluster is reached, or no worker could load the model.
    """
    # Ray speaks of its own doings; its log files keep that.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    ray = cluster()
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    try:
        ray.init(logging_level=logging.ERROR, log_to_driver=False, include_dashboard=False)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.max_errored_blocks = -1
        # A block a part, so that a worker which dies costs one.
        rows = ray.data.from_items(
            [{"number": number, "sources": sources} for number, sources in parts],
            override_num_blocks=len(parts),
        )
        pool = ray.data.ActorPoolStrategy(
            min_size=1, max_size=len(parts), max_tasks_in_flight_per_actor=1
        )
        with warnings.catch_warnings():
            # Ray means to rename max_task_retries, and has no other name for it yet.
            warnings.simplefilter("ignore", DeprecationWarning)
            found = rows.map(
                Worker,
                fn_constructor_args=(make, str(Path.cwd())),
                compute=pool,
                num_cpus=1,
                max_task_retries=MOST_RETRIES,
            )
        for row in found.iter_rows():
            if row["error"]:
                raise InputError(f"on a worker: {row['error']}")
            yield Done(row["number"], row["text"], row["heard_s"])
    except (ray.exceptions.RayError, ConnectionError, RuntimeError, ValueError) as error:
        last = [line for line in str(error).splitlines() if line.strip()][-1:]
        raise InputError(f"ray: {' '.join(last) or type(error).__name__}") from error
    finally:
        ray.shutdown()


class Worker:
    """What an actor runs: a model, and a part after the other."""

    def __init__(self, make: Callable[[], Recognizer], folder: str) -> None:
        """``folder``: what relative names are relative to."""
        with suppress(OSError):
            os.chdir(folder)
        self.error = ""
        try:
            self.recognizer = make()
        except InputError as error:
            # Raised here it would be a traceback, five times.
            self.error = str(error)
            return
        # Other actors have the other cores.
        self.recognizer.n_threads = 1

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Transcribe one part: a line a source, in their order."""
        if self.error:
            return {"number": row["number"], "text": "", "heard_s": 0.0, "error": self.error}
        sources = [Source(Path(path), *rest) for path, *rest in json.loads(row["sources"])]
        offsets = {source.id: source.offset_s for source in sources if source.offset_s}
        lines: list[str] = []
        heard: list[float] = []

        def failed(source: Source, error: InputError) -> None:
            audio = str(source.path)
            lines.append(dumped({"id": source.id, "audio_filepath": audio, "error": str(error)}))

        for transcript in self.recognizer.transcribe_files(sources, failed, heard.append):
            record = as_json(transcript)
            if transcript.id in offsets:
                record["offset"] = offsets[transcript.id]
            lines.append(dumped(record))
        return {"number": row["number"], "text": "".join(lines), "heard_s": sum(heard), "error": ""}


def _plan(sources: Sequence[Source], out: Path, settings: str, redo: bool) -> list[str]:
    """The sources of each part, as JSON; what was planned before stays so."""
    digest = hashlib.sha256(_listed(sources).encode()).hexdigest()
    plan: dict[str, Any] = {
        "format": FORMAT,
        "settings": settings,
        "sources": digest,
        "ends": _ends(sources),
    }
    found = sorted(out.glob("part-*.jsonl"))
    if redo:
        for file in found:
            file.unlink()
    elif found:
        try:
            before = json.loads((out / PLAN).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            before = {}
        for name, what in (
            ("format", "run"),
            ("settings", "model or options"),
            ("sources", "input"),
        ):
            if before.get(name) != plan[name]:
                raise InputError(
                    f"--out {out}: holds parts of another {what}; name another folder, or replace "
                    "them with --redo"
                )
        plan = before
    write_text(out / PLAN, json.dumps(plan, indent=2) + "\n")
    ends: list[int] = plan["ends"]
    return [_listed(sources[first:end]) for first, end in zip([0, *ends], ends, strict=False)]


def _ends(sources: Sequence[Source]) -> list[int]:
    """Where parts end, each the first of which the bytes of audio suffice."""
    ends: list[int] = []
    n_bytes = 0
    for i, source in enumerate(sources, 1):
        n_bytes += max(LEAST_BYTES, _size(source))
        if n_bytes >= PART_BYTES or i == len(sources):
            ends.append(i)
            n_bytes = 0
    return ends


def _size(source: Source) -> int:
    member = tar_member(source.path)
    if member:
        return member[2]
    if source.duration_s is not None:
        # The file may hold a thousand such stretches.
        return round(source.duration_s * BYTES_PER_S)
    with suppress(OSError):
        return source.path.stat().st_size
    return 0


def _listed(sources: Sequence[Source]) -> str:
    # ASCII: names may hold bytes that are no text.
    return json.dumps([(str(path), *rest) for path, *rest in map(astuple, sources)])


def _errors(file: Path) -> Iterator[tuple[Path, InputError]]:
    """What could not be read among the sources of a part."""
    with file.open("rb") as lines:
        for line in lines:
            # Within a JSON string there would be a backslash before the quotes.
            if b'"error": ' in line and "error" in (record := json.loads(line)):
                yield Path(record["audio_filepath"]), InputError(record["error"])
