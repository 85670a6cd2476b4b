"""Decode whole sets, score them, and choose decoder weights on dev."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from asr.checkpoint import Bundle
from asr.data import Example, collate
from asr.decode.decoder import Decoder, DecoderConfig, words_of
from asr.labels import BLANK, LabelConfig, unit_symbols
from asr.models.acoustic import AcousticModel
from asr.score.error_rate import (
    RATE_NAMES,
    error_rate,
    phone_policy,
    policy_name,
    score_pairs,
)
from asr.types import Hypothesis, Scores, Utterance


def batches_by_length(
    examples: Sequence[Example], max_frames: int = 60_000
) -> Iterator[list[Example]]:
    """Neighbours in length together, at most ``max_frames`` padded frames of log-mel a batch."""
    batch: list[Example] = []
    for example in sorted(examples, key=lambda e: (len(e.features), e.utterance.id)):
        if batch and (len(batch) + 1) * len(example.features) > max_frames:
            yield batch
            batch = []
        batch.append(example)
    if batch:
        yield batch


@torch.inference_mode()
def emissions(
    model: AcousticModel,
    bundle: Bundle,
    examples: Sequence[Example],
    device: torch.device,
    tick: Callable[[int], None] = lambda n: None,
) -> dict[str, np.ndarray]:
    """Log-probabilities (T, V) of each utterance, by id. ``tick`` gets each batch's size."""
    model.eval()
    found = {}
    for batch_examples in batches_by_length(examples):
        batch = collate(batch_examples, bundle.features, framewise=False)
        log_probs, lens = model(batch.features.to(device), batch.feature_lens.to(device))
        for i, example in enumerate(batch_examples):
            found[example.utterance.id] = log_probs[i, : int(lens[i])].float().cpu().numpy()
        tick(len(batch_examples))
    return {e.utterance.id: found[e.utterance.id] for e in examples}


def blank_rate(log_probs: Sequence[np.ndarray]) -> float:
    """Share of frames whose best label is the blank."""
    best = np.concatenate([x.argmax(1) for x in log_probs]) if log_probs else np.zeros(0)
    return float((best == BLANK).mean()) if len(best) else 0.0


def score_hypotheses(
    utterances: Sequence[Utterance],
    hypotheses: Sequence[Hypothesis],
    bundle: Bundle,
) -> dict[str, Scores]:
    """Score a set: PER for phones, CER and WER for characters, WER wherever there are words."""
    config, labels = bundle.label_config, bundle.labels
    scores = {}
    if labels.unit in ("phone", "char"):
        pairs = []
        for utterance, hypothesis in zip(utterances, hypotheses, strict=True):
            where = f"utterance {utterance.id}"
            reference = unit_symbols(utterance, labels.unit)
            heard = labels.decode(hypothesis.labels)
            if labels.unit == "char":
                # Through joined text: leading, trailing and doubled spaces are not errors.
                heard = list(labels.join(heard))
                reference = list(labels.join(reference))
            else:
                reference = phone_policy(reference, config.score_fold, config.silence, where)
                heard = phone_policy(heard, config.score_fold, config.silence, where)
            pairs.append((reference, heard))
        scores[RATE_NAMES[labels.unit]] = score_pairs(pairs, labels.unit, policy(config))
    has_words = labels.unit != "phone" or any(h.words is not None for h in hypotheses)
    if has_words and all(u.text is not None for u in utterances):
        pairs = [
            ((u.text or "").split(), [w for w, _, _ in words_of(h, labels)])
            for u, h in zip(utterances, hypotheses, strict=True)
        ]
        scores["WER"] = score_pairs(pairs, "word", policy_name("word"))
    return scores


def policy(config: LabelConfig) -> str:
    """The scoring policy of the model's own unit, to be printed beside its rate."""
    return policy_name(config.unit, config.score_fold, config.silence)


@dataclass(frozen=True)
class Decoded:
    """One set through one decoder."""

    hypotheses: list[Hypothesis]
    scores: dict[str, Scores]


def decode_set(
    utterances: Sequence[Utterance],
    log_probs: dict[str, np.ndarray],
    bundle: Bundle,
    decoder: Decoder,
) -> Decoded:
    """Decode and score the utterances."""
    nbest = decoder.batch([log_probs[u.id] for u in utterances])
    hypotheses = [best[0] for best in nbest]
    return Decoded(hypotheses, score_hypotheses(utterances, hypotheses, bundle))


def decoders_of(bundle: Bundle) -> dict[str, DecoderConfig]:
    """The decoders that a trained model is judged with, plain to rich."""
    base = replace(bundle.decoder, nbest=1, lexicon=False)
    if bundle.criterion == "framewise":
        return {"viterbi": replace(base, name="viterbi")}
    decoders = {
        "greedy": replace(base, name="greedy"),
        "beam": replace(base, name="beam", lm_weight=0.0, bonus=0.0),
    }
    if bundle.label_lm is not None:
        decoders["beam+lm"] = replace(base, name="beam")
    if bundle.lexicon is not None:
        decoders["beam+lexicon"] = replace(base, name="beam", lexicon=True)
    return decoders


# Natural-log weights around the values that speech systems end with; dev chooses among them.
LM_WEIGHTS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.3)
BONUSES = (-1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0)
WORD_LM_WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5)
WORD_BONUSES = (-2.0, -1.0, 0.0, 1.0, 2.0, 4.0)
PRIOR_WEIGHTS = (0.0, 0.15, 0.3, 0.45, 0.6, 0.9)
TRANSITION_WEIGHTS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0)


def tune(
    utterances: Sequence[Utterance],
    log_probs: dict[str, np.ndarray],
    bundle: Bundle,
    tick: Callable[[], None] = lambda: None,
) -> DecoderConfig:
    """Choose the weights of every decoder that has some, by a grid over the dev set.

    Ties go to the earlier, smaller weights. The beam is narrowed to a fifth while searching;
    final scores use the configured one.
    """
    chosen = bundle.decoder
    for config, first, second in grids(bundle):
        narrow = max(1, config.beam // 5)
        best_rate = float("inf")
        best: dict[str, Any] = {}
        for a, b in itertools.product(first[1], second[1]):
            weights: dict[str, Any] = {first[0]: a, second[0]: b}
            decoder = bundle.make_decoder(replace(config, beam=narrow, nbest=1, **weights))
            scores = decode_set(utterances, log_probs, bundle, decoder).scores
            rate = error_rate(scores["WER"] if "WER" in scores else next(iter(scores.values())))
            if rate < best_rate:
                best_rate, best = rate, weights
            tick()
        chosen = replace(chosen, **best)
    return chosen


Axis = tuple[str, tuple[float, ...]]


def grids(bundle: Bundle) -> list[tuple[DecoderConfig, Axis, Axis]]:
    """The searches that `tune` makes for this model: a decoder and its two weights with values."""
    decoders = decoders_of(bundle)
    found: list[tuple[DecoderConfig, Axis, Axis]] = []
    if "viterbi" in decoders:
        found.append(
            (
                decoders["viterbi"],
                ("prior_weight", PRIOR_WEIGHTS),
                ("transition_weight", TRANSITION_WEIGHTS),
            )
        )
    if "beam+lm" in decoders:
        found.append((decoders["beam+lm"], ("lm_weight", LM_WEIGHTS), ("bonus", BONUSES)))
    if "beam+lexicon" in decoders:
        found.append(
            (
                decoders["beam+lexicon"],
                ("word_lm_weight", WORD_LM_WEIGHTS),
                ("word_bonus", WORD_BONUSES),
            )
        )
    return found
