"""The language model: tokens in, log-probabilities of the next token out, with states to go on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from asr.errors import InputError
from asr.lm.ngram import START
from asr.nets.cells import CELLS, Cell, find_cell
from asr.nets.config import MOST_LAYERS, MOST_UNITS
from asr.system.settings import check, setting

FEWEST_ROWS = 8
"""Products of fewer rows round differently: filled up, a row does not depend on those beside it."""


@dataclass
class LanguageModelConfig:
    """Recurrent layers over embeddings of as many units."""

    cell: str = setting("lstm", "what the layers are made of", choices=tuple(CELLS))
    layers: int = setting(1, "recurrent layers", 1, MOST_LAYERS)
    hidden: int = setting(256, "units of a layer and of an embedding", 1, MOST_UNITS)
    dropout: float = setting(
        0.3,
        "on the embedding, between layers and before the output, not through time (Zaremba et al. "
        "2014)",
        0,
        below=1,
    )
    tie: bool = setting(True, "the output uses the embedding's weights (Press & Wolf 2017)")

    def __post_init__(self) -> None:
        check(self, "language model")


class LanguageModel(nn.Module):
    """Embedding, recurrent layers and a softmax over V tokens (Mikolov et al. 2010).

    The states of all layers are one tensor (B, S, H), S being layers times the states of a cell
    (two for an LSTM: h and c), so that a beam search picks hypotheses by indexing it.
    """

    never: Tensor

    def __init__(self, config: LanguageModelConfig, n_tokens: int) -> None:
        super().__init__()
        cell = find_cell(config.cell)
        self.hidden = config.hidden
        self.n_states = config.layers * len(cell.states)
        self.embedding = nn.Embedding(n_tokens, config.hidden)
        self.cells = nn.ModuleList(cell(config.hidden, config.hidden) for _ in range(config.layers))
        self.dropout = nn.Dropout(config.dropout)
        self.untied = None if config.tie else nn.Parameter(torch.empty(n_tokens, config.hidden))
        self.bias = nn.Parameter(torch.zeros(n_tokens))
        never = torch.zeros(n_tokens).index_fill(0, torch.tensor(START), -torch.inf)
        self.register_buffer("never", never, persistent=False)
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        if self.untied is not None:
            nn.init.uniform_(self.untied, -0.1, 0.1)

    @property
    def output_weight(self) -> Tensor:
        """(V, H): the embedding's own weights where tied."""
        return self.embedding.weight if self.untied is None else self.untied

    def initial_state(self, n: int = 1) -> Tensor:
        """The states (n, S, H) before anything is read: zero."""
        return self.bias.new_zeros(n, self.n_states, self.hidden)

    def forward(self, tokens: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
        """tokens (B, T) int64, states (B, S, H) before them -> log-probs (B, T, V), states after.

        log_probs[b, t] are natural logarithms of P(next token | states, tokens[b, : t + 1]).

        Raises:
            InputError: states of another shape.
        """
        before = self._by_layer(states, len(tokens))
        after: list[Tensor] = []
        x = self.dropout(self.embedding(tokens))
        for cell, state in zip(self.cells, before, strict=True):
            x, state = cell(x, state=state)
            x = self.dropout(x)
            after.extend(state)
        return self._log_probs(x), torch.stack(after, dim=1)

    def step(self, tokens: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
        """`forward` of one token each, in half of its time: tokens (B,) -> log-probs (B, V).

        Raises:
            InputError: states of another shape.
        """
        before = self._by_layer(states, len(tokens))
        rest = max(0, FEWEST_ROWS - len(tokens))
        after: list[Tensor] = []
        x = self.dropout(self.embedding(F.pad(tokens, (0, rest))))
        for cell, state in zip(self.cells, before, strict=True):
            assert isinstance(cell, Cell)
            state = cell.step(x, tuple(F.pad(s, (0, 0, 0, rest)) for s in state))
            x = self.dropout(state[0])
            after.extend(state)
        log_probs, states = self._log_probs(x), torch.stack(after, dim=1)
        return log_probs[: len(tokens)], states[: len(tokens)]

    def _by_layer(self, states: Tensor, n: int) -> list[tuple[Tensor, ...]]:
        expected = (n, self.n_states, self.hidden)
        if states.shape != expected:
            raise InputError(
                f"language model states have shape {tuple(states.shape)}: expected {expected}"
            )
        each = states.transpose(0, 1).contiguous().split(self.n_states // len(self.cells))
        return [tuple(layer) for layer in each]

    def _log_probs(self, x: Tensor) -> Tensor:
        logits = F.linear(x, self.output_weight, self.bias + self.never)
        return logits.log_softmax(dim=-1)
