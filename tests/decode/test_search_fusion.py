"""Fusion with a recurrent language model against all paths, and against the model's own scores."""

import math

import numpy as np
import pytest
import torch
from decode_oracle import all_sums, all_words, draw, draw_sure
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.decode.lexicon import Lexicon
from asr.decode.search import fusion
from asr.decode.search.beam import BeamOptions, beam_search
from asr.decode.search.fusion import fused_search
from asr.errors import InputError
from asr.lm.lstm import NeuralConfig, NeuralLM
from asr.lm.net import LanguageModel, LanguageModelConfig

SYMBOLS = ["<blank>", "a", "b"]
EXACT = {"beam": 3000, "label_prune": math.inf, "score_prune": math.inf}
# Two spellings, homophones (x, h), a word inside another, a repeated label, an unknown word (q);
# 1 2 2 is x y twice.
ENTRIES = [("x", (1,)), ("x", (1, 2)), ("y", (2,)), ("y", (2, 2)), ("z", (2, 1)), ("q", (1, 1))]
ENTRIES += [("h", (1,))]


def drawn_lm(tokens, cell="lstm", layers=1, seed=1):
    """A language model that was never trained, with large weights so that it has opinions."""
    config = NeuralConfig(carry=False, model=LanguageModelConfig(cell, layers, 8))
    tokens = ("<unk>", "<s>", "</s>", *tokens)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LanguageModel(config.model, len(tokens))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_()
    return NeuralLM(config, tokens, model)


LM = drawn_lm("ab")
WORD_LM = drawn_lm("xyzh", cell="gru", layers=2)


def lm_score(lm, tokens):
    """What ``asr lm score`` reports, as a natural logarithm."""
    return math.log(10) * math.fsum(lm.scores([tokens])[0])


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32),
    T=st.integers(0, 5),
    V=st.integers(2, 3),
    holes=st.sampled_from([0.0, 0.3]),
    bonus=st.sampled_from([-0.3, 0.0, 0.4]),
)
def test_equals_enumeration_of_all_paths(seed, T, V, holes, bonus):
    log_probs = draw(seed, T, V, holes=holes)
    expected = {}
    for labels, acoustic in all_sums(log_probs).items():
        lm = 0.7 * lm_score(LM, [SYMBOLS[i] for i in labels])
        expected[labels] = (acoustic + lm + bonus * len(labels), acoustic, lm)
    options = BeamOptions(nbest=10_000, lm_weight=0.7, bonus=bonus, **EXACT)
    (found,) = fused_search([log_probs], LM, SYMBOLS[:V], options)
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
    assert {h.labels for h in found} == expected.keys()
    assert len(found) == len(expected)
    for h in found:
        assert (h.score, h.acoustic, h.lm) == pytest.approx(expected[h.labels], abs=1e-5)
        assert h.score == pytest.approx(h.acoustic + h.lm + h.bonus, abs=1e-9)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32),
    T=st.integers(1, 5),
    separators=st.sampled_from([((), False), ((3,), False), ((3,), True)]),
    bonus=st.sampled_from([-0.3, 0.5]),
    gap=st.sampled_from([None, 120]),
)
def test_equals_enumeration_of_all_readings(seed, T, separators, bonus, gap):
    lexicon = Lexicon.build(ENTRIES, *separators)
    log_probs = draw(seed, T, 4) if gap is None else draw_sure(seed, T, 4, gap)
    expected = {}
    for labels, acoustic in all_sums(log_probs).items():
        for ids in all_words(labels, lexicon):
            words = tuple(lexicon.words[i] for i in ids)
            expected[words] = np.logaddexp(expected.get(words, -np.inf), acoustic)
    options = BeamOptions(nbest=10_000, lm_weight=0.7, bonus=bonus, **EXACT)
    (found,) = fused_search([log_probs], WORD_LM, [*SYMBOLS, "sil"], options, lexicon)
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
    assert {h.words for h in found} == expected.keys()
    assert len(found) == len(expected)
    for h in found:
        lm = 0.7 * lm_score(WORD_LM, h.words)
        whole = expected[h.words] + lm + bonus * len(h.words)
        assert (h.lm, h.score) == pytest.approx((lm, whole), abs=1e-5)
        assert h.score == pytest.approx(h.acoustic + h.lm + h.bonus, abs=1e-9)
        for word, (first, last) in zip(h.words, h.word_spans, strict=True):
            assert h.labels[first:last] in lexicon.spellings[lexicon.words.index(word)]


@pytest.mark.parametrize("lexicon", [None, Lexicon.build(ENTRIES, (3,))])
def test_neighbours_and_room_change_nothing(monkeypatch, lexicon):
    utterances = [draw(n, 40 + 13 * n, 4, spread=1.0) for n in range(6)]
    options = BeamOptions(beam=12, nbest=5, lm_weight=0.6, bonus=0.5)
    lm = LM if lexicon is None else WORD_LM

    def decode(log_probs):
        return fused_search(log_probs, lm, [*SYMBOLS, "sil"], options, lexicon)

    together = decode(utterances)
    assert all(1 <= len(nbest) <= 5 for nbest in together)
    alone = [decode([x])[0] for x in utterances]
    monkeypatch.setattr(fusion, "AT_ONCE", 2)
    few = decode(utterances)
    for i in range(len(utterances)):
        for h, other, third in zip(together[i], alone[i], few[i], strict=True):
            assert (h.labels, h.words, h.spans) == (other.labels, other.words, other.spans)
            assert h.labels == third.labels
            assert h.score == pytest.approx(other.score, abs=1e-5)
            assert h.score == pytest.approx(third.score, abs=1e-5)
            tokens = h.words or [("<blank>", *"ab", "sil")[i] for i in h.labels]
            assert h.lm == pytest.approx(0.6 * lm_score(lm, tokens), abs=1e-3)


def test_without_weight_it_is_the_plain_search():
    log_probs = draw(3, 50, 4)
    options = BeamOptions(beam=8, nbest=3, bonus=0.3)
    assert fused_search([log_probs], LM, [*SYMBOLS, "c"], options) == [
        beam_search(log_probs, options)
    ]


def test_nothing_to_decode():
    assert fused_search([], LM, SYMBOLS, BeamOptions(lm_weight=1.0)) == []
    ((found,),) = fused_search(
        [np.zeros((0, 3), np.float32)], LM, SYMBOLS, BeamOptions(lm_weight=1.0)
    )
    assert found.labels == found.spans == ()
    assert found.score == pytest.approx(lm_score(LM, []), abs=1e-5)


def test_refuses_other_labels_and_bad_frames():
    options = BeamOptions(lm_weight=1.0)
    with pytest.raises(InputError, match="4 labels, expected 3"):
        fused_search([draw(1, 5, 4)], LM, SYMBOLS, options)
    with pytest.raises(InputError, match="knows none of the 2 symbols that may be found, such as"):
        fused_search([draw(1, 5, 3)], WORD_LM, SYMBOLS, options)
    with pytest.raises(InputError, match="unknown words need an n-gram"):
        fused_search([], LM, SYMBOLS, BeamOptions(lm_weight=1.0, unknown_penalty=5.0))
    with pytest.raises(InputError, match=r"'y' has label 7, and the model's are 1 \.\. 2"):
        fused_search([draw(1, 5, 3)], WORD_LM, SYMBOLS, options, Lexicon.build([("y", (7,))]))
    log_probs = draw(1, 5, 3)
    log_probs[2] = np.nan
    with pytest.raises(InputError, match="NaN or inf in frame 2 of 5"):
        fused_search([log_probs], LM, SYMBOLS, options)


def test_a_beam_of_any_width_takes_the_room_that_it_fills():
    log_probs = [draw(n, 8, 5, spread=1.0) for n in range(2)]
    lm, symbols = drawn_lm("abcd"), ["<blank>", *"abcd"]
    wide = {"lm_weight": 0.3, "nbest": 10**9, "score_prune": 8.0}
    found = fused_search(log_probs, lm, symbols, BeamOptions(beam=10**9, **wide))
    assert min(map(len, found)) > 1024  # more than there is room for at first
    narrower = fused_search(log_probs, lm, symbols, BeamOptions(beam=100_000, **wide))
    for one, other in zip(found, narrower, strict=True):
        assert [h.labels for h in one] == [h.labels for h in other]


def test_long_utterance():
    log_probs = draw(1, 6000, 4, spread=1.0)
    options = BeamOptions(beam=4, lm_weight=0.5, bonus=0.5)
    ((found,),) = fused_search([log_probs], LM, [*SYMBOLS, "sil"], options)
    assert len(found.labels) > 1000
    assert found.spans[-1][1] <= 6000
    tokens = [[*SYMBOLS, "sil"][i] for i in found.labels]
    assert found.lm == pytest.approx(0.5 * lm_score(LM, tokens), rel=1e-5)


def test_words_that_do_not_fit():
    impossible = np.full((3, 4), -np.inf, np.float32)
    impossible[:, 3] = 0.0
    with pytest.raises(InputError, match="no words of the lexicon fit the 3 frames"):
        fused_search(
            [impossible],
            WORD_LM,
            [*SYMBOLS, "c"],
            BeamOptions(lm_weight=1.0),
            Lexicon.build(ENTRIES),
        )
