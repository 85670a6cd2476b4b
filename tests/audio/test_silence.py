"""Silence around what is said, of any kind and length, changes nothing of what is heard."""

import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from asr.audio.features import (
    FLOOR,
    FeatureConfig,
    LogMel,
    levels_db,
    speech,
    statistics,
    steady,
)
from asr.audio.normalize import normalize
from asr.audio.silence import left_out
from asr.audio.windows import WindowConfig
from asr.labels import LabelConfig, Labels
from asr.model.bundle import Bundle, save_config
from asr.model.emissions import emissions_of
from asr.model.weights import load_bundle
from asr.nets.acoustic import AcousticModel
from asr.nets.config import RecurrentConfig
from asr.recognize.aligner import Aligner
from asr.recognize.recognizer import Recognizer
from asr.score.error_rate import score_pairs
from asr.train.recipe import read_config

RATE = 16_000
CONFIG = FeatureConfig()


def zeros(n):
    return np.zeros(n, np.float32)


def dither(n):
    return (np.random.default_rng(1).integers(-1, 2, n) / 2**15).astype(np.float32)


def hiss(n, level=1e-4):
    return (level * np.random.default_rng(2).standard_normal(n)).astype(np.float32)


def syllables(n=2 * RATE):
    """Noise that comes and goes four times a second."""
    time = np.arange(n) / RATE
    return hiss(n, 0.1) * (np.sin(4 * np.pi * time) ** 4 + 0.01).astype(np.float32)


def log_mel(waveform):
    return LogMel(CONFIG)(waveform)


@pytest.mark.parametrize("silence", [zeros, dither, hiss])
@pytest.mark.parametrize("before", [True, False])
def test_statistics_do_not_see_it(silence, before):
    alone = log_mel(syllables())
    stats = statistics([alone], CONFIG)
    for seconds in (0.5, 10):
        added = silence(int(seconds * RATE))
        pieces = [added, syllables()] if before else [syllables(), added]
        longer = log_mel(np.concatenate(pieces))
        found = statistics([longer], CONFIG)
        # The frame at the joint hears both.
        np.testing.assert_allclose(found.mean, stats.mean, atol=0.02)
        np.testing.assert_allclose(found.std, stats.std, atol=0.02)
        normal = normalize(longer, found, CONFIG)
        quiet = normal[5:40] if before else normal[-40:-5]
        assert (quiet == -FLOOR).all()


def test_runs_from_before_count_all_frames(tmp_path, model):
    text = (model / "config.yaml").read_text()
    assert "  ignore_silence: true\n" in text
    (tmp_path / "config.yaml").write_text(text.replace("  ignore_silence: true\n", ""))
    config, _ = read_config(tmp_path / "config.yaml")
    assert not config.features.ignore_silence


def test_models_from_before_count_all_frames():
    config = replace(CONFIG, ignore_silence=False)
    longer = log_mel(np.concatenate([syllables(), zeros(RATE)]))
    stats = statistics([longer], config)
    np.testing.assert_allclose(stats.mean, longer.mean(0), rtol=1e-5)
    assert abs(normalize(longer, stats, config).mean()) < 1e-4


@pytest.mark.parametrize("silence", [zeros, dither, hiss])
@pytest.mark.parametrize("n", [1, 100, 5000, 100_000])
def test_there_is_no_speech_in_silence(silence, n):
    assert not speech(log_mel(silence(n))).any()


def test_quiet_speech_is_speech():
    for gain in (1.0, 1e-2):
        found = speech(log_mel(gain * syllables()))
        assert 0.3 < found.mean() < 0.9


@pytest.mark.parametrize("config", [CONFIG, FeatureConfig(8_000, 256, 200, 80, 23, 0.0, 4_000.0)])
def test_levels_are_those_of_the_samples(config):
    waveform = hiss(config.sample_rate, 0.01)
    levels = levels_db(LogMel(config)(waveform), config, 3)
    assert len(levels) == 34
    assert abs(np.median(levels) + 40) < 1


@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 120)), min_size=1, max_size=8),
    st.sampled_from([0.01, 0.03]),
)
def test_what_is_left_out_is_long_and_away_from_speech(runs, shift_s):
    quiet = np.concatenate([np.full(n, is_quiet) for is_quiet, n in runs])
    out = left_out(quiet, shift_s)
    near = round(0.25 / shift_s)
    for place in np.flatnonzero(~quiet):
        assert not out[max(0, place - near) : place + near].any()
    kept = np.flatnonzero(np.diff(quiet & ~out, prepend=False, append=False)).reshape(-1, 2)
    assert all(end - first < 1 / shift_s for first, end in kept.tolist())


def test_a_fan_that_nobody_speaks_over_is_background():
    fan = hiss(4 * RATE, 0.003)  # 15 dB below the syllables in every band
    found = steady(log_mel(np.concatenate([fan, syllables(), fan])))
    assert found[:390].all()
    assert found[-390:].all()
    assert not found[410:-410].any()


def net():
    """A net of random weights that hears both ways."""
    torch.manual_seed(1)
    labels = Labels("char", ("<blank>", "<space>", *"abcd"))
    architecture = RecurrentConfig(layers=1, hidden=16)
    model = AcousticModel(architecture, CONFIG.size, len(labels), CONFIG.n_mels).eval()
    return Bundle(CONFIG, architecture, labels, LabelConfig("char"), "ctc", model)


@pytest.mark.parametrize("silence", [zeros, dither, hiss, lambda n: hiss(n, 0.003)])
def test_ten_seconds_are_heard_as_two(silence):
    """What lies before and after is given back as certain silence, in its place."""
    recognizer = Recognizer(net())
    # 9.6 s more on either side, 320 frames of 30 ms.
    short, long = (
        recognizer.emissions([np.concatenate([silence(n), syllables(), silence(n)])])[0]
        for n in (int(1.2 * RATE), int(10.8 * RATE))
    )
    assert len(long) == len(short) + 640
    assert (long[:340].argmax(1) == 0).all()
    assert (long[:340].max(1) == 0).all()
    spoken = slice(35, 35 + 76)
    np.testing.assert_allclose(long[320:-320][spoken], short[spoken], atol=0.05)


@pytest.fixture(scope="module")
def recognizer(model):
    return Recognizer.load(model)


def padded(utterance, seconds, silence):
    samples, _ = soundfile.read(utterance.audio, dtype="float32")
    added = silence(int(seconds * RATE))
    return np.concatenate([added, samples, added])


@pytest.mark.parametrize("silence", [zeros, dither])
def test_transcripts_and_times_stay(recognizer, said, silence):
    pairs, late = [], []
    for utterance in said:
        clean = recognizer.transcribe(utterance.audio)
        found = recognizer.transcribe(padded(utterance, 3, silence))
        assert found.duration_s == pytest.approx(clean.duration_s + 6)
        pairs.append(([s.label for s in clean.labels], [s.label for s in found.labels]))
        if pairs[-1][0] == pairs[-1][1]:
            inner = list(zip(found.labels, clean.labels, strict=True))[1:-1]
            late += [a.start_s - b.start_s - 3 for a, b in inner]
    assert score_pairs(pairs, "phone", "").error_rate < 0.1
    assert max(map(abs, late)) < 0.06


@pytest.mark.parametrize("silence", [zeros, dither, hiss])
def test_silence_alone_is_an_empty_transcript(recognizer, silence):
    for n in (1, RATE // 10, 5 * RATE, 40 * RATE):
        found = recognizer.transcribe(silence(n))
        assert (found.text, found.labels) == ("", ())
        assert found.duration_s == n / RATE


def test_the_net_hears_all_where_told_so(model, said):
    waveform = padded(said[0], 3, zeros)
    spared = Recognizer(load_bundle(model)).emissions([waveform])[0]
    hears_all = Recognizer(load_bundle(model), windowing=WindowConfig(skip_silence=False))
    whole = hears_all.emissions([waveform])[0]
    assert spared.shape == whole.shape
    is_certain = spared.max(axis=1) == 0
    assert 180 < is_certain.sum() < 200
    assert (whole.max(axis=1) < 0).all()


def test_files_and_waveforms_are_heard_the_same(model, said, tmp_path):
    bundle = load_bundle(model)
    soundfile.write(tmp_path / "a.wav", padded(said[0], 3, zeros), RATE)
    longer = replace(said[0], audio=tmp_path / "a.wav", duration_s=said[0].duration_s + 6)
    aligner = Aligner.of(bundle)
    clean, found = (
        aligner.align(u, emissions_of(bundle, [u], {})[u.id]).words for u in (said[0], longer)
    )
    late = [a.start_s - b.start_s - 3 for a, b in zip(found, clean, strict=True)]
    assert max(map(abs, late)) < 0.06
    of_file = emissions_of(bundle, [longer], {})[longer.id]
    assert np.array_equal(of_file, Recognizer(bundle).emissions([padded(said[0], 3, zeros)])[0])


def test_model_directories_remember_how_they_normalise(model, tmp_path):
    bundle = load_bundle(model)
    assert bundle.features.ignore_silence
    folder = tmp_path / "model"
    folder.mkdir()
    for path in (model / "model").iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    del config["features"]["ignore_silence"]
    (folder / "config.json").write_text(json.dumps(config))
    older = load_bundle(folder)
    assert not older.features.ignore_silence
    save_config(folder, older)
    assert not load_bundle(folder).features.ignore_silence
