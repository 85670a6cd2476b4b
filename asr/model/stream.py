"""Audio in packets to log-probabilities, while it comes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from asr.audio.features import (
    DELTA_WINDOW,
    FeatureConfig,
    LogMel,
    Statistics,
    add_deltas,
    stack_frames,
)
from asr.audio.normalize import forget, normalize, normalize_on, nothing_heard, renew
from asr.audio.read import Resampling, check_rate, checked_waveform
from asr.errors import InputError
from asr.model.bundle import Bundle
from asr.model.runtime import OnnxNet
from asr.model.waveform import WaveformModel
from asr.nets.config import ENDLESS, Latency

#: Seconds of audio at another rate than the model's that are resampled at once.
RESAMPLED_S = 0.01
#: What to do where a model cannot stream.
RECIPES = "train one with the recipe so762/live.yaml or so762/live_forward.yaml"


def _obstacle(bundle: Bundle) -> str | None:
    if bundle.others:
        return "it is an ensemble of several"
    if isinstance(bundle.model, WaveformModel) or not bundle.architecture.streams:
        return "it has to hear an utterance as a whole"
    if bundle.features.normalize in ("utterance", "speaker"):
        return (
            f"it normalises each {bundle.features.normalize} as a whole "
            f"(features.normalize={bundle.features.normalize})"
        )
    return None


def choose_latency(
    bundle: Bundle, chunk_ms: float | None = None, lookahead_ms: float | None = None
) -> Latency:
    """The chunks in which a model is to hear a stream, and what they see beyond their ends.

    Without a choice they are the first that the model is trained for. A stack in one direction
    takes any chunk, by itself one frame, and no look ahead but its own.

    Raises:
        InputError: the model cannot stream, or is not trained for such chunks.
    """
    if (obstacle := _obstacle(bundle)) is not None:
        raise InputError(f"model: {obstacle} and cannot go along with speech; {RECIPES}")
    shift_ms, known = 1000 * bundle.clock.shift_s, bundle.architecture.latencies
    if isinstance(bundle.model, OnnxNet):
        known = bundle.model.latencies
    if not known:
        chunk = max(1, round((chunk_ms or 0) / shift_ms))
        known = (Latency(chunk, 0),)
    for latency in known:
        wanted = zip((chunk_ms, lookahead_ms), latency, strict=True)
        if all(ms is None or abs(ms - n * shift_ms) < shift_ms / 2 for ms, n in wanted):
            return latency
    choices = ", ".join(f"{c * shift_ms:g} and {ahead * shift_ms:g}" for c, ahead in known)
    asked = " and ".join("any" if ms is None else f"{ms:g}" for ms in (chunk_ms, lookahead_ms))
    raise InputError(
        f"chunk and lookahead of {asked} ms: expected what the model is trained for, {choices} ms"
    )


class Steps(Protocol):
    """A net's steps of streams: `asr.nets.live.Live`, or `asr.model.runtime.OnnxSteps`.

    latency, lead, delay: see `Live`.
    """

    latency: Latency
    lead: int
    delay: int

    def begin(self, n_streams: int) -> Any:
        """The state of streams that begin."""

    def renewed(self, state: Any) -> Any:
        """The state with layers that begin."""

    def take(
        self, frames: Sequence[NDArray[np.float32]], lens: Sequence[int], states: Sequence[Any]
    ) -> tuple[NDArray[np.float32], list[Any]]:
        """A step of streams with frames (chunk, F) each: log-probabilities and states."""


def steps_of(bundle: Bundle, latency: Latency) -> Steps:
    """The model's steps in such chunks."""
    if isinstance(bundle.model, OnnxNet):
        return bundle.model.steps(latency)
    from asr.nets.live import Live

    return Live(bundle.model, latency).eval()


class EmissionStream:
    """One stream of audio on its way to log-probabilities.

    Audio is given in packets of any size and rate; `take` gives the frames that are new. Neither
    the packets nor, but for the last bits, the other streams of `advance` have any influence on
    them, and they are those of the same audio as a file. Memory and work are bounded by what a
    packet brings.

    prior: what normalises until more is heard, such as an earlier utterance's statistics in the
    place of the training set's.

    Raises:
        InputError: see `choose_latency`.
    """

    def __init__(
        self,
        bundle: Bundle,
        chunk_ms: float | None = None,
        lookahead_ms: float | None = None,
        prior: Statistics | None = None,
    ) -> None:
        latency = choose_latency(bundle, chunk_ms, lookahead_ms)
        self.bundle = bundle
        self.live = steps_of(bundle, latency)
        self.state = self.live.begin(1)
        self._front = _Front(bundle.log_mel, prior or bundle.stats)
        self._n_labels = len(bundle.labels)
        self._n_steps = 0
        self._found: list[NDArray[np.float32]] = []
        self._resampling: tuple[int, Resampling] | None = None
        self._finished = False

    @property
    def latency_s(self) -> float:
        """Seconds from the beginning of a frame's audio until all is heard that it depends on.

        That is the longest, of the first frame of a chunk: the chunk, what it sees ahead, what
        convolutions, deltas and windows do. Resampling from another rate adds up to 0.03 s.
        """
        config, live = self.bundle.features, self.live
        n = live.latency.chunk + live.delay - live.lead
        hops = n * config.stack + self._front.margin - 0.5
        return (hops * config.hop_length + config.win_length / 2) / config.sample_rate

    def accept(self, samples: np.ndarray, rate: int) -> None:
        """Take samples (N,) of floating-point numbers in [-1, 1] at ``rate`` Hz.

        The rate may change: what came at the old one ends there.

        Raises:
            InputError: no such samples or rate; of this packet nothing is taken, and the stream
                can go on.
        """
        if not len(samples):
            return
        check_rate(rate)
        samples = checked_waveform(samples, rate, rate)
        if self._resampling is not None and self._resampling[0] != rate:
            self._end_rate()
        own = self.bundle.features.sample_rate
        if rate == own:
            self._front.accept(samples)
            return
        if self._resampling is None:
            self._resampling = rate, Resampling(int(rate), own, "audio", RESAMPLED_S)
        self._front.accept(np.clip(self._resampling[1].of(samples), -1.0, 1.0))

    def finish(self) -> None:
        """No more samples will come: what is there is all, and the last frames can be told."""
        self._end_rate()
        self._front.finished = self._finished = True

    def _end_rate(self) -> None:
        if self._resampling is not None:
            self._front.accept(np.clip(self._resampling[1].rest(), -1.0, 1.0))
            self._resampling = None

    def take(self) -> NDArray[np.float32]:
        """The log-probabilities (n, V) that are new since the last call."""
        advance([self])
        return self.computed()

    def renew(self) -> None:
        """Let the net begin with the frames of the next step, as at the start of an utterance.

        What normalises goes on, but gives way to what comes as fast as at the start.
        """
        self.state = self.live.renewed(self.state)
        self._front.renew()

    def settle(self, was_speech: bool) -> None:
        """Tell whether there was speech since the last call; else nothing since then normalises."""
        self._front.settle(was_speech)

    def computed(self) -> NDArray[np.float32]:
        """`take` of the steps that were taken so far."""
        found, self._found = self._found, []
        return np.concatenate([np.zeros((0, self._n_labels), np.float32), *found])

    @property
    def end(self) -> int:
        """Frames from the start of the stream to its end, if it has one by now."""
        n_frames = self._front.n_frames
        return ENDLESS if n_frames is None else -(-n_frames // self.bundle.features.stack)

    def next_frames(self) -> NDArray[np.float32] | None:
        """Features (chunk, F) of the next step, where all that it needs is there."""
        chunk = self.live.latency.chunk
        first = self._n_steps * chunk
        # Before the audio ends nothing is due; after it, frames until the last has come out.
        if first - self.live.delay >= self.end:
            return None
        return self._front.frames(first - self.live.lead, chunk)

    def found(self, log_probs: NDArray[np.float32], state: Any) -> None:
        """Note what a step gave: log-probabilities (chunk, V), state of one stream."""
        first = self._n_steps * self.live.latency.chunk - self.live.delay
        rows = log_probs[max(0, -first) : max(0, self.end - first)]
        if len(rows):
            self._found.append(rows)
        self.state = state
        self._n_steps += 1


class _Front:
    """Samples to assembled features, in blocks of one size whatever size packets have."""

    def __init__(self, log_mel: LogMel, prior: Statistics | None) -> None:
        self.log_mel, self.prior = log_mel, prior
        config = log_mel.config
        #: Frames of log-mel that deltas see on either side.
        self.margin = DELTA_WINDOW // 2 * config.deltas
        self.finished = False
        self._heard = nothing_heard(prior) if prior is not None else None
        self._settled = deepcopy(self._heard)
        self._packets: list[NDArray[np.float32]] = []
        self._samples, self._first_sample = np.zeros(0, np.float32), 0
        self._n_samples = 0
        self._frames, self._first_frame = np.zeros((0, config.n_mels), np.float32), 0

    @property
    def config(self) -> FeatureConfig:
        """How features are made."""
        return self.log_mel.config

    def renew(self) -> None:
        """See `EmissionStream.renew`."""
        if self._heard is not None:
            renew(self._heard)

    def settle(self, was_speech: bool) -> None:
        """See `EmissionStream.settle`."""
        if self._heard is None or self._settled is None:
            return
        if was_speech:
            self._settled = deepcopy(self._heard)
        else:
            forget(self._heard, self._settled)

    @property
    def n_frames(self) -> int | None:
        """Frames of log-mel of the whole, once it has ended."""
        if not self.finished:
            return None
        return self.log_mel.n_frames(self._n_samples) if self._n_samples else 0

    def accept(self, samples: NDArray[np.float32]) -> None:
        """Take samples (N,) at the features' rate."""
        self._packets.append(samples)
        self._n_samples += len(samples)

    def frames(self, first: int, n: int) -> NDArray[np.float32] | None:
        """Stacked frames ``first`` ... of the stream, (n, F), zeros where there are none.

        None where too little is heard. Each call asks for those after the last.
        """
        stack = self.config.stack
        start, stop = first * stack, (first + n) * stack
        if not self._hear(stop + self.margin):
            return None
        low = max(start, 0)
        ends = self._first_frame + len(self._frames)
        high = max(min(stop, ends), low)
        found = np.zeros((n, self.config.size), np.float32)
        if high > low:
            begin = max(0, low - self.margin)
            around = self._frames[
                begin - self._first_frame : high + self.margin - self._first_frame
            ]
            x = add_deltas(around, self.config.deltas)[low - begin : high - begin]
            x = stack_frames(x, stack)
            at = (low - start) // stack
            found[at : at + len(x)] = x
        kept = max(self._first_frame, min(stop - self.margin, ends))
        self._frames, self._first_frame = self._frames[kept - self._first_frame :], kept
        return found

    def _hear(self, until: int) -> bool:
        """Compute log-mel up to frame ``until``, at most to the end; whether so much is there."""
        config, done = self.config, self._first_frame + len(self._frames)
        start = done * config.hop_length - self.log_mel.lead
        n_samples = self.log_mel.n_samples(until - done)
        if start + n_samples > self._n_samples and not self.finished:
            return False
        if until <= done or (self.n_frames is not None and done >= self.n_frames):
            return True
        new = self.log_mel.of(self._cut(start, n_samples))
        if self.n_frames is not None:
            new = new[: self.n_frames - done]
        if config.normalize == "online":
            assert self.prior is not None
            assert self._heard is not None
            new = normalize_on(new, self.prior, config, self._heard)
        else:
            new = normalize(new, self.prior, config)
        self._frames = np.concatenate([self._frames, new])
        return True

    def _cut(self, start: int, n: int) -> NDArray[np.float32]:
        """Samples from ``start`` on; what is before is let go."""
        held = np.concatenate([self._samples, *self._packets])
        self._packets.clear()
        dropped = max(0, start - self._first_sample)
        self._samples, self._first_sample = held[dropped:], self._first_sample + dropped
        return self.log_mel.around(self._samples, start - self._first_sample, n)


def advance(streams: Iterable[EmissionStream]) -> None:
    """Compute all that is due in streams, those of one model and one latency as a batch."""
    going = list(streams)
    while going:
        going = step(going)


def step(streams: Iterable[EmissionStream]) -> list[EmissionStream]:
    """Take a step of each stream where one is due, see `advance`; returns these."""
    due = [(stream, x) for stream in streams if (x := stream.next_frames()) is not None]
    groups: dict[tuple[int, Latency], list[tuple[EmissionStream, NDArray[np.float32]]]] = {}
    for stream, x in due:
        groups.setdefault((id(stream.bundle), stream.live.latency), []).append((stream, x))
    for group in groups.values():
        log_probs, states = group[0][0].live.take(
            [x for _, x in group], [s.end for s, _ in group], [s.state for s, _ in group]
        )
        for (stream, _), rows, state in zip(group, log_probs, states, strict=True):
            stream.found(rows, state)
    return [stream for stream, _ in due]
