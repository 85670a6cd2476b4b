"""How fast training is, against the bound and others' loops: `python tools/bench_training.py`.

One run measures, on drawn utterances as long as read sentences:

- a whole epoch as `asr train` runs it (bucketing, collating, SpecAugment, progress, bookkeeping)
  against the bare sum of its steps on batches already in memory;
- one step (forward, CTC, backward, clip, update) of ours, exact about padding, against a bare step
  of a padded `nn.LSTM` of the same layers; against the loop of deepspeech.pytorch, which packs and
  unpacks around every layer; and against SpeechBrain's `Brain.fit_batch` with SpeechBrain's LSTM,
  run without lengths as its CRDNN does (left out where speechbrain is not installed);
- what each of these makes of an utterance that is padded in its batch;
- the arithmetic: the model's operations, the machine's matrix rates, the share that is reached.

The candidates take turns, a batch each, and a ratio is the median over the rounds of the ratio
within a round, so that a busy machine weighs on all alike.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from asr.augment import WaveformAugment
from asr.data import Example, bucket, collate
from asr.distributed import World
from asr.labels import BLANK
from asr.losses import ctc_loss
from asr.models.acoustic import AcousticModel
from asr.recipe import RunConfig
from asr.rundir import environment
from asr.training import generator_of, run_epoch, step
from asr.training_state import State
from asr.types import Batch, Utterance

THREADS, N_UTTERANCES, N_LABELS = 2, 128, 40
EPOCH_ROUNDS, STEP_ROUNDS, MATRIX_ROUNDS = 5, 9, 7
PRECISIONS = ("float32", "bfloat16")

OURS = "ours"

Loop = Callable[[Batch], object]


class PaddedLSTM(nn.Module):
    """torch's own stack over the padded batch; its backward direction starts in the padding."""

    def __init__(self, config: RunConfig) -> None:
        super().__init__()
        shape = config.model
        self.lstm = nn.LSTM(
            config.features.size,
            shape.hidden,
            shape.layers,
            batch_first=True,
            bidirectional=True,
            dropout=shape.dropout,
        )
        self.output = nn.Linear(2 * shape.hidden, 1 + N_LABELS)

    def forward(self, x: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, F), (B,) -> log-probabilities (B, T, V), (B,)."""
        return self.output(self.lstm(x)[0]).float().log_softmax(dim=2), lens


class PackedLSTM(nn.Module):
    """Layer by layer packed and unpacked, as BatchRNN of deepspeech.pytorch does it."""

    def __init__(self, config: RunConfig) -> None:
        super().__init__()
        shape = config.model
        sizes = [config.features.size] + [2 * shape.hidden] * (shape.layers - 1)
        self.layers = nn.ModuleList(
            nn.LSTM(size, shape.hidden, bidirectional=True) for size in sizes
        )
        self.dropout = nn.Dropout(shape.dropout)
        self.output = nn.Linear(2 * shape.hidden, 1 + N_LABELS)

    def forward(self, x: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, F), (B,) -> log-probabilities (B, T, V), (B,)."""
        x = x.transpose(0, 1)
        for layer in self.layers:
            packed = pack_padded_sequence(x, lens, enforce_sorted=False)
            x = self.dropout(pad_packed_sequence(layer(packed)[0])[0])
        return self.output(x.transpose(0, 1)).float().log_softmax(dim=2), lens


class SpeechBrainLSTM(nn.Module):
    """SpeechBrain's modules, without lengths, as its CRDNN calls its LSTM."""

    def __init__(self, config: RunConfig) -> None:
        super().__init__()
        from speechbrain.nnet.activations import Softmax
        from speechbrain.nnet.linear import Linear
        from speechbrain.nnet.RNN import LSTM

        shape = config.model
        self.lstm = LSTM(
            shape.hidden,
            input_size=config.features.size,
            num_layers=shape.layers,
            dropout=shape.dropout,
            bidirectional=True,
        )
        self.output = Linear(1 + N_LABELS, input_size=2 * shape.hidden)
        self.softmax = Softmax(apply_log=True)

    def forward(self, x: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, F), (B,) -> log-probabilities (B, T, V), (B,)."""
        return self.softmax(self.output(self.lstm(x)[0])), lens


def our_step(config: RunConfig, model: nn.Module) -> Loop:
    """A step of `asr train`."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    world = World(torch.device("cpu"))
    return lambda batch: step(config, "ctc", model, optimizer, batch, world)


def plain_step(config: RunConfig, model: nn.Module, fused: bool) -> Loop:
    """The shortest training step there is around a model."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=fused)
    short = config.trainer.precision == "bfloat16"

    def run(batch: Batch) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=short):
            log_probs, lens = model(batch.features, batch.feature_lens)
        loss = ctc_loss(log_probs, lens, batch.targets, batch.target_lens)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.optim.clip_norm)
        optimizer.step()

    return run


def speechbrain_step(config: RunConfig, model: nn.Module) -> Loop:
    """`Brain.fit_batch`, with SpeechBrain's CTC loss and the optimizer that we use."""
    import speechbrain
    from speechbrain.nnet.losses import ctc_loss as speechbrain_ctc

    class Recognizer(speechbrain.Brain):
        def compute_forward(self, batch: Batch, stage: object) -> Tensor:
            return self.modules.net(batch.features, batch.feature_lens)[0]

        def compute_objectives(self, predictions: Tensor, batch: Batch, stage: object) -> Tensor:
            # SpeechBrain takes lengths as shares of the longest.
            n_frames, n_targets = batch.features.shape[1], batch.targets.shape[1]
            return speechbrain_ctc(
                predictions,
                batch.targets.clamp(min=0),
                batch.feature_lens / n_frames,
                batch.target_lens / n_targets,
                blank_index=BLANK,
            )

    short = config.trainer.precision == "bfloat16"
    brain = Recognizer(
        {"net": model},
        lambda parameters: torch.optim.AdamW(parameters, lr=1e-4, fused=True),
        run_opts={"device": "cpu", "precision": "bf16" if short else "fp32"},
    )
    brain.init_optimizers()
    return brain.fit_batch


def candidates(config: RunConfig) -> dict[str, tuple[nn.Module, Loop]]:
    """The models and a step of each, in the precision configured."""
    ours = AcousticModel(config.model, config.features.size, 1 + N_LABELS)
    padded, packed = PaddedLSTM(config), PackedLSTM(config)
    found: dict[str, tuple[nn.Module, Loop]] = {
        OURS: (ours, our_step(config, ours)),
        "bare padded `nn.LSTM`": (padded, plain_step(config, padded, fused=True)),
        "packed, as deepspeech.pytorch": (packed, plain_step(config, packed, fused=False)),
    }
    if find_spec("speechbrain"):
        net = SpeechBrainLSTM(config)
        found["SpeechBrain"] = (net, speechbrain_step(config, net))
    return found


def draw_examples(config: RunConfig) -> list[Example]:
    """Utterances of 2 to 6 s with a label every 120 ms and random features."""
    generator = torch.Generator().manual_seed(0)
    examples = []
    for number in range(N_UTTERANCES):
        n_frames = int(torch.randint(200, 600, (1,), generator=generator))
        features = torch.randn(n_frames, config.features.n_mels, generator=generator)
        labels = torch.randint(1, N_LABELS + 1, (n_frames // 12,), generator=generator).tolist()
        utterance = Utterance(str(number), Path("drawn"), "drawn", n_frames / 100)
        examples.append(Example(utterance, features, tuple(labels), None))
    return examples


def batches_of(config: RunConfig, examples: Sequence[Example]) -> list[Batch]:
    """The batches of epoch 0, as `run_epoch` makes them."""
    hop_s = config.features.hop_length / config.features.sample_rate
    order = bucket(
        [len(e.features) for e in examples],
        config.trainer.batch_size,
        int(config.trainer.max_batch_s / hop_s),
        generator_of(config.seed, 0, 0),
    )
    augment = WaveformAugment(config.augment, config.features)
    return [
        collate([examples[i] for i in batch], config.features, False, augment, config.seed)
        for batch in order
    ]


def seconds(work: Callable[[], object]) -> float:
    """Wall time."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def turns(works: Sequence[Callable[[int], object]], rounds: int) -> list[list[float]]:
    """Seconds of each work in each round; each goes first in turn. One round before is not kept."""
    times: list[list[float]] = [[0.0] * (rounds + 1) for _ in works]
    for number in range(rounds + 1):
        for offset in range(len(works)):
            which = (number + offset) % len(works)
            times[which][number] = seconds(lambda: works[which](number))  # noqa: B023
    return [row[1:] for row in times]


def ratio(one: Sequence[float], other: Sequence[float]) -> str:
    """Median of the rounds' ratios, and their range."""
    ratios = [a / b for a, b in zip(one, other, strict=True)]
    return f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"


def bench_epoch(config: RunConfig, examples: Sequence[Example], batches: list[Batch]) -> None:
    """A whole epoch against its bare steps."""
    model = AcousticModel(config.model, config.features.size, 1 + N_LABELS)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    world = World(torch.device("cpu"))

    def bare(_: int) -> None:
        for batch in batches:
            step(config, "ctc", model, optimizer, batch, world)

    def whole(_: int) -> None:
        run_epoch(config, "ctc", examples, model, optimizer, State(), world)

    model.train()
    bare_times, whole_times = turns([bare, whole], EPOCH_ROUNDS)
    print(f"\nEpochs of {len(batches)} batches, {EPOCH_ROUNDS} rounds\n")
    print("| | times the bare steps |\n|---|---:|")
    print(f"| a whole epoch of `asr train` | {ratio(whole_times, bare_times)} |")


def bench_steps(config: RunConfig, batches: list[Batch]) -> float:
    """Steps of all candidates, as a table; returns padded audio seconds that ours does a second."""
    frame_s = config.features.stack * config.features.hop_length / config.features.sample_rate
    found = candidates(config)
    works = [
        lambda number, run=run: run(batches[number % len(batches)]) for _, run in found.values()
    ]
    times = dict(zip(found, turns(works, STEP_ROUNDS), strict=True))
    used = [batches[number % len(batches)] for number in range(1, STEP_ROUNDS + 1)]

    def rate(name: str, n_frames: Callable[[Batch], int]) -> float:
        pairs = zip(used, times[name], strict=True)
        return statistics.median(frame_s * n_frames(batch) / t for batch, t in pairs)

    print(f"\nSteps in {config.trainer.precision}, {STEP_ROUNDS} rounds\n")
    print("| step | audio s/s | our time / its | our throughput / its | padding moves it, nats |")
    print("|---|---:|---:|---:|---:|")
    for name, (model, _) in found.items():
        audio_rate = rate(name, lambda batch: int(batch.feature_lens.sum()))
        print(
            f"| {name} | {audio_rate:.0f} | {ratio(times[OURS], times[name])} | "
            f"{ratio(times[name], times[OURS])} | {effect_of_padding(config, model):.1g} |"
        )
    return rate(OURS, lambda batch: batch.features.shape[0] * batch.features.shape[1])


@torch.no_grad()
def effect_of_padding(config: RunConfig, model: nn.Module) -> float:
    """How far a model's answer to an utterance moves when a longer one is put beside it.

    The largest change of any label's log-probability in any of the 100 frames of an utterance,
    between alone and padded to 150 frames; in float32, without dropout.
    """
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 150, config.features.size, generator=generator)
    x[0, 100:] = 0
    model.eval()
    together, _ = model(x, torch.tensor([100, 150]))
    alone, _ = model(x[:1, :100], torch.tensor([100]))
    model.train()
    return float((together[0, :100] - alone[0]).abs().max())


def operations(config: RunConfig) -> tuple[float, float]:
    """Operations (multiply and add: two) to train on an audio second: over frames, frame by frame.

    Over frames go W x, its two gradients and the gradient of U: large products. Frame by frame go
    U h and its gradient by h, which wait for the frame before. Gates and the loss are left out.
    """
    shape, n_in = config.model, config.features.size
    rows, outside, inside = 2 * 4 * shape.hidden, 0, 0
    for depth in range(shape.layers):
        # The features need no gradient.
        outside += rows * n_in * (2 if depth == 0 else 3) + rows * shape.hidden
        inside += rows * shape.hidden * 2
        n_in = 2 * shape.hidden
    outside += 3 * n_in * (1 + N_LABELS)
    frames = config.features.sample_rate / config.features.hop_length / config.features.stack
    return 2 * frames * outside, 2 * frames * inside


def bench_matrices(config: RunConfig, batches: Sequence[Batch], audio_rates: list[float]) -> None:
    """The machine's matrix rates in the shapes of the model, and what of them training reaches."""
    hidden = config.model.hidden
    n_batch = config.trainer.batch_size
    rows = n_batch * int(statistics.median(b.features.shape[1] for b in batches))
    shapes = {
        "square": (2048, 2048, 2048),
        "all frames of a batch by W": (rows, 2 * hidden, 4 * hidden),
        "one frame of a batch by U": (n_batch, hidden, 4 * hidden),
    }
    rates: dict[tuple[str, str], float] = {}
    for precision in PRECISIONS:
        dtype = getattr(torch, precision)
        for name, (m, k, n) in shapes.items():
            a, b = torch.randn(m, k, dtype=dtype), torch.randn(k, n, dtype=dtype)
            repeats = max(1, int(5e9 / (2 * m * k * n)))
            (times,) = turns([partial(multiply, a, b, repeats)], MATRIX_ROUNDS)
            rates[precision, name] = 2 * m * k * n * repeats / min(times)
    outside, inside = operations(config)
    share = 100 * inside / (outside + inside)
    print(
        f"\nTraining takes {(outside + inside) / 1e9:.2f} G operations per audio second, "
        f"{share:.0f} % of them frame by frame.\n"
    )
    print("| matrix product | shape | float32, G/s | bfloat16, G/s |\n|---|---|---:|---:|")
    for name, mkn in shapes.items():
        cells = [f"{rates[precision, name] / 1e9:.0f}" for precision in PRECISIONS]
        print(f"| {name} | {' x '.join(map(str, mkn))} | {' | '.join(cells)} |")
    print("\n| our step | G operations/s | share of the square rate | of the shapes' rates |")
    print("|---|---:|---:|---:|")
    for precision, audio_rate in zip(PRECISIONS, audio_rates, strict=True):
        square, whole, one = (rates[precision, name] for name in shapes)
        reached = audio_rate * (outside + inside)
        bound = outside / whole + inside / one
        print(
            f"| {precision} | {reached / 1e9:.0f} | {100 * reached / square:.0f} % | "
            f"{100 * audio_rate * bound:.0f} % |"
        )


def multiply(a: Tensor, b: Tensor, repeats: int, _: int) -> None:
    """The product, several times over."""
    for _ in range(repeats):
        a @ b


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(1)
    config = RunConfig(seed=1)
    examples = draw_examples(config)
    batches = batches_of(config, examples)
    about, shape = environment(), config.model
    print(
        f"{about['date'][:10]}, {about['processor']}, {THREADS} threads, Python "
        f"{platform.python_version()}, torch {torch.__version__}"
        + (f", speechbrain {version('speechbrain')}" if find_spec("speechbrain") else "")
    )
    print(
        f"{shape.layers} x {shape.hidden} bidirectional LSTM, CTC, batches of "
        f"{config.trainer.batch_size} utterances of 2 to 6 s; medians of the rounds' ratios"
    )
    bench_epoch(config, examples, batches)
    audio_rates = []
    for precision in PRECISIONS:
        config.trainer.precision = precision
        audio_rates.append(bench_steps(config, batches))
    bench_matrices(config, batches, audio_rates)


if __name__ == "__main__":
    main()
