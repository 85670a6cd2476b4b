"""asr train --check: one batch by heart, or a hint why not."""

import itertools
import math
from types import SimpleNamespace

import pytest
from running import SMALL, asr

from asr.errors import InputError
from asr.train.check import overfit, verdict
from asr.train.recipe import load_config

DEMO = "recipes/demo/ctc.yaml"


@pytest.mark.parametrize("recipe", [DEMO, "recipes/so762/framewise.yaml"])
def test_a_batch_is_learnt_by_heart(tones, tmp_path, monkeypatch, capsys, recipe):
    monkeypatch.chdir(tmp_path)
    settings = (f"corpus.root={tones}", "corpus.kind=synthetic", *SMALL)
    code, out, _ = asr(monkeypatch, capsys, "train", recipe, *settings, "--check")
    assert code == 0, out
    assert out.startswith("learning 4 utterances (")
    assert out.endswith("learning works\n")
    assert not list(tmp_path.iterdir())


def test_nothing_is_dropped(tones, monkeypatch):
    found = []

    def build(config, *rest):
        found.append(config.model)
        raise InputError("seen enough")

    monkeypatch.setattr("asr.train.check.build", build)
    drops = ("model.dropout=0.3", "model.drop_connect=0.3", "model.weight_noise=0.3")
    config, _ = load_config(DEMO, [f"corpus.root={tones}", *SMALL, "model.conv=[4]", *drops])
    assert config.model.conv_dropout > 0
    with pytest.raises(InputError):
        overfit(config)
    (model,) = found
    assert model.conv == [4]
    drops = ("conv_dropout", "dropout", "drop_connect", "weight_noise")
    assert [getattr(model, name) for name in drops] == [0, 0, 0, 0]


def test_too_low_a_rate_is_told(tones, monkeypatch, capsys):
    clock = SimpleNamespace(perf_counter=itertools.count(step=0.01).__next__)
    monkeypatch.setattr("asr.train.check.time", clock)
    config, _ = load_config(DEMO, [f"corpus.root={tones}", *SMALL, "optim.lr=1e-9"])
    assert not overfit(config, most_s=1.0)
    assert "raise optim.lr" in capsys.readouterr().out.splitlines()[-1]


def test_a_check_without_a_corpus_is_one_line(monkeypatch, capsys):
    code, _, err = asr(monkeypatch, capsys, "train", DEMO, "--check")
    assert code == 2
    assert err.startswith("asr: corpus.root is not set")


@pytest.mark.parametrize(
    ("losses", "rate", "blanks", "told"),
    [
        ([3.0, 0.01], 0.0, 0.5, "learning works"),
        (
            [3.0, math.inf],
            1.0,
            0.5,
            "NOT learnt: the loss or its gradient became infinite or NaN in step 2: lower",
        ),
        ([3.0, 2.0], 1.0, 1.0, "only 2 steps, too few to tell"),
        ([3.0, *[2.9] * 99], 1.0, 0.5, "NOT learnt: the loss went from 3.00 to 2.90"),
        ([9.0, *[3.0] * 99], 1.0, 1.0, "NOT learnt: every frame is blank"),
        ([9.0, *[1.0] * 99], 0.4, 0.5, "NOT yet learnt: the loss fell from 9.00 to 1.00"),
    ],
)
def test_the_verdict_says_what_to_try(losses, rate, blanks, told):
    assert verdict(losses, rate, blanks, "ctc").startswith(told)
