"""Both TIMIT recipes on a full-size fake tree with the real names: raw files to results."""

import json

import fake_timit
import pytest
from running import asr

# One log-mel frame a model frame: the fake phones are short. The net is as small as nets get.
TINY = [
    "features=logmel40",
    "features.stack=1",
    "model.layers=1",
    "model.hidden=8",
    "trainer.max_epochs=1",
    "trainer.batch_size=64",
    "trainer.tune=false",
    "lm=none",
]


@pytest.fixture(scope="module")
def timit(tmp_path_factory):
    return fake_timit.build(tmp_path_factory.mktemp("timit"), samples_per_phone=320)


@pytest.mark.parametrize(("recipe", "decoder"), [("ctc", "greedy"), ("framewise", "viterbi")])
def test_recipe(timit, tmp_path, monkeypatch, capsys, recipe, decoder):
    run = tmp_path / "run"
    code, out, err = asr(
        monkeypatch,
        capsys,
        "train",
        f"recipes/timit/{recipe}.yaml",
        f"corpus.root={timit}",
        f"run_dir={run}",
        *TINY,
    )
    assert code == 0, err
    results = json.loads((run / "results.json").read_text())
    assert results["skipped"] == {"train": 0, "dev": 0, "test": 0}
    test = results["sets"]["test"][decoder]["PER"]
    assert test["utterances"] == 192
    assert test["reference_length"] == 7215
    assert results["sets"]["dev"][decoder]["PER"]["reference_length"] == 15057
    assert test["policy"] == "phones folded to timit39, silence counted"
    assert "timit39" in out
    labels = (run / "model/labels.txt").read_text().splitlines()
    assert len(labels) == 2 + 61  # the unit, the blank and the phones
    assert "q" in labels
