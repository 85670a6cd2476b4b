from pathlib import Path

import pytest

from asr.decode.lexicon import Lexicon
from asr.errors import InputError
from asr.g2p.model import Pronouncer
from asr.g2p.unknown import (
    ENGLISH,
    extended,
    folder_of,
    lines,
    noted,
    pronounced,
    pronouncing,
)
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
    ((word, phones),) = pronounced(["batting"], CMU, "cmu40").guessed
    assert (word, phones) == ("batting", "b ae t ih ng".split())
    assert pronounced(["batting"], TIMIT, "none").guessed == [
        ("batting", "bcl b ae tcl t ih ng".split())
    ]
    assert pronounced(["batting"], FOLDED, "timit39").guessed == [
        ("batting", "sil b ae sil t ih ng".split())
    ]


def test_what_cannot_be_pronounced_is_left_out():
    assert pronounced(["\u0437\u0430", "42"], CMU, "none").entries == []
    assert pronounced(["batting"], Labels("phone", (BLANK_SYMBOL, "x", "y")), "none").entries == []


def test_corrections_are_taken_and_kept_and_not_said_to_be_guessed(tmp_path):
    path = tmp_path / "pronounced.txt"
    path.write_text(lines([("qing", "ch ih ng".split()), ("other", ["ah"])]))
    words = ["qing", "batting"]
    found = pronounced(words, CMU, "none", path)
    assert found.taken == [("qing", "ch ih ng".split())]
    assert found.guessed == [("batting", "b ae t ih ng".split())]
    line = noted(found, path)
    assert (
        "1 word without a pronunciation, taken by the letters: batting (b ae t ih ng); correct"
        in line
    )
    assert f"1 word that the lexicon lacks taken from {path}" in line
    assert path.read_text().splitlines() == [
        "other\tah", "qing\tch ih ng", "batting\tb ae t ih ng"
    ]  # fmt: skip
    again = pronounced(words, CMU, "none", path)
    assert not again.guessed
    assert "letters" not in noted(again, path)
    lexicon = extended(Lexicon.build([("a", [1])]), again.taken, CMU)
    assert lexicon.words == ("a", "qing", "batting")
    path.write_text("qing\tx y\n")
    with pytest.raises(InputError, match=r"pronounced\.txt:1"):
        pronounced(["qing"], CMU, "none", path)


def test_a_lexicon_gets_its_words_without_phones(tmp_path, caplog):
    path, told = tmp_path / "lexicon.txt", []
    path.write_text("bat\tb ae t\nbatting\n42\nbad\tb q d\nbad\tb zz d\na\tah\nad\tae d\n")
    guess = pronouncing(CMU, "none", tmp_path / "pronounced.txt", told.append)
    lexicon = Lexicon.read(path, CMU, "none", guess)
    assert lexicon.words == ("bat", "a", "ad", "batting")
    assert "batting" in (tmp_path / "pronounced.txt").read_text()
    assert "batting" in told[0]
    assert "3 of 7 entries do not fit" in caplog.text
    assert f"{path}:4: phone 'q'" in caplog.text
    assert f"{path}:3" in caplog.text
    path.write_text("bad\tb zz d\n")
    with pytest.raises(InputError, match=r"lexicon\.txt:1: phone 'zz'"):
        Lexicon.read(path, CMU, "none", guess)


def test_guessed_words_count_among_those_that_fit(tmp_path, caplog):
    path = tmp_path / "lexicon.txt"
    path.write_text("batting\nqing\n42\n")
    guess = pronouncing(CMU, "none", None, lambda line: None)
    assert Lexicon.read(path, CMU, "none", guess).words == ("batting", "qing")
    assert "1 of 3 entries do not fit" in caplog.text
    path.write_text("batting\n42\n43\n")
    with pytest.raises(InputError, match=r"and 1 more entries do not fit"):
        Lexicon.read(path, CMU, "none", guess)


def test_hotwords_are_pronounced():
    told = []
    guess = pronouncing(CMU, "none", None, told.append)
    lexicon = Lexicon.build([("a", [1])]).admit({("qingbat", "a"): 2.0}, CMU, "none", guess)
    assert lexicon.words == ("a", "qingbat")
    assert "qingbat (" in told[0]
    with pytest.raises(InputError, match="hotword 'b4t' is not in the lexicon"):
        lexicon.admit({("b4t",): 2.0}, CMU, "none", guess)
