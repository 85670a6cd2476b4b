"""The acoustic model: features in, label log-probabilities out, in training and in use alike."""

from __future__ import annotations

import torch
from torch import nn

from asr.models.recurrent import RecurrentConfig, RecurrentStack


class AcousticModel(nn.Module):
    """A recurrent stack and a softmax over V labels (Graves et al. 2006 for CTC; blank is 0)."""

    def __init__(self, config: RecurrentConfig, n_features: int, n_labels: int) -> None:
        super().__init__()
        self.stack = RecurrentStack(config, n_features)
        self.output = nn.Linear(self.stack.size, n_labels)

    def forward(
        self, features: torch.Tensor, lens: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """features (B, T, F), lens (B,) frames -> log-probabilities (B, T', V), lengths (B,)."""
        x, lens = self.stack(features, lens)
        # In float32 even where the layers before compute in bfloat16.
        return self.output(x).float().log_softmax(dim=2), lens
