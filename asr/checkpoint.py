"""Model directories and training states: safetensors and JSON, written whole or not at all.

A model directory holds everything that using the model takes:
    weights.safetensors  the model, its feature statistics, its framewise transitions
    config.json          settings of features, model, labels and decoder
    labels.txt           the label inventory, blank first
    lexicon.txt          (optional) word TAB labels
    labels.arpa, words.arpa  (optional) n-grams over labels and over words
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from asr.decode.decoder import Decoder, DecoderConfig
from asr.decode.lexicon import Lexicon
from asr.decode.viterbi import Transitions
from asr.errors import InputError
from asr.features import FeatureConfig, FrameClock, Statistics, frame_clock
from asr.files import write_aside, write_text
from asr.labels import LabelConfig, Labels
from asr.lm.ngram import NGram
from asr.models.acoustic import AcousticModel
from asr.models.recurrent import RecurrentConfig

FORMAT = "carousel-model-1"
WEIGHTS, CONFIG, LABELS = "weights.safetensors", "config.json", "labels.txt"
LEXICON, LABEL_LM, WORD_LM = "lexicon.txt", "labels.arpa", "words.arpa"


@dataclass
class Bundle:
    """A model and what belongs to it, in memory. ``criterion`` is the loss it was trained with."""

    features: FeatureConfig
    architecture: RecurrentConfig
    labels: Labels
    label_config: LabelConfig
    criterion: str
    model: AcousticModel
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    stats: Statistics | None = None
    transitions: Transitions | None = None
    lexicon: Lexicon | None = None
    label_lm: NGram | None = None
    word_lm: NGram | None = None

    @property
    def clock(self) -> FrameClock:
        """Model frames <-> seconds."""
        return frame_clock(self.features, self.architecture.subsampling)

    def make_decoder(self, config: DecoderConfig) -> Decoder:
        """The decoder that ``config`` names, with this model's language models and lexicon."""
        return Decoder(
            config,
            self.labels,
            transitions=self.transitions,
            lexicon=self.lexicon,
            label_lm=self.label_lm,
            word_lm=self.word_lm,
        )


def save_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]
) -> None:
    """Write a safetensors file aside, sync and rename it.

    Raises:
        InputError: the disk is full or the folder not writable; an older file at ``path`` survives.
    """
    with write_aside(path) as aside:
        try:
            save_file(
                {name: t.detach().cpu().contiguous() for name, t in tensors.items()},
                aside,
                dict(metadata),
            )
        except SafetensorError as error:
            raise InputError(f"{path}: cannot be written ({error})") from error


def load_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read a safetensors file: tensors and metadata.

    Raises:
        InputError: missing, truncated or not safetensors.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected weights saved by asr train")
    try:
        with safe_open(path, framework="pt") as handle:
            return {k: handle.get_tensor(k) for k in handle.keys()}, handle.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error})") from error


def save_bundle(folder: Path, bundle: Bundle) -> None:
    """Write a model directory; each file is replaced whole, the weights last."""
    config: dict[str, Any] = {
        "format": FORMAT,
        "criterion": bundle.criterion,
        "features": asdict(bundle.features),
        "model": asdict(bundle.architecture),
        "labels": asdict(bundle.label_config),
        "decoder": asdict(bundle.decoder),
    }
    write_text(folder / CONFIG, json.dumps(config, indent=2) + "\n")
    bundle.labels.save(folder / LABELS)
    if bundle.label_lm is not None:
        bundle.label_lm.write_arpa(folder / LABEL_LM)
    if bundle.word_lm is not None:
        bundle.word_lm.write_arpa(folder / WORD_LM)
    save_weights(folder, bundle)


def save_weights(folder: Path, bundle: Bundle) -> None:
    """Replace the weights of a model directory, nothing else."""
    tensors = {f"model.{k}": t for k, t in bundle.model.state_dict().items()}
    if bundle.stats is not None:
        tensors |= {"features.mean": bundle.stats.mean, "features.std": bundle.stats.std}
    if bundle.transitions is not None:
        for name, array in bundle.transitions.to_arrays().items():
            tensors[f"transitions.{name}"] = torch.from_numpy(np.ascontiguousarray(array))
    save_tensors(folder / WEIGHTS, tensors, {"format": FORMAT})


def load_bundle(folder: Path) -> Bundle:
    """Read a model directory, or the model of a run directory.

    Raises:
        InputError: something is missing, of another version, or of another shape than the
            configuration says; the line names the file.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such model directory")
    if not (folder / CONFIG).is_file() and (folder / "model" / CONFIG).is_file():
        folder = folder / "model"
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no readable model configuration ({error})") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        found = config.get("format") if isinstance(config, dict) else config
        raise InputError(f"{path}: expected a model of format {FORMAT!r}, found {found!r}")
    try:
        features = FeatureConfig(**config["features"])
        architecture = RecurrentConfig(**config["model"])
        label_config = LabelConfig(**config["labels"])
        decoder = DecoderConfig(**config["decoder"])
        criterion = config["criterion"]
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: not a configuration of this version ({error})") from error
    labels = Labels.load(folder / LABELS)
    tensors, _ = load_tensors(folder / WEIGHTS)
    model = AcousticModel(architecture, features.size, len(labels))
    load_weights(model, _under("model.", tensors), folder / WEIGHTS)
    stats = _under("features.", tensors)
    transitions = {k: t.numpy() for k, t in _under("transitions.", tensors).items()}
    lexicon, label_lm, word_lm = (folder / name for name in (LEXICON, LABEL_LM, WORD_LM))
    return Bundle(
        features,
        architecture,
        labels,
        label_config,
        criterion,
        model.eval(),
        decoder,
        Statistics(stats["mean"], stats["std"]) if stats else None,
        Transitions.from_arrays(transitions) if transitions else None,
        Lexicon.read(lexicon, labels, label_config.fold) if lexicon.is_file() else None,
        NGram.read_arpa(label_lm) if label_lm.is_file() else None,
        NGram.read_arpa(word_lm) if word_lm.is_file() else None,
    )


def load_weights(model: torch.nn.Module, tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Load ``tensors`` into ``model``.

    Raises:
        InputError: names or shapes differ; the line names the first difference.
    """
    own = model.state_dict()
    for name in sorted(own.keys() | tensors.keys()):
        if name not in tensors or name not in own:
            side = "the file lacks" if name not in tensors else "the model does not have"
            raise InputError(f"{path}: another architecture than configured: {side} {name!r}")
        if own[name].shape != tensors[name].shape:
            raise InputError(
                f"{path}: {name!r} has shape {tuple(tensors[name].shape)}, "
                f"the configured model expects {tuple(own[name].shape)}"
            )
    model.load_state_dict(tensors)


def _under(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}
