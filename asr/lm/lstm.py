"""Recurrent language models (LSTM or any other cell): train, score, save, load.

A sentence w1 .. wn is read as ``<s>`` w1 .. wn and predicted as w1 .. wn ``</s>``: exactly the
predictions of an n-gram model, so that perplexities of both over the same vocabulary compare.

A language model directory holds:
    weights.safetensors  the weights
    config.json          what it is and how it was trained
    vocabulary.txt       a token a line, <unk>, <s>, </s> first
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors.torch
import torch
from torch import Tensor
from torch.nn import functional as F

from asr.errors import InputError
from asr.labels import FOLDINGS, UNITS
from asr.lm.arpa import BOS, EOS, UNK
from asr.lm.net import LanguageModel, LanguageModelConfig
from asr.lm.ngram import END, START, perplexity
from asr.lm.text import vocabulary
from asr.nets.acoustic import filled, read_part
from asr.system.device import device_of
from asr.system.files import write_aside, write_text
from asr.system.settings import check, setting

FORMAT, WHAT = "carousel-lm-1", "a language model"
WEIGHTS, CONFIG, VOCABULARY = "weights.safetensors", "config.json", "vocabulary.txt"
PAD = -100
"""Target where a row has ended; the loss leaves it out."""
SCORED_AT_ONCE = 1024
"""Tokens: what scoring computes at once, so that a large vocabulary fits memory."""
SCORED_ROWS = 32
SCORED_ALONE, SCORES_ALONE = 256, 1 << 24
"""Sentences, and log-probabilities of next tokens, that scoring N-best lists holds at once."""
SLOWEST = 100
"""Training ends when the learning rate is that many times smaller than at the start."""


@dataclass
class NeuralConfig:
    """A language model and its training."""

    unit: str = setting("word", "what a token is", choices=UNITS)
    fold: str = setting("none", "folding of phones", choices=tuple(FOLDINGS))
    carry: bool = setting(
        True,
        "each line goes on from the one before, as in a book: the state is carried over line ends, "
        "in training and in scoring; otherwise each line starts afresh, as utterances do",
    )
    min_count: int = setting(2, "rarer tokens are <unk>", 1, 1_000_000)
    model: LanguageModelConfig = field(default_factory=LanguageModelConfig)
    epochs: int = setting(10, "passes over the text", 1, 1_000_000)
    batch: int = setting(32, "rows that are trained side by side", 1, 100_000)
    bptt: int = setting(
        64,
        "steps that errors flow back (truncated back-propagation through time, Williams & Peng "
        "1990); the state goes on",
        1,
        100_000,
    )
    lr: float = setting(2e-3, "learning rate of Adam", above=0, most=100)
    lr_factor: float = setting(
        0.5,
        "of lr after each epoch without a new best dev perplexity, until that no longer helps "
        "either",
        0,
        1,
    )
    clip_norm: float = setting(1.0, "longer gradients are shortened to it", above=0)
    seed: int = setting(1, "of all that is drawn", 0, 2**63 - 1)

    def __post_init__(self) -> None:
        check(self, "language model")


class Block(NamedTuple):
    """Tokens side by side. inputs: (B, L), padded with 0. targets: (B, L), padded with PAD."""

    inputs: Tensor
    targets: Tensor

    def chunks(self, steps: int) -> list[Block]:
        """Cut along the time axis."""
        cut = (self.inputs.split(steps, dim=1), self.targets.split(steps, dim=1))
        return [Block(*pair) for pair in zip(*cut, strict=True)]


Chunk = tuple[Block, bool]
"""Steps to train on at once, and whether their rows start afresh."""


def stream_block(sentences: Sequence[Sequence[int]], rows: int) -> Block:
    """All sentences as one stream, cut into ``rows`` equally long rows."""
    inputs = torch.tensor([t for s in sentences for t in (START, *s)])
    targets = torch.tensor([t for s in sentences for t in (*s, END)])
    length = math.ceil(len(inputs) / rows)
    rest = rows * length - len(inputs)
    return Block(
        F.pad(inputs, (0, rest)).view(rows, length),
        F.pad(targets, (0, rest), value=PAD).view(rows, length),
    )


def padded_block(sentences: Sequence[Sequence[int]]) -> Block:
    """A row a sentence."""
    length = 1 + max(map(len, sentences))
    inputs = [[START, *s] + [0] * (length - 1 - len(s)) for s in sentences]
    targets = [[*s, END] + [PAD] * (length - 1 - len(s)) for s in sentences]
    return Block(torch.tensor(inputs), torch.tensor(targets))


@dataclass
class NeuralLM:
    """A recurrent model over string tokens; ``tokens`` begins with ``<unk>``, ``<s>``, ``</s>``."""

    config: NeuralConfig
    tokens: tuple[str, ...]
    model: LanguageModel

    def __post_init__(self) -> None:
        self._ids = {token: i for i, token in enumerate(self.tokens)}

    def id(self, token: str) -> int:
        """Token -> id; 0 (``<unk>``) for a token that the model does not know."""
        return self._ids.get(token, 0)

    def encode(self, sentence: Iterable[str]) -> list[int]:
        """Tokens -> ids."""
        return [self.id(token) for token in sentence]

    def initial_state(self, n: int = 1) -> Tensor:
        """States (n, S, H) to `advance` with ``<s>`` first."""
        return self.model.initial_state(n)

    @torch.inference_mode()
    def advance(self, states: Tensor, tokens: Sequence[int] | Tensor) -> tuple[Tensor, Tensor]:
        """Read a token for each of B hypotheses.

        states (B, S, H), tokens: B ids -> log P(next token) (B, V) in natural logarithms, -inf for
        ``<s>``, and the states (B, S, H) after. Hypotheses are picked by indexing the states.

        Raises:
            InputError: states of another shape.
        """
        self.model.eval()
        return self.model.step(torch.as_tensor(tokens), states)

    def scores(
        self, sentences: Sequence[Sequence[str]], at_once: int = SCORED_AT_ONCE
    ) -> list[list[float]]:
        """Return log10 P of each token of each sentence and of the sentence's end.

        With ``config.carry``, a sentence is scored in the state that the one before left.
        ``at_once``: tokens computed at once; the result does not depend on it.
        """
        encoded = [self.encode(sentence) for sentence in sentences]
        if not encoded:
            return []
        if self.config.carry:
            flat = iter(self._score(stream_block(encoded, 1), at_once)[0])
            return [[next(flat) for _ in range(len(s) + 1)] for s in encoded]
        found: list[list[float]] = [[] for _ in encoded]
        by_length = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
        for first in range(0, len(encoded), SCORED_ROWS):
            picked = by_length[first : first + SCORED_ROWS]
            block = padded_block([encoded[i] for i in picked])
            for i, row in zip(picked, self._score(block, at_once // len(picked)), strict=True):
                found[i] = row[: len(encoded[i]) + 1]
        return found

    def scores_alone(self, sentences: Sequence[Sequence[str]]) -> list[list[float]]:
        """`scores` of sentences that each begin afresh; what begins alike is computed once.

        Made for N-best lists: all beginnings of one length are read as one batch.
        """
        found: list[list[float]] = []
        step = max(1, min(SCORED_ALONE, SCORES_ALONE // len(self.tokens)))
        for first in range(0, len(sentences), step):
            encoded = [self.encode(sentence) for sentence in sentences[first : first + step]]
            lengths = np.array([len(sentence) for sentence in encoded])
            targets = padded_block(encoded).targets.numpy()
            scores = np.zeros(targets.shape)
            log_probs, states = self.advance(self.initial_state(), [START])
            row = np.zeros(len(encoded), np.int64)  # of each sentence's beginning
            for place in range(targets.shape[1]):
                rest = np.flatnonzero(lengths >= place)
                scores[rest, place] = log_probs[row[rest], targets[rest, place]]
                rest = np.flatnonzero(lengths > place)
                if len(rest):
                    longer = row[rest] * len(self.tokens) + targets[rest, place]
                    longer, row[rest] = np.unique(longer, return_inverse=True)
                    before, token = np.divmod(longer, len(self.tokens))
                    log_probs, states = self.advance(states[before], torch.from_numpy(token))
            scores /= math.log(10)
            found += [s[: n + 1].tolist() for s, n in zip(scores, lengths, strict=True)]
        return found

    @torch.inference_mode()
    def _score(self, block: Block, steps: int) -> list[list[float]]:
        self.model.eval()
        states, device = self.model.initial_state(len(block.inputs)), device_of(self.model)
        pieces = []
        for inputs, targets in block.chunks(max(1, steps)):
            log_probs, states = self.model(inputs.to(device), states)
            places = targets.to(device).clamp(min=0)[:, :, None]
            pieces.append(log_probs.gather(2, places)[:, :, 0].cpu())
        return (torch.cat(pieces, dim=1).double() / math.log(10)).tolist()

    def save(self, folder: Path) -> None:
        """Write a language model directory; each file is replaced whole, the weights last."""
        folder = Path(folder)
        config = {"format": FORMAT, **asdict(self.config)}
        write_text(folder / CONFIG, json.dumps(config, indent=2) + "\n")
        write_text(folder / VOCABULARY, "".join(token + "\n" for token in self.tokens))
        with write_aside(folder / WEIGHTS) as aside:
            aside.write_bytes(safetensors.torch.save(self.model.state_dict()))

    @classmethod
    def load(cls, folder: Path) -> NeuralLM:
        """Read what `save` wrote.

        Raises:
            InputError: something is missing, of another version, or of another shape than the
                configuration says; the line names the file.
        """
        folder = Path(folder)
        if not (folder / CONFIG).is_file():
            raise InputError(
                f"{folder}: not a language model directory: expected {CONFIG} there, as "
                "asr lm train --kind lstm writes"
            )
        config = read_part(folder / CONFIG, WHAT, _configured)
        tokens = read_part(
            folder / VOCABULARY, WHAT, lambda path: tuple(path.read_text("utf-8").split("\n")[:-1])
        )
        path = folder / WEIGHTS
        tensors = read_part(path, WHAT, lambda path: safetensors.torch.load(path.read_bytes()))
        if tokens[:3] != (UNK, BOS, EOS) or len(set(tokens)) != len(tokens):
            raise InputError(
                f"{folder / VOCABULARY}: expected {UNK}, {BOS}, {EOS} first, and each token once"
            )
        make = partial(LanguageModel, config.model, len(tokens))
        model = filled(make, tensors, path, f"{CONFIG} and {VOCABULARY}")
        return cls(config, tokens, model.eval())


def _configured(path: Path) -> NeuralConfig:
    values = json.loads(path.read_text(encoding="utf-8"))
    if values.pop("format", None) != FORMAT:
        raise InputError(f"expected a language model of format {FORMAT!r}")
    return NeuralConfig(**values | {"model": LanguageModelConfig(**values["model"])})


@dataclass(frozen=True)
class Epoch:
    """What one epoch brought. loss: nats a token on train, while training."""

    number: int
    loss: float
    dev_perplexity: float
    lr: float
    is_best: bool
    wall_s: float


def train(
    sentences: Sequence[Sequence[str]],
    dev: Sequence[Sequence[str]],
    config: NeuralConfig,
    track: Callable[[Sequence[Chunk]], Iterable[Chunk]] = iter,
    on_epoch: Callable[[NeuralLM, Epoch], None] = lambda lm, epoch: None,
) -> NeuralLM:
    """Train on ``sentences`` and return the model of the epoch with the best dev perplexity.

    track: wraps an epoch's chunks, for a progress bar. on_epoch: called after each epoch.

    Raises:
        InputError: a vocabulary of fewer than two tokens, or a loss that is not finite.
    """
    tokens = (UNK, BOS, EOS, *vocabulary(sentences, config.min_count))
    order = np.random.default_rng(config.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = LanguageModel(config.model, len(tokens))
        lm = NeuralLM(config, tokens, model)
        encoded = [lm.encode(sentence) for sentence in sentences]
        optimizer = torch.optim.Adam(model.parameters(), lr=config.lr)
        lr, best, best_weights = config.lr, math.inf, model.state_dict()
        for number in range(1, config.epochs + 1):
            began = time.perf_counter()
            optimizer.param_groups[0]["lr"] = lr
            model.train()
            total, count = 0.0, 0
            states = lm.initial_state()
            for (inputs, targets), is_first in track(_epoch_chunks(encoded, config, order)):
                states = lm.initial_state(len(inputs)) if is_first else states.detach()
                log_probs, states = model(inputs, states)
                n = int((targets != PAD).sum())
                loss = F.nll_loss(log_probs.flatten(0, 1), targets.flatten(), ignore_index=PAD)
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
                optimizer.step()
                total, count = total + n * loss.item(), count + n
            dev_perplexity = perplexity(lm.scores(dev))
            if not math.isfinite(total + dev_perplexity):
                raise InputError(f"epoch {number}: the loss is not finite; try a lower lr")
            is_best = dev_perplexity < best
            if is_best:
                best, best_weights = dev_perplexity, copy.deepcopy(model.state_dict())
            wall_s = time.perf_counter() - began
            on_epoch(lm, Epoch(number, total / count, dev_perplexity, lr, is_best, wall_s))
            if not is_best:
                lr *= config.lr_factor
                if lr < config.lr / SLOWEST:
                    break
    model.load_state_dict(best_weights)
    return lm


def _epoch_chunks(
    sentences: Sequence[Sequence[int]], config: NeuralConfig, order: np.random.Generator
) -> list[Chunk]:
    """The chunks of an epoch.

    With ``carry``, all is one stream, begun at another sentence in each epoch. Otherwise rows are
    sentences of about one length, in random order.
    """
    if config.carry:
        first = int(order.integers(len(sentences)))
        blocks = [stream_block([*sentences[first:], *sentences[:first]], config.batch)]
    else:
        shuffled = order.permutation(len(sentences)).tolist()
        shuffled.sort(key=lambda i: len(sentences[i]))
        starts = order.permutation(np.arange(0, len(shuffled), config.batch)).tolist()
        blocks = [
            padded_block([sentences[i] for i in shuffled[start : start + config.batch]])
            for start in starts
        ]
    return [
        (chunk, i == 0) for block in blocks for i, chunk in enumerate(block.chunks(config.bptt))
    ]
