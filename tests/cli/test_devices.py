"""Every command that runs a net runs it on the device it is told to, or says why not."""

import pytest
import torch
from running import asr

from asr import Recognizer, align
from asr.errors import InputError
from asr.model.pretrained import load_model
from asr.model.weights import load_bundle
from asr.recognize.aligner import Aligner


@pytest.fixture
def run(monkeypatch, capsys):
    return lambda *words: asr(monkeypatch, capsys, *words)


@pytest.fixture
def without_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def moved(monkeypatch):
    """As if there were a GPU: where models were told to go, which then stay where they are."""
    targets = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, device: targets.append(device) or self)
    return targets


@pytest.fixture
def commands(tone_run, said, tmp_path):
    """Each of the commands in question, as it succeeds."""
    text, sentences = tmp_path / "a.txt", tmp_path / "text.txt"
    text.write_text(said[0].text)
    sentences.write_text("a b\n")
    audio, dev = said[0].audio, tone_run / "manifests" / "dev.jsonl"
    return {
        "transcribe": ["transcribe", audio, "--model", tone_run],
        "align": ["align", audio, text, "--model", tone_run],
        "tune": ["tune", dev, "--model", tone_run],
        "report": ["report", tone_run, "--out", tmp_path / "report.html"],
        "plot": ["plot", audio, "--out", tmp_path / "a.png", "--model", tone_run],
        "lm": ["lm", "score", tmp_path, sentences],
    }


@pytest.mark.parametrize("name", ["transcribe", "align", "tune", "report", "plot", "lm"])
def test_a_device_that_is_not_there_is_one_line(run, without_gpu, commands, name):
    status, out, err = run(*commands[name], "--device", "cuda:1")
    assert (status, out) == (2, "")
    assert err == "asr: device cuda:1: torch finds no GPU here; use auto or cpu\n"


@pytest.mark.parametrize("name", ["transcribe", "align"])
def test_the_cpu_can_be_named(run, commands, name):
    plain = run(*commands[name])
    assert plain[0] == 0
    assert run(*commands[name], "--device", "cpu") == plain


def test_the_model_goes_to_the_device(moved, model, said):
    said = said[0]
    for device, target in (("auto", "cuda"), ("cuda:1", "cuda:1"), ("cpu", "cpu")):
        Recognizer.load(model, device=device)
        Aligner.load(model, device=device)
        align(model, said.audio, said.text, device=device)
        assert moved == [torch.device(target)] * 3
        moved.clear()


def test_onnx_is_for_the_cpu(moved):
    with pytest.raises(InputError) as told:
        load_model("model.onnx", "cuda")
    assert str(told.value) == "device cuda: model.onnx computes on the CPU; use auto or cpu"
    with pytest.raises(InputError, match=r"model\.onnx: no such file"):
        load_model("model.onnx", "auto")


def test_int8_is_for_the_cpu(model):
    bundle = load_bundle(model)
    bundle.model.to("meta")
    with pytest.raises(InputError, match=r"^device meta: int8 is for the CPU; use cpu$"):
        Recognizer(bundle, precision="int8")


def test_a_cluster_computes_on_cpus(run, commands, tmp_path):
    words = [*commands["transcribe"], "--engine", "ray", "--out", tmp_path / "out"]
    status, _, err = run(*words, "--device", "cuda")
    assert status == 2
    assert err == "asr: --device cuda: --engine ray computes on CPUs; use auto or cpu\n"


def test_an_ngram_is_for_the_cpu(run, moved, tmp_path):
    (tmp_path / "text.txt").write_text("a b\nb a\n")
    assert run("lm", "train", tmp_path / "text.txt", "--out", tmp_path / "a.arpa")[0] == 0
    status, _, err = run(
        "lm", "score", tmp_path / "a.arpa", tmp_path / "text.txt", "--device", "cuda"
    )
    assert status == 2
    assert err == f"asr: device cuda: {tmp_path / 'a.arpa'} is an n-gram: use auto or cpu\n"
