"""Decode whole sets and score them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from asr.decode.config import DecoderConfig
from asr.decode.decoder import Decoder, words_of
from asr.labels import LabelConfig, unit_symbols
from asr.model.bundle import Bundle
from asr.score.error_rate import (
    RATE_NAMES,
    phone_policy,
    policy_name,
    score_pairs,
)
from asr.types import Hypothesis, Scores, Utterance


def score_hypotheses(
    utterances: Sequence[Utterance],
    hypotheses: Sequence[Hypothesis],
    bundle: Bundle,
) -> dict[str, Scores]:
    """Score a set: PER for phones, CER and WER for characters, WER wherever there are words."""
    config, labels = bundle.label_config, bundle.labels
    scores = {}
    has_words = labels.unit != "phone" or any(h.words is not None for h in hypotheses)
    has_words = has_words and all(u.text is not None for u in utterances)
    if labels.unit == "char" or (
        # Words alone may be known of what was said.
        labels.unit == "phone" and not (has_words and any(u.phones is None for u in utterances))
    ):
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
    if has_words:
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
    """The decoders that a trained model is judged with, plain to rich, by `Decoder.title`."""
    base = replace(bundle.decoder, nbest=1, lexicon=False, rescore_weight=0.0)
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
    if bundle.rescore_lm is not None and bundle.decoder.rescore_weight > 0:
        own = bundle.make_decoder(replace(bundle.decoder, name="beam", nbest=1))
        decoders[own.title] = own.config
    return decoders


def teacher_of(bundle: Bundle) -> Decoder:
    """The richest of `decoders_of`: what knows best what a speaker said, to adapt the net to them.

    On so762's dev a net had 39.96 % of phones wrong, 36.9 after it was adapted by the words of the
    lexicon, 37.3 by the phones found with the phone 4-gram.
    """
    return bundle.make_decoder(list(decoders_of(bundle).values())[-1])
