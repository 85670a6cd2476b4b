"""Second pass over planted N-best lists, and over those of a search that it must agree with."""

import math
from unittest import mock

import numpy as np
import pytest
from decode_oracle import draw
from hypothesis import given, settings
from hypothesis import strategies as st
from test_search_fusion import LM, SYMBOLS, drawn_lm, lm_score

from asr.decode.config import DecoderConfig
from asr.decode.rescore import reorder, rescore, sentence_log_probs
from asr.decode.search.beam import BeamOptions, beam_search
from asr.decode.search.fusion import fused_search
from asr.lm import lstm
from asr.lm.ngram import NGram
from asr.types import Hypothesis

NGRAM = NGram.estimate([line.split() for line in ["a b a a", "b b a", "a", "b a b"]], 2)


def said(text, acoustic):
    return Hypothesis((), (), (), acoustic - 7, acoustic, -9.0, 2.0, tuple(text.split()))


def weights(weight, bonus=0.0):
    return DecoderConfig("beam", rescore_weight=weight, rescore_bonus=bonus)


def words_of(hypothesis):
    return hypothesis.words


def test_parts_add_up_and_the_best_comes_first():
    nbest = [
        said("b b b b", -0.9),
        said("a b", -1.0),
        said("a", -1.5),
        said("b b a", -2.0),
        said("", -4.0),
    ]
    found = rescore([nbest], NGRAM, words_of, weights(0.5, 0.25))[0]
    for h in found:
        lm = 0.5 * math.log(10) * NGRAM.score(h.words)
        assert (h.lm, h.bonus) == pytest.approx((lm, 0.25 * len(h.words)))
        assert h.score == h.acoustic + h.lm + h.bonus
    assert {(h.words, h.acoustic) for h in found} == {(h.words, h.acoustic) for h in nbest}
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
    assert found[0].words == ("a", "b")


def test_without_weight_the_acoustics_decide_and_equals_keep_their_order():
    nbest = [said("b", -2.0), said("a", -1.0), said("a a", -1.0)]
    found = rescore([nbest], NGRAM, words_of, weights(0.0))[0]
    assert [h.words for h in found] == [("a",), ("a", "a"), ("b",)]
    never = reorder(nbest, [-math.inf] * 3, [1, 1, 2], weights(0.0))
    assert [h.score for h in never] == [-1.0, -1.0, -2.0]


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**32), T=st.integers(0, 5))
@pytest.mark.parametrize("lm", [LM, NGRAM])
def test_rescoring_all_there_is_equals_fusion(lm, seed, T):
    log_probs = draw(seed, T, 3)
    exact = {"beam": 3000, "nbest": 3000, "label_prune": math.inf, "score_prune": math.inf}
    options = BeamOptions(lm_weight=0.7, bonus=0.3, **exact)
    if lm is NGRAM:
        fused = beam_search(log_probs, options, NGRAM.bind(SYMBOLS))
    else:
        fused = fused_search([log_probs], LM, SYMBOLS, options)[0]
    first = beam_search(log_probs, BeamOptions(**exact))
    (found,) = rescore(
        [first],
        lm,
        lambda h: [SYMBOLS[i] for i in h.labels],
        weights(0.7, 0.3),
    )
    assert [h.score for h in found] == pytest.approx([h.score for h in fused], abs=1e-4)
    by_labels = {h.labels: h.score for h in fused}
    for h in found:
        assert h.score == pytest.approx(by_labels[h.labels], abs=1e-4)


def test_each_sentence_is_scored_alone_also_by_a_model_that_carries_its_state():
    carrying = drawn_lm("ab")
    carrying.config.carry = True
    sentences = [list("abba"), [], list("b"), list("abba")]
    found = sentence_log_probs(sentences, carrying)
    assert found == pytest.approx([lm_score(LM, s) for s in sentences], abs=1e-5)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.text("abx", max_size=6), max_size=9))
def test_equal_beginnings_share_their_scores(sentences):
    with mock.patch.object(lstm, "SCORED_ALONE", 4):
        found = LM.scores_alone(sentences)
    assert [len(row) for row in found] == [len(s) + 1 for s in sentences]
    for row, sentence in zip(found, sentences, strict=True):
        assert row == pytest.approx(LM.scores([sentence])[0], abs=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_mixture_is_taken_at_each_token(share):
    sentence = ["a", "b", "b"]
    mixed = [
        math.log(share * 10**p + (1 - share) * 10**q)
        for p, q in zip(LM.scores([sentence])[0], NGRAM.scores(sentence), strict=True)
    ]
    (found,) = sentence_log_probs([sentence], LM, NGRAM, share)
    assert found == pytest.approx(sum(mixed), abs=1e-5)


def test_nothing_to_rescore():
    assert rescore([], LM, words_of, weights(1.0)) == []
    assert rescore([[]], LM, words_of, weights(1.0)) == [[]]
    (empty,) = rescore([[said("", -1.0)]], LM, words_of, weights(1.0))[0]
    assert empty.score == pytest.approx(-1.0 + lm_score(LM, []), abs=1e-5)
    assert np.isfinite(empty.score)
