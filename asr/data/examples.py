"""From utterances to batches: features once, then buckets of like length, augmented and padded."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Barrier

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence

from asr.audio.augment import WaveformAugment, gain, spec_augment, warp_frequencies
from asr.audio.features import (
    FeatureConfig,
    FrameClock,
    Statistics,
    assemble,
    moments,
    statistics_of,
)
from asr.audio.normalize import normalize
from asr.data.matrices import Matrix
from asr.errors import InputError
from asr.labels import LabelConfig, Labels, fold_segments, unit_symbols
from asr.nets.frames import padded_frames
from asr.nets.losses import IGNORE, ctc_frames_needed, frame_targets
from asr.system.ahead import made_by
from asr.types import Batch, Segment, Utterance

#: Lengths are jittered by up to this share. On so762 it pads 3.6 % (1.7 % without, 4.9 % with 0.1)
#: and an utterance meets 20 % of its batch again in the next epoch (100 % without).
JITTER = 0.06


@dataclass(frozen=True, slots=True)
class Example:
    """An utterance ready for batching.

    features: (T, n_mels) log-mel, normalised by ``stats`` when batched (None: as it is).
    labels: CTC targets. frames: one target a model frame, or None where times are unknown or not
    wanted. speed: how much faster than spoken. others: the same utterance at other speeds.
    waveform: (N,) at that speed, where it is at hand.
    """

    utterance: Utterance
    features: NDArray[np.float32]
    labels: tuple[int, ...]
    frames: tuple[int, ...] | None
    stats: Statistics | None = None
    speed: float = 1.0
    others: tuple[Example, ...] = ()
    waveform: NDArray[np.float32] | None = None


def filler(config: FeatureConfig) -> Example:
    """A frame of silence with a label, for a process that has no part in a batch but takes part."""
    nobody = Utterance(id="", audio=Path(), speaker="", duration_s=0.0)
    return Example(nobody, np.zeros((1, config.n_mels), np.float32), labels=(1,), frames=(1,))


@dataclass(frozen=True)
class Epoch:
    """What a process does in an epoch, as functions of a batch's number below ``n_batches``.

    load: its part of the batch, perhaps none. lens: the log-mel frames of each utterance of the
    whole batch. ids: their names.
    """

    n_batches: int
    load: Callable[[int], list[Example]]
    lens: Callable[[int], list[int]]
    ids: Callable[[int], list[str]]


def label_segments(utterance: Utterance, unit: str, folding: str) -> list[Segment]:
    """The utterance's labels with their times, for framewise targets."""
    if unit == "phone":
        return fold_segments(utterance.phones or (), folding, f"utterance {utterance.id}")
    if unit == "word":
        return list(utterance.words or ())
    raise InputError("framewise training needs labels with times: choose labels.unit=phone or word")


@dataclass(frozen=True)
class Targets:
    """What is made of a transcript for a model to learn.

    clock: of the model's frames. ctc: whether the labels must fit into the frames as CTC needs.
    frames: whether each frame gets a label.
    """

    labels: Labels
    config: LabelConfig
    clock: FrameClock
    ctc: bool
    frames: bool

    def timed(self, utterance: Utterance, speed: float = 1.0) -> tuple[list[Segment], list[int]]:
        """The labels with their times when played ``speed`` times as fast, and their ids.

        Raises:
            InputError: the unit has no times, or a label is not in the inventory.
        """
        segments = label_segments(utterance, self.config.unit, self.config.fold)
        segments = [at_speed(s, speed) for s in segments]
        where = f"utterance {utterance.id}"
        return segments, self.labels.encode([s.label for s in segments], where)


def make_examples(
    utterances: Sequence[Utterance],
    matrices: Mapping[str, Matrix],
    stats: Mapping[str, Statistics | None],
    targets: Targets | None,
    skipped: dict[str, str],
    speed: float = 1.0,
) -> list[Example]:
    """Join features (by id) and targets; utterances that cannot be trained on are skipped, listed.

    Dev and test need no targets: their symbols may be unknown to the model.

    Raises:
        InputError: a label is not in the inventory (that is never one utterance's bad luck).
    """
    examples = []
    for utterance in utterances:
        if utterance.id not in matrices:
            continue
        matrix = matrices[utterance.id].features
        ids: list[int] = []
        frames = None
        if targets is not None:
            n_frames = -(-len(matrix) // targets.clock.factor)
            symbols = unit_symbols(utterance, targets.config.unit, targets.config.fold)
            ids = targets.labels.encode(symbols, f"utterance {utterance.id}")
            needed = ctc_frames_needed(ids)
            if targets.ctc and needed > n_frames:
                skipped[utterance.id] = (
                    f"{len(ids)} labels need {needed} frames, the model gives {n_frames}"
                )
                continue
            if targets.frames:
                segments, segment_ids = targets.timed(utterance, speed)
                try:
                    frames = tuple(frame_targets(segments, segment_ids, n_frames, targets.clock))
                except InputError as error:
                    skipped[utterance.id] = str(error)
                    continue
        examples.append(Example(utterance, matrix, tuple(ids), frames, stats[utterance.id], speed))
    return examples


def at_speed(segment: Segment, speed: float) -> Segment:
    """The segment's times when its audio is played ``speed`` times as fast."""
    if segment.start_s is None or segment.end_s is None:
        return segment
    return replace(segment, start_s=segment.start_s / speed, end_s=segment.end_s / speed)


def join_speeds(by_speed: Sequence[Sequence[Example]]) -> list[Example]:
    """Examples of one set at several speeds -> one an utterance, which carries the others.

    The first speed leads; an utterance that it has not (too short for its labels) is led by the
    next. Utterances stay in the order of the first speed, those led by others come last.
    """
    copies: dict[str, list[Example]] = {}
    for examples in by_speed:
        for example in examples:
            copies.setdefault(example.utterance.id, []).append(example)
    return [replace(first, others=tuple(rest)) for first, *rest in copies.values()]


def draw_speeds(examples: Sequence[Example], seed: int, epoch: int) -> list[Example]:
    """Each utterance at the speed that it draws in this epoch."""
    if not any(e.others for e in examples):
        return list(examples)
    drawn = []
    for example in examples:
        choice = utterance_seed(seed, epoch, f"speed {example.utterance.id}")
        drawn.append((example, *example.others)[choice % (1 + len(example.others))])
    return drawn


def seed_of(*numbers: int) -> int:
    """One seed from several: the run's, the epoch or step, the process or utterance."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]) >> 1


def utterance_seed(seed: int, epoch: int, name: str) -> int:
    """A seed for what an utterance draws in an epoch, in any batch, order and process."""
    return seed_of(seed, epoch, zlib.crc32(name.encode("utf-8", "surrogateescape")))


def bucket(
    lens: Sequence[int],
    batch_size: int,
    max_frames: int,
    generator: torch.Generator,
    short_first: bool = False,
) -> list[list[int]]:
    """Cut utterances into batches of like length, in random order or the short ones first.

    At most ``batch_size`` utterances and ``max_frames`` padded frames a batch (one longer
    utterance makes a batch of its own). Lengths are jittered before sorting, so that neighbours
    differ from epoch to epoch.
    """
    jitter = 1 + JITTER * torch.rand(len(lens), generator=generator).numpy()
    batches: list[list[int]] = []
    longest = 0
    for i in np.argsort(np.array(lens) * jitter, kind="stable").tolist():
        longest = max(longest, lens[i])
        if (
            not batches
            or len(batches[-1]) == batch_size
            or (len(batches[-1]) + 1) * longest > max_frames
        ):
            batches.append([])
            longest = lens[i]
        batches[-1].append(i)
    if short_first:
        return batches
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


def padding(lens: Sequence[int], batches: Sequence[Sequence[int]]) -> float:
    """Share of padding in the frames of ``batches`` of utterances with ``lens``."""
    padded = sum(len(b) * max(lens[i] for i in b) for b in batches)
    return 1 - sum(lens[i] for b in batches for i in b) / padded


def collate(
    examples: Sequence[Example],
    config: FeatureConfig,
    framewise: bool,
    augment: WaveformAugment | None = None,
    seed: int = 0,
    epoch: int = 0,
    joint: bool = False,
) -> Batch:
    """Normalise, pad, augment (where told how) and assemble examples into a `Batch`.

    What an utterance draws follows from ``seed``, ``epoch`` and its id alone. joint: with the
    labels of frames beside the targets, where all examples have them.

    Raises:
        InputError: audio to augment with cannot be read.
    """
    generators = [
        torch.Generator().manual_seed(utterance_seed(seed, epoch, e.utterance.id))
        for e in examples
        if augment is not None
    ]
    if augment is None:
        matrices = [normalize(e.features, e.stats, config) for e in examples]
    else:
        matrices = [
            augmented(e, config, augment, generator)
            for e, generator in zip(examples, generators, strict=True)
        ]
    if augment is not None:
        masked = spec_augment(*padded_frames(matrices), augment.config, generators)
        matrices = [x[: len(m)].numpy() for x, m in zip(masked, matrices, strict=True)]
    x, lens = padded_frames([assemble(matrix, config) for matrix in matrices])
    targets = [(e.frames or ()) if framewise else e.labels for e in examples]
    timed = [e.frames for e in examples if e.frames is not None]
    return Batch(
        ids=tuple(e.utterance.id for e in examples),
        features=x,
        feature_lens=lens,
        targets=padded(targets),
        target_lens=torch.tensor([len(t) for t in targets]),
        frames=padded(timed) if joint and len(timed) == len(examples) else None,
    )


def padded(targets: Sequence[Sequence[int]]) -> torch.Tensor:
    """(B, U) int64 of as many ids as there are, padded with `IGNORE`."""
    return pad_sequence(
        [torch.tensor(t, dtype=torch.long) for t in targets], True, padding_value=IGNORE
    )


def pinned(batch: Batch) -> Batch:
    """The batch in page-locked memory, from which a GPU copies while it computes."""
    return replace(
        batch,
        features=batch.features.pin_memory(),
        feature_lens=batch.feature_lens.pin_memory(),
        targets=batch.targets.pin_memory(),
        target_lens=batch.target_lens.pin_memory(),
        frames=None if batch.frames is None else batch.frames.pin_memory(),
    )


def made_ahead(
    make: Callable[[int], Batch], numbers: Sequence[int], n_threads: int
) -> Generator[Batch, None, None]:
    """``make(number)`` for each number in turn, two ahead for each of ``n_threads`` threads.

    Without threads each is made when it is asked for.
    """
    if not n_threads:
        yield from map(make, numbers)
        return
    yield from made_by(single_threaded(n_threads), make, numbers, 2 * n_threads)


def single_threaded(n_threads: int) -> ThreadPoolExecutor:
    """Threads in which torch computes alone.

    With an OpenMP team each they stood in the way of the team that computes the steps, which then
    took 1.8 times as long (BENCHMARKS.md).
    """
    pool = ThreadPoolExecutor(n_threads)
    n_own = torch.get_num_threads()
    started = Barrier(n_threads + 1)

    def start() -> None:
        torch.set_num_threads(1)
        # A thread takes on the number that holds when it first asks for it, and keeps it.
        torch.get_num_threads()
        started.wait()

    try:
        for _ in range(n_threads):
            pool.submit(start)
        started.wait()
    except BaseException:
        # Ctrl-C: threads that wait for ever would keep the process from its end.
        started.abort()
        raise
    torch.set_num_threads(n_own)
    return pool


def augmented(
    example: Example, config: FeatureConfig, augment: WaveformAugment, generator: torch.Generator
) -> NDArray[np.float32]:
    """Normalised log-mel (T, n_mels) of an example with the noise, room and volume it draws."""
    matrix, stats = example.features, example.stats
    if augment.config.wants_waveforms:
        heard = augment.features(example.utterance, example.speed, generator, example.waveform)
        if heard is not None:
            matrix = heard
    if augment.config.vtlp:
        drawn = 2 * torch.rand(1, generator=generator).item() - 1
        matrix = warp_frequencies(matrix, 1 + augment.config.vtlp * drawn, config)
    if matrix is not example.features and config.normalize == "utterance":
        stats = statistics_of(moments(matrix, config))
    if augment.config.volume_db:
        matrix = matrix + np.float32(gain(augment.config, generator))
    return normalize(matrix, stats, config)
