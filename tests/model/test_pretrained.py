"""Models from elsewhere: the same decoders, words, times and formats; mistakes get a clear line."""

import itertools
import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from running import asr
from torchaudio import pipelines
from torchaudio.models import wav2vec2_model

from asr.errors import InputError
from asr.lm.ngram import NGram
from asr.model.pretrained import load_model
from asr.recognize.recognizer import Recognizer

TINY = {
    "extractor_conv_layer_config": [(8, 10, 5), *[(8, 3, 2)] * 4, *[(8, 2, 2)] * 2],
    "encoder_embed_dim": 16,
    "encoder_pos_conv_kernel": 8,
    "encoder_pos_conv_groups": 2,
    "encoder_num_layers": 2,
    "encoder_num_heads": 2,
    "encoder_ff_interm_features": 16,
}
GROUP_NORM, LAYER_NORM, VOXPOPULI, ALIGNER = NAMES = (
    "WAV2VEC2_ASR_BASE_960H",
    "HUBERT_ASR_LARGE",
    "VOXPOPULI_ASR_BASE_10K_DE",
    "MMS_FA",
)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """torchaudio's bundles with their own classes and settings, but small nets."""
    for name in NAMES:
        bundle = getattr(pipelines, name)
        monkeypatch.setattr(pipelines, name, replace(bundle, _params=bundle._params | TINY))


def random_weights(name, path):
    """Write a weight file in the bundle's own format; returns the net that they are of."""
    bundle = getattr(pipelines, name)
    torch.manual_seed(1)
    net = wav2vec2_model(**bundle._params).eval()
    with torch.no_grad():
        # Logits far apart make frames differ.
        net.aux.weight.mul_(30)
    state = dict(net.state_dict())
    # The files have rows of symbols that CTC training never used, which torchaudio takes out.
    for key in ("aux.weight", "aux.bias"):
        rows = list(state[key])
        for axis in sorted(bundle._remove_aux_axis):
            rows.insert(axis, torch.full_like(rows[0], 99.0))
        state[key] = torch.stack(rows)
    torch.save(state, path)
    return net


def test_aligning_and_not_tuning(tmp_path, monkeypatch, capsys):
    random_weights(GROUP_NORM, tmp_path / "weights.pth")
    model = f"torchaudio:{GROUP_NORM}={tmp_path}/weights.pth"
    soundfile.write(tmp_path / "a.wav", noise(16_000), 16_000)
    (tmp_path / "a.txt").write_text("the cat")
    files = (tmp_path / "a.wav", tmp_path / "a.txt")
    code, out, err = asr(monkeypatch, capsys, "align", "--model", model, *files, "--format", "ctm")
    assert (code, err) == (0, "")
    assert [line.split()[4] for line in out.splitlines()] == ["THE", "CAT"]
    assert all(0 <= float(line.split()[2]) <= 1 for line in out.splitlines())
    (tmp_path / "dev.jsonl").write_text('{"audio_filepath": "a.wav", "text": "the cat"}\n')
    for bad in (model, "model.onnx"):
        code, _, err = asr(monkeypatch, capsys, "tune", "--model", bad, tmp_path / "dev.jsonl")
        assert code == 2
        assert "asr tune writes what it finds into a model directory" in err
        assert err.count("\n") == 1
    lines = [f'{{"audio_filepath": "{name}.wav", "duration": 1}}\n' for name in ("a", "no")]
    (tmp_path / "bad.jsonl").write_text("".join(lines))
    words = ("align", "--model", model, tmp_path / "bad.jsonl", "--out", tmp_path / "out")
    code, out, err = asr(monkeypatch, capsys, *words)
    assert code == 1
    assert "2 of 2 utterances not aligned" in err


def noise(n, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(n)).astype(np.float32)


@pytest.mark.parametrize("name", NAMES)
def test_torchaudio_bundles(name, tmp_path):
    net = random_weights(name, tmp_path / "weights.pth")
    recognizer = Recognizer.load(f"torchaudio:{name}={tmp_path}/weights.pth")
    waveforms = [noise(n) for n in (16_000, 399, 400, 20_001)]
    found = recognizer.emissions(waveforms)
    assert [len(x) for x in found] == [49, 1, 1, 62]
    for waveform, log_probs in zip(waveforms, found, strict=True):
        x = torch.from_numpy(np.pad(waveform, (0, max(0, 400 - len(waveform)))))[None]
        if name in (LAYER_NORM, ALIGNER):
            x = (x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt()
        with torch.inference_mode():
            wanted = net(x)[0][0].log_softmax(1).numpy()
        np.testing.assert_allclose(log_probs, wanted, rtol=1e-5, atol=1e-4)


def test_text_is_what_the_labels_of_torchaudio_say(tmp_path):
    net = random_weights(GROUP_NORM, tmp_path / "weights.pth")
    recognizer = Recognizer.load(f"torchaudio:{GROUP_NORM}={tmp_path}/weights.pth")
    waveform = noise(48_000)
    transcript = recognizer.transcribe(waveform)
    with torch.inference_mode():
        best = net(torch.from_numpy(waveform)[None])[0][0].argmax(1).tolist()
    labels = getattr(pipelines, GROUP_NORM).get_labels()
    letters = [labels[i] for i, _ in itertools.groupby(best) if labels[i] != "-"]
    assert transcript.text == " ".join("".join(letters).replace("|", " ").split())
    assert transcript.text
    assert [w.label for w in transcript.words] == transcript.text.split()


def test_decoders_lexicons_and_formats_serve_them(tmp_path, monkeypatch, capsys):
    random_weights(GROUP_NORM, tmp_path / "weights.pth")
    soundfile.write(tmp_path / "a.wav", noise(32_000), 16_000)
    (tmp_path / "lexicon.txt").write_text("A\nHELLO\nWORLD\n")
    NGram.estimate([["HELLO", "WORLD"], ["A", "WORLD"]], 2).write_arpa(tmp_path / "words.arpa")
    code, out, err = asr(
        monkeypatch,
        capsys,
        *("transcribe", "--model", f"torchaudio:{GROUP_NORM}={tmp_path}/weights.pth"),
        *("--decoder", "beam", "--lexicon", tmp_path / "lexicon.txt"),
        *("--lm", tmp_path / "words.arpa", "--lm-weight", "0.5", "--format", "json"),
        tmp_path / "a.wav",
    )
    assert code == 0, err
    assert err == ""
    found = json.loads(out)
    assert set(found["text"].split()) <= {"A", "HELLO", "WORLD"}
    assert all(0 <= w["start_s"] <= w["end_s"] <= 2 for w in found["words"])


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("torchaudio:WAV2VEC3", "no such CTC model; choose one of WAV2VEC2_ASR_BASE_10M, "),
        ("torchaudio:WAV2VEC2_BASE", "no such CTC model"),
        (f"torchaudio:{GROUP_NORM}=nowhere.pth", "nowhere.pth: no such file"),
        ("nowhere.onnx", "nowhere.onnx: no such file"),
        ("nowhere", "nowhere: no such model directory"),
    ],
)
def test_what_is_not_there(name, told):
    with pytest.raises(InputError, match=told) as error:
        load_model(name)
    assert "\n" not in str(error.value)


class Malice:
    def __reduce__(self):
        return (pytest.fail, ("code of a weight file was run",))


def broken_files(folder):
    random_weights(LAYER_NORM, folder / "another.pth")
    whole = (folder / "another.pth").read_bytes()
    (folder / "truncated.pth").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.pth").write_bytes(b"")
    (folder / "text.pth").write_text("no weights at all\n")
    (folder / "malice.pth").write_bytes(pickle.dumps({"aux.weight": Malice()}))
    torch.save([1, 2], folder / "list.pth")
    torch.save({"aux.weight": torch.zeros(3)}, folder / "part.pth")
    return sorted(folder.glob("*.pth"))


def test_broken_weight_files(tmp_path):
    for path in broken_files(tmp_path):
        with pytest.raises(InputError, match=f"{path.name}: not the weights of") as error:
            load_model(f"torchaudio:{GROUP_NORM}={path}")
        assert "\n" not in str(error.value)
        assert "weights_only" not in str(error.value)


def test_no_network(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    bundle = getattr(pipelines, GROUP_NORM)
    # The discard port of this machine, where nobody listens.
    unreachable = replace(bundle, _path="https://127.0.0.1:9/weights.pth")
    monkeypatch.setattr(pipelines, GROUP_NORM, unreachable)
    with pytest.raises(InputError, match=f"fetched .*: torchaudio:{GROUP_NORM}=FILE"):
        load_model(f"torchaudio:{GROUP_NORM}")


def test_weights_that_torchaudio_has_are_not_fetched(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    random_weights(GROUP_NORM, cache / getattr(pipelines, GROUP_NORM)._path)
    assert len(load_model(f"torchaudio:{GROUP_NORM}").labels) == 29


@pytest.mark.slow
def test_the_real_architecture(tmp_path, monkeypatch, capsys):
    monkeypatch.undo()
    random_weights(GROUP_NORM, tmp_path / "weights.pth")
    soundfile.write(tmp_path / "a.wav", noise(48_000), 16_000)
    code, out, err = asr(
        monkeypatch,
        capsys,
        *("transcribe", "--model", f"torchaudio:{GROUP_NORM}={tmp_path}/weights.pth"),
        *("--format", "json", tmp_path / "a.wav"),
    )
    assert code == 0, err
    assert json.loads(out)["duration"] == 3


# An ONNX file from elsewhere: a convolution that answers to the level of the waveform.

SIDECAR = {"labels": ["a", "|", "<pad>"], "sample_rate": 16_000}


def level_model(path, sidecar=SIDECAR, n_inputs=1, n_labels=3):
    """Logits: 20 x mean for "a", -20 x mean for "|", 10 for the blank, over 400 samples."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    gains, levels = np.array([20, -20, 0, 0], np.float32), np.array([0, 0, 10, 0], np.float32)
    kernel = np.repeat(gains[:n_labels, None, None] / 400, 400, axis=2)
    nodes = [
        helper.make_node("Unsqueeze", ["input_values", "one"], ["x"]),
        helper.make_node("Conv", ["x", "kernel", "levels"], ["y"], strides=[320]),
        helper.make_node("Transpose", ["y"], ["logits"], perm=[0, 2, 1]),
    ]
    inputs = [
        helper.make_tensor_value_info(name, floats, ["B", "N"])
        for name in ("input_values", "other")[:n_inputs]
    ]
    outputs = [helper.make_tensor_value_info("logits", floats, ["B", "T", n_labels])]
    constants = {"one": np.array([1]), "kernel": kernel, "levels": levels[:n_labels]}
    graph = helper.make_graph(
        nodes,
        "level",
        inputs,
        outputs,
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    if sidecar is not None:
        path.with_suffix(".json").write_text(json.dumps(sidecar))
    return path


def test_an_onnx_file_from_elsewhere(tmp_path, monkeypatch):
    # This net is no CTC net of spikes, whose labels last longer than they are seen.
    monkeypatch.setattr("asr.recognize.times.MAX_GROWTH_S", 0)
    recognizer = Recognizer.load(level_model(tmp_path / "level.onnx"))
    waveform = np.zeros(64_000, np.float32)
    # Said: a from 1 s to 1.5 s, a space around 2 s, a from 2.5 s to 3 s.
    for first, last, level in ((16_000, 24_000, 1), (30_000, 34_000, -1), (40_000, 48_000, 1)):
        waveform[first:last] = level
    transcript = recognizer.transcribe(waveform)
    assert transcript.text == "a a"
    times = [(w.start_s, w.end_s) for w in transcript.words]
    # Half a frame is 10 ms: a frame without offset would be 12.5 ms off on top of that.
    np.testing.assert_allclose(times, [(1.0, 1.5), (2.5, 3.0)], atol=0.0101)
    assert all(w.confidence > 0.99 for w in transcript.words)


def test_normalised_waveforms(tmp_path):
    path = level_model(tmp_path / "level.onnx", SIDECAR | {"normalize": True})
    loud = np.tile(np.array([1, -1], np.float32), 400).repeat(400)
    quiet = load_model(path).model(0.5 + 0.1 * loud)
    np.testing.assert_allclose(quiet, load_model(path).model(loud), atol=1e-3)


@pytest.mark.parametrize(
    ("sidecar", "told"),
    [
        (None, "not exported by asr export; .* to .*level.json"),
        ({}, "not a description of a CTC model"),
        ([], "not a description of a CTC model"),
        ({"labels": "ab"}, "expected a list of strings"),
        ({"labels": ["a", "b"]}, "no label '<pad>'; say which is the blank"),
        (SIDECAR | {"hop_length": 0}, "hop_length: expected a whole number above 0, found 0"),
        (SIDECAR | {"sample_rate": "16k"}, "sample_rate: expected a whole number above 0"),
        (SIDECAR | {"unit": "syllable"}, "unit='syllable': expected one of phone, char, word"),
        (SIDECAR | {"colour": 1}, "colour"),
        (SIDECAR | {"labels": ["a", "<pad>"]}, r"expected an output \(1, T, 2\)"),
        (SIDECAR | {"labels": ["a", "a", "<pad>"]}, "names a symbol twice"),
        (SIDECAR | {"receptive_field": 100, "sample_rate": 100}, "does not run|max_hz|Invalid"),
    ],
)
def test_wrong_sidecars(sidecar, told, tmp_path):
    with pytest.raises(InputError, match=told) as error:
        load_model(level_model(tmp_path / "level.onnx", sidecar))
    assert "\n" not in str(error.value)


def test_other_inputs(tmp_path):
    with pytest.raises(InputError, match="expected one input, waveforms"):
        load_model(level_model(tmp_path / "level.onnx", n_inputs=2))


def test_not_onnx(tmp_path):
    pytest.importorskip("onnxruntime")
    (tmp_path / "text.onnx").write_text("no model\n")
    with pytest.raises(InputError, match=r"text\.onnx: not a readable ONNX model") as error:
        load_model(tmp_path / "text.onnx")
    assert "\n" not in str(error.value)
