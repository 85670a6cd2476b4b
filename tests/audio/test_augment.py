import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from asr.audio.augment import (
    AugmentConfig,
    WaveformAugment,
    add_noise,
    gain,
    reverberate,
    spec_augment,
    warp_frequencies,
)
from asr.audio.features import FeatureConfig, LogMel, moments, statistics_of
from asr.audio.resample import change_speed
from asr.data.examples import Example, collate
from asr.data.matrices import extract
from asr.errors import InputError
from asr.types import Utterance

CONFIG = AugmentConfig(freq_masks=1, freq_width=4, time_masks=1, time_width=10, time_share=0.5)


def seeded(seed, n):
    return [torch.Generator().manual_seed(100 * seed + i) for i in range(n)]


def test_masks_are_bands_within_their_limits():
    lens = torch.tensor([40, 8])
    for seed in range(50):
        x = torch.ones(2, 40, 12)
        masked = spec_augment(x, lens, CONFIG, seeded(seed, 2)) == 0
        for i, most in enumerate((10, 4)):
            bins, frames = masked[i].all(0), masked[i].all(1)
            assert bins.sum() <= 4
            assert frames.sum() <= most
            assert (masked[i] == (bins[None, :] | frames[:, None])).all()
            for band in (bins, frames):
                where = band.nonzero().flatten().tolist()
                assert where == list(range(where[0], where[-1] + 1)) if where else True
            assert not frames[int(lens[i]) :].any()


def test_same_generator_same_masks_and_each_utterance_its_own():
    x = torch.randn(6, 50, 20, generator=torch.Generator().manual_seed(0))
    lens = torch.full((6,), 50)
    a, b = (spec_augment(x, lens, CONFIG, seeded(3, 6)) for _ in range(2))
    assert torch.equal(a, b)
    assert len({tuple((row == 0).flatten().tolist()) for row in a}) > 1


def test_no_masks_no_change():
    x = torch.randn(2, 9, 4)
    none = AugmentConfig(freq_masks=0, time_masks=0)
    assert torch.equal(spec_augment(x, torch.tensor([9, 5]), none, seeded(0, 2)), x)


def sine(hertz, n):
    return torch.sin(2 * torch.pi * hertz * torch.arange(n) / 16_000)


def log_mel_of_sine(hertz):
    return LogMel(FeatureConfig())(sine(hertz, 16_000).numpy())


@pytest.mark.parametrize("factor", [0.85, 0.9, 1.0, 1.1, 1.15])
@pytest.mark.parametrize("hertz", [400, 1000, 2500, 3500])
def test_a_warped_tone_is_a_tone_so_much_higher(hertz, factor):
    warped = warp_frequencies(log_mel_of_sine(hertz), factor, FeatureConfig())
    expected = log_mel_of_sine(hertz * factor)
    assert abs(int(warped[50].argmax()) - int(expected[50].argmax())) <= 1


def test_warping_keeps_the_highest_frequency_and_by_one_everything():
    x = np.random.default_rng(0).standard_normal((7, 80)).astype(np.float32)
    assert np.allclose(warp_frequencies(x, 1.0, FeatureConfig()), x, atol=1e-3)
    ramp = np.arange(80, dtype=np.float32)[None]
    for factor in (0.8, 1.2):
        warped = warp_frequencies(ramp, factor, FeatureConfig())[0]
        assert (np.diff(warped) >= 0).all()
        assert warped[-1] == pytest.approx(79, abs=0.5)


def test_each_epoch_draws_a_vocal_tract_of_its_own():
    config = FeatureConfig()
    x = log_mel_of_sine(1000)
    utterances = [Utterance(i, Path("drawn"), "", 1.0) for i in ("a", "b")]
    examples = [Example(u, x, (1,), None, statistics_of(moments(x, config))) for u in utterances]
    augment = WaveformAugment(AugmentConfig(freq_masks=0, time_masks=0, vtlp=0.1), config)
    first, again, later = (
        collate(examples, config, False, augment, 1, epoch).features for epoch in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, later)
    assert not torch.equal(first[0], first[1])


@pytest.mark.parametrize("speed", [0.9, 1.1, 0.75, 1.0])
def test_speed_changes_length_and_pitch(speed):
    changed = change_speed(sine(800, 16_000).numpy(), speed)
    assert len(changed) == math.ceil(16_000 / speed)
    strongest = np.abs(np.fft.rfft(changed)).argmax() * 16_000 / len(changed)
    assert abs(strongest - 800 * speed) < 2


@pytest.mark.parametrize("n_noise", [100, 7_000, 50_000])
def test_noise_has_the_wanted_ratio_and_is_looped(n_noise):
    speech = 0.1 * sine(500, 16_000)
    noise = torch.randn(n_noise, generator=torch.Generator().manual_seed(0))
    added = add_noise(speech, noise, 6.0) - speech
    ratio_db = 10 * torch.log10(speech.square().mean() / added.square().mean())
    assert abs(ratio_db - 6) < 0.5
    if n_noise < 16_000:
        torch.testing.assert_close(added[:n_noise], added[n_noise : 2 * n_noise], atol=1e-6, rtol=0)


def test_silent_noise_changes_nothing_much():
    speech = sine(500, 1_600)
    assert torch.isfinite(add_noise(speech, torch.zeros(10), 0.0)).all()
    assert torch.isfinite(reverberate(torch.zeros(1_600), torch.ones(3))).all()


def test_a_room_keeps_times_length_and_power():
    click = torch.zeros(1_000)
    click[400] = 1.0
    response = torch.zeros(300)
    response[50], response[150] = 1.0, 0.5
    heard = reverberate(click, response)
    assert heard.abs().argmax() == 400
    assert abs(heard[500] / heard[400] - 0.5) < 1e-5
    assert len(heard) == 1_000
    assert abs(heard.norm() - 1) < 1e-5


@pytest.fixture
def folder(tmp_path):
    """Noise at another rate, shorter than any utterance, below a folder of its own."""
    (tmp_path / "deep").mkdir()
    noise = np.random.default_rng(0).standard_normal(900) * 0.1
    soundfile.write(tmp_path / "deep" / "hiss.wav", noise, 8_000)
    (tmp_path / "README").write_text("not audio")
    return tmp_path


def test_waveforms_are_augmented_by_seed_and_keep_their_frames(tones, folder):
    audio = next((tones / "DEV").rglob("*.WAV"))
    said = Utterance("u", audio, "s", 0.5)
    features = FeatureConfig()
    plain = extract([said], features, {}, speed=0.9)["u"].features
    config = AugmentConfig(
        noise_dir=str(folder), noise_prob=0.5, reverb_dir=str(folder), reverb_prob=0.5
    )
    augment = WaveformAugment(config, features)
    heard = [augment.features(said, 0.9, torch.Generator().manual_seed(seed)) for seed in range(40)]
    touched = [x for x in heard if x is not None]
    assert 20 <= len(touched) < 40
    assert all(x.shape == plain.shape and np.isfinite(x).all() for x in touched)
    assert all(not np.allclose(x, plain, atol=0.1) for x in touched)
    again = augment.features(said, 0.9, torch.Generator().manual_seed(0))
    assert (again is None) == (heard[0] is None)
    assert again is None or np.array_equal(again, heard[0])


def test_a_noise_that_breaks_off_is_left_out_and_told_once(tones, tmp_path, caplog):
    noise = tmp_path / "hiss.flac"
    rng = np.random.default_rng(0)
    soundfile.write(noise, rng.standard_normal(400_000) * 0.1, 16_000, subtype="PCM_16")
    data = bytearray(noise.read_bytes())
    data[len(data) // 4 : 3 * len(data) // 4] = bytes(len(data) // 2)
    noise.write_bytes(data)
    said = Utterance("u", next((tones / "DEV").rglob("*.WAV")), "s", 0.5)
    features = FeatureConfig()
    plain = extract([said], features, {})["u"].features
    augment = WaveformAugment(AugmentConfig(noise_dir=str(tmp_path), noise_prob=1.0), features)
    heard = [augment.features(said, 1.0, torch.Generator().manual_seed(seed)) for seed in range(20)]
    same = [x for x in heard if np.allclose(x, plain, atol=1e-4)]
    assert 0 < len(same) < 20
    assert 0 < sum("heard without it" in line for line in caplog.messages) < len(same)


def test_folders_without_audio_are_told(folder):
    features = FeatureConfig()
    with pytest.raises(InputError, match=r"augment\.noise_dir=.*nowhere: no such folder"):
        WaveformAugment(AugmentConfig(noise_dir=str(folder / "nowhere")), features)
    (folder / "empty").mkdir()
    with pytest.raises(InputError, match=r"augment\.reverb_dir=.*empty: no audio"):
        WaveformAugment(AugmentConfig(reverb_dir=str(folder / "empty")), features)
    (folder / "broken.wav").write_text("no audio at all")
    with pytest.raises(InputError, match=r"broken\.wav"):
        WaveformAugment(AugmentConfig(noise_dir=str(folder)), features)


@pytest.mark.parametrize(
    "wrong",
    [
        {"speeds": ()},
        {"speeds": (1.0, 1.0)},
        {"speeds": (0.1,)},
        {"volume_db": (3.0,)},
        {"noise_snr_db": (20.0, 5.0)},
        {"noise_snr_db": ()},
        {"noise_prob": 1.5},
    ],
)
def test_settings_that_make_no_sense_are_named(wrong):
    with pytest.raises(InputError, match=f"augment.{next(iter(wrong))}"):
        AugmentConfig(**wrong)


def test_volume_is_a_gain_in_decibels():
    config = AugmentConfig(volume_db=(-6.0, 6.0))
    gains = [gain(config, torch.Generator().manual_seed(seed)) for seed in range(200)]
    # 6 dB is twice the amplitude, four times the power.
    assert max(gains) == pytest.approx(math.log(3.98), abs=0.1)
    assert min(gains) == pytest.approx(-math.log(3.98), abs=0.1)
