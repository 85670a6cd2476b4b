"""Training-time augmentation of normalised log-mel features."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from asr.errors import InputError


@dataclass
class AugmentConfig:
    """SpecAugment (Park et al. 2019): ``*_masks`` masks of up to ``*_width`` bins or frames each.

    A time mask never covers more than ``time_share`` of an utterance.
    """

    freq_masks: int = 2
    freq_width: int = 15
    time_masks: int = 2
    time_width: int = 40
    time_share: float = 0.2

    def __post_init__(self) -> None:
        for name in ("freq_masks", "freq_width", "time_masks", "time_width"):
            if getattr(self, name) < 0:
                raise InputError(f"augment.{name}={getattr(self, name)}: expected 0 or more")
        if not 0 <= self.time_share <= 1:
            raise InputError(f"augment.time_share={self.time_share}: expected 0 to 1")


def spec_augment(
    x: torch.Tensor, lens: torch.Tensor, config: AugmentConfig, generator: torch.Generator
) -> torch.Tensor:
    """Mask x (B, T, F), padded beyond lens (B,), with zeros: the mean of normalised features.

    Park et al. 2019, section 2, without time warping. Each utterance draws its own masks.
    """
    n_batch, n_frames, n_bins = x.shape

    def masked(n_masks: int, widest: torch.Tensor, extent: torch.Tensor, size: int) -> torch.Tensor:
        width = torch.rand(n_batch, n_masks, generator=generator) * (widest[:, None] + 1)
        width = width.floor().minimum(extent[:, None])
        start = torch.rand(n_batch, n_masks, generator=generator) * (extent[:, None] - width + 1)
        start = start.floor()[:, :, None]
        position = torch.arange(size)
        inside = (position >= start) & (position < start + width[:, :, None])
        return inside.any(1)  # (B, size)

    bins = torch.full((n_batch,), float(n_bins))
    in_freq = masked(config.freq_masks, bins.clamp(max=config.freq_width), bins, n_bins)
    frames = lens.float()
    longest = (frames * config.time_share).clamp(max=config.time_width).floor()
    in_time = masked(config.time_masks, longest, frames, n_frames)
    return x.masked_fill(in_freq[:, None, :] | in_time[:, :, None], 0.0)
