import pytest

from asr.config import load_config, read_config, recipes, shipped, sweep
from asr.errors import InputError


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
    graves, _ = load_config("recipes/timit/ctc.yaml", ["model=blstm_5x250"])
    assert (graves.model.hidden, graves.model.layers) == (250, 5)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("model.hiden=3", "model.hidden"),
        ("optim.learning_rate=3", "unknown key 'optim.learning_rate'"),
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
        ("trainer.patience=-1", "patience"),
        ("trainer.max_skipped=-1", "max_skipped"),
        ("lm.label_order=-1", "label_order"),
        ("loss.framewise_epochs=-1", "framewise_epochs"),
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


def test_a_missing_recipe_lists_those_there_are():
    with pytest.raises(InputError, match=r"recipes/so762/ctc\.yaml"):
        load_config("recipes/so762/ctx.yaml")


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


def test_conf_holds_values_only():
    for path in shipped("conf").rglob("*.yaml"):
        assert "_target_" not in path.read_text(encoding="utf-8")


def test_a_resolved_configuration_holds_no_relative_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config, text = load_config("recipes/timit/ctc.yaml", ["corpus.root=data", "run_dir=runs/a"])
    assert config.corpus.root == str(tmp_path / "data")
    assert f"run_dir: {tmp_path}/runs/a" in text
