"""Training sets: what one can do, and the kind that is in memory; `stream` has the other."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
import torch

from asr.audio.augment import AugmentConfig
from asr.audio.features import FeatureConfig
from asr.data.examples import Epoch, Example, Targets, bucket, draw_speeds, seed_of
from asr.errors import InputError
from asr.train.config import TrainerConfig
from asr.train.world import World

#: Bytes amid an audio file that stand for the whole.
SAMPLED = 4096


class TrainingSet(Protocol):
    """Utterances to train on."""

    @property
    def reads(self) -> bool:
        """Whether loading a batch waits for files."""

    def __len__(self) -> int:
        """Utterances that can be trained on, as far as one knows."""

    def open(
        self, epoch: int, first: int, rank: int, size: int, asked_to_stop: Callable[[], bool]
    ) -> Epoch:
        """Plan an epoch; one of ``size`` processes will load its share, from batch ``first`` on.

        Everything random follows from the seed and the epoch: resuming needs no more. Loading
        raises `KeyboardInterrupt` where it has to wait after ``asked_to_stop``.
        """

    def note_lost(self, world: World) -> None:
        """Note what any process found in this epoch that cannot be trained on."""

    def sample(self) -> list[Example]:
        """Some utterances, the same each time, ready for batching."""

    def transcripts(self) -> Iterator[list[str]]:
        """The labels' symbols of each utterance."""

    def frame_targets(self) -> list[np.ndarray]:
        """Framewise targets (T,) of utterances, enough to tell how long labels last."""

    def digest(self) -> str:
        """What identifies the training set: when a run goes on it must be the same."""


@dataclass(frozen=True)
class AboutSet:
    """What a training set is made by."""

    targets: Targets
    features: FeatureConfig
    augment: AugmentConfig
    trainer: TrainerConfig
    seed: int


@dataclass(frozen=True)
class Held:
    """A training set in memory."""

    examples: Sequence[Example]
    about: AboutSet
    reads: ClassVar[bool] = False

    def __len__(self) -> int:
        return len(self.examples)

    def open(
        self, epoch: int, first: int, rank: int, size: int, asked_to_stop: Callable[[], bool]
    ) -> Epoch:
        """As `TrainingSet.open`; nothing is waited for."""
        about = self.about
        drawn = draw_speeds(self.examples, about.seed, epoch)
        lens = [len(e.features) for e in drawn]
        batches = bucket(
            lens,
            about.trainer.batch_size,
            int(about.trainer.max_batch_s * about.features.sample_rate / about.features.hop_length),
            torch.Generator().manual_seed(seed_of(about.seed, epoch, 0)),
            short_first=epoch < about.trainer.curriculum_epochs,
        )
        return Epoch(
            len(batches),
            load=lambda number: [drawn[i] for i in batches[number][rank::size]],
            lens=lambda number: [lens[i] for i in batches[number]],
            ids=lambda number: [drawn[i].utterance.id for i in batches[number]],
        )

    def note_lost(self, world: World) -> None:
        """Nothing is lost once it is in memory."""

    def sample(self) -> list[Example]:
        """All of it."""
        return list(self.examples)

    def transcripts(self) -> Iterator[list[str]]:
        """The labels' symbols of each utterance."""
        return (self.about.targets.labels.decode(e.labels) for e in self.examples)

    def frame_targets(self) -> list[np.ndarray]:
        """Framewise targets (T,) of each utterance, where it was made with them."""
        return [np.array(e.frames) for e in self.examples]

    def digest(self) -> str:
        """`digest_of` the examples."""
        return digest_of(self.examples)


def digest_of(examples: Sequence[Example]) -> str:
    """A digest of a set in order: all that is known of the utterances, targets, and the audio.

    Of each audio file its size and some bytes count.
    """
    digest = hashlib.blake2b(digest_size=16)
    for e in examples:
        # A corpus may move.
        about = replace(e.utterance, audio=Path())
        line = f"{about} {len(e.features)} {e.labels} {e.frames}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    for path in dict.fromkeys(e.utterance.audio for e in examples):
        digest.update(audio_sample(path))
    return digest.hexdigest()


def audio_sample(path: Path) -> bytes:
    """A file's size and the bytes in its middle; nothing where it has gone, for it is read."""
    try:
        with path.open("rb") as handle:
            size = handle.seek(0, os.SEEK_END)
            handle.seek(max(size - SAMPLED, 0) // 2)
            return f"{size} ".encode() + handle.read(SAMPLED)
    except OSError:
        return b""


def check_skipped(name: str, n_skipped: int, n_all: int, most: float, first: str) -> None:
    """Stop where a set lost more than the share ``most``, or all; ``first`` tells of one.

    Raises:
        InputError: it did.
    """
    if n_skipped > most * n_all or n_skipped == n_all:
        raise InputError(
            f"{name}: {n_skipped} of {n_all} utterances cannot be used (more than "
            f"trainer.max_skipped={most:g}); the first: {first}"
        )
