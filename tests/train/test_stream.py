"""Tar shards: written whole and alike, streamed without losing or doubling an utterance."""

import io
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import tarfile
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from running import SMALL, asr
from test_resume import STOPPED, interrupt
from test_resume import start as start_training
from test_world import two_processes
from training_runs import assert_same_run, metrics_of
from training_runs import train_tones as run

from asr.audio.features import FeatureConfig
from asr.audio.read import load_audio
from asr.corpora import load_corpus
from asr.corpora.audit import Audit
from asr.corpora.shards import encode_flac, scan_shard, shard_size, write_shards
from asr.data import index as manifest_index
from asr.data.examples import made_ahead, padding
from asr.data.index import index_manifest
from asr.data.manifest import plain, read_manifest, write_manifest
from asr.errors import InputError
from asr.labels import inventory
from asr.train.config import AugmentConfig, RunConfig, TrainerConfig
from asr.train.setup import about_sets
from asr.train.stream import Stream, TarPipe, members, open_stream
from asr.types import Utterance

DEMO = "recipes/demo/ctc.yaml"
QUICK = ["corpus=streamed", "corpus.lexicon=''", "trainer.max_epochs=3", "trainer.tune=false"]
QUICK += ["trainer.shuffle_buffer=10"]
FORGIVING = "trainer.max_skipped=0.3"


@pytest.fixture(scope="module")
def shards(tones, tmp_path_factory):
    """The tone corpus in tars: five of train, one each of dev and test; read only."""
    out = tmp_path_factory.mktemp("shards")
    corpus = load_corpus("synthetic", tones)
    for name, utterances in corpus.sets.items():
        count = 5 if name == "train" else 1
        write_shards(out, name, utterances, shard_size(str(count)), corpus.audit)
    return out


def manifest_of(folder, rows):
    """A manifest without audio: (id, seconds, tar or None) each."""
    at = Counter()
    lines = []
    for name, seconds, tar in rows:
        audio = f"{name}.flac" if tar is None else f"{tar}.tar:{at[tar]}:100"
        at[tar] += 1024
        lines.append(
            {
                "id": name,
                "audio_filepath": audio,
                "duration": seconds,
                "text": "a b",
                "speaker": "s",
            }
        )
    path = folder / "train.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return index_manifest(path)


def stream_of(manifest, kept=None, **trainer):
    config = RunConfig(trainer=TrainerConfig(**trainer))
    config.labels.unit = "char"
    labels = inventory(manifest.vocabulary(), "char")
    kept = np.arange(len(manifest)) if kept is None else kept
    return Stream(about_sets(config, labels), manifest, kept, {})


def test_prepare_writes_flac_and_json_side_by_side(tones, tmp_path, monkeypatch, capsys):
    code, out, err = asr(
        monkeypatch, capsys, "prepare", "synthetic", tones, tmp_path, "--shards", "3"
    )
    assert code == 0, err
    assert "train: 48 utterances in 3 tars" in out
    tars = sorted(p.name for p in tmp_path.glob("train-*.tar"))
    assert tars == ["train-000000.tar", "train-000001.tar", "train-000002.tar"]
    assert not (tmp_path / "unfinished").exists()
    with tarfile.open(tmp_path / tars[0]) as opened:
        names = opened.getnames()
        record = json.load(opened.extractfile(names[1]))
    assert [n.rpartition(".")[2] for n in names] == ["flac", "json"] * 16
    assert record["duration"] > 0
    assert record["phones"][0][0] == "h#"
    about = json.loads((tmp_path / "shards.json").read_text())["train"]
    assert about["utterances"] == 48
    assert [s["utterances"] for s in about["shards"]] == [16, 16, 16]
    assert len(about["shards"][0]["sha256"]) == 64
    originals = {u.id: u for u in load_corpus("synthetic", tones).sets["train"]}
    copies = {u.id: u for u in read_manifest(tmp_path / "train.jsonl")}
    assert copies.keys() == originals.keys()
    for name, copy in copies.items():
        assert np.array_equal(load_audio(copy.audio), load_audio(originals[name].audio))
        assert replace(copy, audio=originals[name].audio) == originals[name]


def test_other_readers_of_the_convention_find_the_same(shards):
    corpus = load_corpus("webdataset", shards)
    assert {name: len(us) for name, us in corpus.sets.items()} == {"dev": 6, "test": 6, "train": 48}
    assert corpus.audit.used == corpus.audit.found == 60
    for name, found in corpus.sets.items():
        listed = read_manifest(shards / f"{name}.jsonl")
        assert sorted(found, key=lambda u: u.id) == sorted(listed, key=lambda u: u.id)


def test_the_same_corpus_gives_the_same_bytes_in_any_order(tones, tmp_path):
    utterances = load_corpus("synthetic", tones).sets["train"]
    for name, order in (("a", utterances), ("b", utterances[::-1])):
        write_shards(tmp_path / name, "train", order, shard_size("100KB"), Audit())
    files = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert len(files) > 3
    assert files == sorted(p.name for p in (tmp_path / "b").iterdir())
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@pytest.mark.parametrize("size", ["6", "100KB"])
def test_a_prepare_that_broke_off_goes_on(tones, tmp_path, monkeypatch, size):
    from asr.corpora import shards as module

    utterances = load_corpus("synthetic", tones).sets["train"]
    whole = write_shards(tmp_path / "whole", "train", utterances, shard_size(size), Audit())
    write_shard = module._write_shard

    def dying(tar, *args):
        if tar.name == "train-000002.tar":
            raise KeyboardInterrupt
        return write_shard(tar, *args)

    with monkeypatch.context() as patched:
        patched.setattr(module, "_write_shard", dying)
        with pytest.raises(KeyboardInterrupt):
            write_shards(tmp_path / "cut", "train", utterances, shard_size(size), Audit())
    assert not (tmp_path / "cut" / "train.jsonl").exists()
    left = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "cut").glob("*.tar")}
    assert len(left) == 2
    # As SIGKILL leaves them.
    (tmp_path / "cut" / ".train-000002.4711.part.tar").write_bytes(b"half")
    (tmp_path / "cut" / "unfinished" / ".train-000002.4711.part.json").write_bytes(b"half")
    ticks = []
    again = write_shards(
        tmp_path / "cut", "train", utterances, shard_size(size), Audit(), lambda: ticks.append(1)
    )
    assert again == whole
    assert len(ticks) == 48
    for name, time in left.items():
        assert (tmp_path / "cut" / name).stat().st_mtime_ns == time
    assert sorted(p.name for p in (tmp_path / "cut").rglob("*")) == sorted(
        p.name for p in (tmp_path / "whole").rglob("*")
    )


def test_audio_that_cannot_be_read_is_left_out_and_told(tones, tmp_path):
    utterances = load_corpus("synthetic", tones).sets["dev"]
    (tmp_path / "bad.flac").write_bytes(b"no audio")
    bad = replace(utterances[0], id="bad", audio=tmp_path / "bad.flac")
    audit = Audit()
    tars = write_shards(tmp_path / "out", "dev", [*utterances, bad], shard_size("2"), audit)
    assert sum(t.utterances for t in tars) == 6
    assert list(audit.corrupt) == [str(bad.audio)]
    with pytest.raises(InputError, match="set dev has no readable audio"):
        write_shards(tmp_path / "none", "dev", [bad], shard_size("2"), Audit())


def test_encoding_keeps_every_sample(tmp_path):
    rng = np.random.default_rng(0)
    coarse = rng.integers(-(2**15), 2**15, 1600).astype(np.int16)
    fine = rng.integers(-(2**23), 2**23, 1600).astype(np.int32) * 256
    for samples, subtype in ((coarse, "PCM_16"), (fine, "PCM_24")):
        path = tmp_path / f"{subtype}.wav"
        soundfile.write(path, samples, 16000, subtype)
        data, seconds = encode_flac(Utterance("u", path, "s", 0.05, 0.05))
        assert seconds == 0.05
        assert soundfile.info(io.BytesIO(data)).subtype == subtype
        assert np.array_equal(load_audio(path, 16000, 0.05), load_audio(path, data=data))
    soundfile.write(tmp_path / "whole.flac", coarse, 16000)
    data, _ = encode_flac(Utterance("u", tmp_path / "whole.flac", "s", 0.1))
    assert data == (tmp_path / "whole.flac").read_bytes()


@pytest.mark.parametrize("text", ["0", "-3", "MB", "1.5GB", "5TB", "", "a"])
def test_a_wrong_size_of_shards(text):
    with pytest.raises(InputError, match="--shards"):
        shard_size(text)


# --- the manifest's index


@given(
    st.lists(
        st.tuples(st.text(max_size=8), st.floats(0.1, 99), st.booleans(), st.booleans()),
        min_size=1,
        max_size=9,
    )
)
@settings(deadline=None, max_examples=30)
def test_an_indexed_manifest_gives_what_reading_it_whole_gives(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("index")
    lines = []
    for number, (text, seconds, blank, bare) in enumerate(rows):
        record = {"audio_filepath": f"a/{number}.wav", "duration": seconds, "text": text}
        if not bare:
            record |= {"id": f"ü{number}", "speaker": "s", "phones": ["a", ["b", 0, 0.1]]}
        lines += [json.dumps(record, ensure_ascii=number % 2 == 0)] + ["  "] * blank
    path = folder / "train.jsonl"
    path.write_text("\ufeff" + "\n".join(lines), encoding="utf-8")
    # Only the texts differ: those of an index are there to train on.
    written = read_manifest(path)
    whole = [plain(u) for u in written]
    for _ in ("scanned", "kept"):
        indexed = index_manifest(path)
        assert list(indexed) == whole
        assert indexed.columns.durations.tolist() == pytest.approx([u.duration_s for u in whole])
        assert indexed.columns.words == {w for u in written for w in u.text.split()}
        said = {w for u in whole for w in u.text.split()}
        assert set((indexed.vocabulary()[0].text or "").split()) == said
        assert indexed[-1] == whole[-1]
        assert indexed.shared_with(whole[:2])[0] == [u.id for u in whole[:2]]
        moved = [replace(whole[0], offset_s=1.0)]
        assert indexed.shared_with(moved) == ([], [whole[0].speaker] if not rows[0][3] else [])


@pytest.mark.parametrize("large", [0, 1 << 26])
def test_a_large_manifest_is_read_in_blocks(tmp_path, monkeypatch, large):
    rows = [(f"u{i}", 1.0 + i / 8, f"t{i % 3}" if i % 4 else None) for i in range(50)]
    whole = manifest_of(tmp_path, rows)
    (tmp_path / "train.jsonl.npz").unlink()
    monkeypatch.setattr(manifest_index, "BLOCK", 1500)
    monkeypatch.setattr(manifest_index, "LARGE", large)
    in_blocks = index_manifest(tmp_path / "train.jsonl")
    assert list(in_blocks) == list(whole)
    for name in manifest_index._TYPES:
        one, other = getattr(in_blocks.columns, name), getattr(whole.columns, name)
        assert one.dtype == other.dtype
        assert np.array_equal(one, other), name
    assert in_blocks.columns.tars == whole.columns.tars
    assert in_blocks.columns.words == {"a", "b"}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", ":3: not JSON"),
        ("[1]", ":3: expected a JSON object, found list"),
        ('{"id": "x"}', ":3: field 'audio_filepath' is missing"),
        ('{"id": "x", "audio_filepath": "a.wav", "duration": "1"}', ":3: field 'duration'"),
        ('{"id": "x", "audio_filepath": "a.wav", "duration": -1}', ":3: field 'duration'"),
        ('{"id": "x y", "audio_filepath": "a.wav", "duration": 1}', ":3: field 'id'"),
        ('{"id": 7, "audio_filepath": "a.wav", "duration": 1}', ":3: field 'id'"),
        ('{"id": "x", "audio_filepath": "a.wav", "duration": 1, "text": 5}', ":3: field 'text'"),
        ('{"id": "x", "audio_filepath": "a.wav", "duration": 1, "phones": [5]}', ":3: field 'ph"),
        ('{"id": "u0", "audio_filepath": "a.wav", "duration": 1}', "id 'u0' of utterance 3"),
        (
            r'{"id": "x", "audio_filepath": "a", "duration": 1, "text": "\ud800"}',
            ":3: field 'text'",
        ),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, told):
    path = tmp_path / "train.jsonl"
    good = [json.dumps({"id": f"u{i}", "audio_filepath": "a", "duration": 1}) for i in range(2)]
    path.write_text("\n".join([*good, line]) + "\n")
    with pytest.raises(InputError) as caught:
        index_manifest(path)
    assert told in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("*.npz"))


def killing(joined):
    """Let the helpers die, as where memory runs out, before what they found is joined."""

    def kill_first(blocks):
        for child in multiprocessing.active_children():
            child.kill()
        return joined(blocks)

    return kill_first


def test_a_process_that_dies_over_a_manifest_is_told(tmp_path, monkeypatch):
    manifest_of(tmp_path, [(f"u{i}", 1.0, None) for i in range(50)])
    (tmp_path / "train.jsonl.npz").unlink()
    monkeypatch.setattr(manifest_index, "BLOCK", 1500)
    monkeypatch.setattr(manifest_index, "LARGE", 0)
    monkeypatch.setattr(manifest_index, "_joined", killing(manifest_index._joined))
    with pytest.raises(InputError, match="a process that read the manifest was killed"):
        index_manifest(tmp_path / "train.jsonl")


def test_the_same_path_written_otherwise_is_the_same_audio(tmp_path):
    lines = [{"id": f"u{i}", "audio_filepath": f"./a/{i}.wav", "duration": 1} for i in range(3)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    manifest = index_manifest(tmp_path / "train.jsonl")
    assert manifest.shared_with(list(manifest))[0] == ["u0", "u1", "u2"]


def test_a_changed_manifest_or_a_broken_index_is_read_anew(tmp_path):
    manifest_of(tmp_path, [("a", 1.0, None)])
    assert len(manifest_of(tmp_path, [("a", 1.0, None), ("b", 2.0, None)])) == 2
    (tmp_path / "train.jsonl.npz").write_bytes(b"PK\x03\x04 half")
    assert len(index_manifest(tmp_path / "train.jsonl")) == 2


# --- an epoch


UNEVEN = [(f"u{i:03d}", 1.0 + i % 13, f"t{min(i // 7, 4)}") for i in range(83)]


@pytest.mark.parametrize("n_workers", [0, 1, 3])
@pytest.mark.parametrize("n_ranks", [1, 2, 3])
def test_no_utterance_is_lost_or_doubled(tmp_path, monkeypatch, n_ranks, n_workers):
    stream = stream_of(manifest_of(tmp_path, UNEVEN), batch_size=4, shuffle_buffer=20)
    monkeypatch.setattr(stream, "example", lambda i, data, speed: i)
    for tar in stream.manifest.columns.tars:
        with Path(tar).open("wb") as handle:
            handle.truncate(1 << 20)
    for epoch in (0, 1):
        seen = []
        plans = [stream.open(epoch, 0, rank, n_ranks) for rank in range(n_ranks)]
        assert len({plan.n_batches for plan in plans}) == 1
        for plan in plans:
            made = made_ahead(plan.load, range(plan.n_batches), n_workers)
            parts = list(made)
            assert len(parts) == plan.n_batches
            seen += [i for part in parts for i in part]
        assert sorted(seen) == list(range(len(UNEVEN)))


def test_an_epoch_goes_on_at_any_batch_and_reads_only_what_is_left(tmp_path, monkeypatch):
    stream = stream_of(manifest_of(tmp_path, UNEVEN), batch_size=4, shuffle_buffer=20)
    monkeypatch.setattr(stream, "example", lambda i, data, speed: i)
    for tar in stream.manifest.columns.tars:
        with Path(tar).open("wb") as handle:
            handle.truncate(1 << 20)
    whole = stream.open(1)
    batches = [whole.load(n) for n in range(whole.n_batches)]
    for first in range(whole.n_batches):
        rest = stream.open(1, first)
        assert [rest.load(n) for n in range(first, rest.n_batches)] == batches[first:]


def test_epochs_differ_and_are_mixed_within_bounds(tmp_path):
    rows = [(f"u{i:04d}", 2.0 + (i * 7919 % 300) / 20, f"t{i // 50:02d}") for i in range(1000)]
    stream = stream_of(manifest_of(tmp_path, rows), batch_size=8, shuffle_buffer=200)
    plan, again, other = stream.plan(0), stream.plan(0), stream.plan(1)
    assert np.array_equal(plan.batches.order, again.batches.order)
    assert not np.array_equal(plan.batches.order, other.batches.order)
    assert sorted(plan.batches.order.tolist()) == list(range(1000))
    # Four tars of fifty make a window.
    starts = [0, *plan.window_ends.tolist()]
    for start, end in pairwise(starts):
        window = [i for n in range(start, end) for i in plan.batches[n]]
        assert len({i // 50 for i in window}) == 4
    assert padding(plan.lens, list(plan.batches)) < 0.05
    assert all(len(batch) <= 8 for batch in plan.batches)


def test_plain_files_are_mixed_freely(tmp_path):
    rows = [(f"u{i:04d}", 1.0, None) for i in range(3000)]
    stream = stream_of(manifest_of(tmp_path, rows), batch_size=8, shuffle_buffer=1000)
    first = stream.plan(0).batches.order[:1000]
    assert sorted(stream.plan(0).batches.order.tolist()) == list(range(3000))
    assert first.max() - first.min() > 2800


def test_padded_frames_are_capped(tmp_path):
    rows = [(f"u{i:03d}", float(1 + i % 30), f"t{i % 4}") for i in range(200)]
    stream = stream_of(manifest_of(tmp_path, rows), batch_size=64, max_batch_s=60.0)
    plan = stream.plan(0)
    assert all(len(b) * plan.lens[b].max() <= 6000 for b in plan.batches)


@given(st.binary(max_size=300), st.lists(st.tuples(st.integers(0, 40), st.integers(1, 40))))
@settings(deadline=None)
def test_members_of_a_file(data, gaps):
    wanted, at = [], 0
    for number, (gap, size) in enumerate(gaps):
        wanted.append((number, at + gap, size))
        at += gap + size
    expected = []
    for number, start, size in wanted:
        if start + size > len(data):
            break
        expected.append((number, data[start : start + size]))
    assert list(members(io.BytesIO(data), wanted)) == expected


# --- training


def in_shards(recipe, shards, run_dir, *overrides, **kwargs):
    return run(recipe, shards, run_dir, *QUICK, *overrides, **kwargs)


@pytest.fixture(scope="module")
def whole(shards, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("runs") / "whole"
    in_shards(DEMO, shards, run_dir, "augment.speeds=[0.9,1.0]")
    return run_dir


def test_training_from_shards_learns(shards, tmp_path):
    overrides = ["trainer.max_epochs=12", "features.normalize=global", "loss.framewise_epochs=1"]
    overrides += ["lm.label_order=2", "lm.word_order=1", f"augment.noise_dir={shards / 'none'}"]
    (shards / "none").mkdir(exist_ok=True)
    soundfile.write(shards / "none" / "noise.wav", np.full(999, 0.001), 16000)
    results = in_shards(DEMO, shards, tmp_path / "run", *overrides)
    assert results["sets"]["test"]["greedy"]["PER"]["error_rate"] < 0.3
    assert results["skipped"]["train"] == 0
    assert not (tmp_path / "run/manifests/train.jsonl").exists()


@pytest.mark.parametrize("n_saves", [2, 13, 20])
def test_resuming_inside_an_epoch_equals_an_uninterrupted_run(whole, shards, tmp_path, n_saves):
    overrides = (*QUICK, "augment.speeds=[0.9,1.0]", "trainer.save_minutes=1e-9")
    interrupt(n_saves, shards, tmp_path / "cut", *overrides)
    run(DEMO, shards, tmp_path / "cut", *overrides, "trainer.workers=0", resume=True)
    assert_same_run(whole, tmp_path / "cut")


def test_two_processes_learn_and_lose_what_one_does(shards, tmp_path):
    mine = shutil.copytree(shards, tmp_path / "shards")
    for tar in sorted(mine.glob("train-*.tar")):
        flip(tar)
    overrides = [*QUICK, "trainer.max_epochs=2", FORGIVING]
    run(DEMO, mine, tmp_path / "one", *overrides)
    settings = (f"corpus.root={mine}", f"run_dir={tmp_path / 'two'}", *SMALL, *overrides)
    codes, told = two_processes(tmp_path, DEMO, *settings)
    assert codes == [0, 0], told
    for one, two in zip(metrics_of(tmp_path / "one"), metrics_of(tmp_path / "two"), strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)
    lost = [json.loads((tmp_path / run / "skipped.json").read_text()) for run in ("one", "two")]
    assert lost[0] == lost[1]
    assert len(lost[0]["train"]) == told[0].count("left out") == 5


def test_a_resumed_run_wants_the_same_manifest(shards, tmp_path):
    mine = shutil.copytree(shards, tmp_path / "shards")
    interrupt(1, mine, tmp_path / "run", *QUICK)
    (mine / "train.jsonl").write_text(
        (mine / "train.jsonl").read_text().replace('"speaker": "mtr0"', '"speaker": "mtr9"', 1)
    )
    with pytest.raises(InputError, match="not those that the run began with"):
        run(DEMO, mine, tmp_path / "run", *QUICK, resume=True)


def remove(tar):
    tar.unlink()


def empty(tar):
    tar.write_bytes(b"")


def truncate(tar):
    tar.write_bytes(tar.read_bytes()[: tar.stat().st_size // 2])


def flip(tar):
    data = bytearray(tar.read_bytes())
    # Inside the audio of the first utterance, past its header.
    data[700:9000] = bytes(8300)
    tar.write_bytes(data)


@pytest.mark.parametrize("spoil", [remove, empty, truncate, flip])
def test_spoilt_shards_are_told_counted_and_passed_over(shards, tmp_path, capsys, spoil):
    mine = shutil.copytree(shards, tmp_path / "shards")
    spoil(mine / "train-000002.tar")
    results = in_shards(DEMO, mine, tmp_path / "run", FORGIVING)
    told = capsys.readouterr().err
    n_lost = results["skipped"]["train"]
    assert n_lost == {remove: 9, empty: 9, flip: 1}.get(spoil, n_lost)
    assert 1 <= n_lost <= 10
    assert "train-000002.tar" in told
    assert told.count("left out") == 1
    assert len(json.loads((tmp_path / "run/skipped.json").read_text())["train"]) == n_lost
    with pytest.raises(InputError, match=r"trainer\.max_skipped=0") as caught:
        in_shards(DEMO, mine, tmp_path / "stopped", "trainer.max_skipped=0")
    assert "train-000002.tar" in str(caught.value)


def test_a_batch_that_is_lost_whole_is_a_filler(shards, tmp_path):
    mine = shutil.copytree(shards, tmp_path / "shards")
    for tar in sorted(mine.glob("train-*.tar")):
        flip(tar)
    results = in_shards(
        DEMO, mine, tmp_path / "run", "trainer.batch_size=1", "trainer.max_epochs=1", FORGIVING
    )
    assert results["skipped"]["train"] == 5
    assert results["bad_steps"] == 0


def test_shards_of_others_with_gaps(shards, tmp_path):
    mine = shutil.copytree(shards, tmp_path / "shards")
    tar = mine / "dev-000000.tar"
    with tarfile.open(tar, "a") as opened:
        for name, data in (
            ("x.json", b"{}"),
            ("y.flac", b"fLaC"),
            ("z.JSON", b"{"),
            ("z.wav", b""),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            opened.addfile(info, io.BytesIO(data))
    audit = Audit()
    found, n_keys = scan_shard(tar, audit)
    assert (len(found), n_keys) == (6, 9)
    assert audit.missing[f"{tar}/x"] == "no audio beside its JSON"
    assert audit.missing[f"{tar}/y"] == "no JSON beside its audio"
    truncate(mine / "test-000000.tar")
    empty(mine / "train-000000.tar")
    (mine / "train-000001.tar").write_bytes(b"no tar at all" * 99)
    corpus = load_corpus("webdataset", mine)
    assert "truncated" in corpus.audit.corrupt[str(mine / "test-000000.tar")]
    assert "not a whole" in corpus.audit.corrupt[str(mine / "train-000001.tar")]
    assert str(mine / "train-000000.tar") in corpus.audit.corrupt
    assert len(corpus.sets["train"]) == 48 - 9 - 10


@pytest.fixture
def pipes(shards, tmp_path):
    """The tone corpus again, with pipes in the place of train's tars."""
    mine = tmp_path / "pipes"
    mine.mkdir()
    for path in shards.glob("*.*"):
        if path.match("train-*.tar"):
            os.mkfifo(mine / path.name)
        else:
            shutil.copy(path, mine)
    return mine


def feed(tar, pipe, n_times, is_one_writer):
    """Write a tar n times, through one opening of the pipe or several, as loops of cat do."""

    def write():
        # The reader leaves after the last epoch, once it has what it wants.
        with suppress(BrokenPipeError):
            if is_one_writer:
                with pipe.open("wb") as handle:
                    for _ in range(n_times):
                        handle.write(tar.read_bytes())
            else:
                for _ in range(n_times):
                    pipe.write_bytes(tar.read_bytes())

    threading.Thread(target=write, daemon=True).start()


@pytest.mark.parametrize("is_one_writer", [False, True])
def test_training_from_pipes_equals_training_from_files(whole, shards, pipes, is_one_writer):
    for tar in shards.glob("train-*.tar"):
        feed(tar, pipes / tar.name, 3, is_one_writer)
    in_shards(DEMO, pipes, pipes / "run", "augment.speeds=[0.9,1.0]")
    assert_same_run(whole, pipes / "run")


def test_framewise_training_from_pipes(shards, pipes):
    for tar in shards.glob("train-*.tar"):
        feed(tar, pipes / tar.name, 1, False)
    framewise = ("trainer.max_epochs=1", "loss.name=framewise", "decoder.name=viterbi")
    results = in_shards(DEMO, pipes, pipes / "run", *framewise)
    assert results["skipped"]["train"] == 0


def test_a_pipe_that_breaks_off_is_told_and_read_anew(shards, pipes):
    tar, data = pipes / "train-000000.tar", (shards / "train-000000.tar").read_bytes()
    columns = index_manifest(shards / "train.jsonl").columns
    here = np.flatnonzero(columns.shards == 0).tolist()
    wanted = [(i, int(columns.member_starts[i]), int(columns.member_sizes[i])) for i in here]
    pipe = TarPipe(tar)
    copies = [data, data[: len(data) // 2], b"no tar" * 999, data]
    turns = [threading.Event() for _ in copies]

    def write():
        for turn, copy in zip(turns, copies, strict=True):
            turn.wait(10)
            with suppress(BrokenPipeError):
                tar.write_bytes(copy)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    found = []
    for turn in turns:
        turn.set()
        found.append(dict(pipe.members(wanted)))
    expected = {i: data[start : start + size] for i, start, size in wanted}
    assert found[0] == found[3] == expected
    assert 0 < len(found[1]) < len(wanted)
    assert found[1].items() < expected.items()
    assert found[2] == {}


def test_a_run_that_waits_for_a_pipe_can_be_stopped(pipes, tmp_path):
    settings = (f"corpus.root={pipes}", f"run_dir={tmp_path / 'run'}", *SMALL, *QUICK)
    process = start_training(DEMO, *settings)
    for line in process.stderr:
        if "parameters" in line:
            break
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.3)
    process.send_signal(signal.SIGINT)
    told = process.stderr.read()
    process.stderr.close()
    assert process.wait(20) in STOPPED, told
    assert told.splitlines()[-1] == (
        f"asr: stopped; go on with: asr train {tmp_path / 'run'} --resume"
    )


def test_what_pipes_cannot_do_is_refused(pipes):
    manifest = index_manifest(pipes / "train.jsonl")
    stream = stream_of(manifest)
    with pytest.raises(InputError, match="is a pipe, which 2 processes cannot share"):
        open_stream(stream.about, manifest, {}, 2)
    by_train = replace(stream.about, features=FeatureConfig(normalize="global"))
    with pytest.raises(InputError, match="is a pipe, which cannot be read beforehand"):
        open_stream(by_train, manifest, {}, 1)


def test_speaker_normalisation_is_refused(shards, tmp_path):
    with pytest.raises(InputError, match=r"features\.normalize=speaker"):
        in_shards(DEMO, shards, tmp_path / "run", "features.normalize=speaker")


def test_long_utterances_and_utterances_without_text_are_left_out(tmp_path):
    manifest = manifest_of(tmp_path, [("a", 1.0, None), ("b", 99.0, None), ("c", 1.0, None)])
    config = RunConfig(trainer=TrainerConfig(max_utterance_s=50, max_skipped=0.5))
    config.labels.unit = "char"
    config.augment = AugmentConfig()
    skipped = {}
    labels = inventory(manifest.vocabulary(), "char")
    stream = open_stream(about_sets(config, labels), manifest, skipped, 1)
    assert stream.kept.tolist() == [0, 2]
    assert skipped == {"b": "more than trainer.max_utterance_s=50 s"}
    (tmp_path / "a.flac").write_bytes(b"")
    soundfile.write(tmp_path / "c.flac", np.zeros(16000), 16000)
    assert stream.example(0, None, 1.0) is None
    assert "the file is empty" in skipped["a"]
    assert np.isfinite(stream.example(2, None, 1.0).features).all()


def test_train_must_not_hold_dev(shards, tmp_path):
    mine = shutil.copytree(shards, tmp_path / "shards")
    write_manifest(
        mine / "dev.jsonl", [replace(u, id="d" + u.id) for u in read_manifest(mine / "train.jsonl")]
    )
    with pytest.raises(InputError, match="set 'dev' shares 48 utterances with train"):
        in_shards(DEMO, mine, tmp_path / "run")
