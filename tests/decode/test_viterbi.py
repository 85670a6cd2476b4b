"""Framewise Viterbi against all segmentations."""

import dataclasses
import math

import numpy as np
import pytest
from decode_oracle import draw
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.decode.config import DecoderConfig
from asr.decode.viterbi import Transitions, estimate_transitions, viterbi
from asr.errors import InputError


def all_segmentations(log_probs, transitions, options):
    """[(best score, labels)] of all label sequences, best first."""
    T, V = log_probs.shape
    best = {}

    def go(t, labels, score):
        if t == T:
            score += options.transition_weight * transitions.final[labels[-1]]
            best[labels] = max(best.get(labels, -math.inf), score)
            return
        for c in range(1, V):
            step = transitions.bigram[labels[-1], c] if labels else transitions.initial[c]
            step = options.transition_weight * step
            for end in range(t + int(transitions.min_durations[c]), T + 1):
                frames = log_probs[t:end, c].sum(dtype=np.float64)
                prior = options.prior_weight * transitions.log_priors[c] * (end - t)
                go(end, (*labels, c), score + step + frames - prior)

    go(0, (), 0.0)
    return sorted(((s, y) for y, s in best.items() if s > -math.inf), reverse=True)


@settings(deadline=None, max_examples=80)
@given(
    seed=st.integers(0, 2**32),
    T=st.integers(1, 6),
    V=st.integers(2, 4),
    nbest=st.integers(1, 12),
    repeats=st.booleans(),
)
def test_nbest_equals_enumeration(seed, T, V, nbest, repeats):
    rng = np.random.default_rng(seed)
    transitions = estimate_transitions([rng.integers(1, V, size=9) for _ in range(3)], V)
    bigram = transitions.bigram.copy()
    if repeats:
        np.fill_diagonal(bigram, -0.7)
    durations = rng.integers(1, 4, size=V).astype(np.int32)
    transitions = dataclasses.replace(transitions, bigram=bigram, min_durations=durations)
    log_probs = draw(seed, T, V, spread=2.0)
    options = DecoderConfig("viterbi", prior_weight=0.4, transition_weight=0.8)
    expected = all_segmentations(log_probs, transitions, options)
    if not expected:
        transitions = dataclasses.replace(transitions, min_durations=np.ones(V, np.int32))
        expected = all_segmentations(log_probs, transitions, options)
    found = viterbi(log_probs, transitions, options, nbest)
    assert len(found) == min(nbest, len(expected))
    assert len({h.labels for h in found}) == len(found)
    for h, (score, _) in zip(found, expected, strict=False):
        assert h.score == pytest.approx(score, abs=1e-4)
        assert h.score == pytest.approx({y: s for s, y in expected}[h.labels], abs=1e-4)
        assert h.score == pytest.approx(h.acoustic + h.lm + h.bonus)
        assert h.spans[0][0] == 0
        assert h.spans[-1][1] == T
        assert all(a[1] == b[0] for a, b in zip(h.spans, h.spans[1:], strict=False))
        for label, (start, end) in zip(h.labels, h.spans, strict=True):
            assert end - start >= transitions.min_durations[label]


def test_estimate_by_hand():
    ignored = -100
    targets = [np.array([1, 1, 1, 2, ignored, 2, 1]), np.array([ignored]), np.array([3, 3])]
    t = estimate_transitions(targets, 4, duration_percentile=50)
    assert t.min_durations.tolist() == [1, 2, 2, 2]  # runs of 1: 3, 1; of 2: 2; of 3: 2
    # Runs 1 2 1 end, 3 end. Label 1 is followed by 2 and by the end, each once, of two kinds;
    # others are smoothed in by 1 + their occurrences after anything: 2: 2, 3: 1, end: 3.
    assert np.exp(t.bigram[1]) == pytest.approx([0, 0, (1 + 2 * 2 / 6) / 4, (0 + 2 * 1 / 6) / 4])
    assert math.exp(t.final[1]) == pytest.approx((1 + 2 * 3 / 6) / 4)
    assert np.exp(t.bigram[1:]).sum(axis=1) + np.exp(t.final[1:]) == pytest.approx(1)
    assert np.exp(t.initial).sum() == pytest.approx(1)
    assert np.exp(t.log_priors[1:]) == pytest.approx(np.array([5, 3, 3]) / 11)


def test_arrays_there_and_back():
    t = estimate_transitions([np.array([1, 2, 1])], 3)
    again = Transitions.from_arrays(t.to_arrays())
    for name, array in t.to_arrays().items():
        assert np.array_equal(array, again.to_arrays()[name])
    with pytest.raises(InputError, match="no array 'final'"):
        Transitions.from_arrays({k: v for k, v in t.to_arrays().items() if k != "final"})
    with pytest.raises(InputError, match=r"bigram must be \(3, 3\), found \(2, 3\)"):
        Transitions.from_arrays(t.to_arrays() | {"bigram": t.bigram[:2]})


def test_bad_input():
    t = estimate_transitions([np.array([1, 2, 1])], 3)
    with pytest.raises(InputError, match="know 3 labels, the model has 5"):
        viterbi(draw(0, 4, 5), t)
    with pytest.raises(InputError, match="know 3 labels, the model has 5"):
        t.check(5)
    with pytest.raises(InputError, match="final holds NaN"):
        dataclasses.replace(t, final=np.full(3, np.nan))
    endless = dataclasses.replace(t, min_durations=np.full(3, 2**31 - 1, np.int32))
    assert viterbi(draw(0, 4, 3), endless) == viterbi(draw(0, 4, 3), t)
    with pytest.raises(InputError, match=r"nbest=1000000000 takes 32 GB .* 33554432 is the most"):
        viterbi(draw(0, 4, 3), t, nbest=10**9)
    with pytest.raises(InputError, match=r"expected 1 \.\. 2"):
        estimate_transitions([np.array([1, 3])], 3)
    with pytest.raises(InputError, match="no labelled frame"):
        estimate_transitions([np.array([-1])], 3)
    assert viterbi(np.zeros((0, 3)), t)[0].labels == ()
    bad = draw(0, 4, 3)
    bad[2] = np.nan
    with pytest.raises(InputError, match="frame 2"):
        viterbi(bad, t)
