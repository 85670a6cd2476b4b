import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.decode.pronunciations import Entry
from asr.decode.search.each import NBest
from asr.errors import InputError
from asr.g2p.joint import MOST_PHONES, UNCUT, Joint, UnitGram, cut, token_of
from asr.g2p.words import Letters, padded
from asr.labels import BLANK_SYMBOL, Labels

PHONES = Labels("phone", (BLANK_SYMBOL, "a", "b", "k", "o", "s", "sh"))


def entries(*said):
    return [
        Entry(f"lexicon:{i}", word, tuple(phones.split())) for i, (word, phones) in enumerate(said)
    ]


def cuts_of(*said):
    found = entries(*said)
    letters = Letters.of(entry.word for entry in found)
    return letters, cut(found, letters, PHONES)


def spans(word, phones):
    """All ways to cut a word."""
    for sizes in itertools.product(range(MOST_PHONES + 1), repeat=len(word)):
        if sum(sizes) == len(phones):
            ends = [0, *itertools.accumulate(sizes)]
            yield tuple(phones[a:b] for a, b in itertools.pairwise(ends))


def test_letters_get_the_phones_that_they_stand_for_elsewhere():
    _, cuts = cuts_of(
        ("ba", "b a"), ("ab", "a b"), ("sa", "s a"), ("as", "a s"), ("sha", "sh a"),
        ("ash", "a sh"), ("box", "b o k s"), ("xo", "k s o"), ("bob", "b o b"),
        ("abe", "a b"), ("oxe", "o k s"),
    )  # fmt: skip
    found = dict(cuts)
    assert found["box"] == (("b",), ("o",), ("k", "s"))
    assert found["abe"] == (("a",), ("b",), ())
    assert sorted(map(len, found["sha"])) == [0, 1, 1]
    assert found["sha"][2] == ("a",)


def test_equal_cuts_are_taken_alike():
    """An "oo" is one phone, of the first letter or of the second: of all words the same one."""
    words = [("boo", "b o"), ("soo", "s o"), ("oob", "o b"), ("ba", "b a"), ("sa", "s a")]
    _, cuts = cuts_of(*words)
    (way,) = {
        tuple(said[i] for i, c in enumerate(word) if c == "o")
        for word, said in cuts
        if "oo" in word
    }
    assert sorted(way) == [(), ("o",)]


def test_what_cannot_be_cut_is_left_out():
    _, cuts = cuts_of(("a", "a"), ("b", "b a o k"), ("ab", "a b a b a b"))
    assert [c.word for c in cuts] == ["a", "ab"]
    assert cut(entries(("b", "b a o k")), Letters.of("b"), PHONES) == []
    with pytest.raises(InputError, match="lexicon:0"):
        cut(entries(("b", "unheard-of")), Letters.of("b"), PHONES)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.text("abx", min_size=1, max_size=4), min_size=1, max_size=3),
    st.lists(st.lists(st.sampled_from("abks"), min_size=1, max_size=5), min_size=1, max_size=4),
)
def test_a_pronunciation_scores_as_its_best_cut(words, pronunciations):
    letters, cuts = cuts_of(
        ("ab", "a b"), ("ba", "b a"), ("ax", "a k s"), ("xa", "k s a"), ("abb", "a b"),
        ("bax", "b a s"), ("xab", "s a b"), ("b", "a b a"),
    )  # fmt: skip
    grams = UnitGram.estimate(cuts, 3)
    joint = Joint.of(grams, letters, PHONES)
    rows, lens = padded([letters.encode(word)[1:-1] for word in words])
    labels, n_labels = (
        np.stack([part] * len(words))
        for part in padded([PHONES.encode(phones) for phones in pronunciations])
    )
    scores = joint.scores(rows, lens, NBest(labels, n_labels, *np.zeros((2, *n_labels.shape))))
    for i, word in enumerate(words):
        for k, phones in enumerate(pronunciations):
            ways = cut_ways(grams, word, phones)
            if not ways:
                assert scores[i, k] == UNCUT * len(word)
                continue
            best = max(weight for weight, _ in ways)
            grammar = [math.log(10) * gram for weight, gram in ways if weight > best - 1e-5]
            assert any(scores[i, k] == pytest.approx(gram) for gram in grammar)


def cut_ways(grams, word, phones):
    """The weight of each cut by its units alone, and what the n-gram says of it."""
    total = sum(grams.counts.values())
    ways = []
    for way in spans(word, tuple(phones)):
        pairs = list(zip(word, way, strict=True))
        if all(pair in grams.counts for pair in pairs):
            weight = sum(math.log(grams.counts[pair] / total) for pair in pairs)
            ways.append((weight, grams.ngram.score(list(map(token_of, pairs)))))
    return ways


def test_a_long_word_is_cut_and_a_longer_one_does_no_harm():
    word, longer = (Entry("lexicon:1", "ba" * n, ("b", "a") * n) for n in (100, 1000))
    short = entries(("ba", "b a"), ("ab", "a b"), ("bab", "b a b"))
    cuts = cut([longer, word, *short], Letters.of("ba"), PHONES)
    assert word.word in [found.word for found in cuts]
    for found in cuts:
        assert len(found.word) == len(found.phones)
        assert sum(found.phones, ()) == tuple(found.word)
    cut([longer], Letters.of("ba"), PHONES)
