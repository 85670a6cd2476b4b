"""The net from letters to phones: a few frames of log-probabilities for each letter."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from asr.nets.cells import CELLS
from asr.nets.config import MOST_LAYERS, MOST_UNITS, RecurrentConfig
from asr.nets.recurrent import Dropout, RecurrentStack
from asr.system.settings import check, setting

#: Beyond, no frame is left to learn anything from.
MOST_FRAMES = 16


@dataclass
class NetConfig:
    """Recurrent layers in both directions over embedded letters."""

    cell: str = setting("lstm", "what the layers are made of", choices=tuple(CELLS))
    layers: int = setting(3, "recurrent layers", 1, MOST_LAYERS)
    hidden: int = setting(256, "units of a layer in each direction", 1, MOST_UNITS)
    embedding: int = setting(128, "units of a letter", 1, MOST_UNITS)
    frames: int = setting(
        2,
        "frames that a letter becomes, so that phones find room (Rao et al. 2015 repeat letters; "
        "here the last layer says several frames at once, which costs less)",
        1,
        MOST_FRAMES,
    )
    dropout: float = setting(0.3, "of embeddings and of what each layer puts out", 0, below=1)

    def __post_init__(self) -> None:
        check(self, "g2p")


class LettersToPhones(nn.Module):
    """Layers that each say what they hear so far, and the next of them hears it.

    Every layer is trained by CTC and all but the last tell the next what they take the phones for
    (self-conditioned CTC, Nozaki & Komatsu 2021), so that phones can depend on their neighbours,
    which CTC alone does not know.
    """

    def __init__(self, config: NetConfig, n_letters: int, n_labels: int) -> None:
        super().__init__()
        self.config, self.n_labels = config, n_labels
        self.embedding = nn.Embedding(n_letters, config.embedding)
        self.dropout = Dropout(config.dropout)
        layer = RecurrentConfig(
            cell=config.cell, layers=1, hidden=config.hidden, dropout=config.dropout
        )
        self.layers = nn.ModuleList()
        size = config.embedding
        for _ in range(config.layers):
            self.layers.append(RecurrentStack(layer, size))
            size = 2 * config.hidden
        self.output = nn.Linear(size, config.frames * n_labels)
        self.heard = nn.Linear(config.frames * n_labels, size, bias=False)

    def forward(self, letters: Tensor, lens: Tensor) -> list[Tensor]:
        """letters (B, L) with lens (B,) -> log-probabilities (B, frames L, V) of each layer.

        Outside of training of the last layer alone.
        """
        x, said = self.dropout(self.embedding(letters)), []
        for depth, layer in enumerate(self.layers):
            x, _ = layer(x, lens)
            is_last = depth == len(self.layers) - 1
            # (B, L, frames V) -> (B, L, frames, V), in float32 whatever the layers compute in.
            scores = self.output(x).float().unflatten(2, (-1, self.n_labels))
            log_probs = scores.log_softmax(dim=3)
            if is_last or self.training:
                said.append(log_probs.flatten(1, 2))
            if not is_last:
                x = x + self.heard(log_probs.exp().flatten(2))
        return said
