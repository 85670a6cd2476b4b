import os

# As `asr` has it, before numpy starts its threads: processes that tests start must find the same.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest
import torch
from running import LIVE, SMALL
from tones import build

from asr.data.manifest import read_manifest
from asr.system import jit
from asr.train.loop import train
from asr.train.recipe import load_config


def pytest_collection_modifyitems(items):
    for item in items:
        if {"tone_run", "live_run"} & set(item.fixturenames):
            item.add_marker("trains")
    # What takes longest comes first, so that nothing waits for it alone at the end.
    items.sort(key=lambda item: item.path.name != "test_readme.py")


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    # The nets of the tests are far too small for two.
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def compiled_quietly():
    # Which test is the first to compile, and is told so, is chance.
    jit._announcement.made = True


@pytest.fixture(scope="session")
def tones(tmp_path_factory):
    """The tone corpus; read only."""
    return build(tmp_path_factory.mktemp("tones") / "corpus")


@pytest.fixture(scope="session")
def tone_run(tones, tmp_path_factory):
    """A CTC run over the tone corpus, with lexicon and n-grams; read only."""
    run = tmp_path_factory.mktemp("runs") / "ctc"
    overrides = [f"corpus.root={tones}", f"run_dir={run}", "trainer.max_epochs=12", *SMALL]
    train(*load_config("recipes/demo/ctc.yaml", overrides))
    return run


@pytest.fixture(scope="session")
def live_run(tones, tmp_path_factory):
    """A run over the tone corpus whose model can go along with speech; read only."""
    run = tmp_path_factory.mktemp("runs") / "live"
    overrides = [f"corpus.root={tones}", f"run_dir={run}", "trainer.max_epochs=12", *SMALL, *LIVE]
    train(*load_config("recipes/demo/ctc.yaml", overrides))
    return run


@pytest.fixture(scope="session")
def model(tone_run):
    """The run directory of `tone_run`, which names its model."""
    return tone_run


@pytest.fixture(scope="session")
def said(tone_run):
    """The utterances of its test set."""
    return read_manifest(tone_run / "manifests/test.jsonl")
