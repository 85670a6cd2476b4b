"""Best-path decoding of CTC outputs."""

from __future__ import annotations

import numpy as np

from asr.decode.emission import checked, confidences
from asr.labels import BLANK
from asr.types import Hypothesis


def greedy(log_probs: np.ndarray) -> Hypothesis:
    """Collapse the most probable label of each frame (Graves et al. 2006, section 3.2).

    Args:
        log_probs: (T, V) natural logarithms of one utterance, blank 0.

    Returns:
        The labels of the best path; a span is its label's run of frames, its confidence the mean
        posterior there, ``acoustic`` the path's log-probability.

    Raises:
        InputError: a frame without a finite best value.
    """
    log_probs = checked(log_probs)
    if len(log_probs) == 0:
        return Hypothesis((), (), (), 0.0, 0.0)
    path = log_probs.argmax(axis=1)
    starts = np.flatnonzero(np.diff(path, prepend=-1))
    ends = np.append(starts[1:], len(path))
    spoken = path[starts] != BLANK
    starts, ends = starts[spoken], ends[spoken]
    score = float(log_probs.max(axis=1).sum(dtype=np.float64))
    return Hypothesis(
        tuple(path[starts].tolist()),
        tuple(zip(starts.tolist(), ends.tolist(), strict=True)),
        confidences(log_probs, path, starts, ends),
        score,
        score,
    )
