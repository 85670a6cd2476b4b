"""The one place that computes: windows of all requests in batches, the least served request first.

A request that has had the fewest seconds recognised goes first, so that a short file waits for one
batch and never for the hours of a recording beside it (least attained service, Kleinrock 1976). All
windows that are ready go into one batch, up to what a batch may take of everybody's time.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future

import numpy as np

from asr.audio.sources import Source
from asr.audio.windows import Window
from asr.errors import InputError
from asr.recognize.recognizer import Job, Recognizer
from asr.types import Transcript

#: Windows of a request that are read before they are needed.
READ_AHEAD = 16
#: Seconds of audio in a batch of requests that just came, and the seconds of time that a batch of
#: longer recordings should take, which is what newcomers wait for.
MOST_S, LONG_BATCH_TIME_S = 240.0, 0.03
#: Of the speed (seconds of audio a second), the share that the last batch has in the mean.
SPEED_SHARE, FIRST_SPEED = 0.2, 100.0


class BusyError(Exception):
    """All places are taken. retry_s: when it is worth asking again."""

    def __init__(self, retry_s: int) -> None:
        super().__init__(f"the server has as many requests as it takes; ask again in {retry_s} s")
        self.retry_s = retry_s


class Work:
    """A request on its way: audio in, segments out as they are found, the transcript at the end."""

    numbers = itertools.count()

    def __init__(
        self,
        recognizer: Recognizer,
        source: Source,
        blocks: Generator[np.ndarray, None, None],
        found: Callable[[Transcript], None] = lambda segment: None,
    ) -> None:
        """blocks: waveforms (N,) float32 at the model's rate. found: gets each segment at once."""
        self.recognizer, self.found = recognizer, found
        self.close = blocks.close
        self.job: Job = recognizer.job(source, blocks)
        self.done: Future[Transcript] = Future()
        self.number = next(Work.numbers)
        self.heard_s = 0.0
        self.n_told = 0
        self.ready: deque[Window | None] = deque()
        self.dropped = False


class Engine:
    """The thread that computes, and what waits for it.

    most: requests that are read or recognised at once; more are refused.
    """

    def __init__(self, most: int, computed: Callable[[int, float], None]) -> None:
        """computed: gets each batch's number of windows, and the seconds that it took."""
        self.most, self.computed = most, computed
        self.n_claimed = 0
        self.speed = FIRST_SPEED
        self.works: list[Work] = []
        self.changed = threading.Condition()
        threading.Thread(target=self._run, name="compute", daemon=True).start()

    def claim(self) -> Callable[[], None]:
        """Take a place for one request, from before its body is read to its answer.

        What is returned gives it back.

        Raises:
            BusyError: there is none.
        """
        with self.changed:
            if self.n_claimed >= self.most:
                raise BusyError(max(1, min(60, self.n_claimed // 8)))
            self.n_claimed += 1

        def leave() -> None:
            with self.changed:
                self.n_claimed -= 1

        return leave

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

    def _batch(self) -> list[tuple[Work, Window | None]]:
        """What to compute next, of one recognizer; waits for it."""
        with self.changed:
            self.changed.wait_for(lambda: any(work.ready for work in self.works))
            waiting = sorted(
                (work for work in self.works if work.ready), key=lambda w: (w.heard_s, w.number)
            )
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
                    most = self.speed * LONG_BATCH_TIME_S if is_long else MOST_S
                    if batch and seconds + length_s > most:
                        break
                    batch.append((work, work.ready.popleft()))
                    seconds += length_s
                    work.heard_s += length_s
            self.changed.notify_all()
        return batch

    def _run(self) -> None:
        while True:
            batch = self._batch()
            begun = time.perf_counter()
            self._compute(batch)
            took_s = time.perf_counter() - begun
            rate = batch[0][0].recognizer.bundle.features.sample_rate
            n_samples = sum(len(w.waveform) for _, w in batch if w is not None)
            if n_samples:
                speed = n_samples / rate / took_s
                self.speed += SPEED_SHARE * (speed - self.speed)
                self.computed(sum(w is not None for _, w in batch), took_s)

    def _compute(self, batch: list[tuple[Work, Window | None]]) -> None:
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
