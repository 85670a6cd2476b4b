"""Wild settings are refused in one line, and cost nothing."""

import json
import math
import shutil
from dataclasses import fields, is_dataclass, replace
from functools import partial

import pytest
from running import asr

from asr.audio.augment import AugmentConfig
from asr.audio.features import FeatureConfig
from asr.audio.windows import WindowConfig
from asr.decode.config import DecoderConfig
from asr.errors import InputError
from asr.labels import LabelConfig
from asr.lm.lstm import NeuralConfig
from asr.lm.net import LanguageModelConfig
from asr.model.weights import load_bundle
from asr.nets.acoustic import AcousticModel, sketched
from asr.nets.config import LossConfig, RecurrentConfig
from asr.train.config import CorpusConfig, LmConfig, OptimConfig, RunConfig, TrainerConfig
from asr.train.recipe import load_config

CONFIGS = [
    AugmentConfig,
    CorpusConfig,
    DecoderConfig,
    FeatureConfig,
    LabelConfig,
    LanguageModelConfig,
    LmConfig,
    LossConfig,
    NeuralConfig,
    OptimConfig,
    RecurrentConfig,
    RunConfig,
    TrainerConfig,
    WindowConfig,
]
WILD = [
    0, -1, 10**9, 10**400, -(10**400), 1e308, -1e308, math.nan, math.inf, -math.inf, 2.5, "x", "",
    None, True, [], (), [[]], [0], [-1], [10**9], [1e308], [math.nan], ["x"], [None], {},
    [1] * 10**4,
]  # fmt: skip


def refusal(make):
    """The line with which ``make`` is refused, empty where it is not."""
    line = ""
    try:
        make()
    except InputError as error:
        line = str(error)
    assert "\n" not in line
    assert len(line) < 1000
    return line


def plain(config):
    return [f for f in fields(config) if not is_dataclass(getattr(config, f.name))]


@pytest.mark.parametrize("kind", CONFIGS)
def test_every_setting_says_what_it_means(kind):
    for known in plain(kind()):
        assert known.metadata["meaning"], known.name


@pytest.mark.parametrize("kind", CONFIGS)
def test_wild_settings_are_accepted_or_refused_by_name(kind):
    config, n_refused = kind(), 0
    for known in plain(config):
        for wild in WILD:
            line = refusal(partial(replace, config, **{known.name: wild}))
            if line:
                n_refused += 1
                assert known.name in line or "subsample" in line
                continue
            changed = replace(config, **{known.name: wild})
            if isinstance(changed, RecurrentConfig):
                line = refusal(partial(sketched, partial(AcousticModel, changed, 240, 40, 80)))
                assert not line or "M parameters" in line
            if isinstance(changed, FeatureConfig):
                assert changed.size < 100_000
    assert n_refused > 10 * len(plain(config))


@pytest.mark.parametrize(
    ("override", "told"),
    [
        (
            "model.hidden=1000000000",
            "model.hidden=1000000000: expected a whole number from 1 to 16384",
        ),
        ("features.sample_rate=1e308", "features.sample_rate"),
        ("decoder.beam=2.5", "decoder.beam"),
        ("decoder.lm_weight=1e308", "decoder.lm_weight=1e+308: expected a number from 0 to 1000"),
        ("optim.lr=inf", "optim.lr=inf: expected a number above 0 to 100"),
        ("optim.ema=1", "optim.ema=1.0: expected a number from 0 below 1"),
        (
            "model.units=[8,0]",
            "model.units=[8, 0]: expected a list of up to 256, each a whole number",
        ),
    ],
)
def test_bounds_are_told(override, told):
    with pytest.raises(InputError) as error:
        load_config("recipes/demo/ctc.yaml", [override])
    assert told in str(error.value)


def test_a_model_directory_with_wild_settings_is_refused(tone_run, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tone_run / "model", folder)
    config = json.loads((folder / "config.json").read_text())
    loaded = 0
    for section, values in config.items():
        for key in values if isinstance(values, dict) else [None]:
            for wild in WILD:
                changed = json.loads(json.dumps(config))
                if key is None:
                    changed[section] = wild
                else:
                    changed[section][key] = wild
                (folder / "config.json").write_text(json.dumps(changed))
                line = refusal(partial(load_bundle, folder))
                loaded += not line
                assert not line or str(folder) in line, (section, key, wild)
    assert loaded > 50


@pytest.mark.parametrize(
    "words",
    [
        ("--decoder", "beam", "--beam", 10**9),
        ("--lm", "model", "--lm-weight", 1e308),
        ("--decoder", "beam", "--bonus", "nan"),
        ("--window", 1e308),
    ],
)
def test_wild_options_are_one_line(tone_run, monkeypatch, capsys, words):
    audio = tone_run / "audio.wav"
    code, _, err = asr(monkeypatch, capsys, "transcribe", "--model", tone_run, audio, *words)
    assert code != 0
    assert len(err.splitlines()) == 1
    assert "expected" in err
