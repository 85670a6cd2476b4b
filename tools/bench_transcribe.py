"""`asr transcribe` from files to text: speed, memory, and what each way of computing costs.

    python tools/bench_transcribe.py RUN [--pocketsphinx PYTHON] [--every 16]
        [--minutes 180] [--rounds 2] [--device cuda]

RUN is a finished `asr train` run with CTC over phones; its test set is transcribed file by file and
as one recording of so many minutes, by the whole command, start included, with greedy decoding.
PYTHON is an interpreter that has PocketSphinx, whose en-us model decodes each 16th file. All that
takes some four minutes. Ways that are compared take turns; of the rounds' times the medians are
printed, in seconds of the clock and of the processor (the sum over its cores). On a GPU the whole
command is timed alone.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import soundfile
import torch
from rapidfuzz.distance import Levenshtein

from asr.audio.read import audio_blocks, load_audio
from asr.audio.windows import WindowConfig, windows
from asr.data.manifest import read_manifest
from asr.decode.config import DecodingOptions
from asr.labels import unit_symbols
from asr.model.pretrained import load_model
from asr.recognize.recognizer import PRECISIONS, Recognizer
from asr.recognize.transcripts import to_json
from asr.score.error_rate import phone_policy
from asr.train.rundir import processor_name
from asr.types import Utterance

RATE = 16_000
N_CORES = os.cpu_count() or 1
#: Minutes of the recordings that windows and one whole pass are compared on.
LENGTHS_MIN = (1, 5)
#: Decodes the files of int16 samples that standard input lists, as one JSON object.
POCKETSPHINX = """
import json, sys, time, pocketsphinx
files = sys.stdin.read().split()
lm = pocketsphinx.get_model_path("en-us/en-us-phone.lm.bin")
phones = {"allphone": lm, "lm": None, "lw": 2.0, "pip": 0.3, "beam": 1e-20, "pbeam": 1e-20}
found = {}
for unit, settings in {"word": {}, "phone": phones}.items():
    decoder = pocketsphinx.Decoder(loglevel="ERROR", **settings)
    begun, begun_processor, texts = time.perf_counter(), time.process_time(), []
    for name in files:
        samples = open(name, "rb").read()
        decoder.start_utt()
        decoder.process_raw(samples, full_utt=True)
        decoder.end_utt()
        texts.append(decoder.hyp().hypstr.split() if decoder.hyp() else [])
    found[unit] = [texts, time.perf_counter() - begun, time.process_time() - begun_processor]
print(json.dumps(found))
"""
T = TypeVar("T")


@dataclass
class Done:
    """What one command took and found; peak: bytes of its memory that were resident at once."""

    wall_s: float
    processor_s: float
    peak: int
    labels: list[list[str]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--pocketsphinx", metavar="PYTHON")
    parser.add_argument("--every", type=int, default=16)
    parser.add_argument("--minutes", type=float, default=180)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(1)
    test = list(read_manifest(args.run / "manifests/test.jsonl"))
    random.Random(0).shuffle(test)
    model = args.run / "model"
    gpu = f"{torch.cuda.get_device_name()}, " if args.device == "cuda" else ""
    print(f"{datetime.date.today()}, {gpu}{N_CORES} cores of {processor_name()}, ", end="")
    print(f"torch {torch.__version__}; model {args.run.name}, greedy.\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bench_command(model, test, folder, args)
        if args.device != "cpu":
            return
        bench_stages(model, test)
        bench_windows(model, test)
        if args.pocketsphinx:
            bench_pocketsphinx(args.pocketsphinx, model, test[:: args.every], folder)


def phones(utterances: Sequence[Utterance]) -> list[str]:
    """What was said, one utterance after the other."""
    return [symbol for u in utterances for symbol in unit_symbols(u, "phone", "cmu40")]


def error_rate(
    references: Sequence[Sequence[str]], found: Sequence[Sequence[str]], silence: str = "merge"
) -> float:
    """Phone error rate in per cent."""
    return edit_rate(
        [phone_policy(ref, "cmu40", silence) for ref in references],
        [phone_policy(hyp, "cmu40", silence) for hyp in found],
    )


def edit_rate(references: Sequence[Sequence[str]], found: Sequence[Sequence[str]]) -> float:
    """Edits in per cent of the references; an alignment of hours would not fit into memory."""
    edits = sum(map(Levenshtein.distance, references, found))
    return 100 * edits / sum(map(len, references))


def audio_s(utterances: Sequence[Utterance]) -> float:
    return sum(u.duration_s for u in utterances)


def command(model: Path, files: Sequence[Path], out: Path, *options: str) -> Done:
    """Run `asr transcribe`, with JSON into ``out``."""
    words = ["transcribe", "--model", str(model), "--decoder", "greedy", "--format", "json"]
    words += ["--out", str(out), "--redo", *options, "--list", "-"]
    begun = time.perf_counter()
    # Waited for by hand: the peak is this child's alone.
    child = subprocess.Popen([sys.executable, "-m", "asr", *words], stdin=subprocess.PIPE)
    assert child.stdin is not None
    child.stdin.write("\n".join(map(str, files)).encode())
    child.stdin.close()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    wall_s = time.perf_counter() - begun
    if child.returncode:
        sys.exit("asr transcribe failed")
    by_audio = {}
    for path in out.rglob("*.json"):
        transcript = json.loads(path.read_text())
        by_audio[transcript["audio_filepath"]] = [s["label"] for s in transcript["labels"]]
    labels = [by_audio[str(file)] for file in files]
    return Done(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, labels)


def write_recording(path: Path, utterances: Sequence[Utterance], minutes: float) -> list[str]:
    """Write the utterances one after the other, over and over; returns their phones."""
    said: list[str] = []
    n_samples = 0
    with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16") as sound:
        while n_samples < minutes * 60 * RATE:
            for utterance in utterances:
                waveform = load_audio(utterance.audio)
                sound.write(waveform)
                said += phones([utterance])
                n_samples += len(waveform)
                if n_samples >= minutes * 60 * RATE:
                    break
    return said


def bench_command(
    model: Path, test: Sequence[Utterance], folder: Path, args: argparse.Namespace
) -> None:
    """The whole command on many files and on a long one, in each precision of the device."""
    precisions = [p for p in PRECISIONS if p != "int8" or args.device == "cpu"]
    minutes, device = args.minutes, f"--device={args.device}"
    files, recording = [u.audio for u in test], folder / "recording.wav"
    said = write_recording(recording, test, minutes)
    short: dict[str, list[Done]] = {precision: [] for precision in precisions}
    long, start = {}, []
    for number in range(args.rounds):
        start.append(command(model, files[:1], folder / "start", device))
        for precision in precisions:
            options = f"--precision={precision}", device
            short[precision].append(command(model, files, folder / "short", *options))
            if not number:
                long[precision] = command(model, [recording], folder / "long", *options)
    start_s = statistics.median(d.wall_s for d in start)
    start_processor_s = statistics.median(d.processor_s for d in start)
    print(f"One file takes {start_s:.1f} s, {start_processor_s:.1f} of the processor: the start,")
    print(
        "with torch and the model. Above its memory there is, with the recording, in MB: ", end=""
    )
    peaks = ((p, (long[p].peak - start[0].peak) / 1e6) for p in precisions)
    print(", ".join(f"{precision} {peak:.0f}" for precision, peak in peaks) + ".\n")
    print(
        "| | precision | s | of the processor | files/s | times real time | a core, without start ",
        end="",
    )
    print("| phone error rate |\n|---|---|---:|---:|---:|---:|---:|---:|")
    references = [phones([u]) for u in test]
    for precision in precisions:
        done = short[precision]
        wall_s = statistics.median(d.wall_s for d in done)
        processor_s = statistics.median(d.processor_s for d in done)
        rate = error_rate(references, done[0].labels, "count")
        print_row(
            f"{len(test)} files, {audio_s(test) / 60:.0f} min",
            precision,
            f"{wall_s:.1f}",
            f"{processor_s:.1f}",
            f"{len(test) / wall_s:.0f}",
            f"{audio_s(test) / wall_s:.0f}",
            f"{audio_s(test) / (processor_s - start_processor_s):.0f}",
            f"{rate:.2f} %",
        )
    for precision in precisions:
        one = long[precision]
        print_row(
            f"one file, {minutes:g} min",
            precision,
            f"{one.wall_s:.1f}",
            f"{one.processor_s:.1f}",
            "",
            f"{minutes * 60 / one.wall_s:.0f}",
            f"{minutes * 60 / (one.processor_s - start_processor_s):.0f}",
            f"{error_rate([said], one.labels):.2f} %",
        )
    print()


def print_row(*cells: str) -> None:
    print("| " + " | ".join(cells) + " |", flush=True)


def took(work: Callable[[], T]) -> tuple[float, float, T]:
    """Seconds of the clock and of the processor, and the result."""
    begun, begun_processor = time.perf_counter(), time.process_time()
    found = work()
    return time.perf_counter() - begun, time.process_time() - begun_processor, found


def greedy(model: Path, windowing: WindowConfig, precision: str, n_threads: int) -> Recognizer:
    options = DecodingOptions(decoder="greedy")
    return Recognizer(
        load_model(model),
        options,
        windowing=windowing,
        precision=precision,
        n_threads=n_threads,
    )


def stages(recognizer: Recognizer, files: Sequence[Path]) -> list[float]:
    """Processor seconds of reading, log-mel, net, decoding, and the rest of the whole."""
    step = round(recognizer.bundle.clock.shift_s * RATE)

    def read() -> list[np.ndarray]:
        return [
            window.waveform
            for file in files
            for window in windows(audio_blocks(file, RATE), RATE, step, recognizer.windowing)
        ]

    def log_mel() -> None:
        for waveform in waveforms:
            recognizer.bundle.log_mel(waveform)

    def everything() -> None:
        for transcript in recognizer.transcribe_files(files, raised):
            to_json(transcript)

    _, read_s, waveforms = took(read)
    _, log_mel_s, _ = took(log_mel)
    _, emissions_s, log_probs = took(lambda: recognizer.emissions(waveforms))
    _, decoding_s, _ = took(lambda: recognizer.decoder.batch(log_probs, n_threads=1))
    _, all_s, _ = took(everything)
    rest_s = all_s - read_s - emissions_s - decoding_s
    return [read_s, log_mel_s, emissions_s - log_mel_s, decoding_s, rest_s]


def bench_stages(model: Path, test: Sequence[Utterance]) -> None:
    """Where the time goes, by one thread."""
    print("| processor seconds an hour of audio | reading | log-mel | net | decoding | the rest |")
    print("|---|---:|---:|---:|---:|---:|")
    for precision in PRECISIONS:
        recognizer = greedy(model, WindowConfig(), precision, n_threads=1)
        parts = stages(recognizer, [u.audio for u in test])
        print_row(precision, *(f"{3600 * part / audio_s(test):.1f}" for part in parts))
    print()


def raised(source: object, error: Exception) -> None:
    raise error


def bench_windows(model: Path, test: Sequence[Utterance]) -> None:
    """Windows against the whole recording at once, and against each utterance by itself."""
    whole, cut = (
        greedy(model, windowing, "float32", N_CORES)
        for windowing in (WindowConfig(whole_s=1e9), WindowConfig())
    )
    # A speaker's utterances beside each other, as in a real recording.
    test = sorted(test, key=lambda u: (u.speaker, u.id))
    transcripts = cut.transcribe_files([u.audio for u in test], raised)
    own = {
        u.id: [s.label for s in transcript.labels]
        for u, transcript in zip(test, transcripts, strict=True)
    }
    waveforms = {u.id: load_audio(u.audio) for u in test}
    print("| phone error rate, % | utterances by themselves | recording at once | windows |")
    print("|---|---:|---:|---:|")
    for minutes in LENGTHS_MIN:
        recordings: list[list[Utterance]] = [[]]
        for utterance in test:
            if audio_s(recordings[-1]) >= minutes * 60:
                recordings.append([])
            recordings[-1].append(utterance)
        references = [phones(r) for r in recordings]
        joined = [np.concatenate([waveforms[u.id] for u in r]) for r in recordings]
        cells = [error_rate(references, [[s for u in r for s in own[u.id]] for r in recordings])]
        for recognizer in (whole, cut):
            found = recognizer.recognize([("", waveform) for waveform in joined])
            cells.append(error_rate(references, [[s.label for s in t.labels] for t in found]))
        title = f"{len(recordings)} recordings of {minutes} min"
        print_row(title, *(f"{cell:.2f}" for cell in cells))
    print()


def bench_pocketsphinx(
    python: str, model: Path, utterances: Sequence[Utterance], folder: Path
) -> None:
    """PocketSphinx in a process a core, without its start; and ours on the same files."""
    files, seconds = [], audio_s(utterances)
    for number, utterance in enumerate(utterances):
        files.append(folder / f"{number}.raw")
        (load_audio(utterance.audio) * 32767).astype("<i2").tofile(files[-1])

    def decode(share: Sequence[Path]) -> dict[str, Any]:
        done = subprocess.run(
            [python, "-c", POCKETSPHINX],
            input="\n".join(map(str, share)),
            capture_output=True,
            check=True,
            text=True,
        )
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    with ThreadPoolExecutor(N_CORES) as pool:
        answers = list(pool.map(decode, [files[i::N_CORES] for i in range(N_CORES)]))
    print(f"{len(utterances)} of the files, {seconds / 60:.1f} min:\n")
    print("| | times real time | a core | error rate |\n|---|---:|---:|---:|")

    def row(title: str, wall_s: float, processor_s: float, rate: float) -> None:
        print_row(title, f"{seconds / wall_s:.1f}", f"{seconds / processor_s:.1f}", f"{rate:.1f} %")

    for unit, rate_of in (("word", word_error_rate), ("phone", phone_error_rate)):
        found: list[list[str]] = [[] for _ in files]
        for i, answer in enumerate(answers):
            found[i::N_CORES] = answer[unit][0]
        row(
            f"PocketSphinx, {unit}s",
            max(answer[unit][1] for answer in answers),
            sum(answer[unit][2] for answer in answers),
            rate_of(utterances, found),
        )
    paths = [u.audio for u in utterances]
    words = DecodingOptions(decoder="beam", lexicon="model")
    search = Recognizer(load_model(model), words, n_threads=N_CORES)
    list(search.transcribe_files(paths[:1], raised))  # compiles
    wall_s, processor_s, transcripts = took(lambda: list(search.transcribe_files(paths, raised)))
    heard = [t.text.split() for t in transcripts]
    row("Carousel, words", wall_s, processor_s, word_error_rate(utterances, heard))
    best = greedy(model, WindowConfig(), "float32", N_CORES)
    wall_s, processor_s, transcripts = took(lambda: list(best.transcribe_files(paths, raised)))
    heard = [[s.label for s in t.labels] for t in transcripts]
    row("Carousel, phones", wall_s, processor_s, phone_error_rate(utterances, heard))


def word_error_rate(utterances: Sequence[Utterance], found: Sequence[Sequence[str]]) -> float:
    """In per cent, in lower case."""
    said = [(u.text or "").lower().split() for u in utterances]
    heard = [[word.lower() for word in words] for words in found]
    return edit_rate(said, heard)


def phone_error_rate(utterances: Sequence[Utterance], found: Sequence[Sequence[str]]) -> float:
    """In per cent, without silence, and without the noises that PocketSphinx writes as +NOISE+."""
    heard = [[phone.lower() for phone in hyp if not phone.startswith("+")] for hyp in found]
    return error_rate([phones([u]) for u in utterances], heard, "ignore")


if __name__ == "__main__":
    main()
