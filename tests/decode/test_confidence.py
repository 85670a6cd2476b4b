"""Confidences that mean what they say."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.decode.confidence import (
    Calibration,
    calibrated,
    expected_calibration_error,
    fit,
    label_features,
    logit,
    predicted,
    word_features,
)
from asr.types import Hypothesis


def test_calibration_error_by_hand():
    confidences = np.array([0.05, 0.15, 0.15, 0.95, 1.0])
    correct = np.array([False, True, False, True, False])
    # Bins: {0.05} off by 0.05; {0.15, 0.15} by |0.15 - 0.5|; {0.95, 1.0} by |0.975 - 0.5|.
    expected = (1 * 0.05 + 2 * 0.35 + 2 * 0.475) / 5
    assert expected_calibration_error(confidences, correct) == pytest.approx(expected)
    assert math.isnan(expected_calibration_error(np.array([]), np.array([], bool)))


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=30))
def test_calibration_error_lies_between_0_and_1(pairs):
    confidences, correct = map(np.array, zip(*pairs, strict=True))
    assert 0 <= expected_calibration_error(confidences, correct) <= 1 + 1e-12


def test_a_planted_map_is_found_again():
    rng = np.random.default_rng(1)
    features = rng.normal(size=(20_000, 2))
    planted = (-0.5, 1.5, -1.0)
    correct = rng.random(20_000) < predicted(planted, features)
    assert fit(features, correct) == pytest.approx(planted, abs=0.1)


def test_fitting_makes_the_overconfident_modest():
    rng = np.random.default_rng(2)
    truth = rng.uniform(0.2, 0.9, 5000)
    correct = rng.random(5000) < truth
    bold = np.sqrt(truth)  # surer than right
    weights = fit(logit(bold)[:, None], correct)
    before = expected_calibration_error(bold, correct)
    after = expected_calibration_error(predicted(weights, logit(bold)[:, None]), correct)
    assert before > 0.1
    assert after < 0.03


@pytest.mark.parametrize("n_right", [0, 4, 96, 100])
def test_where_all_is_right_or_wrong_there_is_nothing_to_fit(n_right):
    assert fit(np.zeros((100, 1)), np.arange(100) < n_right) is None


def test_a_separable_set_is_fitted_finitely():
    features = np.linspace(-4, 4, 100)[:, None]
    weights = fit(features, features[:, 0] > 0)
    assert np.isfinite(weights).all()
    assert (predicted(weights, features) > 0.5).tolist() == (features[:, 0] > 0).tolist()


LOG_PROBS = np.log(
    np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.6, 0.3, 0.1], [0.1, 0.1, 0.8]], np.float32)
)
FOUND = Hypothesis((1, 2), ((1, 2), (3, 4)), (0.8, 0.8), -1.0, -1.0)


def test_label_features_by_hand():
    # Between its neighbours, label 1 may be in frames 0 to 2, label 2 in frames 2 and 3.
    there = [1 - 0.8 * 0.2 * 0.7, 1 - 0.9 * 0.2]
    expected = logit(np.array([[0.8, there[0]], [0.8, there[1]]]))
    assert label_features(FOUND, LOG_PROBS) == pytest.approx(expected, abs=1e-5)
    words = replace(FOUND, words=("ab",), word_spans=((0, 2),), word_confidences=(0.8,))
    features = word_features(words, label_features(FOUND, LOG_PROBS))
    assert features[0] == pytest.approx([*expected.mean(0), math.log(2)], abs=1e-5)


def test_without_a_map_the_raw_values_stay():
    assert calibrated(FOUND, LOG_PROBS, Calibration()) == FOUND
    words = replace(FOUND, words=("ab",), word_spans=((0, 2),), word_confidences=(0.8,))
    found = calibrated(words, LOG_PROBS, Calibration(words=(0.0, 0.0, 0.0, 0.0)))
    assert found.word_confidences == (0.5,)
    assert found.confidences == FOUND.confidences


def test_nothing_heard_has_no_confidences():
    empty = Hypothesis((), (), (), 0.0, 0.0, words=(), word_spans=(), word_confidences=())
    calibration = Calibration((0.0, 1.0, 1.0), (0.0, 1.0, 1.0, 1.0))
    assert calibrated(empty, LOG_PROBS[:0], calibration) == empty
