"""A decoder by its settings: log-probabilities in, hypotheses out."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from asr.decode.beam import BeamOptions, beam_search
from asr.decode.greedy import greedy
from asr.decode.lexicon import Lexicon
from asr.decode.viterbi import Transitions, ViterbiOptions, viterbi
from asr.errors import InputError
from asr.labels import SPACE, Labels
from asr.lm.ngram import BoundNGram, NGram
from asr.types import Hypothesis

DECODERS = ("greedy", "beam", "viterbi")


@dataclass
class DecoderConfig:
    """Which search, and its weights.

    beam: prefixes (or, in Viterbi's N-best, alternatives) kept. lm_weight and bonus: for the
    n-gram over labels. lexicon: search words of the model's lexicon; then word_lm_weight and
    word_bonus hold for the n-gram over words.
    """

    name: str = "greedy"
    beam: int = 50
    nbest: int = 1
    lm_weight: float = 0.0
    bonus: float = 0.0
    lexicon: bool = False
    word_lm_weight: float = 0.0
    word_bonus: float = 0.0
    prior_weight: float = 0.5
    transition_weight: float = 1.0

    def __post_init__(self) -> None:
        if self.name not in DECODERS:
            raise InputError(
                f"decoder {self.name!r} does not exist; choose one of {', '.join(DECODERS)}"
            )
        if self.beam < 1 or self.nbest < 1:
            raise InputError(
                f"decoder: beam={self.beam} and nbest={self.nbest} must both be 1 or more"
            )


@dataclass(frozen=True)
class Decoder:
    """`DecoderConfig` with the models that it needs."""

    config: DecoderConfig
    labels: Labels
    transitions: Transitions | None = None
    lexicon: Lexicon | None = None
    label_lm: NGram | None = None
    word_lm: NGram | None = None

    def __post_init__(self) -> None:
        if self.config.name == "viterbi" and self.transitions is None:
            raise InputError(
                "decoder viterbi needs a model trained framewise; this one is for greedy or beam"
            )
        if self.config.lexicon and self.lexicon is None:
            raise InputError("decoder.lexicon=true: the model directory holds no lexicon.txt")

    def __call__(self, log_probs: np.ndarray) -> list[Hypothesis]:
        """log_probs (T, V) of one utterance -> its N-best, best first."""
        config = self.config
        if config.name == "greedy":
            return [greedy(log_probs)]
        if config.name == "viterbi":
            assert self.transitions is not None
            options = ViterbiOptions(
                prior_weight=config.prior_weight,
                transition_weight=config.transition_weight,
                nbest=config.nbest,
            )
            return viterbi(log_probs, self.transitions, options)
        words = config.lexicon
        return beam_search(
            log_probs,
            BeamOptions(
                beam=config.beam,
                nbest=config.nbest,
                lm_weight=config.word_lm_weight if words else config.lm_weight,
                bonus=config.word_bonus if words else config.bonus,
            ),
            lm=self._word_lm if words else self._label_lm,
            lexicon=self.lexicon if words else None,
        )

    @cached_property
    def _label_lm(self) -> BoundNGram | None:
        return None if self.label_lm is None else self.label_lm.bind(self.labels.symbols)

    @cached_property
    def _word_lm(self) -> BoundNGram | None:
        if self.word_lm is None or self.lexicon is None:
            return None
        return self.lexicon.bind(self.word_lm)

    def batch(self, log_probs: Sequence[np.ndarray], n_threads: int = 2) -> list[list[Hypothesis]]:
        """Decode many utterances; the result does not depend on the number of threads."""
        with ThreadPoolExecutor(n_threads) as pool:
            return list(pool.map(self, log_probs))


def words_of(hypothesis: Hypothesis, labels: Labels) -> list[tuple[str, int, int]]:
    """The hypothesis' words, each with the range of its label positions; phones alone have none."""
    if hypothesis.words is not None:
        spans = hypothesis.word_spans or ()
        return [(w, a, b) for w, (a, b) in zip(hypothesis.words, spans, strict=True)]
    symbols = labels.decode(hypothesis.labels)
    if labels.unit == "word":
        return [(symbol, i, i + 1) for i, symbol in enumerate(symbols)]
    if labels.unit == "phone":
        return []
    words = []
    first = 0
    for i, symbol in enumerate([*symbols, SPACE]):
        if symbol == SPACE:
            if i > first:
                words.append(("".join(symbols[first:i]), first, i))
            first = i + 1
    return words
