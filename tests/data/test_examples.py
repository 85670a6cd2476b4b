import gc
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from asr.audio.augment import AugmentConfig, WaveformAugment
from asr.audio.features import FeatureConfig, frame_clock, moments, statistics
from asr.audio.normalize import normalize
from asr.corpora import load_corpus
from asr.data import examples
from asr.data.examples import (
    Example,
    Targets,
    bucket,
    collate,
    draw_speeds,
    join_speeds,
    made_ahead,
    make_examples,
    padding,
)
from asr.data.manifest import read_manifest
from asr.data.matrices import Matrix, extract, set_statistics
from asr.errors import InputError
from asr.labels import LabelConfig, inventory
from asr.nets.losses import IGNORE
from asr.train.recipe import load_config
from asr.train.setup import choose_sets
from asr.types import Segment, Utterance

SO762 = Path(__file__).parents[3] / "shared" / "data" / "so762"


@given(
    lens=st.lists(st.integers(1, 500), min_size=1, max_size=60),
    batch_size=st.integers(1, 9),
    max_frames=st.integers(50, 2000),
    seed=st.integers(0, 5),
)
def test_buckets_hold_everyone_once_within_the_limits(lens, batch_size, max_frames, seed):
    batches = bucket(lens, batch_size, max_frames, torch.Generator().manual_seed(seed))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lens)))
    for batch in batches:
        assert len(batch) <= batch_size
        assert len(batch) == 1 or len(batch) * max(lens[i] for i in batch) <= max_frames
    assert batches == bucket(lens, batch_size, max_frames, torch.Generator().manual_seed(seed))


def librispeech_like(n, generator):
    """Most of it was cut at pauses to 12 to 16 s, the rest is shorter; in frames of 10 ms."""
    drawn = torch.rand(n, 2, generator=generator)
    long = 1200 + 430 * drawn[:, 1]
    return torch.where(drawn[:, 0] < 0.7, long, 140 + 1060 * drawn[:, 1]).int().tolist()


def so762_like(n, generator):
    """Read sentences: log-normal around 4 s."""
    return (390 * torch.exp(0.3 * torch.randn(n, generator=generator))).int().tolist()


@pytest.mark.parametrize("like", [librispeech_like, so762_like])
def test_buckets_pad_little_and_change_with_the_epoch(like):
    lens = like(1200, torch.Generator().manual_seed(0))
    one, two = (bucket(lens, 16, 24_000, torch.Generator().manual_seed(e)) for e in (1, 2))
    assert padding(lens, one) < 0.05
    assert padding(lens, [range(i, i + 16) for i in range(0, 1200, 16)]) > 0.2
    mates = {i: set(batch) for batch in two for i in batch}
    kept = [len(mates[i] & set(b)) / len(b) for b in one for i in b]
    assert sum(kept) / len(kept) < 0.35
    longest = [max(lens[i] for i in batch) for batch in one]
    assert longest != sorted(longest)


@pytest.mark.skipif(not SO762.is_dir(), reason="so762 is not here")
def test_the_buckets_of_so762_pad_little():
    config, _ = load_config("recipes/so762/ctc.yaml", [f"corpus.root={SO762}"])
    train = choose_sets(config.corpus, load_corpus("so762", SO762))["train"]
    hop_s = config.features.hop_length / config.features.sample_rate
    lens = [int(u.duration_s / hop_s) + 1 for u in train]
    settings = (config.trainer.batch_size, int(config.trainer.max_batch_s / hop_s))
    for epoch in range(5):
        batches = bucket(lens, *settings, torch.Generator().manual_seed(epoch))
        assert padding(lens, batches) <= 0.05


def test_short_first_keeps_the_batches_and_sorts_them():
    lens = so762_like(300, torch.Generator().manual_seed(0))
    mixed = bucket(lens, 8, 24_000, torch.Generator().manual_seed(1))
    ordered = bucket(lens, 8, 24_000, torch.Generator().manual_seed(1), short_first=True)
    assert sorted(mixed) == sorted(ordered)
    means = [sum(lens[i] for i in batch) / len(batch) for batch in ordered]
    assert means == sorted(means)


def example(n_frames, labels, frames=None):
    features = np.full((n_frames, 4), n_frames, np.float32)
    return Example(Utterance(f"u{n_frames}", Path("x"), "s", 1.0), features, labels, frames)


def test_batches_are_padded():
    config = FeatureConfig(n_mels=4, stack=2)
    batch = collate([example(5, (1, 2, 3)), example(2, (4,))], config, framewise=False)
    assert batch.ids == ("u5", "u2")
    assert batch.features.shape == (2, 3, 8)
    assert batch.feature_lens.tolist() == [3, 1]
    assert (batch.features[1, 1:] == 0).all()
    assert batch.targets.tolist() == [[1, 2, 3], [4, IGNORE, IGNORE]]
    assert batch.target_lens.tolist() == [3, 1]


def test_framewise_batches_carry_frame_labels():
    config = FeatureConfig(n_mels=4, stack=1)
    batch = collate([example(3, (7,), (7, 7, IGNORE)), example(1, (6,), (6,))], config, True)
    assert batch.targets.tolist() == [[7, 7, IGNORE], [6, IGNORE, IGNORE]]


def test_frame_labels_come_beside_the_labels_where_both_are_trained_on():
    config = FeatureConfig(n_mels=4, stack=1)
    examples = [example(3, (7,), (7, 7, IGNORE)), example(1, (6,), (6,))]
    batch = collate(examples, config, False, joint=True)
    assert batch.targets.tolist() == [[7], [6]]
    assert batch.frames.tolist() == [[7, 7, IGNORE], [6, IGNORE, IGNORE]]
    assert collate(examples, config, False).frames is None


def test_augmentation_follows_seed_epoch_and_utterance_not_the_batch():
    config = FeatureConfig(n_mels=4, stack=1)
    augment = WaveformAugment(AugmentConfig(freq_width=2, time_width=5), FeatureConfig())
    examples = [example(50, (1,)), example(40, (2,)), example(30, (3,))]

    def made(chosen, seed, epoch):
        return collate(chosen, config, False, augment, seed, epoch).features

    plain = collate(examples, config, False).features
    whole = made(examples, 3, 0)
    assert not torch.equal(whole, plain)
    assert torch.equal(made(examples[1:], 3, 0), whole[1:, :40])
    assert not torch.equal(made(examples, 3, 1), whole)
    assert not torch.equal(made(examples, 4, 0), whole)


def test_speeds_scale_lengths_and_frame_labels(tones, tmp_path):
    phones = (Segment("a", 0.0, 0.3), Segment("b", 0.3, 0.5))
    audio = next((tones / "DEV").rglob("*.WAV"))
    said = Utterance("u", audio, "s", 0.5, phones=phones)
    config, labels = FeatureConfig(stack=1), inventory([said], "phone")
    targets = Targets(labels, LabelConfig(), frame_clock(config), ctc=True, frames=True)
    by_speed = []
    for speed in (1.0, 0.5, 1.25):
        found = extract([said], config, {}, speed=speed)
        stats = set_statistics(found, {}, "utterance")
        by_speed.append(make_examples([said], found, stats, targets, {}, speed))
    (joined,) = join_speeds(by_speed)
    copies = (joined, *joined.others)
    assert [len(e.features) for e in copies] == [51, 101, 41]
    for e in copies:
        assert len(e.frames) == len(e.features)
        change = e.frames.index(labels.ids["b"])
        assert abs(change - 30 / e.speed) <= 1
    drawn = [draw_speeds([joined], 1, epoch)[0].speed for epoch in range(60)]
    assert set(drawn) == {1.0, 0.5, 1.25}
    assert drawn == [draw_speeds([joined], 1, epoch)[0].speed for epoch in range(60)]


def test_an_utterance_too_short_at_one_speed_keeps_the_others():
    a, b = example(10, (1,)), example(20, (2,))
    assert [e.utterance.id for e in join_speeds([[b], [a, b]])] == ["u20", "u10"]
    assert draw_speeds([a, b], 1, 0) == [a, b]


def test_extraction_lists_what_it_cannot_read(tones, tmp_path):
    (set_path,) = [tmp_path / "dev.jsonl"]
    audio = next((tones / "DEV").rglob("*.WAV"))
    set_path.write_text(
        f'{{"id": "good", "audio_filepath": "{audio}", "duration": 0.5}}\n'
        f'{{"id": "gone", "audio_filepath": "{tmp_path}/gone.wav", "duration": 1.0}}\n'
    )
    skipped = {}
    matrices = extract(read_manifest(set_path), FeatureConfig(), skipped)
    assert list(matrices) == ["good"]
    assert matrices["good"].features.shape == (51, 80)
    assert "gone.wav" in skipped["gone"]


def test_normalising_by_speaker_pools_their_utterances():
    draw = np.random.default_rng(0)
    xs = {k: draw.normal(i, 2, (30, 3)).astype(np.float32) for i, k in enumerate("abc")}
    config = FeatureConfig(ignore_silence=False)
    matrices = {k: Matrix(x, moments(x, config)) for k, x in xs.items()}
    speakers = {"a": "one", "b": "one", "c": "two"}

    def normal(how, stats=None):
        found = set_statistics(matrices, speakers, how, stats)
        return {k: normalize(x, found[k], config) for k, x in xs.items()}

    by_speaker = normal("speaker")
    both = np.concatenate([by_speaker["a"], by_speaker["b"]])
    np.testing.assert_allclose(both.mean(0), 0, atol=1e-5)
    assert abs(by_speaker["a"].mean()) > 0.01
    same = normal("global", statistics(xs.values(), config))
    np.testing.assert_allclose(np.concatenate(list(same.values())).mean(0), 0, atol=1e-5)
    assert abs(normal("utterance")["a"].mean()) < 1e-6
    assert set_statistics(matrices, speakers, "none") == dict.fromkeys("abc")
    with pytest.raises(InputError, match="global"):
        normal("global")


def test_utterances_without_times_are_skipped_framewise():
    said = Utterance("u", Path("u.wav"), "s", 1.0, text="a b")
    x = np.zeros((90, 80), np.float32)
    found = {"u": Matrix(x, moments(x, FeatureConfig()))}
    config = LabelConfig(unit="char")
    labels = inventory([said], "char")
    targets = Targets(labels, config, frame_clock(FeatureConfig()), ctc=False, frames=True)
    with pytest.raises(InputError, match="times"):
        make_examples([said], found, {"u": None}, targets, {})


@pytest.mark.parametrize("n_threads", [0, 1, 3, 20])
def test_batches_made_ahead_come_in_order(n_threads):
    made = []

    def make(number):
        made.append(number)
        return number

    ahead = made_ahead(make, range(4, 20), n_threads)
    assert next(ahead) == 4
    assert len(made) <= max(1, 2 * n_threads + 1)
    assert list(ahead) == list(range(5, 20))
    assert sorted(made) == list(range(4, 20))
    assert list(made_ahead(make, range(0), n_threads)) == []


def test_an_interrupt_while_threads_start_leaves_none_of_them_waiting(monkeypatch):
    class Interrupted(threading.Barrier):
        def wait(self, timeout=None):
            if threading.current_thread() is threading.main_thread():
                raise KeyboardInterrupt
            return super().wait(timeout)

    monkeypatch.setattr(examples, "Barrier", Interrupted)
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        next(made_ahead(str, range(9), 2))
    gc.collect()
    for thread in threading.enumerate():
        if thread.name.startswith("ThreadPoolExecutor"):
            thread.join(10)
    assert threading.active_count() == before


def test_batches_made_ahead_hand_on_errors_and_leave_no_thread():
    def make(number):
        if number == 3:
            raise InputError("no such noise")
        return number

    before = threading.active_count()
    ahead = made_ahead(make, range(9), 4)
    assert [next(ahead) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(InputError, match="noise"):
        next(ahead)
    with closing(made_ahead(make, range(9), 2)) as ahead:
        next(ahead)
    assert threading.active_count() == before


def test_threads_that_make_batches_compute_alone_and_leave_the_steps_theirs():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        ahead = made_ahead(lambda number: torch.get_num_threads(), range(9), 2)
        assert next(ahead) == 1
        assert torch.get_num_threads() == 3
        assert list(ahead) == [1] * 8
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
