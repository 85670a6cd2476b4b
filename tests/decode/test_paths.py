"""CTC alignment against torchaudio and against all paths."""

import itertools

import numpy as np
import pytest
import torch
import torchaudio
from decode_oracle import all_words, collapse, draw
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.decode.lexicon import Lexicon
from asr.decode.paths import (
    MOST_BACK,
    States,
    best_path,
    ctc_align,
    ctc_align_words,
    edges,
    frame_align_words,
)
from asr.errors import InputError


@settings(deadline=None, max_examples=80)
@given(seed=st.integers(0, 2**32), T=st.integers(1, 40), V=st.integers(2, 8), U=st.integers(1, 40))
def test_equals_torchaudio(seed, T, V, U):
    log_probs = draw(seed, T, V)
    labels = np.random.default_rng(seed).integers(1, V, size=min(T, U))
    if len(labels) + (labels[1:] == labels[:-1]).sum() > T:
        with pytest.raises(InputError, match=f"{T} frames are too few"):
            ctc_align(log_probs, labels.tolist())
        return
    spans, confidences, log_prob = ctc_align(log_probs, labels.tolist())
    path, scores = torchaudio.functional.forced_align(
        torch.from_numpy(log_probs)[None], torch.from_numpy(labels)[None]
    )
    found = np.zeros(T, np.int64)
    for (start, end), label in zip(spans, labels, strict=True):
        found[start:end] = label
    assert found.tolist() == path[0].tolist()
    assert log_prob == pytest.approx(scores.sum().item(), abs=1e-3)
    posteriors = np.exp(log_probs.astype(np.float64))
    for (start, end), label, confidence in zip(spans, labels, confidences, strict=True):
        assert confidence == pytest.approx(posteriors[start:end, label].mean())


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32), T=st.integers(1, 5), labels=st.lists(st.integers(1, 2), max_size=4)
)
def test_is_the_best_of_all_paths(seed, T, labels):
    log_probs = draw(seed, T, 3, holes=0.2)
    scores = [
        sum(float(log_probs[t, c]) for t, c in enumerate(path))
        for path in itertools.product(range(3), repeat=T)
        if collapse(path) == tuple(labels)
    ]
    best = max(scores, default=-np.inf)
    if best == -np.inf:
        with pytest.raises(InputError):
            ctc_align(log_probs, labels)
    else:
        assert ctc_align(log_probs, labels)[2] == pytest.approx(best, abs=1e-6)


def test_no_frames_and_wrong_labels():
    assert ctc_align(np.zeros((0, 3)), []) == ((), (), 0.0)
    with pytest.raises(InputError, match=r"1 \.\. 2"):
        ctc_align(draw(0, 4, 3), [1, 3])
    with pytest.raises(InputError, match=r"1 \.\. 2"):
        ctc_align(draw(0, 4, 3), [0])


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32),
    T=st.integers(1, 6),
    words=st.lists(st.integers(0, 1), max_size=3),
    required=st.booleans(),
)
def test_words_are_the_best_of_all_their_spellings(seed, T, words, required):
    lexicon = Lexicon.build([("a", (1,)), ("a", (1, 2)), ("b", (2, 1))], [3], required)
    log_probs = draw(seed, T, 4)
    best = -np.inf
    for path in itertools.product(range(4), repeat=T):
        if tuple(words) in all_words(collapse(path), lexicon):
            best = max(best, sum(float(log_probs[t, c]) for t, c in enumerate(path)))
    spellings = [lexicon.spellings[w] for w in words]
    if best == -np.inf:
        with pytest.raises(InputError, match="no path"):
            ctc_align_words(log_probs, spellings, [3], required)
        return
    labels, word_spans, spans, confidences, log_prob = ctc_align_words(
        log_probs, spellings, [3], required
    )
    assert log_prob == pytest.approx(best, abs=1e-6)
    assert len(labels) == len(spans) == len(confidences)
    for (first, last), spelled in zip(word_spans, spellings, strict=True):
        assert labels[first:last] in spelled
    # The labels alone have the same best path.
    assert ctc_align(log_probs, labels)[0] == spans


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    T=st.integers(1, 6),
    words=st.lists(st.integers(0, 1), max_size=3),
    required=st.booleans(),
    shortest=st.lists(st.integers(1, 2), min_size=4, max_size=4),
)
def test_frames_are_the_best_of_all_segmentations(seed, T, words, required, shortest):
    lexicon = Lexicon.build([("a", (1,)), ("a", (1, 2)), ("b", (2, 1))], [3], required)
    log_probs = draw(seed, T, 4)
    log_priors = np.log(np.array([0.1, 0.2, 0.3, 0.4]))
    spellings = [lexicon.spellings[w] for w in words]

    def best(shortest):
        found = -np.inf
        for n in range(1, T + 1):
            for labels in itertools.product((1, 2, 3), repeat=n):
                if tuple(words) not in all_words(labels, lexicon):
                    continue
                for cuts in itertools.combinations(range(1, T), n - 1):
                    ends = (0, *cuts, T)
                    lasts = np.diff(ends)
                    if all(last >= shortest[c] for last, c in zip(lasts, labels, strict=True)):
                        path = np.repeat(labels, lasts)
                        emission = log_probs - log_priors.astype(np.float32)
                        found = max(found, float(emission[np.arange(T), path].sum()))
        return found

    expected = best(shortest)
    if expected == -np.inf:
        expected = best([1, 1, 1, 1])
    arguments = (log_probs, spellings, [3], required, np.array(shortest), log_priors)
    if expected == -np.inf:
        with pytest.raises(InputError, match=f"no path through {T} frames"):
            frame_align_words(*arguments)
        return
    labels, word_spans, spans, confidences, log_prob = frame_align_words(*arguments)
    assert log_prob == pytest.approx(expected, abs=1e-4)
    assert [s for s, _ in spans] == [0, *(e for _, e in spans[:-1])]
    assert spans[-1][1] == T
    for (first, last), spelled in zip(word_spans, spellings, strict=True):
        assert labels[first:last] in spelled
    for (start, end), label, confidence in zip(spans, labels, confidences, strict=True):
        assert confidence == pytest.approx(np.exp(log_probs[start:end, label]).mean(), abs=1e-5)


@pytest.mark.parametrize("label", [-1, 0, 4, 10**9])
@pytest.mark.parametrize("align", [ctc_align_words, frame_align_words])
def test_labels_that_the_model_lacks_are_refused(align, label):
    for words, separators in (([((1, label),)], ()), ([((1,),)], (label,))):
        with pytest.raises(InputError, match=r"must lie in 1 \.\. 3, found"):
            align(draw(0, 9, 4), words, separators)


def test_durations_and_priors_of_another_model_are_refused():
    for wrong in ({"min_durations": np.ones(3, int)}, {"log_priors": np.zeros((4, 1))}):
        with pytest.raises(InputError, match="the model has 4"):
            frame_align_words(draw(0, 9, 4), [((1,),)], **wrong)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32), T=st.integers(20, 60), U=st.integers(1, 8))
def test_little_memory_gives_the_same_path(seed, T, U):
    log_probs = draw(seed, T, 5)
    emits = np.zeros(2 * U + 1, np.int32)
    emits[1::2] = np.random.default_rng(seed).integers(1, 5, size=U)
    arcs = [[s, s - 1] if s else [0] for s in range(len(emits))]
    graph = States(
        emits,
        np.append(0, np.cumsum([len(a) for a in arcs])),
        np.array([p for a in arcs for p in a]),
        np.arange(len(emits)) < 2,
        np.arange(len(emits)) >= len(emits) - 2,
    )
    # A narrowing band, as a beam search gives, with and without.
    for width in (len(emits), 5):
        middle = np.linspace(0, len(emits) - 1, T).astype(int)
        band = np.maximum(0, middle - width), np.minimum(len(emits) - 1, middle + width)
        path, log_prob = best_path(log_probs, graph, band, MOST_BACK)
        again, same = best_path(log_probs, graph, band, 0)
        assert log_prob == same
        assert path.tolist() == again.tolist()


def planted(*rows):
    """Log-posteriors whose rows are given for labels 1, 2, ...; the blank gets the rest."""
    labels = np.array(rows, float)
    return np.log(np.column_stack([1 - labels.sum(axis=1), labels])).astype(np.float32)


def test_edges_lie_where_the_labels_cross():
    # Label 1 in frame 1, label 2 in frame 5; between, their posteriors cross in the middle of 3.
    log_probs = planted(
        *[(0.001, 0.001), (0.9, 0.001), (0.08, 0.02), (0.04, 0.04), (0.02, 0.08), (0.001, 0.9)]
    )
    labels, spans = [1, 2], [(1, 2), (5, 6)]
    assert edges(log_probs, labels, spans) == pytest.approx(np.array([[0, 3.5], [3.5, 6]]))
    # A label grows by so much at most; a filler takes what is left.
    found = edges(log_probs, labels, spans, most=1)
    assert found == pytest.approx(np.array([[0, 3], [4, 6]]))
    found = edges(log_probs, labels, spans, fillers=[2], most=1)
    assert found == pytest.approx(np.array([[0, 3], [3, 6]]))
    # What would be less is no pause between them.
    found = edges(log_probs, labels, spans, most=1.1)
    assert found == pytest.approx(np.array([[0, 3.5], [3.5, 6]]))
    # Nothing tells where one label ends and the same begins.
    assert edges(log_probs, [1, 1], spans)[0, 1] == 3.5


def test_edges_lie_within_frames():
    # From 9 to 1 in favour of label 1 to 3 to 1 against it: log 9 : log 3 = 2 : 1.
    log_probs = planted((0.9, 0.1 - 1e-9), (0.25, 0.75 - 1e-9))
    expected = 0.5 + 2 / 3
    assert edges(log_probs, [1, 2], [(0, 1), (1, 2)])[0, 1] == pytest.approx(expected, abs=1e-6)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32), T=st.integers(1, 30), U=st.integers(1, 8), most=st.floats(0, 9))
def test_edges_are_in_order(seed, T, U, most):
    log_probs = draw(seed, T, 5, holes=0.1)
    labels = np.random.default_rng(seed).integers(1, 5, size=U).tolist()
    try:
        spans = ctc_align(log_probs, labels)[0]
    except InputError:
        return
    found = edges(log_probs, labels, spans, fillers=[1], most=most)
    flat = found.ravel().tolist()
    assert flat == sorted(flat)
    assert flat[0] >= 0
    assert flat[-1] <= T
    # Each label keeps the middle of what showed it.
    for (start, end), (from_, to) in zip(spans, found, strict=True):
        assert from_ <= start + 0.5
        assert to >= end - 0.5
    assert len(edges(log_probs, [], [])) == 0
