"""Frame arithmetic, equality with librosa, and independence of the batch."""

import librosa
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchaudio.functional import compute_deltas

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
    ours = LogMel(config)(waveform)
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
    assert len(ours) == n_samples // config.hop_length + 1 == len(theirs)
    np.testing.assert_allclose(ours, theirs, atol=2e-3)


@pytest.mark.parametrize("log_mel", ["librosa", "kaldi"])
@pytest.mark.parametrize("n_samples", [1, 81, 400, 12_345, 400_000])
def test_frames_hear_what_they_hear_in_any_piece(log_mel, n_samples):
    """As a stream computes them, and in blocks of `FRAMES_AT_ONCE`."""
    whole = LogMel(FeatureConfig(log_mel=log_mel))
    waveform = noise(n_samples)
    found = whole(waveform)
    assert len(found) == whole.n_frames(n_samples)
    assert np.isfinite(found).all()
    for first, n in ((0, 1), (len(found) // 2, 1), (len(found) - 1, 1)):
        start = first * whole.config.hop_length - whole.lead
        piece = whole.of(whole.around(waveform, start, whole.n_samples(n)))
        np.testing.assert_allclose(piece, found[first : first + n], atol=1e-5)


@pytest.mark.parametrize("n_samples", [80, 161, 400, 16_000, 33_333])
def test_kaldi_log_mel_equals_kaldi_native_fbank(n_samples):
    knf = pytest.importorskip("kaldi_native_fbank")
    options = knf.FbankOptions()
    options.frame_opts.dither = 0
    options.frame_opts.snip_edges = False
    options.mel_opts.num_bins = 80
    options.mel_opts.high_freq = -400
    fbank = knf.OnlineFbank(options)
    waveform = noise(n_samples)
    fbank.accept_waveform(16_000, waveform.tolist())
    fbank.input_finished()
    theirs = np.stack([fbank.get_frame(i) for i in range(fbank.num_frames_ready)])
    ours = LogMel(FeatureConfig(log_mel="kaldi", max_hz=7600))(waveform)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


@given(n=st.integers(1, 20), stack=st.integers(1, 4), deltas=st.integers(0, 2))
def test_assembled_frames_are_stacks_of_values_and_their_deltas(n, stack, deltas):
    config = FeatureConfig(n_mels=3, stack=stack, deltas=deltas)
    x = np.random.default_rng(n).standard_normal((n, 3)).astype(np.float32)
    found = assemble(x, config)
    assert found.shape == (-(-n // stack), config.size)
    frames = found.reshape(-1, 3 * (1 + deltas))
    assert np.array_equal(frames[:n, :3], x)
    assert np.array_equal(frames[n:], np.repeat(frames[n - 1 : n], len(frames) - n, axis=0))
    parts = [torch.from_numpy(x).T]
    for _ in range(deltas):
        parts.append(compute_deltas(parts[-1]))
    np.testing.assert_allclose(frames[:n], torch.cat(parts).T, atol=1e-6)


def test_stacking_repeats_the_last_frame():
    x = np.arange(1.0, 6.0, dtype=np.float32)[:, None]
    assert stack_frames(x, 3).tolist() == [[1, 2, 3], [4, 5, 5]]


def test_deltas_of_a_slope_are_its_steepness():
    x = 2 * np.arange(10, dtype=np.float32)[:, None]
    deltas = add_deltas(x, 1)[:, 1]
    assert deltas[2:-2].tolist() == pytest.approx([2.0] * 6)


def test_frame_times():
    clock = frame_clock(FeatureConfig(stack=3), subsampling=2)
    assert clock.shift_s == pytest.approx(0.06)
    # Output frame 1 covers log-mel frames 6..11, centred on 60..110 ms.
    assert clock.centre_s(1) == pytest.approx(0.085)
    assert clock.start_s(1) == pytest.approx(0.055)
    assert clock.start_s(2) == pytest.approx(0.115)
    assert clock.start_s(0) == 0


@pytest.mark.parametrize("log_mel", ["librosa", "kaldi"])
def test_a_click_is_where_the_clock_says(log_mel):
    config = FeatureConfig(stack=1, log_mel=log_mel)
    waveform = np.zeros(16000, np.float32)
    clock = frame_clock(config)
    at = round(clock.centre_s(50) * 16_000)
    waveform[at] = 1.0
    loudest = int(LogMel(config)(waveform).sum(1).argmax())
    assert loudest == 50
    assert clock.start_s(loudest) <= at / 16_000 < clock.start_s(loudest + 1)


def test_normalised_features_have_mean_0_and_variance_1():
    draw = np.random.default_rng(0)
    xs = [3 * draw.standard_normal((50, 4)).astype(np.float32) + 7 for _ in range(3)]
    config = FeatureConfig(ignore_silence=False)
    stats = statistics(xs, config)
    together = np.concatenate([normalize(x, stats, config) for x in xs])
    np.testing.assert_allclose(together.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(together.std(0), 1, atol=1e-4)


@pytest.mark.parametrize("log_mel", ["librosa", "kaldi"])
@pytest.mark.parametrize("ignore_silence", [True, False])
def test_silence_stays_finite(ignore_silence, log_mel):
    config = FeatureConfig(ignore_silence=ignore_silence, log_mel=log_mel)
    features = LogMel(config)(np.zeros(1600, np.float32))
    stats = statistics([features], config)
    assert np.isfinite(normalize(features, stats, config)).all()


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
