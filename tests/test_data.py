from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from asr.augment import AugmentConfig
from asr.data import Example, bucket, collate, extract, make_examples, normalize_set
from asr.errors import InputError
from asr.features import FeatureConfig, statistics
from asr.labels import LabelConfig, inventory
from asr.losses import IGNORE
from asr.manifest import read_manifest
from asr.types import Utterance


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


def test_buckets_pad_little_and_change_with_the_epoch():
    generator = torch.Generator().manual_seed(0)
    lens = torch.randint(100, 1500, (2000,), generator=generator).tolist()
    one = bucket(lens, 16, 24_000, torch.Generator().manual_seed(1))
    padded = sum(len(b) * max(lens[i] for i in b) for b in one)
    assert 1 - sum(lens) / padded < 0.06
    two = bucket(lens, 16, 24_000, torch.Generator().manual_seed(2))
    assert {frozenset(b) for b in one} != {frozenset(b) for b in two}


def example(n_frames, labels, frames=None):
    features = torch.full((n_frames, 4), float(n_frames))
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


def test_augmentation_needs_a_generator_and_follows_it():
    config = FeatureConfig(n_mels=4, stack=1)
    examples = [example(50, (1,)), example(40, (2,))]
    plain = collate(examples, config, False, AugmentConfig()).features
    a, b = (
        collate(examples, config, False, AugmentConfig(), torch.Generator().manual_seed(3)).features
        for _ in range(2)
    )
    assert torch.equal(a, b)
    assert not torch.equal(a, plain)


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
    assert matrices["good"].shape == (51, 80)
    assert "gone.wav" in skipped["gone"]


def test_normalising_by_speaker_pools_their_utterances():
    xs = {k: torch.randn(30, 3) * 2 + i for i, k in enumerate("abc")}
    speakers = {"a": "one", "b": "one", "c": "two"}
    normal = normalize_set(xs, speakers, "speaker")
    torch.testing.assert_close(torch.cat([normal["a"], normal["b"]]).mean(0), torch.zeros(3))
    assert normal["a"].mean().abs() > 0.01
    same = normalize_set(xs, speakers, "global", statistics(xs.values()))
    torch.testing.assert_close(
        torch.cat(list(same.values())).mean(0), torch.zeros(3), atol=1e-5, rtol=0
    )
    with pytest.raises(InputError, match="global"):
        normalize_set(xs, speakers, "global")


def test_utterances_without_times_are_skipped_framewise():
    said = Utterance("u", Path("u.wav"), "s", 1.0, text="a b")
    features = {"u": torch.zeros(90, 80)}
    config = LabelConfig(unit="char")
    labels = inventory([said], "char")
    with pytest.raises(InputError, match="times"):
        make_examples([said], features, labels, config, FeatureConfig(), 1, {}, False, True)
