"""Normalisation by what was heard until then."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.audio.features import (
    DIGITAL_SILENCE_DB,
    NEPER_PER_DB,
    STEADY_FRAMES,
    FeatureConfig,
    LogMel,
    Statistics,
)
from asr.audio.normalize import (
    PRIOR_FRAMES,
    PRIOR_LEVEL_FRAMES,
    WINDOW,
    forget,
    normalize,
    normalize_on,
    nothing_heard,
    renew,
)

N_MELS = 4
CONFIG = FeatureConfig(n_mels=N_MELS, normalize="online")
ALL_FRAMES = FeatureConfig(n_mels=N_MELS, normalize="online", ignore_silence=False)
PRIOR = Statistics(np.float32([-4, -3, -2, -3]), np.float32([2, 1, 2, 1]))


def spoken(n_frames: int, level: float = -3.0, seed: int = 0) -> np.ndarray:
    """Log-mel that varies as speech does."""
    draw = np.random.default_rng(seed)
    loud = 1.5 * draw.standard_normal((n_frames, 1))
    return (level + loud + draw.standard_normal((n_frames, N_MELS))).astype(np.float32)


def constant(n_frames: int, value: float) -> np.ndarray:
    return np.full((n_frames, N_MELS), value, np.float32)


@pytest.mark.parametrize("n_frames", [1, 50, 700, 1500])
def test_the_mean_is_of_the_window_and_of_the_prior_while_it_fills(n_frames: int) -> None:
    x = spoken(n_frames)
    found = normalize(x, PRIOR, ALL_FRAMES)
    for t in {0, n_frames // 2, n_frames - 1}:
        window = x[max(0, t + 1 - WINDOW) : t + 1].astype(float)
        n, prior = len(window), PRIOR.mean.astype(float)
        n_prior = min(PRIOR_FRAMES, WINDOW - n)
        mean = (window.sum(0) + n_prior * prior) / (n + n_prior)
        n_prior = min(PRIOR_LEVEL_FRAMES, WINDOW - n)
        level = (window.sum(0).mean() + n_prior * prior.mean()) / (n + n_prior)
        mean += level - mean.mean()
        np.testing.assert_allclose(found[t], (x[t] - mean) / PRIOR.std, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 400), max_size=12), st.booleans())
def test_frames_in_any_pieces_are_normalised_alike(pieces: list[int], by_speech: bool) -> None:
    config = CONFIG if by_speech else ALL_FRAMES
    x = np.concatenate([spoken(400), constant(200, -20.0), spoken(500, seed=1)])
    heard, at, found = nothing_heard(PRIOR), 0, []
    for n in [*pieces, len(x)]:
        found.append(normalize_on(x[at : at + n], PRIOR, config, heard))
        at = min(at + n, len(x))
    assert np.array_equal(np.concatenate(found), normalize(x, PRIOR, config))


def test_silence_of_an_hour_leaves_what_speech_is_like() -> None:
    quiet = constant(360_000, DIGITAL_SILENCE_DB * NEPER_PER_DB - 1)
    drawn = np.random.default_rng(3).standard_normal((360_000, N_MELS))
    hiss = (0.1 * drawn - 12.0).astype(np.float32)
    said = spoken(300)
    for silence in (quiet, hiss):
        heard = nothing_heard(PRIOR)
        normalize_on(said, PRIOR, CONFIG, heard)
        mean = heard.sums / heard.counts[1]
        normalize_on(silence, PRIOR, CONFIG, heard)
        np.testing.assert_allclose(
            heard.sums / min(heard.counts[1], WINDOW), mean, atol=0.6, rtol=0
        )


def test_noise_that_swells_and_fades_is_none_of_it() -> None:
    config = FeatureConfig(normalize="online")
    draw, n = np.random.default_rng(0), 16_000 * 20
    loud = np.interp(np.arange(n), np.arange(0, n + 4000, 4000), draw.uniform(-8, 8, n // 4000 + 1))
    swelling = 3e-3 * 10 ** (loud / 20) * draw.standard_normal(n)
    x = LogMel(config)(swelling.astype(np.float32))
    # Its level varies as that of speech, but not which bands are louder than others.
    seconds = x.mean(axis=1)[:2000].reshape(-1, STEADY_FRAMES)
    assert np.median(seconds.std(axis=1)) > 1.5 * NEPER_PER_DB
    prior = Statistics(np.full(80, -7, np.float32), np.ones(80, np.float32))
    heard = nothing_heard(prior)
    normalize_on(x, prior, config, heard)
    assert heard.counts[1] < 1.2 * STEADY_FRAMES


def test_what_is_forgotten_normalises_nothing() -> None:
    heard = nothing_heard(PRIOR)
    normalize_on(spoken(700), PRIOR, CONFIG, heard)
    before = deepcopy(heard)
    normalize_on(spoken(1000, level=4.0, seed=1), PRIOR, CONFIG, heard)
    assert not np.allclose(heard.sums, before.sums, rtol=0.1)
    forget(heard, before)
    for part in ("window", "sums", "loudest"):
        assert np.array_equal(getattr(heard, part), getattr(before, part))
    assert heard.counts.tolist() == [1700, before.counts[1]]
    # What was kept is a copy, from which the stream goes on.
    normalize_on(spoken(10), PRIOR, CONFIG, heard)
    assert before.counts[1] < heard.counts[1]


def test_after_a_bang_speech_counts_again() -> None:
    heard = nothing_heard(PRIOR)
    normalize_on(constant(20, 6.0), PRIOR, CONFIG, heard)
    counted = int(heard.counts[1])
    normalize_on(spoken(100), PRIOR, CONFIG, heard)
    assert heard.counts[1] - counted < 20
    normalize_on(spoken(3000), PRIOR, CONFIG, heard)
    counted = int(heard.counts[1])
    normalize_on(spoken(100, seed=5), PRIOR, CONFIG, heard)
    assert heard.counts[1] - counted > 80


def test_normalised_features_end_below_speech_where_silence_is_ignored() -> None:
    x = spoken(100)
    x[50:] = -23.0
    assert normalize(x, PRIOR, CONFIG).min() == -3.0
    assert normalize(x, PRIOR, ALL_FRAMES).min() < -3.0


def test_what_was_heard_before_gives_way_as_fast_as_the_prior() -> None:
    zero = Statistics(np.zeros(N_MELS, np.float32), np.ones(N_MELS, np.float32))
    heard = nothing_heard(zero)
    normalize_on(constant(900, 3.0), zero, ALL_FRAMES, heard)
    renew(heard)
    after = normalize_on(constant(300, 5.0), zero, ALL_FRAMES, heard)
    # All bins are alike, so that the level says all: it has the shorter prior.
    n = np.arange(1, 301)
    mean = (3 * PRIOR_FRAMES + 5 * n) / (PRIOR_FRAMES + n + PRIOR_LEVEL_FRAMES)
    np.testing.assert_allclose(after[:, 0], 5 - mean, atol=1e-5)
    # Who was heard for a moment only is not taken for more.
    heard = nothing_heard(zero)
    normalize_on(constant(50, 3.0), zero, ALL_FRAMES, heard)
    renew(heard)
    assert heard.counts.tolist() == [50, 50]
