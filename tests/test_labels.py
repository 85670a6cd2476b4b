from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.errors import InputError
from asr.labels import (
    BLANK_SYMBOL,
    CMU_40,
    SPACE,
    TIMIT_39,
    TIMIT_48,
    TIMIT_61_PHONES,
    UNKNOWN,
    Labels,
    fold,
    fold_segments,
    inventory,
    unit_symbols,
)
from asr.types import Segment, Utterance


def utterance(text=None, phones=None):
    segments = None if phones is None else tuple(Segment(p) for p in phones.split())
    return Utterance("u1", Path("u1.wav"), "s", 1.0, text=text, phones=segments)


def test_sizes_of_the_phone_sets():
    assert len(TIMIT_61_PHONES) == 61
    assert len({TIMIT_48[p] for p in TIMIT_61_PHONES} - {None}) == 48
    assert len({TIMIT_39[p] for p in TIMIT_61_PHONES} - {None}) == 39
    assert len(set(CMU_40.values())) == 40


@pytest.mark.parametrize("phone", TIMIT_61_PHONES)
def test_folding_through_48_is_folding_at_once(phone):
    assert fold(fold([phone], "timit48"), "timit39") == fold([phone], "timit39")


def test_lee_and_hons_foldings():
    words = "h# sh ix hv eh dcl d y axr q pau ax-h epi nx eng zh ux el em en ao"
    assert fold(words.split(), "timit39") == (
        "sil sh ih hh eh sil d y er sil ah sil n ng sh uw l m n aa".split()
    )


def test_q_is_deleted_and_leaves_a_gap():
    segments = [Segment("aa", 0.0, 0.1), Segment("q", 0.1, 0.2), Segment("t", 0.2, 0.3)]
    for folding in ("timit48", "timit39"):
        assert fold_segments(segments, folding) == [segments[0], segments[2]]


def test_a_stray_phone_is_named_with_its_place():
    with pytest.raises(InputError, match=r"ref.txt:3: phone 'zz' is not in .* 'timit39'"):
        fold(["aa", "zz"], "timit39", "ref.txt:3")


def test_units():
    said = utterance("so what", "h# s ow w ah t h#")
    assert unit_symbols(said, "word") == ["so", "what"]
    assert unit_symbols(said, "char") == ["s", "o", SPACE, "w", "h", "a", "t"]
    assert unit_symbols(said, "phone", "cmu40") == "sil s ow w ah t sil".split()


@pytest.mark.parametrize(("unit", "told"), [("phone", "no phones"), ("word", "no text")])
def test_units_that_are_not_there(unit, told):
    with pytest.raises(InputError, match=f"u1: has {told}"):
        unit_symbols(utterance(), unit)


def test_inventories():
    assert inventory([utterance("b a b")], "word").symbols == (BLANK_SYMBOL, UNKNOWN, "a", "b")
    assert inventory([utterance("b a")], "char").symbols == (BLANK_SYMBOL, SPACE, "a", "b")
    assert len(inventory([utterance(phones="h# aa")], "phone", "timit48")) == 49


def test_unknown_words_and_stray_characters():
    words = inventory([utterance("a b")], "word")
    assert words.decode(words.encode(["a", "zebra"])) == ["a", UNKNOWN]
    with pytest.raises(InputError, match="u9: char 'z' is not in the inventory"):
        inventory([utterance("a b")], "char").encode(["z"], "u9")


@given(st.lists(st.text("abc", min_size=1), max_size=5))
def test_characters_join_to_the_text(words):
    text = " ".join(words)
    labels = Labels("char", (BLANK_SYMBOL, SPACE, "a", "b", "c"))
    assert labels.join(unit_symbols(utterance(text), "char")) == text


@given(st.sets(st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1), min_size=1))
def test_saved_labels_read_back(tmp_path_factory, symbols):
    labels = Labels("word", (BLANK_SYMBOL, *sorted(symbols - {BLANK_SYMBOL})))
    path = tmp_path_factory.mktemp("labels") / "labels.txt"
    labels.save(path)
    assert Labels.load(path) == labels


@pytest.mark.parametrize(
    "text", ["", "unit phone\naa\n", "unit tone\n<blank>\n", "unit phone\n<blank>\naa\naa\n"]
)
def test_malformed_label_files_are_refused(tmp_path, text):
    path = tmp_path / "labels.txt"
    path.write_text(text)
    with pytest.raises(InputError):
        Labels.load(path)
