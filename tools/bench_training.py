"""How fast training is, against the bound and others' loops: `python tools/bench_training.py`.

One run measures, on drawn utterances as long as read sentences:

- a whole epoch as `asr train` runs it (bucketing, collating, SpecAugment, progress, bookkeeping)
  against the bare sum of its steps on batches already in memory;
- one step (forward, CTC, backward, clip, update) of ours, exact about padding, against a bare step
  of a padded `nn.LSTM` of the same layers; against the loop of deepspeech.pytorch, which packs and
  unpacks around every layer; and against SpeechBrain's `Brain.fit_batch` with SpeechBrain's LSTM,
  run without lengths as its CRDNN does (left out where speechbrain is not installed);
- what each of these makes of an utterance that is padded in its batch;
- the arithmetic: the model's operations, the machine's matrix rates, the share that is reached;
- how much padding the buckets leave in lengths like so762's and LibriSpeech's.

With `--device cuda` all of it on a GPU, and how busy the epochs keep that, as nvidia-smi says. The
bare net under bfloat16 then computes in float16, which is what autocast gives cuDNN.

The candidates take turns, a batch each, and a ratio is the median over the rounds of the ratio
within a round, so that a busy machine weighs on all alike.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from asr.audio.augment import WaveformAugment
from asr.data.examples import Example, bucket, collate, padding, seed_of
from asr.errors import InputError
from asr.labels import BLANK, BLANK_SYMBOL, Labels
from asr.model.bundle import Bundle
from asr.nets.acoustic import AcousticModel
from asr.nets.losses import ctc_loss
from asr.system.device import pick_device
from asr.train.begin import begin
from asr.train.config import RunConfig
from asr.train.loop import run_epoch
from asr.train.rundir import environment
from asr.train.sets import Held
from asr.train.setup import Prepared, about_sets
from asr.train.state import State
from asr.train.step import StepConfig, step
from asr.train.world import World
from asr.types import Batch, Utterance

THREADS, N_LABELS = 2, 40
# A GPU takes more of all to be measured.
N_UTTERANCES = {"cpu": 128, "cuda": 1133}
STEP_ROUNDS = {"cpu": 9, "cuda": 45}
MATRIX_OPERATIONS = {"cpu": 5e9, "cuda": 1e12}
EPOCH_ROUNDS, MATRIX_ROUNDS = 5, 7
PRECISIONS = ("float32", "bfloat16")

OURS, BARE = "ours", "bare padded `nn.LSTM`"
#: Seconds of epochs in which a GPU is watched; nvidia-smi tells of up to a second before.
SETTLE_S, WATCH_S, LOOK_S = 2.0, 10.0, 0.2
#: Lengths drawn to see how much of them is padded: as many as so762 has to train on, and many.
N_READ, N_PASSAGES = 1133, 10_000

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
            packed = pack_padded_sequence(x, lens.cpu(), enforce_sorted=False)
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


def our_step(config: RunConfig, model: nn.Module, device: torch.device) -> Loop:
    """A step of `asr train`."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    world = World(device)
    return lambda batch: step(StepConfig.of(config, "ctc"), model, optimizer, batch, world)


def plain_step(config: RunConfig, model: nn.Module, device: torch.device, fused: bool) -> Loop:
    """The shortest training step there is around a model."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=fused)
    short = config.trainer.precision == "bfloat16"

    def run(batch: Batch) -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=short):
            log_probs, lens = model(batch.features, batch.feature_lens)
        loss = ctc_loss(log_probs, lens, batch.targets, batch.target_lens)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.optim.clip_norm)
        optimizer.step()

    return run


def speechbrain_step(config: RunConfig, model: nn.Module, device: torch.device) -> Loop:
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
        run_opts={"device": str(device), "precision": "bf16" if short else "fp32"},
    )
    brain.init_optimizers()
    return brain.fit_batch


def candidates(config: RunConfig, device: torch.device) -> dict[str, tuple[nn.Module, Loop]]:
    """The models and a step of each, in the precision configured."""
    ours = AcousticModel(config.model, config.features.size, 1 + N_LABELS).to(device)
    padded, packed = PaddedLSTM(config).to(device), PackedLSTM(config).to(device)
    found: dict[str, tuple[nn.Module, Loop]] = {
        OURS: (ours, our_step(config, ours, device)),
        BARE: (padded, plain_step(config, padded, device, fused=True)),
        "packed, as deepspeech.pytorch": (packed, plain_step(config, packed, device, fused=False)),
    }
    if find_spec("speechbrain"):
        net = SpeechBrainLSTM(config).to(device)
        found["SpeechBrain"] = (net, speechbrain_step(config, net, device))
    return found


def draw_examples(config: RunConfig, n_utterances: int) -> list[Example]:
    """Utterances of 2 to 6 s with a label every 120 ms and random features."""
    generator = torch.Generator().manual_seed(0)
    examples = []
    for number in range(n_utterances):
        n_frames = int(torch.randint(200, 600, (1,), generator=generator))
        features = torch.randn(n_frames, config.features.n_mels, generator=generator).numpy()
        labels = torch.randint(1, N_LABELS + 1, (n_frames // 12,), generator=generator).tolist()
        utterance = Utterance(str(number), Path("drawn"), "drawn", n_frames / 100)
        examples.append(Example(utterance, features, tuple(labels), None))
    return examples


def batches_of(config: RunConfig, examples: Sequence[Example], device: torch.device) -> list[Batch]:
    """The batches of epoch 0, as `run_epoch` makes them, in the device's memory."""
    hop_s = config.features.hop_length / config.features.sample_rate
    order = bucket(
        [len(e.features) for e in examples],
        config.trainer.batch_size,
        int(config.trainer.max_batch_s / hop_s),
        torch.Generator().manual_seed(seed_of(config.seed, 0, 0)),
    )
    augment = WaveformAugment(config.augment, config.features)
    batches = [
        collate([examples[i] for i in batch], config.features, False, augment, config.seed)
        for batch in order
    ]
    return [
        replace(
            batch,
            features=batch.features.to(device),
            feature_lens=batch.feature_lens.to(device),
            targets=batch.targets.to(device),
            target_lens=batch.target_lens.to(device),
        )
        for batch in batches
    ]


def seconds(work: Callable[[], object]) -> float:
    """Wall time, until a GPU has done it too."""
    wait = torch.cuda.synchronize if torch.cuda.is_initialized() else lambda: None
    wait()
    began = time.perf_counter()
    work()
    wait()
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


def bench_epoch(
    config: RunConfig, examples: Sequence[Example], batches: list[Batch], device: torch.device
) -> None:
    """A whole epoch against its bare steps."""
    model = AcousticModel(config.model, config.features.size, 1 + N_LABELS)
    world = World(device)
    labels = Labels("phone", (BLANK_SYMBOL, *map(str, range(1, N_LABELS + 1))))
    held = Held(examples, about_sets(config, labels))
    bundle = Bundle(config.features, config.model, labels, config.labels, "ctc", model)
    training = begin(Path("unused"), config, Prepared(bundle, held, {}, {}), world)
    how = StepConfig.of(config, "ctc")

    def bare(_: int) -> None:
        for batch in batches:
            step(how, model, training.optimizer, batch, world)

    def whole(_: int) -> None:
        training.state = State()
        run_epoch(training, "ctc")

    model.train()
    bare_times, whole_times = turns([bare, whole], EPOCH_ROUNDS)
    print(f"\nEpochs of {len(batches)} batches, {EPOCH_ROUNDS} rounds\n")
    print("| | times the bare steps |\n|---|---:|")
    print(f"| a whole epoch of `asr train` | {ratio(whole_times, bare_times)} |")
    if device.type == "cuda":
        print(f"\nThe GPU is busy {utilisation(lambda: whole(0))} of the time in epochs.")


def utilisation(work: Callable[[], None]) -> str:
    """The share of the time in which a kernel runs on the GPU while ``work`` is done repeatedly."""
    gpu = f"--id=GPU-{torch.cuda.get_device_properties().uuid}"
    query = ["nvidia-smi", gpu, "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    looks: list[float] = []
    ends = time.perf_counter() + SETTLE_S + WATCH_S

    def watch() -> None:
        time.sleep(SETTLE_S)
        while time.perf_counter() < ends:
            # Where it cannot be told, there is no such program or what it says is no number.
            with suppress(OSError, ValueError):
                looks.append(float(subprocess.run(query, capture_output=True, text=True).stdout))
            time.sleep(LOOK_S)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(watch)
        while time.perf_counter() < ends:
            work()
    return f"{statistics.mean(looks):.0f} %" if looks else "an unknown share"


def bench_steps(config: RunConfig, batches: list[Batch], device: torch.device) -> float:
    """Steps of all candidates, as a table; returns padded audio seconds that ours does a second."""
    frame_s = config.features.stack * config.features.hop_length / config.features.sample_rate
    found = candidates(config, device)
    works = [
        lambda number, run=run: run(batches[number % len(batches)]) for _, run in found.values()
    ]
    rounds = STEP_ROUNDS[device.type]
    times = dict(zip(found, turns(works, rounds), strict=True))
    used = [batches[number % len(batches)] for number in range(1, rounds + 1)]

    def rate(name: str, n_frames: Callable[[Batch], int]) -> float:
        pairs = zip(used, times[name], strict=True)
        return statistics.median(frame_s * n_frames(batch) / t for batch, t in pairs)

    print(f"\nSteps in {config.trainer.precision}, {rounds} rounds\n")
    print("| step | audio s/s | our time / its | our throughput / its | padding moves it, nats |")
    print("|---|---:|---:|---:|---:|")
    for name, (model, _) in found.items():
        audio_rate = rate(name, lambda batch: int(batch.feature_lens.sum()))
        print(
            f"| {name} | {audio_rate:.0f} | {ratio(times[OURS], times[name])} | "
            f"{ratio(times[name], times[OURS])} | {effect_of_padding(config, model):.1g} |"
        )
    if device.type == "cuda":
        share = statistics.median(b / a for a, b in zip(times[OURS], times[BARE], strict=True))
        print(f"\nOur step reaches {100 * share:.0f} % of the bare cuDNN step.")
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
    device = next(model.parameters()).device
    x, lens = x.to(device), torch.tensor([100, 150], device=device)
    model.eval()
    together, _ = model(x, lens)
    alone, _ = model(x[:1, :100], lens[:1])
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


def bench_matrices(
    config: RunConfig,
    batches: Sequence[Batch],
    audio_rates: list[float],
    device: torch.device,
) -> None:
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
            a = torch.randn(m, k, dtype=dtype, device=device)
            b = torch.randn(k, n, dtype=dtype, device=device)
            repeats = max(1, int(MATRIX_OPERATIONS[device.type] / (2 * m * k * n)))
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


def bench_padding(config: RunConfig) -> None:
    """The share of padding in batches of read sentences and of book passages, as drawn."""
    generator = torch.Generator().manual_seed(0)
    # So762: log-normal around 4 s. LibriSpeech: most of it was cut at pauses to 12 to 16 s.
    read = 390 * torch.exp(0.3 * torch.randn(N_READ, generator=generator))
    which, how = torch.rand(2, N_PASSAGES, generator=generator)
    passages = torch.where(which < 0.7, 1200 + 430 * how, 140 + 1060 * how)
    hop_s = config.features.hop_length / config.features.sample_rate
    print("\n| lengths | padding of shuffled batches | of ours |\n|---|---:|---:|")
    for name, drawn in {"like so762's": read, "like LibriSpeech's": passages}.items():
        lens, size = drawn.int().tolist(), config.trainer.batch_size
        shuffled = [range(len(lens))[i : i + size] for i in range(0, len(lens), size)]
        most = int(config.trainer.max_batch_s / hop_s)
        ours = [
            padding(lens, bucket(lens, size, most, torch.Generator().manual_seed(epoch)))
            for epoch in range(EPOCH_ROUNDS)
        ]
        print(
            f"| {len(lens)} {name} | {100 * padding(lens, shuffled):.1f} % | "
            f"{100 * statistics.mean(ours):.1f} % |"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="How fast training is.")
    parser.add_argument("--device", choices=list(N_UTTERANCES), default="cpu")
    try:
        device = pick_device(parser.parse_args().device)
    except InputError as error:
        parser.error(str(error))
    torch.set_num_threads(THREADS)
    torch.manual_seed(1)
    config = RunConfig(seed=1)
    examples = draw_examples(config, N_UTTERANCES[device.type])
    batches = batches_of(config, examples, device)
    about, shape = environment(), config.model
    where = about["gpu"] if device.type == "cuda" else about["processor"]
    print(
        f"{about['date'][:10]}, {where}, {THREADS} threads, Python "
        f"{platform.python_version()}, torch {torch.__version__}"
        + (f", speechbrain {version('speechbrain')}" if find_spec("speechbrain") else "")
    )
    print(
        f"{shape.layers} x {shape.hidden} bidirectional LSTM, CTC, batches of "
        f"{config.trainer.batch_size} utterances of 2 to 6 s; medians of the rounds' ratios"
    )
    bench_padding(config)
    bench_epoch(config, examples, batches, device)
    audio_rates = []
    for precision in PRECISIONS:
        config.trainer.precision = precision
        audio_rates.append(bench_steps(config, batches, device))
    bench_matrices(config, batches, audio_rates, device)


if __name__ == "__main__":
    main()
