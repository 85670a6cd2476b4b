"""Packets of any size and rate give the log-probabilities of the whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.audio.features import FeatureConfig, Statistics
from asr.errors import InputError
from asr.labels import LabelConfig, Labels
from asr.model.bundle import Bundle
from asr.model.emissions import waveform_emissions
from asr.model.onnx import export
from asr.model.stream import EmissionStream, advance, choose_latency
from asr.nets.acoustic import AcousticModel
from asr.nets.config import Latency, RecurrentConfig
from asr.nets.quantized import quantized

RATE, N_MELS = 16_000, 8
LIVE = {
    "chunks": {"chunk": (4, 2), "lookahead": (3, 0), "conv": (2,)},
    "forward": {"bidirectional": False, "future": 2, "conv": (2, 2)},
}


def bundle_of(kind: str, normalize: str = "online", **features: int | str) -> Bundle:
    torch.manual_seed(0)
    config = FeatureConfig(n_mels=N_MELS, normalize=normalize, **features)
    architecture = RecurrentConfig(layers=2, hidden=5, **LIVE.get(kind, {}))
    labels = Labels("phone", ("<blank>", "a", "b", "c"))
    model = AcousticModel(architecture, config.size, len(labels), N_MELS).eval()
    if model.row is not None:
        torch.nn.init.normal_(model.row.weight)
    return Bundle(
        config,
        architecture,
        labels,
        LabelConfig("phone"),
        "ctc",
        model,
        stats=Statistics(np.full(N_MELS, -6, np.float32), np.full(N_MELS, 2, np.float32)),
    )


def sound(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    envelope = np.repeat(rng.uniform(0.01, 0.4, n // 800 + 1), 800)[:n]
    return (envelope * rng.standard_normal(n)).clip(-1, 1).astype(np.float32)


def in_packets(stream: EmissionStream, waveform: np.ndarray, sizes: list[int], rate: int):
    found, at = [], 0
    for n in [*sizes, len(waveform)]:
        stream.accept(waveform[at : at + n], rate)
        found.append(stream.take())
        at = min(at + n, len(waveform))
    stream.finish()
    return np.concatenate([*found, stream.take()])


@pytest.mark.parametrize("n", [1, 159, 160, 8000, 16001])
@pytest.mark.parametrize("normalize", ["online", "global"])
@pytest.mark.parametrize("kind", LIVE)
def test_a_stream_is_as_the_file(kind: str, normalize: str, n: int) -> None:
    for features in ({}, {"stack": 1, "deltas": 2}, {"log_mel": "kaldi"}):
        bundle = bundle_of(kind, normalize, **features)
        (whole,) = waveform_emissions(bundle, [sound(n)])
        found = in_packets(EmissionStream(bundle), sound(n), [100, 5000], RATE)
        assert found.shape == whole.shape
        np.testing.assert_allclose(found, whole, rtol=0, atol=2e-5)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(sorted(LIVE)),
    st.lists(st.integers(1, 4000), max_size=12),
    st.sampled_from([8000, 11025, 16_000, 22_050, 44_100, 48_000]),
)
def test_how_audio_is_cut_changes_no_bit(kind: str, sizes: list[int], rate: int) -> None:
    bundle, waveform = bundle_of(kind), sound(9001)
    whole = in_packets(EmissionStream(bundle), waveform, [], rate)
    assert np.array_equal(in_packets(EmissionStream(bundle), waveform, sizes, rate), whole)
    (as_file,) = waveform_emissions(bundle, [_resampled(waveform, rate)])
    np.testing.assert_allclose(whole, as_file, rtol=0, atol=2e-3)


def _resampled(waveform: np.ndarray, rate: int) -> np.ndarray:
    from asr.audio.read import checked_waveform

    return checked_waveform(waveform, rate, RATE)


def test_samples_one_by_one_are_as_all_at_once() -> None:
    bundle, waveform = bundle_of("chunks"), sound(2000)
    whole = in_packets(EmissionStream(bundle), waveform, [], RATE)
    assert np.array_equal(in_packets(EmissionStream(bundle), waveform, [1] * 2000, RATE), whole)


@pytest.mark.parametrize("kind", LIVE)
def test_streams_in_one_batch_have_no_influence_on_each_other(kind: str) -> None:
    bundle = bundle_of(kind)
    waveforms = [sound(n, seed) for seed, n in enumerate((9000, 0, 4000, 12_345))]
    streams = [EmissionStream(bundle) for _ in waveforms]
    found: list[list[np.ndarray]] = [[] for _ in streams]
    for start in range(0, 16_000, 777):
        # The later ones begin later.
        for i, (stream, waveform) in enumerate(zip(streams, waveforms, strict=True)):
            at = start - 1000 * i
            if at >= 0:
                stream.accept(waveform[at : at + 777], RATE)
            elif at > -777:
                stream.accept(waveform[: at + 777], RATE)
        advance(streams)
        for rows, stream in zip(found, streams, strict=True):
            rows.append(stream.take())
    for stream in streams:
        stream.finish()
    advance(streams)
    for waveform, rows, stream in zip(waveforms, found, streams, strict=True):
        alone = in_packets(EmissionStream(bundle), waveform, [], RATE)
        together = np.concatenate([*rows, stream.take()])
        np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", LIVE)
def test_a_frame_comes_when_its_latency_is_over(kind: str) -> None:
    bundle = bundle_of(kind)
    stream, waveform = EmissionStream(bundle), sound(16_000)
    worst, n_found, hop = 0, 0, 160
    for at in range(0, len(waveform), 10):
        stream.accept(waveform[at : at + 10], RATE)
        n_new = len(stream.take())
        if n_new:
            begins = max(0, (n_found * 3 - 0.5) * hop)
            worst = max(worst, at + 10 - begins)
            n_found += n_new
    assert stream.latency_s * RATE - 10 <= worst <= stream.latency_s * RATE + 10


def test_memory_of_a_stream_is_bounded() -> None:
    bundle = bundle_of("forward")
    stream = EmissionStream(bundle)
    for _ in range(200):
        stream.accept(np.zeros(8000, np.float32), RATE)
        stream.take()
    front = stream._front
    assert len(front._samples) < 2000
    assert len(front._frames) < 50
    assert not front._packets


def test_what_was_no_speech_normalises_nothing() -> None:
    bundle = bundle_of("forward", ignore_silence=False)
    stream, fresh = EmissionStream(bundle), EmissionStream(bundle)
    stream.accept(sound(40_000), RATE)
    stream.take()
    assert stream._front._heard.counts[1] > 0
    stream.settle(was_speech=False)
    assert stream._front._heard.counts[1] == 0
    assert np.array_equal(stream._front._heard.sums, fresh._front._heard.sums)
    stream.accept(sound(40_000), RATE)
    stream.take()
    stream.settle(was_speech=True)
    counted = stream._front._heard.counts[1]
    stream.accept(sound(40_000, 1), RATE)
    stream.take()
    stream.settle(was_speech=False)
    assert stream._front._heard.counts[1] == counted > 0


def test_a_rate_may_change() -> None:
    bundle = bundle_of("chunks")
    stream = EmissionStream(bundle)
    stream.accept(sound(8000), 8000)
    stream.accept(sound(16_000), RATE)
    stream.accept(sound(4410), 44_100)
    stream.finish()
    assert len(stream.take()) == -(-(33_600 // 160 + 1) // 3)


def test_what_is_no_audio_is_refused_and_the_stream_goes_on() -> None:
    bundle = bundle_of("chunks")
    stream, waveform = EmissionStream(bundle), sound(5000)
    stream.accept(waveform[:2000], RATE)
    for samples, rate, told in (
        (np.full(10, np.nan, np.float32), RATE, "NaN"),
        (np.zeros(10, np.int16), RATE, "int16"),
        (waveform, 100, "rate 100"),
        (np.zeros((2, 10), np.float32), RATE, "expected samples"),
    ):
        with pytest.raises(InputError, match=told):
            stream.accept(samples, rate)
    stream.accept(np.zeros(0, np.float32), RATE)
    stream.accept(waveform[2000:], RATE)
    stream.finish()
    expected = in_packets(EmissionStream(bundle), waveform, [], RATE)
    assert np.array_equal(stream.take(), expected)


def test_an_earlier_utterance_may_be_the_prior() -> None:
    bundle, waveform = bundle_of("chunks"), sound(5000)
    prior = Statistics(np.full(N_MELS, -3, np.float32), np.full(N_MELS, 2, np.float32))
    given_prior = in_packets(EmissionStream(bundle, prior=prior), waveform, [], RATE)
    assert not np.allclose(given_prior, in_packets(EmissionStream(bundle), waveform, [], RATE))


def test_chunks_are_chosen_among_those_trained_for() -> None:
    bundle = bundle_of("chunks")
    assert choose_latency(bundle) == Latency(4, 3)
    assert choose_latency(bundle, chunk_ms=60) == Latency(2, 0)
    assert choose_latency(bundle, lookahead_ms=90) == Latency(4, 3)
    with pytest.raises(InputError, match=r"of 120 and 0 ms: expected .* 120 and 90, 60 and 0 ms"):
        choose_latency(bundle, 120, 0)
    forward = bundle_of("forward")
    assert choose_latency(forward) == Latency(1, 0)
    assert choose_latency(forward, 120) == Latency(4, 0)
    with pytest.raises(InputError, match="trained for"):
        choose_latency(forward, 120, 60)


def test_models_that_hear_the_whole_name_the_recipe_that_does_not() -> None:
    with pytest.raises(InputError, match=r"as a whole .*so762/live\.yaml"):
        EmissionStream(bundle_of("whole"))
    with pytest.raises(InputError, match=r"normalises each utterance .*so762/live\.yaml"):
        EmissionStream(bundle_of("chunks", "utterance"))


def test_no_graph_and_no_integers_are_made_of_what_they_cannot_say(tmp_path) -> None:
    bundle = bundle_of("chunks")
    with pytest.raises(InputError, match="add --streaming"):
        export(bundle, tmp_path / "model.onnx")
    with pytest.raises(InputError, match="this one goes in chunks"):
        quantized(bundle.model)


def test_silence_is_heard_in_files_as_in_streams() -> None:
    bundle = bundle_of("chunks")
    waveform = np.concatenate([sound(8000), np.zeros(80_000, np.float32), sound(8000)])
    (whole,) = waveform_emissions(bundle, [waveform])
    found = in_packets(EmissionStream(bundle), waveform, [50_000], RATE)
    np.testing.assert_allclose(found, whole, rtol=0, atol=2e-5)
