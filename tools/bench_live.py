"""Live recognition: delays, stability and load of a live model, and its error rate beside them.

    python tools/bench_live.py RUN [--against RUN] [--chunk-ms MS --lookahead-ms MS]
        [--speakers 4] [--most-streams 400] [--pocketsphinx PYTHON]

RUN is a finished `asr train` run of a live model with a lexicon; --against names the run of the
same data with a model that hears whole utterances. A stream is what one speaker of the test set
says, sentence after sentence, with pauses of a second between; it is given in packets of 20 ms when
they would be spoken. True ends of words are the corpus'. PYTHON is an interpreter that has
PocketSphinx, which hears the same streams with its own en-us model.
"""

from __future__ import annotations

import argparse
import datetime
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise, takewhile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rapidfuzz.distance import Levenshtein

from asr.audio.read import load_audio
from asr.data.manifest import read_manifest
from asr.decode.config import DecodingOptions
from asr.decode.live import begin
from asr.labels import SILENCES
from asr.model.pretrained import load_model
from asr.model.stream import choose_latency
from asr.recognize.live import Result, Stream, advance
from asr.recognize.recognizer import Recognizer
from asr.train.rundir import processor_name
from asr.types import Segment, Utterance

RATE = 16_000
PACKET = RATE // 50
PAUSE_S = 1.0
#: Seconds of streams beside each other.
LOAD_S = 15.0
N_CORES = os.cpu_count() or 1
POCKETSPHINX = """
import json, sys, time, pocketsphinx
decoder = pocketsphinx.Decoder(loglevel="ERROR")
found = []
for name in sys.argv[1:]:
    samples = open(name, "rb").read()
    decoder.start_utt()
    partials, chunks_s = [], []
    for at in range(0, len(samples), 7680):
        begun = time.process_time()
        decoder.process_raw(samples[at : at + 7680])
        hypothesis = decoder.hyp()
        chunks_s.append(time.process_time() - begun)
        partials.append(hypothesis.hypstr.split() if hypothesis else [])
    begun = time.process_time()
    decoder.end_utt()
    words = decoder.hyp().hypstr.split() if decoder.hyp() else []
    final_s = time.process_time() - begun
    found.append(dict(words=words, partials=partials, chunks_s=chunks_s, final_s=final_s))
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Talk:
    """What one speaker says: the waveform (N,), and the words with their times in it."""

    waveform: np.ndarray
    words: tuple[Segment, ...]


@dataclass
class Seen:
    """One segment: the words of each result in turn; those committed, and how often any of them
    were taken back."""

    partials: list[list[str]] = field(default_factory=list)
    committed: list[str] = field(default_factory=list)
    n_taken_back: int = 0
    is_heard: bool = False


@dataclass
class Heard:
    """What came of one talk, and when, in seconds since it began.

    first_s: first results of segments, since the end of their first label. chunks_s, finals_s:
    what it took to compute a chunk, and one with an endpoint; busy_s, final_busy_s: of it the
    processor's time. result: the last one.
    """

    segments: list[Seen] = field(default_factory=lambda: [Seen()])
    committed_s: list[float] = field(default_factory=list)
    first_s: list[float] = field(default_factory=list)
    chunks_s: list[float] = field(default_factory=list)
    finals_s: list[float] = field(default_factory=list)
    busy_s: list[float] = field(default_factory=list)
    final_busy_s: list[float] = field(default_factory=list)
    result: Result | None = None

    @property
    def words(self) -> list[str]:
        return [word for segment in self.segments for word in segment.committed]

    def see(self, committed: list[str], tentative: list[str], now_s: float) -> None:
        """Note the words of the segment that goes on."""
        segment = self.segments[-1]
        segment.n_taken_back += committed[: len(segment.committed)] != segment.committed
        self.committed_s += [now_s] * (len(committed) - len(segment.committed))
        segment.committed = committed
        if committed + tentative != (segment.partials[-1] if segment.partials else []):
            segment.partials.append(committed + tentative)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--chunk-ms", type=int)
    parser.add_argument("--lookahead-ms", type=int)
    parser.add_argument("--speakers", type=int, default=4)
    parser.add_argument("--most-streams", type=int, default=400)
    parser.add_argument("--pocketsphinx", metavar="PYTHON")
    args = parser.parse_args()
    torch.set_num_threads(1)
    recognizer = Recognizer(load_model(args.run / "model", "cpu"), DecodingOptions())
    how = {"chunk_ms": args.chunk_ms, "lookahead_ms": args.lookahead_ms}
    test = list(read_manifest(args.run / "manifests/test.jsonl"))
    talks = talks_of(test, args.speakers)
    latency_s = recognizer.stream(**how).latency_s
    print(f"{datetime.date.today()}, {N_CORES} cores of {processor_name()}, ", end="")
    print(f"torch {torch.__version__}; model {args.run.name}, {recognizer.decoder.title}; ", end="")
    print(f"{1000 * latency_s:.0f} ms from audio to its frame.\n")
    print("| | figure |\n|---|---:|")
    report_errors(args.run, args.against)
    # What is compiled is compiled before anything is timed.
    hear(recognizer.stream(**how), talks[0], paced=False)
    heard = [hear(recognizer.stream(**how), talk, paced=True) for talk in talks]
    report_delays(talks, heard, latency_s)
    bench_search(recognizer, test)
    bench_load(args.run, how, talks, args.most_streams)
    if args.pocketsphinx:
        bench_pocketsphinx(args.pocketsphinx, talks)


def talks_of(test: Sequence[Utterance], n: int) -> list[Talk]:
    """The sentences of the first ``n`` speakers, pauses of faint noise between."""
    rng = np.random.default_rng(0)
    pause = (1e-4 * rng.standard_normal(round(PAUSE_S * RATE))).astype(np.float32)
    talks = []
    by_speaker = sorted(test, key=lambda u: (u.speaker, u.id))
    for _, utterances in groupby(by_speaker, lambda u: u.speaker):
        parts, words, n_samples = [], [], 0
        for u in utterances:
            waveform = load_audio(u.audio, RATE, u.offset_s, u.duration_s)
            start_s = n_samples / RATE
            for word in u.words or ():
                times = start_s + (word.start_s or 0.0), start_s + (word.end_s or 0.0)
                words.append(Segment(word.label.lower(), *times))
            parts += [waveform, pause]
            n_samples += len(waveform) + len(pause)
        talks.append(Talk(np.concatenate(parts), tuple(words)))
        if len(talks) == n:
            break
    return talks


def row(what: str, figure: str) -> None:
    print(f"| {what} | {figure} |", flush=True)


def percentiles(seconds: Sequence[float], *wanted: int) -> str:
    """Milliseconds, such as ``p50 3.1, p95 7.0``."""
    if not len(seconds):
        return "none"
    return ", ".join(f"p{p} {1000 * np.percentile(seconds, p):.1f}" for p in wanted) + " ms"


def report_errors(run: Path, against: Path | None) -> None:
    """The error rates that the runs have found, each utterance by itself."""
    for name, folder in {"this model": run, "whole utterances": against}.items():
        path = folder and folder / "results.json"
        if path is None or not path.is_file():
            continue
        for title, rates in json.loads(path.read_text())["sets"]["test"].items():
            found = {unit: r for unit, r in rates.items() if isinstance(r, dict)}
            text = ", ".join(f"{unit} {100 * r['error_rate']:.2f} %" for unit, r in found.items())
            row(f"test, {name}, {title}", text)


def hear(stream: Stream, talk: Talk, paced: bool) -> Heard:
    """Give a talk by packets, and note what comes when."""
    heard = Heard()
    begun = time.perf_counter()
    for at in range(0, len(talk.waveform), PACKET):
        if paced:
            time.sleep(max(0.0, begun + (at + PACKET) / RATE - time.perf_counter()))
        before = time.perf_counter(), time.process_time()
        stream.accept(talk.waveform[at : at + PACKET], RATE)
        note(heard, stream, begun, before)
    before = time.perf_counter(), time.process_time()
    stream.finish()
    note(heard, stream, begun, before)
    return heard


def note(heard: Heard, stream: Stream, begun: float, before: tuple[float, float]) -> None:
    """Advance, and note what is new since ``before`` by the clock and by the processor."""
    finals, result = stream.finals(), stream.result
    now, busy = time.perf_counter(), time.process_time()
    if not finals and result is heard.result:
        return
    heard.result = result
    (heard.finals_s if finals else heard.chunks_s).append(now - before[0])
    (heard.final_busy_s if finals else heard.busy_s).append(busy - before[1])
    for final in finals:
        heard.see([w.label for w in final.words], [], now - begun)
        heard.segments.append(Seen())
    committed, tentative = (
        [w.label for w in p.words] for p in (result.committed, result.tentative)
    )
    labels = [*result.committed.labels, *result.tentative.labels]
    spoken = next((s for s in labels if s.label not in SILENCES), None)
    if spoken is not None and not heard.segments[-1].is_heard:
        heard.segments[-1].is_heard = True
        heard.first_s.append(now - begun - (spoken.end_s or 0.0))
    heard.see(committed, tentative, now - begun)


def word_error_rate(talks: Sequence[Talk], found: Sequence[Sequence[str]]) -> str:
    said = [[word.label for word in talk.words] for talk in talks]
    edits = sum(map(Levenshtein.distance, said, found))
    return f"{100 * edits / sum(map(len, said)):.1f} %"


def report_delays(talks: Sequence[Talk], heard: Sequence[Heard], latency_s: float) -> None:
    """The figures of streams by themselves."""

    def of_all(name: str) -> list[float]:
        return [s for h in heard for s in getattr(h, name)]

    minutes = sum(len(t.waveform) for t in talks) / RATE / 60
    errors = word_error_rate(talks, [h.words for h in heard])
    row(f"words of {len(talks)} speakers, {minutes:.1f} min: error rate", errors)
    row("compute of a chunk, one stream", percentiles(of_all("chunks_s"), 50, 95, 99))
    row("the same, processor", percentiles(of_all("busy_s"), 50, 95, 99))
    row("final text after the endpoint decision", percentiles(of_all("finals_s"), 50, 95))
    row("the same, processor", percentiles(of_all("final_busy_s"), 50, 95))
    row("first partial after its first label's end", percentiles(of_all("first_s"), 50, 95))
    beyond = [s - latency_s for s in of_all("first_s")]
    row("the same beyond chunk and lookahead", percentiles(beyond, 50, 95))
    emitted = [s for t, h in zip(talks, heard, strict=True) for s in emission_s(t, h)]
    what = f"from a word's true end to its commitment ({len(emitted)} right ones)"
    row(what, percentiles(emitted, 50, 95))
    segments = [s for h in heard for s in h.segments]
    row("unstable partial word ratio", unstable_ratio([s.partials for s in segments]))
    row("committed words that were taken back", str(sum(s.n_taken_back for s in segments)))


def unstable_ratio(segments: Sequence[Sequence[Sequence[str]]]) -> str:
    """Words of results that a later one takes back, to all words in the end.

    segments: the words of each result in turn. Shangguan et al. (2020), "Analyzing the quality and
    stability of a streaming end-to-end on-device speech recognizer".
    """
    n_unstable = sum(
        len(a) - sum(1 for _ in takewhile(lambda two: two[0] == two[1], zip(a, b, strict=False)))
        for partials in segments
        for a, b in pairwise(partials)
    )
    return f"{n_unstable / max(1, sum(len(p[-1]) for p in segments if p)):.3f}"


def emission_s(talk: Talk, heard: Heard) -> list[float]:
    """Of the words that are right, from the true end to the commitment."""
    said = [word.label for word in talk.words]
    found = []
    for part in Levenshtein.opcodes(said, heard.words):
        if part.tag == "equal":
            for i in range(part.src_end - part.src_start):
                end_s = talk.words[part.src_start + i].end_s or 0.0
                found.append(heard.committed_s[part.dest_start + i] - end_s)
    return found


def bench_search(recognizer: Recognizer, test: Sequence[Utterance]) -> None:
    """The search chunk by chunk against the search over whole utterances."""
    decoder, shift_s = recognizer.decoder, recognizer.bundle.clock.shift_s
    waveforms = [load_audio(u.audio, RATE, u.offset_s, u.duration_s) for u in test[:100]]
    log_probs = recognizer.emissions(waveforms)
    n_frames = sum(map(len, log_probs))
    ratios = []
    for _ in range(7):
        begun = time.process_time()
        for frames in log_probs:
            decoder(frames)
        middle = time.process_time()
        for frames in log_probs:
            search = begin(decoder, shift_s)
            for first in range(0, len(frames), 8):
                search.accept(frames[first : first + 8])
            search.nbest()
        ratios.append(((time.process_time() - middle) / (middle - begun), middle - begun))
    ratio, whole_s = sorted(ratios)[len(ratios) // 2]
    found = f"{ratio:.2f} ({1e6 * whole_s / n_frames:.1f} us a frame)"
    row("streamed search / whole search, processor", found)


def bench_load(run: Path, how: dict[str, Any], talks: Sequence[Talk], most: int) -> None:
    """How many streams are held, shared among processes of one thread each."""
    held = "none"
    n = 25
    while n <= most:
        with multiprocessing.get_context("spawn").Pool(N_CORES) as pool:
            shares = [n // N_CORES + (i < n % N_CORES) for i in range(N_CORES)]
            lags = pool.starmap(carry, [(run, how, talks, share) for share in shares if share])
        lag_s, chunk_s = [s for one, _, _ in lags for s in one], lags[0][2]
        busy = sum(share for _, share, _ in lags)
        text = f"{n} streams: lag {percentiles(lag_s, 50, 95)}, {busy:.2f} processors"
        print(f"  {text}", file=sys.stderr, flush=True)
        if np.percentile(lag_s, 95) >= chunk_s:
            row("streams that were too many", text)
            break
        held = f"{n} (p95 {1000 * np.percentile(lag_s, 95):.0f} ms, {busy:.2f} processors)"
        n = n * 3 // 2
    row(f"streams held on {N_CORES} cores, p95 of the lag under a chunk", held)


def carry(
    run: Path, how: dict[str, Any], talks: Sequence[Talk], n: int
) -> tuple[list[float], float, float]:
    """Lags in seconds of ``n`` streams that begin at different times, the processor's share of the
    time, and the length of a chunk."""
    torch.set_num_threads(1)
    recognizer = Recognizer(load_model(run / "model", "cpu"), DecodingOptions())
    streams = [recognizer.stream(**how) for _ in range(n)]
    hear(recognizer.stream(**how), Talk(talks[0].waveform[: 5 * RATE], ()), paced=False)
    rng = np.random.default_rng(n)
    n_samples = round(LOAD_S * RATE)
    heard = []
    for i in range(n):
        waveform = talks[i % len(talks)].waveform
        heard.append(np.roll(waveform, -rng.integers(len(waveform)))[:n_samples])
    for stream, n_early in zip(streams, rng.integers(0, 20, n), strict=True):
        stream.accept(np.zeros(n_early * PACKET, np.float32), RATE)
    advance(streams)
    results = [stream.result for stream in streams]
    lags: list[float] = []
    begun, busy = time.perf_counter(), time.process_time()
    at = 0
    while at < n_samples:
        due = begun + (at + PACKET) / RATE
        time.sleep(max(0.0, due - time.perf_counter()))
        # Who is late takes all that was said by now: the more streams are due, the less each costs.
        n_packets = max(1, int((time.perf_counter() - begun) * RATE - at) // PACKET)
        end = min(at + n_packets * PACKET, n_samples)
        for stream, waveform in zip(streams, heard, strict=True):
            stream.accept(waveform[at:end], RATE)
        at = end
        advance(streams)
        for i, stream in enumerate(streams):
            stream.finals()
            before, results[i] = results[i], stream.result
            if results[i] is not before:
                lags.append(time.perf_counter() - due)
    share = (time.process_time() - busy) / LOAD_S
    chunk_s = choose_latency(recognizer.bundle, **how).chunk * recognizer.bundle.clock.shift_s
    return lags, share, chunk_s


def bench_pocketsphinx(python: str, talks: Sequence[Talk]) -> None:
    with tempfile.TemporaryDirectory() as name:
        files = [Path(name) / f"{i}.s16" for i in range(len(talks))]
        for file, talk in zip(files, talks, strict=True):
            file.write_bytes((talk.waveform * 32767).astype("<i2").tobytes())
        done = subprocess.run(
            [python, "-c", POCKETSPHINX, *map(str, files)], capture_output=True, check=True
        )
    found = json.loads(done.stdout)
    row("PocketSphinx: error rate", word_error_rate(talks, [f["words"] for f in found]))
    chunks_s = [seconds for f in found for seconds in f["chunks_s"]]
    row("PocketSphinx: compute of a chunk of 240 ms, processor", percentiles(chunks_s, 50, 95, 99))
    finals_s = [f["final_s"] for f in found]
    row("PocketSphinx: final text after the end, processor", percentiles(finals_s, 50, 95))
    partials = [[*f["partials"], f["words"]] for f in found]
    row("PocketSphinx: unstable partial word ratio", unstable_ratio(partials))


if __name__ == "__main__":
    main()
