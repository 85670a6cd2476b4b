"""Write model directories for onnxruntime alone: `asr.model.runtime` reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.numpy import save

from asr.errors import InputError
from asr.model.bundle import Bundle, arrays_of, save_lexicon, save_parts
from asr.model.onnx import check_own, net_graph
from asr.model.onnx_graph import Graph
from asr.model.onnx_live import live_graph, live_metadata
from asr.model.runtime import ARRAYS, NET, NET_WEIGHTS, step_name
from asr.nets.config import Latency
from asr.nets.live import Live
from asr.system.files import write_folder_aside

if TYPE_CHECKING:
    import onnx

#: Bytes of the smallest tensor that stands in the shared file.
SHARED = 1024


def write_runtime(bundle: Bundle, folder: Path) -> None:
    """Write the model, with its lexicon and n-grams, for use without PyTorch.

    Raises:
        InputError: ``folder`` is there already or cannot be written, the onnx package is not
            installed, or the model is none that was trained here.
    """
    check_own(bundle)
    architecture = bundle.architecture
    needs_steps = [a.chunk or a.future for a in (architecture, *bundle.others)]
    if bundle.others and any(needs_steps):
        raise InputError("export: an ensemble of nets that go along with speech cannot be exported")
    with write_folder_aside(folder) as aside, (aside / NET_WEIGHTS).open("wb") as weights:
        shared = _Shared(weights)
        if not needs_steps[0]:
            shared.write(net_graph(bundle), aside / NET)
        steps = bundle.streams or needs_steps[0]
        for latency in (architecture.latencies or [Latency(1, 0)]) if steps else []:
            live = Live(bundle.model, latency).eval()
            about = {k: json.dumps(v) for k, v in live_metadata(bundle, live).items()}
            shared.write(live_graph(bundle, live), aside / step_name(latency), about)
        if arrays := arrays_of(bundle):
            (aside / ARRAYS).write_bytes(save(arrays))
        save_parts(aside, bundle)
        save_lexicon(aside, bundle)


class _Shared:
    """Graphs whose large tensors stand once in a file beside them."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self.places: dict[bytes, int] = {}

    def write(self, graph: Graph, path: Path, about: Mapping[str, str] = {}) -> None:
        model = graph.model(about)
        for tensor in model.graph.initializer:
            if len(tensor.raw_data) >= SHARED:
                self._part(graph.onnx, tensor)
        path.write_bytes(model.SerializeToString())

    def _part(self, onnx: Any, tensor: onnx.TensorProto) -> None:
        data = tensor.raw_data
        if data not in self.places:
            self.places[data] = self.file.tell()
            self.file.write(data)
        onnx.external_data_helper.set_external_data(
            tensor, NET_WEIGHTS, self.places[data], len(data)
        )
        tensor.ClearField("raw_data")
