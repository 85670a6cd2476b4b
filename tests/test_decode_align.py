"""CTC alignment against torchaudio and against all paths."""

import itertools

import numpy as np
import pytest
import torch
import torchaudio
from decode_oracle import all_words, collapse, draw
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.decode.align import ctc_align, ctc_align_words
from asr.decode.lexicon import Lexicon
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
