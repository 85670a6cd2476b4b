"""All that a recipe can say: the typed sections of a run's configuration."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field

from asr.augment import AugmentConfig
from asr.decode.decoder import DecoderConfig
from asr.errors import InputError
from asr.features import FeatureConfig
from asr.labels import LabelConfig
from asr.losses import LossConfig
from asr.models.recurrent import RecurrentConfig

OPTIMIZERS = ("adamw", "adam")
SCHEDULES = ("constant", "linear", "cosine", "plateau", "one_cycle")


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
    """Optimizer and learning rate; ``plateau_*`` hold for schedule=plateau alone.

    one_cycle_rise: under schedule=one_cycle (Smith 2018) the share of the training in which the
    rate rises to ``lr``; ``warmup_epochs`` does not matter there. ema: decay of a moving average of
    the weights, which is judged on dev and kept in their place (0: none; 0.999 is usual).
    """

    name: str = "adamw"
    lr: float = 1e-3
    weight_decay: float = 1e-2
    clip_norm: float = 5.0
    schedule: str = "linear"
    warmup_epochs: float = 0.5
    plateau_epochs: int = 2
    plateau_factor: float = 0.5
    one_cycle_rise: float = 0.3
    ema: float = 0.0

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
        if not (0 <= self.warmup_epochs < math.inf and 0 <= self.weight_decay < math.inf):
            raise InputError("optim: warmup_epochs and weight_decay must be finite and 0 or more")
        if self.plateau_epochs < 1 or not 0 < self.plateau_factor <= 1:
            raise InputError(
                "optim: expected plateau_epochs of 1 or more, plateau_factor above 0 and up to 1"
            )
        if not 0 < self.one_cycle_rise < 1 or not 0 <= self.ema < 1:
            raise InputError(
                "optim: expected one_cycle_rise between 0 and 1, ema of 0 (none) to below 1"
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
    average_last, average_best: at the end, the mean of the weights after that many epochs (the
    last, or the best on dev) becomes the model where it does better on dev; 0: none.
    curriculum_epochs: in the first epochs batches come short first (Amodei et al. 2016).
    feature_cache: a folder that keeps the features for the next run (32 kB for a second of audio at
    80 bins, at each speed); empty: they are computed at the start and held in memory.
    workers: threads that make batches ahead of the steps (0: between them), on a GPU and for
    corpus.kind=streamed, where shuffle_buffer utterances at least are mixed at a time (their audio
    is held in memory, compressed as it is, twice).
    max_utterance_s: longer ones are not trained on. save_minutes: between two checkpoints, beside
    those at the end of each epoch.
    device: cpu, cuda, or auto. precision: float32, or bfloat16 (faster on GPUs and on processors
    with AMX; weights, loss and updates stay float32). tune: choose the decoder's weights on dev at
    the end.
    """

    max_epochs: int = 30
    batch_size: int = 16
    max_batch_s: float = 240.0
    patience: int = 0
    average_last: int = 0
    average_best: int = 0
    curriculum_epochs: int = 0
    feature_cache: str = ""
    shuffle_buffer: int = 2000
    workers: int = 4
    max_bad_steps: int = 20
    max_skipped: float = 0.1
    max_utterance_s: float = 120.0
    save_minutes: float = 10.0
    device: str = "auto"
    precision: str = "float32"
    tune: bool = True

    def __post_init__(self) -> None:
        if min(self.max_epochs, self.batch_size) < 1 or not 0 < self.max_batch_s < math.inf:
            raise InputError(
                "trainer: max_epochs, batch_size and max_batch_s must be above 0, and finite"
            )
        if self.patience < 0 or self.max_bad_steps < 0 or not 0 <= self.max_skipped <= 1:
            raise InputError(
                "trainer: expected patience and max_bad_steps of 0 or more, max_skipped of 0 to 1"
            )
        if min(self.average_last, self.average_best, self.curriculum_epochs) < 0:
            raise InputError(
                "trainer: expected average_last, average_best and curriculum_epochs of 0 or more"
            )
        if self.shuffle_buffer < 1 or self.workers < 0:
            raise InputError("trainer: expected shuffle_buffer above 0 and workers of 0 or more")
        if self.max_utterance_s <= 0 or self.save_minutes <= 0:
            raise InputError("trainer: max_utterance_s and save_minutes must be above 0")
        if self.device not in ("auto", "cpu", "cuda"):
            raise InputError(f"trainer.device={self.device!r}: expected auto, cpu or cuda")
        if self.precision not in ("float32", "bfloat16"):
            raise InputError(f"trainer.precision={self.precision!r}: expected float32 or bfloat16")


@dataclass
class RunConfig:
    """All of a run. ``resume``: the directory of an interrupted run to go on with."""

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
    resume: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**64:
            raise InputError(f"seed={self.seed}: expected 0 to 2**64 - 1")
        for name, section in asdict(self).items():
            # NaN is neither below nor above any bound that a section checks.
            for key, value in section.items() if isinstance(section, dict) else ():
                if isinstance(value, float) and math.isnan(value):
                    raise InputError(f"{name}.{key}=nan: expected a number")
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
        if self.augment.volume_db and self.features.normalize == "utterance":
            raise InputError(
                f"augment.volume_db={list(self.augment.volume_db)} changes nothing under "
                f"features.normalize=utterance, which takes loudness out; leave it empty, or "
                f"choose features.normalize=speaker, global or none"
            )
