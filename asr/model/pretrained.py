"""CTC models that are no model directory: torchaudio's pretrained bundles, and ONNX files.

Any of them becomes a `Bundle` whose model takes waveforms, so that the decoders, lexicons, language
models, times and formats serve it as they serve our own.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.numpy import load as tensors_of
from torch import nn
from torch.nn import functional as F

from asr.audio.features import FeatureConfig, FrameClock
from asr.decode.viterbi import Transitions
from asr.errors import InputError
from asr.labels import BLANK_SYMBOL, SPACE, LabelConfig, Labels
from asr.model.bundle import Bundle, load_bundle, read_settings
from asr.model.ensemble import combined
from asr.model.hub import HUB, fetched
from asr.nets.recurrent import RecurrentConfig
from asr.system.device import OF_CPU, device_of, pick_device

if TYPE_CHECKING:
    import onnxruntime

TORCHAUDIO = "torchaudio:"
#: What wav2vec 2.0's convolutions see of a 16 kHz waveform for one frame, and the way to the next
#: (Baevski et al. 2020, section 4.2: 25 ms and 20 ms); HuBERT has the same ones.
WAV2VEC2_FIELD, WAV2VEC2_HOP = 400, 320


class WaveformModel(nn.Module):
    """Waveform (N,) -> natural logarithms of label probabilities (T, V), blank 0.

    run: waveforms (1, N), N at least ``least`` samples, -> logits (1, T, V). A module's come
    from where its weights are, all else from the CPU.
    """

    def __init__(self, run: Callable[[torch.Tensor], torch.Tensor], least: int = 1) -> None:
        super().__init__()
        self.run, self.least = run, least

    @torch.inference_mode()
    def forward(self, waveform: np.ndarray) -> np.ndarray:
        """One utterance; alone, for many of these nets would look at the padding of a batch."""
        samples = torch.from_numpy(waveform).to(device_of(self))
        samples = F.pad(samples, (0, max(0, self.least - len(samples))))
        log_probs: np.ndarray = self.run(samples[None])[0].float().log_softmax(1).cpu().numpy()
        return log_probs


class _Logits(nn.Module):
    """What torchaudio's nets give, without the lengths."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.net(waveforms)[0]
        return logits


def load_model(name: str | Path, device: str = "cpu") -> Bundle:
    """Load what ``--model`` names, to compute on ``device`` (see `pick_device`).

    A model (or run) directory; ``torchaudio:BUNDLE``, whose weights torchaudio fetches if it has
    not done so before, or ``torchaudio:BUNDLE=FILE`` with its weights in a file; or ``FILE.onnx``,
    exported by `asr.model.onnx` or described by a `Sidecar`; ``hf:USER/NAME`` or
    ``hf:USER/NAME@REVISION``, a model directory on the Hugging Face hub. Several model directories,
    with commas between, become an ensemble.

    Raises:
        InputError: there is no such model or device, or it cannot be read or fetched.
    """
    name, target = str(name), pick_device(device)
    if name.startswith(TORCHAUDIO):
        bundle, _, weights = name.removeprefix(TORCHAUDIO).partition("=")
        found = torchaudio_model(bundle, Path(weights) if weights else None)
    elif name.startswith(HUB):
        found = load_bundle(fetched(name))
    elif name.endswith(".onnx"):
        if device not in OF_CPU:
            raise InputError(f"device {device}: {name} computes on the CPU; use auto or cpu")
        return onnx_model(Path(name))
    elif "," in name and not Path(name).exists():
        found = combined({each: load_bundle(Path(each)) for each in name.split(",")})
    else:
        found = load_bundle(Path(name))
    found.model.to(target)
    return found


def torchaudio_model(name: str, weights: Path | None = None) -> Bundle:
    """A CTC bundle of torchaudio by its name, perhaps with its weights from a file.

    Raises:
        InputError: torchaudio knows no such bundle, or the weights cannot be fetched or read.
    """
    from torchaudio import pipelines

    known = {
        bundle_name: bundle
        for bundle_name in pipelines.__all__
        if isinstance(bundle := getattr(pipelines, bundle_name), pipelines.Wav2Vec2ASRBundle)
    }
    if name not in known:
        raise InputError(
            f"{TORCHAUDIO}{name}: torchaudio has no such CTC model; choose one of "
            f"{', '.join(known)}"
        )
    source = known[name]
    options: dict[str, Any] = {"map_location": "cpu", "weights_only": True}
    if weights is not None:
        if not weights.is_file():
            raise InputError(f"{weights}: no such file; expected the weights of {name}")
        # What is in the folder already, torchaudio does not fetch.
        options |= {"model_dir": str(weights.parent), "file_name": weights.name}
    # The aligner among them can answer "any label", which is no label of a transcript.
    is_aligner = isinstance(source, pipelines.Wav2Vec2FABundle)
    without_star: dict[str, Any] = {"with_star": False} if is_aligner else {}
    try:
        net = source.get_model(dl_kwargs=options, **without_star)
    except Exception as error:  # torch.load and load_state_dict fail in many ways
        if weights is not None:
            reason = _first_line(error)
            if "weights_only" in reason:  # torch goes on to advise running the code in the file
                reason = "no tensors that torch.save wrote"
            raise InputError(f"{weights}: not the weights of {name} ({reason})") from error
        raise InputError(
            f"{TORCHAUDIO}{name}: the weights cannot be fetched ({_first_line(error)}); if you "
            f"have them in a file: {TORCHAUDIO}{name}=FILE"
        ) from error
    labels = source.get_labels(**({"star": None} if is_aligner else {}))
    return _bundle(
        [BLANK_SYMBOL, *(SPACE if label == "|" else label for label in labels[1:])],
        "char",
        int(source.sample_rate),
        WAV2VEC2_HOP,
        WAV2VEC2_FIELD,
        WaveformModel(_Logits(net), WAV2VEC2_FIELD),
    )


def onnx_model(path: Path) -> Bundle:
    """A CTC model in an ONNX file: one that `model.onnx` wrote, or any that a `Sidecar` describes.

    Raises:
        InputError: onnxruntime is not installed, or the file cannot be read or has other inputs
            and outputs than expected.
    """
    session = _session(path)
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

    def run(waveforms: torch.Tensor) -> torch.Tensor:
        if sidecar.normalize:
            variance, mean = torch.var_mean(waveforms, dim=1, keepdim=True, correction=0)
            waveforms = (waveforms - mean) / (variance + 1e-7).sqrt()
        (logits,) = session.run([output], {name: waveforms.numpy()})
        if logits.ndim != 3 or logits.shape[2] != len(columns):
            raise InputError(
                f"{path}: expected an output (1, T, {len(columns)}), as many as "
                f"{path.with_suffix('.json').name} has labels, found {logits.shape}"
            )
        return torch.from_numpy(logits)[:, :, columns]

    model = WaveformModel(run, sidecar.receptive_field)
    try:
        model(np.zeros(sidecar.sample_rate, np.float32))
    except InputError:
        raise
    except Exception as error:  # onnxruntime's errors have no base of their own
        raise InputError(f"{path}: does not run ({_first_line(error)})") from error
    symbols = [sidecar.labels[i] for i in columns]
    return _bundle(
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


def _session(path: Path) -> onnxruntime.InferenceSession:
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(
            f"{path}: needs the onnxruntime package: pip install 'carousel-asr[onnx]'"
        ) from error
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a model in ONNX")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no base of their own
        raise InputError(f"{path}: not a readable ONNX model ({_first_line(error)})") from error


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
        raise InputError(f"{path}: broken metadata ({_first_line(error)})") from error
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

    def run(waveforms: torch.Tensor) -> torch.Tensor:
        n_samples = np.array([waveforms.shape[1]])
        inputs = {"waveform": waveforms.numpy(), "n_samples": n_samples}
        (log_probs,) = session.run(["log_probs"], inputs)
        return torch.from_numpy(log_probs)

    return Bundle(
        **found,
        labels=Labels(found["label_config"].unit, tuple(symbols)),
        model=WaveformModel(run),
        transitions=Transitions.from_arrays(arrays) if arrays else None,
    )


def _bundle(
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


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
