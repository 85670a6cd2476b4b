"""Nets adapted to those who speak, by what is first understood of them.

In a first pass a speaker's utterances are decoded as ever. What is found is taken for what was
said, and from it factors are learned for what the units of each layer put out (`nets.scales`);
with these the net hears the utterances once more. It takes no transcripts, and leaves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from asr.audio.features import assemble
from asr.audio.normalize import normalize
from asr.data.examples import padded
from asr.decode.decoder import Decoder
from asr.errors import InputError
from asr.model.bundle import Bundle
from asr.model.emissions import (
    Heard,
    LogProbs,
    batches_by_length,
    by_speaker,
    log_probs_of,
    spared,
)
from asr.model.ensemble import nets_of
from asr.nets.acoustic import AcousticModel, AcousticNet, Ensemble
from asr.nets.frames import padded_frames
from asr.nets.losses import IGNORE, ctc_frames_needed, ctc_loss
from asr.nets.scales import scaled
from asr.system.device import device_of

#: Steps of Adam, each by all that the speaker said, and its learning rate.
STEPS, RATE = 6, 0.1
#: Log-mel frames of a speaker that are learned from together: of more, each ten minutes by
#: themselves, so that memory is bounded, and a voice may change.
MOST_FRAMES = 60_000
#: Padded frames, as the net takes them, in a batch; all batches make a step.
BATCH_FRAMES = 3_000

Labels = Sequence[int]
Pair = tuple[np.ndarray, Labels]


def adapted_by(bundle: Bundle, teacher: Decoder) -> LogProbs:
    """`log_probs_of` by the bundle's net as it is adapted to each speaker.

    teacher: what finds in the first pass what was said. Nothing else that is heard makes a
    difference, nor does the order.

    Raises:
        InputError: the model is none that can be adapted.
    """
    if not isinstance(bundle.model, AcousticNet):
        raise InputError("adapting to speakers is for models that asr train wrote")
    if bundle.criterion != "ctc":
        raise InputError(
            f"adapting to speakers is for models trained by CTC; this one was by {bundle.criterion}"
        )
    return partial(_log_probs, teacher=teacher)


def _log_probs(
    bundle: Bundle,
    heard: Sequence[Heard],
    tick: Callable[[int], None] = lambda n: None,
    precision: str = "float32",
    skip_silence: bool = True,
    *,
    teacher: Decoder,
) -> list[np.ndarray]:
    found: dict[int, np.ndarray] = {}
    for places in _portions(heard):
        mine = [heard[i] for i in places]
        first = log_probs_of(bundle, mine, precision=precision, skip_silence=skip_silence)
        said = [nbest[0].labels for nbest in teacher.batch(first, n_threads=1)]
        again = replace(bundle, model=_adapted(bundle, mine, said, skip_silence))
        outputs = log_probs_of(again, mine, precision=precision, skip_silence=skip_silence)
        found |= zip(places, outputs, strict=True)
        tick(len(places))
    return [found[i] for i in range(len(heard))]


def _portions(heard: Sequence[Heard]) -> Iterator[list[int]]:
    """The places of what is learned from together, long ones first, whatever their order was."""
    for places in by_speaker(each.speaker for each in heard).values():
        portions = np.cumsum([len(heard[i].features) for i in places]) // MOST_FRAMES
        for part in np.split(places, np.flatnonzero(np.diff(portions)) + 1):
            yield sorted(
                part.tolist(),
                key=lambda i: (-len(heard[i].features), heard[i].features.tobytes()),
            )


def _adapted(
    bundle: Bundle, heard: Sequence[Heard], said: Sequence[Labels], skip_silence: bool
) -> AcousticNet:
    """The bundle's net, or each of its nets, adapted to one who says ``said``."""
    if skip_silence and not bundle.streams:
        heard, _ = spared(heard, bundle)
    config, factor = bundle.features, bundle.clock.factor
    pairs = [
        (assemble(normalize(each.features, each.stats, config), config), labels)
        for each, labels in zip(heard, said, strict=True)
        # What a search puts into silence that is spared may find no room beside it.
        if labels and ctc_frames_needed(labels) <= -(-len(each.features) // factor)
    ]
    nets = [learned(net, pairs) for net in nets_of(bundle)] if pairs else nets_of(bundle)
    return nets[0] if len(nets) == 1 else Ensemble(nets).eval()


def learned(net: AcousticModel, pairs: Sequence[Pair]) -> AcousticModel:
    """The net with factors by which it says these labels of these features (T, F)."""
    adapted, amplitudes = scaled(net)
    device, n_labels = device_of(net), sum(len(labels) for _, labels in pairs)
    optimizer = torch.optim.Adam(amplitudes, RATE)
    batches = batches_by_length([len(x) for x, _ in pairs], BATCH_FRAMES)
    for _ in range(STEPS):
        optimizer.zero_grad()
        for batch in batches:
            x, lens = padded_frames([pairs[i][0] for i in batch])
            targets = padded([pairs[i][1] for i in batch])
            target_lens = (targets != IGNORE).sum(1)
            log_probs, lens = adapted(x.to(device), lens.to(device))
            share = int(target_lens.sum()) / n_labels
            loss = ctc_loss(log_probs, lens, targets.to(device), target_lens.to(device))
            (share * loss).backward()
        optimizer.step()
    return adapted
