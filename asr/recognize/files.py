"""Many audio files to transcripts, which are written while the next ones are recognised."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Protocol

from asr.audio.sources import Failed, Source
from asr.audio.windows import WindowConfig
from asr.decode.config import DecodingOptions
from asr.errors import InputError
from asr.model.pretrained import load_model
from asr.model.waveform import WaveformModel
from asr.recognize.recognizer import Recognizer
from asr.recognize.transcripts import Format
from asr.system.device import set_threads
from asr.system.files import remove_abandoned, write_text
from asr.system.progress import progress_bar
from asr.types import Transcript

#: Models of waveforms were trained on longer utterances than ours.
WAVEFORM_WINDOW_S = 20.0
FULL = (errno.ENOSPC, errno.EDQUOT)
#: Files written at once: each waits for the disk, which serves many in the time of one.
WRITERS = 8


class Loading(NamedTuple):
    """A model by its name, and how it is to be used.

    window_s: of long audio at most; None stands for what suits the model. adapt: see
    `Recognizer`. threads: that compute; None stands for one for each core.
    """

    model: str
    options: DecodingOptions = DecodingOptions()
    window_s: float | None = None
    keep_silence: bool = False
    precision: str = "float32"
    device: str = "auto"
    adapt: bool = False
    threads: int | None = None


def load_for_files(loading: Loading, tell: Callable[[str], None]) -> Recognizer:
    """Load a model so that many files take the least time: torch then computes with one thread.

    Raises:
        InputError: not a model that can be used, or options that do not fit it.
    """
    model, options, window_s, keep_silence, precision, device, adapt, threads = loading
    if precision == "int8" and device == "auto":
        device = "cpu"
    bundle = load_model(model, device, threads)
    windowing, n_threads = WindowConfig(skip_silence=not keep_silence), 1
    if isinstance(bundle.model, WaveformModel):
        windowing = replace(windowing, longest_s=WAVEFORM_WINDOW_S)
        if threads is not None:
            set_threads(threads)
    else:
        # Two batches beside each other take less time than two threads for one.
        n_cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1
        n_threads = n_cores if threads is None else threads
        set_threads(1)
    if window_s is not None:
        windowing = replace(windowing, longest_s=window_s)
    return Recognizer(bundle, options, tell, windowing, precision, n_threads, adapt)


def may_hold_files(out: Path) -> bool:
    """Whether a folder that is there, or is to be made, can be written to."""
    there = next(folder for folder in (out, *out.parents) if folder.exists())
    return os.access(there, os.W_OK | os.X_OK)


def is_full(error: InputError) -> bool:
    """Whether there is no room to write to: then there is none for the next file, either."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in FULL


class Transcriber(Protocol):
    """A model here, or one on a server."""

    def transcribe_files(
        self,
        sources: Iterable[Source],
        failed: Callable[[Source, InputError], None],
        heard: Callable[[float], None],
    ) -> Iterator[Transcript]:
        """See `Recognizer.transcribe_files`."""


def transcribe_into(
    out: Path,
    sources: Sequence[Source],
    formats: Mapping[str, Format],
    load: Callable[[], Transcriber],
    redo: bool,
    tell: Callable[[str], None],
    failed: Failed,
) -> None:
    """Write a file of each format for each source, whose ids differ, into the folder ``out``.

    Files that are there are left alone unless ``redo``; ``load`` is called if any is not.
    ``failed`` gets what cannot be read or written.

    Raises:
        InputError: there is no room left.
    """
    remove_abandoned(out)
    wanted = {
        source.id: [f for f in formats.values() if redo or not _is_there(_place(out, source.id, f))]
        for source in sources
    }
    left = [source for source in sources if wanted[source.id]]
    if n_there := len(sources) - len(left):
        tell(f"{n_there} of {len(sources)} transcripts are there (--redo replaces them)")

    def deliver(transcript: Transcript) -> None:
        for format in wanted[transcript.id]:
            write_text(_place(out, transcript.id, format), format.write(transcript))

    transcribe_all(left, load, deliver, failed, WRITERS)


def _place(out: Path, id: str, format: Format) -> Path:
    return out / f"{id}{format.suffix}"


def _is_there(path: Path) -> bool:
    # Of a place that cannot even be asked about, the attempt to write there will tell.
    return os.path.isfile(path)  # noqa: PTH113


def transcribe_all(
    sources: Sequence[Source],
    load: Callable[[], Transcriber],
    deliver: Callable[[Transcript], None],
    failed: Failed,
    n_writers: int = 1,
) -> None:
    """Transcribe one after the other, and deliver ``n_writers`` at once, with a bar.

    ``load`` is called if there is any. ``failed`` gets what cannot be read or delivered.

    Raises:
        InputError: there is no room left.
    """
    if not sources:
        return
    recognizer = load()
    begun, heard_s = time.perf_counter(), 0.0
    writing: deque[tuple[str, Future[None]]] = deque()
    with progress_bar("speed") as bar, ThreadPoolExecutor(n_writers) as pool:
        task = bar.add_task("transcribing", total=len(sources), speed="")

        def heard(seconds: float) -> None:
            nonlocal heard_s
            heard_s += seconds
            speed = heard_s / (time.perf_counter() - begun)
            bar.update(task, speed=f"{heard_s / 60:.0f} min of audio, {speed:.0f} x real time")

        def unread(source: Source, error: InputError) -> None:
            failed(source.path, error)
            bar.advance(task)

        def settle(most: int) -> None:
            while len(writing) > most:
                id, future = writing.popleft()
                try:
                    future.result()
                except InputError as error:
                    if is_full(error):
                        raise
                    failed(Path(id), error)
                bar.advance(task)

        for transcript in recognizer.transcribe_files(sources, unread, heard):
            writing.append((transcript.id, pool.submit(deliver, transcript)))
            settle(n_writers)
        settle(0)
