"""Models by their names: directories, with PyTorch or without, ONNX files, torchaudio's bundles.

Any of them becomes a `Bundle`, so that the decoders, lexicons, language models, times and formats
serve those from elsewhere as they serve our own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr.errors import InputError, first_line
from asr.labels import BLANK_SYMBOL, SPACE
from asr.model.bundle import Bundle, model_folder
from asr.model.hub import HUB, fetched
from asr.model.onnx_files import WAV2VEC2_FIELD, WAV2VEC2_HOP, bundle_of_waveforms, onnx_model
from asr.model.runtime import is_runtime, load_runtime
from asr.model.waveform import WaveformModel
from asr.system.device import OF_CPU, pick_device

TORCHAUDIO = "torchaudio:"


def load_model(name: str | Path, device: str = "cpu", n_threads: int | None = None) -> Bundle:
    """Load what ``--model`` names, to compute on ``device`` (see `pick_device`).

    A model (or run) directory, of PyTorch or of `asr.model.runtime`; ``torchaudio:BUNDLE``, whose
    weights torchaudio fetches if it has not done so before, or ``torchaudio:BUNDLE=FILE`` with its
    weights in a file; or ``FILE.onnx``, see `onnx_model`; ``hf:USER/NAME`` or
    ``hf:USER/NAME@REVISION``, a model directory on the Hugging Face hub. Several model directories,
    with commas between, become an ensemble. n_threads: that a net in one ONNX file computes with.

    Raises:
        InputError: there is no such model or device, it cannot be read or fetched, or it needs
            PyTorch, which is not installed.
    """
    name = str(name)
    several = "," in name and not Path(name).exists()
    if name.endswith(".onnx"):
        _check_cpu(name, device)
        return onnx_model(Path(name), n_threads)
    if not name.startswith(TORCHAUDIO) and not several:
        folder = fetched(name) if name.startswith(HUB) else model_folder(Path(name))
        if is_runtime(folder):
            _check_cpu(name, device)
            return load_runtime(folder)
    try:
        from asr.model.ensemble import combined
        from asr.model.weights import load_bundle
    except ModuleNotFoundError as error:
        raise InputError(
            f"{name}: needs {error.name}, which is not installed: pip install carousel-asr; or "
            "export the model where it is: asr export --model DIR --out FOLDER"
        ) from error
    target = pick_device(device)
    if name.startswith(TORCHAUDIO):
        bundle, _, weights = name.removeprefix(TORCHAUDIO).partition("=")
        return torchaudio_model(bundle, Path(weights) if weights else None, device)
    if several:
        found = combined({each: load_bundle(Path(each)) for each in name.split(",")})
    else:
        found = load_bundle(folder)
    found.model.to(target)
    return found


def _check_cpu(name: str, device: str) -> None:
    if device not in OF_CPU:
        raise InputError(f"device {device}: {name} computes on the CPU; use auto or cpu")


def torchaudio_model(name: str, weights: Path | None = None, device: str = "cpu") -> Bundle:
    """A CTC bundle of torchaudio by its name, perhaps with its weights from a file.

    Raises:
        InputError: torchaudio knows no such bundle, or the weights cannot be fetched or read.
    """
    import torch
    from torchaudio import pipelines

    target = pick_device(device)

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
            reason = first_line(error)
            if "weights_only" in reason:  # torch goes on to advise running the code in the file
                reason = "no tensors that torch.save wrote"
            raise InputError(f"{weights}: not the weights of {name} ({reason})") from error
        raise InputError(
            f"{TORCHAUDIO}{name}: the weights cannot be fetched ({first_line(error)}); if you "
            f"have them in a file: {TORCHAUDIO}{name}=FILE"
        ) from error
    net.to(target)

    @torch.inference_mode()
    def run(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
        logits, _ = net(torch.from_numpy(waveform)[None].to(target))
        found: NDArray[np.float32] = logits[0].float().cpu().numpy()
        return found

    labels = source.get_labels(**({"star": None} if is_aligner else {}))
    return bundle_of_waveforms(
        [BLANK_SYMBOL, *(SPACE if label == "|" else label for label in labels[1:])],
        "char",
        int(source.sample_rate),
        WAV2VEC2_HOP,
        WAV2VEC2_FIELD,
        WaveformModel(run, WAV2VEC2_FIELD),
    )
