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
from asr.labels import BLANK, SILENT
from asr.model.bundle import Bundle
from asr.model.stream import EmissionStream, step
from asr.recognize.times import timed
from asr.types import Hypothesis, Segment, Transcript

UNNAMED = Source(Path("audio"), "audio")


class Emissions(Protocol):
    """Audio in packets to log-probabilities, see `asr.model.stream.EmissionStream`."""

    @property
    def latency_s(self) -> float:
        """Seconds from the beginning of a frame's audio until all is heard that it depends on."""

    def accept(self, samples: np.ndarray, rate: int) -> None:
        """Take samples (N,) float32 at ``rate`` Hz."""

    def finish(self) -> None:
        """No more samples will come."""

    def computed(self) -> NDArray[np.float32]:
        """The log-probabilities (n, V) that are new since the last call."""

    def renew(self) -> None:
        """Let the net begin anew after them."""

    def settle(self, was_speech: bool) -> None:
        """Tell whether there was speech in them since the last call."""


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
    second). tentative: the likeliest continuation, which may change. What the best of a beam did
    not say some time ago is left out of its text and words: most of it would soon be taken back.
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

    def accept(self, log_probs: NDArray[np.float32]) -> None:
        """Take frames (n, V)."""
        if len(log_probs):
            self.search.accept(log_probs)
            self.result = None


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
        source: Source = UNNAMED,
    ) -> None:
        self._bundle, self._decoder, self._emissions = bundle, decoder, emissions
        self._endpoint, self._source = endpoint, source
        labels = bundle.labels
        self._silent = np.zeros(len(labels), bool)
        self._silent[[BLANK, *labels.among(SILENT)]] = True
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

    def finish(self) -> None:
        """End the audio: `finals` are then all that is left of it."""
        if not self._finished:
            self._finished = True
            self._emissions.finish()

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
        if len(log_probs := self._emissions.computed()):
            self._search(log_probs)

    def _conclude_audio(self) -> None:
        """End the last segment where the audio has ended."""
        if self._finished and self._running.endpoint.n_frames:
            start_s = self._running.first * self._bundle.clock.shift_s
            self._end(self.duration_s - start_s)

    def _search(self, log_probs: NDArray[np.float32]) -> None:
        spoken = log_probs[:, ~self._silent].max(axis=1, initial=-np.inf)
        quiet = log_probs[:, self._silent].max(axis=1)
        n_done = 0
        for n, is_silent in enumerate((spoken <= quiet + self._endpoint.lead).tolist(), start=1):
            running = self._running
            most_cost = running.endpoint.after(is_silent)
            if most_cost == -np.inf:
                continue
            running.accept(log_probs[n_done:n])
            n_done = n
            if running.endpoint.n_silent == 0:
                self._cut()
            elif running.search.relative_cost() <= most_cost:
                self._end(running.endpoint.n_frames * self._bundle.clock.shift_s)
                if not (self._endpoint.carry or running.endpoint.is_full):
                    self._emissions.renew()
                self._emissions.settle(not running.endpoint.is_silent)
        self._running.accept(log_probs[n_done:])

    def _begun(self, first: int) -> _Running:
        shift_s = self._bundle.clock.shift_s
        search = begin(self._decoder, shift_s, first)
        return _Running(first, search, Endpoint(self._endpoint, shift_s))

    def _end(self, duration_s: float) -> None:
        """End the segment, which lasts so long, and begin the next one."""
        nbest = self._running.search.nbest()[: self._decoder.config.nbest]
        self._conclude(nbest, self._running.endpoint.n_frames, duration_s)

    def _cut(self) -> None:
        """End the segment while one speaks: what is not settled belongs to the next one."""
        running = self._running
        best = running.search.best()
        n_labels, n_words = self._settled(best)
        end = best.spans[n_labels - 1][1] if n_labels else running.endpoint.n_frames
        duration_s = end * self._bundle.clock.shift_s
        if not n_labels:
            self._end(duration_s)
            return
        left = running.search.rows.all[end:]
        self._conclude([first_of(best, n_labels, n_words)], end, duration_s)
        self._search(left)

    def _conclude(self, nbest: Sequence[Hypothesis], n_frames: int, duration_s: float) -> None:
        best, *others = [self._timed(h, duration_s) for h in nbest]
        if any(label.label not in SILENT for label in best.labels):
            self._finals.append(replace(best, nbest=(best, *others)) if others else best)
            self._n_finals += 1
        self._running = self._begun(self._running.first + n_frames)

    def _settled(self, best: Hypothesis) -> tuple[int, int]:
        """How many labels and words no later frame can change; where there are words, the labels
        are theirs."""
        n_labels = self._running.search.n_settled(best)
        if best.word_spans is None:
            return n_labels, 0
        # A word of letters may go on until the space after it.
        after = self._bundle.labels.unit == "char" and not self._decoder.searches_words
        n_words = sum(end + after <= n_labels for _, end in best.word_spans)
        return best.word_spans[n_words - 1][1] if n_words else 0, n_words

    def _result(self) -> Result:
        running, labels = self._running, self._bundle.labels
        best = running.search.best()
        found = self._timed(best, running.endpoint.n_frames * self._bundle.clock.shift_s)
        n_labels, n_words = self._settled(best)
        # Silence alone is no segment: it is settled together with the speech after it.
        while n_labels and found.labels[n_labels - 1].label in SILENT:
            n_labels -= 1
        # How settled words are pronounced may change: their labels are told once.
        n_told = len(running.labels)
        if best.word_spans is not None:
            n_told = best.word_spans[len(running.words) - 1][1] if running.words else 0
        running.labels += found.labels[n_told:n_labels]
        running.words += found.words[len(running.words) : n_words]
        n_steady = running.search.n_steady(best)
        n_steady_words = sum(end <= n_steady for _, end in best.word_spans or ())
        guessed, guessed_words = found.labels[n_labels:], found.words[n_words:n_steady_words]
        if best.words is None:
            guessed = found.labels[n_labels:n_steady]

        def part(of_labels: Sequence[Segment], of_words: Sequence[Segment]) -> Part:
            text = " ".join(word.label for word in of_words)
            if best.words is None:
                text = labels.join([label.label for label in of_labels])
            return Part(text, tuple(of_labels), tuple(of_words))

        return Result(
            self._n_finals,
            part(running.labels, running.words),
            part(guessed, guessed_words),
        )

    def _timed(self, hypothesis: Hypothesis, duration_s: float) -> Transcript:
        running = self._running
        start_s = running.first * self._bundle.clock.shift_s
        rows = running.search.rows.all
        return timed(self._bundle, hypothesis, rows, self._source, duration_s, start_s)


def first_of(hypothesis: Hypothesis, n_labels: int, n_words: int) -> Hypothesis:
    """The first labels and words of a hypothesis; its scores stay those of all of it."""
    return replace(
        hypothesis,
        labels=hypothesis.labels[:n_labels],
        spans=hypothesis.spans[:n_labels],
        confidences=hypothesis.confidences[:n_labels],
        words=hypothesis.words and hypothesis.words[:n_words],
        word_spans=hypothesis.word_spans and hypothesis.word_spans[:n_words],
        word_confidences=hypothesis.word_confidences and hypothesis.word_confidences[:n_words],
    )


def advance(streams: Iterable[Stream]) -> None:
    """Recognise what was given to streams of one model; the net computes them as one batch."""
    streams = list(streams)
    going = streams
    while going:
        # What is found in a step may have a say in the next one.
        stepped = set(map(id, step(_emission_streams(going))))
        for stream in going:
            stream._decode()
        going = [stream for stream in going if id(stream._emissions) in stepped]
    for stream in streams:
        stream._conclude_audio()


def _emission_streams(streams: Iterable[Stream]) -> list[EmissionStream]:
    return [e for s in streams if isinstance(e := s._emissions, EmissionStream)]
