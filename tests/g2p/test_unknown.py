from pathlib import Path

import pytest

from asr.decode.lexicon import Lexicon
from asr.errors import InputError
from asr.g2p.model import Pronouncer
from asr.g2p.unknown import ENGLISH, extended, folder_of, lines, pronounced, told
from asr.labels import BLANK_SYMBOL, CMU_40, TIMIT_39, TIMIT_61_PHONES, Labels

CMU = Labels("phone", (BLANK_SYMBOL, *sorted({p for p in CMU_40.values() if p})))
TIMIT = Labels("phone", (BLANK_SYMBOL, *sorted(TIMIT_61_PHONES)))
FOLDED = Labels("phone", (BLANK_SYMBOL, *sorted({p for p in TIMIT_39.values() if p})))


def test_the_english_model_is_small_and_has_its_notice():
    assert sum(path.stat().st_size for path in ENGLISH.iterdir()) < 4_000_000
    assert "Carnegie Mellon" in (ENGLISH / "LICENSE.cmudict").read_text()
    assert folder_of("english") == ENGLISH
    assert folder_of("other") == Path("other")
    assert len(Pronouncer.load(ENGLISH).phones) == 40


def test_words_are_pronounced_in_the_phones_of_a_model():
    ((word, phones),) = pronounced(["batting"], CMU, "cmu40")
    assert (word, phones) == ("batting", "b ae t ih ng".split())
    assert pronounced(["batting"], TIMIT, "none") == [("batting", "bcl b ae tcl t ih ng".split())]
    assert pronounced(["batting"], FOLDED, "timit39") == [
        ("batting", "sil b ae sil t ih ng".split())
    ]


def test_what_cannot_be_pronounced_is_left_out():
    assert pronounced(["\u0437\u0430", "42"], CMU, "none") == []
    assert pronounced(["batting"], Labels("phone", (BLANK_SYMBOL, "x", "y")), "none") == []


def test_corrections_are_taken_and_kept(tmp_path):
    path = tmp_path / "pronounced.txt"
    path.write_text(lines([("qing", "ch ih ng".split())]))
    found = pronounced(["qing", "batting"], CMU, "none", path)
    assert found == [("qing", "ch ih ng".split()), ("batting", "b ae t ih ng".split())]
    path.write_text(lines(found))
    assert pronounced(["qing", "batting"], CMU, "none", path) == found
    lexicon = extended(Lexicon.build([("a", [1])]), found, CMU)
    assert lexicon.words == ("a", "qing", "batting")
    assert "2 words" in told(found)
    path.write_text("qing\tx y\n")
    with pytest.raises(InputError, match=r"pronounced\.txt:1"):
        pronounced(["qing"], CMU, "none", path)
