import os
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from training_runs import assert_same_run, train_tones

from asr.audio.features import FeatureConfig
from asr.data import cache as feature_cache
from asr.data.cache import cached, divided, read_shard
from asr.data.matrices import extract
from asr.errors import InputError
from asr.types import Utterance

CONFIG = FeatureConfig(n_mels=8)


@pytest.fixture
def spoken(tones, tmp_path):
    paths = []
    for number, path in enumerate(sorted((tones / "DEV").rglob("*.WAV"))):
        paths.append(shutil.copy(path, tmp_path / f"{number}.wav"))
    return [Utterance(p.stem, p, "s", 0.5) for p in paths]


@pytest.fixture
def computed(monkeypatch):
    """The ids of the utterances that are computed, and not read, from now on."""
    ids = []

    def counting(utterances, *rest):
        ids.extend(u.id for u in utterances)
        return extract(utterances, *rest)

    monkeypatch.setattr(feature_cache, "extract", counting)
    monkeypatch.setattr(feature_cache, "SHARD", 4)
    return ids


def same(a, b):
    assert list(a) == list(b)
    for i in a:
        assert np.array_equal(a[i].features, b[i].features)
        assert np.array_equal(a[i].moments, b[i].moments)
    return True


def test_the_second_time_reads_what_the_first_computed(spoken, computed, tmp_path):
    folder, told, ticks = tmp_path / "cache", [], []
    plain = extract(spoken, CONFIG, {}, speed=1.1)
    for _ in range(2):
        found = cached(
            folder, spoken, CONFIG, {}, lambda: ticks.append(1), speed=1.1, tell=told.append
        )
        assert same(found, plain)
    assert sorted(computed) == [u.id for u in spoken]
    assert len(ticks) == 12
    assert str(folder) in told[0]
    assert "2 of 2 files computed" in told[0]
    assert "0 of 2 files computed" in told[1]
    assert sorted(p.suffix for p in folder.iterdir()) == ["", ".safetensors", ".safetensors"]


def test_other_settings_other_features_but_not_for_what_comes_later(spoken, computed, tmp_path):
    cached(tmp_path / "c", spoken, CONFIG, {})
    cached(tmp_path / "c", spoken, FeatureConfig(n_mels=8, stack=1, normalize="none"), {})
    assert len(computed) == 6
    cached(tmp_path / "c", spoken, FeatureConfig(n_mels=9), {})
    cached(tmp_path / "c", spoken, CONFIG, {}, speed=0.9)
    assert len(computed) == 18


def test_changed_audio_is_noticed_and_only_its_file_made_anew(spoken, computed, tmp_path):
    cached(tmp_path / "c", spoken, CONFIG, {})
    computed.clear()
    shutil.copy(spoken[0].audio, spoken[5].audio)
    told = []
    found = cached(tmp_path / "c", spoken, CONFIG, {}, tell=told.append)
    first, second = divided(spoken)
    assert spoken[5] in first
    assert computed == [u.id for u in first]
    assert "5.wav: changed" in told[0]
    assert same(found, extract(spoken, CONFIG, {}))
    # A changed time alone counts as well: the size may be the same.
    computed.clear()
    os.utime(second[0].audio, ns=(1, 1))
    cached(tmp_path / "c", spoken, CONFIG, {})
    assert computed == [u.id for u in second]


def test_one_more_in_front_changes_one_file(spoken, computed, tmp_path):
    cached(tmp_path / "c", spoken[1:], CONFIG, {})
    computed.clear()
    found = cached(tmp_path / "c", spoken, CONFIG, {})
    (its_own,) = (group for group in divided(spoken) if spoken[0] in group)
    assert computed == [u.id for u in its_own]
    assert len(computed) < len(spoken)
    assert same(found, extract(spoken, CONFIG, {}))


def test_groups_are_no_larger_than_told_and_keep_their_utterances():
    many = [Utterance(f"spk{i // 7}_{i}", Path("a.wav"), "s", 1.0) for i in range(9000)]
    groups = divided(many)
    assert max(map(len, groups)) <= feature_cache.SHARD
    assert sorted(u.id for group in groups for u in group) == sorted(u.id for u in many)
    assert [len(group) for group in divided(many[:7] * 1000)] == [1000] * 7
    grown = divided([Utterance("new", Path("b.wav"), "s", 1.0), *many])
    assert len([group for group in grown if group not in groups]) == 1


def test_unreadable_audio_is_skipped_each_time_until_it_is_mended(spoken, computed, tmp_path):
    good = spoken[2].audio.read_bytes()
    spoken[2].audio.write_bytes(b"not audio")
    for _ in range(2):
        skipped = {}
        assert "2" not in cached(tmp_path / "c", spoken, CONFIG, skipped)
        assert "2.wav" in skipped["2"]
    assert len(computed) == 6
    spoken[2].audio.write_bytes(good)
    assert same(cached(tmp_path / "c", spoken, CONFIG, {}), extract(spoken, CONFIG, {}))


def test_a_set_without_one_readable_file(spoken, tmp_path):
    for utterance in spoken:
        utterance.audio.unlink()
    skipped = {}
    assert cached(tmp_path / "c", spoken, CONFIG, skipped) == {}
    assert len(skipped) == 6


@pytest.mark.parametrize("n_bytes", [0, 5, 2000])
def test_a_broken_file_is_told_and_made_anew(spoken, tmp_path, n_bytes):
    cached(tmp_path / "c", spoken, CONFIG, {})
    (path,) = (tmp_path / "c").glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:n_bytes])
    told = []
    assert same(
        cached(tmp_path / "c", spoken, CONFIG, {}, tell=told.append), extract(spoken, CONFIG, {})
    )
    assert "broken" in told[0]


def test_a_header_with_any_bit_flipped_is_told_and_made_anew(spoken, tmp_path):
    cached(tmp_path / "c", spoken, CONFIG, {})
    (path,) = (tmp_path / "c").glob("*.safetensors")
    good, plain = path.read_bytes(), extract(spoken, CONFIG, {})
    for place in range(8 + int.from_bytes(good[:8], "little")):
        told, bad = [], bytearray(good)
        bad[place] ^= 1 << place % 8
        path.write_bytes(bad)
        found = read_shard(path, spoken, told.append)
        assert "broken" in told[0] if found is None else same(found[0], plain)


def test_features_in_use_survive_their_file(spoken, tmp_path):
    found = cached(tmp_path / "c", spoken, CONFIG, {})
    shutil.rmtree(tmp_path / "c")
    assert same(found, extract(spoken, CONFIG, {}))


def test_two_at_once_compute_once(spoken, computed, tmp_path):
    results = {}
    threads = [
        threading.Thread(
            target=lambda k=k: results.update({k: cached(tmp_path / "c", spoken, CONFIG, {})})
        )
        for k in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(computed) == 6
    assert all(same(results[k], results[0]) for k in range(4))


def test_no_room_and_no_folder_are_told(spoken, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"trainer\.feature_cache=.*file"):
        cached(tmp_path / "file" / "c", spoken, CONFIG, {})
    monkeypatch.setattr(feature_cache.shutil, "disk_usage", lambda path: SimpleNamespace(free=1))
    with pytest.raises(InputError, match=r"needed .* free"):
        cached(tmp_path / "c", spoken, CONFIG, {})


def test_training_from_files_equals_training_from_memory(tones, tmp_path):
    quick = ["trainer.max_epochs=1", "trainer.tune=false", "augment=speed"]
    for name in ("memory", "files", "again"):
        cache = [] if name == "memory" else [f"trainer.feature_cache={tmp_path / 'cache'}"]
        train_tones("recipes/demo/ctc.yaml", tones, tmp_path / name, *quick, *cache)
    for name in ("files", "again"):
        assert_same_run(tmp_path / "memory", tmp_path / name)
    assert "0 of 1 files computed" in (tmp_path / "again" / "train.log").read_text()
