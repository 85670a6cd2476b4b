"""Both TIMIT recipes on a full-size fake tree with the real names: raw files to results."""

import json

import fake_timit
import pytest
from running import asr

from asr.corpora.timit_sample import FOLDS
from asr.data.manifest import read_manifest

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
PLAIN = ["model.conv=[]", "loss.framewise_epochs=0", "augment=none"]


@pytest.fixture(scope="module")
def timit(tmp_path_factory):
    return fake_timit.build(tmp_path_factory.mktemp("timit"), samples_per_phone=320)


@pytest.mark.parametrize(("recipe", "decoder"), [("ctc", "greedy"), ("framewise", "viterbi")])
def test_recipe_of_the_sample(tmp_path, monkeypatch, capsys, recipe, decoder):
    root, run = fake_timit.build_sample(tmp_path, samples_per_phone=320), tmp_path / "run"
    words = (f"recipes/timit_sample/{recipe}.yaml", f"corpus.root={root}", f"run_dir={run}")
    code, _, err = asr(monkeypatch, capsys, "train", *words, "corpus.fold=2", *PLAIN, *TINY)
    assert code == 0, err
    sets = json.loads((run / "results.json").read_text())["sets"]
    assert {name: by[decoder]["PER"]["utterances"] for name, by in sets.items()} == {
        "dev": 8, "test": 32, "test_sa": 8
    }  # fmt: skip
    tested = read_manifest(run / "manifests/test.jsonl")
    assert {u.speaker for u in tested} == set(FOLDS[1][0].split())


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
        *PLAIN,
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
