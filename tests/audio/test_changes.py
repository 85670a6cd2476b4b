"""Where the sound changes most, on planted signals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.audio.changes import change_s
from asr.recognize.times import NEAR_S, settled

RATE = 16_000


def tones(*spans, rate=RATE, noise=1e-3):
    """Tones of (Hz, until when); zero is silence."""
    n = round(spans[-1][1] * rate)
    at = np.arange(n) / rate
    waveform = noise * np.random.default_rng(1).standard_normal(n)
    since = 0.0
    for hertz, until in spans:
        inside = (since <= at) & (at < until)
        waveform[inside] += 0.3 * np.sin(2 * np.pi * hertz * at[inside]) * (hertz > 0)
        since = until
    return waveform.astype(np.float32)


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100])
@pytest.mark.parametrize("hertz", [(0, 500), (500, 0), (300, 2500), (1500, 1200)])
def test_the_change_is_found_within_a_window(rate, hertz):
    waveform = tones((hertz[0], 0.512), (hertz[1], 1.0), rate=rate)
    for since, until in ((0.46, 0.56), (0.49, 0.55), (0.5, 0.6)):
        assert change_s(waveform, rate, since, until) == pytest.approx(0.512, abs=0.006)


def test_a_stretch_too_short_to_be_cut_has_no_change():
    waveform = tones((500, 1.0))
    assert change_s(waveform, RATE, 0.5, 0.504) is None
    assert change_s(waveform, RATE, 2.0, 2.1) is None
    assert change_s(waveform[:10], RATE, 0.0, 0.1) is None


def test_boundaries_settle_where_the_sound_changes_and_gaps_stay_gaps():
    waveform = tones((0, 0.2), (400, 0.4), (2000, 0.6), (0, 1.0))
    times = settled([(0.17, 0.43), (0.43, 0.57)], waveform, RATE, 1.0)
    assert np.ravel(times) == pytest.approx([0.2, 0.4, 0.4, 0.6], abs=0.006)
    # What is further away is no business of this boundary.
    assert settled([(0.08, 0.4)], waveform, RATE, 1.0)[0][0] < 0.08 + NEAR_S


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=12), st.integers(0, 5))
def test_settled_times_keep_their_order(edges, seed):
    edges = sorted(round(edge, 4) for edge in edges)
    waveform = np.random.default_rng(seed).standard_normal(RATE).astype(np.float32) / 8
    spans = list(zip(edges[::2], edges[1::2], strict=False))
    moved = np.ravel(settled(spans, waveform, RATE, 1.0))
    assert all(np.diff(moved) >= 0)
    assert np.abs(moved - np.ravel(spans)).max() <= NEAR_S + 1e-4
    assert set(np.ravel(spans)) & {0.0, 1.0} <= set(moved)
