"""Training-time augmentation: of waveforms (speed, noise, reverberation) and of log-mel features.

All that is drawn comes from explicit generators, one an utterance: the same utterance in the same
epoch is changed alike, whatever batch or process it falls into.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from asr.audio.features import NEPER_PER_DB, FeatureConfig, LogMel, hertz, mels
from asr.audio.read import audio_duration_s, load_audio
from asr.audio.resample import FASTEST, MAX_RATIO, SLOWEST, change_speed
from asr.audio.sources import SUFFIXES
from asr.errors import InputError
from asr.system.settings import check, setting
from asr.types import Utterance

# A training keeps what is told here in its own log.
log = logging.getLogger("asr.train")

#: Fourier transforms are fast where their length has many factors; the next power of two is slower
#: than the next multiple of this, for it is up to twice as long.
FFT_STEP = 4096
QUIETEST = 1e-6
#: Below it lie all formants that tell vowels apart: there `warp_frequencies` scales as told, above
#: it so that the highest frequency stays.
WARPED_HZ = 4800.0


@dataclass
class AugmentConfig:
    """SpecAugment (Park et al. 2019), and what is done to waveforms."""

    freq_masks: int = setting(2, "masks over neighbouring bands", 0, 100)
    freq_width: int = setting(15, "bands that a mask covers at most", 0, 10_000)
    time_masks: int = setting(2, "masks over neighbouring frames", 0, 1000)
    time_width: int = setting(40, "frames that a mask covers at most", 0, 1_000_000)
    time_share: float = setting(0.2, "share of an utterance that a time mask covers at most", 0, 1)
    speeds: tuple[float, ...] = setting(
        (1.0,),
        "each epoch an utterance is heard at one of these speeds, tempo and pitch alike (Ko et al. "
        "2015: 0.9, 1.0 and 1.1)",
        SLOWEST,
        FASTEST,
    )
    vtlp: float = setting(
        0.0,
        "each epoch an utterance's frequencies are scaled by a factor from 1 - vtlp to 1 + vtlp, "
        "as by a longer or shorter vocal tract (Jaitly & Hinton 2013: 0.1)",
        0,
        0.5,
    )
    volume_db: tuple[float, ...] = setting(
        (), "[lowest, highest] gain in decibels, empty for none", -100, 100
    )
    noise_dir: str = setting(
        "", "a folder of audio, of which a random stretch of a random file is added"
    )
    noise_snr_db: tuple[float, ...] = setting(
        (5.0, 20.0), "[lowest, highest] signal-to-noise ratio in decibels", -100, 100
    )
    noise_prob: float = setting(0.5, "how often noise is added", 0, 1)
    reverb_dir: str = setting("", "a folder of room impulse responses")
    reverb_prob: float = setting(0.5, "how often an utterance is heard in one of the rooms", 0, 1)

    def __post_init__(self) -> None:
        check(self, "augment")
        speeds = list(self.speeds)
        if not 0 < len(set(speeds)) == len(speeds) <= MAX_RATIO:
            raise InputError(
                f"augment.speeds={speeds}: expected different speeds from {SLOWEST:g} to "
                f"{FASTEST:g}, such as [0.9,1.0,1.1]"
            )
        for name in ("volume_db", "noise_snr_db"):
            bounds = list(getattr(self, name))
            if (bounds or name == "noise_snr_db") and not (
                len(bounds) == 2 and bounds[0] <= bounds[1]
            ):
                raise InputError(f"augment.{name}={bounds}: expected [lowest,highest] in decibels")

    @property
    def wants_waveforms(self) -> bool:
        """Whether something is drawn that cannot be done to features already computed."""
        return bool(self.noise_dir or self.reverb_dir)


def add_noise(waveform: torch.Tensor, noise: torch.Tensor, snr_db: float) -> torch.Tensor:
    """Add ``noise`` (M,), repeated or cut to the waveform's length (N,), at a ratio of powers."""
    n = len(waveform)
    noise = noise.repeat(-(-n // len(noise)))[:n]
    power = waveform.square().mean()
    noise_power = noise.square().mean().clamp_min(QUIETEST**2)
    return waveform + noise * (power / noise_power * 10 ** (-snr_db / 10)).sqrt()


def reverberate(waveform: torch.Tensor, response: torch.Tensor) -> torch.Tensor:
    """Hear the waveform (N,) in a room with the impulse response (M,): same length, same power.

    The response's largest peak, the direct sound, is moved to time 0, so that label times hold.
    """
    response = response[int(response.abs().argmax()) :]
    n = -(-(len(waveform) + len(response)) // FFT_STEP) * FFT_STEP
    heard = torch.fft.irfft(torch.fft.rfft(waveform, n) * torch.fft.rfft(response, n), n)
    heard = heard[: len(waveform)]
    return heard * (waveform.norm() / heard.norm().clamp_min(QUIETEST))


@lru_cache
def audio_folder(folder: str, key: str) -> tuple[tuple[Path, float], ...]:
    """The audio files under ``folder`` and their seconds, sorted; none where it is "".

    ``key`` names it in errors.

    Raises:
        InputError: no such folder, no audio in it, or a file that cannot be read.
    """
    if not folder:
        return ()
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{key}={folder}: no such folder; expected one with audio files")
    paths = sorted(p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not paths:
        raise InputError(
            f"{key}={folder}: no audio in it; expected files ending in {' '.join(SUFFIXES)}"
        )
    return tuple((path, audio_duration_s(path)) for path in paths)


class WaveformAugment:
    """What `AugmentConfig` does to waveforms: features afresh for the utterances that draw it."""

    def __init__(self, config: AugmentConfig, features: FeatureConfig) -> None:
        """Raises InputError where a folder is missing, empty, or holds a file that is no audio."""
        self.config = config
        self.sample_rate = features.sample_rate
        self.log_mel = LogMel(features)
        self.noises = audio_folder(config.noise_dir, "augment.noise_dir")
        self.rooms = audio_folder(config.reverb_dir, "augment.reverb_dir")

    def features(
        self,
        utterance: Utterance,
        speed: float,
        generator: torch.Generator,
        waveform: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32] | None:
        """Log-mel (T, n_mels) of the utterance with what it draws, or None where it draws nothing.

        ``waveform`` (N,) is the utterance at that speed, where it was read already.

        Raises:
            InputError: the utterance cannot be read.
        """
        noisy, reverberant, which, where, level = torch.rand(5, generator=generator).tolist()
        noisy = self.noises and noisy < self.config.noise_prob
        reverberant = self.rooms and reverberant < self.config.reverb_prob
        if not (noisy or reverberant):
            return None
        if waveform is None:
            samples = load_audio(
                utterance.audio, self.sample_rate, utterance.offset_s, utterance.duration_s
            )
            waveform = change_speed(samples, speed)
        heard = torch.from_numpy(waveform)
        if reverberant:
            path, duration_s = _choose(self.rooms, torch.rand(1, generator=generator).item())
            response = self.heard(path, 0.0, duration_s)
            if response is not None:
                heard = reverberate(heard, response)
        if noisy:
            path, duration_s = _choose(self.noises, which)
            wanted_s = len(heard) / self.sample_rate
            # A stretch that fits whole where the file is long enough, else all of the file.
            start_s = where * max(0.0, duration_s - wanted_s)
            noise = self.heard(path, start_s, min(wanted_s, duration_s - start_s))
            low, high = self.config.noise_snr_db
            if noise is not None:
                heard = add_noise(heard, noise, low + level * (high - low))
        return self.log_mel(heard.numpy())

    def heard(self, path: Path, start_s: float, duration_s: float) -> torch.Tensor | None:
        """A stretch of noise or a room's response (M,); None, and told once, from a broken file."""
        try:
            return torch.from_numpy(load_audio(path, self.sample_rate, start_s, duration_s))
        except InputError as error:
            _tell_once(f"{error}; what draws it is heard without it")
            return None


@cache
def _tell_once(line: str) -> None:
    log.warning(line)


def _choose(files: Sequence[tuple[Path, float]], share: float) -> tuple[Path, float]:
    return files[min(int(share * len(files)), len(files) - 1)]


def gain(config: AugmentConfig, generator: torch.Generator) -> float:
    """What a random volume adds to log-mel: the gain in decibels as natural logarithm of power."""
    low, high = config.volume_db
    return NEPER_PER_DB * (low + torch.rand(1, generator=generator).item() * (high - low))


def warp_frequencies(
    x: NDArray[np.float32], factor: float, config: FeatureConfig
) -> NDArray[np.float32]:
    """Log-mel (T, n_mels) of a voice whose formants lie ``factor`` times as high.

    Jaitly & Hinton 2013, section 2, on the bands themselves: each takes the value, interpolated
    between two bands, of the frequency that comes to lie in its middle.
    """
    low, high = mels(np.array([config.min_hz, config.max_hz]))
    top, width = config.sample_rate / 2, (high - low) / (config.n_mels + 1)
    middles = hertz(low + width * np.arange(1, config.n_mels + 1))
    knee = min(WARPED_HZ, 0.9 * top) * min(factor, 1.0)
    source = np.where(
        middles <= knee,
        middles / factor,
        top - (top - knee / factor) / (top - knee) * (top - middles),
    )
    position = ((mels(source) - low) / width - 1).clip(0, config.n_mels - 1)
    below = np.minimum(position.astype(np.int64), max(config.n_mels - 2, 0))
    above = np.minimum(below + 1, config.n_mels - 1)
    share = (position - below).astype(np.float32)
    return x[:, below] * (1 - share) + x[:, above] * share


def spec_augment(
    x: torch.Tensor,
    lens: torch.Tensor,
    config: AugmentConfig,
    generators: Sequence[torch.Generator],
) -> torch.Tensor:
    """Mask x (B, T, F), padded beyond lens (B,), with zeros: the mean of normalised features.

    Park et al. 2019, section 2, without time warping. Each utterance draws its own masks from
    its own generator.
    """
    n_batch, n_frames, n_bins = x.shape
    n_masks = config.freq_masks + config.time_masks
    draws = torch.stack([torch.rand(n_masks, 2, generator=g) for g in generators])

    def masked(
        drawn: torch.Tensor, widest: torch.Tensor, extent: torch.Tensor, size: int
    ) -> torch.Tensor:
        width = (drawn[:, :, 0] * (widest[:, None] + 1)).floor().minimum(extent[:, None])
        start = (drawn[:, :, 1] * (extent[:, None] - width + 1)).floor()[:, :, None]
        position = torch.arange(size)
        inside = (position >= start) & (position < start + width[:, :, None])
        return inside.any(1)  # (B, size)

    bins = torch.full((n_batch,), float(n_bins))
    widest = bins.clamp(max=config.freq_width)
    in_freq = masked(draws[:, : config.freq_masks], widest, bins, n_bins)
    frames = lens.float()
    longest = (frames * config.time_share).clamp(max=config.time_width).floor()
    in_time = masked(draws[:, config.freq_masks :], longest, frames, n_frames)
    return x.masked_fill(in_freq[:, None, :] | in_time[:, :, None], 0.0)
