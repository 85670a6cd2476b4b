"""Beam search over a lexicon against all paths and all readings."""

import math

import numpy as np
import pytest
from decode_oracle import all_sums, all_words, draw
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.decode.beam import BeamOptions, beam_search
from asr.decode.lexicon import Lexicon
from asr.errors import InputError
from asr.labels import Labels
from asr.lm.ngram import NGram

# Two spellings, homophones (x, h), a word inside another, a repeated label.
ENTRIES = [("x", (1,)), ("x", (1, 2)), ("y", (2,)), ("z", (2, 1)), ("w", (1, 1)), ("h", (1,))]
LM = NGram.estimate([s.split() for s in ["x y x x", "y z x", "x", "z z y x"]], 2)
EXACT = {"beam": 5000, "label_prune": math.inf, "score_prune": math.inf}
PHONES = Labels("phone", ("<blank>", "ah", "b", "ey", "l", "sil"))


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    T=st.integers(0, 5),
    separators=st.sampled_from([((), False), ((3,), False), ((3,), True)]),
    weight=st.sampled_from([0.0, 0.7]),
    bonus=st.sampled_from([-0.3, 0.5]),
)
def test_equals_enumeration_of_all_readings(seed, T, separators, weight, bonus):
    lexicon = Lexicon.build(ENTRIES, *separators)
    log_probs = draw(seed, T, 4)
    expected = {}
    for labels, acoustic in all_sums(log_probs).items():
        for words in all_words(labels, lexicon):
            expected[words] = np.logaddexp(expected.get(words, -np.inf), acoustic)
    scores = {}
    for ids, acoustic in expected.items():
        words = tuple(lexicon.words[i] for i in ids)
        lm = weight * math.log(10) * LM.score(words)
        scores[words] = acoustic + lm + bonus * len(words)
    options = BeamOptions(nbest=10_000, lm_weight=weight, bonus=bonus, **EXACT)
    found = beam_search(log_probs, options, lexicon.bind(LM), lexicon)
    assert len(found) == len({h.words for h in found}) == len(scores)
    assert [h.score for h in found] == pytest.approx(
        sorted(scores.values(), reverse=True), abs=1e-6
    )
    for h in found:
        assert h.score == pytest.approx(scores[h.words], abs=1e-6)
        assert h.score == pytest.approx(h.acoustic + h.lm + h.bonus)
        for word, (first, last) in zip(h.words, h.word_spans, strict=True):
            assert h.labels[first:last] in lexicon.spellings[lexicon.words.index(word)]


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32), beam=st.integers(1, 60))
def test_narrow_beams_never_beat_wide_ones_by_much_and_never_repeat(seed, beam):
    lexicon = Lexicon.build(ENTRIES, (3,))
    log_probs = draw(seed, 30, 4, spread=1.0)
    options = {"lm_weight": 0.5, "bonus": 0.2}
    found = beam_search(log_probs, BeamOptions(beam, beam, **options), lexicon.bind(LM), lexicon)
    assert len({h.words for h in found}) == len(found) <= beam
    wide = beam_search(log_probs, BeamOptions(300, 1, **options), lexicon.bind(LM), lexicon)
    assert found[0].score <= wide[0].score + 1e-6


def test_unfinished_word_is_only_a_last_resort():
    lexicon = Lexicon.build([("able", (3, 2, 4))])
    certain = np.full((2, 5), -30.0, np.float32)
    certain[0, 3] = certain[1, 2] = 0.0
    (found,) = beam_search(certain, BeamOptions(), None, lexicon)
    assert (found.words, found.labels, found.word_spans) == ((), (3, 2), ())
    impossible = np.full((3, 5), -np.inf, np.float32)
    impossible[:, 1] = 0.0
    with pytest.raises(InputError, match="no words of the lexicon fit the 3 frames"):
        beam_search(impossible, BeamOptions(), None, lexicon)


def test_language_model_must_be_bound_to_the_lexicon():
    lexicon = Lexicon.build(ENTRIES)
    with pytest.raises(InputError, match=r"use Lexicon\.bind"):
        beam_search(draw(0, 4, 4), BeamOptions(lm_weight=1), LM.bind(lexicon.words), lexicon)


def test_lexicon_file_of_phones(tmp_path):
    path = tmp_path / "lexicon.txt"
    path.write_text("a\tah\na\tey\nable\tey b ah l\nable\tey b l\na\tah\n\n")
    lexicon = Lexicon.read(path, PHONES)
    assert lexicon.words == ("a", "able")
    assert lexicon.spellings == (((1,), (3,)), ((3, 2, 1, 4), (3, 2, 4)))
    assert lexicon.separators == (5,)
    assert not lexicon.required
    tree = lexicon.tree
    assert len(tree.label) == 7
    ends = np.flatnonzero(np.diff(tree.first_word))
    assert [lexicon.labels_to(int(n)) for n in ends] == [(1,), (3,), (3, 2, 4), (3, 2, 1, 4)]


def test_lexicon_file_of_characters(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("ab\nb ignored\n")
    labels = Labels("char", ("<blank>", "<space>", "a", "b"))
    lexicon = Lexicon.read(path, labels)
    assert lexicon.spellings == (((2, 3),), ((3,),))
    assert (lexicon.separators, lexicon.required) == ((1,), True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\tah\nb\tzz\n", r":2: phone 'zz' is not in the inventory of 5"),
        ("a\n", r":1: expected a word and its phones"),
        ("\n", "no words"),
    ],
)
def test_bad_lexicon_files(tmp_path, text, message):
    path = tmp_path / "lexicon.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        Lexicon.read(path, PHONES)
    with pytest.raises(InputError, match="cannot be read"):
        Lexicon.read(tmp_path / "none.txt", PHONES)


def test_q_alone_leaves_nothing(tmp_path):
    path = tmp_path / "lexicon.txt"
    path.write_text("uh\tq\n")
    with pytest.raises(InputError, match=r":1: folding 'timit39' leaves no phones of 'uh'"):
        Lexicon.read(path, PHONES, "timit39")
