"""Several models as one: probabilities are averaged, whatever way they come together."""

import json
import shutil

import numpy as np
import pytest
import torch
from running import asr
from training_runs import train_tones as run

from asr.errors import InputError
from asr.model.emissions import emissions_of
from asr.model.ensemble import combined
from asr.model.pretrained import load_model
from asr.model.weights import load_bundle, save_bundle


@pytest.fixture(scope="module")
def pair(tone_run, tmp_path_factory):
    """Two models of the same labels, the second with other weights in another net."""
    other = tmp_path_factory.mktemp("ensemble") / "other"
    bundle = load_bundle(tone_run)
    generator = torch.Generator().manual_seed(1)
    for weights in bundle.model.parameters():
        weights.data += 0.05 * torch.randn(weights.shape, generator=generator)
    save_bundle(other, bundle)
    return tone_run, other


def log_probs(bundle, said):
    return emissions_of(bundle, said, {})


def test_probabilities_are_averaged(pair, said):
    one, other = (log_probs(load_bundle(folder), said) for folder in pair)
    both = log_probs(load_model(",".join(map(str, pair))), said)
    for name, found in both.items():
        expected = np.log((np.exp(one[name]) + np.exp(other[name])) / 2)
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_combined_models_are_a_model_directory(pair, said, tmp_path, monkeypatch, capsys):
    out = tmp_path / "both"
    status, told, err = asr(monkeypatch, capsys, "combine", *pair, "--out", out)
    assert (status, err) == (0, "")
    assert "2 nets" in told
    named = log_probs(load_model(",".join(map(str, pair))), said)
    kept = log_probs(load_bundle(out), said)
    for name in named:
        np.testing.assert_array_equal(named[name], kept[name])
    # Three of a kind: an ensemble can be part of another, and each net counts alike.
    three = log_probs(combined({"a": load_bundle(out), "b": load_bundle(pair[0])}), said)
    one, other = (log_probs(load_bundle(folder), said) for folder in pair)
    for name in three:
        expected = np.log((2 * np.exp(one[name]) + np.exp(other[name])) / 3)
        np.testing.assert_allclose(three[name], expected, atol=1e-5)
    file = said[0].audio
    status, text, err = asr(monkeypatch, capsys, "transcribe", file, "--model", out)
    assert (status, err) == (0, "")
    assert text
    status, _, err = asr(monkeypatch, capsys, "combine", *pair, "--out", out)
    assert (status, err) == (2, f"asr: {out}: exists and is not an empty folder; choose another\n")


def test_models_that_do_not_fit_are_named(pair, tmp_path):
    first = load_bundle(pair[0])
    with pytest.raises(InputError, match="expected two models or more"):
        combined({"a": first})
    other = tmp_path / "other"
    shutil.copytree(pair[1], other)
    config = json.loads((other / "config.json").read_text())
    config["features"]["ignore_silence"] = not config["features"]["ignore_silence"]
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="b: cannot be combined with a: its features are others"):
        combined({"a": first, "b": load_bundle(other)})


def test_a_wider_net_fits(tones, tone_run, said, tmp_path):
    run(
        "recipes/demo/ctc.yaml",
        tones,
        tmp_path / "wide",
        "trainer.max_epochs=1",
        "trainer.tune=false",
        "model.hidden=40",
    )
    bundle = load_model(f"{tone_run},{tmp_path / 'wide'}")
    assert [bundle.architecture.hidden != 40, bundle.others[0].hidden] == [True, 40]
    assert log_probs(bundle, said).keys() == {u.id for u in said}
