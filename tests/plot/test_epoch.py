"""Pictures for TensorBoard, read back from a run's event file, and planted segments in them."""

import random
import warnings

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_runs import assert_same_run, train_tones

from asr.data.examples import Example
from asr.model.weights import load_bundle
from asr.plot.epoch import best_path, picture, reference
from asr.train import telling
from asr.types import Segment, Utterance

WORDS = [("m", 0, 2), ("aa", 4, 7)]


@pytest.fixture(scope="module")
def bundle(tone_run):
    return load_bundle(tone_run)


@pytest.fixture
def log_probs(bundle):
    """Frames that say m in 0 and 1, aa in 4 to 6, and else blank."""
    probabilities = np.full((9, len(bundle.labels)), 1e-4, np.float32)
    path = np.zeros(9, int)
    for label, start, end in WORDS:
        path[start:end] = bundle.labels.ids[label]
    probabilities[np.arange(9), path] = 0.9
    return np.log(probabilities)


def example_of(tmp_path, bundle, *phones):
    utterance = Utterance("$u_1$", tmp_path, "s", 0.27, phones=phones)
    return Example(
        utterance, np.zeros((27, bundle.features.n_mels), np.float32), labels=(), frames=None
    )


def times(segments):
    return [(s.label, round(s.start_s, 3), round(s.end_s, 3)) for s in segments]


def at(bundle, words):
    shift_s = bundle.clock.shift_s
    return [(label, round(a * shift_s, 3), round(b * shift_s, 3)) for label, a, b in words]


def test_the_best_path_leaves_blanks_out(bundle, log_probs):
    assert times(best_path(log_probs, bundle, "ctc")) == at(bundle, WORDS)


def test_a_reference_without_times_gets_those_of_its_best_path(bundle, log_probs, tmp_path):
    untimed = example_of(tmp_path, bundle, Segment("m"), Segment("aa"))
    assert times(reference(untimed, log_probs, bundle, "ctc")) == at(bundle, WORDS)
    assert reference(untimed, log_probs, bundle, "framewise") == []
    timed = example_of(tmp_path, bundle, Segment("m", 0.01, 0.2))
    assert times(reference(timed, log_probs, bundle, "ctc")) == [("m", 0.01, 0.2)]
    # More labels than frames.
    crowded = example_of(tmp_path, bundle, *[Segment("m")] * 9)
    assert reference(crowded, log_probs, bundle, "ctc") == []


def test_a_picture_draws_no_random_number(bundle, log_probs, tmp_path):
    example = example_of(tmp_path, bundle, Segment("m"), Segment("aa"))

    def states():
        old = np.random.get_state()[1].tolist()  # noqa: NPY002
        return torch.get_rng_state().tolist(), old, random.getstate()

    before = states()
    flat = np.full_like(log_probs, -np.log(log_probs.shape[1]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for criterion in ("ctc", "framewise"):
            for heard in (log_probs, flat):
                assert isinstance(picture(example, heard, bundle, criterion), Figure)
    assert states() == before


def test_a_run_shows_one_utterance_after_each_epoch(tones, tmp_path, monkeypatch):
    monkeypatch.setattr(telling, "DRAWING", 1e9)
    epochs = ("trainer.max_epochs=3", "trainer.tune=false", "loss.framewise_epochs=1")
    train_tones("recipes/demo/ctc.yaml", tones, tmp_path / "shown", *epochs)
    events = EventAccumulator(str(tmp_path / "shown/tensorboard"))
    events.Reload()
    images = events.Images("dev")
    assert [image.step for image in images] == [1, 2, 3]
    assert all(image.encoded_image_string.startswith(b"\x89PNG") for image in images)
    assert {"loss", "labels_per_s", "gradient_norm", "waiting"} <= set(events.Tags()["scalars"])
    # Pictures change nothing of the training.
    monkeypatch.setattr(telling, "DRAWING", -1)
    train_tones("recipes/demo/ctc.yaml", tones, tmp_path / "unseen", *epochs)
    assert_same_run(tmp_path / "shown", tmp_path / "unseen")
