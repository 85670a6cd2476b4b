"""At generous beams the searches agree with those that people install today."""

import math

import numpy as np
import pytest
import torch
from decode_oracle import draw, sum_of_paths

from asr.decode.lexicon import Lexicon
from asr.decode.search.beam import BeamOptions, beam_search
from asr.lm.ngram import NGram

pytestmark = pytest.mark.slow

LABELS = ["_", *"abcdefgh"]
WIDE = {"beam": 400, "label_prune": math.inf, "score_prune": math.inf}


def test_flashlight_agrees():
    pytest.importorskip("flashlight.lib.text")
    from torchaudio.models.decoder import ctc_decoder

    decoder = ctc_decoder(
        lexicon=None,
        tokens=LABELS,
        beam_size=400,
        beam_threshold=1e3,
        log_add=True,
        blank_token="_",
        sil_token="_",
    )
    for seed in range(20):
        log_probs = draw(seed, 40, len(LABELS), spread=2.5)
        ours = beam_search(log_probs, BeamOptions(**WIDE))[0]
        theirs = tuple(decoder(torch.from_numpy(log_probs)[None])[0][0].tokens.tolist())
        if ours.labels != theirs:
            assert ours.acoustic > sum_of_paths(log_probs, theirs)


def test_pyctcdecode_agrees():
    peer = pytest.importorskip("pyctcdecode")
    decoder = peer.build_ctcdecoder(["", *LABELS[1:]])
    for seed in range(20):
        log_probs = draw(seed, 40, len(LABELS), spread=2.5)
        ours = beam_search(log_probs, BeamOptions(**WIDE))[0]
        text = decoder.decode(log_probs, 400, beam_prune_logp=-1e3, token_min_logp=-1e3)
        theirs = tuple(LABELS.index(c) for c in text)
        if ours.labels != theirs:
            assert ours.acoustic > sum_of_paths(log_probs, theirs)


def test_flashlight_finds_the_same_words(tmp_path):
    pytest.importorskip("flashlight.lib.text")
    pytest.importorskip("kenlm")
    from torchaudio.models.decoder import ctc_decoder

    spelled = {"cab": "cab", "bad": "bad", "a": "a", "ahead": "ahed", "had": "had"}
    ngram = NGram.estimate([["a", "bad", "cab"], ["had", "a", "cab"], ["ahead", "bad", "a"]], 2)
    ngram.write_arpa(tmp_path / "lm.arpa")
    lines = [f"{word} {' '.join(letters)}" for word, letters in spelled.items()]
    (tmp_path / "lexicon").write_text("\n".join(lines) + "\n")
    # Its words begin after a silence, here one that is never heard.
    decoder = ctc_decoder(
        lexicon=str(tmp_path / "lexicon"),
        tokens=[*LABELS, "|"],
        lm=str(tmp_path / "lm.arpa"),
        lm_weight=0.7 * math.log(10),
        word_score=0.3,
        beam_size=400,
        beam_threshold=1e3,
        log_add=True,
        blank_token="_",
    )
    lexicon = Lexicon.build(
        [(word, tuple(map(LABELS.index, letters))) for word, letters in spelled.items()]
    )
    options = BeamOptions(lm_weight=0.7, bonus=0.3, nbest=400, **WIDE)
    rng = np.random.default_rng(0)
    agreed = 0
    for seed in range(20):
        said = rng.choice(list(spelled), size=5)
        frames = [label for word in said for c in spelled[word] for label in (LABELS.index(c), 0)]
        log_probs = draw(seed, len(frames), len(LABELS), spread=1.5)
        log_probs[np.arange(len(frames)), frames] += 3
        log_probs -= np.log(np.exp(log_probs).sum(axis=1, keepdims=True))
        found = beam_search(log_probs, options, lexicon.bind(ngram), lexicon)
        silent = np.pad(log_probs, [(0, 0), (0, 1)], constant_values=-1000)
        theirs = decoder(torch.from_numpy(silent)[None])[0][0].words
        agreed += found[0].words == tuple(theirs)
        # It does not sum the paths that end in blank with those that end in a label.
        assert tuple(theirs) in {h.words for h in found}
    assert agreed >= 15
