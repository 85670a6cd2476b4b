"""CTC models in single ONNX files: those that `asr export` writes, and those from elsewhere."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load as tensors_of

from asr.audio.features import FeatureConfig, FrameClock
from asr.decode.viterbi import Transitions
from asr.errors import InputError, first_line
from asr.labels import BLANK_SYMBOL, SPACE, LabelConfig, Labels
from asr.model.bundle import Bundle, read_settings
from asr.model.runtime import session as open_session
from asr.model.waveform import WaveformModel
from asr.nets.config import RecurrentConfig

if TYPE_CHECKING:
    import onnxruntime

#: What wav2vec 2.0's convolutions see of a 16 kHz waveform for one frame, and the way to the next
#: (Baevski et al. 2020, section 4.2: 25 ms and 20 ms); HuBERT has the same ones.
WAV2VEC2_FIELD, WAV2VEC2_HOP = 400, 320


def default_threads() -> int:
    """Threads that a net computes with where nobody says: as many as OpenMP's."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    return int(told) if told.isdecimal() and int(told) else os.cpu_count() or 1


def onnx_model(path: Path, n_threads: int | None = None) -> Bundle:
    """A CTC model in an ONNX file: one that `model.onnx` wrote, or any that a `Sidecar` describes.

    Raises:
        InputError: onnxruntime is not installed, or the file cannot be read or has other inputs
            and outputs than expected.
    """
    session = open_session(path, n_threads or default_threads())
    metadata = session.get_modelmeta().custom_metadata_map
    if "carousel" in metadata:
        return _exported(path, session, metadata)
    sidecar = Sidecar.read(path.with_suffix(".json"), path)
    columns = sidecar.columns
    inputs = session.get_inputs()
    if len(inputs) != 1 or inputs[0].type != "tensor(float)" or len(inputs[0].shape) != 2:
        found = ", ".join(f"{i.name} {i.shape} {i.type}" for i in inputs)
        raise InputError(f"{path}: expected one input, waveforms (B, N) float32, found {found}")
    name, output = inputs[0].name, session.get_outputs()[0].name

    def run(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
        if sidecar.normalize:
            waveform = (waveform - waveform.mean()) / np.sqrt(waveform.var() + np.float32(1e-7))
        (logits,) = session.run([output], {name: waveform[None]})
        if logits.ndim != 3 or logits.shape[2] != len(columns):
            raise InputError(
                f"{path}: expected an output (1, T, {len(columns)}), as many as "
                f"{path.with_suffix('.json').name} has labels, found {logits.shape}"
            )
        found: NDArray[np.float32] = logits[0][:, columns].astype(np.float32)
        return found

    model = WaveformModel(run, sidecar.receptive_field)
    try:
        model(np.zeros(sidecar.sample_rate, np.float32))
    except InputError:
        raise
    except Exception as error:  # onnxruntime's errors have no base of their own
        raise InputError(f"{path}: does not run ({first_line(error)})") from error
    symbols = [sidecar.labels[i] for i in columns]
    return bundle_of_waveforms(
        [BLANK_SYMBOL, *(SPACE if s == sidecar.space else s for s in symbols[1:])],
        sidecar.unit,
        sidecar.sample_rate,
        sidecar.hop_length,
        sidecar.receptive_field,
        model,
    )


@dataclass(frozen=True)
class Sidecar:
    """``model.json`` beside ``model.onnx``: what that file from elsewhere does not tell of itself.

    labels: what the net puts out, in its order, with its own symbols for ``blank`` and ``space``
    (between words). unit: char, phone or word. hop_length: samples from a frame to the next.
    receptive_field: samples that a frame sees, which give it its place in time. normalize: whether
    waveforms are to be shifted and scaled to zero mean and unit variance.
    """

    labels: list[str]
    sample_rate: int = 16_000
    hop_length: int = WAV2VEC2_HOP
    receptive_field: int = WAV2VEC2_FIELD
    blank: str = "<pad>"
    space: str = "|"
    unit: str = "char"
    normalize: bool = False

    @property
    def columns(self) -> list[int]:
        """The net's labels with the blank first."""
        blank = self.labels.index(self.blank)
        return [blank, *(i for i in range(len(self.labels)) if i != blank)]

    @classmethod
    def read(cls, path: Path, model: Path) -> Sidecar:
        """Read ``path``, the description of ``model``.

        Raises:
            InputError: it is missing or not as described.
        """
        if not path.is_file():
            raise InputError(
                f"{model}: not exported by asr export; to use it all the same, write its labels "
                f'and sample rate to {path}: {{"labels": ["<pad>", "|", "E", ...], '
                '"sample_rate": 16000}'
            )
        try:
            found = cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise InputError(f"{path}: not a description of a CTC model ({error})") from error
        labels = found.labels
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            raise InputError(f"{path}: labels: expected a list of strings")
        if found.blank not in labels:
            raise InputError(f'{path}: no label {found.blank!r}; say which is the blank: "blank"')
        for name in ("sample_rate", "hop_length", "receptive_field"):
            value = getattr(found, name)
            if not isinstance(value, int) or value < 1:
                raise InputError(f"{path}: {name}: expected a whole number above 0, found {value}")
        return found


def _exported(
    path: Path, session: onnxruntime.InferenceSession, metadata: Mapping[str, str]
) -> Bundle:
    """The model that `asr.model.onnx` wrote."""
    if metadata.get("streaming") == "true":
        raise InputError(
            f"{path}: was exported with --streaming; export it without, to use it here"
        )
    try:
        settings, symbols = (json.loads(metadata[key]) for key in ("carousel", "labels"))
        stored = metadata.get("transitions")
        arrays = stored and tensors_of(base64.b64decode(stored))
    except Exception as error:
        raise InputError(f"{path}: broken metadata ({first_line(error)})") from error
    if not isinstance(symbols, list) or not all(isinstance(s, str) for s in symbols):
        raise InputError(f"{path}: broken metadata (labels: expected a list of strings)")
    outputs = {output.name: output.shape for output in session.get_outputs()}
    if len(outputs.get("log_probs", ())) != 3:
        raise InputError(f"{path}: expected an output log_probs (B, T, V), found {outputs}")
    if outputs["log_probs"][2] != len(symbols):
        raise InputError(
            f"{path}: puts out {outputs['log_probs'][2]} labels, and its metadata name "
            f"{len(symbols)}; export the model again"
        )
    found = read_settings(settings, path)

    def run(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
        inputs = {"waveform": waveform[None], "n_samples": np.array([len(waveform)])}
        (log_probs,) = session.run(["log_probs"], inputs)
        found: NDArray[np.float32] = log_probs[0]
        return found

    return Bundle(
        **found,
        labels=Labels(found["label_config"].unit, tuple(symbols)),
        model=WaveformModel(run),
        transitions=Transitions.from_arrays(arrays) if arrays else None,
    )


def bundle_of_waveforms(
    symbols: Sequence[str],
    unit: str,
    sample_rate: int,
    hop_length: int,
    field: int,
    model: WaveformModel,
) -> Bundle:
    features = FeatureConfig(
        sample_rate, hop_length=hop_length, max_hz=sample_rate / 2, normalize="none", stack=1
    )
    # A frame lies where the middle of what it sees lies.
    offset_s = (field - 1) / 2 / sample_rate
    return Bundle(
        features,
        RecurrentConfig(),
        Labels(unit, tuple(symbols)),
        LabelConfig(unit),
        "ctc",
        model,
        frames=FrameClock(hop_length / sample_rate, 1, offset_s),
    )
