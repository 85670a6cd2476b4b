import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.labels import SPACE
from asr.score.alignment import TIES, align, align_texts, sequences, split_words
from asr.score.nist import TIES as NIST_TIES
from asr.score.sequences import CELLS, GAP, MAX_CHOICES, SUBSTITUTION_COST, align_sequences

SHORT = st.lists(st.sampled_from("abc"), max_size=9)


def noisy(rng, words, kinds, rate):
    """``words`` with errors; now and then a long stretch is missing or put in."""
    heard = []
    for word in words:
        dice = rng.random() / rate
        heard += [word] if dice > 1 else rng.choices(kinds, k=rng.randrange(3))
    if rng.random() < 0.1:
        at = rng.randrange(len(heard) + 1)
        heard[at : at + rng.randrange(60)] = rng.choices(kinds, k=rng.randrange(60))
    return heard


def drawn(seed, n_pairs, max_words):
    rng = random.Random(seed)
    pairs = []
    for _ in range(n_pairs):
        kinds = "abcdefgh"[: rng.randrange(1, 9)]
        said = rng.choices(kinds, k=rng.randrange(max_words + 1))
        other = rng.choices(kinds, k=rng.randrange(max_words + 1))
        pairs.append((said, other if rng.random() < 0.2 else noisy(rng, said, kinds, 0.3)))
    return pairs


def jiwer_columns(pairs):
    jiwer = pytest.importorskip("jiwer")
    as_is = jiwer.Compose([])
    sides = [list(side) for side in zip(*pairs, strict=True)]
    output = jiwer.process_words(*sides, as_is, as_is)
    names = {"equal": "", "substitute": "S", "delete": "D", "insert": "I"}
    for (said, heard), chunks in zip(pairs, output.alignments, strict=True):
        columns = []
        for c in chunks:
            both = itertools.zip_longest(
                said[c.ref_start_idx : c.ref_end_idx], heard[c.hyp_start_idx : c.hyp_end_idx]
            )
            columns += [(r, h, names[c.type]) for r, h in both]
        yield columns


@pytest.mark.parametrize(("n_pairs", "max_words"), [(600, 5), (600, 20), (60, 300)])
def test_columns_equal_jiwer(n_pairs, max_words):
    pairs = drawn(n_pairs, n_pairs, max_words)
    for pair, ours, theirs in zip(pairs, align(pairs), jiwer_columns(pairs), strict=True):
        assert list(ours.columns) == theirs, pair


def cost_of(said, heard, substitution, gap):
    row = [gap * j for j in range(len(heard) + 1)]
    for i, word in enumerate(said, 1):
        before, row = row, [gap * i]
        for j, other in enumerate(heard, 1):
            diagonal = before[j - 1] + substitution * (word != other)
            row.append(min(before[j] + gap, row[j - 1] + gap, diagonal))
    return row[-1]


@pytest.mark.parametrize("weights", [(1, 1), (SUBSTITUTION_COST, GAP)])
def test_no_alignment_is_cheaper(weights):
    substitution, gap = weights
    pairs = drawn(7, 300, 30)
    codes, first = aligned(pairs, weights)
    for (said, heard), begin, end in zip(pairs, first, first[1:], strict=False):
        counts = np.bincount(codes[begin:end], minlength=4)
        cost = substitution * counts[1] + gap * (counts[2] + counts[3])
        assert cost == cost_of(said, heard, substitution, gap)


def aligned(pairs, weights, max_choices=MAX_CHOICES):
    sides = []
    for side in zip(*pairs, strict=True):
        keys = np.array([ord(word) for words in side for word in words], np.int64)
        sides.append(sequences(keys, np.cumsum([0, *map(len, side)]), weights[1]))
    ties = TIES if weights == (1, 1) else NIST_TIES
    trim = weights == (1, 1)
    return align_sequences(*sides, weights[0], ties, trim, trim, max_choices)


@pytest.mark.parametrize("weights", [(1, 1), (SUBSTITUTION_COST, GAP)])
@pytest.mark.parametrize("max_choices", [1, 100, 3000])
def test_blocks_give_the_same(weights, max_choices):
    pairs = drawn(8, 40, 60)
    whole, parts = aligned(pairs, weights), aligned(pairs, weights, max_choices)
    assert all(map(np.array_equal, whole, parts))


def test_an_utterance_is_aligned_the_same_in_any_company():
    pairs = drawn(9, 200, 40)
    together = align(pairs)
    for pair, expected in zip(pairs, together, strict=True):
        assert align([pair])[0] == expected


def test_one_long_utterance():
    rng = random.Random(1)
    said = rng.choices("abcdefghij", k=2 * CELLS // 10)
    heard = said[:5000] + said[5600:]
    (alignment,) = align([(said, heard)])
    assert (alignment.hits, alignment.deletions) == (len(heard), 600)
    (alignment,) = align([(said[:3000], said[3000:6000])])
    assert alignment.reference_length == 3000


@settings(deadline=None)
@given(st.lists(st.tuples(SHORT, SHORT), max_size=4))
def test_texts_and_tokens_are_aligned_alike(pairs):
    texts = align_texts([" ".join(a) for a, _ in pairs], [" ".join(b) for _, b in pairs])
    assert list(texts) == list(align(pairs))


@settings(deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=12), max_size=5))
def test_words_are_what_split_gives(texts):
    keys, first, words = split_words(texts)
    split = [list(words)[i:j] for i, j in itertools.pairwise(first.tolist())]
    assert split == [text.split() for text in texts]
    assert len(set(keys.tolist())) == len(set(words))
    by_key = {}
    assert all(by_key.setdefault(k, w) == w for k, w in zip(keys.tolist(), words, strict=True))
    keys, first, words = split_words(texts, nist=True)
    split = [list(words)[i:j] for i, j in itertools.pairwise(first.tolist())]
    assert split == [[word.decode() for word in text.encode().lower().split()] for text in texts]


def test_white_space_of_every_kind():
    spaces = [chr(i) for i in range(0x110000) if chr(i).isspace()]
    _, first, words = split_words(["x".join(["", *spaces, ""])])
    assert list(words) == ["x"] * (len(spaces) + 1)
    assert first.tolist() == [0, len(spaces) + 1]


@settings(deadline=None)
@given(st.lists(st.tuples(st.text("ab é\u3000", max_size=9), st.text("ab é", max_size=9))))
def test_characters_see_one_space_between_words(pairs):
    lists = [
        tuple([SPACE if c == " " else c for c in " ".join(text.split())] for text in pair)
        for pair in pairs
    ]
    ours = align_texts([a for a, _ in pairs], [b for _, b in pairs], characters=True)
    assert list(ours) == list(align(lists))


def test_column_counts():
    alignments = align_texts(["the cat sat", "cat", ""], ["the dog", "dog", "the the"])
    wrong = {("cat", "dog", "S"): 2, ("sat", None, "D"): 1, (None, "the", "I"): 2}
    assert alignments.column_counts(hits=False) == wrong
    assert alignments.column_counts(hits=True) == wrong | {("the", "the", ""): 1}
    assert alignments.counts.tolist() == [[1, 1, 1, 0], [0, 1, 0, 0], [0, 0, 0, 2]]
    assert alignments[-1].insertions == 2
    assert [a.hits for a in alignments[:2]] == [1, 0]
    with pytest.raises(IndexError):
        alignments[3]


@pytest.mark.parametrize("characters", [False, True])
def test_half_a_character_is_one_too(characters):
    found = align_texts(["a \ud800 c"], ["a \udfff c"], characters)
    assert [c.error for c in found[0].columns if c.error] == ["S"]
    assert {(c.reference, c.hypothesis) for c in found[0].columns if c.error} == {
        ("\ud800", "\udfff")
    }
