"""Exported models say in onnxruntime what they say in PyTorch, and carry what using them takes."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from running import asr

from asr.audio.features import FeatureConfig, Statistics
from asr.audio.windows import WindowConfig
from asr.data.manifest import read_manifest
from asr.decode.config import DecoderConfig
from asr.decode.viterbi import Transitions
from asr.errors import InputError
from asr.labels import LabelConfig, Labels
from asr.lm.ngram import NGram
from asr.model.bundle import Bundle
from asr.model.onnx import export
from asr.model.pretrained import load_model
from asr.model.weights import load_bundle
from asr.nets.acoustic import AcousticModel
from asr.nets.cells import CELLS
from asr.nets.config import RecurrentConfig
from asr.recognize.recognizer import Recognizer

onnxruntime = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

DOCS = Path(__file__).parents[2] / "docs" / "export.md"
LABELS = Labels("char", ("<blank>", "<space>", *"abcdé"))
LENGTHS = [1, 159, 160, 161, 479, 480, 1000, 4321, 16_000, 16_007, 25_000]


def bundle_of(features, architecture):
    torch.manual_seed(1)
    model = AcousticModel(architecture, features.size, len(LABELS), features.n_mels).eval()
    for parameter in model.parameters():
        # Biases that start at zero would hide that they are in the wrong place.
        torch.nn.init.uniform_(parameter, -0.3, 0.3)
    generator = torch.Generator().manual_seed(2)
    stats = Statistics(
        torch.randn(features.n_mels, generator=generator).numpy() - 5,
        torch.rand(features.n_mels, generator=generator).numpy() + 1,
    )
    return Bundle(features, architecture, LABELS, LabelConfig("char"), "ctc", model, stats=stats)


def noise(lengths, seed=3):
    draw = np.random.default_rng(seed)
    return [(0.1 * draw.standard_normal(n)).astype(np.float32) for n in lengths]


def session_of(path):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def run(session, waveforms, filling=0.0):
    """Waveforms as one batch -> log-probabilities of each."""
    n_samples = np.array([len(w) for w in waveforms])
    batch = np.full((len(waveforms), max(1, *n_samples)), filling, np.float32)
    for row, waveform in zip(batch, waveforms, strict=True):
        row[: len(waveform)] = waveform
    inputs = {"waveform": batch, "n_samples": n_samples}
    log_probs, lens = session.run(["log_probs", "lens"], inputs)
    return [row[:n] for row, n in zip(log_probs, lens, strict=True)]


def assert_equal(found, wanted, atol=1e-4):
    assert [f.shape for f in found] == [w.shape for w in wanted]
    for f, w in zip(found, wanted, strict=True):
        np.testing.assert_allclose(f, w, rtol=0, atol=atol)


def check(bundle, path):
    """Alone and in batches, whatever the padding holds, the graph gives what PyTorch gives."""
    export(bundle, path)
    session, waveforms = session_of(path), noise(LENGTHS)
    wanted = Recognizer(bundle).emissions(waveforms)
    assert_equal([run(session, [w])[0] for w in waveforms], wanted)
    together = run(session, waveforms)
    assert_equal(together, wanted)
    for filling in (1.0, np.nan):
        assert_equal(run(session, waveforms, filling), together, atol=1e-6)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_every_cell(cell, bidirectional, tmp_path):
    architecture = RecurrentConfig(cell, layers=2, hidden=12, bidirectional=bidirectional)
    check(bundle_of(FeatureConfig(n_mels=20), architecture), tmp_path / "model.onnx")


@pytest.mark.parametrize(
    "parts",
    [
        {"layers": 3, "subsample": (2, 1, 3)},
        {"units": (10, 7), "between": (9, 8), "after": (6,)},
        {"layers": 3, "residual": True, "layer_norm": True},
        {"layers": 1, "conv": (4, 3)},
        {"layers": 2, "subsample": (1, 2), "residual": True, "after": (9,), "layer_norm": True},
    ],
)
def test_every_part_between_the_layers(parts, tmp_path):
    architecture = RecurrentConfig(**{"hidden": 12, **parts})
    check(bundle_of(FeatureConfig(n_mels=20), architecture), tmp_path / "model.onnx")


@pytest.mark.parametrize(
    "config",
    [
        FeatureConfig(n_mels=20, normalize="global", stack=1),
        FeatureConfig(n_mels=20, normalize="none", deltas=1),
        FeatureConfig(n_mels=20, normalize="speaker", deltas=2, stack=1),
        FeatureConfig(n_mels=80, stack=4),
        FeatureConfig(8_000, 256, 200, 80, 23, 0.0, 3_600.0),
        FeatureConfig(n_fft=400, n_mels=20, ignore_silence=False),
        FeatureConfig(max_hz=7600, stack=4, log_mel="kaldi"),
    ],
)
def test_every_feature(config, tmp_path):
    check(bundle_of(config, RecurrentConfig(layers=1, hidden=12)), tmp_path / "model.onnx")


@pytest.mark.parametrize("normalize", ["utterance", "global", "none"])
@pytest.mark.parametrize("ignore_silence", [True, False])
def test_silence(normalize, ignore_silence, tmp_path):
    """Alone it is nothing but silence; beside speech both hear the same of it."""
    features = FeatureConfig(n_mels=20, normalize=normalize, ignore_silence=ignore_silence)
    bundle = bundle_of(features, RecurrentConfig(layers=1, hidden=12))
    export(bundle, tmp_path / "model.onnx")
    session = session_of(tmp_path / "model.onnx")
    zeros, hiss = np.zeros(20_000, np.float32), 1e-3 * noise([30_000])[0]
    alone = run(session, [zeros, hiss, zeros[:1], hiss[:700]])
    assert_equal(alone, Recognizer(bundle).emissions([zeros, hiss, zeros[:1], hiss[:700]]))
    assert all((log_probs[:, 0] == 0).all() for log_probs in alone)
    beside = [np.concatenate([noise([9_000])[0], x]) for x in (zeros, hiss)]
    hears_all = Recognizer(bundle, windowing=WindowConfig(skip_silence=False))
    beside += noise([9_000])  # a batch has rows of all kinds
    assert_equal(run(session, beside), hears_all.emissions(beside))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("normalize", ["global", "none"])
def test_streaming_in_pieces_equals_the_whole(cell, normalize, tmp_path):
    features = FeatureConfig(n_mels=20, normalize=normalize)
    architecture = RecurrentConfig(
        cell, layers=2, hidden=12, bidirectional=False, subsample=(2, 1), layer_norm=True
    )
    bundle = bundle_of(features, architecture)
    export(bundle, tmp_path / "model.onnx", streaming=True)
    session = session_of(tmp_path / "model.onnx")
    for waveform in noise(LENGTHS):
        wanted = Recognizer(bundle).emissions([waveform])
        for frames in (6, 24, 600):
            assert_equal([streamed(session, waveform, frames)], wanted)


def streamed(session, waveform, frames, hop=160, window=400):
    """Log-probabilities of a waveform that comes ``frames`` log-mel frames at a time."""
    n_frames = len(waveform) // hop + 1
    padded = np.zeros(n_frames * hop + window, np.float32)
    padded[window // 2 : window // 2 + len(waveform)] = waveform
    states = {
        i.name: np.zeros((1, i.shape[1]), np.float32)
        for i in session.get_inputs()
        if i.name != "waveform"
    }
    pieces = []
    for first in range(0, n_frames, frames):
        last = min(first + frames, n_frames) - 1
        piece = padded[None, first * hop : last * hop + window]
        log_probs, *after = session.run(None, {"waveform": piece, **states})
        states = dict(zip(states, after, strict=True))
        pieces.append(log_probs[0])
    return np.concatenate(pieces)


@pytest.mark.parametrize(
    ("features", "parts", "reason"),
    [
        (FeatureConfig(normalize="none"), {"bidirectional": True}, "bidirectional"),
        (FeatureConfig(normalize="utterance"), {}, "each utterance as a whole"),
        (FeatureConfig(normalize="none", deltas=1), {}, "deltas"),
        (FeatureConfig(normalize="none"), {"conv": (2,)}, "convolutions"),
    ],
)
def test_what_cannot_stream(features, parts, reason, tmp_path):
    architecture = RecurrentConfig(**{"layers": 1, "hidden": 4, "bidirectional": False} | parts)
    with pytest.raises(InputError, match=f"--streaming: this model .*{reason}"):
        export(bundle_of(features, architecture), tmp_path / "model.onnx", streaming=True)
    assert not (tmp_path / "model.onnx").exists()


def test_metadata(tmp_path):
    bundle = bundle_of(FeatureConfig(n_mels=20), RecurrentConfig(layers=1, hidden=4))
    bundle.decoder = DecoderConfig("beam", beam=7, lm_weight=0.4, bonus=1.5)
    bundle.label_lm = NGram.estimate([["a", "b"], ["b"]], 2)
    export(bundle, tmp_path / "model.onnx")
    found = session_of(tmp_path / "model.onnx").get_modelmeta().custom_metadata_map
    assert json.loads(found["labels"]) == list(LABELS.symbols)
    assert json.loads(found["sample_rate"]) == 16_000
    assert json.loads(found["frame_shift_s"]) == pytest.approx(0.03)
    decoder = Recognizer.load(tmp_path / "model.onnx").bundle.decoder
    # The label language model stays behind, and with it what was tuned for it.
    assert decoder == DecoderConfig("beam", beam=7)


def test_an_exported_model_transcribes_as_its_directory(tone_run, tmp_path, monkeypatch, capsys):
    path = tmp_path / "model.onnx"
    code, out, _ = asr(monkeypatch, capsys, "export", "--model", tone_run, "--onnx", path)
    assert code == 0
    assert re.fullmatch(r".*model\.onnx: .* MB, 16000 Hz -> \d+ labels every .* ms\n", out)
    said = read_manifest(tone_run / "manifests/test.jsonl")
    files = [u.audio for u in said]
    # The file has neither lexicon nor language models.
    labels = ("--decoder", "beam", "--no-lexicon", "--lm", "none")
    options = (*labels, "--format", "json", *files)
    outputs = [
        asr(monkeypatch, capsys, "transcribe", "--model", model, *options)[1].splitlines()
        for model in (tone_run / "model", path)
    ]
    lexicon = Recognizer.load(path, lexicon=tone_run / "model" / "lexicon.txt")
    assert lexicon.transcribe(files[0]).words
    for one, other in zip(*map(list, outputs), strict=True):
        one, other = json.loads(one), json.loads(other)
        assert [s["label"] for s in one["labels"]] == [s["label"] for s in other["labels"]]
        assert [s["end_s"] for s in one["labels"]] == [s["end_s"] for s in other["labels"]]


def test_a_framewise_model_takes_its_transitions_along(tmp_path):
    bundle = bundle_of(FeatureConfig(n_mels=20), RecurrentConfig(layers=1, hidden=12))
    draw, V = np.random.default_rng(5), len(LABELS)
    bigram = np.log(draw.dirichlet(np.ones(V), V))
    np.fill_diagonal(bigram, -np.inf)
    bundle.transitions = Transitions(
        bigram, *np.log(draw.dirichlet(np.ones(V), 2)), np.full(V, 2, np.int32), np.full(V, -2.0)
    )
    bundle.criterion, bundle.decoder = "framewise", DecoderConfig("viterbi", transition_weight=2.0)
    export(bundle, tmp_path / "model.onnx")
    with pytest.raises(InputError, match=f"the transitions know {V} labels, the model has {V - 1}"):
        replace(bundle, labels=Labels("char", LABELS.symbols[:-1]))
    (waveform,) = noise([16_000])
    found = Recognizer.load(tmp_path / "model.onnx").transcribe(waveform)
    wanted = Recognizer(bundle).transcribe(waveform)
    assert len(wanted.labels) > 1
    assert [(s.label, s.end_s) for s in found.labels] == [(s.label, s.end_s) for s in wanted.labels]


def test_packages_that_are_not_installed(tmp_path, monkeypatch):
    bundle = bundle_of(FeatureConfig(n_mels=20), RecurrentConfig(layers=1, hidden=4))
    export(bundle, tmp_path / "model.onnx")
    for package in ("onnx", "onnxruntime"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=r"needs the onnx package: pip install .*\[onnx\]"):
        export(bundle, tmp_path / "model.onnx")
    with pytest.raises(InputError, match=r"needs the onnxruntime package: pip install .*\[onnx\]"):
        Recognizer.load(tmp_path / "model.onnx")


def test_only_our_own_nets_are_exported(tmp_path):
    export(
        bundle_of(FeatureConfig(n_mels=20), RecurrentConfig(layers=1, hidden=4)),
        tmp_path / "model.onnx",
    )
    with pytest.raises(InputError, match="give a model directory"):
        export(load_model(tmp_path / "model.onnx"), tmp_path / "again.onnx")


def test_a_streaming_file_is_not_for_transcribing(tmp_path):
    architecture = RecurrentConfig(layers=1, hidden=4, bidirectional=False)
    bundle = bundle_of(FeatureConfig(n_mels=20, normalize="none"), architecture)
    export(bundle, tmp_path / "model.onnx", streaming=True)
    with pytest.raises(InputError, match="--streaming"):
        load_model(tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ([*LABELS.symbols, "x", "y"], "puts out 7 labels, and its metadata name 9"),
        (LABELS.symbols[:-1], "puts out 7 labels, and its metadata name 6"),
        ("abc", "expected a list of strings"),
        ([0, 1, 2, 3, 4, 5, 6], "expected a list of strings"),
    ],
)
def test_metadata_with_other_labels_than_the_net_are_refused(labels, told, tmp_path):
    path = tmp_path / "model.onnx"
    export(bundle_of(FeatureConfig(n_mels=20), RecurrentConfig(layers=1, hidden=4)), path)
    model = onnx.load(path)
    (entry,) = [entry for entry in model.metadata_props if entry.key == "labels"]
    entry.value = json.dumps(labels)
    onnx.save(model, path)
    with pytest.raises(InputError, match=told):
        load_model(path)


def test_the_file_has_to_be_onnx(tone_run, tmp_path, monkeypatch, capsys):
    code, _, err = asr(
        monkeypatch, capsys, "export", "--model", tone_run, "--onnx", tmp_path / "model.pt"
    )
    assert code == 2
    assert err.count("\n") == 1
    assert "ends in .onnx" in err


def snippets(language):
    found = re.findall(rf"```{language}\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    # sherpa-onnx is tried in test_sherpa.py.
    return [snippet for snippet in found if "sherpa_onnx" not in snippet]


@pytest.fixture(scope="module")
def example(tone_run, tmp_path_factory):
    """A folder with what the examples of the documentation read, and what is said in it."""
    folder = tmp_path_factory.mktemp("example")
    utterance = read_manifest(tone_run / "manifests/test.jsonl")[0]
    waveform, rate = soundfile.read(utterance.audio)
    soundfile.write(folder / "a.wav", waveform, rate, "PCM_16")
    bundle = load_bundle(tone_run)
    bundle.labels.save(folder / "labels.txt")
    export(bundle, folder / "model.onnx")
    transcript = Recognizer.load(tone_run, decoder="greedy").transcribe(folder / "a.wav")
    return folder, transcript.text


def test_python_example(example, monkeypatch, capsys):
    folder, text = example
    monkeypatch.chdir(folder)
    exec(snippets("python")[0], {})
    assert capsys.readouterr().out == f"{text}\n"


def test_streaming_example(tmp_path, monkeypatch, capsys):
    bundle = bundle_of(
        FeatureConfig(n_mels=20, normalize="none"),
        RecurrentConfig(layers=2, hidden=12, bidirectional=False),
    )
    export(bundle, tmp_path / "streaming.onnx", streaming=True)
    (waveform,) = noise([25_000])
    soundfile.write(tmp_path / "a.wav", waveform, 16_000, "FLOAT")
    monkeypatch.chdir(tmp_path)
    exec(snippets("python")[1], {})
    found = [int(word) for word in re.findall(r"\d+", capsys.readouterr().out)]
    assert found == Recognizer(bundle).emissions([waveform])[0].argmax(axis=1).tolist()


def test_javascript_example(example):
    folder, text = example
    node = shutil.which("node")
    if node is None or subprocess.run([node, "-e", 'require("onnxruntime-web")']).returncode:
        pytest.skip("no node, or no onnxruntime-web on its NODE_PATH")
    (folder / "example.js").write_text(snippets("js")[0], encoding="utf-8")
    found = subprocess.run(
        [node, "example.js"], cwd=folder, capture_output=True, text=True, check=True
    )
    assert found.stdout == f"{text}\n"
