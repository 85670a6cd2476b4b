"""All that a recipe can say: the typed sections of a run's configuration."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, get_type_hints

import torch

from asr.audio.augment import AugmentConfig
from asr.audio.features import FeatureConfig
from asr.decode.config import DecoderConfig
from asr.errors import InputError
from asr.labels import LabelConfig
from asr.nets.config import LossConfig, RecurrentConfig
from asr.system.settings import check, expected, is_bounded, setting

#: More epochs, or seconds in a batch, than there ever are.
MOST = 1_000_000
MOST_ORDER = 16
OPTIMIZERS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}
SCHEDULES = ("constant", "linear", "cosine", "plateau", "one_cycle")


@dataclass
class CorpusConfig:
    """Where the utterances come from."""

    kind: str = setting("timit", "timit, so762, librispeech, kaldi, jsonl, streamed or synthetic")
    root: str = setting("", "its folder")
    train: list[str] = setting(["train"], "the sets to train on")
    dev: str = setting("dev", "the set that chooses the best epoch and the decoder's weights")
    test: list[str] = setting(["test"], "the sets to score in the end")
    fold: int = setting(
        1,
        "of a corpus that is dealt by speaker in several ways (TIMIT's sample), which: N takes the "
        "sets trainN, devN and testN, 1 those without a number",
        1,
        1000,
    )
    lexicon: str = setting(
        "",
        "a file (word TAB phones, CMUdict's, MFA's or Kaldi's lines), relative to the root: words "
        "are decoded from phones with it, and utterances of words alone get their phones from it",
    )

    def __post_init__(self) -> None:
        check(self, "corpus")


@dataclass
class InitConfig:
    """A model to start from."""

    model: str = setting(
        "",
        "a run or model directory whose layers, and labels of the same names, training starts "
        "from; empty: from nothing",
    )
    freeze_epochs: int = setting(
        0,
        "epochs at the start in which the layers that came with it stay as they are, but the "
        "output layer",
        0,
        MOST,
    )
    depth_decay: float = setting(
        1.0,
        "each layer that came with it learns at this share of the rate of the next, the last one "
        "at this share of the output layer's",
        above=0,
        most=1,
    )

    def __post_init__(self) -> None:
        check(self, "init")
        if not self.model and (self.freeze_epochs or self.depth_decay < 1):
            raise InputError(
                "init.freeze_epochs and init.depth_decay are for layers that come with a model: "
                "name it with init.model=DIR"
            )


@dataclass
class OptimConfig:
    """Optimizer and learning rate."""

    name: str = setting("adamw", "the optimizer", choices=tuple(OPTIMIZERS))
    lr: float = setting(1e-3, "learning rate, at its highest", above=0, most=100)
    weight_decay: float = setting(1e-2, "share of the weights taken off, times lr", 0, 1000)
    clip_norm: float = setting(5.0, "longer gradients are shortened to it", above=0)
    schedule: str = setting("linear", "how the learning rate goes on", choices=SCHEDULES)
    warmup_epochs: float = setting(
        0.5, "the learning rate rises that long, but under one_cycle", 0, MOST
    )
    plateau_epochs: int = setting(
        2, "under plateau: epochs without a better dev error rate before lr falls", 1, MOST
    )
    plateau_factor: float = setting(0.5, "under plateau: how far it falls", above=0, most=1)
    one_cycle_rise: float = setting(
        0.3,
        "under one_cycle (Smith 2018): the share of the training in which the rate rises",
        above=0,
        below=1,
    )
    ema: float = setting(
        0.0,
        "decay of a moving average of the weights, which is judged on dev and kept in their place "
        "(0: none; 0.999 is usual)",
        0,
        below=1,
    )

    def __post_init__(self) -> None:
        check(self, "optim")


@dataclass
class LmConfig:
    """N-grams estimated from train's transcripts."""

    label_order: int = setting(0, "order of the n-gram over labels; 0: none", 0, MOST_ORDER)
    word_order: int = setting(0, "order of the n-gram over words; 0: none", 0, MOST_ORDER)

    def __post_init__(self) -> None:
        check(self, "lm")


@dataclass
class TrainerConfig:
    """The loop."""

    max_epochs: int = setting(30, "epochs at most", 1, MOST)
    batch_size: int = setting(16, "utterances in a batch, of all processes together", 1, 100_000)
    max_batch_s: float = setting(
        240.0, "padded audio seconds in a batch at most", above=0, most=MOST
    )
    patience: int = setting(
        0, "epochs without a better dev error rate before stopping; 0 never stops", 0, MOST
    )
    average_last: int = setting(
        0,
        "at the end, the mean of the weights after that many last epochs becomes the model where "
        "it does better on dev; 0: none",
        0,
        1000,
    )
    average_best: int = setting(0, "the same of the epochs best on dev", 0, 1000)
    curriculum_epochs: int = setting(
        0, "in the first epochs batches come short first (Amodei et al. 2016)", 0, MOST
    )
    feature_cache: str = setting(
        "",
        "a folder that keeps the features for the next run (32 kB for a second of audio at 80 "
        "bins, at each speed); empty: they are computed at the start and held in memory",
    )
    shuffle_buffer: int = setting(
        2000,
        "with corpus.kind=streamed so many utterances at least are mixed at a time (their audio "
        "is held in memory, compressed as it is, twice)",
        1,
        1_000_000_000,
    )
    workers: int = setting(
        4,
        "threads that make batches ahead of the steps (0: between them), on a GPU and for "
        "corpus.kind=streamed",
        0,
        256,
    )
    max_bad_steps: int = setting(
        20, "steps with infinite or NaN loss before giving up", 0, 1_000_000_000
    )
    max_skipped: float = setting(
        0.1, "share of a set's utterances that may be left out before giving up", 0, 1
    )
    max_utterance_s: float = setting(120.0, "longer ones are not trained on", above=0)
    save_minutes: float = setting(
        10.0, "between two checkpoints, beside those at the end of each epoch", above=0
    )
    device: str = setting("auto", "what computes", choices=("auto", "cpu", "cuda"))
    precision: str = setting(
        "float32",
        "bfloat16 is faster on GPUs and on processors with AMX; weights, loss and updates stay "
        "float32",
        choices=("float32", "bfloat16"),
    )
    tune: bool = setting(True, "choose the decoder's weights on dev at the end")
    adapt: bool = setting(
        False,
        "judge the end twice, the second time by nets that are adapted to each speaker by what was "
        "understood of them first, as asr transcribe --adapt does",
    )

    def __post_init__(self) -> None:
        check(self, "trainer")


@dataclass
class RunConfig:
    """All of a run."""

    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    labels: LabelConfig = field(default_factory=LabelConfig)
    features: FeatureConfig = field(default_factory=FeatureConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    model: RecurrentConfig = field(default_factory=RecurrentConfig)
    init: InitConfig = field(default_factory=InitConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    lm: LmConfig = field(default_factory=LmConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    seed: int = setting(1, "of all that is drawn", 0, 2**64 - 1)
    run_dir: str = setting("", "the folder for the results")
    resume: str = setting("", "the directory of an interrupted run to go on with")

    def __post_init__(self) -> None:
        check(self, "")
        if self.loss.framewise_epochs >= self.trainer.max_epochs:
            raise InputError(
                f"loss.framewise_epochs={self.loss.framewise_epochs}: expected fewer than "
                f"trainer.max_epochs={self.trainer.max_epochs}; CTC has its epochs after them"
            )
        if self.loss.label_smoothing and self.loss.name == "ctc" and not self.loss.framewise_epochs:
            raise InputError(
                f"loss.label_smoothing={self.loss.label_smoothing:g} changes nothing under CTC "
                f"without loss.framewise_epochs; leave it at 0, or choose loss.name=framewise"
            )
        if self.trainer.adapt and self.loss.name != "ctc":
            raise InputError(
                f"trainer.adapt=true: nets are adapted by CTC, and loss.name={self.loss.name} has "
                "no blank; leave it at false"
            )
        if self.loss.framewise_weight and self.loss.name != "ctc":
            raise InputError(
                f"loss.framewise_weight={self.loss.framewise_weight:g} changes nothing under "
                f"loss.name={self.loss.name}, which is framewise alone; leave it at 0"
            )
        if self.augment.volume_db and self.features.normalize == "utterance":
            raise InputError(
                f"augment.volume_db={list(self.augment.volume_db)} changes nothing under "
                f"features.normalize=utterance, which takes loudness out; leave it empty, or "
                f"choose features.normalize=speaker, global, online or none"
            )


def described(config: Any, section: str = "") -> list[str]:
    """Every setting as a line, ``section.name=value  # what it means (what it may be)``."""
    hints = get_type_hints(type(config))
    lines = []
    for known in fields(config):
        value, name = getattr(config, known.name), f"{section}{known.name}"
        if is_dataclass(value):
            lines += ["", f"# {type(value).__doc__}".split("\n")[0], *described(value, f"{name}.")]
            continue
        told = known.metadata["meaning"]
        if is_bounded(known):
            told += f" ({expected(known, hints[known.name])})"
        lines.append(f"{name}={written(value)}  # {told}")
    return lines


def written(value: Any) -> str:
    """A value as the command line takes it."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(written, value))}]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return str(value) or "''"
