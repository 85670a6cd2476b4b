"""Training end to end on tones: it learns, and says what goes wrong."""

import itertools
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from running import asr
from tones import LEXICON, build
from training_runs import train_tones as run

from asr.data.examples import Example
from asr.data.manifest import read_manifest
from asr.errors import InputError
from asr.labels import Labels
from asr.model.weights import load_bundle
from asr.nets.tensors import load_tensors
from asr.train import loop as training
from asr.train import step as training_step
from asr.train.rundir import checkpoints
from asr.train.setup import report_rare
from asr.types import Utterance


@pytest.fixture(scope="module")
def ctc_run(tones, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("runs") / "ctc"
    return run_dir, run("recipes/demo/ctc.yaml", tones, run_dir, "trainer.max_epochs=16")


def test_ctc_learns_phones_and_words(ctc_run):
    run_dir, results = ctc_run
    test = results["sets"]["test"]
    assert test["greedy"]["PER"]["error_rate"] < 0.1
    assert test["beam"]["PER"]["error_rate"] < 0.1
    assert test["beam+lm"]["PER"]["error_rate"] < 0.1
    assert test["beam+lexicon"]["WER"]["error_rate"] < 0.1
    assert json.loads((run_dir / "results.json").read_text()) == results
    assert results["policy"] == test["greedy"]["PER"]["policy"]


def test_a_run_directory_is_complete(ctc_run):
    run_dir, results = ctc_run
    for name in (
        "config.yaml",
        "environment.json",
        "audit.json",
        "train.log",
        "metrics.jsonl",
        "skipped.json",
        "manifests/test.jsonl",
        "decoded/test.greedy.jsonl",
        "model/weights.safetensors",
        "model/config.json",
        "model/labels.txt",
        "model/lexicon.txt",
    ):
        assert (run_dir / name).is_file(), name
    assert list((run_dir / "tensorboard").iterdir())
    assert len(checkpoints(run_dir)) == 2
    metrics = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [m["epoch"] for m in metrics] == list(range(1, results["epochs"] + 1))
    assert {"loss", "dev_PER", "blank_rate", "lr", "waiting", "audio_s_per_s"} <= metrics[0].keys()
    assert metrics[-1]["loss"] < metrics[0]["loss"]


def test_results_equal_asr_score(ctc_run, monkeypatch, capsys):
    run_dir, results = ctc_run
    code, out, _ = asr(
        monkeypatch,
        capsys,
        "score",
        run_dir / "manifests/test.jsonl",
        run_dir / "decoded/test.greedy.jsonl",
        "--unit",
        "phone",
        "--fold",
        "cmu40",
        "--json",
    )
    assert code == 0
    scored, kept = json.loads(out), results["sets"]["test"]["greedy"]["PER"]
    assert {k: scored[k] for k in kept} == kept


def test_framewise_learns_phones(tones, tmp_path):
    results = run(
        "recipes/so762/framewise.yaml",
        tones,
        tmp_path / "run",
        "corpus.kind=synthetic",
        "trainer.max_epochs=8",
    )
    assert list(results["sets"]["test"]) == ["viterbi"]
    assert results["sets"]["test"]["viterbi"]["PER"]["error_rate"] < 0.1


def test_characters_learn_words(tones, tmp_path):
    results = run(
        "recipes/so762/chars.yaml",
        tones,
        tmp_path / "run",
        "corpus.kind=synthetic",
        "features.stack=1",
        "trainer.max_epochs=12",
    )
    assert results["sets"]["test"]["greedy"].keys() >= {"CER", "WER"}
    assert results["sets"]["test"]["greedy"]["CER"]["error_rate"] < 0.5


def test_framewise_epochs_start_a_ctc_model(tones, tmp_path):
    run(
        "recipes/demo/ctc.yaml",
        tones,
        tmp_path / "run",
        "loss.framewise_epochs=2",
        "trainer.max_epochs=3",
        "trainer.tune=false",
    )
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["criterion"] for line in lines] == ["framewise"] * 2 + ["ctc"]


def test_the_best_epoch_is_one_of_the_final_criterion(tones, tmp_path):
    # The epochs of frames are no worse than those of CTC at a rate that has nearly run out.
    overrides = ("loss.framewise_epochs=6", "trainer.max_epochs=8", "trainer.patience=1")
    averages = ("trainer.average_last=9", "trainer.average_best=9", "trainer.tune=false")
    results = run("recipes/demo/ctc.yaml", tones, tmp_path / "run", *overrides, *averages)
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    rates = [json.loads(line)["dev_PER"] for line in lines]
    assert min(rates[:6]) <= min(rates[6:])
    assert results["best_epoch"] == 7 + rates[6:].index(min(rates[6:]))
    assert results["sets"]["dev"]["greedy"]["PER"]["error_rate"] <= min(rates[6:])
    averaged = [e for e in (tmp_path / "run/train.log").read_text().splitlines() if "average" in e]
    assert len(averaged) == 2
    assert all("(7 8)" in line for line in averaged)


def test_the_same_seed_gives_the_same_weights(tones, tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        run(
            "recipes/demo/ctc.yaml",
            tones,
            tmp_path / name,
            f"seed={seed}",
            "trainer.max_epochs=1",
            "trainer.tune=false",
        )
    a, b, c = (load_tensors(tmp_path / n / "model/weights.safetensors")[0] for n in "abc")
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not all(torch.equal(a[k], c[k]) for k in a)


def test_early_stopping(tones, tmp_path):
    results = run(
        "recipes/demo/ctc.yaml",
        tones,
        tmp_path / "run",
        "trainer.max_epochs=9",
        "trainer.patience=1",
        "trainer.tune=false",
        "optim.lr=1e-9",
    )
    assert results["epochs"] == 2


def test_an_existing_run_is_refused(ctc_run, tones):
    run_dir, _ = ctc_run
    before = (run_dir / "results.json").read_bytes()
    with pytest.raises(InputError, match="--resume"):
        run("recipes/demo/ctc.yaml", tones, run_dir)
    assert (run_dir / "results.json").read_bytes() == before


def test_a_wrong_root_leaves_no_run_directory(tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        run("recipes/demo/ctc.yaml", tmp_path / "nowhere", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_broken_and_impossible_utterances_are_skipped_counted_and_listed(tmp_path):
    root = build(tmp_path / "corpus", n_train=24)
    folder = root / "TRAIN/DR1/MTR0"
    broken = folder / "U000.WAV"
    broken.write_bytes(broken.read_bytes()[:1024] + b"\0" * 2)
    short = folder / "U002.WAV"
    short.write_bytes(short.read_bytes())
    # Far more phones than frames: CTC has no path.
    n_samples = int((folder / "U002.TXT").read_text().split()[1])
    edges = [n_samples * i // 200 for i in range(201)]
    phones = [f"{a} {b} {'aa' if i % 2 else 'm'}" for i, (a, b) in enumerate(zip(edges, edges[1:]))]  # noqa: B905, RUF007
    (folder / "U002.PHN").write_text("\n".join(phones) + "\n")
    results = run(
        "recipes/demo/ctc.yaml",
        root,
        tmp_path / "run",
        "trainer.max_epochs=1",
        "trainer.tune=false",
        "trainer.max_skipped=0.2",
    )
    skipped = json.loads((tmp_path / "run/skipped.json").read_text())["train"]
    audit = json.loads((tmp_path / "run/audit.json").read_text())
    assert any("200 labels need" in reason for reason in skipped.values())
    assert results["skipped"]["train"] == len(skipped) == 1
    assert results["lost_files"] == 1
    assert "U000.WAV left out" in (tmp_path / "run/train.log").read_text()
    assert any("U000" in path for path in audit["corrupt"])
    with pytest.raises(InputError, match="max_skipped"):
        run(
            "recipes/demo/ctc.yaml",
            root,
            tmp_path / "strict",
            "trainer.max_epochs=1",
            "trainer.max_skipped=0",
        )


def test_infinite_losses_are_skipped_counted_and_stop_the_run(tones, tmp_path, monkeypatch):
    monkeypatch.setattr(training_step, "ctc_loss", lambda *a: torch.tensor(float("nan")))
    with pytest.raises(InputError, match="max_bad_steps=3"):
        run("recipes/demo/ctc.yaml", tones, tmp_path / "run", "trainer.max_bad_steps=3")
    assert "left out: loss nan" in (tmp_path / "run/train.log").read_text()


def test_an_epoch_without_one_good_step_stops_the_run(tones, tmp_path, monkeypatch):
    monkeypatch.setattr(training_step, "ctc_loss", lambda *a: torch.tensor(float("inf")))
    with pytest.raises(InputError, match="epoch 1: not one step had a finite loss"):
        run("recipes/demo/ctc.yaml", tones, tmp_path / "run", "trainer.max_bad_steps=999")


def test_a_gradient_that_is_not_finite_leaves_the_weights_alone(tones, tmp_path, monkeypatch):
    clip, norms = torch.nn.utils.clip_grad_norm_, []

    def infinite_once(parameters, most):
        norms.append(clip(parameters, most))
        return norms[-1] if len(norms) != 3 else torch.tensor(float("inf"))

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", infinite_once)
    overrides = ("trainer.max_epochs=1", "trainer.tune=false")
    results = run("recipes/demo/ctc.yaml", tones, tmp_path / "run", *overrides)
    assert results["bad_steps"] == 1
    assert "gradient norm inf" in (tmp_path / "run/train.log").read_text()


def test_a_diverged_training_says_so(tones, tmp_path, monkeypatch):
    step = training.step

    def blown_up(config, model, *rest):
        done = step(config, model, *rest)
        with torch.no_grad():
            model.output.weight.fill_(float("nan"))
        return done

    monkeypatch.setattr(training, "step", blown_up)
    with pytest.raises(InputError, match="diverged"):
        run("recipes/demo/ctc.yaml", tones, tmp_path / "run", "trainer.max_epochs=2")


@pytest.mark.parametrize(
    "sets",
    [
        ["corpus.dev=train"],
        ["corpus.test=[train]"],
        ["corpus.train=[train,train]"],
        ["corpus.train=[]"],
        ["corpus.dev=test"],
        ["corpus.train=[dev]", "corpus.dev=test", "corpus.test=[train]"],
    ],
)
def test_sets_that_clash_are_refused(tones, tmp_path, sets):
    with pytest.raises(InputError, match="expected different sets"):
        run("recipes/demo/ctc.yaml", tones, tmp_path / "run", *sets)
    assert not (tmp_path / "run").exists()


def test_the_same_audio_in_train_and_dev_is_refused_under_any_name(tones, tmp_path):
    for name, split in (("train", "TRAIN"), ("dev", "DEV"), ("test", "TRAIN")):
        lines = [
            json.dumps({"id": f"{name}{i}", "audio_filepath": str(path), "text": "ma"})
            for i, path in enumerate(sorted((tones / split).rglob("*.WAV")))
        ]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match="set 'test' shares 48 utterances with train"):
        run("recipes/so762/chars.yaml", tmp_path, tmp_path / "run", "corpus.kind=jsonl")


def test_a_run_that_failed_at_once_may_be_begun_anew(tones, tmp_path, monkeypatch):
    overrides = ("trainer.max_epochs=1", "trainer.tune=false")
    with monkeypatch.context() as patched:
        patched.setattr(training, "build", lambda *a: (_ for _ in ()).throw(InputError("bad")))
        with pytest.raises(InputError, match="bad"):
            run("recipes/demo/ctc.yaml", tones, tmp_path / "run", *overrides)
    assert run("recipes/demo/ctc.yaml", tones, tmp_path / "run", *overrides)["epochs"] == 1


def test_a_folder_with_something_else_is_refused(tones, tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="not empty; choose another"):
        run("recipes/demo/ctc.yaml", tones, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_run_directory_that_cannot_be_made_is_told(tones, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made"):
        run("recipes/demo/ctc.yaml", tones, tmp_path / "file" / "run")


@pytest.mark.parametrize("how", ["speaker", "global", "none"])
def test_every_normalisation_trains_and_travels(tones, tmp_path, how):
    run(
        "recipes/demo/ctc.yaml",
        tones,
        tmp_path / "run",
        f"features.normalize={how}",
        "trainer.max_epochs=1",
        "trainer.tune=false",
    )
    assert (load_bundle(tmp_path / "run").stats is not None) == (how == "global")


def test_an_hour_among_sentences_is_not_trained_on(tones, tmp_path, monkeypatch):
    from asr.train import setup as training_setup

    heard = []

    def extract(utterances, *args):
        heard.extend(u.id for u in utterances)
        return training_setup_extract(utterances, *args)

    training_setup_extract = training_setup.extract
    monkeypatch.setattr(training_setup, "extract", extract)
    choose = training.choose_sets

    def with_an_hour(*args):
        sets = choose(*args)
        sets["train"][3] = replace(sets["train"][3], duration_s=3600.0)
        return sets

    monkeypatch.setattr(training, "choose_sets", with_an_hour)
    results = run(
        "recipes/demo/ctc.yaml", tones, tmp_path / "run", "trainer.max_epochs=1", "trainer.tune=0"
    )
    (name,) = (skipped := json.loads((tmp_path / "run/skipped.json").read_text())["train"])
    assert skipped[name] == "3600 s are more than trainer.max_utterance_s=120"
    assert results["skipped"]["train"] == 1
    assert name not in heard


def test_running_out_of_memory_names_the_batch_and_the_settings(tones, tmp_path, monkeypatch):
    # Four exabytes: the allocator's own words.
    monkeypatch.setattr(training_step, "ctc_loss", lambda *a: torch.empty(1 << 60))
    with pytest.raises(InputError) as told:
        run("recipes/demo/ctc.yaml", tones, tmp_path / "run")
    line = str(told.value)
    assert line.startswith("out of memory in step 1: a batch of 4 utterances, padded to ")
    assert "mtr0_u" in line
    assert "lower trainer.max_batch_s=240, trainer.batch_size=4 or trainer.max_ut" in line


def test_a_clock_that_jumps_does_not_count(tones, tmp_path, monkeypatch):
    now = itertools.count(0, -3600)
    monkeypatch.setattr(time, "time", lambda: float(next(now)))
    run("recipes/demo/ctc.yaml", tones, tmp_path / "run", "trainer.max_epochs=2", "trainer.tune=0")
    walls = [json.loads(line)["wall_s"] for line in (tmp_path / "run/metrics.jsonl").open()]
    assert 0 < walls[0] < walls[1] < 60


def test_labels_that_train_says_once_are_told(caplog):
    labels = Labels("phone", ("<blank>", "aa", "s", "zh"))
    said = [(1, 2, 1), (2, 3)]
    utterances = [Utterance(f"u{i}", Path(), "s", 1.0) for i in range(2)]
    examples = [
        Example(u, np.zeros((1, 1), np.float32), ids, None)
        for u, ids in zip(utterances, said, strict=True)
    ]
    report_rare(examples, labels)
    assert "train says 1 labels only once, hardly to be learnt: zh (u1)" in caplog.text
    caplog.clear()
    report_rare(examples * 2, labels)
    assert not caplog.text


def test_phones_come_from_words_and_a_lexicon(tones, tmp_path):
    root = tmp_path / "words"
    for name, folder in (("train", "TRAIN"), ("dev", "DEV"), ("test", "TEST")):
        lines = [
            {"audio_filepath": str(path), "text": " ".join(text.split()[2:]).capitalize() + "."}
            for path in sorted((tones / folder).rglob("*.WAV"))
            for text in [path.with_suffix(".TXT").read_text()]
        ]
        if name == "train":
            lines[0]["text"] = "ma zork zork"
        root.mkdir(exist_ok=True)
        (root / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    changed = ("corpus=jsonl", "trainer.max_epochs=12", "corpus.lexicon=lexicon.txt")
    with pytest.raises(InputError, match=r"has no phones; name a lexicon .*corpus\.lexicon"):
        run("recipes/demo/ctc.yaml", root, tmp_path / "none", *changed[:2], "decoder.lexicon=false")
    entries = [f"{w.upper()}  {p.upper()}\n" for w, p in LEXICON.items()]
    text = ";;; as CMUdict writes\n" + "".join([*entries, "MA(2)  S S\n", "THIN  TH IH1 N\n"])
    (root / "lexicon.txt").write_text(text)
    results = run("recipes/demo/ctc.yaml", root, tmp_path / "run", *changed)
    assert results["skipped"] == {"train": 1, "dev": 0, "test": 0}
    assert results["sets"]["test"]["greedy"]["PER"]["error_rate"] < 0.3
    assert results["sets"]["test"]["beam+lexicon"]["WER"]["error_rate"] < 0.3
    told = (tmp_path / "run/train.log").read_text()
    assert "left out: 1, said 2 times in 1 utterance: zork (2, first in U000" in told
    said = read_manifest(tmp_path / "run/manifests/train.jsonl")[0]
    phones = [p for word in said.text.split() for p in LEXICON[word.lower()].split()]
    assert [p.label for p in said.phones] == phones
    # Labels as the dictionary has them, where nothing folds them, and all that it has.
    folded = ("labels.fold=none", "labels.score_fold=none", "trainer.max_epochs=1")
    run(
        "recipes/demo/ctc.yaml",
        root,
        tmp_path / "own",
        *changed[::2],
        *folded,
        "trainer.tune=false",
    )
    labels = load_bundle(tmp_path / "own").labels
    assert labels.symbols == ("<blank>", "AA", "IH1", "IY", "M", "N", "S", "TH")
