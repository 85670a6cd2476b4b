"""Utterances without phones, where a training of phones has no lexicon."""

from dataclasses import replace
from pathlib import Path

from asr.data.utterances import Listed
from asr.labels import BLANK_SYMBOL, LabelConfig, Labels
from asr.train.setup import lexicon_of, pronounced
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


def test_words_of_train_that_the_lexicon_lacks_enter_it_as_they_are_guessed(tmp_path):
    lexicon, written = tmp_path / "lexicon.txt", tmp_path / "pronounced.txt"
    lexicon.write_text("cat\tk ae t\nsat\ts ae t\n")
    train, test = (Listed([replace(LACKING, text=text)]) for text in ("cat tack", "cat sack"))
    said = pronounced(LabelConfig(unit="phone"), {"train": train, "test": test}, lexicon, written)
    assert said.guessed == [("tack", ["t", "ae", "k"])]
    assert written.read_text() == "tack\tt ae k\nsack\ts ae k\n"
    labels = Labels("phone", (BLANK_SYMBOL, *said.phones))
    # Words of test alone are none that a model could know.
    assert lexicon_of(lexicon, said, labels, "none").words == ("cat", "sat", "tack")
    written.write_text("tack\tt ae t\n")
    said = pronounced(LabelConfig(unit="phone"), {"train": train}, lexicon, written)
    assert said.guessed == [("tack", ["t", "ae", "t"])]
