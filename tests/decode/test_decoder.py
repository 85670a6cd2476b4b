"""One interface for every search: whole batches, words, N-best, confidences."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.decode.confidence import Calibration
from asr.decode.config import DecoderConfig
from asr.decode.decoder import Decoder
from asr.decode.lexicon import Lexicon
from asr.decode.viterbi import estimate_transitions
from asr.errors import InputError
from asr.labels import SPACE, Labels
from asr.lm.lstm import NeuralConfig, NeuralLM
from asr.lm.net import LanguageModel, LanguageModelConfig
from asr.lm.ngram import NGram

PHONES = Labels("phone", ("<blank>", "a", "b", "c", "sil"))
LETTERS = Labels("char", ("<blank>", SPACE, "a", "b", "c"))
LEXICON = Lexicon.build([("ab", (1, 2)), ("ca", (3, 1)), ("b", (2,)), ("bee", (2,))], (4,))
WORDS = NGram.estimate([["ab", "ca"], ["ab", "b"], ["bee", "ca"], ["ca"]], 2)
LABEL_LM = NGram.estimate([list("abca"), list("cab"), list("bca")], 2)


def neural(tokens):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        config = LanguageModelConfig("gru", 1, 8)
        return NeuralLM(
            NeuralConfig(carry=False, model=config),
            ("<unk>", "<s>", "</s>", *tokens),
            LanguageModel(config, 3 + len(tokens)),
        )


def drawn(lens, V=5, seed=0):
    rng = np.random.default_rng(seed)
    logits = [rng.normal(0, 2, (n, V)) for n in lens]
    return [(x - np.logaddexp.reduce(x, 1, keepdims=True)).astype(np.float32) for x in logits]


BEAM = DecoderConfig("beam", beam=8, nbest=4)
DECODERS = {
    "greedy": Decoder(DecoderConfig("greedy"), PHONES),
    "beam": Decoder(BEAM, PHONES),
    "beam+lm": Decoder(replace(BEAM, lm_weight=0.7, bonus=0.4), PHONES, label_lm=LABEL_LM),
    "beam+lexicon": Decoder(
        replace(BEAM, lexicon=True, word_lm_weight=0.6, word_bonus=0.3),
        PHONES,
        lexicon=LEXICON,
        word_lm=WORDS,
        hotwords={("bee",): 1.0},
    ),
    "beam+lexicon+rescore": Decoder(
        replace(BEAM, lexicon=True, word_lm_weight=0.6, rescore_weight=0.5, rescore_nbest=6),
        PHONES,
        lexicon=LEXICON,
        word_lm=WORDS,
        rescore_lm=neural(["ab", "ca", "b", "bee"]),
    ),
    "fused": Decoder(replace(BEAM, lm_weight=0.7), PHONES, label_lm=neural(["a", "b", "c", "sil"])),
    "letters": Decoder(BEAM, LETTERS),
    "viterbi": Decoder(
        DecoderConfig("viterbi", nbest=3),
        PHONES,
        transitions=estimate_transitions(
            [np.array([1, 1, 2, 3, 3]), np.array([4, 2, 2, 1, 3, 4])], 5
        ),
    ),
}


def same(one, other):
    """Equal, but for the rounding of a neural model's batches."""
    assert [h.labels for h in one] == [h.labels for h in other]
    assert [h.words for h in one] == [h.words for h in other]
    assert [h.spans for h in one] == [h.spans for h in other]
    for a, b in zip(one, other, strict=True):
        assert a.confidences == pytest.approx(b.confidences, abs=1e-6)
        assert (a.score, a.acoustic, a.lm, a.bonus) == pytest.approx(
            (b.score, b.acoustic, b.lm, b.bonus), abs=1e-4
        )


@pytest.mark.parametrize("kind", DECODERS)
def test_a_batch_is_its_utterances_one_by_one(kind):
    decoder = DECODERS[kind]
    batch = drawn([9, 1, 0, 30, 9, 4])
    alone = [decoder(x) for x in batch]
    for n_threads in (1, 2, 5):
        together = decoder.batch(batch, n_threads)
        assert len(together) == len(batch)
        for one, other in zip(alone, together, strict=True):
            same(one, other)
    # Padding has no say either: a longer neighbour, another order.
    for one, other in zip(alone, decoder.batch(batch[::-1])[::-1], strict=True):
        same(one, other)
    assert decoder.batch([]) == []


def test_words_are_searched_in_likelihoods():
    priors = np.array([-0.2, -2.0, -3.0, -2.5, -4.0], np.float32)
    config = replace(BEAM, lexicon=True, word_lm_weight=0.6, word_prior_weight=0.8)
    models = {"lexicon": LEXICON, "word_lm": WORDS}
    decoder = Decoder(config, PHONES, log_priors=priors, **models)
    (frames,) = drawn([20])
    divided = frames - np.float32(0.8) * priors
    divided -= np.logaddexp.reduce(divided, 1, keepdims=True)
    plain = Decoder(replace(config, word_prior_weight=0.0), PHONES, **models)
    same(decoder(frames), plain(divided))
    assert [h.words for h in decoder(frames)] != [h.words for h in plain(frames)]
    # Labels are searched as the net puts them out, and so are words where no shares are known.
    labels = Decoder(replace(BEAM, word_prior_weight=0.8), PHONES, log_priors=priors)
    same(labels(frames), DECODERS["beam"](frames))
    same(Decoder(config, PHONES, **models)(frames), plain(frames))


def test_a_label_in_different_frames_of_two_nets_outlives_their_mean():
    one = np.array([[0.1, 0.9, 0, 0, 0], [0.96, 0.04, 0, 0, 0]]) + 1e-6
    mean = np.log((one + one[::-1]) / 2).astype(np.float32)
    assert DECODERS["greedy"](mean)[0].labels == ()
    for config in (DecoderConfig("greedy", blank_penalty=0.2), replace(BEAM, blank_penalty=0.2)):
        assert Decoder(config, PHONES)(mean)[0].labels == (1,)
    # The frames that words are searched in stay as they are.
    words = replace(DECODERS["beam+lexicon"].config, blank_penalty=0.2)
    (frames,) = drawn([20])
    same(replace(DECODERS["beam+lexicon"], config=words)(frames), DECODERS["beam+lexicon"](frames))


@pytest.mark.parametrize("kind", DECODERS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 25))
def test_hypotheses_are_whole(kind, seed, n):
    decoder = DECODERS[kind]
    (log_probs,) = drawn([n], seed=seed)
    nbest = decoder(log_probs)
    assert 1 <= len(nbest) <= decoder.config.nbest
    scores = [h.score for h in nbest]
    assert scores == sorted(scores, reverse=True)
    has_words = decoder.searches_words or decoder.labels.unit == "char"
    assert len({h.labels if h.words is None else h.words for h in nbest}) == len(nbest)
    for h in nbest:
        assert h.score == pytest.approx(h.acoustic + h.lm + h.bonus, abs=1e-6)
        assert len(h.labels) == len(h.spans) == len(h.confidences)
        assert all(0 <= c <= 1 for c in h.confidences)
        ends = [0, *(end for _, end in h.spans)]
        assert all(
            before <= first < end <= n for before, (first, end) in zip(ends, h.spans, strict=False)
        )
        assert (h.words is not None) == has_words
        if h.words is not None:
            assert len(h.words) == len(h.word_spans) == len(h.word_confidences)
            assert all(0 <= c <= 1 for c in h.word_confidences)


@pytest.mark.parametrize("kind", DECODERS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 25))
def test_as_many_different_hypotheses_as_there_are(kind, seed, n):
    decoder = DECODERS[kind]
    (log_probs,) = drawn([n], seed=seed)
    few, all_ = (
        replace(decoder, config=replace(decoder.config, nbest=nbest))(log_probs) for nbest in (3, 9)
    )
    assert len(few) == min(3, len(all_))


def test_spaces_at_the_ends_make_no_other_text():
    # Before and after the letter a, a space is as likely as none.
    p = np.array([[0.5, 0.5, 0, 0, 0], [0, 0, 1, 0, 0], [0.3, 0.3, 0, 0.4, 0]])
    with np.errstate(divide="ignore"):
        log_probs = np.log(p).astype(np.float32)
    found = DECODERS["letters"](log_probs)
    assert [h.words for h in found] == [("ab",), ("a",)]
    assert [math.exp(h.acoustic) for h in found] == pytest.approx([0.2, 0.15])


@pytest.mark.parametrize("kind", DECODERS)
def test_nothing_gives_the_empty_hypothesis(kind):
    (best, *_) = DECODERS[kind](np.zeros((0, 5), np.float32))
    assert (best.labels, best.spans, best.confidences) == ((), (), ())
    assert best.words in (None, ())
    assert best.word_confidences in (None, ())


@pytest.mark.parametrize("V", [4, 6])
@pytest.mark.parametrize("kind", DECODERS)
def test_a_model_of_other_labels_is_refused(kind, V):
    with pytest.raises(InputError, match=f"puts out {V} labels, and its inventory names 5"):
        DECODERS[kind](drawn([3], V)[0])


def test_letters_make_words():
    path = [2, 0, 3, 1, 0, 4, 2]  # ab ca
    log_probs = np.log(np.full((7, 5), 0.05, np.float32))
    log_probs[np.arange(7), path] = np.log(0.8)
    (best,) = Decoder(DecoderConfig("greedy"), LETTERS)(log_probs)
    assert best.words == ("ab", "ca")
    assert best.word_spans == ((0, 2), (3, 5))
    assert best.word_confidences == pytest.approx((0.8, 0.8), abs=1e-6)


def test_calibration_changes_confidences_alone():
    decoder = DECODERS["beam+lexicon"]
    half = Calibration((0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0))
    log_probs = drawn([20])[0]
    raw, calibrated = (
        replace(decoder, calibrations=c)(log_probs)
        for c in ({"beam": half}, {"beam+lexicon": half})
    )
    assert raw == decoder(log_probs)
    for before, after in zip(raw, calibrated, strict=True):
        assert after.confidences == (0.5,) * len(before.labels)
        assert after.word_confidences == (0.5,) * len(before.words)
        kept = replace(
            after, confidences=before.confidences, word_confidences=before.word_confidences
        )
        assert kept == before


def test_a_hotword_wins_among_homophones():
    log_probs = np.log(np.array([[0.1, 0.02, 0.8, 0.04, 0.04]] * 2, np.float32))
    plain = replace(DECODERS["beam+lexicon"], hotwords={})
    boosted = replace(plain, hotwords={("bee",): 3.0})
    unlikely = replace(plain, hotwords={("bee",): -3.0})
    assert boosted(log_probs)[0].words == ("bee",)
    assert unlikely(log_probs)[0].words == ("b",)


def test_rescoring_sorts_by_the_second_model():
    decoder = DECODERS["beam+lexicon+rescore"]
    log_probs = drawn([6], seed=5)[0]
    config = replace(decoder.config, rescore_weight=50.0, rescore_share=1.0, nbest=6)
    other = NGram.estimate([["ca"], ["ca", "b"]] * 5, 2)
    found = replace(decoder, config=config, rescore_lm=other)(log_probs)
    first = replace(decoder, config=replace(config, rescore_weight=0.0))(log_probs)
    assert {h.words for h in found} == {h.words for h in first}
    assert found[0].words == max(first, key=lambda h: other.score(h.words)).words
    assert found[0].lm == pytest.approx(50 * math.log(10) * other.score(found[0].words))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"config": DecoderConfig("viterbi")}, "framewise"),
        ({"config": DecoderConfig("beam", lexicon=True)}, "lexicon.txt"),
        ({"hotwords": {("ab",): 1.0}}, "lexicon"),
        ({"config": DecoderConfig("greedy"), "hotwords": {("ab",): 1.0}}, "lexicon"),
        (
            {
                "config": DecoderConfig("beam", lexicon=True, word_lm_weight=1.0),
                "lexicon": LEXICON,
                "word_lm": neural(["ab"]),
                "hotwords": {("ab",): 1.0},
            },
            "n-gram",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(change, told):
    with pytest.raises(InputError, match=told):
        replace(DECODERS["beam"], **change)


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "bean"},
        {"beam": 0},
        {"nbest": 0},
        {"lm_weight": -0.1},
        {"word_lm_weight": math.nan},
        {"bonus": math.inf},
        {"rescore_share": 1.5},
    ],
)
def test_settings_that_cannot_be(wrong):
    with pytest.raises(
        InputError, match=next(iter(wrong.values())) if "name" in wrong else next(iter(wrong))
    ):
        DecoderConfig(**wrong)
