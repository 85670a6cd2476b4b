"""Forced alignment: the best path through a graph of states that spell a known label sequence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from asr.decode.emission import checked, confidences
from asr.errors import InputError
from asr.labels import BLANK

Spans = tuple[tuple[int, int], ...]
Frames = tuple[NDArray[np.integer], NDArray[np.integer]]


def ctc_align(
    log_probs: np.ndarray, labels: Sequence[int], current: Frames | None = None
) -> tuple[Spans, tuple[float, ...], float]:
    """Align ``labels`` to the frames by the best CTC path (Graves et al. 2006, section 4.1).

    Args:
        log_probs: (T, V) natural logarithms of one utterance, blank 0.
        labels: U label ids without blanks.
        current: the first and the last frame (U + 1,) in which the first u labels, and no more, may
            have been said. It keeps the cost for a long utterance proportional to its length.

    Returns:
        spans: (start, end) frames of each label, end exclusive; frames between spans are blank.
        confidences: the mean posterior of each label over its span.
        log_prob: of the best path.

    Raises:
        InputError: a label outside the inventory, or no path fits the labels into the frames.
    """
    log_probs = checked(log_probs)
    n_labels = len(labels)
    sequence = np.asarray(labels, np.int64).reshape(n_labels)
    if n_labels and not (sequence.min() > 0 and sequence.max() < log_probs.shape[1]):
        raise InputError(f"labels to align must lie in 1 .. {log_probs.shape[1] - 1}")
    repeats = int((sequence[1:] == sequence[:-1]).sum())
    if n_labels + repeats > len(log_probs):
        raise InputError(
            f"{len(log_probs)} frames are too few for {n_labels} labels"
            + (f", {repeats} of them repeated, with a blank between" if repeats else "")
        )
    if len(log_probs) == 0:
        return (), (), 0.0
    # State 2u is the blank before label u, state 2u + 1 is label u.
    emits = np.full(2 * n_labels + 1, BLANK, np.int32)
    emits[1::2] = sequence
    state = np.arange(len(emits))
    skips = (state % 2 == 1) & (state >= 3) & (emits != np.roll(emits, 2))
    counts = 1 + (state >= 1) + skips  # from the state itself, the one before, the one before that
    offsets = np.append(0, np.cumsum(counts))
    predecessors = np.repeat(state + offsets[:-1], counts) - np.arange(offsets[-1])
    start, final = state < 2, state >= len(emits) - 2
    prefix = (state + 1) // 2
    band = _band(len(log_probs), prefix, prefix, current)
    states, log_prob = best_path(log_probs, emits, offsets, predecessors, start, final, *band)
    if log_prob == -np.inf:
        raise InputError(f"no path through {len(log_probs)} frames gives the {n_labels} labels")
    # States rise along the path: label u is on from its own state to the next blank's.
    frames = np.searchsorted(states, np.arange(1, 2 * n_labels + 1))
    starts, ends = frames[::2], frames[1::2]
    return (
        tuple(zip(starts.tolist(), ends.tolist(), strict=True)),
        confidences(log_probs, emits[states], starts, ends),
        float(log_prob),
    )


def ctc_align_words(
    log_probs: np.ndarray,
    spellings: Sequence[Sequence[Sequence[int]]],
    separators: Sequence[int] = (),
    required: bool = False,
    current: Frames | None = None,
) -> tuple[tuple[int, ...], Spans, Spans, tuple[float, ...], float]:
    """Align words that may be spelled in several ways, by the best path over all of them.

    Args:
        log_probs: (T, V) natural logarithms of one utterance, blank 0.
        spellings: for each word, the label sequences that spell it.
        separators: labels one of which may stand before, between and after words.
        required: one must stand between two words.
        current: the first and the last frame (W + 1,) in which the first w words, and no more, may
            have been said in full.

    Returns:
        labels: as spoken, separators included. word_spans: (first, last + 1) positions in
        ``labels`` of each word. spans, confidences, log_prob: as `ctc_align`.

    Raises:
        InputError: no path fits the words into the frames.
    """
    log_probs = checked(log_probs)
    # Two states for each place of a label: the label itself (odd) and the blank after it; state 0
    # is the blank at the start. `ends` are the label states that may come last so far.
    emits, word_of, before = [BLANK], [-1], [[0]]
    words_before, words_after = [0], [0]

    def spell(labels: Sequence[int], word: int, ends: list[int], done: int) -> int:
        """Add a chain of labels after any of ``ends``, in all ``done`` words; return its end."""
        for label in labels:
            state = len(emits)
            arcs = [state, *([0] if 0 in ends else [])]
            for end in ends:
                if end:
                    arcs += [end + 1] if emits[end] == label else [end + 1, end]
            emits.extend((label, BLANK))
            word_of.extend((word, -1))
            before.extend((arcs, [state + 1, state]))
            words_before.extend([done - (word >= 0)] * 2)
            words_after.extend([done] * 2)
            ends = [state]
        return ends[0]

    ends = [0, *(spell([s], -1, [0], 0) for s in separators)]
    for word, choices in enumerate(spellings):
        said = [spell(labels, word, ends, word + 1) for labels in choices]
        between = [spell([s], -1, said, word + 1) for s in separators]
        last = word == len(spellings) - 1
        ends = between if required and not last else said + between
    start = np.array([0 in arcs for arcs in before])
    final = np.zeros(len(emits), bool)
    for end in ends:
        final[[end, end + 1] if end else [0]] = True
    if len(log_probs) == 0 and 0 in ends:
        return (), (), (), (), 0.0
    columns = np.array(emits, np.int32)
    offsets = np.append(0, np.cumsum([len(arcs) for arcs in before]))
    predecessors = np.array([state for arcs in before for state in arcs])
    log_prob = -np.inf
    if len(log_probs):
        band = _band(len(log_probs), np.array(words_before), np.array(words_after), current)
        states, log_prob = best_path(log_probs, columns, offsets, predecessors, start, final, *band)
    if log_prob == -np.inf:
        raise InputError(f"no path through {len(log_probs)} frames gives {len(spellings)} words")
    first = np.flatnonzero(np.diff(states, prepend=-1))
    ends_at = np.append(first[1:], len(states))
    spoken = states[first] % 2 == 1
    starts, ends_at, said_states = first[spoken], ends_at[spoken], states[first[spoken]]
    owner = np.array(word_of)[said_states]
    word_spans = tuple(
        (int(places[0]), int(places[-1]) + 1)
        for places in (np.flatnonzero(owner == word) for word in range(len(spellings)))
    )
    return (
        tuple(columns[said_states].tolist()),
        word_spans,
        tuple(zip(starts.tolist(), ends_at.tolist(), strict=True)),
        confidences(log_probs, columns[states], starts, ends_at),
        float(log_prob),
    )


def _band(
    n_frames: int,
    since: NDArray[np.integer],
    until: NDArray[np.integer],
    current: Frames | None,
) -> Frames:
    """Return the first and the last state (T,) that may be active in each frame.

    State s may be active from when ``since[s]`` units are said to when ``until[s]`` are.
    """
    if current is None:
        return np.zeros(n_frames, np.int64), np.full(n_frames, len(since) - 1)
    frames = np.arange(n_frames)
    begin, end = current[0][since], current[1][until]
    # Widened where needed, so that both only rise.
    first = np.searchsorted(np.maximum.accumulate(end), frames)
    begin = np.minimum.accumulate(begin[::-1])[::-1]
    return first, np.searchsorted(begin, frames, side="right") - 1


@njit(cache=True, nogil=True)
def best_path(  # type: ignore[no-untyped-def]
    log_probs, emits, offsets, predecessors, start, final, lowest, highest
):
    """Viterbi through a graph of S states.

    Args:
        log_probs: (T, V), T >= 1.
        emits: (S,) the column that each state emits.
        offsets, predecessors: the states before s are predecessors[offsets[s] : offsets[s + 1]];
            earlier ones win ties.
        start, final: (S,) the states in which a path may begin and end.
        lowest, highest: (T,) the states considered in each frame; neither ever falls.

    Returns:
        The state of each frame (T,) and the log-probability; -inf where there is no path.
    """
    n_frames, n_states = len(log_probs), len(emits)
    row = np.zeros(n_frames + 1, np.int64)
    for t in range(n_frames):
        row[t + 1] = row[t] + highest[t] - lowest[t] + 1
    back = np.zeros(row[n_frames], np.int16)
    score = np.full(n_states, -np.inf)
    for s in range(lowest[0], highest[0] + 1):
        if start[s]:
            score[s] = log_probs[0, emits[s]]
    before = np.empty(n_states)
    for t in range(1, n_frames):
        before, score = score, before
        low, high = lowest[t - 1], highest[t - 1]
        for s in range(lowest[t], highest[t] + 1):
            best, arc = -np.inf, 0
            for edge in range(offsets[s], offsets[s + 1]):
                p = predecessors[edge]
                if low <= p <= high and before[p] > best:
                    best, arc = before[p], edge - offsets[s]
            score[s] = best + log_probs[t, emits[s]]
            back[row[t] + s - lowest[t]] = arc
    best, state = -np.inf, 0
    for s in range(lowest[n_frames - 1], highest[n_frames - 1] + 1):
        if final[s] and score[s] > best:
            best, state = score[s], s
    path = np.empty(n_frames, np.int32)
    if best > -np.inf:
        for t in range(n_frames - 1, -1, -1):
            path[t] = state
            if t:
                state = predecessors[offsets[state] + back[row[t] + state - lowest[t]]]
    return path, best
