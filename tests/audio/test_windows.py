"""Recordings cut into windows and put together again: nothing lost, nothing twice."""

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.audio.windows import Joiner, WindowConfig, best_join, windows

RATE, STEP = 8000, 240
CONTEXT = 5  # 0.15 s in frames of 30 ms


def noise(seconds, level=0.1, seed=0):
    rng = np.random.default_rng(seed)
    return (level * rng.standard_normal(int(seconds * RATE))).astype(np.float32)


def cut(samples, config=WindowConfig(), block=7919):
    blocks = (samples[i : i + block] for i in range(0, len(samples), block))
    return list(windows(blocks, RATE, STEP, config))


def assert_of(found, samples):
    """Each window holds the samples of its place."""
    for window in found:
        begin = window.first * STEP
        assert (window.waveform == samples[begin : begin + len(window.waveform)]).all()


def test_an_utterance_is_one_window():
    for seconds in (1 / RATE, 0.01, 3.0, 29.9):
        samples = noise(seconds)
        (window,) = cut(samples)
        assert window.first == 0
        assert (window.waveform == samples).all()


@settings(max_examples=25, deadline=None)
@given(
    seconds=st.floats(31, 90),
    block=st.integers(100, 100_000),
    longest=st.floats(1, 40),
    context=st.floats(0, 0.5),
    seed=st.integers(0, 9),
)
def test_windows_cover_everything_and_overlap_by_their_contexts(
    seconds, block, longest, context, seed
):
    samples = noise(seconds, seed=seed)
    config = WindowConfig(longest_s=longest, context_s=context)
    found = cut(samples, config, block)
    assert_of(found, samples)
    n_context = max(1, round(context * RATE / STEP))
    assert found[0].first == 0
    assert found[-1].first * STEP + len(found[-1].waveform) == len(samples)
    for one, other in pairwise(found):
        shared = one.first * STEP + len(one.waveform) - other.first * STEP
        assert 0 < shared <= 2 * n_context * STEP
        length_s = (other.first - one.first) * STEP / RATE
        assert length_s <= longest + 2 * (n_context + 1) * STEP / RATE


def test_cuts_lie_in_the_quietest_places():
    samples = noise(60)
    pauses = np.arange(2.5, 60, 3)
    for pause in pauses:
        samples[int(pause * RATE) : int((pause + 0.3) * RATE)] *= 0.1
    starts = [(w.first + CONTEXT) * STEP / RATE for w in cut(samples)[1:]]
    assert all(min(abs(start - pauses - 0.15)) < 0.15 for start in starts)


def test_long_silence_is_skipped_unless_told_otherwise():
    speech = noise(8)
    offset = 0.02  # as cheap sound cards have; it is no sound
    silence = noise(25, 1e-4) + np.float32(offset)
    samples = np.concatenate([silence, speech, silence, speech, silence])
    found = cut(samples)
    assert_of(found, samples)
    heard = np.zeros(len(samples), bool)
    for window in found:
        begin = window.first * STEP
        heard[begin : begin + len(window.waveform)] = True
    loud = np.repeat([False, True, False, True, False], [len(silence), len(speech)] * 2 + [200_000])
    assert heard[loud].all()
    # The first silence is not known to be one until something louder has come.
    assert heard.sum() < loud.sum() + 31 * RATE
    assert heard[len(silence) + len(speech) :].sum() < len(speech) + 6 * RATE
    everything = cut(samples, WindowConfig(skip_silence=False))
    assert everything[-1].first * STEP + len(everything[-1].waveform) == len(samples)
    assert all(
        other.first * STEP <= one.first * STEP + len(one.waveform)
        for one, other in pairwise(everything)
    )


def test_steady_noise_is_no_silence_but_digital_silence_is():
    assert len(cut(noise(60, 1e-3))) > 8
    assert cut(np.zeros(60 * RATE, np.float32)) == []
    assert len(cut(np.zeros(20 * RATE, np.float32))) == 1


def test_memory_does_not_grow_with_length():
    def blocks():
        for i in range(120):
            yield noise(10, seed=i % 3)

    tracemalloc.start()
    for _ in windows(blocks(), RATE, STEP, WindowConfig()):
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8e6  # of 38e6 in all


def posteriors(n_frames, n_labels=5, seed=0, blank=None):
    logits = 3 * np.random.default_rng(seed).standard_normal((n_frames, n_labels))
    if blank is not None:
        logits[blank, 0] += 30
    return (logits - np.log(np.exp(logits).sum(1, keepdims=True))).astype(np.float32)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(12, 400), st.integers(1, 11)), min_size=1, max_size=30))
def test_slices_of_one_sequence_are_joined_to_it(spans):
    starts = np.cumsum([0, *(length for length, _ in spans)])
    whole = posteriors(int(starts[-1]) + 12)
    joiner = Joiner([0], 0.03)
    found = []
    for start, end, (_, shared) in zip(starts, starts[1:], spans, strict=False):
        found += joiner.add(int(start), whole[start : end + shared])
    last = end + shared
    found += joiner.finish()
    assert found[0].first == 0
    assert (np.concatenate([s.log_probs for s in found]) == whole[:last]).all()
    at = 0
    for stretch in found:
        assert stretch.first == at
        at += len(stretch.log_probs)
        assert len(stretch.log_probs) * 0.03 < 60 + 13
    assert joiner.finish() == []


def test_a_gap_ends_a_sequence_and_so_does_a_pause():
    pause = np.zeros(2000, bool)
    pause[800:830] = True
    whole = posteriors(2000, blank=pause)
    joiner = Joiner([0], 0.03)
    assert joiner.add(0, whole[:200]) == []
    (first,) = joiner.add(300, whole[300:500])
    assert (first.first, len(first.log_probs)) == (0, 200)
    assert joiner.add(490, whole[490:820]) == []
    (second,) = joiner.add(810, whole[810:1000])
    assert second.first == 300
    assert 812 <= 300 + len(second.log_probs) <= 818
    (third,) = joiner.finish()
    assert third.first == 300 + len(second.log_probs)


def test_windows_are_joined_where_they_agree():
    one, other = posteriors(12, seed=1), posteriors(12, seed=2)
    other[4:7] = one[4:7]
    assert best_join(one, other) == 5
    assert best_join(one[:1], other[:1]) == 0


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_last_window_within_the_overlap(n):
    whole = posteriors(40)
    joiner = Joiner([0], 0.03)
    joiner.add(0, whole[:36])
    joiner.add(30, whole[30 : 36 + n])
    (stretch,) = joiner.finish()
    assert (stretch.log_probs == whole[: 36 + n]).all()
