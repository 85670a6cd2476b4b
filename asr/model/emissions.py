"""Features to log-probabilities: batches by length, less where memory is short, silence spared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from asr.audio.features import levels_db, speech, steady
from asr.audio.silence import SMOOTHING_S, frames_in, is_quiet, left_out, loudness, smoothed
from asr.data.examples import Example, collate
from asr.errors import InputError
from asr.labels import BLANK, SILENCES, SPACE
from asr.model.bundle import Bundle

#: What is out of the question has this natural logarithm of a probability.
LEAST_LOG_PROB = -30.0


def batches_by_length(
    examples: Sequence[Example], max_frames: int = 60_000
) -> Iterator[list[Example]]:
    """Neighbours in length together, at most ``max_frames`` padded frames of log-mel a batch."""
    batch: list[Example] = []
    for example in sorted(examples, key=lambda e: (len(e.features), e.utterance.id)):
        if batch and (len(batch) + 1) * len(example.features) > max_frames:
            yield batch
            batch = []
        batch.append(example)
    if batch:
        yield batch


@torch.inference_mode()
def emissions(
    model: nn.Module,
    bundle: Bundle,
    examples: Sequence[Example],
    device: torch.device,
    tick: Callable[[int], None] = lambda n: None,
    skip_silence: bool = True,
) -> dict[str, np.ndarray]:
    """Log-probabilities (T, V) of each utterance, by id. ``tick`` gets each batch's size.

    Long silence (`silence.left_out`) is not heard: there stands what is certain to be silence.

    Raises:
        InputError: memory is too small for one of the utterances.
    """
    model.eval()
    kept: dict[str, NDArray[np.bool_]] = {}
    if skip_silence:
        examples, kept = spared(examples, bundle)
    found: dict[str, np.ndarray] = {}
    speaking = [e for e in examples if len(e.features)]
    if len(speaking) < len(examples):
        tick(len(examples) - len(speaking))
    for batch_examples in batches_by_length(speaking):
        log_probs = batch_emissions(model, bundle, batch_examples, device)
        found |= zip((e.utterance.id for e in batch_examples), log_probs, strict=True)
        tick(len(batch_examples))
    for name, heard in kept.items():
        whole = np.repeat(certain_silence(bundle), len(heard), axis=0)
        if heard.any():
            whole[heard] = found[name]
        found[name] = whole
    return {e.utterance.id: found[e.utterance.id] for e in examples}


def spared(
    examples: Sequence[Example], bundle: Bundle
) -> tuple[list[Example], dict[str, NDArray[np.bool_]]]:
    """Examples without their long silence, and of those that have some, which output frames stay.

    Where there is no speech at all, none stay.
    """
    clock = bundle.clock
    shorter, kept = [], {}
    for example in examples:
        matrix = example.features
        levels = levels_db(matrix, bundle.features, clock.factor).numpy()
        levels = smoothed(levels, frames_in(SMOOTHING_S, clock.shift_s))
        quiet = is_quiet(levels, loudness(levels)) | steady(matrix)[:: clock.factor].numpy()
        heard = ~left_out(quiet, clock.shift_s)
        if not speech(matrix).any():
            heard[:] = False
        if not heard.all():
            kept[example.utterance.id] = heard
            rows = torch.from_numpy(heard).repeat_interleave(clock.factor)[: len(matrix)]
            example = replace(example, features=matrix[rows])
        shorter.append(example)
    return shorter, kept


def certain_silence(bundle: Bundle) -> np.ndarray:
    """Log-probabilities (1, V) where there is silence and nothing else: finite, for alignment."""
    labels = bundle.labels
    silent = BLANK
    if bundle.criterion == "framewise":
        silent = next((labels.ids[s] for s in (*SILENCES, SPACE) if s in labels.ids), BLANK)
    scores = np.full((1, len(labels)), LEAST_LOG_PROB, np.float32)
    scores[0, silent] = 0.0
    return scores


def batch_emissions(
    model: nn.Module, bundle: Bundle, examples: Sequence[Example], device: torch.device
) -> list[np.ndarray]:
    """`emissions` of one batch, or of its halves where memory is too small for it."""
    try:
        batch = collate(examples, bundle.features, framewise=False)
        log_probs, lens = model(batch.features.to(device), batch.feature_lens.to(device))
        return [log_probs[i, :n].float().cpu().numpy() for i, n in enumerate(lens.tolist())]
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        if len(examples) == 1:
            raise InputError(
                f"utterance {examples[0].utterance.id}: out of memory on {device} with its "
                f"{len(examples[0].features)} frames alone; cut it, leave it out, or take a "
                "machine with more memory"
            ) from error
    half = len(examples) // 2
    return [
        *batch_emissions(model, bundle, examples[:half], device),
        *batch_emissions(model, bundle, examples[half:], device),
    ]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of the GPU (an own class) or of the machine (told in words)."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(
        words in str(error)
        for words in ("DefaultCPUAllocator", "CUDA error: out of memory", "STATUS_ALLOC_FAILED")
    )


def blank_rate(log_probs: Sequence[np.ndarray]) -> float:
    """Share of frames whose best label is the blank."""
    best = np.concatenate([x.argmax(1) for x in log_probs]) if log_probs else np.zeros(0)
    return float((best == BLANK).mean()) if len(best) else 0.0
