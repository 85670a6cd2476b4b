"""What nets that stream cost, in one thread: `python tools/bench_live_nets.py [MODEL ...]`.

First a training step of the latency-controlled stack against the full one of the same size, on the
same batch: its arithmetic is (chunk + lookahead) / chunk times as much. Then, of each model
directory, a step of so many streams at once, from samples to log-probabilities. Processor time,
medians of interleaved rounds; the 95th percentile beside it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from asr.model.stream import EmissionStream, advance
from asr.model.weights import load_bundle
from asr.nets.config import Latency, RecurrentConfig
from asr.nets.recurrent import RecurrentStack
from asr.train.rundir import processor_name

B, T, F, H, LAYERS = 16, 132, 320, 256, 3
ROUNDS, CHUNKS = 15, 200
LATENCIES = ((4, 0), (8, 5), (12, 6), (12, 12), (16, 12))
STREAMS = (1, 10, 100)


def training_step(latency: Latency | None, dtype: torch.dtype) -> Callable[[], float]:
    """A function that takes a step and tells its seconds."""
    config = RecurrentConfig(layers=LAYERS, hidden=H)
    if latency is not None:
        config = RecurrentConfig(
            layers=LAYERS, hidden=H, chunk=(latency.chunk,), lookahead=(latency.lookahead,)
        )
    stack = RecurrentStack(config, F)
    x, lens = torch.randn(B, T, F, requires_grad=True), torch.full((B,), T)

    def step() -> float:
        began = time.process_time()
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            output, _ = stack(x, lens)
        output.float().square().mean().backward()
        return time.process_time() - began

    return step


def bench_training() -> None:
    """Print the first table."""
    print(f"\n{LAYERS} x {H} LSTM in both directions, batch {B} of {T} frames of {F}\n")
    print("| type | chunk + lookahead | full ms | ms | times | arithmetic | times arithmetic |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for dtype in (torch.float32, torch.bfloat16):
        full = training_step(None, dtype)
        for latency in map(Latency._make, LATENCIES):
            chunked = training_step(latency, dtype)
            times = np.array([(full(), chunked()) for _ in range(ROUNDS + 2)])[2:]
            ratio = float(np.median(times[:, 1] / times[:, 0]))
            arithmetic = sum(latency) / latency.chunk
            whole, own = 1e3 * np.median(times, axis=0)
            name = str(dtype).removeprefix("torch.")
            print(
                f"| {name} | {latency.chunk} + {latency.lookahead} | {whole:.0f} | {own:.0f} "
                f"| {ratio:.2f} | {arithmetic:.2f} | {ratio / arithmetic:.2f} |",
                flush=True,
            )


def bench_streams(folder: Path) -> None:
    """Print a model's rows of the second table."""
    bundle = load_bundle(folder)
    rng = np.random.default_rng(0)
    rate = bundle.features.sample_rate
    for n_streams in STREAMS:
        streams = [EmissionStream(bundle) for _ in range(n_streams)]
        n = round(streams[0].live.latency.chunk * bundle.clock.shift_s * rate)
        times = []
        for _ in range(max(20, CHUNKS // n_streams)):
            for stream in streams:
                stream.accept((0.1 * rng.standard_normal(n)).astype(np.float32), rate)
            began = time.process_time()
            advance(streams)
            times.append(time.process_time() - began)
            for stream in streams:
                stream.take()
        median, p95 = 1e3 * np.quantile(times[5:], (0.5, 0.95))
        print(
            f"| {folder.parent.name} | {1e3 * streams[0].latency_s:.0f} | {1e3 * n / rate:.0f} "
            f"| {n_streams} | {median:.1f} | {p95:.1f} |",
            flush=True,
        )


def main() -> None:
    """Print both tables."""
    torch.set_num_threads(1)
    print(f"{processor_name()}, 1 thread, torch {torch.__version__}")
    bench_training()
    print("\n| model | latency ms | chunk ms | streams | median ms | p95 ms |")
    print("|---|---:|---:|---:|---:|---:|")
    for name in sys.argv[1:]:
        bench_streams(Path(name))


if __name__ == "__main__":
    main()
