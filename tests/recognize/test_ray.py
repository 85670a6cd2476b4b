"""The work in parts, on a real Ray cluster where ray is installed and without it elsewhere."""

import importlib.util
import json
import os
import signal
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from running import asr

from asr.audio.sources import Source, find_sources
from asr.corpora.audit import Audit
from asr.corpora.shards import ShardSize, write_shards
from asr.data.manifest import write_manifest
from asr.errors import InputError
from asr.recognize import ray as ray_engine
from asr.recognize.ray import Done, Worker, transcribe_parts
from asr.recognize.recognizer import Recognizer
from asr.recognize.unpacking import unpacked

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="the extra ray is not installed"
)


@pytest.fixture
def sources(said):
    return find_sources([str(u.audio) for u in said], pytest.fail)


def here(parts, make):
    """What a cluster does, in this process."""
    worker = Worker(make, str(Path.cwd()))
    for number, listed in parts:
        found = worker({"number": number, "sources": listed})
        assert not found.pop("error")
        yield Done(**found)


@pytest.fixture
def alone(monkeypatch):
    """No ray, and two files in a part; gets the numbers of the parts that are done."""
    done = []

    def on_ray(parts, make):
        for part in here(parts, make):
            done.append(part.number)
            yield part

    monkeypatch.setattr(ray_engine, "cluster", lambda: None)
    monkeypatch.setattr(ray_engine, "on_ray", on_ray)
    monkeypatch.setattr(ray_engine, "PART_BYTES", 2 * ray_engine.LEAST_BYTES)
    return done


def run(sources, out, model, settings="greedy", redo=False, make=None):
    """Transcribe into ``out``; what was told, and what failed."""
    told, failed = [], []
    make = make or partial(Recognizer.load, model)
    transcribe_parts(
        sources, out, make, settings, redo, told.append, lambda path, error: failed.append(error)
    )
    return told, [str(error) for error in failed]


def lines(out):
    return [json.loads(x) for f in sorted(out.glob("part-*.jsonl")) for x in f.open()]


def alike(found, expected):
    """Whether two sets of records say the same, but for what padding changes in the last digits."""
    assert [r["id"] for r in found] == [r["id"] for r in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name in ("text", "audio_filepath", "duration"):
            assert one[name] == other[name]
        assert one["score"] == pytest.approx(other["score"], abs=2e-3)
        for a, b in zip(one["labels"], other["labels"], strict=True):
            assert (a["label"], a["start_s"], a["end_s"]) == (b["label"], b["start_s"], b["end_s"])
            assert a["confidence"] == pytest.approx(b["confidence"], abs=2e-4)


@pytest.fixture
def plain(model, said, tmp_path, monkeypatch, capsys):
    """What the plain engine writes of the test set."""
    out = tmp_path / "plain"
    files = [u.audio for u in said]
    words = ("transcribe", "--model", model, "--format", "jsonl", "--out", out, *files)
    assert asr(monkeypatch, capsys, *words)[0] == 0
    records = (json.loads(path.read_text()) for path in out.rglob("*.jsonl"))
    return sorted(records, key=lambda record: record["id"])


def test_parts_hold_what_the_plain_engine_writes(model, sources, plain, tmp_path, alone):
    assert run(sources, tmp_path / "out", model) == ([], [])
    assert len(alone) == 3
    alike(lines(tmp_path / "out"), plain)


def test_parts_that_are_there_are_not_done_again(model, sources, tmp_path, alone):
    out = tmp_path / "out"
    run(sources, out, model)
    before = lines(out)
    (out / "part-000001.jsonl").unlink()
    (out / "part-000000.jsonl").write_text("untouched")
    alone.clear()
    told, _ = run(sources, out, model)
    assert alone == [1]
    assert told == ["2 of 3 parts are there (--redo replaces them)"]
    assert (out / "part-000000.jsonl").read_text() == "untouched"
    run(sources, out, model, redo=True)
    assert lines(out) == before


def test_the_plan_stays_when_files_change(model, sources, tmp_path, alone, monkeypatch):
    out = tmp_path / "out"
    run(sources, out, model)
    (out / "part-000002.jsonl").unlink()
    monkeypatch.setattr(ray_engine, "PART_BYTES", 1)
    run(sources, out, model)
    assert alone == [0, 1, 2, 2]
    assert [r["id"] for r in lines(out)] == [s.id for s in sources]


def test_broken_off_it_goes_on(model, sources, tmp_path, alone, monkeypatch):
    out = tmp_path / "out"

    def killed(parts, make):
        yield from list(here(parts[:2], make))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ray_engine, "on_ray", killed)
        with pytest.raises(KeyboardInterrupt):
            run(sources, out, model)
    assert len(lines(out)) == 4
    run(sources, out, model)
    assert alone == [2]
    assert [r["id"] for r in lines(out)] == [s.id for s in sources]


def test_parts_of_something_else_are_refused(model, sources, tmp_path, alone):
    out = tmp_path / "out"
    run(sources, out, model)
    with pytest.raises(InputError, match=r"another model or options.*--redo"):
        run(sources, out, model, settings="beam")
    with pytest.raises(InputError, match="another input"):
        run(sources[1:], out, model)
    (out / "parts.json").write_text("{")
    with pytest.raises(InputError, match="another run"):
        run(sources, out, model)


def test_a_bad_file_is_a_line_and_the_rest_goes_on(model, sources, tmp_path, alone):
    bad = tmp_path / os.fsdecode(b"b\xff.wav")
    bad.write_text("no audio")
    every = [sources[0], Source(bad, "bad"), Source(tmp_path / "no.wav", "no"), *sources[1:]]
    for _ in range(2):
        # The second time all is there, and the bad ones are told again.
        _, failed = run(every, tmp_path / "out", model)
        assert len(failed) == 2
        assert "not audio" in failed[0]
        assert "no such file" in failed[1]
    found = lines(tmp_path / "out")
    assert [r["id"] for r in found] == [s.id for s in every]
    assert found[1] == {"id": "bad", "audio_filepath": str(bad), "error": failed[0]}


def test_a_part_that_does_not_come_back_is_told(model, sources, tmp_path, alone, monkeypatch):
    monkeypatch.setattr(ray_engine, "on_ray", lambda parts, make: here(parts[1:], make))
    _, failed = run(sources, tmp_path / "out", model)
    assert len(failed) == 1
    assert "part-000000.jsonl: its workers died" in failed[0]
    assert len(lines(tmp_path / "out")) == 4


def test_tars_and_manifests_are_unpacked(model, said, tmp_path, alone):
    write_shards(tmp_path, "test", said, ShardSize(count=2), Audit())
    write_manifest(tmp_path / "plain.jsonl", said)
    tars = sorted(tmp_path.glob("*.tar"))
    texts = {}
    for name, paths in {
        "tars": tars,
        "m": [tmp_path / "test.jsonl"],
        "p": [tmp_path / "plain.jsonl"],
    }.items():
        found = unpacked([Source(path, path.stem) for path in paths], pytest.fail)
        assert run(found, tmp_path / name, model) == ([], [])
        texts[name] = {r["id"]: r["text"] for r in lines(tmp_path / name)}
    assert texts["tars"] == texts["m"] == texts["p"]
    assert texts["m"].keys() == {u.id for u in said}


def test_a_stretch_of_a_file(model, said, tmp_path, alone):
    record = {"audio_filepath": str(said[0].audio), "offset": 0.2, "duration": 0.3, "id": "a"}
    (tmp_path / "cut.jsonl").write_text(json.dumps(record) + "\n")
    found = unpacked([Source(tmp_path / "cut.jsonl", "cut")], pytest.fail)
    run(found, tmp_path / "out", model)
    (line,) = lines(tmp_path / "out")
    assert line["duration"] == pytest.approx(0.3)
    assert line["offset"] == 0.2


def test_bad_tars_and_manifests_are_told(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"x" * 2000)
    (tmp_path / "b.jsonl").write_text("{}\n")
    failed = []
    names = ["a.tar", "b.jsonl", "no.tar", "no.jsonl"]
    found = unpacked(
        [Source(tmp_path / name, name) for name in names],
        lambda path, error: failed.append(str(error)),
    )
    assert found == []
    # The line of the manifest, and then the manifest, which has no other.
    names.insert(1, "b.jsonl:1")
    assert len(failed) == 5
    assert all(name in line for name, line in zip(names, failed, strict=True))


@pytest.fixture
def on_cluster(model, said, monkeypatch, capsys):
    """``asr transcribe --engine ray`` over the test set."""

    def call(*words, files=None):
        files = [u.audio for u in said] if files is None else files
        words = ("transcribe", "--model", model, "--engine", "ray", *words, *files)
        return asr(monkeypatch, capsys, *words)

    return call


def test_without_ray_it_is_one_line(on_cluster, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    code, _, err = on_cluster("--out", tmp_path / "out")
    assert code == 2
    assert "pip install 'carousel-asr[ray]'" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("words", [(), ("--format", "srt", "--out", "x"), ("--format", "text")])
def test_what_does_not_go_with_ray_is_one_line(on_cluster, words):
    code, _, err = on_cluster(*words)
    assert code == 2
    assert "--engine ray writes JSONL" in err
    assert err.count("\n") == 1


def test_the_command_line_counts_the_bad(on_cluster, said, tmp_path, alone):
    bad = tmp_path / "bad.wav"
    bad.write_text("no audio")
    code, out, err = on_cluster("--out", tmp_path / "out", files=[said[0].audio, bad])
    assert (code, out) == (1, "")
    assert "1 of 2 inputs failed" in err
    assert len(lines(tmp_path / "out")) == 2


def test_a_begun_run_goes_on_whatever_device_is_named(on_cluster, tmp_path, alone):
    out = tmp_path / "out"
    assert on_cluster("--out", out)[0] == 0
    (out / "part-000001.jsonl").unlink()
    alone.clear()
    code, _, err = on_cluster("--out", out, "--device", "cpu")
    assert (code, alone) == (0, [1]), err
    assert on_cluster("--out", out, "--beam", 3)[0] == 2


@pytest.fixture
def own_cluster(monkeypatch):
    """A cluster of this machine that leaves nothing behind."""
    # Ray's sockets have longer names than fit below tmp_path.
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        monkeypatch.setenv("RAY_ADDRESS", "local")
        monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
        monkeypatch.setattr(ray_engine, "PART_BYTES", 2 * ray_engine.LEAST_BYTES)
        yield


@pytest.mark.slow
@needs_ray
def test_ray_writes_what_the_plain_engine_writes(on_cluster, said, plain, tmp_path, own_cluster):
    out = tmp_path / "out"
    assert on_cluster("--out", out) == (0, "", "")
    alike(lines(out), plain)
    (out / "part-000001.jsonl").unlink()
    code, _, err = on_cluster("--out", out)
    assert (code, err) == (0, "asr: 2 of 3 parts are there (--redo replaces them)\n")
    alike(lines(out), plain)
    with (tmp_path / "bad.wav").open("w") as bad:
        bad.write("no audio")
    code, _, err = on_cluster("--out", tmp_path / "o", files=[said[0].audio, tmp_path / "bad.wav"])
    assert code == 1
    assert "1 of 2 inputs failed" in err
    assert "not audio" in lines(tmp_path / "o")[1]["error"]


@pytest.mark.slow
@needs_ray
def test_a_killed_worker_loses_nothing(model, sources, plain, tmp_path, own_cluster):
    pid, go = tmp_path / "pid", tmp_path / "go"

    def make():
        """A recogniser that, within its second file, waits to be killed."""
        recognizer = Recognizer.load(model)
        transcribe_files = recognizer.transcribe_files

        def waiting(*arguments):
            for number, transcript in enumerate(transcribe_files(*arguments)):
                yield transcript
                if number == 0 and not go.exists():
                    pid.write_text(str(os.getpid()))
                    time.sleep(60)

        recognizer.transcribe_files = waiting
        return recognizer

    killed = []

    def kill():
        while not (pid.exists() and pid.read_text()):
            time.sleep(0.05)
        go.touch()
        killed.append(int(pid.read_text()))
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    assert run(sources, tmp_path / "out", model, make=make) == ([], [])
    killer.join(10)
    assert killed
    assert killed != [os.getpid()]
    alike(lines(tmp_path / "out"), plain)


@pytest.mark.slow
@needs_ray
def test_a_part_that_kills_every_worker_is_left_out(
    model, sources, tmp_path, own_cluster, monkeypatch
):
    monkeypatch.setattr(ray_engine, "MOST_RETRIES", 1)
    fatal = sources[2].id

    def make():
        recognizer = Recognizer.load(model)
        transcribe_files = recognizer.transcribe_files

        def fragile(sources, *arguments):
            if any(source.id == fatal for source in sources):
                os.kill(os.getpid(), signal.SIGKILL)
            return transcribe_files(sources, *arguments)

        recognizer.transcribe_files = fragile
        return recognizer

    _, failed = run(sources, tmp_path / "out", model, make=make)
    assert len(failed) == 1
    assert "part-000001.jsonl: its workers died" in failed[0]
    ids = [s.id for s in sources]
    assert [r["id"] for r in lines(tmp_path / "out")] == ids[:2] + ids[4:]


@pytest.mark.slow
@needs_ray
def test_a_worker_that_finds_no_model_is_one_line(sources, tmp_path, own_cluster):
    here = os.getpid()

    def make():
        if os.getpid() != here:
            raise InputError("model: no such model directory")

    with pytest.raises(InputError, match="on a worker: model: no such model directory"):
        run(sources, tmp_path / "out", None, make=make)
