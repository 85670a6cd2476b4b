"""Viterbi decoding of framewise models: label bigrams, minimum durations, priors divided out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from asr.decode.config import DecoderConfig
from asr.decode.emission import checked, confidences
from asr.decode.paths import lasting_path, spelled
from asr.decode.search.kernels import find_child, hash_table, resized
from asr.errors import InputError
from asr.system.jit import compiled, inner
from asr.types import Hypothesis

#: What the scores and histories of all states may take.
MOST_BYTES = 1 << 30


@dataclass(frozen=True)
class Transitions:
    """How labels follow each other, in natural logarithms; label 0 (the blank's slot) never occurs.

    bigram: (V, V) log P(next | label). initial: (V,). final: (V,) log P(end | label).
    min_durations: (V,) int32 frames. log_priors: (V,) log of each label's share of the frames.

    A label may follow itself, as a new segment, where ``bigram[a, a]`` is finite.
    `estimate_transitions` makes it -inf: frame labels cannot show such a boundary.
    """

    bigram: NDArray[np.float64]
    initial: NDArray[np.float64]
    final: NDArray[np.float64]
    min_durations: NDArray[np.int32]
    log_priors: NDArray[np.float64]

    def __post_init__(self) -> None:
        V = len(self.initial)
        if V < 2:
            raise InputError(f"transitions need at least 2 labels, found {V}")
        for field in fields(self):
            shape = getattr(self, field.name).shape
            expected = (V, V) if field.name == "bigram" else (V,)
            if shape != expected:
                raise InputError(f"transitions: {field.name} must be {expected}, found {shape}")
            if np.isnan(getattr(self, field.name)).any():
                raise InputError(f"transitions: {field.name} holds NaN")
        if self.min_durations[1:].min() < 1:
            raise InputError("transitions: minimum durations must be 1 frame or more")
        if not np.isfinite(self.log_priors[1:]).all():
            raise InputError("transitions: log priors must be finite")

    def check(self, n_labels: int) -> None:
        """Refuse a model of another number of labels, with the blank's slot.

        Raises:
            InputError: it has more or fewer.
        """
        if len(self.initial) != n_labels:
            raise InputError(
                f"the transitions know {len(self.initial)} labels, the model has {n_labels}"
            )

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return the fields as plain arrays, to be stored."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Transitions:
        """Undo `to_arrays`.

        Raises:
            InputError: an array is missing or has the wrong shape.
        """
        missing = [field.name for field in fields(cls) if field.name not in arrays]
        if missing:
            raise InputError(f"transitions: no array {missing[0]!r}")
        return cls(**{field.name: arrays[field.name] for field in fields(cls)})


def estimate_transitions(
    frame_targets: Iterable[np.ndarray], V: int, duration_percentile: float = 5.0
) -> Transitions:
    """Count label runs, Witten-Bell smoothed (Witten & Bell 1991).

    Args:
        frame_targets: one array of label ids 1 .. V - 1 per utterance, one id a frame. Frames with
            a negative id are left out: the labels on both sides then meet.
        V: labels, with the blank's slot.
        duration_percentile: of a label's run lengths, rounded down, is its minimum duration.

    Raises:
        InputError: a label outside 1 .. V - 1, or no labelled frame at all.
    """
    frames = np.zeros(V)
    starts = np.zeros(V)
    follows = np.zeros((V, V + 1))  # column V is the end of the utterance
    durations: list[list[int]] = [[] for _ in range(V)]
    for n, targets in enumerate(frame_targets):
        labels = np.asarray(targets)
        labels = labels[labels >= 0]
        if len(labels) == 0:
            continue
        if labels.min() < 1 or labels.max() >= V:
            raise InputError(f"frame labels {n}: expected 1 .. {V - 1}, found {labels.min()} .. "
                             f"{labels.max()}")  # fmt: skip
        firsts = np.flatnonzero(np.diff(labels, prepend=-1))
        runs = labels[firsts]
        frames += np.bincount(labels, minlength=V)
        starts[runs[0]] += 1
        np.add.at(follows, (runs, np.append(runs[1:], V)), 1)
        for label, length in zip(runs, np.diff(np.append(firsts, len(labels))), strict=True):
            durations[label].append(int(length))
    if not frames.any():
        raise InputError("there is no labelled frame to estimate transitions from")

    # Every label's successors are smoothed towards how often each label (or the end) occurs after
    # others; the blank's slot and the label itself get nothing.
    anywhere = follows.sum(axis=0) + 1
    anywhere[0] = 0
    lower = np.tile(anywhere, (V, 1))
    np.fill_diagonal(lower, 0)
    lower /= lower.sum(axis=1, keepdims=True)
    kinds = np.maximum((follows > 0).sum(axis=1, keepdims=True), 1)
    total = follows.sum(axis=1, keepdims=True)
    smoothed = (follows + kinds * lower) / (total + kinds)
    smoothed[0] = 0
    first = starts + (starts > 0).sum() * anywhere[:V] / anywhere[:V].sum()
    prior = frames + 1
    prior[0] = 0
    with np.errstate(divide="ignore"):
        log_prior = np.log(prior / prior.sum())
        log_prior[0] = 0.0  # never used; kept finite
        return Transitions(
            np.log(smoothed[:, :V]),
            np.log(first / first.sum()),
            np.log(smoothed[:, V]),
            np.array(
                [max(1, int(np.percentile(d, duration_percentile))) if d else 1 for d in durations],
                np.int32,
            ),
            log_prior,
        )


def viterbi(
    log_probs: np.ndarray,
    transitions: Transitions,
    config: DecoderConfig = DecoderConfig(),
    nbest: int = 1,
) -> list[Hypothesis]:
    """Find the label sequences whose best segmentations score highest.

    A segmentation scores sum of (log p - prior_weight * log prior) over its frames (``acoustic``,
    see Bourlard & Morgan 1994) + transition_weight * (initial + bigrams + final) (``lm``), and each
    segment lasts its label's minimum duration at least. An utterance too short for that is decoded
    with minimum durations of one frame.

    Args:
        log_probs: (T, V) natural logarithms of one utterance; column 0 is not used.

    Returns:
        At most ``nbest`` hypotheses with different labels, best first: exactly the best
        ones, by list Viterbi over label histories (Seshadri & Sundberg 1994).

    Raises:
        InputError: a frame without a finite value, or no path at all.
    """
    log_probs = checked(log_probs)
    T, V = log_probs.shape
    transitions.check(V)
    if T == 0:
        return [Hypothesis((), (), (), 0.0, 0.0)]
    log_priors = transitions.log_priors.astype(np.float32)
    emission = log_probs - np.float32(config.prior_weight) * log_priors
    # Beyond T it is all the same how long a label lasts at least: it cannot be said.
    min_durations = np.minimum(transitions.min_durations, T + 1).astype(np.int64)
    needed = 16 * nbest * int(min_durations[1:].sum())
    if needed > MOST_BYTES:
        raise InputError(
            f"Viterbi: nbest={nbest} takes {needed / 1e9:.0f} GB with this model's minimum "
            f"durations; {MOST_BYTES * nbest // needed} is the most"
        )
    bigram, initial, final = weighted = tuple(
        _weighted(config.transition_weight, log_values)
        for log_values in (transitions.bigram, transitions.initial, transitions.final)
    )
    found = list_viterbi(emission, min_durations, weighted, nbest)
    if len(found[0]) == 0:
        min_durations = np.ones_like(min_durations)
        found = list_viterbi(emission, min_durations, weighted, nbest)
    if len(found[0]) == 0:
        raise InputError(f"no label sequence is possible over the {T} frames")

    hypotheses = []
    for labels, length in zip(*found, strict=True):
        sequence = labels[:length]
        graph = spelled([[sequence.tolist()]], (), False)
        nodes, _ = lasting_path(emission, graph, min_durations[sequence])
        path, starts = sequence[nodes], np.searchsorted(nodes, np.arange(length))
        ends = np.append(starts[1:], T)
        acoustic = float(emission[np.arange(T), path].sum(dtype=np.float64))
        lm = float(initial[sequence[0]] + bigram[sequence[:-1], sequence[1:]].sum())
        lm += float(final[sequence[-1]])
        hypotheses.append(
            Hypothesis(
                tuple(sequence.tolist()),
                tuple(zip(starts.tolist(), ends.tolist(), strict=True)),
                confidences(log_probs, path, starts, ends),
                acoustic + lm,
                acoustic,
                lm,
            )
        )
    return hypotheses


def _weighted(weight: float, log_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weight logarithms; what is impossible stays so at weight 0."""
    return np.where(np.isneginf(log_values), -np.inf, weight * np.maximum(log_values, -1e30))


@compiled
def list_viterbi(emission, min_durations, weighted, nbest):  # type: ignore[no-untyped-def]
    """Return labels (N, longest) and lengths (N,) of the N <= nbest best label sequences.

    weighted: bigram, initial and final. A state is (label, frames spent in it, up to the minimum
    duration). Each keeps its ``nbest`` best paths with different label histories. That is exact:
    what follows a state depends on the state alone, so a history worse than ``nbest`` others there
    is worse than ``nbest`` in the end. Histories are nodes of a tree found by hash, so equal ones
    have one id.
    """
    bigram, initial, final = weighted
    n_frames, n_labels = emission.shape
    first = np.zeros(n_labels + 1, np.int64)
    for c in range(n_labels):
        first[c + 1] = first[c] + (min_durations[c] if c else 0)
    n_states = first[n_labels]
    score = np.full((n_states, nbest), -np.inf)
    history = np.zeros((n_states, nbest), np.int64)
    enter = np.empty((n_labels, nbest))
    enter_from = np.empty((n_labels, nbest), np.int64)
    merged = np.empty(nbest), np.empty(nbest, np.int64)

    room = 1024
    parent = np.empty(room, np.int64)
    label = np.empty(room, np.int64)
    table = hash_table(parent, label, 0)
    parent[0], label[0] = -1, 0
    n_nodes = 1

    for t in range(n_frames):
        # 1. The best histories that may enter each label now.
        enter[:] = -np.inf
        for c in range(1, n_labels):
            if t == 0:
                enter[c, 0], enter_from[c, 0] = initial[c], 0
                continue
            for b in range(1, n_labels):
                last = first[b + 1] - 1
                gather(score, history, last, bigram[b, c], enter, enter_from, c)
        if n_nodes + n_labels * nbest > room:
            while n_nodes + n_labels * nbest > room:
                room *= 2
            parent, label = resized(parent, room), resized(label, room)
            table = hash_table(parent, label, n_nodes)
        for c in range(1, n_labels):
            for k in range(nbest):
                if enter[c, k] == -np.inf:
                    break
                at, node, mark = find_child(table, parent, label, enter_from[c, k], c)
                if node < 0:
                    node = n_nodes
                    n_nodes += 1
                    table[at] = mark + node
                    parent[node], label[node] = enter_from[c, k], c
                enter_from[c, k] = node

        # 2. Move on within each label; the last state also keeps its own paths.
        for c in range(1, n_labels):
            begin, last = first[c], first[c + 1] - 1
            move_on((score, history), begin, last, (enter, enter_from), c, merged)
            for k in range(nbest):
                for d in range(begin, last + 1):
                    score[d, k] += emission[t, c]

    best = np.full((1, nbest), -np.inf)
    best_history = np.zeros((1, nbest), np.int64)
    for c in range(1, n_labels):
        last = first[c + 1] - 1
        gather(score, history, last, final[c], best, best_history, 0)
    n_best = 0
    while n_best < nbest and best[0, n_best] > -np.inf:
        n_best += 1
    return labels_to(best_history[0, :n_best], parent, label)


@compiled
def labels_to(histories, parent, label):  # type: ignore[no-untyped-def]
    """Return labels (N, longest) and lengths (N,) of histories (N,), nodes of a tree."""
    lengths = np.zeros(len(histories), np.int64)
    longest = 0
    for n in range(len(histories)):
        v = histories[n]
        while v > 0:
            lengths[n] += 1
            v = parent[v]
        longest = max(longest, lengths[n])
    labels = np.zeros((len(histories), longest), np.int64)
    for n in range(len(histories)):
        v = histories[n]
        for u in range(lengths[n] - 1, -1, -1):
            labels[n, u] = label[v]
            v = parent[v]
    return labels, lengths


@inner
def gather(  # type: ignore[no-untyped-def]
    score, history, state, step, best, best_history, c
):
    """Sort the paths of a state, ``step`` added to their scores, into the best of row ``c``."""
    nbest = score.shape[1]
    for k in range(nbest):
        s = score[state, k] + step
        if s <= best[c, nbest - 1]:
            break
        at = nbest - 1
        while at > 0 and best[c, at - 1] < s:
            best[c, at], best_history[c, at] = best[c, at - 1], best_history[c, at - 1]
            at -= 1
        best[c, at], best_history[c, at] = s, history[state, k]


@inner
def move_on(paths, begin, last, entering, c, merged):  # type: ignore[no-untyped-def]
    """Move the paths of label ``c``, whose states are ``begin`` to ``last``, on by a state.

    paths, entering: scores and histories. Those that enter come into the first state; the last gets
    the best of its own and of those that come, by way of ``merged``.
    """
    (score, history), (enter, enter_from) = paths, entering
    merged_score, merged_history = merged
    nbest = score.shape[1]
    n = i = j = 0
    while n < nbest and (i < nbest or j < nbest):
        stay = score[last, i] if i < nbest else -np.inf
        come = -np.inf
        if j < nbest:
            come = score[last - 1, j] if last > begin else enter[c, j]
        if stay == -np.inf and come == -np.inf:
            break
        if stay >= come:
            s, h = stay, history[last, i]
            i += 1
        else:
            s, h = come, history[last - 1, j] if last > begin else enter_from[c, j]
            j += 1
        known = False
        for m in range(n):
            known = known or merged_history[m] == h
        if not known:
            merged_score[n], merged_history[n] = s, h
            n += 1
    for k in range(nbest):
        for d in range(last - 1, begin, -1):
            score[d, k], history[d, k] = score[d - 1, k], history[d - 1, k]
        score[begin, k], history[begin, k] = enter[c, k], enter_from[c, k]
        score[last, k] = -np.inf
        if k < n:
            score[last, k], history[last, k] = merged_score[k], merged_history[k]
