"""Waveforms to log-mel; the one owner of the arithmetic between samples, frames and seconds.

The way of an utterance: waveform -> log-mel -> normalised -> (augmented) -> deltas -> stacked.
The first two steps are done once an utterance (`LogMel`, `normalize`), the last two on padded
batches (`assemble`), because SpecAugment has its place between them. Every step treats an
utterance in a batch exactly as it treats it alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torchaudio

from asr.errors import InputError
from asr.system.settings import check, setting

NORMALIZATIONS = ("utterance", "speaker", "global", "none")
# Power of a full-scale sine is ~1; digital silence must not become -inf.
LOG_FLOOR = 1e-10
# A constant bin (digital silence, band-limited audio) has no spread to divide by.
LEAST_VARIANCE = 1e-4
DELTA_WINDOW = 5


@dataclass
class FeatureConfig:
    """Log-mel settings; lengths are samples at ``sample_rate`` (25 ms windows every 10 ms)."""

    sample_rate: int = setting(16_000, "samples a second; other audio is resampled", 1, 1_000_000)
    n_fft: int = setting(512, "samples of the Fourier transform", 2, 16_384)
    win_length: int = setting(400, "samples of a window", 1, 16_384)
    hop_length: int = setting(160, "samples from one window to the next", 1, 1_000_000)
    n_mels: int = setting(80, "bands of a frame", 1, 512)
    min_hz: float = setting(20.0, "where the lowest band begins", 0, 500_000)
    max_hz: float = setting(8_000.0, "where the highest band ends", 0, 500_000)
    normalize: str = setting(
        "utterance", "over what bands get mean 0 and variance 1", choices=NORMALIZATIONS
    )
    deltas: int = setting(0, "differences over time added to each band, and theirs", 0, 2)
    stack: int = setting(3, "neighbouring frames joined to one that the model sees", 1, 64)

    def __post_init__(self) -> None:
        check(self, "features")
        if not self.win_length <= self.n_fft:
            raise InputError(
                f"features.win_length={self.win_length} must lie in 1..n_fft={self.n_fft}"
            )
        if not self.min_hz < self.max_hz <= self.sample_rate / 2:
            raise InputError(
                f"features: expected 0 <= min_hz < max_hz <= {self.sample_rate / 2:g} "
                f"(half the sample rate), found {self.min_hz:g} and {self.max_hz:g}"
            )

    @property
    def size(self) -> int:
        """F of the assembled features that the model sees."""
        return self.n_mels * (1 + self.deltas) * self.stack


@dataclass(frozen=True)
class FrameClock:
    """Frames to seconds and back for frames that each cover ``factor`` hops.

    Log-mel frame k is centred on sample k * hop and stands for the hop around its centre. An
    output frame t covers the log-mel frames t * factor ... t * factor + factor - 1, so it spans
    the seconds [(t * factor - 1/2) hop_s, ((t + 1) * factor - 1/2) hop_s). In the frames of models
    from elsewhere all that is ``offset_s`` later.
    """

    hop_s: float
    factor: int
    offset_s: float = 0.0

    @property
    def shift_s(self) -> float:
        """Seconds from one frame to the next."""
        return self.hop_s * self.factor

    def start_s(self, frame: float) -> float:
        """Where ``frame`` begins; also where ``frame - 1`` ends."""
        return max(0.0, (frame * self.factor - 0.5) * self.hop_s + self.offset_s)

    def centre_s(self, frame: int) -> float:
        """The middle of what ``frame`` covers."""
        return (frame * self.factor + (self.factor - 1) / 2) * self.hop_s + self.offset_s


def frame_clock(config: FeatureConfig, subsampling: int = 1) -> FrameClock:
    """The clock of the frames that come out of a model that subsamples by ``subsampling``."""
    return FrameClock(config.hop_length / config.sample_rate, config.stack * subsampling)


class LogMel(torch.nn.Module):
    """Natural logarithm of the mel power spectrum; frames centred on multiples of the hop.

    Equal to ``librosa.feature.melspectrogram(center=True, htk=True, norm=None, power=2)`` with
    zeros beyond both ends, floored at ``LOG_FLOOR``: the zeros make an utterance's features
    independent of the padding of its batch.
    """

    def __init__(self, config: FeatureConfig) -> None:
        super().__init__()
        self.config = config
        self.mel = torchaudio.transforms.MelSpectrogram(
            sample_rate=config.sample_rate,
            n_fft=config.n_fft,
            win_length=config.win_length,
            hop_length=config.hop_length,
            f_min=config.min_hz,
            f_max=config.max_hz,
            n_mels=config.n_mels,
            pad_mode="constant",
        )

    def n_frames(self, n_samples: torch.Tensor) -> torch.Tensor:
        """Sample counts (B,) -> frame counts (B,): one frame for every hop begun, and frame 0."""
        return n_samples // self.config.hop_length + 1

    @torch.inference_mode()
    def forward(
        self, waveforms: torch.Tensor, n_samples: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Waveforms (B, N) float32 in [-1, 1], zero beyond n_samples (B,) int64.

        Returns log-mel (B, T, n_mels), zero beyond each length, and lengths (B,) in frames.
        """
        power = self.mel(waveforms).transpose(1, 2)  # (B, n_mels, T) -> (B, T, n_mels)
        lens = self.n_frames(n_samples)
        return mask_padding(power.clamp_min(LOG_FLOOR).log(), lens), lens


def mask_padding(x: torch.Tensor, lens: torch.Tensor) -> torch.Tensor:
    """Zero x (B, T, ...) beyond lens (B,)."""
    inside = torch.arange(x.shape[1], device=x.device) < lens[:, None]  # (B, T)
    return x * inside.reshape(*inside.shape, *[1] * (x.dim() - 2)).to(x.dtype)


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation of each mel bin, both (n_mels,) float32."""

    mean: torch.Tensor
    std: torch.Tensor


def moments(features: torch.Tensor) -> torch.Tensor:
    """Sums over the frames of log-mel (T, n_mels), and of their squares: (2, n_mels) float64."""
    exact = features.double()
    return torch.stack([exact.sum(0), exact.square().sum(0)])


def statistics_of(sums: torch.Tensor, n_frames: int) -> Statistics:
    """Mean and standard deviation from `moments` (2, n_mels) of ``n_frames`` frames.

    Raises:
        InputError: there is no frame at all.
    """
    if n_frames == 0:
        raise InputError("feature statistics: there is no frame to take them from")
    mean, square = sums / n_frames
    variance = (square - mean.square()).clamp_min(LEAST_VARIANCE)
    return Statistics(mean.float(), variance.sqrt().float())


def statistics(features: Iterable[torch.Tensor]) -> Statistics:
    """Mean and standard deviation over all frames of log-mel matrices (T, n_mels).

    Raises:
        InputError: there is no frame at all.
    """
    sums, n_frames = torch.zeros(2, 1, dtype=torch.float64), 0
    for matrix in features:
        sums = sums + moments(matrix)
        n_frames += len(matrix)
    return statistics_of(sums, n_frames)


def normalize(features: torch.Tensor, stats: Statistics) -> torch.Tensor:
    """Shift and scale log-mel (T, n_mels) to zero mean and unit variance under ``stats``."""
    return (features - stats.mean) / stats.std


def repeat_last(x: torch.Tensor, lens: torch.Tensor, n_frames: int, first: int = 0) -> torch.Tensor:
    """Frames first ... first + n_frames - 1 of x (B, T, F), its edges repeated outside it."""
    wanted = torch.arange(first, first + n_frames, device=x.device)
    index = wanted.clamp(min=0).minimum(lens[:, None] - 1).clamp(min=0)  # (B, n_frames)
    return x.gather(1, index[:, :, None].expand(-1, -1, x.shape[2]))


def stack_frames(
    x: torch.Tensor, lens: torch.Tensor, factor: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Join each ``factor`` neighbouring frames: (B, T, F) -> (B, ceil(T / factor), F * factor).

    A last group that is not full is filled with the utterance's own last frame.
    """
    if factor == 1:
        return x, lens
    n_groups = math.ceil(x.shape[1] / factor)
    filled = repeat_last(x, lens, n_groups * factor)
    stacked = filled.reshape(len(x), n_groups, factor * x.shape[2])
    lens = (lens + factor - 1).div(factor, rounding_mode="floor")
    return mask_padding(stacked, lens), lens


def add_deltas(x: torch.Tensor, lens: torch.Tensor, order: int) -> torch.Tensor:
    """Append ``order`` derivatives over five frames: (B, T, F) -> (B, T, F * (1 + order)).

    The regression formula of the HTK book (eq. 5.16), as torchaudio's compute_deltas.
    """
    parts = [x]
    margin = DELTA_WINDOW // 2
    for _ in range(order):
        # Own edge frames instead of the batch's padding, so that the batch has no influence.
        around = repeat_last(parts[-1], lens, x.shape[1] + 2 * margin, first=-margin)
        delta = torchaudio.functional.compute_deltas(around.transpose(1, 2), DELTA_WINDOW)
        parts.append(mask_padding(delta.transpose(1, 2)[:, margin:-margin], lens))
    return torch.cat(parts, dim=2)


def assemble(
    x: torch.Tensor, lens: torch.Tensor, config: FeatureConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalised log-mel (B, T, n_mels) -> the model's (B, ceil(T / stack), config.size)."""
    return stack_frames(add_deltas(x, lens, config.deltas), lens, config.stack)
