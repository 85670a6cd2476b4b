"""Model directories and training states: safetensors and JSON, written whole or not at all.

A model directory holds everything that using the model takes:
    weights.safetensors  the model, its feature statistics, its framewise transitions (without
        PyTorch: what `asr.model.runtime` says)
    config.json          settings of features, model, labels and decoder
    labels.txt           the label inventory, blank first
    lexicon.txt          (optional) word TAB labels
    labels.arpa, words.arpa  (optional) n-grams over labels and over words
    rescore.arpa          (optional) n-gram that scores the best hypotheses again
    labels_lm/ words_lm/ rescore_lm/  (optional) neural language models in their places
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from asr.audio.features import ONCE, FeatureConfig, FrameClock, LogMel, Statistics, frame_clock
from asr.decode.confidence import Calibration
from asr.decode.config import DecoderConfig
from asr.decode.decoder import Decoder
from asr.decode.lexicon import Lexicon
from asr.decode.viterbi import Transitions
from asr.errors import InputError
from asr.labels import LabelConfig, Labels
from asr.lm.ngram import NGram
from asr.lm.query import LanguageModel, load_neural
from asr.model.waveform import WaveformModel
from asr.nets.config import LossConfig, RecurrentConfig
from asr.system.files import sync_folder, write_text

T = TypeVar("T")
FORMAT = "carousel-model-1"
CONFIG, LABELS, LEXICON = "config.json", "labels.txt", "lexicon.txt"
#: The `Bundle`'s language models, and how their files' names begin.
LANGUAGE_MODELS = {"label_lm": "labels", "word_lm": "words", "rescore_lm": "rescore"}
#: What `replaced_together` leaves where a process is killed: half written, and wholly.
HALF_WRITTEN, WRITTEN = ".new.part", ".new"


@dataclass
class Bundle:
    """A model and what belongs to it, in memory.

    model: in PyTorch an `AcousticModel`, or an `Ensemble` of ``architecture`` and ``others``;
    without it a `runtime.OnnxNet`, which has their ``log_probs``; or a `waveform.WaveformModel`: of
    ``features`` and ``architecture`` only the sample rate and the hop are true of that one, and
    ``frames`` says where its frames lie. criterion: the loss it was trained with. calibrations: of
    confidences, by `Decoder.title`. log_priors: (V,) of `Decoder`. start: the model that its
    training started from, if any, and what came with that.
    """

    features: FeatureConfig
    architecture: RecurrentConfig
    labels: Labels
    label_config: LabelConfig
    criterion: str
    model: Any
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
        from_elsewhere = isinstance(self.model, WaveformModel)
        one = not self.others and not from_elsewhere
        return one and self.architecture.streams and not whole

    @cached_property
    def log_mel(self) -> LogMel:
        """What computes the features, before they are normalised."""
        return LogMel(self.features)

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
    if isinstance(lm, NGram):
        lm.write_arpa(arpa)
        if neural.is_dir():
            shutil.rmtree(neural)
    elif lm is not None:
        lm.save(neural)
        arpa.unlink(missing_ok=True)


def load_own_lm(folder: Path, name: str) -> LanguageModel | None:
    """Read a language model of a model directory, where it has one."""
    arpa, neural = _lm_places(folder, name)
    if neural.is_dir():
        return load_neural(neural)
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


def model_folder(folder: Path) -> Path:
    """The model directory itself, or that of a run directory.

    Raises:
        InputError: there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such model directory")
    is_run = not (folder / CONFIG).is_file() and (folder / "model" / CONFIG).is_file()
    return folder / "model" if is_run else folder


def save_parts(folder: Path, bundle: Bundle) -> None:
    """Write all of a model directory but what computes, and the lexicon."""
    settle(folder)
    bundle.labels.save(folder / LABELS)
    for name in LANGUAGE_MODELS:
        save_own_lm(folder, bundle, name)
    save_config(folder, bundle)


def load_parts(folder: Path) -> dict[str, Any]:
    """The fields of a `Bundle` that a model directory holds in texts.

    Raises:
        InputError: something is missing, broken or of another version; the line names the file.
    """
    settle(folder)
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: no readable model configuration ({error})") from error
    found = read_settings(config, path)
    labels = Labels.load(folder / LABELS)
    if (n := len(found["log_priors"])) not in (0, len(labels)):
        raise InputError(f"{path}: expected {len(labels)} log_priors, one a label, found {n}")
    lexicon, fold = folder / LEXICON, found["label_config"].fold
    return {
        **found,
        "labels": labels,
        "lexicon": Lexicon.read(lexicon, labels, fold) if lexicon.is_file() else None,
        **{name: load_own_lm(folder, name) for name in LANGUAGE_MODELS},
    }


def arrays_of(bundle: Bundle) -> dict[str, NDArray[Any]]:
    """What a model directory holds of numbers beside the net's, by name."""
    stats, transitions = bundle.stats, bundle.transitions
    found = {"features.mean": stats.mean, "features.std": stats.std} if stats else {}
    for name, array in (transitions.to_arrays() if transitions else {}).items():
        found[f"transitions.{name}"] = np.ascontiguousarray(array)
    return found


def with_arrays(parts: Mapping[str, Any], model: Any, arrays: Mapping[str, NDArray[Any]]) -> Bundle:
    """The model of `load_parts` and `arrays_of`."""
    stats, transitions = under("features.", arrays), under("transitions.", arrays)
    return Bundle(
        **parts,
        model=model,
        stats=Statistics(stats["mean"], stats["std"]) if stats else None,
        transitions=Transitions.from_arrays(transitions) if transitions else None,
    )


def under(prefix: str, named: Mapping[str, T]) -> dict[str, T]:
    """What has a name that begins so, without that."""
    return {k.removeprefix(prefix): v for k, v in named.items() if k.startswith(prefix)}


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
