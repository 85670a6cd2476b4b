"""A model step by step is the model over the whole, wherever its streams stand."""

from __future__ import annotations

import pytest
import torch

from asr.nets.acoustic import AcousticModel
from asr.nets.cells import CELLS
from asr.nets.config import ENDLESS, Latency, RecurrentConfig
from asr.nets.live import Live

N_BINS, N_LABELS = 5, 4


def model_of(cell: str = "lstm", **settings: object) -> AcousticModel:
    torch.manual_seed(0)
    config = RecurrentConfig(cell=cell, hidden=6, between=(7,), layer_norm=True, **settings)
    model = AcousticModel(config, 2 * N_BINS, N_LABELS, N_BINS).double().eval()
    if model.row is not None:
        torch.nn.init.normal_(model.row.weight)
    return model


def in_steps(live: Live, x: torch.Tensor, offsets: list[int]) -> list[torch.Tensor]:
    """Whole utterances x (T, F), each given from the step ``offsets`` on, in one batch."""
    chunk = live.latency.chunk
    state = live.begin(len(x))
    blank = live.begin(len(x))
    rows: list[list[torch.Tensor]] = [[] for _ in x]
    n_steps = max(o + (len(u) + live.delay) // chunk + 2 for o, u in zip(offsets, x, strict=True))
    for step in range(n_steps):
        late = torch.tensor([step <= o for o in offsets])
        state = tuple(
            torch.where(late.view(-1, *[1] * (s.dim() - 1)), b, s)
            for s, b in zip(state, blank, strict=True)
        )
        frames, lens = [], []
        for utterance, offset in zip(x, offsets, strict=True):
            wanted = torch.arange(chunk) + (step - offset) * chunk - live.lead
            inside = (wanted >= 0) & (wanted < len(utterance))
            found = utterance[wanted.clamp(0, len(utterance) - 1)]
            frames.append(torch.where(inside[:, None], found, torch.full_like(found, 9.0)))
            # That it ends is told when it does.
            ended = (step - offset + 1) * chunk - live.lead >= len(utterance)
            lens.append(len(utterance) if ended else ENDLESS)
        log_probs, state = live(torch.stack(frames), torch.tensor(lens), state)
        for row, found, offset in zip(rows, log_probs, offsets, strict=True):
            if step >= offset:
                row.append(found)
    return [
        torch.cat(row)[live.delay : live.delay + len(u)] for row, u in zip(rows, x, strict=True)
    ]


LIVE = [
    ({"chunk": (4,), "lookahead": (3,), "conv": (3, 2)}, Latency(4, 3)),
    ({"chunk": (4,), "lookahead": (0,), "conv": ()}, Latency(4, 0)),
    ({"chunk": (2,), "lookahead": (5,), "conv": (3,), "residual": True}, Latency(2, 5)),
    ({"bidirectional": False, "future": 3, "conv": (3, 2)}, Latency(1, 0)),
    ({"bidirectional": False, "future": 3, "conv": (3, 2)}, Latency(4, 0)),
    ({"bidirectional": False}, Latency(3, 0)),
]


@pytest.mark.parametrize(("settings", "latency"), LIVE)
def test_streams_at_different_places_are_as_each_utterance_alone(
    settings: dict[str, object], latency: Latency
) -> None:
    model = model_of(**settings)
    xs = [torch.randn(n, 2 * N_BINS).double() for n in (17, 1, 8, 12)]
    found = in_steps(Live(model, latency), xs, [0, 2, 1, 5])
    for x, y in zip(xs, found, strict=True):
        expected, _ = model(x[None], torch.tensor([len(x)]))
        torch.testing.assert_close(y, expected[0], rtol=0, atol=1e-10)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("settings", "latency"), [LIVE[0], LIVE[4]])
def test_every_cell_goes_on_from_its_state(
    cell: str, settings: dict[str, object], latency: Latency
) -> None:
    model = model_of(cell, **settings)
    x = torch.randn(21, 2 * N_BINS).double()
    (y,) = in_steps(Live(model, latency), [x], [0])
    torch.testing.assert_close(y, model(x[None], torch.tensor([21]))[0][0], rtol=0, atol=1e-10)


def test_layers_that_begin_anew_know_nothing_of_what_was() -> None:
    live = Live(model_of(bidirectional=False, conv=()), Latency(3, 0))
    heard, next_frames = torch.randn(2, 1, 3, 2 * N_BINS).double()
    lens = torch.tensor([ENDLESS])
    expected, _ = live(next_frames, lens, live.begin(1))
    _, state = live(heard, lens, live.begin(1))
    torch.testing.assert_close(live(next_frames, lens, live.renewed(state))[0], expected)
    assert not torch.allclose(live(next_frames, lens, state)[0], expected)


@pytest.mark.parametrize(("settings", "latency"), LIVE)
def test_frames_before_layers_that_begin_anew_stay(
    settings: dict[str, object], latency: Latency
) -> None:
    live = Live(model_of(**settings), latency)
    x = torch.randn(1, latency.chunk, 2 * N_BINS).double()
    state = live.begin(1)
    for _ in range(8):
        _, state = live(x, torch.tensor([ENDLESS]), state)
    renewed = live.renewed(state)
    n_layers = sum(len(layer.ahead.states) for layer in live.layers)
    kept = [torch.equal(a, b) for a, b in zip(renewed, state, strict=True)]
    assert kept.count(False) == n_layers
    assert all(not a.any() for a, same in zip(renewed, kept, strict=True) if not same)
