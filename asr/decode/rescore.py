"""Second pass: score the N-best again with another language model, and sort it anew."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from asr.decode.config import DecoderConfig
from asr.lm.query import LanguageModel, token_scores
from asr.types import Hypothesis


def rescore(
    nbests: Sequence[Sequence[Hypothesis]],
    lm: LanguageModel,
    tokens_of: Callable[[Hypothesis], Sequence[str]],
    config: DecoderConfig,
    first: LanguageModel | None = None,
) -> list[list[Hypothesis]]:
    """Replace the language model's part and the bonus in each hypothesis, and sort best first.

    Args:
        nbests: the hypotheses of each utterance.
        tokens_of: the tokens of ``lm`` in a hypothesis: its words, or its labels' symbols.
        config: its ``rescore_weight`` and ``rescore_bonus`` count, and ``rescore_share``.
        first: the language model of the first pass, for the mixture.
    """
    sentences = [[tokens_of(hypothesis) for hypothesis in nbest] for nbest in nbests]
    log_probs = iter(
        sentence_log_probs([s for some in sentences for s in some], lm, first, config.rescore_share)
    )
    return [
        reorder(nbest, [next(log_probs) for _ in nbest], [len(s) for s in some], config)
        for nbest, some in zip(nbests, sentences, strict=True)
    ]


def reorder(
    nbest: Sequence[Hypothesis],
    log_probs: Sequence[float],
    n_tokens: Sequence[int],
    config: DecoderConfig,
) -> list[Hypothesis]:
    """Sort the N-best of one utterance by new scores; equal ones keep their order.

    log_probs: natural log-probability of each hypothesis under the language model, the end of the
    sentence included. n_tokens: what the bonus counts.
    """
    scored = []
    for hypothesis, log_prob, n in zip(nbest, log_probs, n_tokens, strict=True):
        lm = config.rescore_weight * log_prob if config.rescore_weight else 0.0
        bonus = config.rescore_bonus * n
        score = hypothesis.acoustic + lm + bonus
        scored.append(replace(hypothesis, score=score, lm=lm, bonus=bonus))
    return sorted(scored, key=lambda hypothesis: -hypothesis.score)


def sentence_log_probs(
    sentences: Sequence[Sequence[str]],
    lm: LanguageModel,
    first: LanguageModel | None = None,
    share: float = 1.0,
) -> list[float]:
    """Natural log-probability of each sentence and its end, alone, under ``lm`` or a mixture.

    first, share: share * P + (1 - share) * P_first at each token; without ``first``, P alone.
    """
    scores = token_scores(lm, sentences, alone=True)
    if first is not None and share < 1:
        others = token_scores(first, sentences, alone=True)
        with np.errstate(divide="ignore"):  # log 0, where one of them has no part
            mine, rest = np.log10([share, 1 - share])
        base = math.log(10)
        scores = [
            (np.logaddexp(base * (mine + row), base * (rest + other)) / base).tolist()
            for row, other in zip(map(np.array, scores), map(np.array, others), strict=True)
        ]
    return [math.log(10) * math.fsum(row) for row in scores]
