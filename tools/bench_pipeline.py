"""What the training pipeline costs beyond its steps: one epoch against the bare sum of its steps.

    python tools/bench_pipeline.py

The same model, batches and seeds twice, in turn: a whole epoch as `asr train` runs it (bucketing,
collating, SpecAugment, prefetching, progress, bookkeeping), and the bare steps (forward, backward,
clip, update) on batches already in memory. Lengths are drawn like those of read sentences.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import torch

from asr.augment import WaveformAugment
from asr.data import Example, bucket, collate
from asr.distributed import World
from asr.models.acoustic import AcousticModel
from asr.recipe import RunConfig
from asr.rundir import environment
from asr.training import generator_of, run_epoch, step
from asr.training_state import State
from asr.types import Utterance

N_UTTERANCES, N_LABELS, ROUNDS = 256, 40, 5


def draw_examples(generator: torch.Generator, config: RunConfig) -> list[Example]:
    """Utterances of 2 to 6 s with a label every 120 ms and random features."""
    examples = []
    for number in range(N_UTTERANCES):
        n_frames = int(torch.randint(200, 600, (1,), generator=generator))
        features = torch.randn(n_frames, config.features.n_mels, generator=generator)
        labels = torch.randint(1, N_LABELS + 1, (n_frames // 12,), generator=generator).tolist()
        utterance = Utterance(str(number), Path("drawn"), "drawn", n_frames / 100)
        examples.append(Example(utterance, features, tuple(labels), None))
    return examples


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(2)
    config = RunConfig(seed=1)
    world = World(torch.device("cpu"))
    examples = draw_examples(torch.Generator().manual_seed(0), config)
    torch.manual_seed(1)
    model = AcousticModel(config.model, config.features.size, 1 + N_LABELS)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    # The batches of epoch 0, as `run_epoch` makes them.
    hop_s = config.features.hop_length / config.features.sample_rate
    order = bucket(
        [len(e.features) for e in examples],
        config.trainer.batch_size,
        int(config.trainer.max_batch_s / hop_s),
        generator_of(config.seed, 0, 0),
    )
    batches = [
        collate(
            [examples[i] for i in batch],
            config.features,
            False,
            WaveformAugment(config.augment, config.features),
            config.seed,
        )
        for batch in order
    ]

    def bare() -> float:
        began = time.perf_counter()
        for batch in batches:
            step(config, "ctc", model, optimizer, batch, world)
        return time.perf_counter() - began

    def whole() -> float:
        began = time.perf_counter()
        run_epoch(config, "ctc", examples, model, optimizer, State(), world)
        return time.perf_counter() - began

    model.train()
    bare()
    ratios, bares = [], []
    for number in range(ROUNDS):
        # Neither always goes first: a machine that slows down favours nobody.
        pair = (bare(), whole()) if number % 2 else tuple(reversed((whole(), bare())))
        bares.append(pair[0])
        ratios.append(pair[1] / pair[0])
    about, shape = environment(), config.model
    print(f"{about['date'][:10]}, {about['processor']}, 2 threads, torch {torch.__version__}")
    print(f"{len(batches)} batches, {shape.layers} x {shape.hidden} bidirectional")
    print(f"bare steps: {statistics.median(bares):.1f} s (median of {ROUNDS})")
    print(
        f"epoch / bare steps: {statistics.median(ratios):.3f} "
        f"({min(ratios):.3f} to {max(ratios):.3f})"
    )


if __name__ == "__main__":
    main()
