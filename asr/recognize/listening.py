"""A stream from its source to whoever reads along: on a terminal, as lines, or as JSON events."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from rich.console import Console
from rich.live import Live
from rich.text import Text

from asr.audio.live import Feed, Packet, Packets, of_file, of_microphone, of_stream
from asr.audio.read import STDIN
from asr.errors import InputError, one_line
from asr.recognize.live import Part, Result, Stream
from asr.recognize.transcripts import dumped, part_of, scored, segment_fields
from asr.system.files import given
from asr.system.interrupts import deferred
from asr.types import Transcript

#: Seconds that audio is waited for before it is asked whether all is to end.
WAIT_S = 0.1
#: A delay of fewer seconds is not told.
LEAST_LAG_S = 1.0


class Moment(NamedTuple):
    """Seconds of audio recognised so far, seconds since listening began, and of the audio that has
    come and waits those by which one is behind a speaker."""

    audio_s: float
    clock_s: float
    lag_s: float


class Reader(Protocol):
    """Whom results are shown to."""

    def show(self, result: Result, at: Moment) -> None:
        """Show what is known of the segment that goes on."""

    def end(self, segment: int, transcript: Transcript, at: Moment) -> None:
        """Show what a segment has come to."""


class Screen:
    """A terminal: the segment that goes on is drawn again in place, its tentative words dim."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def show(self, result: Result, at: Moment) -> None:
        committed, tentative = result.committed.text, result.tentative.text
        line = Text(one_line(committed))
        line.append(" " * bool(committed and tentative))
        line.append(one_line(tentative), style="dim")
        if at.lag_s >= LEAST_LAG_S:
            line.append(f"  [{at.lag_s:.1f} s behind]", style="yellow")
        self._live.update(line, refresh=True)

    def end(self, segment: int, transcript: Transcript, at: Moment) -> None:
        self._live.update(Text(""), refresh=True)
        self._live.console.print(Text(one_line(transcript.text)))


class Lines:
    """Text, a line a segment; a delay is told whenever it has doubled."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell, self._least_s = tell, LEAST_LAG_S

    def show(self, result: Result, at: Moment) -> None:
        if at.lag_s >= self._least_s:
            self._tell(f"{at.lag_s:.1f} s behind: this machine is too slow, or too busy")
            self._least_s = 2 * at.lag_s

    def end(self, segment: int, transcript: Transcript, at: Moment) -> None:
        sys.stdout.write(one_line(transcript.text) + "\n")
        sys.stdout.flush()


class Events:
    """JSON, an event a line; see docs/live.md."""

    def __init__(self) -> None:
        self._committed = self._tentative = Part("", (), ())

    def show(self, result: Result, at: Moment) -> None:
        before, after = self._committed, result.committed
        if after.text != before.text:
            new = Part(
                after.text.removeprefix(before.text).lstrip(),
                after.labels[len(before.labels) :],
                after.words[len(before.words) :],
            )
            self._committed = after
            self._write("committed", result.segment, _fields(new), at)
        if _said(result.tentative) != _said(self._tentative):
            self._tentative = result.tentative
            self._write("partial", result.segment, _fields(result.tentative), at)

    def end(self, segment: int, transcript: Transcript, at: Moment) -> None:
        self._committed = self._tentative = Part("", (), ())
        self._write("final", segment, part_of(transcript) | scored(transcript), at)

    def _write(self, event: str, segment: int, fields: dict[str, Any], at: Moment) -> None:
        times = {name: round(seconds, 3) for name, seconds in at._asdict().items()}
        sys.stdout.write(dumped({"event": event, "segment": segment, **times, **fields}))
        sys.stdout.flush()


def _said(part: Part) -> tuple[str, list[str]]:
    return part.text, [label.label for label in part.labels]


def _fields(part: Part) -> dict[str, Any]:
    return {
        "text": part.text,
        "labels": [segment_fields(s) for s in part.labels],
        "words": [segment_fields(s) for s in part.words],
    }


@contextmanager
def reader(as_events: bool, tell: Callable[[str], None]) -> Iterator[Reader]:
    """Whoever reads standard output: a program that wants events, a person, or a file."""
    if as_events:
        yield Events()
    elif not sys.stdout.isatty():
        yield Lines(tell)
    else:
        with Live(console=Console(highlight=False), auto_refresh=False, transient=True) as live:
            yield Screen(live)


def packets_of(
    audio: str | None, paced: bool, rate: int | None, own_rate: int, tell: Callable[[str], None]
) -> Packets:
    """What is spoken into the microphone (None), standard input, or a file, perhaps at its pace.

    rate: of samples on standard input. own_rate: of the model.

    Raises:
        InputError: the pace or rate of what has its own, or nothing can be heard there.
    """
    if rate is not None and audio != str(STDIN):
        raise InputError(f"--rate {rate}: is for samples on standard input; a file has its own")
    if paced and audio in (None, str(STDIN)):
        raise InputError("--paced: is for a FILE; a microphone or a pipe has its own pace")
    if audio is None:
        return of_microphone(tell)
    if audio != str(STDIN):
        return of_file(Path(audio), own_rate, paced)
    return of_stream(io.FileIO(given().fileno(), closefd=False), rate)


def listen(stream: Stream, feed: Feed, shown: Reader) -> None:
    """Recognise what comes, until the audio ends or the first Ctrl-C; then what is left of it.

    Left are what a speaker had said by then, and the last words. Another Ctrl-C ends that, too.

    Raises:
        InputError: the audio failed; what came before is shown.
    """
    begun, n_shown = time.perf_counter(), 0

    def clock_s() -> float:
        return time.perf_counter() - begun

    def lag_s() -> float:
        # What is read from a pipe faster than one speaks waits, but is not late.
        return max(0.0, min(feed.waiting_s, clock_s() - stream.duration_s))

    def show(finals: Sequence[Transcript]) -> None:
        nonlocal n_shown
        at = Moment(stream.duration_s, clock_s(), lag_s())
        for transcript in finals:
            shown.end(n_shown, transcript, at)
            n_shown += 1
        shown.show(stream.result, at)

    def hear(packets: Sequence[Packet]) -> None:
        for packet in packets:
            stream.accept(*packet)
        show(stream.finals())

    try:
        with suppress(KeyboardInterrupt), deferred() as ended:
            while not ended() and (packets := feed.take(WAIT_S)) is not None:
                hear(packets)
        spoken_s = clock_s()
        while stream.duration_s < spoken_s and (packets := feed.take(0.0)):
            hear(packets)
    finally:
        stream.finish()
        show(stream.finals())
