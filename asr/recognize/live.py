"""Live recognition: audio in packets of any size, words while they are spoken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from asr.audio.sources import Source
from asr.decode.decoder import Decoder
from asr.decode.endpoint import Endpoint, EndpointConfig
from asr.decode.live import Search, begin
from asr.errors import InputError
from asr.labels import BLANK, SILENCES, SPACE
from asr.model.bundle import Bundle
from asr.recognize.times import timed
from asr.types import Hypothesis, Segment, Transcript

#: What transcripts say they are of.
LIVE = Source(Path("audio"), "audio")


class Emissions(Protocol):
    """Audio in packets to log-probabilities, see `asr.model.stream.EmissionStream`."""

    latency_s: float

    def accept(self, samples: np.ndarray, rate: int) -> None:
        """Take samples (N,) float32 at ``rate`` Hz."""

    def finish(self) -> None:
        """No more samples will come."""

    def take(self) -> NDArray[np.float32]:
        """The log-probabilities (n, V) that are new since the last call."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a segment of speech; times are seconds since the start of the audio."""

    text: str
    labels: tuple[Segment, ...]
    words: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """What is known by now of the segment of speech that goes on.

    segment: its number, from 0 on. committed: what nothing that comes can change: it only grows
    while the segment lasts, and is how the final begins (whose times may differ by a tenth of a
    second). tentative: the likeliest continuation, which may change.
    """

    segment: int
    committed: Part
    tentative: Part


@dataclass
class _Running:
    """The segment that goes on; ``first`` is its first frame in the stream."""

    first: int
    search: Search
    endpoint: Endpoint
    labels: list[Segment] = field(default_factory=list)
    words: list[Segment] = field(default_factory=list)
    result: Result | None = None


class Stream:
    """One stream of audio; `Recognizer.stream` makes it.

    Audio is given with `accept`, in packets of any size, and ends with `finish`. `result` and
    `finals` see to it that everything given so far is recognised; `advance` does so for many
    streams at once. Neither the packets nor the other streams have any influence on what is found.
    """

    def __init__(
        self,
        bundle: Bundle,
        decoder: Decoder,
        emissions: Emissions,
        endpoint: EndpointConfig = EndpointConfig(),
    ) -> None:
        self._bundle, self._decoder, self._emissions = bundle, decoder, emissions
        self._endpoint = endpoint
        labels = bundle.labels
        silent = [labels.ids[s] for s in (*SILENCES, SPACE) if s in labels.ids]
        self._silent = np.array([*silent, BLANK])
        self._n_samples: Counter[int] = Counter()
        self._finished = False
        self._finals: list[Transcript] = []
        self._n_finals = 0
        self._running = self._begun(0)

    @property
    def latency_s(self) -> float:
        """Seconds of audio that a frame waits for: the chunk, and what is heard beyond it."""
        return self._emissions.latency_s

    @property
    def duration_s(self) -> float:
        """Seconds of audio given so far."""
        return sum(n / rate for rate, n in self._n_samples.items())

    def accept(self, samples: np.ndarray, rate: int | None = None) -> None:
        """Take a packet of floating-point samples (N,) in [-1, 1] at ``rate`` Hz (the model's).

        Raises:
            InputError: the stream is finished, or no such samples; of this packet nothing is taken.
        """
        if self._finished:
            raise InputError("stream: audio after its end; begin another one")
        if rate is None:
            rate = self._bundle.features.sample_rate
        if len(samples):
            self._emissions.accept(samples, rate)
            self._n_samples[rate] += len(samples)

    def finish(self) -> list[Transcript]:
        """End the audio; what is left of it is recognised. Returns `finals`."""
        if not self._finished:
            self._finished = True
            self._emissions.finish()
        return self.finals()

    @property
    def result(self) -> Result:
        """What is known by now of the segment that goes on."""
        self.advance()
        running = self._running
        if running.result is None:
            running.result = self._result()
        return running.result

    def finals(self) -> list[Transcript]:
        """The segments that have ended since the last call; those without speech are left out."""
        self.advance()
        finals, self._finals = self._finals, []
        return finals

    def advance(self) -> None:
        """Recognise what was given."""
        advance([self])

    def _decode(self) -> None:
        """Search what is new, and end segments where endpoints are."""
        log_probs = self._emissions.take()
        n_done = 0
        silent = np.isin(log_probs.argmax(axis=1), self._silent).tolist()
        for n, is_silent in enumerate(silent, start=1):
            running = self._running
            most_cost = running.endpoint.after(is_silent)
            if most_cost == -np.inf:
                continue
            running.search.accept(log_probs[n_done:n])
            n_done = n
            if running.search.relative_cost() <= most_cost:
                self._end(running.endpoint.n_frames * self._bundle.clock.shift_s)
        if n_done < len(log_probs):
            self._running.search.accept(log_probs[n_done:])
            self._running.result = None
        if self._finished and self._running.endpoint.n_frames:
            start_s = self._running.first * self._bundle.clock.shift_s
            self._end(self.duration_s - start_s)

    def _begun(self, first: int) -> _Running:
        shift_s = self._bundle.clock.shift_s
        return _Running(first, begin(self._decoder, shift_s), Endpoint(self._endpoint, shift_s))

    def _end(self, duration_s: float) -> None:
        """End the segment, which lasts so long, and begin the next one."""
        running = self._running
        best, *others = [self._timed(h, duration_s) for h in running.search.nbest()]
        if any(label.label not in SILENCES for label in best.labels):
            if self._decoder.config.nbest > 1:
                best = replace(best, nbest=(best, *others))
            self._finals.append(best)
            self._n_finals += 1
        self._running = self._begun(running.first + running.endpoint.n_frames)

    def _result(self) -> Result:
        running, labels = self._running, self._bundle.labels
        best = running.search.best()
        found = self._timed(best, running.endpoint.n_frames * self._bundle.clock.shift_s)
        n_labels = running.search.n_settled(best)
        # A word of letters may go on until the space after it.
        least_after = labels.unit == "char" and not self._decoder.searches_words
        n_words = sum(end + least_after <= n_labels for _, end in best.word_spans or ())
        running.labels += found.labels[len(running.labels) : n_labels]
        running.words += found.words[len(running.words) : n_words]

        def part(of_labels: Sequence[Segment], of_words: Sequence[Segment]) -> Part:
            text = " ".join(word.label for word in of_words)
            if best.words is None:
                text = labels.join([label.label for label in of_labels])
            return Part(text, tuple(of_labels), tuple(of_words))

        return Result(
            self._n_finals,
            part(running.labels, running.words),
            part(found.labels[len(running.labels) :], found.words[len(running.words) :]),
        )

    def _timed(self, hypothesis: Hypothesis, duration_s: float) -> Transcript:
        running = self._running
        start_s = running.first * self._bundle.clock.shift_s
        rows = running.search.rows.all
        return timed(self._bundle, hypothesis, rows, LIVE, duration_s, start_s)


def advance(streams: Iterable[Stream]) -> None:
    """Recognise what was given to streams of one model; the net computes them as one batch."""
    for stream in streams:
        stream._decode()
