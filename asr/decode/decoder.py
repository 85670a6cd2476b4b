"""A decoder by its settings: log-probabilities in, hypotheses out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from asr.decode.confidence import Calibration, calibrated
from asr.decode.config import DecoderConfig
from asr.decode.emission import checked, without_priors
from asr.decode.greedy import greedy
from asr.decode.lexicon import NO_HOTWORDS, Hotwords, Lexicon
from asr.decode.rescore import rescore
from asr.decode.search import labels as of_labels
from asr.decode.search import words as of_words
from asr.decode.search.beam import BeamOptions, beam_search, label_search, word_search
from asr.decode.viterbi import Transitions, viterbi
from asr.errors import InputError
from asr.labels import BLANK, SPACE, Labels
from asr.lm.ngram import NO_LM, BoundNGram, NGram
from asr.lm.query import LanguageModel, unit_of
from asr.types import Hypothesis


@dataclass(frozen=True)
class Decoder:
    """`DecoderConfig` with the models that it needs.

    log_priors: (V,) logarithms of the labels' shares in what the net puts out; without any, they
    are not taken out. hotwords: words and their boosts, see `Lexicon.bind_hotwords`. calibrations:
    by `title`.
    """

    config: DecoderConfig
    labels: Labels
    transitions: Transitions | None = None
    lexicon: Lexicon | None = None
    label_lm: LanguageModel | None = None
    word_lm: LanguageModel | None = None
    rescore_lm: LanguageModel | None = None
    hotwords: Mapping[tuple[str, ...], float] = field(default_factory=dict)
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)
    log_priors: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        config = self.config
        if config.name == "viterbi" and self.transitions is None:
            raise InputError(
                "decoder viterbi needs a model trained framewise; this one is for greedy or beam"
            )
        if config.lexicon and self.lexicon is None:
            raise InputError("decoder.lexicon=true: the model directory holds no lexicon.txt")
        if config.lexicon and self.lexicon is not None:
            self.lexicon.check(len(self.labels))
        if self.hotwords and not self.searches_words:
            raise InputError("hotwords need a beam search with a lexicon")
        if self.fuses and (
            self.hotwords or (config.unknown_penalty is not None and self.searches_words)
        ):
            raise InputError(
                "hotwords and unknown words need an n-gram: a neural language model in the search "
                "knows neither"
            )
        if self.hotwords and self.rescores:
            raise InputError(
                "hotwords and rescoring do not go together: the second pass would undo their boosts"
            )

    @property
    def fuses(self) -> bool:
        """Whether a neural language model has part in the search."""
        return self.lm is not None and not isinstance(self.lm, NGram)

    @property
    def searches_words(self) -> bool:
        """Whether it finds words of the lexicon alone."""
        return self.config.name == "beam" and self.config.lexicon

    @property
    def lm(self) -> LanguageModel | None:
        """The language model in the search, if there is one and it counts."""
        config = self.config
        if config.name != "beam":
            return None
        if config.lexicon:
            return self.word_lm if config.word_lm_weight else None
        return self.label_lm if config.lm_weight else None

    @property
    def title(self) -> str:
        """What kind of search it is: greedy, viterbi, beam, beam+lm, beam+lexicon, ...+rescore."""
        first = "beam+lm" if self.lm is not None else self.config.name
        if self.searches_words:
            first = "beam+lexicon"
        return f"{first}+rescore" if self.rescores else first

    @property
    def rescores(self) -> bool:
        """Whether there is a second pass."""
        config = self.config
        return config.name == "beam" and self.rescore_lm is not None and config.rescore_weight > 0

    def __call__(self, log_probs: np.ndarray) -> list[Hypothesis]:
        """log_probs (T, V) of one utterance -> its N-best, best first."""
        return self.batch([log_probs], n_threads=1)[0]

    def batch(self, log_probs: Sequence[np.ndarray], n_threads: int = 2) -> list[list[Hypothesis]]:
        """Decode many utterances (T, V); the N-best of each, best first.

        The result does not depend on the number of threads, nor on what else is in the batch (with
        a neural language model, but for rounding).

        Raises:
            InputError: the frames have another number of labels than this decoder, or one of the
                searches refuses them.
        """
        for frames in log_probs:
            if frames.ndim == 2 and frames.shape[1] != len(self.labels):
                raise InputError(
                    f"the model puts out {frames.shape[1]} labels, and its inventory names "
                    f"{len(self.labels)}, blank included"
                )
        log_probs = [self.weighed(frames) for frames in log_probs]
        lm = self.lm
        if lm is not None and not isinstance(lm, NGram):
            # It needs PyTorch, which n-grams do without.
            from asr.decode.search.fusion import fused_search

            found = fused_search(
                log_probs,
                lm,
                self.labels.symbols,
                self.beam_options,
                self._searched_lexicon,
                self.seen,
            )
        else:
            _ = self._bound_lm, self._bound_hotwords  # once, before there are threads
            with ThreadPoolExecutor(n_threads) as pool:
                found = list(pool.map(self._search, log_probs))
        if self.rescores:
            found = self._rescored(found)
        return [
            [self.completed(hypothesis, frames) for hypothesis in nbest[: self.config.nbest]]
            for nbest, frames in zip(found, log_probs, strict=True)
        ]

    def weighed(self, log_probs: np.ndarray) -> np.ndarray:
        """What is searched in of (T, V): where words are, without the labels' frequencies; where
        labels are, with less of the blank.

        Nets put a label into different frames, so that their mean has it in more of them and in
        none of them above the blank, which they all put everywhere else.
        """
        config = self.config
        if self.searches_words:
            priors, weight = self.log_priors, config.word_prior_weight
        else:
            priors, weight = np.zeros(log_probs.shape[-1], np.float32), config.blank_penalty
            priors[BLANK] = 1
        if not weight or priors is None or config.name == "viterbi":
            return log_probs
        return without_priors(checked(log_probs), priors, weight)

    def _search(self, log_probs: np.ndarray) -> list[Hypothesis]:
        config = self.config
        if config.name == "greedy":
            return [greedy(log_probs)]
        if config.name == "viterbi":
            assert self.transitions is not None
            return self._viterbi(log_probs, self.transitions)
        return beam_search(
            log_probs,
            self.beam_options,
            self._bound_lm,
            self._searched_lexicon,
            self._bound_hotwords,
            self.seen,
        )

    def _viterbi(self, log_probs: np.ndarray, transitions: Transitions) -> list[Hypothesis]:
        """The N-best that users can tell apart: as many more are searched as that takes."""
        nbest = self.config.nbest
        while True:
            found = viterbi(log_probs, transitions, self.config, nbest)
            different: dict[str, Hypothesis] = {}
            for hypothesis in found:
                different.setdefault(self.seen(hypothesis.labels), hypothesis)
            if len(different) >= self.config.nbest or len(found) < nbest:
                return list(different.values())
            nbest *= 2

    def seen(self, labels: Sequence[int]) -> str:
        """What users see of labels: spaces at the ends, or several of them, make no difference."""
        return self.labels.join(self.labels.decode(labels))

    @property
    def _searched_lexicon(self) -> Lexicon | None:
        return self.lexicon if self.config.lexicon else None

    @property
    def beam_options(self) -> BeamOptions:
        """What beam search is asked for."""
        config, words = self.config, self.config.lexicon
        unknown = config.unknown_penalty if words else None
        return BeamOptions(
            beam=config.beam,
            nbest=max(config.nbest, config.rescore_nbest) if self.rescores else config.nbest,
            lm_weight=config.word_lm_weight if words else config.lm_weight,
            bonus=config.word_bonus if words else config.bonus,
            unknown_penalty=math.inf if unknown is None else unknown,
        )

    @cached_property
    def _bound_lm(self) -> BoundNGram | None:
        lm = self.lm
        if not isinstance(lm, NGram):
            return None
        lexicon = self._searched_lexicon
        return lm.bind(self.labels.symbols) if lexicon is None else lexicon.bind(lm)

    @cached_property
    def label_search(self) -> of_labels.Search:
        """The search over labels with an n-gram, for `search.labels`."""
        return label_search(self.beam_options, self._bound_lm or NO_LM, len(self.labels))

    @cached_property
    def word_search(self) -> of_words.Search:
        """The search over the words of the lexicon with an n-gram, for `search.words`."""
        assert self.lexicon is not None
        lm, hotwords = self._bound_lm or NO_LM, self._bound_hotwords or NO_HOTWORDS
        return word_search(self.beam_options, lm, self.lexicon, hotwords, len(self.labels))

    @cached_property
    def _bound_hotwords(self) -> Hotwords | None:
        if not self.hotwords or self.lexicon is None:
            return None
        return self.lexicon.bind_hotwords(self.hotwords)

    @property
    def rescores_words(self) -> bool:
        """Whether the second language model sees words; otherwise labels."""
        if self.labels.unit == "phone":
            return self.searches_words
        letters = self.rescore_lm is not None and unit_of(self.rescore_lm) == "char"
        return self.labels.unit == "word" or not letters

    @property
    def rescored_beside(self) -> LanguageModel | None:
        """The first pass' language model, if it sees the same tokens as the second one."""
        return self.lm if self.rescores_words == self.searches_words else None

    def rescored_tokens(self, hypothesis: Hypothesis) -> list[str]:
        """What the second language model scores of a hypothesis."""
        if self.rescores_words:
            return [word for word, _, _ in words_of(hypothesis, self.labels)]
        return self.labels.decode(hypothesis.labels)

    def _rescored(self, found: list[list[Hypothesis]]) -> list[list[Hypothesis]]:
        assert self.rescore_lm is not None
        tokens_of, first = self.rescored_tokens, self.rescored_beside
        return rescore(found, self.rescore_lm, tokens_of, self.config, first)

    def completed(self, hypothesis: Hypothesis, log_probs: np.ndarray) -> Hypothesis:
        """With words where labels make some, their confidences, and all confidences calibrated."""
        words = words_of(hypothesis, self.labels)
        if hypothesis.words is not None or self.labels.unit != "phone":
            hypothesis = replace(
                hypothesis,
                words=tuple(word for word, _, _ in words),
                word_spans=tuple((first, end) for _, first, end in words),
                word_confidences=tuple(
                    math.fsum(hypothesis.confidences[first:end]) / (end - first)
                    for _, first, end in words
                ),
            )
        calibration = self.calibrations.get(self.title)
        if calibration is None:
            return hypothesis
        return calibrated(hypothesis, log_probs, calibration)


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
