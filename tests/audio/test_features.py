"""Frame arithmetic, equality with librosa, and independence of the batch."""

import librosa
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from asr.audio.features import (
    LOG_FLOOR,
    FeatureConfig,
    LogMel,
    add_deltas,
    assemble,
    frame_clock,
    stack_frames,
    statistics,
)
from asr.audio.normalize import normalize
from asr.errors import InputError


def noise(n_samples, seed=0):
    rng = np.random.default_rng(seed)
    return (0.1 * rng.standard_normal(n_samples)).astype(np.float32)


@pytest.mark.parametrize("n_samples", [1, 159, 160, 4000, 16001])
@pytest.mark.parametrize("n_mels", [40, 80])
def test_log_mel_equals_librosa(n_samples, n_mels):
    config = FeatureConfig(n_mels=n_mels)
    waveform = noise(n_samples)
    ours, lens = LogMel(config)(torch.from_numpy(waveform)[None], torch.tensor([n_samples]))
    power = librosa.feature.melspectrogram(
        y=waveform,
        sr=config.sample_rate,
        n_fft=config.n_fft,
        hop_length=config.hop_length,
        win_length=config.win_length,
        n_mels=n_mels,
        fmin=config.min_hz,
        fmax=config.max_hz,
        htk=True,
        norm=None,
        center=True,
        pad_mode="constant",
    )
    theirs = np.log(np.maximum(power, LOG_FLOOR)).T
    assert int(lens[0]) == n_samples // config.hop_length + 1 == len(theirs)
    np.testing.assert_allclose(ours[0].numpy(), theirs, atol=2e-3)


def test_log_mel_does_not_depend_on_the_batch():
    log_mel = LogMel(FeatureConfig())
    waveforms = [noise(n, seed) for seed, n in enumerate([5000, 16000, 9999])]
    lens = torch.tensor([len(w) for w in waveforms])
    padded = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(w) for w in waveforms], True)
    together, frames = log_mel(padded, lens)
    for i, waveform in enumerate(waveforms):
        alone, _ = log_mel(torch.from_numpy(waveform)[None], lens[i : i + 1])
        torch.testing.assert_close(together[i, : frames[i]], alone[0], atol=1e-5, rtol=1e-5)
        assert (together[i, frames[i] :] == 0).all()


@given(
    lens=st.lists(st.integers(1, 20), min_size=1, max_size=4),
    stack=st.integers(1, 4),
    deltas=st.integers(0, 2),
)
def test_assembling_does_not_depend_on_the_batch(lens, stack, deltas):
    config = FeatureConfig(n_mels=3, stack=stack, deltas=deltas)
    generator = torch.Generator().manual_seed(0)
    xs = [torch.randn(n, 3, generator=generator) for n in lens]
    padded = torch.nn.utils.rnn.pad_sequence(xs, True)
    together, frames = assemble(padded, torch.tensor(lens), config)
    assert together.shape[2] == config.size
    for i, x in enumerate(xs):
        alone, n_frames = assemble(x[None], torch.tensor([len(x)]), config)
        assert int(frames[i]) == int(n_frames[0]) == -(-len(x) // stack)
        torch.testing.assert_close(together[i, : frames[i]], alone[0])


def test_stacking_repeats_the_last_frame():
    x = torch.arange(1.0, 6.0).reshape(1, 5, 1)
    stacked, lens = stack_frames(x, torch.tensor([5]), 3)
    assert stacked[0].tolist() == [[1, 2, 3], [4, 5, 5]]
    assert lens.tolist() == [2]


def test_deltas_of_a_slope_are_its_steepness():
    x = (2.0 * torch.arange(10)).reshape(1, 10, 1)
    deltas = add_deltas(x, torch.tensor([10]), 1)[0, :, 1]
    assert deltas[2:-2].tolist() == pytest.approx([2.0] * 6)


def test_frame_times():
    clock = frame_clock(FeatureConfig(stack=3), subsampling=2)
    assert clock.shift_s == pytest.approx(0.06)
    # Output frame 1 covers log-mel frames 6..11, centred on 60..110 ms.
    assert clock.centre_s(1) == pytest.approx(0.085)
    assert clock.start_s(1) == pytest.approx(0.055)
    assert clock.start_s(2) == pytest.approx(0.115)
    assert clock.start_s(0) == 0


def test_a_click_is_where_the_clock_says():
    config = FeatureConfig(stack=1)
    waveform = np.zeros(16000, np.float32)
    waveform[8000] = 1.0
    features, _ = LogMel(config)(torch.from_numpy(waveform)[None], torch.tensor([16000]))
    loudest = int(features[0].sum(1).argmax())
    clock = frame_clock(config)
    assert clock.start_s(loudest) <= 0.5 < clock.start_s(loudest + 1)
    assert clock.centre_s(loudest) == pytest.approx(0.5)


def test_normalised_features_have_mean_0_and_variance_1():
    xs = [torch.randn(50, 4, generator=torch.Generator().manual_seed(i)) * 3 + 7 for i in range(3)]
    config = FeatureConfig(ignore_silence=False)
    stats = statistics(xs, config)
    together = torch.cat([normalize(x, stats, config) for x in xs])
    torch.testing.assert_close(together.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(together.std(0, correction=0), torch.ones(4), atol=1e-4, rtol=0)


@pytest.mark.parametrize("ignore_silence", [True, False])
def test_silence_stays_finite(ignore_silence):
    config = FeatureConfig(ignore_silence=ignore_silence)
    features, _ = LogMel(config)(torch.zeros(1, 1600), torch.tensor([1600]))
    stats = statistics([features[0]], config)
    assert torch.isfinite(normalize(features[0], stats, config)).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"normalize": "batch"},
        {"win_length": 600},
        {"max_hz": 9000.0},
        {"deltas": 3},
        {"stack": 0},
        {"min_hz": -1.0},
    ],
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        FeatureConfig(**wrong)
