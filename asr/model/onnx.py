"""A model as one ONNX file: waveforms in, log-probabilities out, in any language that runs ONNX.

The graph is written node by node, as the equations of `asr.audio.features` and `asr.nets` say, with
the features inside; docs/export.md tells how to run it. Batches are exact: what lies beyond a row's
length has no influence on the row.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save as tensor_bytes
from torch import nn

from asr.audio.features import (
    BACKGROUND_DB,
    BELOW_DB,
    DIGITAL_SILENCE_DB,
    FLOOR,
    KALDI_FLOOR,
    LEAST_VARIANCE,
    LOG_FLOOR,
    NEPER_PER_DB,
    PEAK_FRAMES,
    PREEMPHASIS,
    SPEECH_RANGE_DB,
    STEADY_DB,
    STEADY_FRAMES,
    LogMel,
)
from asr.errors import InputError
from asr.model.bundle import Bundle, settings
from asr.model.emissions import certain_silence
from asr.model.onnx_graph import Graph, linear, log_probs_output, recurrent
from asr.model.onnx_live import live_graph, live_metadata
from asr.model.stream import choose_latency
from asr.model.waveform import WaveformModel
from asr.nets.acoustic import AcousticModel, Ensemble
from asr.nets.cells import Cell
from asr.nets.convolution import Convolutions
from asr.nets.live import Live
from asr.nets.recurrent import RecurrentLayer, RecurrentStack
from asr.system.files import write_aside


def export(bundle: Bundle, path: Path, streaming: bool = False) -> None:
    """Write the model to ``path``; a file that is there is replaced.

    Inputs are ``waveform`` (B, N) float32 in [-1, 1] at the model's rate and ``n_samples`` (B,)
    int64; outputs ``log_probs`` (B, T, V) float32, natural logarithms, blank 0, and ``lens`` (B,)
    int64, which tell how many of a row's T frames are its own.

    streaming: for waveforms that come piece by piece. There is no ``n_samples`` and no ``lens``;
    the states of the recurrent layers, ``h0``, ``c0``, ``h1`` ... (B, H) float32, go in, and come
    out as ``next_h0`` ...; each piece overlaps the next as docs/export.md says. Models that hear
    chunks or a future of their own, or normalise online, have the graph of `onnx_live.live_graph`.

    The metadata are those of `metadata`. Lexicon and language models stay where they are.

    Raises:
        InputError: the onnx package is not installed, the model cannot stream, or the file cannot
            be written.
    """
    net = bundle.model
    if not isinstance(net, AcousticModel):
        raise InputError(
            "export is for single models that were trained here: give a model directory that "
            "asr train wrote, not an ensemble"
        )
    architecture = bundle.architecture
    about = metadata(bundle) | {"streaming": json.dumps(streaming)}
    if architecture.chunk or architecture.future or bundle.features.normalize == "online":
        if not streaming:
            raise InputError("export: this model goes along with speech: add --streaming")
        live = Live(net, choose_latency(bundle))
        graph = live_graph(bundle, live)
        about["live"] = json.dumps(live_metadata(bundle, live))
    else:
        graph = _streaming_graph(bundle, net) if streaming else _whole_graph(bundle)
    model = graph.model(about)
    with write_aside(path) as aside:
        aside.write_bytes(model.SerializeToString())


def check_own(bundle: Bundle) -> None:
    """Refuse a model whose net is not in our hands.

    Raises:
        InputError: it was not trained here.
    """
    if isinstance(bundle.model, WaveformModel):
        raise InputError("export: only models that asr train wrote can be exported")


def metadata(bundle: Bundle) -> dict[str, str]:
    """What using the file takes beside the graph; values are JSON, but for the last.

    labels: the V symbols, blank first. unit: what they are. sample_rate: in Hz. frame_shift_s:
    seconds from an output frame to the next. carousel: the settings of a model directory's
    config.json, the decoder without lexicon and language models. transitions: of a framewise model,
    as a safetensors file in base64.
    """
    decoder = replace(bundle.decoder, lexicon=False)
    if bundle.label_lm is not None:
        # The bonus was tuned along with the weight.
        decoder = replace(decoder, lm_weight=0.0, bonus=0.0)
    values = {
        "labels": bundle.labels.symbols,
        "unit": bundle.labels.unit,
        "sample_rate": bundle.features.sample_rate,
        "frame_shift_s": bundle.clock.shift_s,
        "carousel": settings(replace(bundle, decoder=decoder)),
    }
    texts = {key: json.dumps(value, ensure_ascii=False) for key, value in values.items()}
    if bundle.transitions is not None:
        arrays = {k: np.ascontiguousarray(a) for k, a in bundle.transitions.to_arrays().items()}
        texts["transitions"] = base64.b64encode(tensor_bytes(arrays)).decode("ascii")
    return texts


def _whole_graph(bundle: Bundle) -> Graph:
    graph, config = Graph(), bundle.features
    waveform = graph.input("waveform", np.float32, "B", "N")
    n_samples = graph.input("n_samples", np.int64, "B")

    log_mel = LogMel(config)
    waveform = _padded(graph, log_mel, waveform, n_samples)
    x = _log_mel(graph, log_mel, waveform)
    hop = graph.integer(config.hop_length)
    if log_mel.is_kaldi:
        lens = graph("Div", graph("Add", n_samples, graph.integer(config.hop_length // 2)), hop)
        lens = graph("Max", lens, graph.integer(1))
    else:
        lens = graph("Add", graph("Div", n_samples, hop), graph.integer(1))

    log_probs, lens = from_log_mel(graph, bundle, x, lens)
    log_probs_output(graph, bundle, log_probs)
    graph.output("lens", lens, np.int64, "B")
    return graph


def from_log_mel(graph: Graph, bundle: Bundle, x: str, lens: str) -> tuple[str, str]:
    """Log-mel (B, T, n_mels) of ``lens`` (B,) frames -> log-probabilities (B, T', V), lengths."""
    config = bundle.features
    inside = graph("Less", graph.count(graph.size(x, 1)), graph.column(lens))
    inside = graph("Unsqueeze", inside, graph.integer(2))
    speech = _speech(graph, x, inside)
    x = _normalized(graph, bundle, x, speech if config.ignore_silence else inside)
    x = _with_deltas(graph, x, lens, config.deltas)
    x, lens = _stacked(graph, x, lens, config.stack, config.size)
    log_probs, lens = _nets(graph, bundle.model, x, lens)
    has_speech = graph("Greater", _total(graph, speech, np.float32), graph.constant(0))
    silence = graph.constant(certain_silence(bundle))
    return graph("Where", has_speech, log_probs, silence), lens


def net_graph(bundle: Bundle) -> Graph:
    """The net alone: ``features`` (B, T, F) and ``lens`` (B,) to ``log_probs`` and ``lens``."""
    graph = Graph()
    x = graph.input("features", np.float32, "B", "T", bundle.features.size)
    lens = graph.input("lens", np.int64, "B")
    log_probs, ends = _nets(graph, bundle.model, x, lens)
    log_probs_output(graph, bundle, log_probs)
    graph.output("n_frames", ends, np.int64, "B")
    return graph


def _nets(graph: Graph, model: AcousticModel | Ensemble, x: str, lens: str) -> tuple[str, str]:
    """`AcousticModel` or `Ensemble` that hears a whole: log-probabilities and lengths."""
    nets = [net for net in model.modules() if isinstance(net, AcousticModel)]
    found = [_net(graph, net, x, lens) for net in nets]
    log_probs, ends = found[0]
    if len(found) > 1:
        each = [graph("Unsqueeze", one, graph.integer(0)) for one, _ in found]
        log_probs = graph("ReduceLogSumExp", graph("Concat", *each, axis=0), axes=[0], keepdims=0)
        log_probs = graph("Sub", log_probs, graph.constant(np.log(len(found))))
    return log_probs, ends


def _net(graph: Graph, net: AcousticModel, x: str, lens: str) -> tuple[str, str]:
    if net.conv is not None:
        x = _convolutions(graph, net.conv, x, lens)
    x, lens, _ = _recurrent_stack(graph, net.stack, x, lens)
    return _log_probs(graph, net, x), lens


def _streaming_graph(bundle: Bundle, net: AcousticModel) -> Graph:
    config = bundle.features
    for wrong, why in (
        (bundle.architecture.bidirectional, "is bidirectional: it needs the end of an utterance"),
        (
            config.normalize not in ("global", "none"),
            f"normalises each {config.normalize} as a whole: train with features.normalize=global",
        ),
        (net.conv is not None, "has convolutions, which look ahead: train with model.conv=[]"),
        (config.deltas > 0, "looks ahead for its deltas: train with features.deltas=0"),
        (
            config.log_mel == "kaldi",
            "mirrors the ends of audio: train with features.log_mel=librosa",
        ),
    ):
        if wrong:
            raise InputError(f"--streaming: this model {why}")
    graph = Graph()
    waveform = graph.input("waveform", np.float32, "B", "N")
    layers: Any = net.stack.layers
    cells: list[Cell] = [layer.ahead for layer in layers]
    states = [
        [graph.input(f"{name}{i}", np.float32, "B", cell.hidden) for name in cell.states]
        for i, cell in enumerate(cells)
    ]
    x = _log_mel(graph, LogMel(config), waveform)
    # All rows are as long as their piece.
    ones = graph("Expand", graph.integer(1), graph.size(waveform, 0))
    lens = graph("Mul", ones, graph.size(x, 1))
    x = _normalized(graph, bundle, x)
    x, lens = _stacked(graph, x, lens, config.stack, config.size)
    x, lens, after = _recurrent_stack(graph, net.stack, x, lens, states)
    log_probs_output(graph, bundle, _log_probs(graph, net, x))
    for before, values, cell in zip(states, after, cells, strict=True):
        for name, value in zip(before, values, strict=True):
            graph.output(f"next_{name}", value, np.float32, "B", cell.hidden)
    return graph


def _padded(graph: Graph, log_mel: LogMel, waveform: str, n_samples: str) -> str:
    """`LogMel.around` the samples (B, N) of each row, as far as the window of any frame goes."""
    lead, more = log_mel.lead, log_mel.config.win_length
    if not log_mel.is_kaldi:
        inside = graph("Less", graph.count(graph.size(waveform, 1)), graph.column(n_samples))
        waveform = graph("Where", inside, waveform, graph.constant(0))
        return graph("Pad", waveform, graph.integer(0, lead, 0, more - lead))
    length = graph("Add", graph.size(waveform, 1), graph.integer(lead + more))
    at = graph("Sub", graph.count(length), graph.integer(lead))
    # To the end and back again, for ever.
    there_and_back = graph("Mul", graph.column(n_samples), graph.integer(2))
    at = graph("Mod", at, there_and_back)
    back = graph("Sub", graph("Sub", there_and_back, graph.integer(1)), at)
    at = graph("Min", at, back)
    return graph("GatherND", waveform, graph("Unsqueeze", at, graph.integer(2)), batch_dims=1)


def _log_mel(graph: Graph, log_mel: LogMel, waveform: str) -> str:
    """Padded waveform (B, N) -> log-mel (B, T, n_mels), its spectrum by convolving with waves."""
    config, filters = log_mel.config, log_mel.filters  # (n_fft / 2 + 1, n_mels)
    used = np.flatnonzero(filters.any(axis=1))
    n = config.win_length
    # Whole turns are taken off as integers, exactly.
    phases = 2 * np.pi * (np.outer(used, np.arange(n)) % config.n_fft) / config.n_fft
    waves = np.concatenate([np.cos(phases), np.sin(phases)]) * log_mel.window  # (2 * used, n)
    floor = LOG_FLOOR
    if log_mel.is_kaldi:
        before = np.eye(n, k=-1)
        before[0, 0] = 1
        waves = waves @ (np.eye(n) - PREEMPHASIS * before) @ (np.eye(n) - 1 / n)
        floor = KALDI_FLOOR

    x = graph("Unsqueeze", waveform, graph.integer(1))
    kernel = graph.constant(waves[:, None])
    x = graph("Conv", x, kernel, strides=[config.hop_length])  # (B, 2 * used, T)
    power = graph("Transpose", graph("Mul", x, x), perm=[0, 2, 1])
    x = graph("MatMul", power, graph.constant(np.concatenate([filters[used]] * 2)))
    return graph("Log", graph("Max", x, graph.constant(floor)))


def _total(graph: Graph, values: str, dtype: type) -> str:
    """Sums over the frames of (B, T, n), in a type of their own: (B, 1, n)."""
    kind = graph.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return graph("ReduceSum", graph("Cast", values, to=kind), graph.integer(1), keepdims=1)


def _pool(graph: Graph, operator: str, values: str, n: int, pad: int = 0) -> str:
    """AveragePool or MaxPool over ``n`` frames of (B, T, 1)."""
    more = {"count_include_pad": 1} if operator == "AveragePool" else {}
    turned = graph("Transpose", values, perm=[0, 2, 1])
    pooled = graph(operator, turned, kernel_shape=[n], pads=[pad, pad], **more)
    return graph("Transpose", pooled, perm=[0, 2, 1])


def _relative_levels(graph: Graph, x: str, inside: str) -> tuple[str, str]:
    """`features.relative_levels` of each row's frames ``inside``: (B, 1, 1), and (B, T, 1)."""
    levels = graph("ReduceMean", x, axes=[2], keepdims=1)
    levels = graph("Div", levels, graph.constant(NEPER_PER_DB))
    levels = graph("Where", inside, levels, graph.constant(0))
    own = graph("Cast", inside, to=graph.onnx.TensorProto.FLOAT)
    total, n = (
        _pool(graph, "AveragePool", each, PEAK_FRAMES, PEAK_FRAMES // 2) for each in (levels, own)
    )
    smooth = graph("Where", inside, graph("Div", total, n), graph.constant(-np.inf))
    loudest = graph("ReduceMax", smooth, axes=[1], keepdims=1)
    return loudest, graph("Sub", levels, loudest)


def _steady(graph: Graph, levels: str, inside: str) -> str:
    """`features.steady` by relative levels (B, T, 1)."""
    own = graph("Cast", inside, to=graph.onnx.TensorProto.FLOAT)
    levels = graph("Where", inside, levels, graph.constant(0))
    mean, square, whole = (
        _pool(graph, "AveragePool", each, STEADY_FRAMES, STEADY_FRAMES - 1)
        for each in (levels, graph("Mul", levels, levels), own)
    )
    variance = graph("Sub", square, graph("Mul", mean, mean))
    found = graph("Less", variance, graph.constant(STEADY_DB**2))
    found = graph("And", found, graph("Less", mean, graph.constant(-BELOW_DB)))
    found = graph("And", found, graph("Greater", whole, graph.constant(1 - 0.5 / STEADY_FRAMES)))
    found = graph("Cast", found, to=graph.onnx.TensorProto.FLOAT)
    return graph("Greater", _pool(graph, "MaxPool", found, STEADY_FRAMES), graph.constant(0))


def _speech(graph: Graph, x: str, inside: str) -> str:
    """`features.speech` of log-mel (B, T, n_mels) whose own frames are ``inside``: (B, T, 1)."""
    loudest, levels = _relative_levels(graph, x, inside)
    least = graph("Sub", graph.constant(DIGITAL_SILENCE_DB), loudest)
    least = graph("Max", least, graph.constant(-SPEECH_RANGE_DB))
    found = graph("And", graph("GreaterOrEqual", levels, least), inside)
    found = graph("And", found, graph("Not", _steady(graph, levels, inside)))
    _, variance = _mean_and_variance(graph, levels, found)
    is_quiet = graph("Less", loudest, graph.constant(BACKGROUND_DB))
    is_even = graph("Less", variance, graph.constant(STEADY_DB**2))
    return graph("And", found, graph("Not", graph("And", is_quiet, is_even)))


def _mean_and_variance(graph: Graph, x: str, counted: str) -> tuple[str, str]:
    """Of the frames of (B, T, n) that count, both (B, 1, n), in double precision within; 0 of
    none.
    """
    kinds = graph.onnx.TensorProto
    n_frames = graph("Max", _total(graph, counted, np.float64), graph.constant(1, np.float64))
    exact = graph("Cast", x, to=kinds.DOUBLE)

    def mean(values: str) -> str:
        kept = graph("Where", counted, values, graph.constant(0, np.float64))
        return graph("Div", _total(graph, kept, np.float64), n_frames)

    centre = mean(exact)
    centred = graph("Sub", exact, centre)
    variance = mean(graph("Mul", centred, centred))
    return graph("Cast", centre, to=kinds.FLOAT), graph("Cast", variance, to=kinds.FLOAT)


def _normalized(graph: Graph, bundle: Bundle, x: str, counted: str = "") -> str:
    """`features.normalize` of log-mel (B, T, n_mels); of a row the frames ``counted`` (B, T, 1).

    A row without others of its speaker is its own speaker.
    """
    config = bundle.features
    if config.normalize == "none":
        return x
    if config.normalize == "global":
        assert bundle.stats is not None
        mean, std = graph.constant(bundle.stats.mean), graph.constant(bundle.stats.std)
    else:
        mean, variance = _mean_and_variance(graph, x, counted)
        variance = graph("Max", variance, graph.constant(LEAST_VARIANCE))
        some = graph("Greater", _total(graph, counted, np.float32), graph.constant(0))
        std = graph("Where", some, graph("Sqrt", variance), graph.constant(1))
    x = graph("Div", graph("Sub", x, mean), std)
    return graph("Max", x, graph.constant(-FLOOR)) if config.ignore_silence else x


def _repeat_last(graph: Graph, x: str, lens: str, n_frames: str, first: int = 0) -> str:
    """`features.repeat_last`."""
    wanted = graph("Add", graph.count(n_frames), graph.integer(first))
    wanted = graph("Max", wanted, graph.integer(0))
    last = graph.column(graph("Sub", lens, graph.integer(1)))
    index = graph("Min", wanted, last)  # (B, n_frames)
    return graph("GatherND", x, graph("Unsqueeze", index, graph.integer(2)), batch_dims=1)


def _with_deltas(graph: Graph, x: str, lens: str, order: int) -> str:
    """`features.add_deltas`."""
    parts = [x]
    for _ in range(order):
        n_frames = graph.size(x, 1)
        weighted = [
            graph(
                "Mul",
                _repeat_last(graph, parts[-1], lens, n_frames, offset),
                graph.constant(offset / 10),
            )
            for offset in (-2, -1, 1, 2)
        ]
        parts.append(graph("Sum", *weighted))
    return graph("Concat", *parts, axis=2) if order else x


def _convolutions(graph: Graph, net: Convolutions, x: str, lens: str) -> str:
    """`convolution.Convolutions`."""
    inside = graph("Less", graph.count(graph.size(x, 1)), graph.column(lens))  # (B, T)
    inside = graph("Unsqueeze", inside, graph.integer(1, 3))
    # 0 keeps a dimension as it is.
    x = graph("Reshape", x, graph.integer(0, 0, -1, net.n_bins))
    x = graph("Transpose", x, perm=[0, 2, 1, 3])  # (B, channels, T, bins)
    layers: Any = net.layers
    for layer in layers:
        # A convolution sees a frame beyond the end.
        x = graph("Where", inside, x, graph.constant(0))
        weights = graph.constant(layer.weight), graph.constant(layer.bias)
        x = graph("Relu", graph("Conv", x, *weights, strides=[1, 2], pads=[1, 1, 1, 1]))
    x = graph("Transpose", x, perm=[0, 2, 1, 3])
    return graph("Reshape", x, graph.integer(0, 0, net.size))


def _stacked(graph: Graph, x: str, lens: str, factor: int, size: int) -> tuple[str, str]:
    """`features.stack_frames`; ``size`` is what it makes of the features."""
    if factor == 1:
        return x, lens

    def groups(n: str) -> str:
        return graph("Div", graph("Add", n, graph.integer(factor - 1)), graph.integer(factor))

    n_frames = graph("Mul", groups(graph.size(x, 1)), graph.integer(factor))
    filled = _repeat_last(graph, x, lens, n_frames)
    return graph("Reshape", filled, graph.integer(0, -1, size)), groups(lens)


def _recurrent_stack(
    graph: Graph, stack: RecurrentStack, x: str, lens: str, states: Sequence[Sequence[str]] = ()
) -> tuple[str, str, list[list[str]]]:
    """`RecurrentStack` -> outputs, lengths, and each layer's states after the last frame.

    states: each layer's before the first frame; zero if there are none.
    """
    config, after = stack.config, []
    for depth, (layer, norm, mlp) in enumerate(
        zip(stack.layers, stack.norms, stack.mlps, strict=True)
    ):
        assert isinstance(layer, RecurrentLayer)
        assert isinstance(mlp, nn.Sequential)
        cells = [layer.ahead] if layer.back is None else [layer.ahead, layer.back]
        y, last = recurrent(graph, cells, x, lens, states[depth] if states else ())
        after.append(last)
        if isinstance(norm, nn.LayerNorm):
            scale, bias = graph.constant(norm.weight), graph.constant(norm.bias)
            y = graph("LayerNormalization", y, scale, bias, epsilon=norm.eps)
        x = graph("Add", x, y) if config.residual and layer.ahead.n_in == layer.size else y
        if config.subsample:
            factor = config.subsample[depth]
            x, lens = _stacked(graph, x, lens, factor, layer.size * factor)
        for module in mlp:
            if isinstance(module, nn.Linear):
                x = linear(graph, module, x)
            elif isinstance(module, nn.ReLU):
                x = graph("Relu", x)
    return x, lens, after


def _log_probs(graph: Graph, net: AcousticModel, x: str) -> str:
    return graph("LogSoftmax", linear(graph, net.output, x), axis=-1)
