"""Weights chosen on dev: the planted best is found, and the model directory keeps it."""

import json
import os
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from running import asr

from asr.audio.features import FeatureConfig
from asr.data.manifest import read_manifest, write_manifest
from asr.decode.config import DecoderConfig
from asr.decode.lexicon import Lexicon
from asr.errors import InputError
from asr.labels import LabelConfig, Labels
from asr.lm.lstm import NeuralConfig, NeuralLM
from asr.lm.net import LanguageModel, LanguageModelConfig
from asr.lm.ngram import NGram
from asr.model.bundle import Bundle, replaced_together, save_config, save_lexicon, save_own_lm
from asr.model.weights import load_bundle
from asr.nets.config import RecurrentConfig
from asr.recognize import tuning
from asr.recognize.tuning import (
    Search,
    adopted,
    calibrate,
    log_priors,
    searches,
    tune,
    tune_all,
)
from asr.system.progress import progress_bar
from asr.types import Segment, Utterance

LABELS = Labels("phone", ("<blank>", "a", "b"))


def drawn(n, seed=0):
    """Utterances whose frames cannot tell a from b, though their order can; and a bundle."""
    rng = np.random.default_rng(seed)
    utterances, log_probs = [], {}
    for number in range(n):
        said = "ab" * 3
        frames = []
        for symbol in said:
            right = rng.uniform(0.3, 0.8)
            p = {"a": right, "b": 0.95 - right}
            frames += [[0.05, p["a"], p["b"]] if symbol == "a" else [0.05, p["b"], p["a"]]]
            frames += [[0.98, 0.01, 0.01]]
        name = f"u{number}"
        phones = tuple(Segment(symbol) for symbol in said)
        utterances.append(Utterance(name, SimpleNamespace(), name, 1.0, phones=phones))
        log_probs[name] = np.log(np.array(frames, np.float32))
    bundle = Bundle(
        FeatureConfig(),
        RecurrentConfig(),
        LABELS,
        LabelConfig(),
        "ctc",
        model=None,
        decoder=DecoderConfig("beam", beam=10),
        label_lm=NGram.estimate([list("ababab")] * 3 + [list("abab")], 2),
    )
    return utterances, log_probs, bundle


def test_the_language_model_gets_the_weight_that_helps():
    utterances, log_probs, bundle = drawn(20)
    _, search = searches(bundle)
    ticks = []
    tuned = tune(utterances, log_probs, bundle, search, lambda: ticks.append(1))
    without = next(t for t in tuned.trials if t.config.lm_weight == 0 and t.config.bonus == 0)
    assert tuned.best.rate == min(t.rate for t in tuned.trials)
    assert tuned.best.rate < without.rate / 2
    assert tuned.best.config.lm_weight > 0
    assert len(ticks) == search.n_trials
    chosen = adopted(bundle, [tuned])
    assert chosen == replace(
        bundle.decoder, lm_weight=tuned.best.config.lm_weight, bonus=tuned.best.config.bonus
    )


def test_the_blank_is_worth_less_where_that_helps():
    utterances, log_probs, bundle = drawn(20)
    # A net that is shy of labels.
    for frames in log_probs.values():
        frames[:, 0] += 2.6
    shy = bundle.decoder
    with progress_bar() as progress:
        greedily, with_lm = tune_all(utterances, log_probs, bundle, searches(bundle), progress)
    assert greedily.search.title == "greedy"
    assert greedily.best.config.blank_penalty > 0
    assert greedily.best.rate < next(t.rate for t in greedily.trials)
    # What was found there holds for the search with a language model.
    assert with_lm.best.config.blank_penalty == greedily.best.config.blank_penalty
    assert bundle.decoder.blank_penalty == greedily.best.config.blank_penalty
    assert (shy.blank_penalty, bundle.decoder.name) == (0, shy.name)


def test_labels_shares_are_what_the_net_puts_out_on_average():
    log_probs = {"a": np.log([[0.7, 0.2, 0.1]]), "b": np.log([[0.1, 0.8, 0.1], [0.4, 0.5, 0.1]])}
    assert log_priors(log_probs) == pytest.approx(np.log([0.4, 0.5, 0.1]), abs=1e-4)


def score_by(monkeypatch, rate):
    """Let a configuration have the error rate that ``rate`` says."""

    def scored(utterances, config, bundle):
        return {"PER": SimpleNamespace(error_rate=rate(config))}

    monkeypatch.setattr(tuning, "score_hypotheses", scored)


@pytest.mark.parametrize("planted", [(0.35, 0.75), (0.0, -1.0), (1.25, 2.25), (0.9, 0.1)])
def test_the_refinement_comes_nearer_than_the_grid(monkeypatch, planted):
    """The error rate is replaced by a bowl whose bottom is known."""

    def bowl(config):
        return abs(config.lm_weight - planted[0]) + abs(config.bonus - planted[1])

    utterances, log_probs, bundle = drawn(1)
    monkeypatch.setattr(tuning, "_decoded", lambda *_: lambda config: config)
    score_by(monkeypatch, bowl)
    _, search = searches(bundle)
    tuned = tune(utterances, log_probs, bundle, search)
    grid = min(t.rate for t in tuned.trials if t.stage == "grid")
    assert tuned.best.rate <= grid
    assert tuned.best.rate <= 0.25


def test_the_narrowest_beam_that_is_good_enough(monkeypatch):
    rates = {5: 0.5, 10: 0.202, 20: 0.2, 50: 0.2}
    utterances, log_probs, bundle = drawn(1)
    monkeypatch.setattr(tuning, "_decoded", lambda *_: lambda config: config)
    score_by(monkeypatch, lambda config: rates.get(config.beam, 1.0))
    search = Search(
        "beam", replace(bundle.decoder, beam=30), {"bonus": (0.0, 1.0)}, (5, 10, 20, 50)
    )
    tuned = tune(utterances, log_probs, bundle, search)
    assert tuned.best.config.beam == 10
    assert adopted(bundle, [tuned]).beam == 10


def test_nothing_said_cannot_be_tuned_on():
    utterances, log_probs, bundle = drawn(2)
    silent = [replace(u, phones=()) for u in utterances]
    with pytest.raises(InputError, match="empty"):
        tune(silent, log_probs, bundle, searches(bundle)[0])


def test_confidences_are_calibrated_for_each_decoder():
    utterances, log_probs, bundle = drawn(60)
    calibrations, reports = calibrate(
        utterances, log_probs, replace(bundle, decoder=replace(bundle.decoder, lm_weight=1.0))
    )
    assert calibrations.keys() == {"greedy", "beam", "beam+lm"}
    assert {(r.title, r.unit) for r in reports} == {(t, "label") for t in calibrations}
    of_greedy = next(r for r in reports if r.title == "greedy")
    assert of_greedy.after < 0.1 < of_greedy.before
    assert len(calibrations["greedy"].labels) == 3
    # With the language model everything is right: nothing to fit.
    assert calibrations["beam+lm"].labels is None


@pytest.fixture
def run(tone_run, tmp_path):
    shutil.copytree(tone_run, tmp_path / "run")
    return tmp_path / "run"


def test_tune_leaves_a_model_that_transcribes_best_by_itself(
    run, tones, tmp_path, monkeypatch, capsys
):
    config = run / "model" / "config.json"
    settings = json.loads(config.read_text())
    settings["decoder"] |= {"name": "greedy", "lexicon": False, "word_lm_weight": 0.0}
    config.write_text(json.dumps(settings))
    (run / "model" / "lexicon.txt").unlink()
    (run / "model" / "words.arpa").unlink()
    texts = [(u.text or "").split() for u in read_manifest(run / "manifests/train.jsonl")]
    NGram.estimate(texts, 2).write_arpa(tmp_path / "words.arpa")
    words = ("tune", "--model", run, run / "manifests/dev.jsonl")
    given = ("--lexicon", tones / "lexicon.txt", "--lm", tmp_path / "words.arpa")
    code, out, err = asr(monkeypatch, capsys, *words, *given)
    assert (code, err) == (0, "")
    assert "beam+lexicon" in out
    assert "*" in out
    assert "calibration error" in out
    bundle = load_bundle(run)
    assert bundle.decoder.name == "beam"
    assert bundle.decoder.lexicon
    assert set(bundle.lexicon.words) == {"ma", "see", "seam", "mas", "aim"}
    assert bundle.word_lm.tokens == NGram.read_arpa(tmp_path / "words.arpa").tokens
    assert "beam+lexicon" in bundle.calibrations
    assert (run / "model-emissions" / "dev.safetensors").is_file()
    said = read_manifest(run / "manifests/test.jsonl")
    code, out, err = asr(
        monkeypatch, capsys, "transcribe", "--model", run, *(u.audio for u in said)
    )
    heard = [line.split("\t")[1] for line in out.splitlines()]
    assert sum(h == u.text for h, u in zip(heard, said, strict=True)) >= len(said) - 1


def test_the_net_runs_once(run, monkeypatch, capsys):
    runs = []
    of_set = tuning.emissions_of
    monkeypatch.setattr(tuning, "emissions_of", lambda *a: runs.append(1) or of_set(*a))
    words = ("tune", "--model", run, run / "manifests/dev.jsonl", "--beam", "5", "--no-lexicon")
    first = asr(monkeypatch, capsys, *words)
    tuned = (run / "model" / "config.json").read_text()
    second = asr(monkeypatch, capsys, *words)
    assert first[0] == second[0] == 0
    assert first[1] == second[1]
    assert (run / "model" / "config.json").read_text() == tuned
    assert len(runs) == 1
    # Other audio, a spoilt file: made anew.
    cache = run / "model-emissions" / "dev.safetensors"
    cache.write_bytes(cache.read_bytes()[:-40])
    asr(monkeypatch, capsys, *words)
    assert len(runs) == 2
    dev = read_manifest(run / "manifests/dev.jsonl")
    write_manifest(run / "manifests/dev.jsonl", dev[:-1])
    asr(monkeypatch, capsys, *words)
    assert len(runs) == 3


@pytest.mark.parametrize(
    ("name", "refused"),
    [
        ("test.jsonl", True),
        ("core_TEST-2.jsonl", True),
        ("test39.jsonl", True),
        ("latest.jsonl", False),
        ("contest.jsonl", False),
        ("test/all.jsonl", True),
    ],
)
def test_test_sets_are_refused(run, tmp_path, monkeypatch, capsys, name, refused):
    manifest = tmp_path / "sets" / name
    manifest.parent.mkdir(parents=True)
    shutil.copyfile(run / "manifests/dev.jsonl", manifest)
    before = (run / "model" / "config.json").read_text()
    words = ("tune", "--model", run, manifest, "--beam", "3", "--no-lexicon")
    code, out, err = asr(monkeypatch, capsys, *words)
    if not refused:
        assert code == 0
        return
    assert (code, out) == (2, "")
    assert "--force" in err
    assert (run / "model" / "config.json").read_text() == before
    if name == "test.jsonl":
        assert asr(monkeypatch, capsys, *words, "--force")[0] == 0


def test_unreadable_audio_is_told_and_left_out(run, tmp_path, monkeypatch, capsys):
    dev = read_manifest(run / "manifests/dev.jsonl")
    dev[0] = replace(dev[0], audio=tmp_path / "gone.wav")
    write_manifest(tmp_path / "dev.jsonl", dev)
    words = ("tune", "--model", run, tmp_path / "dev.jsonl", "--beam", "3", "--no-lexicon")
    for _ in range(2):
        code, _, err = asr(monkeypatch, capsys, *words)
        assert code == 0
        assert dev[0].id in err
    write_manifest(tmp_path / "dev.jsonl", dev[:1])
    code, _, err = asr(monkeypatch, capsys, *words)
    assert code == 2
    assert "none of its 1" in err.splitlines()[-1]


def tiny_neural(tokens):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        config = LanguageModelConfig("gru", 1, 8)
        return NeuralLM(
            NeuralConfig(carry=False, model=config),
            ("<unk>", "<s>", "</s>", *tokens),
            LanguageModel(config, 3 + len(tokens)),
        )


def test_neural_language_models_live_in_the_model_directory(run, tmp_path, monkeypatch, capsys):
    tiny_neural(["ma", "see", "seam", "mas", "aim"]).save(tmp_path / "lstm")
    words = ("tune", "--model", run, run / "manifests/dev.jsonl", "--beam", "5")
    code, _, err = asr(monkeypatch, capsys, *words, "--lm", tmp_path / "lstm")
    assert (code, err) == (0, "")
    bundle = load_bundle(run)
    assert isinstance(bundle.word_lm, NeuralLM)
    assert not (run / "model" / "words.arpa").exists()
    texts = [(u.text or "").split() for u in read_manifest(run / "manifests/train.jsonl")]
    NGram.estimate(texts, 2).write_arpa(tmp_path / "words.arpa")
    rescore = ("--lm", tmp_path / "words.arpa", "--rescore", tmp_path / "lstm")
    code, out, err = asr(monkeypatch, capsys, *words, *rescore)
    assert code == 0
    assert "beam+lexicon+rescore" in out
    bundle = load_bundle(run)
    assert isinstance(bundle.word_lm, NGram)
    assert isinstance(bundle.rescore_lm, NeuralLM)
    # Random weights cannot be better than none: told, and left off.
    assert "rescoring is left off" in err
    assert bundle.decoder.rescore_weight == 0


def test_an_interrupted_tune_leaves_the_model_as_it_was(run, monkeypatch, capsys):
    before = (run / "model" / "config.json").read_text()

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(tuning, "calibrate", interrupted)
    words = ("tune", "--model", run, run / "manifests/dev.jsonl", "--beam", "3", "--no-lexicon")
    assert asr(monkeypatch, capsys, *words)[0] == 130
    assert (run / "model" / "config.json").read_text() == before


def die_in_call(number, monkeypatch):
    """Let this process die, as by a kill, in the n-th call that changes a folder."""
    calls = []

    def dying(change):
        def called(*args, **kwargs):
            calls.append(args)
            if len(calls) == number:
                os._exit(9)
            return change(*args, **kwargs)

        return called

    for name in ("mkdir", "rename", "replace", "unlink", "rmdir", "fsync"):
        monkeypatch.setattr(os, name, dying(getattr(os, name)))


def test_a_killed_tune_leaves_the_old_model_or_the_new_one(tone_run, tmp_path, monkeypatch):
    (tmp_path / "lexicon.txt").write_text("ma\tm aa\nsee\ts iy\n")
    outcomes = []
    status = None
    while status != 0:
        folder = tmp_path / f"model{len(outcomes)}"
        shutil.copytree(tone_run / "model", folder)
        bundle = load_bundle(folder)
        bundle.decoder = replace(bundle.decoder, beam=77)
        bundle.lexicon = Lexicon.read(tmp_path / "lexicon.txt", bundle.labels, "cmu40")
        bundle.word_lm = tiny_neural(["ma", "see"])
        child = os.fork()
        if child == 0:
            try:
                die_in_call(len(outcomes) + 1, monkeypatch)
                with replaced_together(folder) as new:
                    save_lexicon(new, bundle)
                    save_own_lm(new, bundle, "word_lm")
                    save_config(new, bundle)
                os._exit(0)
            finally:
                os._exit(1)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        found = load_bundle(folder)
        outcomes.append(found.decoder.beam == 77)
        assert (len(found.lexicon.words) == 2) == outcomes[-1]
        assert isinstance(found.word_lm, NeuralLM if outcomes[-1] else NGram)
        with replaced_together(folder):
            pass
        assert not [p for p in folder.iterdir() if p.name.startswith(".new")]
    # Up to some call nothing has happened, and from there on all.
    assert outcomes == sorted(outcomes)
    assert not outcomes[5]
    assert outcomes[-5]


def test_what_a_killed_tune_left_needs_a_writable_folder(run):
    folder = run / "model"
    (folder / ".new").mkdir()
    (folder / ".new" / "config.json").write_bytes((folder / "config.json").read_bytes())
    folder.chmod(0o500)
    try:
        if os.access(folder, os.W_OK):
            pytest.skip("nothing is read only for root")
        with pytest.raises(InputError, match="make the folder writable"):
            load_bundle(run)
    finally:
        folder.chmod(0o700)
    assert load_bundle(run)
    assert not (folder / ".new").exists()


def test_words_alone_are_enough_to_tune_by_words(run, tmp_path, monkeypatch, capsys):
    listed = [replace(u, phones=None) for u in read_manifest(run / "manifests/dev.jsonl")]
    write_manifest(tmp_path / "dev.jsonl", listed)
    words = ["tune", "--model", run, tmp_path / "dev.jsonl", "--beam", "4"]
    status, out, err = asr(monkeypatch, capsys, *words)
    assert status == 0, err
    assert "beam+lexicon: " in out
    assert "beam+lm: " not in out
    by_phones = [Search("beam+lm", DecoderConfig("beam"), {})]
    phones = SimpleNamespace(labels=Labels("phone", ("<blank>", "a")))
    with pytest.raises(InputError, match="has no phones, and no words are searched"):
        tuning.tune_all(listed, {}, phones, by_phones, None)


def test_a_lexicon_in_upper_case_takes_the_case_of_the_language_model():
    lexicon = Lexicon.build([("AB", (1,)), ("BA", (2,))], ())
    lower = NGram.estimate([["ab", "ba"]], 1)
    assert lexicon.in_case_of(lower).words == ("ab", "ba")
    assert lexicon.in_case_of(NGram.estimate([["AB", "c"]], 1)) is lexicon
    assert lexicon.in_case_of(NGram.estimate([["c"]], 1)) is lexicon
