"""CTC against enumeration of all paths; framewise targets by hand."""

import itertools
import math

import pytest
import torch

from asr.audio.features import FrameClock
from asr.errors import InputError
from asr.nets.losses import (
    IGNORE,
    ctc_frames_needed,
    ctc_loss,
    frame_targets,
    framewise_loss,
    joint_loss,
)
from asr.types import Segment


def collapse(path):
    return tuple(k for k, _ in itertools.groupby(path) if k != 0)


@pytest.mark.parametrize("labels", [(1,), (1, 2), (1, 1), (2, 1, 2), ()])
def test_ctc_sums_all_paths(labels):
    n_frames, n_labels = 5, 3
    logits = torch.randn(1, n_frames, n_labels, generator=torch.Generator().manual_seed(1))
    log_probs = logits.double().log_softmax(2)
    total = sum(
        math.exp(sum(log_probs[0, t, k].item() for t, k in enumerate(path)))
        for path in itertools.product(range(n_labels), repeat=n_frames)
        if collapse(path) == labels
    )
    loss = ctc_loss(
        log_probs,
        torch.tensor([n_frames]),
        torch.tensor([labels], dtype=torch.long),
        torch.tensor([len(labels)]),
    )
    assert loss.item() == pytest.approx(-math.log(total) / max(len(labels), 1), abs=1e-9)


def test_ctc_ignores_padding():
    log_probs = torch.randn(2, 7, 4).log_softmax(2)
    lens, targets = torch.tensor([7, 4]), torch.tensor([[1, 2, 3], [2, IGNORE, IGNORE]])
    target_lens = torch.tensor([3, 1])
    together = ctc_loss(log_probs, lens, targets, target_lens)
    changed = log_probs.clone()
    changed[1, 4:] = torch.randn(3, 4).log_softmax(1)
    assert together == ctc_loss(changed, lens, targets, target_lens)


def test_joint_loss_leaves_the_blank_to_ctc():
    drawn = torch.Generator().manual_seed(2)
    logits = torch.randn(2, 6, 4, generator=drawn, dtype=torch.float64, requires_grad=True)
    log_probs = logits.log_softmax(2)
    lens, targets, target_lens = torch.tensor([6, 4]), torch.tensor([[1, 2], [3, IGNORE]]), [2, 1]
    frames = torch.tensor([[1, 1, IGNORE, 2, 2, 2], [3, 3, 3, 1, IGNORE, IGNORE]])
    ctc = ctc_loss(log_probs, lens, targets, torch.tensor(target_lens))
    said = [(b, t, int(k)) for b, row in enumerate(frames) for t, k in enumerate(row) if k > 0]
    framewise = sum(
        -log_probs[b, t, k] + log_probs[b, t, 1:].exp().sum().log() for b, t, k in said
    ) / len(said)
    found = joint_loss(log_probs, lens, targets, torch.tensor(target_lens), frames, 0.3)
    assert found.item() == pytest.approx((0.7 * ctc + 0.3 * framewise).item(), abs=1e-9)
    (blank,) = torch.autograd.grad(framewise, logits)
    assert blank[:, :, 0].abs().max() < 1e-12


def test_frames_that_ctc_needs():
    assert [ctc_frames_needed(x) for x in ([], [1], [1, 2], [1, 1], [1, 1, 1, 2])] == [
        0,
        1,
        2,
        3,
        6,
    ]


def test_framewise_is_cross_entropy_over_labelled_frames():
    log_probs = torch.randn(2, 5, 4).log_softmax(2)
    targets = torch.tensor([[1, 2, IGNORE, 3, 3], [2, 2, 1, IGNORE, IGNORE]])
    expected = torch.nn.functional.nll_loss(log_probs.flatten(0, 1), targets.flatten())
    torch.testing.assert_close(framewise_loss(log_probs, targets), expected)


def test_smoothing_leaves_the_blank_alone():
    log_probs = torch.tensor([[[0.1, 0.5, 0.4]]]).log()
    loss = framewise_loss(log_probs, torch.tensor([[1]]), 0.2)
    expected = -(0.8 * math.log(0.5) + 0.2 * (math.log(0.5) + math.log(0.4)) / 2)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_frame_targets_are_labels_at_the_centres():
    clock = FrameClock(hop_s=0.01, factor=1)
    segments = [Segment("a", 0.0, 0.02), Segment("b", 0.02, 0.035)]
    # Centres 0, 10, 20, 30, 40 ms; the last lies past the end and belongs to the last segment.
    assert frame_targets(segments, [5, 6], 5, clock) == [5, 5, 6, 6, 6]


def test_a_deleted_phone_leaves_ignored_frames():
    clock = FrameClock(hop_s=0.01, factor=1)
    segments = [Segment("a", 0.0, 0.02), Segment("b", 0.04, 0.06)]
    assert frame_targets(segments, [5, 6], 6, clock) == [5, 5, IGNORE, IGNORE, 6, 6]


@pytest.mark.parametrize("segments", [[], [Segment("a")]])
def test_framewise_needs_times(segments):
    with pytest.raises(InputError, match="times"):
        frame_targets(segments, [1] * len(segments), 3, FrameClock(0.01, 1))
