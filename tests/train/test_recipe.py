from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from running import asr

from asr import __version__
from asr.data.utterances import Listed
from asr.errors import InputError
from asr.train.recipe import known_keys, load_config, multirun, read_config, recipes, shipped, sweep
from asr.train.setup import with_plain_texts
from asr.types import Utterance


def test_every_recipe_composes():
    assert len(recipes()) >= 6
    for path in recipes():
        config, text = load_config(str(path), ["corpus.root=/x", "run_dir=/y"])
        assert config.corpus.root == "/x"
        assert "run_dir: /y" in text


def test_command_line_beats_recipe_beats_group():
    config, _ = load_config("recipes/so762/ctc.yaml", ["model.hidden=100", "model.layers=5"])
    assert (config.model.hidden, config.model.layers) == (100, 5)
    assert config.labels.fold == "cmu40"
    graves, _ = load_config("recipes/timit/graves.yaml", [])
    assert (graves.model.hidden, graves.model.layers) == (250, 5)


def test_the_live_recipe_is_trained_for_the_latencies_of_its_table():
    config, _ = load_config("recipes/so762/live.yaml", ["corpus.root=/x", "run_dir=/y"])
    # asr listen --chunk-ms 240 --lookahead-ms 240
    assert (8, 8) in config.model.latencies
    shift_ms, n_conv = 30, len(config.model.conv)
    assert sum(config.model.latencies[0], n_conv) * shift_ms < 500


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("model.hiden=3", "model.hidden"),
        ("optim.learning_rate=3", "unknown key 'optim.learning_rate'; did you mean 'optim.lr'?"),
        ("optim.learningrate=3", "did you mean 'optim.lr'?"),
        ("trainer.epochs=3", "did you mean 'trainer.max_epochs'?"),
        ("trainer.batch=3", "did you mean 'trainer.batch_size'?"),
        ("model.hidden_size=3", "did you mean 'model.hidden'?"),
        ("trainer.lr=3", "did you mean 'optim.lr'?"),
        ("features.nmels=3", "did you mean 'features.n_mels'?"),
        ("modle.hidden=3", "did you mean 'model'"),
        ("model.hidden=many", "many"),
        ("model=blstm_9x9", "blstm_3x256"),
        ("trainer=3", "string"),
        ("+foo=1", "without '+'"),
        ("model.cell=lstn", "lstm"),
        ("loss.name=mse", "ctc"),
        ("optim.lr=0", "lr"),
        ("optim.lr=nan", "lr"),
        ("seed=-1", "seed"),
        (f"seed={2**64}", "seed"),
        ("optim.weight_decay=-1", "weight_decay"),
        ("optim.warmup_epochs=inf", "warmup_epochs"),
        ("optim.plateau_factor=0", "plateau_factor"),
        ("trainer.max_batch_s=inf", "max_batch_s"),
        ("trainer.save_minutes=nan", "trainer.save_minutes=nan"),
        ("model.weight_noise=nan", "model.weight_noise=nan"),
        ("trainer.patience=-1", "patience"),
        ("trainer.max_skipped=-1", "max_skipped"),
        ("lm.label_order=-1", "label_order"),
        ("loss.framewise_epochs=-1", "framewise_epochs"),
        ("loss.framewise_epochs=50", "fewer than trainer.max_epochs=50"),
        ("loss={framewise_epochs:0,label_smoothing:0.1}", "changes nothing under CTC"),
        ("loss={name:framewise,framewise_weight:0.3}", "changes nothing under loss.name=framewise"),
        ("trainer.device=tpu", "tpu"),
        ("model.hidden", "model.hidden"),
        ("decoder.name=viterbo", "viterbi"),
    ],
)
def test_a_wrong_override_is_one_clear_line(override, told):
    with pytest.raises(InputError) as error:
        load_config("recipes/so762/ctc.yaml", [override])
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_every_setting_is_shown_as_it_can_be_given_again(monkeypatch, capsys):
    recipe = "recipes/so762/ctc.yaml"
    changed = ("model.units=[8,9]", "augment.noise_snr_db=[-3.0,3.0]", "optim.ema=0.5")
    code, out, err = asr(monkeypatch, capsys, "train", recipe, *changed, "--show")
    assert (code, err) == (0, "")
    lines = [line.partition("  # ") for line in out.splitlines() if line and line[0] != "#"]
    assert all(meaning for _, _, meaning in lines)
    given = [setting for setting, _, _ in lines]
    assert set(changed) <= set(given)
    keys = [setting.partition("=")[0] for setting in given]
    assert set(keys) == {k for k in known_keys() if "." in k or k in ("seed", "run_dir", "resume")}
    assert load_config(recipe, given)[0] == load_config(recipe, changed)[0]


def test_help_and_version(monkeypatch, capsys):
    assert asr(monkeypatch, capsys, "--version") == (0, f"asr {__version__}\n", "")
    for words in ((), ("train",), ("lm", "train"), ("align",)):
        code, out, _ = asr(monkeypatch, capsys, *words, "-h")
        assert code == 0
        assert "Usage" in out


def test_a_missing_recipe_lists_those_there_are():
    with pytest.raises(InputError, match=r"recipes/so762/ctc\.yaml"):
        load_config("recipes/so762/ctx.yaml")


def test_what_resumes_is_told_from_what_begins(tmp_path):
    _, text = load_config("recipes/so762/ctc.yaml")
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(InputError, match=r"is a run; .* --resume"):
        load_config(str(tmp_path))
    with pytest.raises(InputError, match=r"^model=blstm_3x256: .* single settings"):
        read_config(tmp_path / "config.yaml", ["model=blstm_3x256"])


def test_a_mistyped_key_in_a_recipe_is_named(tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("defaults:\n  - base\n  - _self_\nmodel:\n  hiden: 3\n")
    with pytest.raises(InputError, match="hiden"):
        load_config(str(recipe))


def test_an_own_recipe_outside_the_checkout(tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("defaults:\n  - base\n  - override model: blstm_2x128\n  - _self_\nseed: 7\n")
    config, _ = load_config(str(recipe))
    assert (config.seed, config.model.hidden) == (7, 128)


def test_a_resolved_configuration_reads_back(tmp_path):
    config, text = load_config("recipes/timit/framewise.yaml", ["corpus.root=/t", "run_dir=/r"])
    (tmp_path / "config.yaml").write_text(text)
    assert read_config(tmp_path / "config.yaml")[0] == config


def test_sweeps_multiply():
    assert sweep(["seed=1,2", "model.layers=3", "optim.lr=1e-3,1e-4"]) == [
        ["seed=1", "model.layers=3", "optim.lr=0.001"],
        ["seed=1", "model.layers=3", "optim.lr=0.0001"],
        ["seed=2", "model.layers=3", "optim.lr=0.001"],
        ["seed=2", "model.layers=3", "optim.lr=0.0001"],
    ]


def test_an_interval_is_for_another_sweeper():
    with pytest.raises(InputError, match="hydra/sweeper=optuna"):
        sweep(["optim.lr=interval(1e-4,1e-2)"])


def leave_note(config, text):
    """A job: what it got, in its run directory, and a rate that is best at lr 0.02."""
    note = f"{config.model.layers} {config.seed} {config.optim.lr}"
    Path(config.run_dir, "note").write_text(note)
    assert yaml.safe_load(text)["run_dir"] == config.run_dir
    return abs(config.optim.lr - 0.02)


def notes(folder):
    return [p.read_text().split()[:2] for p in sorted(folder.glob("[0-9]/note"))]


def test_each_run_of_a_sweep_has_its_own_directory(tmp_path, capsys):
    out = tmp_path / "one, two"
    overrides = ["model.layers=2,3", "seed=5,6", f"run_dir='{out}'"]
    multirun("recipes/so762/ctc.yaml", overrides, leave_note)
    assert notes(out) == [["2", "5"], ["2", "6"], ["3", "5"], ["3", "6"]]
    assert {p.name for p in out.glob("0/*")} == {"note"}
    assert "run 3: model.layers=3 seed=6" in capsys.readouterr().out


def test_the_runs_after_a_failed_one_still_run(tmp_path):
    def job(config, text):
        if config.seed == 1:
            raise InputError("no such luck")
        leave_note(config, text)

    with pytest.raises(InputError, match="no such luck"):
        multirun("recipes/so762/ctc.yaml", ["seed=1,2", f"run_dir={tmp_path}/s"], job)
    assert notes(tmp_path / "s") == [["3", "2"]]


def test_an_interrupt_ends_a_sweep(tmp_path):
    def job(config, text):
        leave_note(config, text)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        multirun("recipes/so762/ctc.yaml", ["seed=1,2", f"run_dir={tmp_path}/s"], job)
    assert notes(tmp_path / "s") == [["3", "1"]]


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["seed=1,x"], "Integer"),
        (["optim.lr=1e-3,0"], "lr"),
        (["model.hiden=1,2"], "model.hidden"),
        (["seed=1,2", "hydra/launcher=slurm"], "basic"),
        (["seed=1,2", "run_dir="], "run_dir is not set"),
        (["seed=1,2", "hydra.sweep.dir=/x"], "hydra/launcher"),
    ],
)
def test_a_wrong_sweep_runs_nothing(tmp_path, overrides, told):
    def job(config, text):
        raise AssertionError("ran")

    with pytest.raises(InputError) as error:
        multirun("recipes/so762/ctc.yaml", [f"run_dir={tmp_path}/s", *overrides], job)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_a_recipe_cannot_name_code_for_hydra_to_run(tmp_path):
    recipe = tmp_path / "mine.yaml"
    called = "hydra:\n  callbacks:\n    it:\n      _target_: os.abort\n"
    recipe.write_text(f"defaults:\n  - base\n  - _self_\n{called}")
    with pytest.raises(InputError, match=r"hydra\.callbacks"):
        multirun(str(recipe), ["seed=1,2", f"run_dir={tmp_path}/s"], leave_note)
    handlers = "hydra:\n  job_logging:\n    handlers:\n      it:\n        (): os.abort\n"
    recipe.write_text(f"defaults:\n  - base\n  - _self_\n{handlers}")
    with pytest.raises(InputError, match=r"hydra\.job_logging"):
        multirun(str(recipe), ["seed=1,2", f"run_dir={tmp_path}/s"], leave_note)


def installed(plugin):
    missing = not find_spec("hydra_plugins") or not find_spec(f"hydra_plugins.{plugin}")
    return pytest.mark.skipif(missing, reason=f"{plugin} is not installed")


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [
        pytest.param(
            ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
            marks=installed("hydra_joblib_launcher"),
        ),
        pytest.param(
            ["hydra/launcher=submitit_local"],
            marks=installed("hydra_submitit_launcher"),
        ),
    ],
)
def test_launchers_run_it_in_other_processes(tmp_path, monkeypatch, launcher):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    overrides = ["seed=1,2", f"run_dir={tmp_path}/s", *launcher]
    multirun("recipes/so762/ctc.yaml", overrides, leave_note)
    assert notes(tmp_path / "s") == [["3", "1"], ["3", "2"]]


@installed("hydra_optuna_sweeper")
def test_optuna_minimises_what_runs_return(tmp_path):
    overrides = [
        "optim.lr=choice(0.02,0.5)",
        f"run_dir={tmp_path}/s",
        "hydra/sweeper=optuna",
        "hydra.sweeper.n_trials=6",
        "hydra.sweeper.n_jobs=1",
        "hydra.sweeper.sampler.seed=1",
    ]
    multirun("recipes/so762/ctc.yaml", overrides, leave_note)
    assert len(notes(tmp_path / "s")) == 6
    results = (tmp_path / "s/optimization_results.yaml").read_text()
    assert "optim.lr: 0.02" in results


def test_conf_holds_values_only():
    for path in shipped("conf").rglob("*.yaml"):
        assert "_target_" not in path.read_text(encoding="utf-8")


def test_a_resolved_configuration_holds_no_relative_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config, text = load_config("recipes/timit/ctc.yaml", ["corpus.root=data", "run_dir=runs/a"])
    assert config.corpus.root == str(tmp_path / "data")
    assert f"run_dir: {tmp_path}/runs/a" in text


def test_texts_to_train_on_are_plain_but_for_what_the_lexicon_writes(tmp_path, caplog):
    (tmp_path / "lexicon.txt").write_text("Paris\tp\nhello\th\n")
    said = Utterance("a", Path("a.wav"), "a", 1.0, text="“Hello”, PARIS! Paris – it’s 3.5%")
    train, dev = [said], [replace(said, id="b", text="hello"), replace(said, id="c", text=None)]
    sets = {"train": Listed(train), "dev": Listed(dev)}
    assert with_plain_texts(sets, None)["train"][0].text == "hello paris paris it's 3.5%"
    with caplog.at_level("INFO", "asr.train"):
        found = with_plain_texts(sets, tmp_path / "lexicon.txt")
    assert found["train"][0].text == "hello paris Paris it's 3.5%"
    assert found["dev"] == dev
