"""What large corpora cost: starting on a manifest of 10 million lines, decoding, reading shards.

    python tools/bench_scale.py SHARDS [--lines 10000000] [--work DIR]

SHARDS is a folder that ``asr prepare KIND ROOT SHARDS --shards 2`` made, with sets train and dev.
The drawn manifest names their utterances again and again, under new ids and in thousands of tars
(links to the real ones), so that training on it really reads audio. Cold: the manifest has no index
yet; warm: the index of the first start is there. Needs about 3 GB in DIR for 10 million lines.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import nn

from asr.audio.features import FeatureConfig, LogMel
from asr.audio.read import load_audio, tar_member
from asr.corpora import load_corpus
from asr.data.examples import collate, made_ahead, padding
from asr.data.manifest import read_manifest, write_manifest
from asr.data.utterances import Listed
from asr.train.config import RunConfig
from asr.train.recipe import load_config
from asr.train.rundir import processor_name
from asr.train.setup import Pronounced, build, choose_sets
from asr.train.step import StepConfig, step
from asr.train.stream import Stream
from asr.train.world import World
from asr.types import Batch

PER_TAR = 1000
N_WORDS = 50_000
WORDS_A_LINE = 12
ROUNDS = 5
N_BATCHES = 4
#: What a fresh process runs: training, until its first step is done.
FIRST_STEP = """
import json, os, resource, sys, time
began = float(sys.argv[1])
from asr.train import loop
from asr.train.recipe import load_config
step = loop.step
def first(*args):
    step(*args)
    own, others = (resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(json.dumps({
        "seconds": time.time() - began,
        "cpu_s": own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime,
        "peak_gb": own.ru_maxrss / 1e6}), flush=True)
    os._exit(0)
loop.step = first
loop.train(*load_config(sys.argv[2], sys.argv[3:]))
"""


def draw_manifest(shards: Path, folder: Path, n_lines: int) -> None:
    """Write ``folder/train.jsonl`` of drawn lines and links to tars, and a dev set."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    by_tar: dict[Path, list[tuple[int, int, float]]] = {}
    for utterance in read_manifest(shards / "train.jsonl"):
        member = tar_member(utterance.audio)
        if member is None:
            raise SystemExit(f"{shards}: train is not in tars; make it with asr prepare --shards")
        by_tar.setdefault(member[0], []).append((member[1], member[2], utterance.duration_s))
    tars = list(by_tar.items())
    words = np.array([f"{'aeiou'[i % 5]}word{i}" for i in range(N_WORDS)])
    # Zipf's law: the commonest words make most of a text.
    weights = 1 / np.arange(1, N_WORDS + 1)
    weights /= weights.sum()
    with (folder / "train.jsonl").open("w", encoding="utf-8") as out:
        for first in range(0, n_lines, PER_TAR):
            number = first // PER_TAR
            tar, here = tars[number % len(tars)]
            name = f"train-{number:06d}.tar"
            (folder / name).symlink_to(tar.resolve())
            drawn = rng.choice(words, (PER_TAR, WORDS_A_LINE), p=weights)
            for i in range(min(PER_TAR, n_lines - first)):
                start, size, seconds = here[i % len(here)]
                line = {
                    "id": f"speaker{number:05d}-utterance{first + i:09d}",
                    "audio_filepath": f"{name}:{start}:{size}",
                    "duration": seconds,
                    "speaker": f"speaker{number:05d}",
                    "text": " ".join(drawn[i]),
                }
                out.write(json.dumps(line) + "\n")
    # Dev's transcripts are of another language than the drawn words; its error rates mean nothing.
    dev = read_manifest(shards / "dev.jsonl")[:50]
    write_manifest(folder / "dev.jsonl", dev)


def start(folder: Path, run: Path) -> dict[str, float]:
    """Seconds from starting a process to the end of its first step, and its memory."""
    settings = ["corpus=streamed", f"corpus.root={folder}", "corpus.test=[]", "labels=char"]
    settings += [f"run_dir={run}", "lm=none", "trainer.device=cpu", "loss.framewise_epochs=0"]
    told = subprocess.run(
        [sys.executable, "-c", FIRST_STEP, str(time.time()), "recipes/so762/ctc.yaml", *settings],
        capture_output=True,
        text=True,
    )
    if told.returncode:
        raise SystemExit(told.stderr)
    figures: dict[str, float] = json.loads(told.stdout.splitlines()[-1])
    return figures


def rate(amount: float, work: Callable[[], object], rounds: int = ROUNDS) -> tuple[float, float]:
    """The amount a second of processor time and of wall time: the best of several rounds."""
    cpu, wall = [], []
    for _ in range(rounds):
        cpu_began, began = time.process_time(), time.perf_counter()
        work()
        cpu.append(time.process_time() - cpu_began)
        wall.append(time.perf_counter() - began)
    return amount / min(cpu), amount / min(wall)


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shards", type=Path)
    parser.add_argument("--lines", type=int, default=10_000_000)
    parser.add_argument("--work", type=Path, default=Path("bench-scale"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{processor_name()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    decoding(args.shards)
    training(args.shards)
    big = args.work / f"lines{args.lines}"
    if not big.exists():
        began = time.perf_counter()
        draw_manifest(args.shards, big, args.lines)
        print(f"drawn in {time.perf_counter() - began:.0f} s")
    size = (big / "train.jsonl").stat().st_size
    print(f"{args.lines} lines, {size / 1e9:.2f} GB", flush=True)
    (big / "train.jsonl.npz").unlink(missing_ok=True)
    for name in ("cold", "warm", "warm again"):
        figures = start(big, args.work / f"run-{time.time():.0f}")
        print(
            f"{name}: first step done after {figures['seconds']:.1f} s "
            f"({figures['cpu_s']:.0f} s of processor time with the helpers'); peak "
            f"{figures['peak_gb']:.2f} GB; load {os.getloadavg()[0]:.1f}",
            flush=True,
        )


def decoding(shards: Path) -> None:
    """FLAC to samples, and to log-mel, on one core; reading of tars."""
    utterances = read_manifest(shards / "train.jsonl")[:300]
    seconds = sum(u.duration_s for u in utterances)
    contents = []
    for utterance in utterances:
        member = tar_member(utterance.audio)
        assert member is not None
        with member[0].open("rb") as handle:
            handle.seek(member[1])
            contents.append(handle.read(member[2]))
    n_bytes = sum(map(len, contents))
    log_mel = LogMel(FeatureConfig())

    def waveforms() -> Iterator[np.ndarray]:
        for utterance, data in zip(utterances, contents, strict=True):
            yield load_audio(utterance.audio, data=data)

    def features() -> None:
        for waveform in waveforms():
            log_mel(waveform)

    print(f"FLAC: {n_bytes / seconds / 1e3:.1f} kB a second of audio")
    print(f"decode: {rate(seconds, lambda: list(waveforms()))[0]:.0f} x real time a core")
    print(f"decode + log-mel: {rate(seconds, features)[0]:.0f} x real time a core")
    tars = sorted(shards.glob("train-*.tar"))
    size = sum(t.stat().st_size for t in tars)

    def read() -> None:
        for tar in tars:
            with tar.open("rb", buffering=1 << 20) as handle:
                while handle.read(1 << 18):
                    pass

    cpu, wall = rate(size / 1e6, read)
    print(f"tars, from the page cache: {wall:.0f} MB/s ({cpu:.0f} MB a second of processor)")


def training(shards: Path) -> None:
    """Steps and batches of `asr train` in turns: how much of an epoch is reading."""
    settings = ["corpus=streamed", f"corpus.root={shards}", "labels=char", "run_dir=unused"]
    settings += ["lm=none", "corpus.test=[]", "loss.framewise_epochs=0", "model=blstm_3x256"]
    config, _ = load_config("recipes/so762/ctc.yaml", settings)
    sets = choose_sets(config.corpus, load_corpus("streamed", shards))
    prepared = build(
        config,
        Pronounced({"train": sets["train"], "dev": Listed(sets["dev"][:8])}),
        None,
    )
    stream = prepared.train
    assert isinstance(stream, Stream)
    began = time.perf_counter()
    stream.open(0)
    print(f"planning an epoch of {len(stream)}: {1e3 * (time.perf_counter() - began):.0f} ms")
    plan = stream.plan(0)
    print(f"padding: {100 * padding(plan.lens.tolist(), list(plan.batches)):.1f} %")
    bare_steps(config, prepared.bundle.model, stream)


def bare_steps(config: RunConfig, model: nn.Module, stream: Stream) -> None:
    """Steps on batches in memory, batches alone, and steps on batches from the shards, in turns."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    world = World(torch.device("cpu"))
    some = range(1, 1 + N_BATCHES)
    torch.set_num_threads(os.cpu_count() or 1)

    def batches(n_workers: int) -> Iterator[Batch]:
        epoch = stream.open(0)
        epoch.load(0)
        return made_ahead(
            lambda n: collate(epoch.load(n), config.features, False),
            some,
            n_workers,
        )

    def steps(ready: Iterable[Batch]) -> None:
        for batch in ready:
            step(StepConfig.of(config, "ctc"), model, optimizer, batch, world)

    held = list(batches(0))
    audio_s = sum(int(b.feature_lens.sum()) for b in held) * config.features.stack / 100
    names = ["steps alone", "batches alone"]
    names += [f"both, {n} threads ahead" for n in (0, 1, 2)]
    took: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(ROUNDS):
        for name in names:
            source = held if name == "steps alone" else batches(int(name[6]) if "," in name else 0)
            began = time.perf_counter()
            if name == "batches alone":
                for _ in source:
                    pass
            else:
                steps(source)
            took[name].append(time.perf_counter() - began)
    bare = took["steps alone"]
    for name, seconds in took.items():
        ratio = median(s / b for s, b in zip(seconds, bare, strict=True))
        print(f"{name}: {audio_s / min(seconds):.0f} x real time at best, {ratio:.2f} of the steps")


if __name__ == "__main__":
    main()
