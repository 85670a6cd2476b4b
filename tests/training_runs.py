"""Small trainings on the tone corpus, in this process or as the whole life of another one."""

import json
import os

import torch
from running import SMALL

from asr.nets.tensors import load_tensors
from asr.train import loop as training
from asr.train.recipe import load_config
from asr.train.rundir import checkpoints


def train_tones(recipe, root, run_dir, *overrides, resume=False):
    """Train a small net; returns what results.json holds."""
    config, text = load_config(
        recipe, [f"corpus.root={root}", f"run_dir={run_dir}", *SMALL, *overrides]
    )
    return training.train(config, text, resume)


def train_alone(*args, **kwargs):
    """`train_tones` in a process of its own, which says nothing."""
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    torch.set_num_threads(1)
    train_tones(*args, **kwargs)


def without_times(metrics):
    timed = ("wall_s", "waiting", "audio_s_per_s", "labels_per_s")
    return {k: v for k, v in metrics.items() if k not in timed}


def metrics_of(run_dir):
    """The lines of metrics.jsonl, without what a clock says."""
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    return [without_times(json.loads(line)) for line in lines]


def assert_same_run(one, other):
    """Both runs ended alike, bit for bit."""
    ends = [checkpoints(run)[-1].relative_to(run) for run in (one, other)]
    assert ends[0] == ends[1]
    for name in (ends[0], "model/weights.safetensors"):
        (a, _), (b, _) = load_tensors(one / name), load_tensors(other / name)
        assert a.keys() == b.keys()
        assert [k for k in a if not torch.equal(a[k], b[k])] == [], name
    assert metrics_of(one) == metrics_of(other)
