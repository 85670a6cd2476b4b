"""The end of a training: its best model with every decoder on dev and test."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from asr.model.adaptation import adapted_by
from asr.model.bundle import Bundle
from asr.model.emissions import LogProbs, emissions, log_probs_of
from asr.model.weights import save_bundle
from asr.nets.recurrent import count_parameters
from asr.recognize.evaluate import decode_set, decoders_of, policy, teacher_of
from asr.recognize.tuning import calibrate, searches, tune_all
from asr.score.show import as_json
from asr.system.files import write_text
from asr.system.progress import progress_bar
from asr.train.card import CARD, card
from asr.train.rundir import RESULTS, environment, log, write_hypotheses
from asr.train.state import Training
from asr.types import Utterance

#: What the titles of decoders end with that hear the net as it is adapted to each speaker.
ADAPTED = "+adapted"


def tune_and_score(
    training: Training,
    bundle: Bundle,
    weights: str,
    n_lost: int,
) -> dict[str, Any]:
    """Tune decoder weights on dev, decode dev and test with every decoder, write results.json.

    weights: which ones the bundle's model has. n_lost: files of the corpus that are not there.
    """
    run, config, state = training.run, training.config, training.state
    utterances = {
        name: [e.utterance for e in examples] for name, examples in training.scored.items()
    }
    with progress_bar() as progress:
        log_probs = emissions_of_sets(training, bundle, progress)
        if config.trainer.tune:
            dev = utterances["dev"], log_probs["dev"]
            tune_all(*dev, bundle, searches(bundle), progress)
            bundle.calibrations, _ = calibrate(*dev, bundle)
    save_bundle(run / "model", bundle)
    sets = {
        name: score_set(run, name, utterances[name], log_probs[name], bundle) for name in utterances
    }
    decoders = {title: asdict(c) for title, c in decoders_of(bundle).items()}
    if config.trainer.adapt:
        with progress_bar() as progress:
            outputs = adapted_by(bundle, teacher_of(bundle))
            log_probs = emissions_of_sets(training, bundle, progress, outputs)
        for name, said in utterances.items():
            sets[name] |= score_set(run, name, said, log_probs[name], bundle, ADAPTED)
        decoders |= {title + ADAPTED: config for title, config in decoders.items()}
    results = {
        "sets": sets,
        "decoders": decoders,
        "policy": policy(bundle.label_config),
        "seed": config.seed,
        "start": dict(training.bundle.start),
        "epochs": state.epoch,
        "best_epoch": state.best_epoch,
        "weights": weights,
        "training_s": state.trained_s,
        "parameters": count_parameters(bundle.model),
        "skipped": {name: len(reasons) for name, reasons in training.skipped.items()},
        "lost_files": n_lost,
        "bad_steps": state.bad_steps,
        "environment": environment(),
    }
    write_text(run / RESULTS, json.dumps(results, indent=2) + "\n")
    text = card(run, config, results, utterances, len(training.train))
    write_text(run / "model" / CARD, text)
    return results


def emissions_of_sets(
    training: Training, bundle: Bundle, progress: Progress, outputs: LogProbs = log_probs_of
) -> dict[str, dict[str, np.ndarray]]:
    """Log-probabilities (T, V) of dev and test, by set and utterance."""
    bundle.model.to(training.world.device)
    found = {}
    for name, examples in training.scored.items():
        task = progress.add_task(f"emissions of {name}", total=len(examples))
        tick = partial(progress.advance, task)
        found[name] = emissions(bundle, examples, tick, outputs)
    return found


def score_set(
    run: Path,
    name: str,
    utterances: Sequence[Utterance],
    log_probs: dict[str, np.ndarray],
    bundle: Bundle,
    mark: str = "",
) -> dict[str, Any]:
    """Decode a set with every decoder, write what was heard; by decoder what results.json has.

    mark: what decoders' titles end with.
    """
    found = {}
    for plain, config in decoders_of(bundle).items():
        title = plain + mark
        began = time.perf_counter()
        decoded = decode_set(utterances, log_probs, bundle, bundle.make_decoder(config))
        path = run / "decoded" / f"{name}.{title}.jsonl"
        write_hypotheses(path, utterances, decoded.hypotheses, bundle)
        found[title] = {
            **{rate: as_json(scores) for rate, scores in decoded.scores.items()},
            "decoding_s": time.perf_counter() - began,
        }
        figures = "  ".join(
            f"{rate} {100 * scores.error_rate:.2f} %" for rate, scores in decoded.scores.items()
        )
        log.info("%s  %s  %s  (%s)", name, title, figures, policy(bundle.label_config))
    if bundle.lexicon is not None and (lacking := bundle.lexicon.lacking(utterances)):
        log.warning("%s: %s", name, lacking)
    return found
