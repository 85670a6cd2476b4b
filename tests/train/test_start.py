"""Trainings that start from a model: what comes with it, what is drawn anew, and going on."""

import json

import pytest
import torch
from running import SMALL, asr
from training_runs import assert_same_run
from training_runs import train_tones as run

from asr.audio.features import FeatureConfig
from asr.errors import InputError
from asr.labels import BLANK_SYMBOL, LabelConfig, Labels
from asr.model.bundle import Bundle
from asr.model.weights import load_bundle
from asr.nets.acoustic import AcousticModel
from asr.nets.config import RecurrentConfig
from asr.train import state as training_state
from asr.train.config import InitConfig, OptimConfig
from asr.train.optim import Schedule, new_optimizer
from asr.train.start import Start, read_start, shares, take, tell_learning

DEMO = "recipes/demo/ctc.yaml"
QUICK = ["trainer.max_epochs=2", "trainer.tune=false", "lm=none"]


def bundle_of(symbols, criterion="ctc", unit="phone", seed=0, **model):
    torch.manual_seed(seed)
    config, features = RecurrentConfig(**{"layers": 2, "hidden": 4} | model), FeatureConfig()
    labels = Labels(unit, (BLANK_SYMBOL, *symbols))
    net = AcousticModel(config, features.size, len(labels), features.n_mels)
    return Bundle(features, config, labels, LabelConfig(unit), criterion, net)


def started(source, target):
    """What a new model becomes: its weights before, and after."""
    before = {k: t.clone() for k, t in target.model.state_dict().items()}
    take(Start(source, {"model": "somewhere", "sha256": "0"}), target)
    return before, target.model.state_dict()


def test_labels_come_by_their_names():
    source, target = bundle_of("abc"), bundle_of("cxa", seed=1)
    before, after = started(source, target)
    theirs = source.model.state_dict()
    for name in ("output.weight", "output.bias"):
        # blank, c, a; x is as it was drawn.
        assert torch.equal(after[name][[0, 1, 3]], theirs[name][[0, 3, 1]])
        assert torch.equal(after[name][2], before[name][2])
    assert target.start["labels_drawn"] == ["x"]
    assert all(torch.equal(after[k], theirs[k]) for k in theirs if k.startswith("stack"))


@pytest.mark.parametrize(
    ("source", "target", "drawn"),
    [
        (bundle_of("ab", "framewise"), bundle_of("ab", "ctc", seed=1), [BLANK_SYMBOL]),
        (bundle_of("ab", "ctc"), bundle_of("ab", "framewise", seed=1), []),
        (bundle_of("ab", unit="char"), bundle_of("ab", seed=1), [BLANK_SYMBOL, "a", "b"]),
        (bundle_of("ab"), bundle_of("ab", after=(3,), seed=1), [BLANK_SYMBOL, "a", "b"]),
    ],
)
def test_labels_that_mean_something_else_are_drawn_anew(source, target, drawn):
    before, after = started(source, target)
    assert target.start["labels_drawn"] == drawn
    assert torch.equal(after["output.weight"][0], before["output.weight"][0])


def test_layers_come_one_by_one(caplog):
    source = bundle_of("ab", layers=2, conv=(2, 2))
    target = bundle_of("ab", layers=3, conv=(2, 4), layer_norm=True, seed=1)
    with caplog.at_level("INFO", "asr.train"):
        _, after = started(source, target)
    theirs = source.model.state_dict()
    assert target.start["taken"] == ["conv.layers.0", "stack.layers.1"]
    assert all(torch.equal(after[k], theirs[k]) for k in theirs if k.startswith("stack.layers.1"))
    told = caplog.text
    assert "conv.layers.1 is drawn anew: conv.layers.1." in told
    assert "stack.layers.2 is drawn anew: the model has none" in told
    assert "stack.norms.0 is drawn anew: the model has none" in told
    fewer = bundle_of("ab", layers=1, conv=(2, 2), seed=2)
    with caplog.at_level("INFO", "asr.train"):
        started(source, fewer)
    assert "stack.layers.1 of the model is left out" in caplog.text


def test_cells_that_only_look_alike_stay_out():
    with pytest.raises(InputError, match=r"^init\.model=somewhere: no layer of it fits"):
        started(bundle_of("ab", cell="gru"), bundle_of("ab", cell="gru_before"))


def test_rates_fall_with_depth(caplog):
    source = bundle_of("ab", conv=(2,), layer_norm=True)
    target = bundle_of("ab", conv=(2,), layer_norm=True, layers=3, seed=1)
    started(source, target)
    found = shares(InitConfig("somewhere", depth_decay=0.5), target)
    assert found == {
        "conv.layers.0": 1 / 16,
        "stack.layers.0": 1 / 8,
        "stack.norms.0": 1 / 8,
        "stack.layers.1": 1 / 4,
        "stack.norms.1": 1 / 4,
    }
    with caplog.at_level("INFO", "asr.train"):
        tell_learning(InitConfig("somewhere", freeze_epochs=3, depth_decay=0.5), target)
    assert "stays as it is for init.freeze_epochs=3" in caplog.text
    assert "conv.layers.0 0.062, stack.layers.0 0.12, stack.layers.1 0.25" in caplog.text
    optimizer = new_optimizer(OptimConfig(), target.model, found)
    schedule = Schedule(OptimConfig(lr=0.16, schedule="constant", warmup_epochs=0), 1)
    schedule.apply(optimizer, 1.0, 1.0)
    rates = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert len(rates) == len(list(target.model.parameters()))
    named = {name: rates[p] for name, p in target.model.named_parameters()}
    assert named["conv.layers.0.bias"] == pytest.approx(0.01)
    assert named["stack.norms.1.bias"] == pytest.approx(0.04)
    assert named["stack.layers.2.ahead.weight_ih"] == named["output.bias"] == 0.16


@pytest.fixture(scope="module")
def source(tones, tmp_path_factory):
    """A short training to start from."""
    run_dir = tmp_path_factory.mktemp("runs") / "source"
    run(DEMO, tones, run_dir, *QUICK)
    return run_dir


def test_other_features_are_refused_in_one_line(source, tones, tmp_path, monkeypatch, capsys):
    code, _, err = asr(
        monkeypatch, capsys, "train", DEMO, f"corpus.root={tones}", f"run_dir={tmp_path / 'run'}",
        *SMALL, *QUICK, f"init.model={source}", "features.stack=2", "features.hop_length=80",
    )  # fmt: skip
    assert code == 2
    assert err.splitlines()[-1] == (
        f"asr: init.model={source}: hears other features than features.hop_length=80 "
        "features.stack=2; start with its own: features.hop_length=160 features.stack=3"
    )
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_statistics_may_be_of_another_kind(source):
    online = FeatureConfig(n_mels=40, normalize="online")
    assert read_start(InitConfig(str(source)), online) is not None
    assert read_start(InitConfig(), online) is None
    with pytest.raises(InputError, match="no such model directory"):
        read_start(InitConfig(str(source / "nothing")), online)


def test_a_start_without_a_model_is_refused():
    with pytest.raises(InputError, match=r"init\.freeze_epochs and init\.depth_decay are for"):
        InitConfig(freeze_epochs=1)


def test_what_it_started_from_is_kept(source, tones, tmp_path):
    started = run(DEMO, tones, tmp_path / "run", *QUICK, f"init.model={source}")
    kept = load_bundle(tmp_path / "run").start
    assert kept["model"] == str(source)
    assert kept["taken"] == ["stack.layers.0"]
    assert kept["drawn"] == kept["labels_drawn"] == []
    about = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert about["start"]["sha256"] == kept["sha256"]
    assert started["start"] == kept
    # Two epochs after two others are not worse than these alone.
    dev = [json.loads((r / "metrics.jsonl").read_text().splitlines()[-1])["loss"]
           for r in (source, tmp_path / "run")]  # fmt: skip
    assert dev[1] < dev[0]


FROZEN = [*QUICK, "trainer.max_epochs=3", "init.freeze_epochs=2", "init.depth_decay=0.5",
          "model.layers=2", "optim.ema=0.9", "trainer.save_minutes=1e-9"]  # fmt: skip


def test_the_body_stays_as_it_is_at_first(source, tones, tmp_path):
    only = [*FROZEN, "trainer.max_epochs=2", f"init.model={source}"]
    run(DEMO, tones, tmp_path / "run", *only)
    was, now = (load_bundle(r).model.state_dict() for r in (source, tmp_path / "run"))
    names = [name for name in was if name.startswith("stack.layers.0")]
    assert names
    assert all(torch.equal(was[name], now[name]) for name in names)
    assert not torch.equal(was["output.weight"], now["output.weight"])


@pytest.mark.parametrize("n_saves", [9, 30])
def test_going_on_takes_no_second_look_at_the_model(source, tones, tmp_path, monkeypatch, n_saves):
    moved = tmp_path / "source"
    moved.symlink_to(source)
    overrides = [*FROZEN, f"init.model={moved}"]
    run(DEMO, tones, tmp_path / "whole", *overrides)
    save, saves = training_state.save_state, []

    def save_and_stop(*args):
        save(*args)
        saves.append(args)
        if len(saves) == n_saves:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(training_state, "save_state", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            run(DEMO, tones, tmp_path / "cut", *overrides)
    moved.unlink()
    run(DEMO, tones, tmp_path / "cut", *overrides, resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")
    assert load_bundle(tmp_path / "cut").start == load_bundle(tmp_path / "whole").start
