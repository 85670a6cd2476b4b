"""Ask a language model of either kind, n-gram or neural: load, score, sample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from asr.errors import InputError
from asr.labels import SPACE, join
from asr.lm.arpa import EOS
from asr.lm.ngram import END, START, NGram, advance, perplexity
from asr.system.device import OF_CPU, pick_device

if TYPE_CHECKING:
    from asr.lm.lstm import NeuralLM

#: An `NGram`, or a `NeuralLM`, whose module needs PyTorch.
LanguageModel: TypeAlias = "NGram | NeuralLM"


def load_lm(path: Path) -> LanguageModel:
    """Read an ARPA file, plain or gzipped, or a language model directory.

    Raises:
        InputError: there is nothing of that name, or it is neither.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such language model; expected an ARPA file or a directory")
    return load_neural(path) if path.is_dir() else NGram.read_arpa(path)


def load_on(path: Path, device: str) -> LanguageModel:
    """`load_lm`, a neural model on a device as `pick_device` takes it.

    Raises:
        InputError: as `load_lm`, or no such device, or one that an n-gram does not compute on.
    """
    target = pick_device(device)
    lm = load_lm(path)
    if not isinstance(lm, NGram):
        lm.model.to(target)
    elif device not in OF_CPU:
        raise InputError(f"device {device}: {path} is an n-gram: use auto or cpu")
    return lm


def load_neural(folder: Path) -> NeuralLM:
    """Read a language model directory.

    Raises:
        InputError: it is none, or PyTorch is not installed.
    """
    try:
        from asr.lm.lstm import NeuralLM
    except ModuleNotFoundError as error:
        raise InputError(
            f"{folder}: a neural language model needs {error.name}, which is not installed; take "
            "an n-gram"
        ) from error
    return NeuralLM.load(folder)


def unit_of(lm: LanguageModel) -> str:
    """The unit of the model's tokens; an n-gram with ``<space>`` is one of characters."""
    if not isinstance(lm, NGram):
        return lm.config.unit
    return "char" if lm.id(SPACE) else "word"


def unit_for(lm: LanguageModel, path: Path, wanted: str | None) -> tuple[str, str]:
    """What a token of a text for ``lm`` is, and the folding of its phones.

    Raises:
        InputError: a neural model has another unit than is ``wanted``.
    """
    own = unit_of(lm)
    if isinstance(lm, NGram):
        return wanted or own, "none"
    if wanted not in (None, own):
        raise InputError(f"{path}: is a model of {own}s, which --unit {wanted} does not fit")
    return own, lm.config.fold


@dataclass(frozen=True)
class LmScore:
    """How well a model predicts a text, in KenLM's terms.

    tokens: predictions, one end of sentence each included. oov: tokens that the model does not
    know, scored as ``<unk>``. perplexity: over all tokens; without_oov leaves those out of the sum
    and of the count.
    """

    log10_prob: float
    tokens: int
    oov: int
    perplexity: float
    perplexity_without_oov: float


def token_scores(
    lm: LanguageModel, sentences: Sequence[Sequence[str]], alone: bool = False
) -> list[list[float]]:
    """log10 P of each token of each sentence and of the sentence's end.

    alone: no sentence counts as what came before the next.
    """
    if not isinstance(lm, NGram):
        return lm.scores_alone(sentences) if alone else lm.scores(sentences)
    return [lm.scores(sentence) for sentence in sentences]


def summarize(
    lm: LanguageModel, sentences: Sequence[Sequence[str]], scores: Sequence[Sequence[float]]
) -> LmScore:
    """The summary over ``sentences``, one at least, of what `token_scores` found for them."""
    known = [
        [s for s, token in zip(row, [*sentence, EOS], strict=True) if lm.id(token)]
        for sentence, row in zip(sentences, scores, strict=True)
    ]
    tokens = sum(map(len, scores))
    return LmScore(
        log10_prob=math.fsum(s for row in scores for s in row),
        tokens=tokens,
        oov=tokens - sum(map(len, known)),
        perplexity=perplexity(scores),
        perplexity_without_oov=perplexity(known),
    )


def by_line(
    lm: LanguageModel,
    sentences: Sequence[Sequence[str]],
    scores: Sequence[Sequence[float]],
    unit: str,
) -> list[dict[str, Any]]:
    """The `summarize` of each sentence alone, and its text."""
    return [
        asdict(summarize(lm, [sentence], [row])) | {"text": join(sentence, unit)}
        for sentence, row in zip(sentences, scores, strict=True)
    ]


def next_log_probs(lm: NGram, state: int) -> NDArray[np.float64]:
    """Return log P(token | state) (V,) of every token, in natural logarithms."""
    trie = lm.trie
    chain = []
    while state != 0:
        chain.append(state)
        state = int(trie.shorter[state])
    log10_probs = trie.log10_prob[1 : 1 + len(lm.tokens)].copy()
    for node in reversed(chain):
        log10_probs += trie.log10_backoff[node]
        children = slice(trie.first_child[node], trie.first_child[node + 1])
        log10_probs[trie.token[children]] = trie.log10_prob[children]
    return log10_probs * math.log(10)


def sample(
    lm: LanguageModel,
    prime: Sequence[str],
    count: int,
    seed: int,
    temperature: float = 1.0,
    top_k: int = 0,
    max_tokens: int = 100,
) -> list[list[str]]:
    """Draw ``count`` continuations of ``prime``, each until ``</s>`` or ``max_tokens``.

    temperature: 1 draws from the model's own distribution, towards 0 the likeliest token wins.
    top_k: draw among that many likeliest tokens; 0 is all. ``<unk>`` is read where the prime has
    an unknown token, and never drawn.

    Raises:
        InputError: a temperature, top_k, count or max_tokens that cannot be.
    """
    if not 0 < temperature < math.inf or top_k < 0 or count < 1 or max_tokens < 1:
        raise InputError(
            f"sampling: temperature must be above 0, count and max_tokens 1 or more, top_k 0 or "
            f"more, found {temperature:g}, {count}, {max_tokens} and {top_k}"
        )
    rng = np.random.default_rng(seed)
    primed: Any = 0 if isinstance(lm, NGram) else lm.initial_state()
    for token in (START, *map(lm.id, prime)):
        primed_log_probs, primed = _read(lm, primed, token)
    drawn: list[list[str]] = []
    for _ in range(count):
        tokens: list[str] = []
        log_probs, state = primed_log_probs, primed
        while len(tokens) < max_tokens:
            choice = int(rng.choice(len(lm.tokens), p=_tempered(log_probs, temperature, top_k)))
            if choice == END:
                break
            tokens.append(lm.tokens[choice])
            log_probs, state = _read(lm, state, choice)
        drawn.append(tokens)
    return drawn


def _tempered(
    log_probs: NDArray[np.float64], temperature: float, top_k: int
) -> NDArray[np.float64]:
    """Return the probabilities (V,) to draw from."""
    allowed = log_probs.astype(np.float64)
    allowed[[0, START]] = -math.inf
    if 0 < top_k < len(allowed):
        # A stable sort: of equally likely tokens the first stay, and exactly top_k do.
        allowed[np.argsort(-allowed, kind="stable")[top_k:]] = -math.inf
    weights = np.exp((allowed - allowed.max()) / temperature)
    return weights / weights.sum()


def _read(lm: LanguageModel, state: Any, token: int) -> tuple[NDArray[np.float64], Any]:
    """Read a token: the log-probabilities (V,) of the next one, and the state after."""
    if not isinstance(lm, NGram):
        log_probs, state = lm.advance(state, [token])
        return log_probs[0].numpy(), state
    _, state = advance(lm.trie, state, token)
    return next_log_probs(lm, state), state
