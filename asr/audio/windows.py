"""Audio of any length through a net that was trained on utterances, in little memory.

A recording is cut into windows where it is quietest, which are recognised like utterances of their
own, each with a little of its neighbours. Their posteriors are joined where two neighbours agree
most, and what lies between two pauses is decoded as one sequence.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asr.audio.silence import (
    LEAST_SILENCE_S,
    MARGIN_S,
    SMOOTHING_S,
    is_quiet,
    loudness,
    smoothed,
)
from asr.system.settings import check, setting

MOST_WINDOW_S = 3600.0
#: A sequence to decode ends at the first pause after ``LEAST_SEGMENT_S``, or at ``MOST_SEGMENT_S``.
LEAST_SEGMENT_S, MOST_SEGMENT_S = 10.0, 60.0
#: A join is in a pause where blank and silence have this much of the posterior, this time around.
PAUSE_POSTERIOR, PAUSE_S = 0.9, 0.2


@dataclass(frozen=True)
class WindowConfig:
    """How recordings are cut."""

    whole_s: float = setting(
        30.0, "what is no longer is an utterance, and is not cut", above=0, most=MOST_WINDOW_S
    )
    longest_s: float = setting(
        6.0, "seconds of a window; the shortest has a third", above=0, most=MOST_WINDOW_S
    )
    context_s: float = setting(0.15, "seconds of either neighbour", 0, MOST_WINDOW_S)
    skip_silence: bool = setting(True, "leave long silence out")

    def __post_init__(self) -> None:
        check(self, "window")


@dataclass(frozen=True)
class Window:
    """A part of a recording: its first output frame, and samples (N,) from there on."""

    first: int
    waveform: NDArray[np.float32]


@dataclass(frozen=True)
class Stretch:
    """What is decoded as one: its first output frame in the recording, log_probs (T, V)."""

    first: int
    log_probs: NDArray[np.float32]


class _Recording:
    """Audio that comes in blocks, of which only the part in use is held."""

    def __init__(self, blocks: Iterator[np.ndarray], step: int) -> None:
        self.blocks, self.step = blocks, step
        self.first = 0  # the frame that ``held`` and ``levels`` begin with
        self.held = np.zeros(0, np.float32)
        self.levels = np.zeros(0, np.float32)

    @property
    def end(self) -> int:
        """The frame after the last whole one that is held."""
        return self.first + len(self.levels)

    def reaches(self, frame: int) -> bool:
        """Read on until ``frame`` is held; False where the audio ends before."""
        while self.end <= frame:
            block = next(self.blocks, None)
            if block is None:
                return False
            self.held = np.concatenate([self.held, block])
            fresh = self.held[len(self.levels) * self.step :]
            frames = fresh[: len(fresh) // self.step * self.step].reshape(-1, self.step)
            # The variance: a constant offset is no sound.
            fresh_levels = 10 * np.log10(frames.var(axis=1) + 1e-12)
            self.levels = np.concatenate([self.levels, fresh_levels])
        return True

    def smoothed(self, first: int, end: int, n: int) -> NDArray[np.floating]:
        """Levels in dB of frames first ... end - 1, averaged over ``n`` neighbours."""
        return smoothed(self.levels, n)[first - self.first : end - self.first]

    def samples(self, first: int, end: int | None) -> NDArray[np.float32]:
        """The samples of frames first ... end - 1; all that is left where there is no end."""
        stop = None if end is None else (end - self.first) * self.step
        return self.held[(first - self.first) * self.step : stop].copy()

    def forget(self, frame: int) -> None:
        """Give up what lies before ``frame``."""
        n = max(0, frame - self.first)
        self.held, self.levels = self.held[n * self.step :], self.levels[n:]
        self.first += n


def cut(blocks: Iterator[np.ndarray], n: int, step: int) -> Iterator[Window]:
    """Audio in parts of ``n`` samples (a multiple of ``step``) side by side; the last is shorter.

    blocks, step: as of `windows`.
    """
    held, first = np.zeros(0, np.float32), 0
    for block in blocks:
        held = np.concatenate([held, block])
        while len(held) >= n:
            yield Window(first // step, held[:n])
            held, first = held[n:], first + n
    if len(held):
        yield Window(first // step, held)


def windows(
    blocks: Iterator[np.ndarray], sample_rate: int, step: int, config: WindowConfig
) -> Iterator[Window]:
    """Cut audio into windows.

    Audio of up to ``config.whole_s`` is one window, silence and all: the net is spared that in
    `model.emissions`. Nothing of anything longer may come where it is all silence. Neighbours
    overlap by twice the context, or not at all where silence was left out between them.

    Args:
        blocks: samples (N,) float32, one block after the other.
        step: samples to an output frame of the model; windows begin at multiples.
    """

    def frames(seconds: float) -> int:
        return max(1, round(seconds * sample_rate / step))

    whole, longest = frames(config.whole_s), frames(config.longest_s)
    shortest, context, smoothing = (
        max(1, longest // 3),
        frames(config.context_s),
        frames(SMOOTHING_S),
    )
    least_silence, margin = frames(LEAST_SILENCE_S), frames(MARGIN_S)
    recording = _Recording(blocks, step)
    if not recording.reaches(whole):
        yield Window(0, recording.samples(0, None))
        return
    horizon = max(whole, longest + least_silence + context)
    start, loud = 0, -np.inf
    while True:
        recording.forget(start - context - smoothing)
        ended = not recording.reaches(start + horizon)
        end = recording.end
        levels = recording.smoothed(start, min(end, start + horizon), smoothing)
        if not len(levels):
            return
        loud = max(loud, loudness(levels))
        quiet = is_quiet(levels, loud)
        if not config.skip_silence:
            quiet[:] = False
        if ended and quiet.all():
            return
        n_quiet = len(quiet) if quiet.all() else int(quiet.argmin())
        if n_quiet >= least_silence + margin:
            start += n_quiet - margin
            continue
        cut = end
        if len(levels) > longest:
            cut = start + shortest + int(levels[shortest:longest].argmin())
        silent = np.convolve(quiet, np.ones(least_silence), "valid") > least_silence - 0.5
        silent[:margin] = False
        if silent.any():
            cut = min(cut, start + int(silent.argmax()) + margin)
        last = ended and cut >= end
        first = max(0, start - context)
        yield Window(first, recording.samples(first, None if last else cut + context))
        if last:
            return
        start = cut


class Joiner:
    """Puts the posteriors of a recording's windows together, and cuts them at pauses.

    quiet: ids of the labels that are no speech, the blank among them. shift_s: from a frame to the
    next.
    """

    def __init__(self, quiet: Collection[int], shift_s: float) -> None:
        self.quiet, self.shift_s = list(quiet), shift_s
        self.first = self.end = 0
        self.parts: list[NDArray[np.float32]] = []

    def add(self, first: int, log_probs: NDArray[np.float32]) -> list[Stretch]:
        """Add a window's log_probs (T, V) that begin at frame ``first``: what is complete now."""
        shared = min(self.end - first, len(log_probs)) if self.parts else 0
        if shared <= 0:
            complete = self.finish()
            self._begin(first, log_probs)
            return complete
        before = self.parts.pop()
        at = len(before) - (self.end - first)
        cut = best_join(before[at : at + shared], log_probs[:shared])
        self.parts.append(before[: at + cut])
        if not self._may_end(log_probs, cut, (first + cut - self.first) * self.shift_s):
            self.parts.append(log_probs[cut:])
            self.end = first + len(log_probs)
            return []
        complete = self.finish()
        self._begin(first + cut, log_probs[cut:])
        return complete

    def finish(self) -> list[Stretch]:
        """What is left when the recording ends."""
        parts, self.parts = self.parts, []
        return [Stretch(self.first, np.concatenate(parts))] if parts else []

    def _begin(self, first: int, log_probs: NDArray[np.float32]) -> None:
        self.first, self.end = first, first + len(log_probs)
        self.parts = [log_probs]

    def _may_end(self, log_probs: NDArray[np.float32], cut: int, length_s: float) -> bool:
        n = max(1, round(PAUSE_S / self.shift_s / 2))
        around = np.exp(log_probs[max(0, cut - n) : cut + n, self.quiet])
        is_pause = around.sum(axis=1).mean() > PAUSE_POSTERIOR
        return length_s >= (LEAST_SEGMENT_S if is_pause else MOST_SEGMENT_S)


def best_join(before: NDArray[np.float32], after: NDArray[np.float32]) -> int:
    """The frame from which on to trust the later of two windows: where they agree most.

    Both (T, V) are log-probabilities of the same frames. Agreement is Bhattacharyya's coefficient,
    the sum of sqrt(p q), over three frames; either window's outermost quarter, which knows one side
    alone, does not count.
    """
    agreement = np.exp((before + after) / 2).sum(axis=1)
    agreement = np.convolve(np.pad(agreement, 1, mode="edge"), np.ones(3), "valid")
    margin = len(agreement) // 4
    return margin + int(agreement[margin : len(agreement) - margin].argmax())
