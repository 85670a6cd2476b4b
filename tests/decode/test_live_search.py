"""Searches that go on as frames come, against the same over all frames at once."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from decode_oracle import draw
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.decode.config import DecoderConfig
from asr.decode.decoder import Decoder
from asr.decode.lexicon import Lexicon
from asr.decode.live import EVERY, OPEN_S, LabelSearch, WordSearch, begin
from asr.decode.search.state import codes_to
from asr.labels import Labels
from asr.lm.ngram import NGram

LABELS = Labels("char", ("<blank>", "<space>", "x", "y", "z"))
LM = NGram.estimate([s.split() for s in ["x y x x", "y zx x", "x", "zx zx y x"]], 2)
WORDS = ["x", "y", "zx", "xy", "zzy"]
SHIFT_S = 0.03


def decoder(name="beam", **settings):
    lexicon = Lexicon.build([(w, tuple(LABELS.ids[c] for c in w)) for w in WORDS], (1,))
    if settings.get("unknown_penalty"):
        spelled = ("", " ", "x", "y", "z")
        entries = [(w, tuple(LABELS.ids[c] for c in w)) for w in WORDS]
        lexicon = Lexicon.build(entries, (1,), True, spelled)
    hotwords = {("x", "y"): 1.5} if name == "beam" else {}
    config = DecoderConfig(name, **settings)
    return Decoder(config, LABELS, lexicon=lexicon, word_lm=LM, hotwords=hotwords)


def words_decoder(**settings):
    return decoder(lexicon=True, word_lm_weight=0.5, word_bonus=0.3, nbest=3, **settings)


def labels_decoder(**settings):
    config = DecoderConfig("beam", lm_weight=0.5, bonus=0.3, nbest=3, **settings)
    symbols = [["<space>" if c == " " else c for c in s] for s in ["xy z", "x y", "zx y x", "y"]]
    return Decoder(config, LABELS, label_lm=NGram.estimate(symbols, 3))


def fed(search, log_probs, cuts):
    """The search after frames in pieces, and what was settled after each of them."""
    settled = []
    edges = sorted({0, len(log_probs), *(c for c in cuts if c <= len(log_probs))})
    for first, end in pairwise(edges):
        search.accept(log_probs[first:end])
        best = search.best()
        settled.append(said(search, best, search.n_settled(best)))
    return settled


def said(search, hypothesis, n_labels=10_000):
    """The first labels; where words of a lexicon are searched, these."""
    if not isinstance(search, WordSearch):
        return hypothesis.labels[:n_labels]
    ends = [end for _, end in hypothesis.word_spans if end <= n_labels]
    return hypothesis.words[: len(ends)]


CASES = {
    "greedy": decoder("greedy"),
    "greedy with less of the blank": decoder("greedy", blank_penalty=0.8),
    "labels": labels_decoder(beam=20),
    "labels with less of the blank": labels_decoder(beam=20, blank_penalty=0.8),
    "labels in a narrow beam": labels_decoder(beam=3),
    "words": words_decoder(beam=20),
    "words in a narrow beam": words_decoder(beam=3),
    "words without priors": replace(
        words_decoder(beam=20, word_prior_weight=0.7),
        log_priors=np.array([-0.4, -2.0, -1.5, -3.0, -6.0], np.float32),
    ),
    "unknown words": words_decoder(beam=10, unknown_penalty=2.0),
}


@settings(deadline=None, max_examples=80)
@given(
    st.sampled_from([*CASES]), st.integers(0, 99), st.integers(1, 90), st.sets(st.integers(1, 90))
)
def test_how_frames_are_cut_has_no_influence(name, seed, n_frames, cuts):
    case = CASES[name]
    log_probs = draw(seed, n_frames, 5, spread=2.0)
    whole, pieces = begin(case, SHIFT_S), begin(case, SHIFT_S)
    fed(whole, log_probs, [])
    settled = fed(pieces, log_probs, cuts)
    assert pieces.nbest() == whole.nbest()
    final = said(whole, whole.nbest()[0])
    for before, after in zip(settled, [*settled[1:], final], strict=True):
        assert after[: len(before)] == before


@settings(deadline=None, max_examples=40)
@given(st.sampled_from([*CASES]), st.integers(0, 99), st.integers(1, round(OPEN_S / SHIFT_S)))
def test_within_the_time_that_all_is_open_it_is_the_whole_search(name, seed, n_frames):
    case = CASES[name]
    log_probs = draw(seed, n_frames, 5, spread=2.0)
    search = begin(case, SHIFT_S)
    fed(search, log_probs, range(0, 40, 7))
    assert search.nbest() == case(log_probs)


@pytest.mark.parametrize(
    ("kind", "case"),
    [(WordSearch, words_decoder(beam=50)), (LabelSearch, labels_decoder(beam=50))],
)
def test_what_was_said_long_ago_is_settled(kind, case):
    # What comes later tells nothing of what was said: only time settles it.
    log_probs = np.log(np.full((200, 5), [0.4, 0.2, 0.1, 0.2, 0.1], np.float32))
    search, open_search = (kind(case, n) for n in (20, 1000))
    settled = []
    for first in range(0, 200, 4):
        search.accept(log_probs[first : first + 4])
        best = search.best()
        n_labels = search.n_settled(best)
        settled.append(said(search, best, n_labels))
        starts = [best.spans[end - 1][0] for _, end in best.word_spans if end > n_labels]
        assert all(start + 20 + EVERY > first for start in starts)
    assert all(after[: len(before)] == before for before, after in pairwise(settled))
    open_search.accept(log_probs)
    assert len(settled[-1]) > open_search.n_settled(open_search.best())


@settings(deadline=None, max_examples=20)
@given(st.sampled_from(["labels", "words", "unknown words"]), st.integers(0, 99))
def test_steady_is_what_was_said_the_last_two_times_too(name, seed):
    log_probs = draw(seed, 80, 5, spread=2.0)
    kind = LabelSearch if name == "labels" else WordSearch
    search = kind(CASES[name], 25)
    looks = [(), ()]
    for n in range(1, 81):
        search.accept(log_probs[n - 1 : n])
        if n % EVERY == 0:
            looks.append(codes_to(search._state, search._state.entries["node"][0])[0].tolist())
        best = search.best()
        found = next(search._found()).codes.tolist()
        same = 0
        while all(len(codes) > same and codes[same] == found[same] for codes in looks[-2:]):
            same += 1
        # What every hypothesis began with when the tree was pruned may have been said since then.
        same = max(same, len(codes_to(search._state, 0)[0]))
        n_labels, steady = search.n_steady(best), search._n_labels(best, found[:same])
        # At a look, the best of the beam is what is looked at.
        assert n_labels == steady if n % EVERY == 0 else n_labels <= steady
    assert any(looks)


def test_relative_cost():
    lexicon = words_decoder().lexicon
    config = DecoderConfig("beam", lexicon=True, word_lm_weight=1.0)
    case = Decoder(config, LABELS, lexicon=lexicon, word_lm=LM)
    search = begin(case, SHIFT_S)
    sure = np.full((4, 5), -50.0, np.float32)
    sure[[0, 1, 2, 3], [2, 1, 0, 4]] = 0.0  # x, space, blank, z
    search.accept(sure[:3])
    of_end = math.log(10.0) * LM.scores(["x"])[-1]
    assert search.relative_cost() == pytest.approx(-of_end)
    search.accept(sure[3:])
    # No word ends with z, and that there was none costs more than what is kept.
    assert search.relative_cost() > 20
    assert begin(decoder("greedy"), SHIFT_S).relative_cost() == 0.0


def test_frames_that_no_words_fit_end_nothing():
    log_probs = np.full((3, 5), -np.inf, np.float32)
    log_probs[:, 3] = 0.0
    log_probs[1, 3], log_probs[1, 1] = -np.inf, 0.0
    lexicon = Lexicon.build([("x", (2,))], (1,))
    case = Decoder(DecoderConfig("beam", lexicon=True), LABELS, lexicon=lexicon)
    search = begin(case, SHIFT_S)
    search.accept(log_probs)
    assert search.best().words == ()
    assert search.n_settled(search.best()) == 0
    assert math.isfinite(search.relative_cost())
