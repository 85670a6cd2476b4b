"""What every decoder takes: one utterance's log-probabilities (T, V), blank 0."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from asr.errors import InputError


def checked(log_probs: np.ndarray) -> NDArray[np.float32]:
    """Return ``log_probs`` (T, V) as contiguous float32.

    Raises:
        InputError: not two-dimensional, or a frame with NaN, +inf or no finite value at all.
    """
    if log_probs.ndim != 2:
        raise InputError(f"log-probabilities must be (frames, labels), found {log_probs.shape}")
    log_probs = np.ascontiguousarray(log_probs, np.float32)
    if len(log_probs):
        best = log_probs.max(axis=1)  # NaN where there is one
        bad = np.flatnonzero(~np.isfinite(best))
        if len(bad):
            what = "are all -inf" if best[bad[0]] == -np.inf else "hold NaN or inf"
            raise InputError(f"log-probabilities {what} in frame {bad[0]} of {len(log_probs)}")
    return log_probs


def confidences(
    log_probs: NDArray[np.float32],
    path: NDArray[np.integer],
    starts: NDArray[np.integer],
    ends: NDArray[np.integer],
) -> tuple[float, ...]:
    """Return the mean posterior of the labels ``path`` (T,) over each span start .. end - 1."""
    posterior = np.exp(log_probs[np.arange(len(path)), path], dtype=np.float64)
    total = np.append(0.0, np.cumsum(posterior))
    return tuple(np.clip((total[ends] - total[starts]) / (ends - starts), 0.0, 1.0).tolist())
