"""The end of a training: its best model with every decoder on dev and test."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

from asr.model.bundle import Bundle, save_bundle
from asr.model.emissions import emissions
from asr.nets.recurrent import count_parameters
from asr.recognize.evaluate import decode_set, decoders_of, policy
from asr.recognize.tuning import adopted, calibrate, searches, tune
from asr.score.error_rate import error_rate
from asr.score.show import as_json
from asr.system.files import write_text
from asr.system.progress import progress_bar
from asr.train.rundir import RESULTS, environment, log, write_hypotheses
from asr.train.state import Training


def judge(
    training: Training,
    bundle: Bundle,
    weights: str,
    skipped: Mapping[str, Mapping[str, str]],
    n_lost: int,
) -> dict[str, Any]:
    """Tune decoder weights on dev, decode dev and test with every decoder, write results.json.

    weights: which ones the bundle's model has. n_lost: files of the corpus that are not there.
    """
    run, config, examples, state = training.run, training.config, training.examples, training.state
    device = training.world.device
    judged = [name for name in examples if name != "train"]
    bundle.model.to(device)
    log_probs = {}
    with progress_bar() as progress:
        for name in judged:
            task = progress.add_task(f"emissions of {name}", total=len(examples[name]))
            log_probs[name] = emissions(
                bundle.model,
                bundle,
                examples[name],
                device,
                partial(progress.advance, task),
            )
        if config.trainer.tune:
            wanted = searches(bundle)
            task = progress.add_task(
                "decoder weights on dev", total=sum(search.n_trials for search in wanted)
            )
            dev_utterances = [e.utterance for e in examples["dev"]]
            tuned = [
                tune(
                    dev_utterances,
                    log_probs["dev"],
                    bundle,
                    search,
                    partial(progress.advance, task),
                )
                for search in wanted
            ]
            bundle.decoder = adopted(bundle, tuned)
            bundle.calibrations, _ = calibrate(dev_utterances, log_probs["dev"], bundle)
    save_bundle(run / "model", bundle)

    sets: dict[str, dict[str, Any]] = {}
    for name in judged:
        utterances = [e.utterance for e in examples[name]]
        sets[name] = {}
        for title, decoder_config in decoders_of(bundle).items():
            began = time.perf_counter()
            decoded = decode_set(
                utterances, log_probs[name], bundle, bundle.make_decoder(decoder_config)
            )
            write_hypotheses(
                run / "decoded" / f"{name}.{title}.jsonl", utterances, decoded.hypotheses, bundle
            )
            sets[name][title] = {
                **{rate: as_json(scores) for rate, scores in decoded.scores.items()},
                "decoding_s": time.perf_counter() - began,
            }
            figures = "  ".join(
                f"{rate} {100 * error_rate(scores):.2f} %"
                for rate, scores in decoded.scores.items()
            )
            log.info("%s  %s  %s  (%s)", name, title, figures, policy(bundle.label_config))
        if bundle.lexicon is not None and (lacking := bundle.lexicon.lacking(utterances)):
            log.warning("%s: %s", name, lacking)
    results = {
        "sets": sets,
        "decoders": {title: asdict(c) for title, c in decoders_of(bundle).items()},
        "policy": policy(bundle.label_config),
        "seed": config.seed,
        "epochs": state.epoch,
        "best_epoch": state.best_epoch,
        "weights": weights,
        "training_s": state.trained_s,
        "parameters": count_parameters(bundle.model),
        "skipped": {name: len(reasons) for name, reasons in skipped.items()},
        "lost_files": n_lost,
        "bad_steps": state.bad_steps,
        "environment": environment(),
    }
    write_text(run / RESULTS, json.dumps(results, indent=2) + "\n")
    return results
