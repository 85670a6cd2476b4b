"""Interrupted trainings: killed, stopped, spoilt, doubled; they go on exactly or say why not."""

import json
import multiprocessing
import os
import pty
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
from running import SMALL, asr, files_up_to
from tones import build
from training_runs import assert_same_run, metrics_of, train_alone
from training_runs import train_tones as run

from asr.errors import InputError
from asr.nets.tensors import load_tensors
from asr.train import loop as training
from asr.train import state as training_state
from asr.train.rundir import checkpoints, claim

EACH_STEP = "trainer.save_minutes=1e-9"
QUICK = ["trainer.max_epochs=3", "trainer.tune=false"]
DEMO = "recipes/demo/ctc.yaml"


class StopError(Exception):
    pass


@pytest.fixture(scope="module")
def whole(tones, tmp_path_factory):
    """A run of three epochs of twelve steps that nobody interrupted."""
    run_dir = tmp_path_factory.mktemp("runs") / "whole"
    run(DEMO, tones, run_dir, *QUICK, "model.dropout=0.2")
    return run_dir


def stop_after(n_saves, monkeypatch):
    """Let a training in this process fall over after its n-th checkpoint."""
    save, saves = training_state.save_state, []

    def save_and_stop(*args):
        save(*args)
        saves.append(args)
        if len(saves) == n_saves:
            raise StopError

    monkeypatch.setattr(training_state, "save_state", save_and_stop)


def interrupt(n_saves, tones, run_dir, *overrides):
    with pytest.MonkeyPatch.context() as patched:
        stop_after(n_saves, patched)
        with pytest.raises(StopError):
            run(DEMO, tones, run_dir, *overrides)


@pytest.mark.parametrize("n_saves", [5, 12, 13])
def test_resuming_inside_an_epoch_equals_an_uninterrupted_run(whole, tones, tmp_path, n_saves):
    overrides = (*QUICK, "model.dropout=0.2", EACH_STEP)
    interrupt(n_saves, tones, tmp_path / "cut", *overrides)
    run(DEMO, tones, tmp_path / "cut", *overrides, resume=True)
    assert_same_run(whole, tmp_path / "cut")


EVERYTHING = [
    "optim.schedule=plateau",
    "optim.plateau_epochs=1",
    "trainer.patience=2",
    "augment=specaugment",
    "augment.speeds=[0.9,1.0,1.1]",
    "model.weight_noise=0.01",
    "optim.ema=0.9",
    "trainer.average_last=2",
    "trainer.average_best=2",
    "trainer.curriculum_epochs=1",
    "trainer.precision=bfloat16",
    "model.drop_connect=0.1",
    "loss.framewise_epochs=1",
    "loss.framewise_weight=0.3",
    "augment.vtlp=0.1",
]


@pytest.mark.parametrize("n_saves", [6, 30])
def test_everything_random_and_remembered_is_resumed(tones, tmp_path, n_saves):
    noise = f"augment.noise_dir={tones / 'DEV'}"
    overrides = (*QUICK, "trainer.max_epochs=4", *EVERYTHING, noise, EACH_STEP)
    interrupt(n_saves, tones, tmp_path / "cut", *overrides)
    run(DEMO, tones, tmp_path / "cut", *overrides, resume=True)
    run(DEMO, tones, tmp_path / "whole", *overrides)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def kill_at_random(n_kills, seed, *args):
    """Train in processes that are killed at random moments, then in one that is let be.

    Every other one dies soon after its first checkpoint, and so amid steps and checkpoints.
    """
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(["training_runs"])
    rng, run_dir = random.Random(seed), args[2]
    for number in range(n_kills):
        before = checkpoints(run_dir)
        child = forks.Process(target=train_alone, args=args, kwargs={"resume": number > 0})
        child.start()
        while number % 2 == 0 and child.is_alive() and checkpoints(run_dir) == before:
            time.sleep(0.01)
        child.join(rng.uniform(0, 0.2 if number % 2 == 0 else 1.5))
        child.kill()
        child.join()
    child = forks.Process(target=train_alone, args=args, kwargs={"resume": True})
    child.start()
    child.join()
    assert child.exitcode == 0


def test_killed_at_random_moments_it_ends_the_same(whole, tones, tmp_path):
    overrides = (*QUICK, "model.dropout=0.2", EACH_STEP)
    kill_at_random(5, 1, DEMO, tones, tmp_path / "cut", *overrides)
    assert_same_run(whole, tmp_path / "cut")
    assert not [p for p in (tmp_path / "cut").rglob("*") if ".part" in p.name]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_killed_many_times_it_ends_the_same(tones, tmp_path, seed):
    overrides = (*QUICK, "model.dropout=0.2", *EVERYTHING, "trainer.max_epochs=8", EACH_STEP)
    run(DEMO, tones, tmp_path / "whole", *overrides)
    kill_at_random(10, seed, DEMO, tones, tmp_path / "cut", *overrides)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "spoil",
    [flip_a_bit, lambda p: p.write_bytes(p.read_bytes()[:-9]), lambda p: p.write_bytes(b"")],
)
def test_a_corrupt_checkpoint_is_told_and_the_one_before_used(
    whole, tones, tmp_path, capsys, spoil
):
    run_dir = tmp_path / "cut"
    overrides = (*QUICK, "model.dropout=0.2", EACH_STEP)
    interrupt(20, tones, run_dir, *overrides)
    before, newest = checkpoints(run_dir)
    spoil(newest)
    capsys.readouterr()
    run(DEMO, tones, run_dir, *overrides, resume=True)
    told = [line for line in capsys.readouterr().err.splitlines() if "checkpoint before it" in line]
    assert len(told) == 1
    assert str(newest) in told[0]
    assert newest.with_name(newest.name + ".corrupt").is_file()
    assert before.name < newest.name
    assert_same_run(whole, run_dir)


def test_only_corrupt_checkpoints_left(tones, tmp_path):
    run_dir = tmp_path / "cut"
    interrupt(2, tones, run_dir, *QUICK)
    for path in checkpoints(run_dir):
        flip_a_bit(path)
    for _ in range(2):
        with pytest.raises(InputError, match="no whole checkpoint left"):
            run(DEMO, tones, run_dir, *QUICK, resume=True)


def test_killed_between_the_first_epochs_figures_and_its_checkpoint(whole, tones, tmp_path):
    run_dir = tmp_path / "cut"
    overrides = (*QUICK, "model.dropout=0.2")
    interrupt(1, tones, run_dir, *overrides)
    assert len(metrics_of(run_dir)) == 1
    for path in checkpoints(run_dir):
        path.unlink()
    run(DEMO, tones, run_dir, *overrides, resume=True)
    assert_same_run(whole, run_dir)


def test_old_checkpoints_are_pruned_and_leftovers_removed(tones, tmp_path):
    run_dir = tmp_path / "cut"
    interrupt(9, tones, run_dir, *QUICK, EACH_STEP)
    assert [int(p.stem) for p in checkpoints(run_dir)] == [8, 9]
    (run_dir / "checkpoints/.0000000010.4711.part.safetensors").write_bytes(b"half")
    (run_dir / "model/.weights.4711.part.safetensors").write_bytes(b"half")
    (run_dir / ".metrics.4711.part.jsonl").write_bytes(b"half")
    run(DEMO, tones, run_dir, *QUICK, EACH_STEP, resume=True)
    assert not [p for p in run_dir.rglob("*") if ".part" in p.name]


def test_metrics_that_outrun_the_checkpoint_are_dropped(tones, tmp_path):
    run_dir = tmp_path / "cut"
    interrupt(2, tones, run_dir, *QUICK)
    with (run_dir / "metrics.jsonl").open("a") as handle:
        handle.write('{"epoch": 3, "loss": 9}\n{"epoch": 4, "lo')
    run(DEMO, tones, run_dir, *QUICK, resume=True)
    assert [m["epoch"] for m in metrics_of(run_dir)] == [1, 2, 3]
    assert all("lr" in m for m in metrics_of(run_dir))


def test_spoilt_metrics_are_told_and_left_out(tones, tmp_path, capsys):
    run_dir = tmp_path / "cut"
    interrupt(2, tones, run_dir, *QUICK)
    first, second = (run_dir / "metrics.jsonl").read_bytes().splitlines()
    (run_dir / "metrics.jsonl").write_bytes(first[:40] + b"\xff\n" + second + b"\n[3]\n")
    run(DEMO, tones, run_dir, *QUICK, resume=True)
    assert [m["epoch"] for m in metrics_of(run_dir)] == [2, 3]
    assert "metrics.jsonl: lacks 1 of 2 epochs" in capsys.readouterr().err


def test_a_better_model_of_a_lost_epoch_is_not_kept(whole, tones, tmp_path):
    run_dir = tmp_path / "cut"
    interrupt(2, tones, run_dir, *QUICK, "model.dropout=0.2")
    flip_a_bit(run_dir / "model/weights.safetensors")
    run(DEMO, tones, run_dir, *QUICK, "model.dropout=0.2", resume=True)
    assert_same_run(whole, run_dir)


def test_patience_is_not_given_anew(tones, tmp_path):
    overrides = ("trainer.max_epochs=9", "trainer.patience=1", "trainer.tune=0", "optim.lr=1e-9")
    results = run(DEMO, tones, tmp_path / "run", *overrides)
    again = run(DEMO, tones, tmp_path / "run", *overrides, resume=True)
    assert results["epochs"] == again["epochs"] == 2


def test_nothing_to_resume(tones, tmp_path):
    with pytest.raises(InputError, match="nothing to resume"):
        run(DEMO, tones, tmp_path / "run", resume=True)


def test_a_run_stopped_before_its_first_epoch_starts_over(tones, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(training, "build", lambda *a: (_ for _ in ()).throw(StopError()))
        with pytest.raises(StopError):
            run(DEMO, tones, tmp_path / "run", *QUICK)
    assert run(DEMO, tones, tmp_path / "run", *QUICK, resume=True)["epochs"] == 3


def test_a_full_disk_leaves_the_previous_checkpoint(tones, tmp_path):
    run_dir = tmp_path / "run"
    interrupt(1, tones, run_dir, *QUICK)
    kept = checkpoints(run_dir)
    room = int(0.9 * kept[0].stat().st_size)
    with files_up_to(room), pytest.raises(InputError, match=r"checkpoints/.* cannot be written"):
        run(DEMO, tones, run_dir, *QUICK, resume=True)
    assert checkpoints(run_dir) == kept
    assert load_tensors(kept[0])
    assert not list(run_dir.rglob(".*.part*"))
    assert run(DEMO, tones, run_dir, *QUICK, resume=True)["epochs"] == 3


#: Python, started with -m, ends by SIGINT itself where that came amid the `exec` of a string, such
#: as the making of a data class; a shell shows both as 130.
STOPPED = (130, -signal.SIGINT)


def start(*words):
    """``asr train WORDS`` as a process."""
    command = [sys.executable, "-m", "asr", "train", *map(str, words)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("signal_name", ["SIGINT", "SIGTERM"])
def test_a_stopped_run_saves_says_how_to_go_on_and_goes_on(
    tones, tmp_path, monkeypatch, capsys, signal_name
):
    run_dir = tmp_path / "run"
    settings = [f"corpus.root={tones}", f"run_dir={run_dir}", *SMALL, "trainer.tune=false"]
    process = start(DEMO, *settings, "trainer.max_epochs=500", "optim.schedule=constant")
    for line in process.stderr:
        if line.startswith("epoch 2/"):
            break
    time.sleep(0.05)
    process.send_signal(getattr(signal, signal_name))
    rest = ""
    for line in process.stderr:
        rest += line
        if line.startswith("asr: stopped"):
            # Pressed again while it leaves.
            process.send_signal(signal.SIGINT)
    process.stderr.close()
    assert process.wait() in STOPPED, rest
    assert rest.splitlines()[-1] == f"asr: stopped; go on with: asr train {run_dir} --resume"
    assert "Traceback" not in rest
    state = json.loads(load_tensors(checkpoints(run_dir)[-1])[1]["state"])
    assert f"stopped after epoch {state['epoch']} and {state['batch']} batches; saved" in rest
    n_epochs = state["epoch"] + 1
    change = f"trainer.max_epochs={n_epochs}"
    code, _, err = asr(monkeypatch, capsys, "train", run_dir, "--resume", change)
    assert code == 0, err
    assert json.loads((run_dir / "results.json").read_text())["epochs"] == n_epochs


def test_a_signal_that_comes_while_a_stopped_run_saves_is_one_too_many(
    tones, tmp_path, monkeypatch
):
    run_dir, saves = tmp_path / "run", []

    def save(*args):
        os.kill(os.getpid(), signal.SIGINT)
        saves.append(args)

    monkeypatch.setattr(training_state, "save_state", save)
    with pytest.raises(KeyboardInterrupt):
        run(DEMO, tones, run_dir, *QUICK)
    # The first came while the first epoch saved, the second while the run did for the last time.
    assert len(saves) == 2
    assert "; saved" in (run_dir / "train.log").read_text().splitlines()[-1]


def test_a_run_whose_terminal_is_closed_saves(tones, tmp_path):
    run_dir = tmp_path / "run"
    settings = [f"corpus.root={tones}", f"run_dir={run_dir}", *SMALL, "trainer.tune=false"]
    words = [DEMO, *settings, "trainer.max_epochs=500", "optim.schedule=constant"]
    pid, terminal = pty.fork()
    if pid == 0:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # what starts the tests may ignore it
        os.execv(sys.executable, [sys.executable, "-m", "asr", "train", *map(str, words)])
    shown = b""
    while b"epoch 2/" not in shown:
        shown += os.read(terminal, 1024)
    os.close(terminal)
    os.waitpid(pid, 0)
    assert "; saved" in (run_dir / "train.log").read_text().splitlines()[-1]
    assert load_tensors(checkpoints(run_dir)[-1])


def test_stopped_while_it_reads_the_corpus_there_is_nothing_to_go_on_with(
    tones, tmp_path, monkeypatch, capsys
):
    def stopped(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "read_corpus", stopped)
    monkeypatch.setattr(signal, "signal", lambda *a: None)
    words = [f"corpus.root={tones}", f"run_dir={tmp_path / 'run'}"]
    code, _, err = asr(monkeypatch, capsys, "train", DEMO, *words)
    assert code == 130
    assert err.splitlines()[-1] == "asr: stopped; nothing was begun"
    assert not (tmp_path / "run").exists()


def test_a_second_training_in_one_directory_is_refused(tones, tmp_path, monkeypatch, capsys):
    run_dir = tmp_path / "run"
    interrupt(1, tones, run_dir, *QUICK)
    before = checkpoints(run_dir)
    with claim(run_dir, resume=True):
        code, _, err = asr(monkeypatch, capsys, "train", run_dir, "--resume")
        again = asr(
            monkeypatch, capsys, "train", DEMO, f"corpus.root={tones}", f"run_dir={run_dir}"
        )
    assert code == again[0] == 2
    assert "a training is already running there (process " in err
    assert len(err.splitlines()) == len(again[2].splitlines()) == 1
    assert checkpoints(run_dir) == before


def test_the_lock_dies_with_its_process(tmp_path):
    run_dir = tmp_path / "run"
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time; from pathlib import Path; from asr.train.rundir import claim\n"
            "with claim(Path(sys.argv[1]), False): print('held', flush=True); time.sleep(60)",
            run_dir,
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(InputError, match=f"process {holder.pid} on "), claim(run_dir, False):
        pass
    holder.kill()
    holder.wait()
    holder.stdout.close()
    with claim(run_dir, False):
        pass
    assert not run_dir.exists()


def test_other_settings_are_named_and_refused(tones, tmp_path, monkeypatch, capsys):
    run_dir = tmp_path / "run"
    interrupt(1, tones, run_dir, *QUICK)
    before = (run_dir / "config.yaml").read_bytes()
    code, _, err = asr(
        monkeypatch,
        capsys,
        "train",
        DEMO,
        f"resume={run_dir}",
        f"corpus.root={tones}",
        *SMALL,
        *QUICK,
        "optim.lr=0.5",
        "model.hidden=16",
    )
    assert code == 2
    told = err.splitlines()[-1]
    assert "model.hidden: 32 -> 16; optim.lr: 0.02 -> 0.5" in told
    assert "Traceback" not in err
    assert (run_dir / "config.yaml").read_bytes() == before
    # The learning rate falls towards the last epoch: another end is another training.
    code, _, err = asr(monkeypatch, capsys, "train", run_dir, "--resume", "trainer.max_epochs=5")
    assert code == 2
    assert "trainer.max_epochs: 3 -> 5" in err.splitlines()[-1]
    code, _, err = asr(monkeypatch, capsys, "train", run_dir, "--resume", "trainer.max_epoch=5")
    assert code == 2
    assert "did you mean 'trainer.max_epochs'" in err.splitlines()[-1]


def test_harmless_settings_are_named_and_taken(tones, tmp_path, monkeypatch, capsys):
    run_dir = tmp_path / "run"
    interrupt(1, tones, run_dir, *QUICK, "optim.schedule=constant")
    moved = run_dir.rename(tmp_path / "moved")
    changes = ["trainer.max_epochs=4", "trainer.device=auto", "trainer.patience=9"]
    code, _, err = asr(monkeypatch, capsys, "train", moved, "--resume", *changes)
    assert code == 0, err
    for line in ("max_epochs: 3 -> 4", "device: cpu -> auto", "patience: 0 -> 9"):
        assert f"changed: trainer.{line}" in err
    assert json.loads((moved / "results.json").read_text())["epochs"] == 4
    assert "max_epochs: 4" in (moved / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("schedule", "told"),
    [
        ("linear", "which had fallen to 0, begins again at 0.0067, where optim.schedule=linear"),
        ("one_cycle", "which had fallen to 8e-08, begins again at 0.0093"),
        ("constant", "the learning rate stays at 0.02"),
    ],
)
def test_a_finished_run_is_extended(tones, tmp_path, monkeypatch, capsys, schedule, told):
    run_dir = tmp_path / "run"
    settings = ("trainer.max_epochs=2", "trainer.tune=false", f"optim.schedule={schedule}")
    run(DEMO, tones, run_dir, *settings, "optim.warmup_epochs=0")
    words = ("train", run_dir, "--resume", "trainer.max_epochs=3")
    code, _, err = asr(monkeypatch, capsys, *words)
    assert code == 0, err
    assert "changed: trainer.max_epochs: 2 -> 3" in err
    assert f"extended from 2 to 3 epochs: the learning rate{'' if 'stays' in told else ','}" in err
    assert told in err
    assert json.loads((run_dir / "results.json").read_text())["epochs"] == 3
    assert metrics_of(run_dir)[2]["lr"] > 0
    # Once extended, it is a finished run of three epochs, which none can shorten.
    if schedule != "constant":
        code, _, err = asr(monkeypatch, capsys, *words[:-1], "trainer.max_epochs=2")
        assert code == 2
        assert "trainer.max_epochs: 3 -> 2" in err.splitlines()[-1]


def test_a_recipe_resumes_as_the_run_directory_does(whole, tones, tmp_path, monkeypatch, capsys):
    run_dir = tmp_path / "run"
    overrides = (*QUICK, "model.dropout=0.2", EACH_STEP)
    interrupt(17, tones, run_dir, *overrides)
    words = (f"corpus.root={tones}", *SMALL, *overrides)
    code, _, err = asr(monkeypatch, capsys, "train", DEMO, f"resume={run_dir}", *words)
    assert code == 0, err
    assert_same_run(whole, run_dir)


def test_another_corpus_is_refused(tones, tmp_path):
    from tones import build

    interrupt(1, tones, tmp_path / "run", *QUICK)
    other = build(tmp_path / "corpus", seed=5)
    with pytest.raises(InputError, match="not those that the run began with"):
        run(DEMO, other, tmp_path / "run", *QUICK, resume=True)


def test_stopped_before_the_first_step_it_goes_on(whole, tones, tmp_path, monkeypatch):
    overrides = (*QUICK, "model.dropout=0.2")
    with monkeypatch.context() as patched:
        patched.setattr(training, "step", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            run(DEMO, tones, tmp_path / "cut", *overrides)
    run(DEMO, tones, tmp_path / "cut", *overrides, resume=True)
    assert_same_run(whole, tmp_path / "cut")


def test_a_finished_run_is_left_as_it_is(tones, tmp_path, capsys):
    run_dir = tmp_path / "run"
    results = run(DEMO, tones, run_dir, *QUICK)
    # As `asr tune` does.
    chosen = run_dir / "model/config.json"
    config = json.loads(chosen.read_text())
    config["decoder"]["beam"] = 77
    chosen.write_text(json.dumps(config))
    before = {p: p.read_bytes() for p in (run_dir / "model").iterdir()}
    assert run(DEMO, tones, run_dir, *QUICK, resume=True) == results
    assert {p: p.read_bytes() for p in (run_dir / "model").iterdir()} == before
    assert "nothing left to train" in capsys.readouterr().err


def test_another_number_of_threads_is_told(tones, tmp_path, capsys):
    interrupt(1, tones, tmp_path / "run", *QUICK)
    n_threads = torch.get_num_threads()
    torch.set_num_threads(n_threads + 1)
    try:
        run(DEMO, tones, tmp_path / "run", *QUICK, resume=True)
    finally:
        torch.set_num_threads(n_threads)
    assert f"changed: threads: {n_threads} -> {n_threads + 1} (" in capsys.readouterr().err


@pytest.mark.parametrize("which", ["TRAIN", "DEV"])
def test_other_phone_times_are_other_data(tmp_path, which):
    root = build(tmp_path / "corpus", n_train=24)
    framewise = ("loss.framewise_epochs=1", *QUICK)
    interrupt(1, root, tmp_path / "run", *framewise)
    phones = sorted((root / which).rglob("*.PHN"))[0]
    lines = [line.split() for line in phones.read_text().splitlines()]
    middle = (int(lines[0][1]) + int(lines[1][1])) // 2
    lines[0][1] = lines[1][0] = str(middle)
    phones.write_text("".join(" ".join(line) + "\n" for line in lines))
    if which == "DEV":
        phones.write_text(phones.read_text().replace(lines[1][2], "ah"))
    with pytest.raises(InputError, match=f"utterances of {which.lower()} under"):
        run(DEMO, root, tmp_path / "run", *framewise, resume=True)


def other_words(root):
    path = sorted((root / "TRAIN").rglob("*.WRD"))[0]
    path.write_text(path.read_text().replace(" see", " seam").replace(" ma", " aim"))


def other_audio(root):
    one, other = sorted((root / "TRAIN").rglob("*.WAV"), key=lambda p: p.stat().st_size)[:2]
    # As long as it was, and about something else.
    header, samples = one.read_bytes()[:1024], other.read_bytes()[1024:]
    one.write_bytes(header + samples[: one.stat().st_size - 1024])


def other_dev_phones(root):
    path = sorted((root / "DEV").rglob("*.PHN"))[0]
    lines = path.read_text().splitlines()
    lines[1] = " ".join([*lines[1].split()[:2], "m" if lines[1].endswith(" s") else "s"])
    path.write_text("\n".join(lines) + "\n")


def other_test_text(root):
    path = sorted((root / "TEST").rglob("*.TXT"))[0]
    path.write_text(path.read_text().rstrip() + " seam\n")


@pytest.mark.parametrize(
    ("change", "which"),
    [
        (other_words, "train"),
        (other_audio, "train"),
        (other_dev_phones, "dev"),
        (other_test_text, "test"),
    ],
)
def test_what_was_replaced_in_the_corpus_is_noticed(tmp_path, change, which):
    root = build(tmp_path / "corpus", n_train=24)
    interrupt(1, root, tmp_path / "run", *QUICK)
    moved = root.rename(tmp_path / "moved")
    with pytest.MonkeyPatch.context() as patched:
        stop_after(1, patched)
        with pytest.raises(StopError):
            run(DEMO, moved, tmp_path / "run", *QUICK, resume=True)
    change(moved)
    with pytest.raises(InputError, match=f"utterances of {which} under"):
        run(DEMO, moved, tmp_path / "run", *QUICK, resume=True)
