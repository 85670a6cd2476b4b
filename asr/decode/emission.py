"""What every decoder takes: one utterance's log-probabilities (T, V), blank 0."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from asr.errors import InputError
from asr.labels import BLANK
from asr.system.jit import compiled, inner

#: Of a float32: all bits but the sign, and infinity; NaN lies above that.
SIZE_BITS, INF_BITS = np.int32(0x7FFFFFFF), np.int32(0x7F800000)


def checked(log_probs: np.ndarray) -> NDArray[np.float32]:
    """Return ``log_probs`` (T, V) as contiguous float32.

    Raises:
        InputError: not two-dimensional, or a frame with NaN, +inf or no finite value at all.
    """
    return checked_with_best(log_probs)[0]


def checked_with_best(
    log_probs: np.ndarray,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """`checked`, and the best value of each frame (T,)."""
    if log_probs.ndim != 2:
        raise InputError(f"log-probabilities must be (frames, labels), found {log_probs.shape}")
    log_probs = np.ascontiguousarray(log_probs, np.float32)
    best, bad = best_values(log_probs)
    if bad < len(best):
        what = "are all -inf" if best[bad] == -np.inf else "hold NaN or inf"
        raise InputError(f"log-probabilities {what} in frame {bad} of {len(log_probs)}")
    return log_probs, best


@compiled
def best_values(log_probs: NDArray[np.float32]) -> tuple[NDArray[np.float32], int]:
    """The best value of each frame, NaN where there is one; the first frame whose is not finite, or
    their number."""
    n_frames, n_labels = log_probs.shape
    best = np.empty(n_frames, np.int32)
    bad = n_frames
    # As whole numbers, which the compiler compares several at once: those of two negative values
    # compare the other way round.
    bits = log_probs.view(np.int32)
    for t in range(n_frames):
        most, largest = ~INF_BITS, np.int32(0)
        for v in range(n_labels):
            most = max(most, turned(bits[t, v]))
            largest = max(largest, bits[t, v] & SIZE_BITS)
        best[t] = turned(most) if largest <= INF_BITS else largest
        if best[t] & SIZE_BITS >= INF_BITS:
            bad = min(bad, t)
    return best.view(np.float32), bad


@inner
def turned(bits):  # type: ignore[no-untyped-def]
    """Return the bits of a number so that they compare as the numbers do, or these turned back."""
    return bits ^ ((bits >> np.int32(31)) & SIZE_BITS)


def only_blanks(log_probs: NDArray[np.float32], share: float) -> NDArray[np.float32]:
    """Return ``log_probs`` without the labels of frames whose blank has more than ``share``."""
    if share >= 1:
        return log_probs
    skipped = log_probs[:, BLANK] > np.log(share)
    without = log_probs.copy()
    without[skipped, BLANK + 1 :] = -np.inf
    return without


@compiled
def without_priors(
    log_probs: NDArray[np.float32], log_priors: NDArray[np.float32], weight: float
) -> NDArray[np.float32]:
    """Divide (T, V) by the labels' frequencies (V,), to the power of ``weight``; rows sum to 1.

    As hybrid systems make likelihoods of posteriors (Bourlard & Morgan 1994), and for CTC Miao et
    al. 2015, equation 13.
    """
    found = np.empty_like(log_probs)
    for t in range(len(log_probs)):
        most = -np.inf
        for v in range(log_probs.shape[1]):
            found[t, v] = log_probs[t, v] - weight * log_priors[v]
            most = max(most, found[t, v])
        total = 0.0
        for v in range(log_probs.shape[1]):
            total += math.exp(found[t, v] - most)
        shift = most + math.log(total)
        for v in range(log_probs.shape[1]):
            found[t, v] = min(found[t, v] - shift, 0.0)
    return found


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
