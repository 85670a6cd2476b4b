"""Nets from elsewhere that hear waveforms and not our features."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.float32]


class WaveformModel:
    """Waveform (N,) -> natural logarithms of label probabilities (T, V), blank 0.

    run: a waveform (N,), at least ``least`` samples, -> logits (T, V).
    """

    def __init__(self, run: Callable[[NDArray[np.float32]], Logits], least: int = 1) -> None:
        self.run, self.least = run, least

    def __call__(self, waveform: NDArray[np.float32]) -> Logits:
        """One utterance; alone, for many of these nets would look at the padding of a batch."""
        logits = self.run(np.pad(waveform, (0, max(0, self.least - len(waveform)))))
        logits = logits - logits.max(axis=1, keepdims=True)
        found: Logits = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return found
