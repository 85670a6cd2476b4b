"""Two processes train as one does, and what one of them cannot do ends both."""

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.distributed as dist
from running import SMALL, asr
from tones import build
from training_runs import assert_same_run, metrics_of
from training_runs import train_tones as run

from asr.cli import main
from asr.errors import InputError
from asr.train import step as training_step
from asr.train.world import own_part

DEMO = "recipes/demo/ctc.yaml"
SHORT = ["trainer.max_epochs=3", "trainer.tune=false"]
# 46 utterances by 5: one batch an epoch has one utterance, of which the second process gets none.
UNEVEN = [*SMALL, *SHORT, "trainer.batch_size=5", "augment=specaugment", "loss.framewise_epochs=1"]


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    return build(tmp_path_factory.mktemp("uneven") / "corpus", n_train=46)


def be_process(rank, port, words, told, sabotage):
    """One of two processes that torchrun would start, with its standard error in a file."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.dup2(os.open(told, os.O_WRONLY | os.O_CREAT), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    torch.set_num_threads(1)
    if rank == 1 and sabotage:
        sabotage()
    sys.argv = ["asr", "train", *map(str, words)]
    main()


def two_processes(tmp_path, *words, sabotage=None):
    """Run ``asr train WORDS`` as two processes: their exit statuses and what they said."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(["training_runs"])
    told = [tmp_path / f"process{rank}.txt" for rank in (0, 1)]
    processes = [
        forks.Process(target=be_process, args=(rank, port, words, told[rank], sabotage))
        for rank in (0, 1)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert not process.is_alive(), "hangs"
    return [p.exitcode for p in processes], [path.read_text() for path in told]


def test_two_processes_learn_what_one_learns(uneven, tmp_path):
    run(DEMO, uneven, tmp_path / "one", *UNEVEN)
    settings = (f"corpus.root={uneven}", f"run_dir={tmp_path / 'two'}", *UNEVEN)
    codes, told = two_processes(tmp_path, DEMO, *settings)
    assert codes == [0, 0], told
    for one, two in zip(metrics_of(tmp_path / "one"), metrics_of(tmp_path / "two"), strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)
        assert two["gradient_norm"] == pytest.approx(one["gradient_norm"], rel=1e-3)
        assert two["padding"] == one["padding"]
    assert (tmp_path / "two/train.log").read_text().count("epoch 1/3") == 1
    assert "2 x cpu" in told[0]
    assert told[1] == ""


def test_two_processes_hold_and_let_go_what_they_start_from_as_one_does(uneven, tmp_path):
    run(DEMO, uneven, tmp_path / "source", *UNEVEN, "trainer.max_epochs=2")
    held = (*UNEVEN, f"init.model={tmp_path / 'source'}", "init.freeze_epochs=1")
    run(DEMO, uneven, tmp_path / "one", *held)
    where = (f"corpus.root={uneven}", f"run_dir={tmp_path / 'two'}")
    codes, told = two_processes(tmp_path, DEMO, *where, *held)
    assert codes == [0, 0], told
    for one, two in zip(metrics_of(tmp_path / "one"), metrics_of(tmp_path / "two"), strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)


def test_with_dropout_two_processes_learn_about_what_one_learns(tones, tmp_path):
    settings = (*SMALL, *SHORT, "trainer.max_epochs=2", "model.dropout=0.2")
    run(DEMO, tones, tmp_path / "one", *settings)
    where = (f"corpus.root={tones}", f"run_dir={tmp_path / 'two'}")
    codes, told = two_processes(tmp_path, DEMO, *where, *settings)
    assert codes == [0, 0], told
    for one, two in zip(metrics_of(tmp_path / "one"), metrics_of(tmp_path / "two"), strict=True):
        assert two["loss"] != one["loss"]
        assert two["loss"] == pytest.approx(one["loss"], rel=0.05)


def fail_in_third_step():
    ctc_loss, steps = training_step.ctc_loss, []

    def failing(*args):
        steps.append(args)
        if len(steps) == 3:
            # Four exabytes.
            torch.empty(1 << 60)
        return ctc_loss(*args)

    training_step.ctc_loss = failing


def test_an_error_in_one_process_ends_both_with_a_line_each(tones, tmp_path):
    settings = (f"corpus.root={tones}", f"run_dir={tmp_path / 'run'}", *SMALL, *SHORT)
    codes, told = two_processes(tmp_path, DEMO, *settings, sabotage=fail_in_third_step)
    assert codes == [2, 2]
    assert told[1].startswith("asr: process 1 of 2: out of memory in step 3: a batch of 2 utt")
    assert len(told[1].splitlines()) == 1
    assert told[0].splitlines()[-1].startswith("asr: another process of this training has ended")
    assert "Traceback" not in told[0]


def lose_one_loss():
    ctc_loss, steps = training_step.ctc_loss, []

    def failing(*args):
        steps.append(args)
        return ctc_loss(*args) * (float("nan") if len(steps) == 3 else 1)

    training_step.ctc_loss = failing


def test_a_bad_loss_in_one_process_is_left_out_by_both(tones, tmp_path):
    settings = (f"corpus.root={tones}", f"run_dir={tmp_path / 'run'}", *SMALL, *SHORT)
    codes, told = two_processes(tmp_path, DEMO, *settings, sabotage=lose_one_loss)
    assert codes == [0, 0], told
    assert "step 3 left out: loss nan" in told[0]
    assert [m["bad_steps"] for m in metrics_of(tmp_path / "run")] == [1, 1, 1]


def stop_in_third_step():
    ctc_loss, steps = training_step.ctc_loss, []

    def stopping(*args):
        steps.append(args)
        if len(steps) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return ctc_loss(*args)

    training_step.ctc_loss = stopping


def test_a_signal_to_one_process_stops_both_and_saves(tones, tmp_path):
    settings = (f"corpus.root={tones}", f"run_dir={tmp_path / 'run'}", *SMALL, *SHORT)
    codes, told = two_processes(tmp_path, DEMO, *settings, sabotage=stop_in_third_step)
    assert codes == [130, 130]
    assert "stopped after epoch 0 and 4 batches; saved" in told[0]
    assert told[0].splitlines()[-1].startswith("asr: stopped; go on with: asr train")
    # One process goes on where two stopped.
    run(DEMO, tones, tmp_path / "run", *SHORT, resume=True)
    run(DEMO, tones, tmp_path / "one", *SHORT)
    for one, both in zip(metrics_of(tmp_path / "one"), metrics_of(tmp_path / "run"), strict=True):
        assert both["loss"] == pytest.approx(one["loss"], rel=1e-4)


def meet(store, order):
    """Processes find their part of a store, starting one after the other; returns their parts."""
    with ThreadPoolExecutor() as pool:
        parts = {}
        for rank in order:
            parts[rank] = pool.submit(own_part, store, rank, len(order))
            time.sleep(0.1)
        return [parts[rank].result() for rank in sorted(order)]


def test_what_the_dead_left_in_the_store_is_not_met():
    store = dist.HashStore()
    before = meet(store, [0, 1, 2])
    for part in before:
        part.set("address", "of the dead")
    # Of a second start, rank 0 died early.
    store.set("first", "somebody")
    for order in ([0, 1, 2], [2, 1, 0]):
        parts = meet(store, order)
        assert not any(part.check(["address"]) for part in parts)
        parts[0].set("address", "mine")
        assert [part.get("address") for part in parts] == [b"mine"] * 3


DIE_ONCE = """
import os, signal
from asr.train import loop as training
from asr.cli import main
step, steps = training.step, []
def dying(*args):
    steps.append(args)
    if os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        if len(steps) == 17:
            os.kill(os.getpid(), signal.SIGKILL)
    return step(*args)
training.step = dying
main()
"""


@pytest.mark.slow
def test_torchrun_starts_a_killed_process_again_and_the_run_goes_on(uneven, tmp_path):
    (tmp_path / "die_once.py").write_text(DIE_ONCE)
    uneven_settings = [f"corpus.root={uneven}", *UNEVEN, "trainer.save_minutes=1e-9"]

    def torchrun(run_dir, *program):
        return subprocess.run(
            [
                *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
                *("--nproc-per-node", "2", "--max-restarts", "1", *program),
                *("train", DEMO, *uneven_settings, f"run_dir={run_dir}"),
            ],
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    whole = torchrun(tmp_path / "whole", "-m", "asr")
    assert whole.returncode == 0, whole.stderr
    killed = torchrun(tmp_path / "killed", tmp_path / "die_once.py")
    assert killed.returncode == 0, killed.stderr
    assert "resuming after epoch 1 and 6 batches" in killed.stderr
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


def test_more_processes_than_gpus(monkeypatch):
    from asr.train.world import join

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("LOCAL_RANK", str(torch.cuda.device_count()))
    with pytest.raises(InputError, match="more processes here than there are GPUs"):
        join(torch.device("cuda")).__enter__()


@pytest.mark.parametrize(
    ("variable", "value"), [("WORLD_SIZE", "2"), ("WORLD_SIZE", "many"), ("RANK", "x")]
)
def test_half_a_torchrun_is_told(tones, tmp_path, monkeypatch, capsys, variable, value):
    monkeypatch.setenv(variable, value)
    words = [f"corpus.root={tones}", f"run_dir={tmp_path / 'run'}"]
    code, _, err = asr(monkeypatch, capsys, "train", "recipes/demo/ctc.yaml", *words)
    assert code == 2
    assert "as no torchrun leaves it" in err.splitlines()[-1]
