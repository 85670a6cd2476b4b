"""The two training criteria over the model's log-probabilities: CTC and framewise cross-entropy."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F

from asr.audio.features import FrameClock
from asr.errors import InputError
from asr.labels import BLANK
from asr.types import Segment

#: Target id of padding and of frames without a label.
IGNORE = -100


def ctc_loss(
    log_probs: torch.Tensor, lens: torch.Tensor, targets: torch.Tensor, target_lens: torch.Tensor
) -> torch.Tensor:
    """Negative log-likelihood per label: Graves et al. 2006, eq. 8, summed over the batch.

    log_probs: (B, T, V); lens: (B,) frames; targets: (B, U) ids; target_lens: (B,).
    """
    total = F.ctc_loss(
        log_probs.transpose(0, 1),  # (B, T, V) -> (T, B, V)
        targets.clamp(min=0),
        lens,
        target_lens,
        blank=BLANK,
        reduction="sum",
    )
    return total / target_lens.sum().clamp(min=1)


def framewise_loss(
    log_probs: torch.Tensor, targets: torch.Tensor, label_smoothing: float = 0.0
) -> torch.Tensor:
    """Cross-entropy per labelled frame. log_probs: (B, T, V); targets: (B, T) ids or `IGNORE`.

    The smoothing mass goes to the labels alone, not to the blank that framewise models never use.
    """
    labelled = targets != IGNORE
    log_probs, targets = log_probs[labelled], targets[labelled]
    nll = -log_probs.gather(1, targets[:, None]).squeeze(1)
    if label_smoothing:
        nll = (1 - label_smoothing) * nll - label_smoothing * log_probs[:, BLANK + 1 :].mean(1)
    return nll.sum() / max(len(targets), 1)


def joint_loss(
    log_probs: torch.Tensor,
    lens: torch.Tensor,
    targets: torch.Tensor,
    target_lens: torch.Tensor,
    frames: torch.Tensor,
    weight: float,
) -> torch.Tensor:
    """CTC's loss, and with ``weight`` what a frame's label costs among all labels but the blank.

    Where the blank is left out of the softmax, its frames learn labels too, and CTC alone says
    which of them are to be blank. Arguments as of `ctc_loss`; frames: (B, T) ids or `IGNORE`.
    """
    labels = log_probs[:, :, BLANK + 1 :].log_softmax(2)
    framewise = framewise_loss(F.pad(labels, (BLANK + 1, 0)), frames)
    return (1 - weight) * ctc_loss(log_probs, lens, targets, target_lens) + weight * framewise


def ctc_frames_needed(labels: Sequence[int | str]) -> int:
    """Shortest path through ``labels``: a frame a label, a blank between equal neighbours."""
    return len(labels) + sum(a == b for a, b in pairwise(labels))


def frame_targets(
    segments: Sequence[Segment], ids: Sequence[int], n_frames: int, clock: FrameClock
) -> list[int]:
    """The label at the centre of each frame, from timed ``segments`` with label ``ids``.

    A frame whose centre lies in no segment is ignored (`IGNORE`): a phone that the folding
    deletes (TIMIT's q when folded) leaves such a gap, and its neighbours do not absorb it.
    The half frame beyond the end of the audio belongs to the last segment.

    Raises:
        InputError: a segment has no time, or there is none.
    """
    if not segments or any(s.start_s is None or s.end_s is None for s in segments):
        raise InputError("no label times; framewise training needs them for every label")
    starts = np.array([s.start_s for s in segments])
    ends = np.array([s.end_s for s in segments])
    centres = np.array([clock.centre_s(frame) for frame in range(n_frames)])
    position = np.searchsorted(ends, centres, side="right").clip(max=len(segments) - 1)
    inside = starts[position] <= centres
    return np.where(inside, np.array(ids)[position], IGNORE).tolist()
