import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.decode.search.beam import BeamOptions, beam_search, label_search
from asr.decode.search.each import acoustic_scores, search_each
from asr.lm.ngram import NO_LM, NGram

V = 5
LM = NGram.estimate([list("abab"), list("cdd"), list("abd"), list("c")], 3).bind(
    ("<blank>", *"abcd")
)


def frames(seed, n, most):
    """Log-probabilities (n, most, V) and lengths (n,)."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(0, 2, (n, most, V)).astype(np.float32)
    log_probs = scores - np.log(np.exp(scores).sum(2, keepdims=True))
    return log_probs.astype(np.float32), rng.integers(1, most + 1, n)


@pytest.mark.parametrize("lm_weight", [0.0, 0.7])
@given(seed=st.integers(0, 10_000), most=st.integers(1, 9), beam=st.sampled_from([1, 3, 20]))
@settings(max_examples=40, deadline=None)
def test_finds_what_the_search_of_each_alone_finds(lm_weight, seed, most, beam):
    log_probs, lens = frames(seed, 4, most)
    options = BeamOptions(beam=beam, nbest=beam, lm_weight=lm_weight, bonus=0.3)
    search = label_search(options, LM if lm_weight else NO_LM, V)
    found = search_each(log_probs, lens, search, beam)
    for i, n in enumerate(lens):
        alone = beam_search(log_probs[i, :n], options, LM)
        scores = found.acoustic[i] + found.added[i]
        each = {
            tuple(found.labels[i, k, : found.n_labels[i, k]].tolist()): scores[k]
            for k in range(beam)
            if found.n_labels[i, k] >= 0
        }
        assert each == pytest.approx({h.labels: h.score for h in alone})


def test_sums_over_paths_are_those_of_the_frames_given():
    log_probs, lens = frames(3, 5, 7)
    found = search_each(log_probs, lens, label_search(BeamOptions(beam=6), NO_LM, V), 6)
    again = acoustic_scores(log_probs, lens, found.labels, found.n_labels)
    there = found.n_labels >= 0
    assert again[there] == pytest.approx(found.acoustic[there])
    assert (again[~there] == -np.inf).all()
