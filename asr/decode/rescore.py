"""Second pass: score the N-best again with another language model, and sort it anew."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from asr.errors import InputError
from asr.lm.query import LanguageModel, token_scores
from asr.types import Hypothesis


@dataclass(frozen=True)
class RescoreOptions:
    """What the second pass counts.

    lm_weight: factor of the language model's natural log-probability. bonus: added for each token
    of that model (a word, or a label). share: of the language model in a mixture with that of the
    first pass, share * P + (1 - share) * P_first at each token; 1 leaves the latter out.
    """

    lm_weight: float = 1.0
    bonus: float = 0.0
    share: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.lm_weight < math.inf or not math.isfinite(self.bonus):
            raise InputError(
                "rescoring: lm_weight must be 0 or more and bonus a finite number, found "
                f"{self.lm_weight} and {self.bonus}"
            )
        if not 0 <= self.share <= 1:
            raise InputError(f"rescoring: share must lie in 0 to 1, found {self.share}")


def rescore(
    nbests: Sequence[Sequence[Hypothesis]],
    lm: LanguageModel,
    tokens_of: Callable[[Hypothesis], Sequence[str]],
    options: RescoreOptions = RescoreOptions(),
    first: LanguageModel | None = None,
) -> list[list[Hypothesis]]:
    """Replace the language model's part and the bonus in each hypothesis, and sort best first.

    Args:
        nbests: the hypotheses of each utterance.
        tokens_of: the tokens of ``lm`` in a hypothesis: its words, or its labels' symbols.
        first: the language model of the first pass, for the mixture.

    Raises:
        InputError: a share below 1 and no model to share with.
    """
    if options.share < 1 and first is None:
        raise InputError(
            f"rescoring: share={options.share} mixes with the language model of the first pass, "
            "and there is none; give one, or set share=1"
        )
    sentences = [[tokens_of(hypothesis) for hypothesis in nbest] for nbest in nbests]
    log_probs = iter(
        sentence_log_probs([s for some in sentences for s in some], lm, first, options.share)
    )
    return [
        reorder(nbest, [next(log_probs) for _ in nbest], [len(s) for s in some], options)
        for nbest, some in zip(nbests, sentences, strict=True)
    ]


def reorder(
    nbest: Sequence[Hypothesis],
    log_probs: Sequence[float],
    n_tokens: Sequence[int],
    options: RescoreOptions,
) -> list[Hypothesis]:
    """Sort the N-best of one utterance by new scores; equal ones keep their order.

    log_probs: natural log-probability of each hypothesis under the language model, the end of the
    sentence included. n_tokens: what the bonus counts.
    """
    scored = []
    for hypothesis, log_prob, n in zip(nbest, log_probs, n_tokens, strict=True):
        lm = options.lm_weight * log_prob if options.lm_weight else 0.0
        bonus = options.bonus * n
        score = hypothesis.acoustic + lm + bonus
        scored.append(replace(hypothesis, score=score, lm=lm, bonus=bonus))
    return sorted(scored, key=lambda hypothesis: -hypothesis.score)


def sentence_log_probs(
    sentences: Sequence[Sequence[str]],
    lm: LanguageModel,
    first: LanguageModel | None = None,
    share: float = 1.0,
) -> list[float]:
    """Natural log-probability of each sentence and its end, alone, under ``lm`` or the mixture."""
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
