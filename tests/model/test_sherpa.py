"""What sherpa-onnx hears with an exported model."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from asr.audio.features import FeatureConfig
from asr.audio.read import load_audio
from asr.data.matrices import matrix_of
from asr.decode.config import DecoderConfig
from asr.decode.greedy import greedy
from asr.decode.lexicon import Lexicon
from asr.decode.paths import ctc_align_words
from asr.errors import InputError
from asr.labels import LabelConfig, Labels
from asr.lm.ngram import NGram
from asr.model.bundle import Bundle
from asr.model.emissions import waveform_emissions
from asr.model.onnx_folder import write_runtime
from asr.model.sherpa import FEATURES, GRAPH, MODEL, TOKENS, WORDS, write_sherpa
from asr.model.waveform import WaveformModel
from asr.nets.acoustic import AcousticModel
from asr.nets.config import RecurrentConfig

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

SO762 = Path(__file__).parents[3] / "shared" / "data" / "so762"
LABELS = Labels("phone", ("<blank>", "aa", "b", "h#", "é"))
LEXICON = Lexicon.build([("baa", (2, 1)), ("ab", (1, 2)), ("ab", (4, 2))], separators=(3,))


def bundle_of(features: FeatureConfig = FEATURES, **net) -> Bundle:
    torch.manual_seed(3)
    config = RecurrentConfig(**{"layers": 2, "hidden": 8, "conv": (2,), **net})
    model = AcousticModel(config, features.size, len(LABELS), features.n_mels).eval()
    for parameter in model.parameters():
        torch.nn.init.uniform_(parameter, -0.8, 0.8)
    return Bundle(features, config, LABELS, LabelConfig("phone"), "ctc", model)


def talk(n: int, seed: int) -> np.ndarray:
    """Noise that comes and goes, without a pause that would be spared."""
    rng = np.random.default_rng(seed)
    envelope = np.repeat(rng.uniform(0.02, 0.4, n // 1600 + 1), 1600)[:n]
    return (envelope * rng.standard_normal(n)).clip(-1, 1).astype(np.float32)


def test_the_graph_is_the_net_behind_kaldi_features(tmp_path) -> None:
    bundle = bundle_of()
    write_sherpa(bundle, tmp_path / "sherpa")
    session = onnxruntime.InferenceSession(tmp_path / "sherpa" / MODEL)
    waveforms = [talk(n, n) for n in (3000, 8000, 20_000)]
    x = [matrix_of(bundle.log_mel, w).features for w in waveforms]
    padded = np.full((3, max(map(len, x)), 80), -23.025850929940457, np.float32)
    for row, matrix in zip(padded, x, strict=True):
        row[: len(matrix)] = matrix
    inputs = {"x": padded, "x_lens": np.array([len(m) for m in x])}
    log_probs, lens = session.run(None, inputs)
    for row, n, wanted in zip(log_probs, lens, waveform_emissions(bundle, waveforms), strict=True):
        np.testing.assert_allclose(row[:n], wanted, atol=1e-4)


def test_tokens_are_read_as_labels(tmp_path) -> None:
    write_sherpa(bundle_of(), tmp_path / "sherpa")
    lines = (tmp_path / "sherpa" / TOKENS).read_text(encoding="utf-8").splitlines()
    assert lines == ["<blk> 0", "▁aa 1", "▁b 2", "▁h# 3", "▁é 4"]


@pytest.mark.parametrize(
    ("features", "net", "told"),
    [
        (FeatureConfig(), {}, r"features\.log_mel=librosa.*features=kaldi80"),
        (FeatureConfig(log_mel="kaldi", max_hz=7600, stack=3), {}, "takes it for 4"),
        (FEATURES, {"chunk": (4,), "lookahead": (0,)}, "goes? along|live CTC models"),
    ],
)
def test_what_sherpa_would_hear_otherwise_is_refused(features, net, told, tmp_path) -> None:
    with pytest.raises(InputError, match=told):
        write_sherpa(bundle_of(features, **net), tmp_path / "sherpa")
    assert not (tmp_path / "sherpa").exists()


def test_words_are_a_graph_with_numbers(tmp_path) -> None:
    bundle = replace(bundle_of(), lexicon=LEXICON, word_lm=NGram.estimate([["baa", "ab"]], 2))
    write_sherpa(bundle, tmp_path / "sherpa")
    assert (tmp_path / "sherpa" / WORDS).read_text(encoding="utf-8") == "<eps> 0\nbaa 1\nab 2\n"
    assert (tmp_path / "sherpa" / GRAPH).stat().st_size > 500


def test_sherpa_finds_words_whose_best_path_is_the_best(tmp_path) -> None:
    sherpa = pytest.importorskip("sherpa_onnx")
    bundle = bundle_of()
    bundle.lexicon, bundle.word_lm = LEXICON, NGram.estimate([["baa", "ab"], ["ab", "ab"]], 2)
    bundle.decoder = DecoderConfig(word_lm_weight=0.5, word_bonus=1.0)
    write_sherpa(bundle, tmp_path / "sherpa")
    model, tokens, graph = (str(tmp_path / "sherpa" / n) for n in (MODEL, TOKENS, GRAPH))
    recognizer = sherpa.OfflineRecognizer.from_zipformer_ctc(model, tokens, ctc_graph=graph)
    decoder = bundle.make_decoder(replace(bundle.decoder, name="beam", lexicon=True))

    def best_path(log_probs, words):
        ways = [LEXICON.spellings[LEXICON.ids[word]] for word in words]
        score = ctc_align_words(log_probs, ways, LEXICON.separators)[-1]
        return score + 0.5 * math.log(10) * bundle.word_lm.score(words) + len(words)

    for seed in range(5):
        waveform = talk(20_000, seed)
        stream = recognizer.create_stream()
        stream.accept_waveform(16_000, waveform)
        recognizer.decode_stream(stream)
        theirs = [LEXICON.words[number - 1] for number in stream.result.words]
        (log_probs,) = waveform_emissions(bundle, [waveform], skip_silence=False)
        ours = decoder(log_probs)[0].words
        assert theirs
        assert best_path(log_probs, theirs) > best_path(log_probs, ours) - 1e-3


@pytest.fixture(scope="module")
def heard(tmp_path_factory):
    """How sherpa-onnx hears a waveform, and how we do: labels, each with its first frame."""
    sherpa = pytest.importorskip("sherpa_onnx")
    bundle, folder = bundle_of(), tmp_path_factory.mktemp("sherpa") / "model"
    write_sherpa(bundle, folder)
    recognizer = sherpa.OfflineRecognizer.from_zipformer_ctc(
        model=str(folder / MODEL), tokens=str(folder / TOKENS), num_threads=1
    )

    def theirs(waveform):
        stream = recognizer.create_stream()
        stream.accept_waveform(16_000, waveform)
        recognizer.decode_stream(stream)
        found = stream.result
        return [
            (token.strip(), round(at / 0.04))
            for token, at in zip(found.tokens, found.timestamps, strict=True)
        ]

    def ours(waveform):
        (log_probs,) = waveform_emissions(bundle, [waveform], skip_silence=False)
        found = greedy(log_probs)
        return [
            (LABELS.symbols[i], first)
            for i, (first, _) in zip(found.labels, found.spans, strict=True)
        ]

    return theirs, ours


def test_greedy_labels_are_equal_to_the_frame(heard) -> None:
    theirs, ours = heard
    for seed in range(10):
        waveform = talk(16_000 + 1000 * seed, seed)
        assert theirs(waveform) == ours(waveform)
        assert ours(waveform)


@pytest.mark.skipif(not SO762.is_dir(), reason="so762 is not here")
def test_greedy_labels_of_read_sentences_are_equal_to_the_frame(heard) -> None:
    theirs, ours = heard
    files = sorted((SO762 / "TEST").rglob("*.flac"))[:100]
    equal = [theirs(w) == ours(w) for w in (load_audio(file, 16_000) for file in files)]
    # A label may change where two are equally likely but for rounding.
    assert sum(equal) >= 0.95 * len(files)


@pytest.mark.parametrize("write", [write_runtime, write_sherpa])
def test_nets_from_elsewhere_are_refused(tmp_path, write):
    bundle = replace(bundle_of(), model=WaveformModel(lambda waveform: waveform[:, None]))
    with pytest.raises(InputError, match="asr train wrote"):
        write(bundle, tmp_path / "model")
    assert not (tmp_path / "model").exists()
