"""Steps in ONNX are those in PyTorch, state by state."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from asr.audio.features import FeatureConfig, Statistics
from asr.labels import LabelConfig, Labels
from asr.model.bundle import Bundle
from asr.model.onnx import export
from asr.nets.acoustic import AcousticModel
from asr.nets.cells import CELLS
from asr.nets.config import ENDLESS, Latency, RecurrentConfig
from asr.nets.live import Live

onnxruntime = pytest.importorskip("onnxruntime")

N_MELS = 8
KINDS = {
    "chunks": (
        {"chunk": (3,), "lookahead": (2,), "conv": (2, 3), "between": (10,), "residual": True},
        Latency(3, 2),
    ),
    "no_lookahead": ({"chunk": (3,), "lookahead": (0,), "layer_norm": True}, Latency(3, 0)),
    "forward": ({"bidirectional": False, "future": 2, "conv": (2,)}, Latency(1, 0)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cell", CELLS)
def test_streams_at_different_places_step_as_in_torch(tmp_path, cell: str, kind: str) -> None:
    torch.manual_seed(0)
    settings, latency = KINDS[kind]
    features = FeatureConfig(n_mels=N_MELS, normalize="online")
    config = RecurrentConfig(cell=cell, layers=2, hidden=5, **settings)
    labels = Labels("phone", ("<blank>", "a", "b"))
    model = AcousticModel(config, features.size, len(labels), N_MELS).eval()
    if model.row is not None:
        torch.nn.init.normal_(model.row.weight)
    stats = Statistics(np.zeros(N_MELS, np.float32), np.ones(N_MELS, np.float32))
    about = LabelConfig("phone")
    bundle = Bundle(features, config, labels, about, "ctc", model, stats=stats)
    export(bundle, tmp_path / "model.onnx", streaming=True)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    told = json.loads(session.get_modelmeta().custom_metadata_map["live"])
    live = Live(model, latency)
    assert (told["chunk"], told["lead"], told["delay"]) == (latency.chunk, live.lead, live.delay)

    # The second stream begins two steps later, the first ends after seven frames.
    state = live.begin(2)
    fresh = {
        i.name: np.zeros((2, *i.shape[1:]), np.int64 if i.name == "n_steps" else np.float32)
        for i in session.get_inputs()[2:]
    }
    states = dict(fresh)
    for step in range(8):
        if step == 2:
            state = tuple(
                torch.cat([s[:1], b[1:]]) for s, b in zip(state, live.begin(2), strict=True)
            )
            states = {k: np.concatenate([v[:1], fresh[k][1:]]) for k, v in states.items()}
        x = torch.randn(2, latency.chunk, features.size)
        lens = torch.tensor([7 if step > 3 else ENDLESS, ENDLESS])
        with torch.inference_mode():
            log_probs, state = live(x, lens, state)
        found, *after = session.run(
            ["log_probs", *(f"next_{name}" for name in states)],
            {"frames": x.numpy(), "lens": lens.numpy(), **states},
        )
        states = dict(zip(states, after, strict=True))
        first = step * latency.chunk - live.delay
        for row in range(2):
            own = first - (2 * latency.chunk if row and step >= 2 else 0)
            end = 7 if row == 0 else ENDLESS
            inside = [t for t in range(latency.chunk) if 0 <= own + t < end]
            np.testing.assert_allclose(
                found[row, inside], log_probs[row, inside].numpy(), rtol=0, atol=1e-5
            )
