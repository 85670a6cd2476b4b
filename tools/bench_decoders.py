"""Our beam search against the decoders that people install today: time, search errors, error rate.

    python tools/bench_decoders.py [--model RUN]... [--rounds 3] [--utterances 38]

It takes some three minutes. Peers that are not installed are named and left out: `ctc_decoder` of
torchaudio (with flashlight-text and kenlm), pyctcdecode (with kenlm), fast-ctc-decode. RUN is a
finished `asr train` run with CTC over phones or characters: its dev set is decoded with and without
lexicon. Besides, drawn log-probabilities give the scale.

All decoders take the same log-probabilities and beam, in turn within each round; of the rounds'
times and ratios the medians are printed. The mean score is that of the best hypotheses under one
exact scorer: the CTC log-probability of the labels (`torch.nn.functional.ctc_loss`; with words, a
sum over their spellings) plus the weighted language model. A lower one means search errors.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import itertools
import logging
import math
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchaudio

from asr.data.manifest import read_manifest
from asr.decode.lexicon import Lexicon
from asr.decode.paths import BEGIN, spelled
from asr.decode.search.beam import BeamOptions, beam_search
from asr.labels import BLANK, SPACE, Labels, fold, unit_symbols
from asr.lm.ngram import NGram
from asr.recognize.recognizer import Recognizer
from asr.train.rundir import processor_name

BEAM, LM_WEIGHT, LN_10 = 50, 0.5, math.log(10.0)
PEERS = ("flashlight-text", "kenlm", "pyctcdecode", "fast-ctc-decode")

Answer = tuple[int, ...] | tuple[str, ...]
Decode = Callable[[np.ndarray], Answer]


@dataclass
class Task:
    """What all decoders are asked: label sequences, or the words of a lexicon with an n-gram."""

    title: str
    log_probs: list[np.ndarray]
    symbols: list[str]
    references: list[Answer] | None = None
    lexicon: Lexicon | None = None
    ngram: NGram | None = None
    arpa: Path | None = None

    def score(self, log_probs: np.ndarray, answer: Answer) -> float:
        """Exact score of an answer, natural logarithm."""
        if self.lexicon is None:
            return exact_labels(log_probs, [int(label) for label in answer])
        assert self.ngram is not None
        words = [str(word) for word in answer]
        lm = LM_WEIGHT * LN_10 * self.ngram.score(words)
        return exact_words(log_probs, words, self.lexicon, self.symbols) + lm


def exact_labels(log_probs: np.ndarray, labels: Sequence[int]) -> float:
    """Log of the summed probability of all CTC paths of ``labels``."""
    loss = torch.nn.functional.ctc_loss(
        torch.from_numpy(log_probs).double()[:, None],
        torch.tensor([labels], dtype=torch.long).reshape(1, len(labels)),
        torch.tensor([len(log_probs)]),
        torch.tensor([len(labels)]),
        BLANK,
        reduction="sum",
    )
    return -float(loss)


def exact_words(
    log_probs: np.ndarray, words: Sequence[str], lexicon: Lexicon, symbols: list[str]
) -> float:
    """The same for words, summed over their spellings and the separators between them."""
    spellings = [
        lexicon.spellings[lexicon.words.index(word)]
        if word in lexicon.words
        else (tuple(symbols.index(letter) for letter in word),)
        for word in words
    ]
    graph = spelled(spellings, lexicon.separators, lexicon.required)
    # Node n has two states: its label (2n + 1) and the blank after it; state 0 is the first blank.
    n_states = 2 * len(graph.labels) + 1
    emits = np.zeros(n_states, np.int64)
    emits[1::2] = graph.labels
    moves = np.eye(n_states)
    start, final = np.zeros(n_states), np.zeros(n_states)
    start[0] = 1.0
    for node, label in enumerate(graph.labels):
        state = 2 * node + 1
        moves[state, state + 1] = 1.0
        for p in graph.before[node]:
            if p == BEGIN:
                moves[0, state] = start[state] = 1.0
            else:
                moves[2 * p + 2, state] = 1.0
                moves[2 * p + 1, state] = float(graph.labels[p] != label)
    for p in graph.ends:
        final[[0] if p == BEGIN else [2 * p + 1, 2 * p + 2]] = 1.0
    total = 0.0
    forward = start
    for t, frame in enumerate(np.exp(log_probs[:, emits].astype(np.float64))):
        forward = (forward @ moves if t else forward) * frame
        scale = forward.sum()
        if scale == 0:
            return -math.inf
        forward /= scale
        total += math.log(scale)
    with np.errstate(divide="ignore"):
        return total + float(np.log(forward @ final))


def ours(task: Task) -> Decode:
    """Carousel."""
    lexicon = task.lexicon
    if lexicon is None or task.ngram is None:
        return lambda x: beam_search(x, BeamOptions(beam=BEAM))[0].labels
    bound = lexicon.bind(task.ngram)
    options = BeamOptions(beam=BEAM, lm_weight=LM_WEIGHT)
    return lambda x: beam_search(x, options, bound, lexicon)[0].words or ()


def flashlight(task: Task, **pruning: float) -> Decode:
    """torchaudio's binding, summing paths as all others do."""
    from torchaudio.models.decoder import ctc_decoder

    # Its searches begin and end in the silence token: without words, the blank.
    silence = task.symbols[BLANK]
    kind: dict[str, Any] = {"lexicon": None}
    if task.lexicon is not None:
        silence = task.symbols[task.lexicon.separators[0]]
        lines = []
        for word, spellings in zip(task.lexicon.words, task.lexicon.spellings, strict=True):
            for spelling in spellings:
                letters = [task.symbols[i] for i in spelling]
                lines.append(" ".join([word, *letters, *([silence] * task.lexicon.required)]))
        assert task.arpa is not None
        path = task.arpa.with_suffix(".flashlight")
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        # It takes KenLM's base-10 logarithms as they are.
        kind = {"lexicon": str(path), "lm": str(task.arpa), "lm_weight": LM_WEIGHT * LN_10}
    decoder = ctc_decoder(
        tokens=task.symbols,
        beam_size=BEAM,
        log_add=True,
        blank_token=task.symbols[BLANK],
        sil_token=silence,
        **kind,
        **pruning,
    )

    def decode(x: np.ndarray) -> Answer:
        (found,) = decoder(torch.from_numpy(x)[None])[0]
        return tuple(found.words) if task.lexicon is not None else tuple(found.tokens.tolist())

    return decode


def flashlight_pruned(task: Task) -> Decode:
    """The same, pruned about as ours is."""
    return flashlight(task, beam_size_token=min(BEAM + 1, len(task.symbols)), beam_threshold=20)


def letters_of(task: Task) -> list[str]:
    """One character a label, as two of the peers want it."""
    return ["", *(chr(0x4E00 + i) for i in range(len(task.symbols) - 1))]


def pyctcdecode_one(task: Task) -> tuple[Any, Callable[[str], Answer]] | None:
    """The decoder, and what reads its text; it knows no pronunciations."""
    from pyctcdecode import build_ctcdecoder

    if task.lexicon is None:
        letters = letters_of(task)
        ids = {letter: i for i, letter in enumerate(letters)}
        return build_ctcdecoder(letters), lambda text: tuple(ids[c] for c in text)
    if not task.lexicon.required:
        return None
    symbols = ["" if i == BLANK else " " if s == SPACE else s for i, s in enumerate(task.symbols)]
    decoder = build_ctcdecoder(
        symbols, str(task.arpa), task.lexicon.words, alpha=LM_WEIGHT, beta=0.0
    )
    return decoder, lambda text: tuple(text.split())


def pyctcdecode(task: Task) -> Decode | None:
    """pyctcdecode with its own pruning."""
    found = pyctcdecode_one(task)
    if found is None:
        return None
    decoder, read = found
    return lambda x: read(decoder.decode(x, beam_width=BEAM))


def fast_ctc_decode(task: Task) -> Decode | None:
    """fast-ctc-decode with its own pruning; it knows neither lexicon nor language model."""
    import fast_ctc_decode as peer

    if task.lexicon is not None:
        return None
    letters = ["_", *letters_of(task)[1:]]
    ids = {letter: i for i, letter in enumerate(letters)}
    cut = min(0.001, 0.5 / len(letters))

    def decode(x: np.ndarray) -> Answer:
        text, _ = peer.beam_search(np.exp(x), letters, BEAM, cut)
        return tuple(ids[c] for c in text)

    return decode


#: What each needs, and the largest inventory that it decodes in a few seconds and in the memory.
DECODERS: dict[str, tuple[Callable[[Task], Decode | None], tuple[str, ...], int]] = {
    "Carousel": (ours, (), 5000),
    "flashlight": (flashlight, ("flashlight-text", "kenlm"), 500),
    "flashlight, pruned as ours": (flashlight_pruned, ("flashlight-text", "kenlm"), 5000),
    "pyctcdecode": (pyctcdecode, ("pyctcdecode", "kenlm"), 5000),
    "fast-ctc-decode": (fast_ctc_decode, ("fast-ctc-decode",), 500),
}


def has(package: str) -> bool:
    """Whether a package is installed."""
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def two_threads(make: Callable[[Task], Decode | None], task: Task) -> Callable[[], None]:
    """Decode all utterances by two threads, each with a decoder of its own."""
    decoders = [make(task) for _ in range(2)]
    halves = [task.log_probs[0::2], task.log_probs[1::2]]

    def one(work: tuple[Decode | None, list[np.ndarray]]) -> None:
        decode, utterances = work
        assert decode is not None
        for x in utterances:
            decode(x)

    def run() -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(one, zip(decoders, halves, strict=True)))

    return run


def two_processes(task: Task) -> Callable[[], None]:
    """pyctcdecode's own way: a pool of processes."""
    found = pyctcdecode_one(task)
    assert found is not None

    def run() -> None:
        with multiprocessing.get_context("fork").Pool(2) as pool:
            found[0].decode_batch(pool, task.log_probs, beam_width=BEAM)

    return run


def all_of(decode: Decode, log_probs: list[np.ndarray]) -> list[Answer]:
    """Decode utterance after utterance."""
    return [decode(x) for x in log_probs]


def seconds(run: Callable[[], object]) -> float:
    """Wall time of one call."""
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def compare(task: Task, rounds: int) -> None:
    """Time all decoders on a task in turn and print their table."""
    runs: dict[str, Callable[[], object]] = {}
    answers: dict[str, list[Answer]] = {}
    in_two: dict[str, Callable[[], None]] = {}
    for name, (make, needs, largest) in DECODERS.items():
        known = all(has(package) for package in needs) and len(task.symbols) <= largest
        decode = make(task) if known else None
        if decode is None:
            continue
        answers[name] = all_of(decode, task.log_probs)
        runs[name] = partial(all_of, decode, task.log_probs)
        in_two[name] = two_processes(task) if name == "pyctcdecode" else two_threads(make, task)
    alone: dict[str, list[float]] = {name: [] for name in runs}
    paired: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name in runs:
            alone[name].append(seconds(runs[name]))
            paired[name].append(seconds(in_two[name]))
    n = len(task.log_probs)
    n_frames = sum(map(len, task.log_probs)) / n
    print(f"\n{task.title}: {n} utterances of {n_frames:.0f} frames on average.\n")
    print("| | ms | times ours | ms, two threads | times ours | mean score | error rate |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name in runs:
        cells = []
        for times in (alone, paired):
            ratios = [a / b for a, b in zip(times[name], times["Carousel"], strict=True)]
            cells.append(f"{1000 * statistics.median(times[name]) / n:.2f}")
            cells.append(f"{statistics.median(ratios):.1f}")
        found = zip(task.log_probs, answers[name], strict=True)
        cells.append(f"{statistics.fmean(itertools.starmap(task.score, found)):.4f}")
        cells.append(
            f"{100 * error_rate(task.references, answers[name]):.2f} %" * bool(task.references)
        )
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def error_rate(references: list[Answer] | None, answers: list[Answer]) -> float:
    """Edits by reference length."""
    if not references:
        return 0.0
    edits = sum(
        torchaudio.functional.edit_distance(list(r), list(a))
        for r, a in zip(references, answers, strict=True)
    )
    return edits / sum(map(len, references))


def draw(n: int, n_frames: int, n_labels: int) -> list[np.ndarray]:
    """Log-softmax of normal noise, standard deviation 3."""
    generator = torch.Generator().manual_seed(n_labels)
    noise = 3 * torch.randn(n, n_frames, n_labels, generator=generator)
    return list(noise.log_softmax(-1).numpy())


def real_tasks(run: Path, folder: Path, n: int) -> list[Task]:
    """The dev set of a run, without and with lexicon and word 3-gram."""
    recognizer = Recognizer.load(run)
    labels = recognizer.bundle.labels
    dev = read_manifest(run / "manifests" / "dev.jsonl")
    dev = dev[:: max(1, len(dev) // n)]
    log_probs = recognizer.emissions([recognizer.read(u.audio) for u in dev])
    config = recognizer.bundle.label_config
    references: list[Answer] = [
        tuple(labels.ids.get(s, -1) for s in fold(unit_symbols(u, labels.unit), config.fold, u.id))
        for u in dev
    ]
    said = [(u.text or "").split() for u in read_manifest(run / "manifests" / "train.jsonl")]
    ngram = NGram.estimate(said, 3)
    arpa = folder / f"{run.name}.arpa"
    ngram.write_arpa(arpa)
    lexicon = recognizer.bundle.lexicon or spelling_lexicon(labels, ngram)
    title = f"`{run.name}`, {labels.unit}s, V = {len(labels)}"
    ending = log_probs
    if lexicon.required:
        # flashlight ends each word with a separator, so every utterance ends with a sure one.
        sure = np.full((1, len(labels)), -30.0, np.float32)
        sure[0, lexicon.separators[0]] = 0.0
        ending = [np.concatenate([x, sure]) for x in log_probs]
    words: list[Answer] = [tuple((u.text or "").split()) for u in dev]
    symbols = list(labels.symbols)
    return [
        Task(title, log_probs, symbols, references),
        Task(
            f"{title}, {len(lexicon.words)} words and their 3-gram",
            ending,
            symbols,
            words,
            lexicon,
            ngram,
            arpa,
        ),
    ]


def spelling_lexicon(labels: Labels, ngram: NGram) -> Lexicon:
    """The n-gram's words in letters."""
    words = [word for word in ngram.tokens[3:] if all(c in labels.ids for c in word)]
    entries = [(word, labels.encode(list(word))) for word in words]
    return Lexicon.build(entries, [labels.ids[SPACE]], required=True)


def lengths() -> None:
    """Print that the time of ours is proportional to the frames."""
    print("\nTime of ours by length, V = 40, one thread.\n")
    print("| frames | ms | microseconds a frame |")
    print("|---:|---:|---:|")
    for n_frames in (200, 2_000, 20_000):
        x = draw(1, n_frames, 40)[0]
        search = partial(beam_search, x, BeamOptions(beam=BEAM))
        took = statistics.median(seconds(search) for _ in range(5))
        print(f"| {n_frames} | {1000 * took:.1f} | {1e6 * took / n_frames:.1f} |", flush=True)


def main() -> None:
    """Compare all that is installed."""
    parser = argparse.ArgumentParser(description="Beam search against its peers")
    parser.add_argument("--model", type=Path, action="append", default=[], help="a CTC run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--utterances", type=int, default=38, help="of the dev set, at most about")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    versions = {p: importlib.metadata.version(p) for p in ("torchaudio", *PEERS) if has(p)}
    print(
        f"`python tools/bench_decoders.py`, {datetime.date.today()}, {os.cpu_count()} cores of "
        f"{processor_name()}, beam {BEAM}, median of {args.rounds} rounds; "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + "."
    )
    absent = [package for package in PEERS if not has(package)]
    if absent:
        print(f"not installed, so left out: {', '.join(absent)}", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        for run in args.model:
            for task in real_tasks(run, Path(folder), args.utterances):
                compare(task, args.rounds)
    for n_labels, n in ((40, 6), (500, 3), (5000, 3)):
        symbols = [str(i) for i in range(n_labels)]
        compare(Task(f"Drawn, V = {n_labels}", draw(n, 200, n_labels), symbols), args.rounds)
    lengths()


if __name__ == "__main__":
    main()
