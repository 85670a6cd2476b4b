"""Waveforms to log-mel; the one owner of the arithmetic between samples, frames and seconds.

The way of an utterance: waveform -> log-mel -> normalised -> (augmented) -> deltas -> stacked.
The first two steps are done once an utterance (`LogMel`, `asr.audio.normalize`), the last two on
padded batches (`assemble`), because SpecAugment has its place between them. Every step treats an
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

NORMALIZATIONS = ("utterance", "speaker", "global", "online", "none")
#: Those that are, or begin, by what train is like: a model carries it.
BY_TRAIN = ("global", "online")
# Power of a full-scale sine is ~1; digital silence must not become -inf.
LOG_FLOOR = 1e-10
# A constant bin (digital silence, band-limited audio) has no spread to divide by.
LEAST_VARIANCE = 1e-4
DELTA_WINDOW = 5
#: Settings that models and runs from before there was a choice lack, and what they did.
ONCE = {"ignore_silence": False}
NEPER_PER_DB = math.log(10) / 10
#: A frame is speech where its mean over log-mel, in which hiss, hum and vowels count alike, is at
#: most this far below the utterance's loudest. Of so762's frames of speech 7 in 8 are, of its
#: pauses 1 in 5.
SPEECH_RANGE_DB, PEAK_FRAMES = 20.0, 11
#: What is quieter is digital silence: 16-bit noise of one bit, at -98 dB, has -71 dB in each bin.
DIGITAL_SILENCE_DB = -66.0
#: Background, such as a fan's, is a second that varies by less than this (speech by twice as much
#: or more), so far below the loudest; or anything as steady, if all of it is no louder than this.
STEADY_DB, STEADY_FRAMES, BELOW_DB, BACKGROUND_DB = 1.5, 100, 10.0, -20.0
#: Normalised log-mel ends so far below the speech's mean, in its standard deviations: there zeros,
#: dither and a quiet room sound alike.
FLOOR = 3.0


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
        "utterance",
        "over what bands get mean 0 and variance 1; online: over what was heard until then",
        choices=NORMALIZATIONS,
    )
    deltas: int = setting(0, "differences over time added to each band, and theirs", 0, 2)
    stack: int = setting(3, "neighbouring frames joined to one that the model sees", 1, 64)
    ignore_silence: bool = setting(
        True, "normalise by speech alone, with a floor below it; else by all frames"
    )

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
    def hop_s(self) -> float:
        """Seconds from one window to the next."""
        return self.hop_length / self.sample_rate

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
    return FrameClock(config.hop_s, config.stack * subsampling)


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


def mask_outside(x: torch.Tensor, first: torch.Tensor, lens: torch.Tensor) -> torch.Tensor:
    """Zero x (B, T, ...), whose frames begin at ``first`` (B,), before 0 and from lens (B,) on."""
    frames = torch.arange(x.shape[1], device=x.device) + first[:, None]
    inside = (frames >= 0) & (frames < lens[:, None])
    return x * inside.reshape(*inside.shape, *[1] * (x.dim() - 2)).to(x.dtype)


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation of each mel bin, both (n_mels,) float32."""

    mean: torch.Tensor
    std: torch.Tensor


def relative_levels(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of log-mel (T, n_mels): the loudest, and each frame's level below it, (T,), both in dB.

    A frame's level is its mean over log-mel; the loudest is the highest of the levels averaged
    over ``PEAK_FRAMES``.
    """
    levels = features.mean(1) / NEPER_PER_DB
    smooth = torch.nn.functional.avg_pool1d(
        levels[None], PEAK_FRAMES, 1, PEAK_FRAMES // 2, count_include_pad=False
    )
    loudest = smooth.max()
    return loudest, levels - loudest


def steady(features: torch.Tensor) -> torch.Tensor:
    """Which frames of log-mel (T, n_mels) lie in a stretch of steady background: (T,) bool."""
    if len(features) < STEADY_FRAMES:
        return torch.zeros(len(features), dtype=torch.bool)
    _, levels = relative_levels(features)
    powers = torch.stack([levels, levels.square()]).double()
    mean, square = torch.nn.functional.avg_pool1d(powers, STEADY_FRAMES, 1)
    found = (square - mean.square() < STEADY_DB**2) & (mean < -BELOW_DB)
    around = torch.nn.functional.pad(found.float(), (STEADY_FRAMES - 1, STEADY_FRAMES - 1))
    return torch.nn.functional.max_pool1d(around[None], STEADY_FRAMES, 1)[0] > 0


def speech(features: torch.Tensor) -> torch.Tensor:
    """Which frames of log-mel (T, n_mels) are loud enough to be speech: (T,) bool, perhaps none.

    Silence that is added to an utterance is not among them, nor does it change which are.
    """
    loudest, levels = relative_levels(features)
    least = (DIGITAL_SILENCE_DB - loudest).clamp_min(-SPEECH_RANGE_DB)
    found = (levels >= least) & ~steady(features)
    spread = levels[found].std(correction=0) if found.any() else 0.0
    is_background = loudest < BACKGROUND_DB and spread < STEADY_DB
    return torch.zeros_like(found) if is_background else found


def levels_db(features: torch.Tensor, config: FeatureConfig, factor: int) -> torch.Tensor:
    """Power in dB relative to full scale of each ``factor`` frames of log-mel (T, n_mels).

    (ceil(T / factor),), as the samples' mean square: by Parseval's theorem the spectrum of a frame
    has half of n_fft times the sum of the squared window times that.
    """
    window = torch.hann_window(config.win_length).square().sum()
    power = features.exp().sum(1) / (config.n_fft / 2 * window)
    groups = torch.nn.functional.pad(power, (0, -len(power) % factor), value=torch.nan)
    return 10 * groups.reshape(-1, factor).nanmean(1).log10()


def moments(features: torch.Tensor, config: FeatureConfig) -> torch.Tensor:
    """Of log-mel (T, n_mels): the number of frames that count, and the sums over them of the
    values and of their squares, (3, n_mels) float64.
    """
    if config.ignore_silence:
        features = features[speech(features)]
    exact = features.double()
    return torch.stack([torch.ones_like(exact).sum(0), exact.sum(0), exact.square().sum(0)])


def statistics_of(sums: torch.Tensor) -> Statistics:
    """Mean and standard deviation from `moments` (3, n_mels), or their sum over utterances.

    Where no frame counts they are 0 and 1, far above any silence.
    """
    n_frames, total, squares = sums
    if not n_frames.all():
        return Statistics(torch.zeros(len(total)), torch.ones(len(total)))
    mean = total / n_frames
    variance = (squares / n_frames - mean.square()).clamp_min(LEAST_VARIANCE)
    return Statistics(mean.float(), variance.sqrt().float())


def statistics(features: Iterable[torch.Tensor], config: FeatureConfig) -> Statistics:
    """Mean and standard deviation over the frames of log-mel matrices (T, n_mels) that count.

    Raises:
        InputError: there is no matrix at all.
    """
    sums = [moments(matrix, config) for matrix in features]
    if not sums:
        raise InputError("feature statistics: there is no utterance to take them from")
    return statistics_of(torch.stack(sums).sum(0))


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
