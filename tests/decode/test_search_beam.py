"""Prefix beam search over labels against all paths and against a textbook version."""

import math
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy

import numpy as np
import pytest
from decode_oracle import BIGRAM, all_sums, draw, draw_sure, sum_of_paths, textbook_beam
from hypothesis import given, settings
from hypothesis import strategies as st

import asr.decode.search.labels as label_beam
from asr.decode.greedy import greedy
from asr.decode.lexicon import Lexicon
from asr.decode.search.beam import BeamOptions, beam_search
from asr.decode.search.state import Horizon, roomy
from asr.decode.search.state import settled as all_begin_with
from asr.errors import InputError
from asr.lm.ngram import NGram

SYMBOLS = ["<blank>", "a", "b"]
LM = NGram.estimate([line.split() for line in BIGRAM], 2)
EXACT = {"beam": 5000, "label_prune": math.inf, "score_prune": math.inf}


def same(found, labels, score):
    assert found.labels == labels
    assert found.score == pytest.approx(score, abs=1e-6)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    T=st.integers(0, 5),
    V=st.integers(2, 3),
    holes=st.sampled_from([0.0, 0.3]),
    weight=st.sampled_from([0.0, 0.7]),
    bonus=st.sampled_from([0.0, 0.4]),
)
def test_equals_enumeration_of_all_paths(seed, T, V, holes, weight, bonus):
    log_probs = draw(seed, T, V, holes=holes)
    expected = []
    for labels, acoustic in all_sums(log_probs).items():
        lm = weight * math.log(10) * LM.score([SYMBOLS[i] for i in labels])
        expected.append((acoustic + lm + bonus * len(labels), labels, acoustic))
    expected.sort(reverse=True)
    options = BeamOptions(nbest=10_000, lm_weight=weight, bonus=bonus, **EXACT)
    found = beam_search(log_probs, options, LM.bind(SYMBOLS[:V]))
    assert len(found) == len(expected)
    for hypothesis, (score, labels, acoustic) in zip(found, expected, strict=True):
        same(hypothesis, labels, score)
        assert hypothesis.acoustic == pytest.approx(acoustic, abs=1e-6)
        assert hypothesis.score == pytest.approx(
            hypothesis.acoustic + hypothesis.lm + hypothesis.bonus, abs=1e-9
        )


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32), T=st.integers(1, 5), V=st.integers(2, 4), gap=st.floats(30, 200))
def test_a_net_too_sure_of_itself_loses_no_path(seed, T, V, gap):
    # Numbers end some 700 below the best.
    log_probs = draw_sure(seed, T, V, min(gap, 600 / T))
    expected = all_sums(log_probs)
    found = beam_search(log_probs, BeamOptions(nbest=10_000, **EXACT))
    assert {h.labels for h in found} == set(expected)
    for h in found:
        assert h.acoustic == pytest.approx(expected[h.labels], abs=1e-5)


@pytest.mark.parametrize(("beam", "T"), [(1, 30), (4, 40), (16, 40), (3, 900)])
@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_equals_the_textbook_at_the_same_beam(beam, T, weight):
    # 900 frames fill the tree of prefixes more than once.
    log_probs = draw(beam, T, 3, spread=1.0)
    settings = {"lm_weight": weight, "bonus": 0.2}
    expected = textbook_beam(log_probs, beam, LM, SYMBOLS, **settings)
    options = BeamOptions(**(EXACT | {"beam": beam}), nbest=beam, **settings)
    found = beam_search(log_probs, options, LM.bind(SYMBOLS))
    # The same prefixes survive; in the end each is summed over all its paths, pruned ones too.
    reached = {labels: score for score, labels in expected}
    assert {h.labels for h in found} == set(reached)
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
    for h in found:
        assert h.score >= reached[h.labels] - 1e-6
        if T < 100:  # of longer ones as unclear as this, the sum is given up
            assert h.acoustic == pytest.approx(sum_of_paths(log_probs, h.labels), abs=1e-6)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32), beam=st.integers(1, 40), V=st.integers(2, 90))
def test_properties_under_pruning(seed, beam, V):
    log_probs = draw(seed, 40, V, spread=2.0)
    found = beam_search(log_probs, BeamOptions(beam=beam, nbest=beam))
    assert 1 <= len(found) <= beam
    assert len({h.labels for h in found}) == len(found)
    scores = [h.score for h in found]
    assert scores == sorted(scores, reverse=True)
    for h in found:
        assert len(h.labels) == len(h.spans) == len(h.confidences)
        assert all(0 <= c <= 1 for c in h.confidences)
        assert all(a < b for a, b in h.spans)
        assert all(b <= a for (_, b), (a, _) in zip(h.spans, h.spans[1:], strict=False))
        assert h.score == h.acoustic + h.lm + h.bonus
        assert h.acoustic == pytest.approx(sum_of_paths(log_probs, h.labels), abs=1e-6)
    # The best path is one of the paths of its labels.
    best_path = greedy(log_probs)
    for h in found:
        if h.labels == best_path.labels:
            assert h.acoustic >= best_path.acoustic - 1e-6


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32), T=st.integers(1, 6), V=st.integers(2, 4))
def test_merging_loses_no_path(seed, T, V):
    # Every path belongs to one hypothesis, so their probabilities add up to 1.
    found = beam_search(draw(seed, T, V), BeamOptions(nbest=10_000, **EXACT))
    assert math.fsum(math.exp(h.acoustic) for h in found) == pytest.approx(1.0, abs=1e-5)
    assert len({h.labels for h in found}) == len(found)


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**32),
    label_prune=st.floats(0, 8),
    score_prune=st.floats(0, 12),
    V=st.integers(2, 600),
)
def test_pruned_results_are_some_of_all(seed, label_prune, score_prune, V):
    log_probs = draw(seed, 12, V, spread=2.0)
    options = BeamOptions(
        beam=20, nbest=20, label_prune=label_prune, score_prune=score_prune, lm_weight=0.3
    )
    symbols = ["<blank>", *map(str, range(V - 1))]
    found = beam_search(log_probs, options, NGram.estimate([symbols[1:]], 2).bind(symbols))
    assert found
    assert len({h.labels for h in found}) == len(found)
    for h in found:
        assert h.acoustic == pytest.approx(sum_of_paths(log_probs, h.labels), abs=1e-6)


@pytest.mark.parametrize("V", [300, 1000])
@pytest.mark.parametrize("beam", [1, 5])
def test_of_many_labels_the_best_are_tried(V, beam):
    log_probs = draw(V, 30, V, spread=1.0)
    expected = textbook_beam(log_probs, beam)
    found = beam_search(log_probs, BeamOptions(**(EXACT | {"beam": beam}), nbest=beam))
    assert {h.labels for h in found} == {labels for _, labels in expected}


def test_a_beam_of_any_width_takes_the_room_that_it_fills():
    log_probs = draw(3, 9, 5, spread=1.0)
    wide = BeamOptions(beam=10**9, nbest=10**9, score_prune=9.0)
    lexicon = Lexicon.build([(str(i), (i,)) for i in range(1, 5)])
    for search in (
        lambda options: beam_search(log_probs, options),
        lambda options: beam_search(log_probs, options, lexicon=lexicon),
    ):
        found = search(wide)
        assert len(found) > 3000  # more than there is room for at first
        narrower = search(BeamOptions(**(vars(wide) | {"beam": 10_000})))
        assert [h.score for h in found] == [h.score for h in narrower]
        assert [h.labels for h in found] == [h.labels for h in narrower]


def test_pruning_loses_nothing_on_a_clear_utterance():
    log_probs = draw(5, 300, 40, spread=6.0)
    best = beam_search(log_probs, BeamOptions())[0]
    exact = beam_search(log_probs, BeamOptions(beam=500, label_prune=99, score_prune=99))[0]
    assert best.labels == exact.labels
    assert best.score == pytest.approx(exact.score, abs=1e-4)


def test_long_utterance_neither_underflows_nor_grows():
    found = beam_search(draw(1, 20_000, 4, spread=1.0), BeamOptions(beam=4))[0]
    assert -20_000 * math.log(4) < found.acoustic < 0
    assert found.spans[-1][1] <= 20_000


def test_a_label_that_is_all_but_impossible_may_be_the_only_one():
    log_probs = np.full((3, 4), -np.inf, np.float32)
    log_probs[:, 3] = 0.0
    (found,) = beam_search(log_probs, BeamOptions(lm_weight=50), LM.bind([*SYMBOLS, "unheard"]))
    assert found.labels == (3,)
    assert found.acoustic == pytest.approx(0, abs=1e-9)
    assert found.lm < -100


def blanks_between(labels, sure, V=4):
    """Log-probabilities that say each label for two frames and a blank of probability ``sure``."""
    p = np.full((3 * len(labels), V), 0.1 / (V - 1))
    for u, label in enumerate(labels):
        p[3 * u : 3 * u + 2, label] = 0.9
        p[3 * u + 2] = (1 - sure) / (V - 1)
        p[3 * u + 2, 0] = sure
    return np.log(p).astype(np.float32)


@pytest.mark.parametrize("lexicon", [None, Lexicon.build([("aa", (1, 1)), ("b", (2,))])])
def test_skipped_blanks_keep_labels_apart_and_in_their_place(lexicon):
    log_probs = blanks_between((1, 1, 2), sure=0.995)
    for skip in (1.0, 0.99, 0.9):
        found = beam_search(log_probs, BeamOptions(blank_skip=skip), lexicon=lexicon)[0]
        assert found.labels == (1, 1, 2)
        assert found.spans == ((0, 2), (3, 5), (6, 8))
        assert found.confidences == pytest.approx((0.9, 0.9, 0.9))
        assert found.words == (None if lexicon is None else ("aa", "b"))
    # Nothing but blanks is tried where all frames are skipped.
    nothing = beam_search(blanks_between((), 0.9), BeamOptions(blank_skip=0.5))[0]
    assert nothing.labels == ()
    everything = beam_search(log_probs, BeamOptions(blank_skip=1e-9, nbest=5))
    assert [h.labels for h in everything] == [()]


def test_what_lies_beyond_the_frames_is_not_read():
    padded = np.full((50, 10), np.nan, np.float32)
    padded[:30, :5] = draw(2, 30, 5)
    for search in (lambda x: beam_search(x, BeamOptions(nbest=5)), lambda x: [greedy(x)]):
        assert search(padded[:30, :5]) == search(draw(2, 30, 5))


def test_same_result_with_one_thread_or_many():
    utterances = [draw(n, 30 + n, 12, spread=1.0) for n in range(12)]

    def decode(log_probs):
        return beam_search(log_probs, BeamOptions(beam=8, nbest=4))

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(decode, utterances)) == list(map(decode, utterances))


def test_no_frames():
    (found,) = beam_search(np.zeros((0, 4), np.float32))
    assert found.labels == found.spans == found.confidences == ()
    assert found.score == 0


@pytest.mark.parametrize("search", [beam_search, greedy])
@pytest.mark.parametrize("value", [np.nan, -np.inf, np.inf])
def test_bad_frames_are_named(search, value):
    log_probs = draw(0, 6, 3)
    log_probs[4] = value
    with pytest.raises(InputError, match="frame 4 of 6"):
        search(log_probs)
    log_probs[2, 1] = np.nan
    with pytest.raises(InputError, match="frame 2 of 6"):
        search(log_probs)


def test_bad_options():
    for wrong in (
        {"beam": 0},
        {"nbest": 0},
        {"lm_weight": -1},
        {"lm_weight": 1e308},
        {"score_prune": math.nan},
        {"bonus": math.inf},
        {"bonus": -101},
        {"blank_skip": 0.0},
        {"blank_skip": math.nan},
    ):
        with pytest.raises(InputError, match=next(iter(wrong))):
            BeamOptions(**wrong)
    with pytest.raises(InputError, match="bound to 2 symbols, expected 3"):
        beam_search(draw(0, 4, 3), BeamOptions(lm_weight=1), LM.bind(["<blank>", "a"]))


def test_greedy_by_hand():
    p = np.array([[0.6, 0.4], [0.2, 0.8], [0.3, 0.7], [0.9, 0.1], [0.4, 0.6]])
    found = greedy(np.log(p))
    assert found.labels == (1, 1)
    assert found.spans == ((1, 3), (4, 5))
    assert found.confidences == pytest.approx((0.75, 0.6))
    assert found.score == pytest.approx(math.log(0.6 * 0.8 * 0.7 * 0.9 * 0.6))
    assert greedy(np.zeros((0, 3))).labels == ()


def label_search(beam):
    return label_beam.Search(
        beam,
        3,
        label_beam.most_labels(3, beam, True),
        math.exp(-20.0),
        12.0,
        math.log(0.9),
        0.2,
        0.7,
        LM.bind(SYMBOLS),
    )


def as_lists(finals):
    return [(final.codes.tolist(), *final[1:5], final.current.tolist()) for final in finals]


def begun_with_little_room(search):
    """With room for next to nothing, the tree is pruned all the time."""
    state = label_beam.begin(search)
    state.work = roomy(state.work, 1, state.work.width, 2 * search.beam, search)
    return state


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    cuts=st.lists(st.integers(0, 70), max_size=8),
    beam=st.integers(1, 30),
    width=st.sampled_from([1, label_beam.ROOM]),
)
def test_frames_in_pieces_give_what_they_give_at_once(seed, cuts, beam, width):
    log_probs = draw(seed, 70, 3, spread=1.0)
    tops, search, horizon = log_probs.max(axis=1), label_search(beam), Horizon(20, 0, 20)
    state = begun_with_little_room(search)
    state.work = roomy(state.work, 1, min(width, beam), 2 * beam, search)
    whole = deepcopy(state)
    for piece in np.split(np.arange(70), sorted(cuts)):
        before, finals = deepcopy(state), as_lists(label_beam.found(state, search))
        label_beam.advance(state, log_probs[piece], tops[piece], search, horizon)
        assert as_lists(label_beam.found(before, search)) == finals
    label_beam.advance(whole, log_probs, tops, search, horizon)
    assert as_lists(label_beam.found(state, search)) == as_lists(label_beam.found(whole, search))
    assert state.reached == whole.reached


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32), beam=st.integers(1, 30))
def test_what_is_settled_stays(seed, beam):
    log_probs = draw(seed, 200, 3, spread=3.0)
    tops, search = log_probs.max(axis=1), label_search(beam)
    state = begun_with_little_room(search)
    said = []
    for t in range(0, 200, 10):
        label_beam.advance(state, log_probs[t : t + 10], tops[t : t + 10], search)
        codes, current = all_begin_with(state)
        assert codes[: len(said)] == said
        assert current.shape == (2, len(codes) + 1)
        said = codes
    for kept in label_beam.found(state, search):
        assert kept.codes[: len(said)].tolist() == said


def test_a_day_of_speech_takes_no_more_room_than_its_beginning():
    log_probs = np.tile(draw(1, 1000, 3, spread=3.0), (3, 1))
    tops, search = log_probs.max(axis=1), label_search(20)
    state = label_beam.begin(search)
    n_bytes = []
    for t in range(0, 3000, 8):
        frames = log_probs[t : t + 8], tops[t : t + 8]
        label_beam.advance(state, *frames, search, Horizon(8, 0, 25))
        n_bytes.append(sum(array.nbytes for array in state.work[:3]))
    assert n_bytes[-1] == n_bytes[len(n_bytes) // 3]
