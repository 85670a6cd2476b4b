"""The one place that computes: live streams first, then files, the least served of them first.

All that live streams have brought is one batch. Then comes a batch of windows of files: the request
that has had the fewest seconds recognised goes first, so that a short file waits for one batch and
never for the hours of a recording beside it (least attained service, Kleinrock 1976). All windows
that are ready go into one batch, up to what a batch may take of everybody's time.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from typing import NamedTuple

import numpy as np

from asr.audio.live import Packet
from asr.audio.sources import Source
from asr.audio.windows import Window
from asr.errors import InputError
from asr.recognize.live import Result, Stream, advance
from asr.recognize.recognizer import Job, Recognizer
from asr.types import Transcript

#: Windows of a request that are read before they are needed.
READ_AHEAD = 16
#: Seconds of audio in a batch of requests that just came, and the seconds of time that a batch of
#: longer recordings should take, which is what newcomers wait for; so does any batch beside live
#: streams, as long as one was heard in the last so many seconds.
MOST_S, LONG_BATCH_TIME_S, LIVE_S = 240.0, 0.03, 2.0
#: Seconds of a live stream that are recognised at once: what sends faster than one speaks waits.
AT_ONCE_S = 1.0
#: Of the speed (seconds of audio a second), the share that the last batch has in the mean.
SPEED_SHARE, FIRST_SPEED = 0.2, 100.0


class BusyError(Exception):
    """All places are taken. retry_s: when it is worth asking again."""

    def __init__(self, retry_s: int) -> None:
        super().__init__(f"the server has as many requests as it takes; ask again in {retry_s} s")
        self.retry_s = retry_s


class Places:
    """So many can be taken at once."""

    def __init__(self, most: int) -> None:
        self.most, self.n_taken = most, 0
        self.lock = threading.Lock()

    def claim(self) -> Callable[[], None]:
        """Take one; what is returned gives it back.

        Raises:
            BusyError: there is none.
        """
        with self.lock:
            if self.n_taken >= self.most:
                raise BusyError(max(1, min(60, self.n_taken // 8)))
            self.n_taken += 1

        def leave() -> None:
            with self.lock:
                self.n_taken -= 1

        return leave


class Heard(NamedTuple):
    """What a live stream has brought.

    finals: segments that have ended. result: of the one that goes on. audio_s: seconds recognised
    so far. came: when the oldest audio came that is recognised now (`time.perf_counter`). ended:
    nothing more will come. error: why recognition failed, and the stream is over.
    """

    finals: list[Transcript]
    result: Result | None
    audio_s: float
    came: float
    ended: bool = False
    error: Exception | None = None


class Live:
    """A live stream on its way: packets in, what they bring out."""

    def __init__(self, stream: Stream, told: Callable[[Heard], None]) -> None:
        """told: gets what is found, in the thread that computes."""
        self.stream, self.told = stream, told
        #: Packets with the time at which they came; None is the end.
        self.waiting: deque[tuple[Packet | None, float]] = deque()
        self.came = 0.0
        self.ended = False

    def take(self) -> list[Packet]:
        """The packets that come next, and whether they are the last ones (``ended``)."""
        packets: list[Packet] = []
        seconds = 0.0
        self.came = self.waiting[0][1]
        while self.waiting and seconds < AT_ONCE_S:
            packet, _ = self.waiting.popleft()
            if packet is None:
                self.ended = True
            else:
                packets.append(packet)
                seconds += len(packet.samples) / packet.rate
        return packets

    def hear(self, packets: list[Packet]) -> None:
        """Give packets to the stream."""
        for packet in packets:
            self.stream.accept(*packet)
        if self.ended:
            self.stream.finish()

    def tell(self) -> None:
        """Tell what is found by now."""
        stream = self.stream
        finals, result = stream.finals(), stream.result
        self.told(Heard(finals, result, stream.duration_s, self.came, self.ended))

    def fail(self, error: Exception) -> None:
        """Tell that it is over."""
        self.told(Heard([], None, self.stream.duration_s, self.came, True, error))


class Work:
    """A request on its way: audio in, segments out as they are found, the transcript at the end."""

    numbers = itertools.count()

    def __init__(
        self,
        recognizer: Recognizer,
        source: Source,
        blocks: Generator[np.ndarray, None, None],
        found: Callable[[Transcript], None] = lambda segment: None,
        keeps: bool = False,
    ) -> None:
        """blocks: waveforms (N,) float32 at the model's rate. found: gets each segment at once.
        keeps: see `Recognizer.job`."""
        self.recognizer, self.found = recognizer, found
        self.close = blocks.close
        self.job: Job = recognizer.job(source, blocks, keeps)
        self.done: Future[Transcript] = Future()
        self.number = next(Work.numbers)
        self.heard_s = 0.0
        self.n_told = 0
        self.ready: deque[Window | None] = deque()
        self.dropped = False


class Engine:
    """The thread that computes, and what waits for it."""

    def __init__(self, computed: Callable[[int, float], None]) -> None:
        """computed: gets each batch's number of windows, and the seconds that it took."""
        self.computed = computed
        self.speed = FIRST_SPEED
        self.works: list[Work] = []
        #: Live streams with packets that wait.
        self.lives: list[Live] = []
        #: When live streams were heard last.
        self.heard = -math.inf
        self.changed = threading.Condition()
        threading.Thread(target=self._run, name="compute", daemon=True).start()

    def hear(self, live: Live, packet: Packet | None) -> None:
        """Recognise a packet; None is the end. ``live.told`` gets what it brings."""
        with self.changed:
            live.waiting.append((packet, time.perf_counter()))
            if live not in self.lives:
                self.lives.append(live)
            self.changed.notify_all()

    def forget(self, live: Live) -> None:
        """Drop what waits of a live stream whose client has left."""
        with self.changed:
            live.waiting.clear()
            if live in self.lives:
                self.lives.remove(live)

    def submit(self, work: Work) -> None:
        """Begin to read and recognise. ``work.done`` gets the transcript or the `InputError`."""
        with self.changed:
            self.works.append(work)
        threading.Thread(target=self._read, args=(work,), name="read", daemon=True).start()

    def drop(self, work: Work) -> None:
        """Forget a request that is over, or whose client has left."""
        self._remove(work)
        work.done.cancel()

    def _remove(self, work: Work) -> None:
        with self.changed:
            work.dropped = True
            if work in self.works:
                self.works.remove(work)
            self.changed.notify_all()

    def _read(self, work: Work) -> None:
        """Fill ``work.ready``; the last is None, whatever happens."""
        windows = work.recognizer.windows_of(iter([work.job]))
        try:
            for _, window in windows:
                with self.changed:
                    self.changed.wait_for(lambda: work.dropped or len(work.ready) < READ_AHEAD)
                    if work.dropped:
                        return
                    work.ready.append(window)
                    self.changed.notify_all()
        except Exception as error:
            with self.changed:
                work.job.error = InputError(f"{work.job.source.id}: cannot be read ({error})")
                work.ready.append(None)
                self.changed.notify_all()
        finally:
            work.close()

    def _wait(self) -> None:
        """Wait for something to compute."""
        with self.changed:
            self.changed.wait_for(lambda: self.lives or any(work.ready for work in self.works))

    def _go_along(self) -> None:
        """Recognise what live streams have brought."""
        with self.changed:
            taken = [(live, live.take()) for live in self.lives]
            self.lives = [live for live in self.lives if live.waiting]
        going = []
        for live, packets in taken:
            try:
                live.hear(packets)
            except Exception as error:
                live.fail(error)
            else:
                going.append(live)
        self._advance(going)
        if taken:
            self.heard = time.perf_counter()

    def _advance(self, lives: Sequence[Live]) -> None:
        """Advance streams as a batch; where it fails, each alone."""
        try:
            advance(live.stream for live in lives)
        except Exception as error:
            if len(lives) == 1:
                lives[0].fail(error)
                return
            for live in lives:
                self._advance([live])
            return
        for live in lives:
            try:
                live.tell()
            except Exception as error:
                live.fail(error)

    def _batch(self) -> list[tuple[Work, Window | None]]:
        """What of files to compute next, of one recognizer; nothing where nothing is ready."""
        with self.changed:
            waiting = sorted(
                (work for work in self.works if work.ready), key=lambda w: (w.heard_s, w.number)
            )
            if not waiting:
                return []
            is_live = time.perf_counter() - self.heard < LIVE_S
            recognizer = waiting[0].recognizer
            rate = recognizer.bundle.features.sample_rate
            batch: list[tuple[Work, Window | None]] = []
            seconds = 0.0
            for work in waiting:
                if work.recognizer is not recognizer:
                    continue
                while work.ready:
                    window = work.ready[0]
                    length_s = 0.0 if window is None else len(window.waveform) / rate
                    is_long = work.heard_s > 0 and window is not None
                    most = self.speed * LONG_BATCH_TIME_S if is_long or is_live else MOST_S
                    if batch and seconds + length_s > most:
                        break
                    batch.append((work, work.ready.popleft()))
                    seconds += length_s
                    work.heard_s += length_s
            self.changed.notify_all()
        return batch

    def _run(self) -> None:
        while True:
            self._wait()
            self._go_along()
            batch = self._batch()
            if batch:
                self._timed(batch)

    def _timed(self, batch: list[tuple[Work, Window | None]]) -> None:
        """Recognise a batch and learn from it how fast that is."""
        begun = time.perf_counter()
        self._compute(batch)
        took_s = time.perf_counter() - begun
        rate = batch[0][0].recognizer.bundle.features.sample_rate
        n_samples = sum(len(w.waveform) for _, w in batch if w is not None)
        if n_samples:
            speed = n_samples / rate / took_s
            self.speed += SPEED_SHARE * (speed - self.speed)
            self.computed(sum(w is not None for _, w in batch), took_s)

    def _compute(self, batch: Sequence[tuple[Work, Window | None]]) -> None:
        """Recognise a batch; where it fails, each request in it alone."""
        works = list(dict.fromkeys(work for work, _ in batch))
        recognizer = works[0].recognizer
        try:
            for _ in recognizer.advance([(w.job, window) for w, window in batch], lambda s: None):
                pass
        except Exception as error:
            if len(works) == 1:
                self._end(works[0], error)
                return
            for work in works:
                self._compute([pair for pair in batch if pair[0] is work])
            return
        ended = {work for work, window in batch if window is None}
        for work in works:
            for segment in work.job.segments[work.n_told :]:
                work.found(segment)
            work.n_told = len(work.job.segments)
            if work in ended:
                self._end(work, work.job.error)

    def _end(self, work: Work, error: Exception | None) -> None:
        self._remove(work)
        if not work.done.set_running_or_notify_cancel():
            return
        if error is None:
            work.done.set_result(work.recognizer.transcript(work.job))
        else:
            work.done.set_exception(error)
