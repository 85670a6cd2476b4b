"""What dev says of a model's weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from asr.data.examples import Example
from asr.errors import InputError
from asr.model.bundle import Bundle
from asr.model.emissions import blank_rate, emissions
from asr.model.weights import save_weights
from asr.recognize.evaluate import decode_set, decoders_of
from asr.score.error_rate import RATE_NAMES
from asr.train.averaging import in_place_of
from asr.train.rundir import log
from asr.train.state import Training


def rate_on_dev(bundle: Bundle, criterion: str, examples: Sequence[Example]) -> tuple[float, float]:
    """Error rate on dev with the plainest decoder, and the share of blank frames.

    Raises:
        InputError: the training has diverged; there is nothing to score against.
    """
    bundle = replace(bundle, criterion=criterion)
    log_probs = emissions(bundle, examples)
    if not all(np.isfinite(x).all() for x in log_probs.values()):
        raise InputError(
            "the training has diverged: the model's outputs for dev are infinite or NaN; "
            "begin another run with a lower optim.lr"
        )
    plainest = next(iter(decoders_of(bundle).values()))
    utterances = [e.utterance for e in examples]
    dev = decode_set(utterances, log_probs, bundle, bundle.make_decoder(plainest))
    rate = next(iter(dev.scores.values())).error_rate
    if math.isnan(rate):
        raise InputError(f"dev has no {bundle.labels.unit} in its references to score against")
    return rate, blank_rate(list(log_probs.values()))


def keep_best(training: Training) -> str:
    """Make the average of the last or best epochs the run's model where dev prefers it.

    Returns which weights the model has now.
    """
    criterion, state, bundle = training.config.loss.name, training.state, training.bundle
    dev = training.scored["dev"]
    best_rate, kept = state.best_rate, f"epoch {state.best_epoch}"
    for which, snapshot in training.snapshots.items():
        if not snapshot.kept:
            continue
        average = snapshot.average()
        with in_place_of(training.model, average):
            rate, _ = rate_on_dev(bundle, criterion, dev)
        is_better = best_rate is None or rate < best_rate
        name = f"average of the {which} {len(snapshot.kept)} epochs"
        log.info(
            "%s (%s): dev %s %.2f %%%s",
            name,
            " ".join(map(str, sorted(snapshot.kept))),
            RATE_NAMES[bundle.labels.unit],
            100 * rate,
            " *: kept" if is_better else f", no better than epoch {state.best_epoch}",
        )
        if is_better:
            best_rate, kept = rate, name
            weights = training.model.state_dict() | average
            save_weights(training.run / "model", bundle, weights)
    return kept
