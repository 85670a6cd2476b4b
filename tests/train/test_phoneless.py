"""Utterances without phones, where a training of phones has no lexicon."""

from dataclasses import replace
from pathlib import Path

from asr.data.utterances import Listed
from asr.labels import LabelConfig
from asr.train.setup import pronounced
from asr.types import Segment, Utterance

SAID = Utterance("a", Path("a.wav"), "s", 1.0, text="a", phones=(Segment("a"),))
LACKING = replace(SAID, id="b", phones=None)


def test_an_utterance_without_phones_is_left_out_and_listed():
    sets = {
        "train": Listed([SAID, LACKING]),
        "dev": Listed([SAID]),
        "test": Listed([LACKING]),
    }
    said = pronounced(LabelConfig(unit="phone"), sets, None)
    assert said.sets == {"train": [SAID], "dev": [SAID], "test": [LACKING]}
    assert said.left_out == {"train": {"b": "has no phones"}}


def test_other_labels_need_no_phones():
    sets = {"train": Listed([SAID, LACKING])}
    assert pronounced(LabelConfig(unit="char"), sets, None).sets == sets
