"""Kaldi's five rules, each alone and at its defaults."""

import math

import pytest

from asr.decode.endpoint import Endpoint, EndpointConfig
from asr.errors import InputError

SHIFT_S = 0.01
#: Nothing but the rule under test.
OFF = {"rule1_s": 0.0, "rule2_s": 0.0, "rule3_s": 0.0, "rule4_s": 0.0, "rule5_s": 3600.0}


def first_ends(speech_s, silence_s, **settings):
    """Speech, then silence: when each cost ends the segment first, in seconds of the silence."""
    endpoint = Endpoint(EndpointConfig(**settings), SHIFT_S)
    ends = {}
    n_speech = round(speech_s / SHIFT_S)
    for n in range(n_speech + round(silence_s / SHIFT_S)):
        cost = endpoint.after(is_silent=n >= n_speech)
        if cost > -math.inf:
            ends.setdefault(cost, round((n + 1 - n_speech) * SHIFT_S, 6))
    return ends


def test_defaults_after_speech():
    assert first_ends(1.0, 3.0) == {2.0: 0.5, 8.0: 1.0, math.inf: 2.0}


def test_defaults_without_speech():
    assert first_ends(0.0, 6.0) == {math.inf: 5.0}


def test_a_long_segment_ends_while_one_speaks():
    assert first_ends(21.0, 0.0) == {math.inf: -1.0}


@pytest.mark.parametrize(
    ("settings", "ends"),
    [
        ({"rule1_s": 0.3}, {}),
        ({"rule2_s": 0.3, "rule2_cost": 1.5}, {1.5: 0.3}),
        ({"rule3_s": 0.4}, {8.0: 0.4}),
        ({"rule4_s": 0.7}, {math.inf: 0.7}),
        ({"rule5_s": 1.25}, {math.inf: 0.25}),
        ({}, {}),
    ],
)
def test_each_rule_alone(settings, ends):
    assert first_ends(1.0, 3.0, **OFF | settings) == ends


def test_speech_begins_the_silence_anew():
    endpoint = Endpoint(EndpointConfig(**OFF | {"rule4_s": 0.05}), SHIFT_S)
    quiet = [False, *[True] * 4, False, *[True] * 5]
    assert [endpoint.after(q) > -math.inf for q in quiet] == [False] * 10 + [True]


@pytest.mark.parametrize("setting", [{"rule5_s": 0.0}, {"rule1_s": -1.0}, {"rule2_cost": -0.5}])
def test_what_no_rule_can_be(setting):
    (name,) = setting
    with pytest.raises(InputError, match=f"endpoint.{name}="):
        EndpointConfig(**setting)
