"""Model directories and training states: safetensors and JSON, written whole or not at all.

A model directory holds everything that using the model takes:
    weights.safetensors  the model, its feature statistics, its framewise transitions
    config.json          settings of features, model, labels and decoder
    labels.txt           the label inventory, blank first
    lexicon.txt          (optional) word TAB labels
    labels.arpa, words.arpa  (optional) n-grams over labels and over words
    rescore.arpa          (optional) n-gram that scores the best hypotheses again
    labels_lm/ words_lm/ rescore_lm/  (optional) neural language models in their places
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from asr.audio.features import ONCE, FeatureConfig, FrameClock, LogMel, Statistics, frame_clock
from asr.decode.confidence import Calibration
from asr.decode.config import DecoderConfig
from asr.decode.decoder import Decoder
from asr.decode.lexicon import Lexicon
from asr.decode.viterbi import Transitions
from asr.errors import InputError
from asr.labels import LabelConfig, Labels
from asr.lm.lstm import NeuralLM
from asr.lm.ngram import NGram
from asr.lm.query import LanguageModel
from asr.nets.acoustic import AcousticModel, Ensemble, sketched
from asr.nets.losses import LossConfig
from asr.nets.recurrent import RecurrentConfig
from asr.system.device import device_of
from asr.system.files import sync_folder, write_aside, write_text

FORMAT = "carousel-model-1"
CHECKSUM = "checksum"
WEIGHTS, CONFIG, LABELS = "weights.safetensors", "config.json", "labels.txt"
LEXICON = "lexicon.txt"
#: The `Bundle`'s language models, and how their files' names begin.
LANGUAGE_MODELS = {"label_lm": "labels", "word_lm": "words", "rescore_lm": "rescore"}
#: What `replaced_together` leaves where a process is killed: half written, and wholly.
HALF_WRITTEN, WRITTEN = ".new.part", ".new"


@dataclass
class Bundle:
    """A model and what belongs to it, in memory.

    model: an `AcousticModel`, an `Ensemble` of ``architecture`` and ``others``, or a
    `pretrained.WaveformModel`; of ``features`` and ``architecture`` only the sample rate and the
    hop are true of the last, and ``frames`` says where its frames lie. criterion: the loss it was
    trained with. calibrations: of confidences, by `Decoder.title`. log_priors: (V,) of `Decoder`.
    start: the model that its training started from, if any, and what came with that.
    """

    features: FeatureConfig
    architecture: RecurrentConfig
    labels: Labels
    label_config: LabelConfig
    criterion: str
    model: nn.Module
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    stats: Statistics | None = None
    transitions: Transitions | None = None
    lexicon: Lexicon | None = None
    label_lm: LanguageModel | None = None
    word_lm: LanguageModel | None = None
    rescore_lm: LanguageModel | None = None
    calibrations: dict[str, Calibration] = field(default_factory=dict)
    log_priors: tuple[float, ...] = ()
    frames: FrameClock | None = None
    others: tuple[RecurrentConfig, ...] = ()
    start: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.transitions is not None:
            self.transitions.check(len(self.labels))

    @property
    def clock(self) -> FrameClock:
        """Model frames <-> seconds."""
        return self.frames or frame_clock(self.features, self.architecture.subsampling)

    @property
    def streams(self) -> bool:
        """Whether it can go along with speech: neither net nor features need the whole."""
        whole = self.features.normalize in ("utterance", "speaker")
        return isinstance(self.model, AcousticModel) and self.architecture.streams and not whole

    @cached_property
    def log_mel(self) -> LogMel:
        """What computes the features, before they are normalised."""
        return LogMel(self.features)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return device_of(self.model)

    def make_decoder(
        self, config: DecoderConfig, hotwords: Mapping[tuple[str, ...], float] | None = None
    ) -> Decoder:
        """The decoder that ``config`` names, with this model's language models and lexicon."""
        return Decoder(
            config,
            self.labels,
            transitions=self.transitions,
            lexicon=self.lexicon,
            label_lm=self.label_lm,
            word_lm=self.word_lm,
            rescore_lm=self.rescore_lm,
            hotwords=hotwords or {},
            calibrations=self.calibrations,
            log_priors=np.array(self.log_priors, np.float32) if self.log_priors else None,
        )


def save_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]
) -> None:
    """Write a safetensors file, with a checksum among its metadata, aside; sync and rename it.

    Raises:
        InputError: the disk is full or the folder not writable; an older file at ``path`` survives.
    """
    kept = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    with write_aside(path) as aside:
        try:
            save_file(kept, aside, {**metadata, CHECKSUM: checksum(kept, metadata)})
        except SafetensorError as error:
            raise InputError(f"{path}: cannot be written ({error})") from error
        _sort_metadata(aside)


def _sort_metadata(path: Path) -> None:
    """Give a file that safetensors wrote its metadata in order: there it is drawn by chance."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        if len(text) <= size:
            file.seek(8)
            file.write(text.ljust(size))


def load_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read a safetensors file: tensors and metadata.

    Raises:
        InputError: missing, truncated, not safetensors, or not what was saved.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected weights saved by asr train")
    try:
        with safe_open(path, framework="pt") as handle:
            tensors = {k: handle.get_tensor(k) for k in handle.keys()}  # noqa: SIM118
            metadata = dict(handle.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error})") from error
    # Files from elsewhere have none.
    expected = metadata.pop(CHECKSUM, None)
    if expected is not None and expected != checksum(tensors, metadata):
        raise InputError(f"{path}: corrupt: its contents are not what was saved (checksum)")
    return tensors, metadata


def checksum(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> str:
    """A digest of contiguous tensors on the CPU and of texts, names and shapes included."""
    digest = hashlib.blake2b(json.dumps(sorted(metadata.items())).encode(), digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_bundle(folder: Path, bundle: Bundle) -> None:
    """Write a model directory; each file is replaced whole, the weights last."""
    settle(folder)
    bundle.labels.save(folder / LABELS)
    for name in LANGUAGE_MODELS:
        save_own_lm(folder, bundle, name)
    save_config(folder, bundle)
    save_weights(folder, bundle)


@contextmanager
def replaced_together(folder: Path) -> Iterator[Path]:
    """Yield an empty folder; what is in it at the end replaces parts of the model directory.

    All of it or nothing, even where the process is killed: `settle` does what is left to do.

    Raises:
        InputError: the folder cannot be written to or the disk is full; nothing is replaced.
    """
    settle(folder)
    aside = folder / HALF_WRITTEN
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        yield aside
        sync_folder(aside)
        aside.rename(folder / WRITTEN)
        sync_folder(folder)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written to ({error.strerror})") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    settle(folder)


def settle(folder: Path) -> None:
    """Put in place what a killed process had written for a model directory, if there is any.

    Raises:
        InputError: the folder cannot be written to.
    """
    written = folder / WRITTEN
    if not written.is_dir():
        return
    try:
        # What is not found, another process has just put in place.
        with suppress(FileNotFoundError):
            for path in sorted(written.iterdir()):
                for own in (folder / path.name, *_rivals(folder, path.name)):
                    if own.is_dir():
                        shutil.rmtree(own)
                    elif own != folder / path.name:
                        own.unlink(missing_ok=True)
                path.replace(folder / path.name)
            sync_folder(folder)
            written.rmdir()
    except OSError as error:
        raise InputError(
            f"{folder}: an interrupted asr tune has left {WRITTEN} there, which cannot be put in "
            f"place ({error.strerror}): make the folder writable"
        ) from error


def _rivals(folder: Path, name: str) -> Iterator[Path]:
    """What must go where a language model comes: the one of the other kind."""
    for lm in LANGUAGE_MODELS:
        places = _lm_places(folder, lm)
        if folder / name in places:
            yield from (place for place in places if place.name != name)


def save_config(folder: Path, bundle: Bundle) -> None:
    """Replace the settings of a model directory, nothing else."""
    write_text(folder / CONFIG, json.dumps(settings(bundle), indent=2) + "\n")


def settings(bundle: Bundle) -> dict[str, Any]:
    """What config.json holds."""
    others = [asdict(other) for other in bundle.others]
    return {
        "format": FORMAT,
        "criterion": bundle.criterion,
        "features": asdict(bundle.features),
        "model": asdict(bundle.architecture),
        **({"others": others} if others else {}),
        "labels": asdict(bundle.label_config),
        "decoder": asdict(bundle.decoder),
        "confidence": {title: asdict(c) for title, c in bundle.calibrations.items()},
        "log_priors": list(bundle.log_priors),
        "start": dict(bundle.start),
    }


def save_own_lm(folder: Path, bundle: Bundle, name: str) -> None:
    """Replace a language model of a model directory by the bundle's, if that has one."""
    lm: LanguageModel | None = getattr(bundle, name)
    arpa, neural = _lm_places(folder, name)
    if isinstance(lm, NeuralLM):
        lm.save(neural)
        arpa.unlink(missing_ok=True)
    elif lm is not None:
        lm.write_arpa(arpa)
        if neural.is_dir():
            shutil.rmtree(neural)


def load_own_lm(folder: Path, name: str) -> LanguageModel | None:
    """Read a language model of a model directory, where it has one."""
    arpa, neural = _lm_places(folder, name)
    if neural.is_dir():
        return NeuralLM.load(neural)
    return NGram.read_arpa(arpa) if arpa.is_file() else None


def _lm_places(folder: Path, name: str) -> tuple[Path, Path]:
    stem = LANGUAGE_MODELS[name]
    return folder / f"{stem}.arpa", folder / f"{stem}_lm"


def save_lexicon(folder: Path, bundle: Bundle) -> None:
    """Replace the lexicon of a model directory by the bundle's, if that has one."""
    lexicon, labels = bundle.lexicon, bundle.labels
    if lexicon is None:
        return
    lines = []
    for word, spellings in zip(lexicon.words, lexicon.spellings, strict=True):
        if labels.unit == "char":
            lines.append(word)
        else:
            lines += [f"{word}\t{' '.join(labels.decode(spelling))}" for spelling in spellings]
    write_text(folder / LEXICON, "\n".join(lines) + "\n")


def save_weights(
    folder: Path, bundle: Bundle, weights: Mapping[str, torch.Tensor] | None = None
) -> None:
    """Replace the weights of a model directory, nothing else: the model's own, or ``weights``."""
    weights = bundle.model.state_dict() if weights is None else weights
    tensors = {f"model.{k}": t for k, t in weights.items()}
    if bundle.stats is not None:
        for name in ("mean", "std"):
            tensors[f"features.{name}"] = torch.from_numpy(getattr(bundle.stats, name))
    if bundle.transitions is not None:
        for name, array in bundle.transitions.to_arrays().items():
            tensors[f"transitions.{name}"] = torch.from_numpy(np.ascontiguousarray(array))
    save_tensors(folder / WEIGHTS, tensors, {"format": FORMAT})


def model_folder(folder: Path) -> Path:
    """The model directory itself, or that of a run directory.

    Raises:
        InputError: there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such model directory")
    is_run = not (folder / CONFIG).is_file() and (folder / "model" / CONFIG).is_file()
    return folder / "model" if is_run else folder


def load_bundle(folder: Path) -> Bundle:
    """Read a model directory, or the model of a run directory.

    Raises:
        InputError: something is missing, of another version, or of another shape than the
            configuration says; the line names the file.
    """
    folder = model_folder(folder)
    settle(folder)
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: no readable model configuration ({error})") from error
    found = read_settings(config, path)
    labels = Labels.load(folder / LABELS)
    tensors, _ = load_tensors(folder / WEIGHTS)
    features = found["features"]
    architectures = (found["architecture"], *found["others"])

    def make() -> nn.Module:
        nets = [
            AcousticModel(a, features.size, len(labels), features.n_mels) for a in architectures
        ]
        return Ensemble(nets) if len(nets) > 1 else nets[0]

    weights = _under("model.", tensors)
    # Settings come from outside: nothing is allocated for a net that the weights do not fill.
    try:
        sketch = sketched(make)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    check_weights(sketch, weights, folder / WEIGHTS)
    if (n := len(found["log_priors"])) not in (0, len(labels)):
        raise InputError(f"{path}: expected {len(labels)} log_priors, one a label, found {n}")
    model = make()
    model.load_state_dict(weights)
    stats = {k: t.numpy() for k, t in _under("features.", tensors).items()}
    transitions = {k: t.numpy() for k, t in _under("transitions.", tensors).items()}
    lexicon, fold = folder / LEXICON, found["label_config"].fold
    return Bundle(
        **found,
        labels=labels,
        model=model.eval(),
        stats=Statistics(stats["mean"], stats["std"]) if stats else None,
        transitions=Transitions.from_arrays(transitions) if transitions else None,
        lexicon=Lexicon.read(lexicon, labels, fold) if lexicon.is_file() else None,
        label_lm=load_own_lm(folder, "label_lm"),
        word_lm=load_own_lm(folder, "word_lm"),
        rescore_lm=load_own_lm(folder, "rescore_lm"),
    )


def read_settings(config: Any, path: Path) -> dict[str, Any]:
    """Undo `settings`: the fields of a `Bundle` by name. ``path`` is whose they are.

    Raises:
        InputError: they are of another version, or one is not what it may be.
    """
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        found = config.get("format") if isinstance(config, dict) else config
        raise InputError(f"{path}: expected a model of format {FORMAT!r}, found {found!r}")
    try:
        return {
            "features": FeatureConfig(**ONCE | config["features"]),
            "architecture": RecurrentConfig(**config["model"]),
            "others": tuple(RecurrentConfig(**other) for other in config.get("others", ())),
            "label_config": LabelConfig(**config["labels"]),
            "decoder": DecoderConfig(**config["decoder"]),
            "calibrations": {
                title: Calibration(
                    **{part: weights and tuple(weights) for part, weights in c.items()}
                )
                for title, c in config.get("confidence", {}).items()
            },
            "log_priors": _finite(config.get("log_priors", ())),
            "criterion": LossConfig(config["criterion"]).name,
            "start": dict(config.get("start", {})),
        }
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: not a configuration of this version ({error})") from error


def _finite(values: Any) -> tuple[float, ...]:
    found = tuple(map(float, values))
    if not all(map(math.isfinite, found)):
        raise InputError("log_priors: expected finite numbers")
    return found


def load_weights(model: torch.nn.Module, tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Load ``tensors`` into ``model``.

    Raises:
        InputError: names or shapes differ; the line names the first difference.
    """
    check_weights(model, tensors, path)
    model.load_state_dict(tensors)


def check_weights(model: torch.nn.Module, tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Refuse ``tensors`` that are not the weights of ``model``.

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


def _under(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}
