"""All that a recipe can say: the typed sections of a run's configuration."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from asr.augment import AugmentConfig
from asr.decode.decoder import DecoderConfig
from asr.errors import InputError
from asr.features import FeatureConfig
from asr.labels import LabelConfig
from asr.losses import LossConfig
from asr.models.recurrent import RecurrentConfig

OPTIMIZERS = ("adamw", "adam")
SCHEDULES = ("constant", "linear", "cosine", "plateau")


@dataclass
class CorpusConfig:
    """Where the utterances come from; ``train``, ``dev`` and ``test`` name its sets.

    lexicon: a file (word TAB phones) to decode words from phones with, relative to the root.
    """

    kind: str = "timit"
    root: str = ""
    train: list[str] = field(default_factory=lambda: ["train"])
    dev: str = "dev"
    test: list[str] = field(default_factory=lambda: ["test"])
    lexicon: str = ""


@dataclass
class OptimConfig:
    """Optimizer and learning rate; ``plateau_*`` hold for schedule=plateau alone."""

    name: str = "adamw"
    lr: float = 1e-3
    weight_decay: float = 1e-2
    clip_norm: float = 5.0
    schedule: str = "linear"
    warmup_epochs: float = 0.5
    plateau_epochs: int = 2
    plateau_factor: float = 0.5

    def __post_init__(self) -> None:
        if self.name not in OPTIMIZERS:
            raise InputError(
                f"optim.name={self.name!r} does not exist; choose one of {', '.join(OPTIMIZERS)}"
            )
        if self.schedule not in SCHEDULES:
            raise InputError(
                f"optim.schedule={self.schedule!r} does not exist; "
                f"choose one of {', '.join(SCHEDULES)}"
            )
        if not (0 < self.lr < math.inf and self.clip_norm > 0):
            raise InputError("optim: lr and clip_norm must both be above 0, and lr finite")
        if self.warmup_epochs < 0 or self.plateau_epochs < 1:
            raise InputError(
                "optim: expected warmup_epochs of 0 or more, plateau_epochs of 1 or more"
            )


@dataclass
class LmConfig:
    """Orders of n-grams over labels and words, estimated from train's transcripts; 0: none."""

    label_order: int = 0
    word_order: int = 0

    def __post_init__(self) -> None:
        if self.label_order < 0 or self.word_order < 0:
            raise InputError("lm: label_order and word_order must be 0 (none) or more")


@dataclass
class TrainerConfig:
    """The loop. patience: epochs without a better dev error rate before stopping; 0 never stops.

    max_batch_s: padded audio seconds in a batch at most. max_bad_steps: steps with infinite or
    NaN loss before giving up. max_skipped: share of a set's utterances that may be left out.
    device: cpu, cuda, or auto. precision: float32, or bfloat16 (faster on processors with
    AMX; weights, loss and updates stay float32). tune: choose the decoder's weights on dev at the
    end.
    """

    max_epochs: int = 30
    batch_size: int = 16
    max_batch_s: float = 240.0
    patience: int = 0
    max_bad_steps: int = 20
    max_skipped: float = 0.1
    device: str = "auto"
    precision: str = "float32"
    tune: bool = True

    def __post_init__(self) -> None:
        if self.max_epochs < 1 or self.batch_size < 1 or self.max_batch_s <= 0:
            raise InputError("trainer: max_epochs, batch_size and max_batch_s must be above 0")
        if self.patience < 0 or self.max_bad_steps < 0 or not 0 <= self.max_skipped <= 1:
            raise InputError(
                "trainer: expected patience and max_bad_steps of 0 or more, max_skipped of 0 to 1"
            )
        if self.device not in ("auto", "cpu", "cuda"):
            raise InputError(f"trainer.device={self.device!r}: expected auto, cpu or cuda")
        if self.precision not in ("float32", "bfloat16"):
            raise InputError(f"trainer.precision={self.precision!r}: expected float32 or bfloat16")


@dataclass
class RunConfig:
    """All of a run."""

    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    labels: LabelConfig = field(default_factory=LabelConfig)
    features: FeatureConfig = field(default_factory=FeatureConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    model: RecurrentConfig = field(default_factory=RecurrentConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    lm: LmConfig = field(default_factory=LmConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    seed: int = 1
    run_dir: str = ""

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise InputError(f"seed={self.seed}: expected 0 or more")
