"""Searches that go on as frames come: their best hypotheses at any time, and what is settled."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from asr.decode.decoder import Decoder
from asr.decode.greedy import greedy
from asr.types import Hypothesis


class Rows:
    """Log-probabilities (T, V) that grow by frames."""

    def __init__(self, n_labels: int) -> None:
        self._room = np.empty((64, n_labels), np.float32)
        self.n = 0

    def append(self, log_probs: NDArray[np.float32]) -> None:
        """Add frames (n, V)."""
        end = self.n + len(log_probs)
        if end > len(self._room):
            larger = np.empty((2 * end, self._room.shape[1]), np.float32)
            larger[: self.n] = self.all
            self._room = larger
        self._room[self.n : end] = log_probs
        self.n = end

    @property
    def all(self) -> NDArray[np.float32]:
        """All of them, to be read until the next are added."""
        return self._room[: self.n]


class Search(Protocol):
    """A search in a segment of speech, from its first frame on; ``rows`` are its frames so far.

    How they are cut makes no difference. ``n_settled`` never falls, and the labels so far stay what
    they are, whatever comes.
    """

    rows: Rows

    def accept(self, log_probs: NDArray[np.float32]) -> None:
        """Go on over frames (n, V)."""

    def best(self) -> Hypothesis:
        """What is likeliest by now."""

    def n_settled(self, best: Hypothesis) -> int:
        """How many of the first labels of `best` later frames cannot change."""

    def nbest(self) -> list[Hypothesis]:
        """The hypotheses, if this is the end, best first: those of the search over all at once."""

    def relative_cost(self) -> float:
        """How much less likely the best hypothesis that may end here is than the best."""


class GreedySearch:
    """Best-path decoding: only the label of the last frame may yet grow."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder, self.rows = decoder, Rows(len(decoder.labels))

    def accept(self, log_probs: NDArray[np.float32]) -> None:
        self.rows.append(log_probs)

    def best(self) -> Hypothesis:
        return self.decoder.completed(greedy(self.rows.all), self.rows.all)

    def n_settled(self, best: Hypothesis) -> int:
        return len(best.spans) - bool(best.spans and best.spans[-1][1] == self.rows.n)

    def nbest(self) -> list[Hypothesis]:
        return [self.best()]

    def relative_cost(self) -> float:
        return 0.0


class WholeSearch(GreedySearch):
    """A search that needs all frames: until the segment's end best-path decoding stands for it, and
    nothing is settled."""

    def n_settled(self, best: Hypothesis) -> int:
        return 0

    def nbest(self) -> list[Hypothesis]:
        return self.decoder(self.rows.all)


def begin(decoder: Decoder) -> Search:
    """The search of a decoder, before its first frame."""
    return (GreedySearch if decoder.config.name == "greedy" else WholeSearch)(decoder)
