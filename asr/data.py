"""From utterances to batches: features once, then buckets of like length, augmented and padded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import pad_sequence

from asr.audio import load_audio
from asr.augment import AugmentConfig, spec_augment
from asr.errors import InputError
from asr.features import (
    FeatureConfig,
    LogMel,
    Statistics,
    assemble,
    frame_clock,
    normalize,
    statistics,
)
from asr.labels import LabelConfig, Labels, fold_segments, unit_symbols
from asr.losses import IGNORE, ctc_frames_needed, frame_targets
from asr.types import Batch, Segment, Utterance


@dataclass(frozen=True)
class Example:
    """An utterance ready for batching.

    features: (T, n_mels) normalised log-mel. labels: CTC targets.
    frames: one target a model frame, or None where times are unknown or not wanted.
    """

    utterance: Utterance
    features: torch.Tensor
    labels: tuple[int, ...]
    frames: tuple[int, ...] | None


def extract(
    utterances: Sequence[Utterance],
    config: FeatureConfig,
    skipped: dict[str, str],
    tick: Callable[[], None] = lambda: None,
    n_threads: int = 2,
) -> dict[str, torch.Tensor]:
    """Compute the log-mel matrix (T, n_mels) of every utterance, by id.

    Unreadable audio is left out: ``skipped`` gets its id and the reason. ``tick`` is called
    after each utterance, for a progress bar.
    """
    log_mel = LogMel(config)

    def one(utterance: Utterance) -> torch.Tensor | InputError:
        try:
            waveform = torch.from_numpy(
                load_audio(
                    utterance.audio, config.sample_rate, utterance.offset_s, utterance.duration_s
                )
            )
        except InputError as error:
            return error
        features, _ = log_mel(waveform[None], torch.tensor([len(waveform)]))
        return features[0]

    matrices = {}
    with ThreadPoolExecutor(n_threads) as pool:
        for utterance, result in zip(utterances, pool.map(one, utterances), strict=True):
            if isinstance(result, InputError):
                skipped[utterance.id] = str(result)
            else:
                matrices[utterance.id] = result
            tick()
    return matrices


def normalize_set(
    matrices: dict[str, torch.Tensor],
    speakers: dict[str, str],
    how: str,
    global_stats: Statistics | None = None,
) -> dict[str, torch.Tensor]:
    """Normalise log-mel matrices by utterance, by speaker, or by statistics taken from train."""
    if how == "none":
        return matrices
    if how == "utterance":
        return {i: normalize(x, statistics([x])) for i, x in matrices.items()}
    if how == "speaker":
        groups = defaultdict(list)
        for i in matrices:
            groups[speakers[i]].append(i)
        stats = {s: statistics(matrices[i] for i in ids) for s, ids in groups.items()}
        return {i: normalize(x, stats[speakers[i]]) for i, x in matrices.items()}
    if global_stats is None:
        raise InputError("features.normalize=global: the model carries no feature statistics")
    return {i: normalize(x, global_stats) for i, x in matrices.items()}


def label_segments(utterance: Utterance, unit: str, folding: str) -> list[Segment]:
    """The utterance's labels with their times, for framewise targets."""
    if unit == "phone":
        return fold_segments(utterance.phones or (), folding, f"utterance {utterance.id}")
    if unit == "word":
        return list(utterance.words or ())
    raise InputError("framewise training needs labels with times: choose labels.unit=phone or word")


def make_examples(
    utterances: Sequence[Utterance],
    features: dict[str, torch.Tensor],
    labels: Labels,
    label_config: LabelConfig,
    feature_config: FeatureConfig,
    subsampling: int,
    skipped: dict[str, str],
    with_ctc: bool,
    with_frames: bool,
    with_labels: bool = True,
) -> list[Example]:
    """Join features (by id) and targets; utterances that cannot be trained on are skipped, listed.

    Dev and test need no ids (with_labels=False): their symbols may be unknown to the model.

    Raises:
        InputError: a label is not in the inventory (that is never one utterance's bad luck).
    """
    clock = frame_clock(feature_config, subsampling)
    examples = []
    for utterance in utterances:
        if utterance.id not in features:
            continue
        matrix = features[utterance.id]
        n_frames = -(-len(matrix) // clock.factor)
        where = f"utterance {utterance.id}"
        ids: list[int] = []
        if with_labels:
            symbols = unit_symbols(utterance, label_config.unit, label_config.fold)
            ids = labels.encode(symbols, where)
        needed = ctc_frames_needed(ids)
        if with_ctc and needed > n_frames:
            skipped[utterance.id] = (
                f"{len(ids)} labels need {needed} frames, the model gives {n_frames}"
            )
            continue
        frames = None
        if with_frames:
            segments = label_segments(utterance, label_config.unit, label_config.fold)
            segment_ids = labels.encode([s.label for s in segments], where)
            try:
                frames = tuple(frame_targets(segments, segment_ids, n_frames, clock))
            except InputError as error:
                skipped[utterance.id] = str(error)
                continue
        examples.append(Example(utterance, matrix, tuple(ids), frames))
    return examples


def bucket(
    lens: Sequence[int], batch_size: int, max_frames: int, generator: torch.Generator
) -> list[list[int]]:
    """Cut utterances into batches of like length, in random order.

    At most ``batch_size`` utterances and ``max_frames`` padded frames a batch (one longer
    utterance makes a batch of its own). Lengths are jittered by up to 10 % before sorting, so
    that neighbours differ from epoch to epoch.
    """
    jitter = 1 + 0.1 * torch.rand(len(lens), generator=generator)
    order = sorted(range(len(lens)), key=lambda i: lens[i] * float(jitter[i]))
    batches: list[list[int]] = []
    longest = 0
    for i in order:
        longest = max(longest, lens[i])
        if (
            not batches
            or len(batches[-1]) == batch_size
            or (len(batches[-1]) + 1) * longest > max_frames
        ):
            batches.append([])
            longest = lens[i]
        batches[-1].append(i)
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


def collate(
    examples: Sequence[Example],
    config: FeatureConfig,
    framewise: bool,
    augment: AugmentConfig | None = None,
    generator: torch.Generator | None = None,
) -> Batch:
    """Pad, augment (where a generator is given) and assemble examples into a `Batch`."""
    x = pad_sequence([e.features for e in examples], batch_first=True)
    lens = torch.tensor([len(e.features) for e in examples])
    if augment is not None and generator is not None:
        x = spec_augment(x, lens, augment, generator)
    x, lens = assemble(x, lens, config)
    targets = [(e.frames or ()) if framewise else e.labels for e in examples]
    return Batch(
        ids=tuple(e.utterance.id for e in examples),
        features=x,
        feature_lens=lens,
        targets=pad_sequence(
            [torch.tensor(t, dtype=torch.long) for t in targets], True, padding_value=IGNORE
        ),
        target_lens=torch.tensor([len(t) for t in targets]),
    )
