"""Measure what each latency of a live model costs in errors.

    python tools/measure_latencies.py MODEL MANIFEST... [--against MODEL]

MODEL is a model (or run) directory. Of each manifest are told the error rates, in percent, of all
decoders that the model has (with the weights that were tuned at its own latency), by each of the
chunks that it is trained for, and then those of a model that hears whole utterances.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from asr.data.manifest import read_manifest
from asr.model.bundle import Bundle
from asr.model.emissions import emissions_of
from asr.model.pretrained import load_model
from asr.model.stream import EmissionStream
from asr.nets.acoustic import AcousticModel
from asr.recognize.evaluate import decode_set, decoders_of
from asr.types import Utterance


def rates(bundle: Bundle, utterances: Sequence[Utterance]) -> list[str]:
    """A cell for each decoder."""
    skipped: dict[str, str] = {}
    log_probs = emissions_of(bundle, utterances, skipped)
    heard = [u for u in utterances if u.id not in skipped]
    cells = []
    for config in decoders_of(bundle).values():
        scores = decode_set(heard, log_probs, bundle, bundle.make_decoder(config)).scores
        cells.append(", ".join(f"{unit} {100 * s.error_rate:.1f}" for unit, s in scores.items()))
    return cells


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("manifests", type=Path, nargs="+", metavar="MANIFEST")
    parser.add_argument("--against", metavar="MODEL")
    args = parser.parse_args()
    torch.set_num_threads(1)
    bundle = load_model(args.model)
    assert isinstance(bundle.model, AcousticModel)
    sets = {path.stem: read_manifest(path) for path in args.manifests}
    columns = [f"{name} {title}" for name in sets for title in decoders_of(bundle)]
    print("| chunk + lookahead, ms | latency, s | " + " | ".join(columns) + " |")
    print("| ---: | ---: |" + " ---: |" * len(columns))
    shift_ms = 1000 * bundle.clock.shift_s
    for latency in bundle.architecture.latencies or (None,):
        bundle.model.stack.latency = latency
        chunk_ms, ahead_ms = (None, None) if latency is None else (n * shift_ms for n in latency)
        stream = EmissionStream(bundle, chunk_ms, ahead_ms)
        name = f"{stream.live.latency.chunk * shift_ms:g} + {(ahead_ms or 0):g}"
        cells = [cell for utterances in sets.values() for cell in rates(bundle, utterances)]
        print(f"| {name} | {stream.latency_s:.2f} | " + " | ".join(cells) + " |", flush=True)
    if args.against:
        whole = load_model(args.against)
        cells = [cell for utterances in sets.values() for cell in rates(whole, utterances)]
        print("| the utterance | | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
