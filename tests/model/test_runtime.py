"""Models without PyTorch hear what they hear with it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from running import asr

from asr.audio.features import FeatureConfig, Statistics
from asr.data.manifest import read_manifest
from asr.errors import InputError
from asr.labels import LabelConfig, Labels
from asr.model.bundle import Bundle
from asr.model.emissions import waveform_emissions
from asr.model.onnx_folder import write_runtime
from asr.model.pretrained import load_model
from asr.model.stream import EmissionStream, choose_latency
from asr.nets.acoustic import AcousticModel, Ensemble
from asr.nets.config import Latency, RecurrentConfig
from asr.recognize.recognizer import Recognizer

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

N_MELS = 12
LABELS = Labels("phone", ("<blank>", "a", "b", "c"))
KINDS: dict[str, tuple[dict, dict]] = {
    "whole": ({"conv": (3,), "layer_norm": True}, {"normalize": "utterance"}),
    "pyramid": ({"subsample": (2, 1)}, {"normalize": "speaker", "deltas": 2, "stack": 1}),
    "forward": ({"bidirectional": False}, {"normalize": "global"}),
    "kaldi": ({}, {"normalize": "utterance", "log_mel": "kaldi"}),
    "chunks": ({"chunk": (4, 2), "lookahead": (3, 0), "conv": (2,)}, {"normalize": "online"}),
    "row": ({"bidirectional": False, "future": 2}, {"normalize": "online"}),
}
#: Ends a process that imports PyTorch.
BLOCKED = (
    "import sys; sys.modules |= {'torch': None, 'torchaudio': None}; "
    "from asr.cli import main; sys.argv[0] = 'asr'; main()"
)


def bundle_of(kind: str) -> Bundle:
    torch.manual_seed(0)
    net, features = KINDS[kind]
    config = FeatureConfig(n_mels=N_MELS, **features)
    architecture = RecurrentConfig(layers=2, hidden=5, **net)
    model = AcousticModel(architecture, config.size, len(LABELS), N_MELS).eval()
    for parameter in model.parameters():
        torch.nn.init.uniform_(parameter, -0.5, 0.5)
    stats = Statistics(np.full(N_MELS, -6, np.float32), np.full(N_MELS, 2, np.float32))
    given = stats if config.normalize in ("global", "online") else None
    return Bundle(config, architecture, LABELS, LabelConfig("phone"), "ctc", model, stats=given)


def sound(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    envelope = np.repeat(rng.uniform(0.01, 0.4, n // 800 + 1), 800)[:n]
    return (envelope * rng.standard_normal(n)).clip(-1, 1).astype(np.float32)


def exported(bundle: Bundle, folder) -> Bundle:
    write_runtime(bundle, folder)
    return load_model(folder)


def assert_same(found, wanted) -> None:
    assert [f.shape for f in found] == [w.shape for w in wanted]
    for f, w in zip(found, wanted, strict=True):
        np.testing.assert_allclose(f, w, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_wholes_are_heard_alike(kind: str, tmp_path) -> None:
    bundle = bundle_of(kind)
    waveforms = [sound(n, n) for n in (1, 500, 7000, 20_001)]
    # Long silence is spared, or not, as with PyTorch.
    waveforms.append(np.concatenate([sound(9000), np.zeros(40_000, np.float32), sound(9000, 1)]))
    found = waveform_emissions(exported(bundle, tmp_path / "model"), waveforms)
    assert_same(found, waveform_emissions(bundle, waveforms))


def test_an_ensemble_is_heard_alike(tmp_path) -> None:
    bundle = bundle_of("whole")
    other = bundle_of("whole")
    with torch.no_grad():
        other.model.output.weight += 1
    both = replace(
        bundle, model=Ensemble([bundle.model, other.model]), others=(other.architecture,)
    )
    waveforms = [sound(n, n) for n in (500, 7000)]
    found = waveform_emissions(exported(both, tmp_path / "model"), waveforms)
    assert_same(found, waveform_emissions(both, waveforms))


@pytest.mark.parametrize("kind", ["chunks", "row", "forward"])
def test_streams_are_heard_alike_and_begin_anew_alike(kind: str, tmp_path) -> None:
    bundle = bundle_of(kind)
    light = exported(bundle, tmp_path / "model")
    shift_ms = 1000 * bundle.clock.shift_s
    latencies = bundle.architecture.latencies or (Latency(1, 0),)
    assert light.model.latencies == tuple(latencies)
    for latency in latencies:
        chosen = [n * shift_ms for n in latency]
        found = []
        for each in (bundle, light):
            assert choose_latency(each, *chosen) == latency
            stream = EmissionStream(each, *chosen)
            parts = []
            for at in range(0, 16_000, 1000):
                stream.accept(sound(16_000)[at : at + 1000], 16_000)
                parts.append(stream.take())
                if at == 7000:
                    stream.renew()
            stream.finish()
            found.append((stream.latency_s, np.concatenate([*parts, stream.take()])))
        assert found[0][0] == found[1][0]
        assert_same([found[1][1]], [found[0][1]])
    if len(latencies) > 1:
        with pytest.raises(InputError, match="expected what the model is trained for"):
            choose_latency(light, 777 * shift_ms)


def without_torch(*words) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", BLOCKED, *map(str, words)]
    return subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )


@pytest.fixture(scope="module")
def folder(tone_run, tmp_path_factory):
    """The tones' model for onnxruntime."""
    path = tmp_path_factory.mktemp("runtime") / "model"
    write_runtime(load_model(tone_run), path)
    return path


def test_commands_do_without_pytorch(tone_run, folder, tmp_path, monkeypatch, capsys) -> None:
    said = read_manifest(tone_run / "manifests/test.jsonl")
    files = [u.audio for u in said]
    options = ("--format", "json", *files)
    wanted = asr(monkeypatch, capsys, "transcribe", "--model", tone_run, *options)[1]
    done = without_torch("transcribe", "--model", folder, *options)
    assert (done.returncode, done.stderr) == (0, "")
    for one, other in zip(wanted.splitlines(), done.stdout.splitlines(), strict=True):
        assert _times(one) == _times(other)
    text = tmp_path / "text.txt"
    text.write_text(said[0].text)
    aligned = [
        run("align", files[0], text, "--model", model, "--format", "jsonl")
        for run, model in (
            (lambda *words: asr(monkeypatch, capsys, *words)[1], tone_run),
            (lambda *words: without_torch(*words).stdout, folder),
        )
    ]
    assert _times(aligned[0]) == _times(aligned[1])
    done = without_torch(
        "score", tone_run / "manifests/test.jsonl", tone_run / "manifests/test.jsonl"
    )
    assert done.returncode == 0, done.stderr


def _times(line: str) -> tuple:
    told = json.loads(line)
    labels, words = ([tuple(s.values())[:3] for s in told[k]] for k in ("labels", "words"))
    return told["text"], labels, words


def test_listening_does_without_pytorch(live_run, tmp_path, monkeypatch, capsys) -> None:
    write_runtime(load_model(live_run), tmp_path / "model")
    audio = read_manifest(live_run / "manifests/test.jsonl")[0].audio
    wanted = asr(monkeypatch, capsys, "listen", audio, "--model", live_run)
    done = without_torch("listen", audio, "--model", tmp_path / "model")
    assert (done.returncode, done.stdout) == wanted[:2]
    assert wanted[1].strip()


def test_serving_needs_no_pytorch() -> None:
    pytest.importorskip("starlette")
    code = BLOCKED.split("; from")[0] + "; import asr.serve.run, asr.recognize.files"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_model_of_pytorch_tells_what_it_needs(tone_run) -> None:
    done = without_torch("transcribe", "--model", tone_run, "a.wav")
    assert done.returncode == 2
    assert "needs torch, which is not installed" in done.stderr
    assert "asr export --model DIR --out FOLDER" in done.stderr


def test_adapting_needs_pytorch(folder) -> None:
    done = without_torch("transcribe", "--adapt", "--model", folder, "a.wav")
    assert (done.returncode, done.stdout) == (2, "")
    assert "adapting to speakers needs torch, which is not installed" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_broken_folders_are_told(folder, tmp_path, monkeypatch, capsys) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    net = (broken / "net.onnx").read_bytes()
    for content, told in ((net[:100], "not a readable ONNX model"), (None, r"holds no net\.onnx")):
        if content is None:
            (broken / "net.onnx").unlink()
        else:
            (broken / "net.onnx").write_bytes(content)
        with pytest.raises(InputError, match=told):
            load_model(broken)
    (broken / "net.onnx").write_bytes(net)
    labels = (broken / "labels.txt").read_text().splitlines()
    (broken / "labels.txt").write_text("\n".join(labels[:-1]) + "\n")
    (broken / "lexicon.txt").unlink()
    with pytest.raises(InputError, match=r"log_priors|configuration says"):
        load_model(broken)
    with pytest.raises(InputError, match="computes on the CPU"):
        load_model(folder, "cuda")
    with pytest.raises(InputError, match="precision bfloat16 is for models that asr train wrote"):
        Recognizer(load_model(folder), precision="bfloat16")
    code, _, err = asr(monkeypatch, capsys, "export", "--model", folder, "--out", folder)
    assert code != 0
    assert "exists and is not" in err or "weights" in err
