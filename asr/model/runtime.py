"""Model directories for onnxruntime, which need no PyTorch; `asr.model.onnx_folder` writes them.

In the place of the weights they hold
    net.onnx                the net from features to log-probabilities, where it can hear a whole
    step_CHUNK_AHEAD.onnx   its step of a stream, one for each latency that it is trained for
    net.weights             what these share
    arrays.safetensors      (optional) feature statistics, framewise transitions
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from asr.errors import InputError, first_line
from asr.model.bundle import Bundle, load_parts, with_arrays
from asr.nets.config import Latency

if TYPE_CHECKING:
    import onnxruntime

NET, NET_WEIGHTS, ARRAYS = "net.onnx", "net.weights", "arrays.safetensors"
#: What a step keeps that is no state of a recurrent layer.
BESIDE_LAYERS = re.compile(r"n_steps|conv\d+|ahead|row")
State = dict[str, NDArray[Any]]


def step_name(latency: Latency) -> str:
    """The file of a step."""
    return f"step_{latency.chunk}_{latency.lookahead}.onnx"


def session(path: Path, n_threads: int = 1) -> onnxruntime.InferenceSession:
    """Open an ONNX file, to compute on the CPU with so many threads.

    Raises:
        InputError: onnxruntime is not installed, or the file is missing or broken.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(
            f"{path}: needs the onnxruntime package: pip install 'carousel-asr[onnx]'"
        ) from error
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a model in ONNX")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    # Its own warnings, about what it simplifies, are for who wrote it.
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no base of their own
        raise InputError(f"{path}: not a readable ONNX model ({first_line(error)})") from error


class OnnxNet:
    """The nets of a folder: a whole of features to log-probabilities, and steps of streams.

    latencies: that there are steps for, the first being what it does by itself.
    """

    def __init__(self, folder: Path, latencies: Sequence[Latency], sizes: tuple[int, int]) -> None:
        """``sizes``: F of its features, V of its labels.

        Raises:
            InputError: a file is missing, broken or of other sizes.
        """
        self.folder, self.latencies, self.sizes = folder, tuple(latencies), sizes
        self.steps = cache(self._steps)
        self.whole = self._opened(folder / NET) if (folder / NET).is_file() else None
        if self.whole is None and not self.latencies:
            raise InputError(f"{folder}: holds no {NET}; export the model again")

    def log_probs(
        self, matrices: Sequence[NDArray[np.float32]], precision: str = "float32"
    ) -> list[NDArray[np.float32]]:
        """Features (T, F) of each -> log-probabilities (T', V).

        Raises:
            MemoryError: there is too little.
        """
        assert precision == "float32"
        lens = [len(m) for m in matrices]
        x = np.zeros((len(matrices), max(lens), self.sizes[0]), np.float32)
        for row, matrix in zip(x, matrices, strict=True):
            row[: len(matrix)] = matrix
        if self.whole is None:
            return self._stepwise(x, lens)
        found, ends = _run(self.whole, {"features": x, "lens": np.array(lens)})
        return [row[:n] for row, n in zip(found, ends.tolist(), strict=True)]

    def _stepwise(self, x: NDArray[np.float32], lens: Sequence[int]) -> list[NDArray[np.float32]]:
        steps = self.steps(self.latencies[0])
        chunk, n = steps.latency.chunk, len(x)
        n_steps = -(-(x.shape[1] + steps.delay) // chunk)
        more = n_steps * chunk - steps.lead - x.shape[1]
        padded = np.pad(x, ((0, 0), (steps.lead, max(0, more)), (0, 0)))
        states, found = [steps.begin(1)] * n, []
        for k in range(n_steps):
            frames = padded[:, k * chunk : (k + 1) * chunk]
            log_probs, states = steps.take(list(frames), lens, states)
            found.append(log_probs)
        whole = np.concatenate(found, axis=1)[:, steps.delay :]
        return [row[:end] for row, end in zip(whole, lens, strict=True)]

    def _steps(self, latency: Latency) -> OnnxSteps:
        return OnnxSteps(self._opened(self.folder / step_name(latency)), latency)

    def _opened(self, path: Path) -> onnxruntime.InferenceSession:
        opened = session(path)
        given = {each.name: each.shape for each in (*opened.get_inputs(), *opened.get_outputs())}
        features = given.get("features") or given.get("frames") or [0]
        found = features[-1], (given.get("log_probs") or [0])[-1]
        if found != self.sizes:
            raise InputError(
                f"{path}: makes {found[0]} features {found[1]} log-probabilities, the folder's "
                f"configuration says {self.sizes[0]} and {self.sizes[1]}; export the model again"
            )
        return opened


class OnnxSteps:
    """Steps of streams at different places, as `asr.nets.live.Live` takes them."""

    def __init__(self, session: onnxruntime.InferenceSession, latency: Latency) -> None:
        self.session, self.latency = session, latency
        told = session.get_modelmeta().custom_metadata_map
        self.lead, self.delay = int(told["lead"]), int(told["delay"])
        self.outputs = [each.name for each in session.get_outputs()]

    def begin(self, n_streams: int) -> State:
        """The state of streams that begin: (n_streams, ...) each."""
        kinds = {"tensor(int64)": np.int64, "tensor(float)": np.float32}
        return {
            each.name: np.zeros((n_streams, *each.shape[1:]), kinds[each.type])
            for each in self.session.get_inputs()
            if f"next_{each.name}" in self.outputs
        }

    def renewed(self, state: State) -> State:
        """The state with layers that begin, after the frames before them."""
        return {
            name: part if BESIDE_LAYERS.fullmatch(name) else np.zeros_like(part)
            for name, part in state.items()
        }

    def take(
        self, frames: Sequence[NDArray[np.float32]], lens: Sequence[int], states: Sequence[State]
    ) -> tuple[NDArray[np.float32], list[State]]:
        """See `asr.nets.live.Live.take`."""
        before = {name: np.concatenate([s[name] for s in states]) for name in states[0]}
        inputs = {"frames": np.stack(frames), "lens": np.array(lens), **before}
        found = dict(zip(self.outputs, _run(self.session, inputs), strict=True))
        after = [
            {name: found[f"next_{name}"][i : i + 1] for name in before} for i in range(len(frames))
        ]
        return found["log_probs"], after


def _run(
    session: onnxruntime.InferenceSession, inputs: dict[str, NDArray[Any]]
) -> list[NDArray[Any]]:
    try:
        return list(session.run(None, inputs))
    except Exception as error:  # onnxruntime's errors have no base of their own
        if "allocate memory" in str(error) or "bad allocation" in str(error):
            raise MemoryError("on cpu") from error
        raise


def is_runtime(folder: Path) -> bool:
    """Whether a model directory is one for onnxruntime."""
    return (folder / NET_WEIGHTS).is_file()


def load_runtime(folder: Path) -> Bundle:
    """Read a model directory for onnxruntime.

    Raises:
        InputError: something is missing or broken, or onnxruntime is not installed; the line
            names the file.
    """
    parts = load_parts(folder)
    path = folder / ARRAYS
    try:
        arrays = load_file(path) if path.is_file() else {}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error})") from error
    latencies = parts["architecture"].latencies or (Latency(1, 0),)
    there = [latency for latency in latencies if (folder / step_name(latency)).is_file()]
    sizes = parts["features"].size, len(parts["labels"])
    return with_arrays(parts, OnnxNet(folder, there, sizes), arrays)
