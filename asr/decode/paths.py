"""Forced alignment: the best path through a graph of states that spell a known label sequence."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr.decode.emission import checked, confidences
from asr.errors import InputError
from asr.labels import BLANK
from asr.system.jit import compiled

Spans = tuple[tuple[int, int], ...]
Frames = tuple[NDArray[np.integer], NDArray[np.integer]]
WordAlignment = tuple[tuple[int, ...], Spans, Spans, tuple[float, ...], float]
#: Back-pointers (states x frames) kept at once; of longer paths some are computed twice.
MOST_BACK = 1 << 27
#: Stands for the start of the utterance among the nodes before a node.
BEGIN = -1


class States(NamedTuple):
    """A graph of S states, for compiled code.

    emits: (S,) the column that each state emits. The states before s are
    predecessors[offsets[s] : offsets[s + 1]]; earlier ones win ties. start, final: (S,) the states
    in which a path may begin and end.
    """

    emits: NDArray[np.int32]
    offsets: NDArray[np.int64]
    predecessors: NDArray[np.int64]
    start: NDArray[np.bool_]
    final: NDArray[np.bool_]


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
    if current is None:  # else a search has checked them
        log_probs = checked(log_probs)
    n_labels = len(labels)
    sequence = np.asarray(labels, np.int64).reshape(n_labels)
    _check_ids(labels, log_probs)
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
    band = band_of(len(log_probs), prefix, prefix, current)
    graph = States(emits, offsets, predecessors, start, final)
    states, log_prob = _path(log_probs, graph, band, f"the {n_labels} labels")
    # States rise along the path: label u is on from its own state to the next blank's.
    frames = np.searchsorted(states, np.arange(1, 2 * n_labels + 1))
    starts, ends = frames[::2], frames[1::2]
    return (
        tuple(zip(starts.tolist(), ends.tolist(), strict=True)),
        confidences(log_probs, emits[states], starts, ends),
        log_prob,
    )


def _check_ids(labels: Sequence[int] | NDArray[np.integer], log_probs: np.ndarray) -> None:
    least, most = min(labels, default=1), max(labels, default=1)
    if least <= BLANK or most >= log_probs.shape[1]:
        raise InputError(
            f"labels to align must lie in 1 .. {log_probs.shape[1] - 1}, found {least} .. {most}"
        )


def ctc_align_words(
    log_probs: np.ndarray,
    spellings: Sequence[Sequence[Sequence[int]] | frozenset[int]],
    separators: Sequence[int] = (),
    required: bool = False,
    current: Frames | None = None,
) -> WordAlignment:
    """Align words that may be spelled in several ways, by the best CTC path over all of them.

    Args:
        log_probs: (T, V) natural logarithms of one utterance, blank 0.
        spellings: for each word, the label sequences that spell it; a set stands for any sequence
            of its labels.
        separators: labels one of which may stand before, between and after words.
        required: one must stand between two words.
        current: the first and the last frame (W + 1,) in which the first w words, and no more, may
            have been said in full.

    Returns:
        labels: as spoken, separators included. word_spans: (first, last + 1) positions in
        ``labels`` of each word. spans, confidences, log_prob: as `ctc_align`.

    Raises:
        InputError: a label outside the inventory, or no path fits the words into the frames.
    """
    log_probs = checked(log_probs)
    graph = spelled(spellings, separators, required)
    _check_ids(graph.labels, log_probs)
    # Node n has two states: its label (2n + 1) and the blank after it; state 0 is the first blank.
    emits = np.full(2 * len(graph.labels) + 1, BLANK, np.int32)
    emits[1::2] = graph.labels
    arcs = [[0]]
    for node, label in enumerate(graph.labels):
        state = 2 * node + 1
        arcs.append([state])
        for p in graph.before[node]:
            if p == BEGIN:
                arcs[-1].append(0)
            elif graph.labels[p] == label:
                arcs[-1].append(2 * p + 2)
            else:
                arcs[-1] += [2 * p + 2, 2 * p + 1]
        arcs.append([state + 1, state])
    start = np.array([0 in before for before in arcs])
    final = np.zeros(len(emits), bool)
    for p in graph.ends:
        final[[0] if p == BEGIN else [2 * p + 1, 2 * p + 2]] = True
    if len(log_probs) == 0 and BEGIN in graph.ends:
        return (), (), (), (), 0.0
    after = np.array([0, *graph.words_done])[np.arange(1, len(emits) + 1) // 2]
    before = np.array([0, *graph.words_begun])[np.arange(1, len(emits) + 1) // 2]
    band = band_of(len(log_probs), before, after, current)
    offsets = np.append(0, np.cumsum([len(before) for before in arcs]))
    predecessors = np.array([p for before in arcs for p in before], np.int64)
    states, log_prob = _path(log_probs, States(emits, offsets, predecessors, start, final), band)
    nodes = np.where(states % 2 == 1, states // 2, BEGIN)
    return _said(log_probs, graph, nodes, log_prob, len(spellings))


def frame_align_words(
    log_probs: np.ndarray,
    spellings: Sequence[Sequence[Sequence[int]]],
    separators: Sequence[int] = (),
    required: bool = False,
    min_durations: NDArray[np.integer] | None = None,
    log_priors: NDArray[np.floating] | None = None,
) -> WordAlignment:
    """Align words to the output of a framewise model: every frame belongs to a label.

    Arguments, results and errors are those of `ctc_align_words`, and besides:

    Args:
        min_durations: (V,) frames that a label lasts at least; where the words do not fit into the
            frames so, one frame.
        log_priors: (V,) subtracted from the log-probabilities (Bourlard & Morgan 1994), with their
            weight. ``log_prob`` contains them, confidences do not.
    """
    log_probs = checked(log_probs)
    graph = spelled(spellings, separators, required)
    _check_ids(graph.labels, log_probs)
    for name, values in (("minimum durations", min_durations), ("priors", log_priors)):
        if values is not None and values.shape != log_probs.shape[1:]:
            raise InputError(f"{name} of shape {values.shape}, the model has {log_probs.shape[1]}")
    if len(log_probs) == 0 and BEGIN in graph.ends:
        return (), (), (), (), 0.0
    emission = log_probs if log_priors is None else log_probs - log_priors.astype(np.float32)
    shortest = np.ones(len(graph.labels), np.int64)
    durations = shortest
    if min_durations is not None:
        longest = len(log_probs) + 1  # what lasts longer cannot be said either
        durations = np.minimum(min_durations, longest)[graph.labels].astype(np.int64)
    try:
        nodes, log_prob = lasting_path(emission, graph, durations)
    except InputError:
        nodes, log_prob = lasting_path(emission, graph, shortest)
    return _said(log_probs, graph, nodes, log_prob, len(spellings))


class Graph(NamedTuple):
    """The label sequences that spell some words; node n says ``labels[n]``.

    word: which word a node belongs to, -1 for a separator. words_begun, words_done: words said in
    full before the node, and before the next. before: the nodes (`BEGIN`: none) that may come
    right before. ends: those that may be last.
    """

    labels: list[int]
    word: list[int]
    words_begun: list[int]
    words_done: list[int]
    before: list[list[int]]
    ends: list[int]


def spelled(
    spellings: Sequence[Sequence[Sequence[int]] | frozenset[int]],
    separators: Sequence[int],
    required: bool,
) -> Graph:
    """Return the graph of all that `ctc_align_words` allows to be said."""
    graph = Graph([], [], [], [], [], [BEGIN])

    def say(labels: Sequence[int], word: int, ends: list[int], done: int) -> int:
        """Add a chain of labels after any of ``ends``; return its last node."""
        for label in labels:
            graph.labels.append(label)
            graph.word.append(word)
            graph.words_begun.append(done - (word >= 0))
            graph.words_done.append(done)
            graph.before.append(ends)
            ends = [len(graph.labels) - 1]
        return ends[0]

    ends = [BEGIN, *(say([s], -1, [BEGIN], 0) for s in separators)]
    for word, choices in enumerate(spellings):
        if isinstance(choices, frozenset):
            said = [say([label], word, ends, word + 1) for label in sorted(choices)]
            for node in said:
                graph.before[node] = [*ends, *said]
        else:
            said = [say(labels, word, ends, word + 1) for labels in choices]
        between = [say([s], -1, said, word + 1) for s in separators]
        last = word == len(spellings) - 1
        ends = between if required and not last else said + between
    return graph._replace(ends=ends)


def lasting_path(
    emission: NDArray[np.float32], graph: Graph, durations: NDArray[np.int64]
) -> tuple[NDArray[np.integer], float]:
    """Return the node (T,) of each frame where nodes last ``durations`` frames at least.

    Raises:
        InputError: the frames are too few.
    """
    # A node is a chain of as many states as it lasts at least, the last with a loop: a state comes
    # after the one before it, a node's first after the last of other nodes.
    owner = np.repeat(np.arange(len(durations)), durations)
    stops = np.cumsum(durations)
    lasts, firsts = stops - 1, stops - durations
    begins = np.zeros(len(owner), bool)
    begins[firsts] = True
    others = [lasts[p] for before in graph.before for p in before if p != BEGIN]
    counts = np.ones(len(owner), np.int64)
    counts[firsts] = [sum(p != BEGIN for p in before) for before in graph.before]
    counts[lasts] += 1
    offsets = np.append(0, np.cumsum(counts))
    predecessors = np.repeat(np.arange(len(owner)), counts) - 1
    enters = np.repeat(begins, counts)
    loops = offsets[stops] - 1
    enters[loops] = False
    predecessors[enters], predecessors[loops] = others, lasts
    start, final = np.zeros(len(owner), bool), np.zeros(len(owner), bool)
    start[firsts] = [BEGIN in before for before in graph.before]
    final[[lasts[p] for p in graph.ends if p != BEGIN]] = True
    emits = np.array(graph.labels, np.int32)[owner]
    everything = np.zeros(len(owner), int)
    band = band_of(len(emission), everything, everything, None)
    states, log_prob = _path(emission, States(emits, offsets, predecessors, start, final), band)
    return owner[states], log_prob


def _path(
    log_probs: NDArray[np.float32],
    graph: States,
    band: Frames,
    what: str = "these words: too short for the text",
) -> tuple[NDArray[np.integer], float]:
    """`best_path`, refused where there is none."""
    log_prob = -np.inf
    if len(log_probs) and len(graph.emits):
        states, log_prob = best_path(log_probs, graph, band, MOST_BACK)
    if log_prob == -np.inf:
        raise InputError(f"no path through {len(log_probs)} frames gives {what}")
    return states, float(log_prob)


def _said(
    log_probs: NDArray[np.float32],
    graph: Graph,
    nodes: NDArray[np.integer],
    log_prob: float,
    n_words: int,
) -> WordAlignment:
    """Read an alignment from the node (T,) of each frame, `BEGIN` for blank."""
    first = np.flatnonzero(np.diff(nodes, prepend=BEGIN - 1))
    last = np.append(first[1:], len(nodes))
    spoken = nodes[first] != BEGIN
    starts, ends, said = first[spoken], last[spoken], nodes[first[spoken]]
    columns = np.array([*graph.labels, BLANK])  # BEGIN is the last one's index
    places = np.flatnonzero(np.array(graph.word, int)[said] >= 0)
    words = np.array(graph.word, int)[said[places]]
    numbers = np.arange(n_words)
    begin = places[np.searchsorted(words, numbers)]
    end = places[np.searchsorted(words, numbers, side="right") - 1] + 1
    return (
        tuple(columns[said].tolist()),
        tuple(zip(begin.tolist(), end.tolist(), strict=True)),
        tuple(zip(starts.tolist(), ends.tolist(), strict=True)),
        confidences(log_probs, columns[nodes], starts, ends),
        log_prob,
    )


def edges(
    log_probs: np.ndarray,
    labels: Sequence[int],
    spans: Sequence[tuple[int, int]],
    fillers: Collection[int] = (),
    most: float = math.inf,
) -> NDArray[np.float64]:
    """Place the edges of aligned labels between frames.

    CTC marks a label by a few frames, mostly one, and blanks between; two neighbours meet where the
    one's log-probabilities, summed over the frames since its last, stop to exceed the other's.
    Within a frame, the edge lies where the line through both their differences crosses zero.

    Args:
        log_probs: (T, V) natural logarithms (with priors divided out, if they were to align).
        labels, spans: U ids and (start, end) frames, as `ctc_align` and `frame_align_words` return.
        fillers: silences and spaces, which take what their neighbours leave.
        most: frames that another label may grow by beyond its span, on either side. Labels that
            would then lie less than ``most`` apart meet all the same: that is no pause.

    Returns:
        (U, 2) start and end of each label in frames and fractions of frames.
    """
    log_probs = np.maximum(log_probs, -1e4)  # differences of -inf would be NaN
    grows = [math.inf if label in fillers else most for label in labels]
    found = np.array(spans, np.float64).reshape(-1, 2)
    for n, (i, j) in enumerate(pairwise(labels)):
        last, first = spans[n][1] - 1, spans[n + 1][0]
        if i == j:
            edge = (last + 1 + first) / 2
        else:
            better = (log_probs[last : first + 1, i] - log_probs[last : first + 1, j]).astype(float)
            k = int(np.append(0.0, np.cumsum(better[1:-1])).argmax())
            before, after = better[k], better[k + 1]
            crosses = before >= 0 >= after and before > after
            within = before / (before - after) if crosses else 0.5
            edge = last + k + 0.5 + within
        end, start = min(edge, last + 1 + grows[n]), max(edge, first - grows[n + 1])
        if i in fillers or j in fillers:
            found[n, 1] = start if i in fillers else end
            found[n + 1, 0] = end if j in fillers else start
        else:
            found[n, 1], found[n + 1, 0] = (end, start) if start - end >= most else (edge, edge)
    if len(found):
        found[0, 0] = max(0.0, found[0, 0] - grows[0])
        found[-1, 1] = min(float(len(log_probs)), found[-1, 1] + grows[-1])
    return found


def band_of(
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


@compiled
def best_path(log_probs, graph, band, most_back):  # type: ignore[no-untyped-def]
    """Viterbi through a graph of states.

    Args:
        log_probs: (T, V), T >= 1.
        graph: `States`.
        band: the lowest and the highest state (T,) considered in each frame; neither ever falls.
        most_back: back-pointers kept at once. Where there are more, the frames are cut into about
            sqrt(T) blocks, only the scores before each are kept, and the back-pointers of all
            blocks but the last are computed a second time.

    Returns:
        The state of each frame (T,) and the log-probability; -inf where there is no path.
    """
    emits, offsets, predecessors, start, final = graph
    lowest, highest = band
    n_frames, n_states = len(log_probs), len(emits)
    row = np.zeros(n_frames + 1, np.int64)
    for t in range(n_frames):
        row[t + 1] = row[t] + highest[t] - lowest[t] + 1
    block = n_frames
    if row[n_frames] > most_back:
        block = int(np.ceil(np.sqrt(n_frames)))
    n_blocks = (n_frames + block - 1) // block
    room = 0
    for b in range(n_blocks):
        room = max(room, row[min(n_frames, (b + 1) * block)] - row[b * block])
    back = np.zeros(room, np.int16)
    kept = np.full((n_blocks, n_states), -np.inf)  # scores after the frame before each block
    path = np.empty(n_frames, np.int32)
    best, state = -np.inf, 0
    # Forward through all blocks, then back from the last but one, whose back-pointers are gone.
    for step in range(2 * n_blocks - 1):
        b = step if step < n_blocks else 2 * n_blocks - 2 - step
        begin, end = b * block, min(n_frames, (b + 1) * block)
        score, before = kept[b].copy(), np.full(n_states, -np.inf)
        for t in range(begin, end):
            before, score = score, before
            # States only leave the band for good: no score from two frames ago may stay.
            if t >= 2:
                score[lowest[t - 2] : lowest[t]] = -np.inf
            frame, pointers = log_probs[t], back[row[t] - row[begin] :]
            for s in range(lowest[t], highest[t] + 1):
                reached, arc = -np.inf, 0
                first = offsets[s]
                for edge in range(first, offsets[s + 1]):
                    came = before[predecessors[edge]]
                    if came > reached:
                        reached, arc = came, edge - first
                if t == 0 and start[s]:
                    reached = 0.0
                score[s] = reached + frame[emits[s]]
                pointers[s - lowest[t]] = arc
        if step < n_blocks - 1:
            for s in range(n_states):  # arrays assigned to slices compile slowly
                kept[b + 1, s] = score[s]
            continue
        if end == n_frames:
            for s in range(lowest[n_frames - 1], highest[n_frames - 1] + 1):
                if final[s] and score[s] > best:
                    best, state = score[s], s
            if best == -np.inf:
                break
        for t in range(end - 1, begin - 1, -1):
            path[t] = state
            if t:
                arc = back[row[t] - row[begin] + state - lowest[t]]
                state = predecessors[offsets[state] + arc]
    return path, best
