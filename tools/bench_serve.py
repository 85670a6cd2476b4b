"""`asr serve` under load, from this machine.

    python tools/bench_serve.py RUN [--live RUN] [--files 300] [--hours 3] [--requests 10000]
        [--streams 100] [--minutes 10] [--pocketsphinx PYTHON] [--only PART]...

RUN is a finished `asr train` run of a model that searches words; its test set is what clients send,
file after file. --live names the run of a live model. Measured, in this order:

- start: until a server says where it is, beside `import torch`, taking turns;
- files: one after another through HTTP against the same in Python, taking turns;
- together: all files from 32 clients at once against `asr transcribe` on their folder, start
  included;
- recording: the time of single files while a recording of so many hours is being transcribed,
  against without;
- endurance: memory over so many requests from 32 clients and a tenth as many that are aborted;
- pocketsphinx: PYTHON, an interpreter that has it, serves as many of the files as it hears in
  `PEER_S` with its own en-us model, a process a core behind http.server; its speed and its errors
  beside ours on the same files;
- live: so many WebSockets that speak at their pace for `TALK_S`, and how late text is.

No part goes on for more than --minutes. Each answer is compared with what the model finds in
Python.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import datetime
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import torch
from rapidfuzz.distance import Levenshtein
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from asr.audio.read import load_audio
from asr.data.manifest import read_manifest
from asr.model.stream import choose_latency
from asr.recognize.files import Loading, load_for_files
from asr.recognize.recognizer import Recognizer
from asr.train.rundir import processor_name

CLIENTS, ROUNDS, STARTS = 32, 3, 5
N_CORES = os.cpu_count() or 1
#: Of live clients: Hz, seconds of a packet, of what each says, and how many say different things.
LIVE_RATE, PACKET_S, TALK_S, TALKS = 24_000, 0.1, 30.0, 25
PAUSE_S = 0.8
#: PocketSphinx takes a second or two for a file: so many are sent one after another, then all of
#: them from all clients for so many seconds; an answer that takes longer than `ANSWER_S` is lost.
PEER_FILES, PEER_S, ANSWER_S = 15, 45.0, 120.0
POCKETSPHINX = """
import json, multiprocessing, signal, sys
from concurrent.futures import ProcessPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

decoder = None

def heard(samples):
    import pocketsphinx
    global decoder
    decoder = decoder or pocketsphinx.Decoder(loglevel="FATAL", samprate=16000)
    decoder.start_utt()
    decoder.process_raw(samples, full_utt=True)
    decoder.end_utt()
    found = decoder.hyp()
    return found.hypstr if found else ""

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # The head and the body of an answer are one packet.
    wbufsize = 1 << 16

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        # The file is the form's last part; a WAV header has 44 bytes.
        content = body[body.rindex(b"\\r\\n\\r\\nRIFF") + 4 : body.rindex(b"\\r\\n--")]
        text = pool.submit(heard, content[44:]).result()
        answer = json.dumps({"text": text}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *words):
        pass

class Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True

n = int(sys.argv[1])
with ProcessPoolExecutor(n, multiprocessing.get_context("fork")) as pool:
    # Processes begin before threads do, and end with the server.
    list(pool.map(heard, [bytes(32000)] * n))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    server = Server(("127.0.0.1", 0), Handler)
    print("serving at :%d" % server.server_port, file=sys.stderr, flush=True)
    try:
        server.serve_forever()
    finally:
        pool.shutdown(cancel_futures=True)
"""
WRONG: list[str] = []


class Load(NamedTuple):
    """What is asked of which server. expected: the text of each file; audio_s: seconds of all."""

    port: int
    process: int
    model: str
    paths: Sequence[Path]
    files: Sequence[bytes]
    expected: Sequence[str]
    audio_s: float
    most_s: float


class Client:
    """A connection of its own."""

    def __init__(self, port: int, timeout_s: float = 3600) -> None:
        self.connection = HTTPConnection("127.0.0.1", port, timeout=timeout_s)

    def post(self, content: bytes, model: str) -> tuple[int, str]:
        """The status and text that a file gets."""
        boundary = uuid.uuid4().hex
        fields = "".join(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in (("model", model), ("response_format", "json"))
        )
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="a.wav"'
        body = fields.encode() + head.encode() + b"\r\n\r\n" + content
        body += f"\r\n--{boundary}--\r\n".encode()
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        try:
            self.connection.request("POST", "/v1/audio/transcriptions", body, headers)
        except (BrokenPipeError, ConnectionResetError):
            # A server may close a connection that was idle.
            self.connection.close()
            self.connection.request("POST", "/v1/audio/transcriptions", body, headers)
        answer = self.connection.getresponse()
        found = json.loads(answer.read())
        return answer.status, found.get("text", "")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--live", type=Path)
    parser.add_argument("--files", type=int, default=300)
    parser.add_argument("--hours", type=float, default=3.0)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--pocketsphinx", metavar="PYTHON")
    parts = ("start", "files", "together", "recording", "endurance", "live", "pocketsphinx")
    parser.add_argument("--only", choices=parts, action="append")
    options = parser.parse_args()
    chosen = set(options.only or parts)
    model = str(options.run / "model")
    torch.set_num_threads(1)
    print(f"{datetime.date.today()}, {N_CORES} cores of {processor_name()}, ", end="")
    print(f"torch {torch.__version__}, load average {os.getloadavg()[0]:.1f}\n")
    print("| | figure |\n|---|---:|")
    if "start" in chosen:
        start(model)
    with tempfile.TemporaryDirectory() as name:
        if chosen - {"start", "live"}:
            files(options, chosen, model, Path(name))
        if "live" in chosen and options.live:
            live(options.live / "model", options.live, options.streams)
    row("lost or mixed-up answers in all of it", str(len(WRONG)))
    print(*WRONG[:5], sep="\n", file=sys.stderr)


def files(options: argparse.Namespace, chosen: set[str], model: str, folder: Path) -> None:
    """The parts in which files are sent."""
    recognizer = load_for_files(Loading(model), print)
    rate = recognizer.bundle.features.sample_rate
    said = list(read_manifest(options.run / "manifests/test.jsonl"))[: options.files]
    paths = [folder / "short" / f"{number:05d}.wav" for number in range(len(said))]
    paths[0].parent.mkdir()
    waveforms = [load_audio(u.audio, rate, u.offset_s, u.duration_s) for u in said]
    for path, waveform in zip(paths, waveforms, strict=True):
        soundfile.write(path, waveform, rate)
    contents = [path.read_bytes() for path in paths]
    # Read from the files, whose samples have 16 bits.
    expected = [recognizer.transcribe(path).text for path in paths]
    audio_s = sum(map(len, waveforms)) / rate
    with serving(
        [sys.executable, "-m", "asr", "serve", "--model", f"m={model}", "--port", "0"]
    ) as (
        port,
        process,
    ):
        load = Load(port, process, model, paths, contents, expected, audio_s, 60 * options.minutes)
        if "files" in chosen:
            one_by_one(load, recognizer)
        if "together" in chosen:
            together(load)
        if "recording" in chosen:
            beside_a_recording(load, options.hours, folder)
        if "endurance" in chosen:
            endurance(load, options.requests)
        if "pocketsphinx" in chosen and options.pocketsphinx:
            references = [(u.text or "").lower().split() for u in said]
            beside_pocketsphinx(load, options.pocketsphinx, references)


@contextmanager
def serving(command: Sequence[str]) -> Iterator[tuple[int, int]]:
    """The port and the process of a server."""
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        port = int(next(line for line in process.stderr if "serving" in line).split(":")[-1])
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(60)


def row(what: str, figure: str) -> None:
    print(f"| {what} | {figure} |", flush=True)


def timed(work: Callable[[], object]) -> float:
    """Seconds that something takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def resident_mib(process: int) -> float:
    """Memory of a process."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def percentile(values: Sequence[float], p: int) -> float:
    return float(np.percentile(values, p))


def check(found: tuple[int, str], expected: str) -> None:
    """Count an answer that is lost or somebody else's."""
    if found != (200, expected):
        WRONG.append(f"{found} instead of {expected!r}")


def alone(load: Load) -> list[float]:
    """Seconds of each file, one after another."""
    client = Client(load.port)
    seconds = []
    for content, text in zip(load.files, load.expected, strict=True):
        begun = time.perf_counter()
        check(client.post(content, "m"), text)
        seconds.append(time.perf_counter() - begun)
    return seconds


def at_once(load: Load, n: int) -> int:
    """Up to ``n`` requests from `CLIENTS` clients, as long as there is time; how many it were."""
    answers = answers_at_once(load, n)
    for i, answer in enumerate(answers):
        check(answer, load.expected[i % len(load.files)])
    return len(answers)


def answers_at_once(load: Load, n: int) -> list[tuple[int, str]]:
    """The status and text of up to ``n`` requests, begun as long as there is time.

    Status 0 is an answer that is lost.
    """
    local, until = threading.local(), time.monotonic() + load.most_s

    def one(i: int) -> tuple[int, str] | None:
        if time.monotonic() > until:
            return None
        if not hasattr(local, "client"):
            local.client = Client(load.port, ANSWER_S)
        try:
            return local.client.post(load.files[i % len(load.files)], "m")
        except (OSError, HTTPException):
            del local.client
            return 0, ""

    with ThreadPoolExecutor(CLIENTS) as pool:
        return [answer for answer in pool.map(one, range(n)) if answer is not None]


def abort(load: Load, after_s: float) -> None:
    """Ask, and leave before the answer."""
    client = Client(load.port)
    client.connection.timeout = after_s
    with suppress(OSError):
        client.post(load.files[0], "m")
    client.connection.close()


def start(model: str) -> None:
    """Print how long a server takes to its address."""
    serve = [sys.executable, "-m", "asr", "serve", "--model", model, "--port", "0"]

    def used_s() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    taken: dict[str, list[tuple[float, float]]] = {"torch": [], "serve": []}
    for _ in range(STARTS):
        before = used_s()
        clock_s = timed(lambda: subprocess.run([sys.executable, "-c", "import torch"], check=True))
        taken["torch"].append((clock_s, used_s() - before))
        begun = time.perf_counter()
        with serving(serve) as (_, process):
            clock_s = time.perf_counter() - begun
            cpu_s = processor_s(process)
        taken["serve"].append((clock_s, cpu_s))
    clock, cpu = (
        {name: statistics.median(pair[i] for pair in pairs) for name, pairs in taken.items()}
        for i in (0, 1)
    )
    row(
        "start until the address is told; `import torch` alone",
        f"{clock['serve']:.2f} s (processor {cpu['serve']:.2f}); "
        f"{clock['torch']:.2f} s ({cpu['torch']:.2f})",
    )


def one_by_one(load: Load, recognizer: Recognizer) -> None:
    """Print what HTTP adds to a file."""
    at_once(load, len(load.files))
    ratios, seconds = [], []
    for _ in range(ROUNDS):
        python_s = timed(lambda: [recognizer.transcribe(path) for path in load.paths])
        seconds = alone(load)
        ratios.append(sum(seconds) / python_s)
    row(
        f"{len(load.files)} files one after another, time through HTTP / in Python",
        f"{statistics.median(ratios):.2f} ({1000 * statistics.mean(seconds):.0f} ms a file)",
    )


def together(load: Load) -> None:
    """Print how many clients fare against one command."""
    folder = str(load.paths[0].parent)
    command = [sys.executable, "-m", "asr", "transcribe", "--model", load.model, folder]
    ratios, speeds = [], []
    for _ in range(ROUNDS):
        local_s = timed(lambda: subprocess.run(command, capture_output=True, check=True))
        served_s = timed(lambda: at_once(load, len(load.files)))
        ratios.append(local_s / served_s)
        speeds.append(load.audio_s / served_s)
    row(
        f"{CLIENTS} clients, speed / `asr transcribe` on the folder, its start included",
        f"{statistics.median(ratios):.2f} ({statistics.median(speeds):.0f} s of audio a second)",
    )


def beside_a_recording(load: Load, hours: float, folder: Path) -> None:
    """Print what a short file waits for a long one."""
    quiet = alone(load)
    rate = soundfile.info(load.paths[0]).samplerate
    whole = np.concatenate([soundfile.read(path, dtype="int16")[0] for path in load.paths])
    long = folder / "long.wav"
    with soundfile.SoundFile(long, "w", rate, 1) as out:
        for _ in range(int(hours * 3600 * rate / len(whole)) + 1):
            out.write(whole)
    busy: list[float] = []
    client = Client(load.port)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(Client(load.port).post, long.read_bytes(), "m")
        time.sleep(3)
        until = time.monotonic() + load.most_s
        while not waiting.done() and len(busy) < len(load.files) and time.monotonic() < until:
            content, text = load.files[len(busy)], load.expected[len(busy)]
            begun = time.perf_counter()
            check(client.post(content, "m"), text)
            busy.append(time.perf_counter() - begun)
        if waiting.done():
            print("the recording was through too soon: take more hours", file=sys.stderr)
        row(
            f"p95 of a file beside a recording of {hours:g} h / without ({len(busy)} files)",
            f"{percentile(busy, 95) / percentile(quiet, 95):.2f} "
            f"({1000 * percentile(busy, 95):.0f} and {1000 * percentile(quiet, 95):.0f} ms)",
        )
        status, text = waiting.result()
        # Where files meet, other words may be found.
        if status != 200 or len(text.split()) < 0.5 * hours * 3600 / load.audio_s * sum(
            len(text.split()) for text in load.expected
        ):
            WRONG.append(f"{status} for the recording: {text[:60]!r}")
    long.unlink()


def endurance(load: Load, n: int) -> None:
    """Print memory over ``n`` requests, a tenth as many aborted ones after three fifths of them."""
    at_once(load, len(load.files))
    rng, memory, n_answered = np.random.default_rng(0), [resident_mib(load.process)], 0
    each = load._replace(most_s=load.most_s / 5)
    for part in range(5):
        n_answered += at_once(each, n // 5)
        memory.append(resident_mib(load.process))
        if part == 2:
            for _ in range(n // 10):
                abort(load, rng.uniform(0.001, 0.05))
            memory.append(resident_mib(load.process))
    row(
        f"MiB of memory before, over {n_answered} requests, and after {n // 10} aborted ones "
        "after the third fifth",
        ", ".join(f"{mib:.0f}" for mib in memory),
    )
    with urllib.request.urlopen(f"http://127.0.0.1:{load.port}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    left = next(line for line in lines if line.startswith("asr_requests_in_progress ")).split()[1]
    row("requests that are left afterwards", f"{float(left):.0f}")


class Talk(NamedTuple):
    """What a live client says: its packets as events, and the text that the model finds."""

    events: Sequence[str]
    text: str


def talks_of(recognizer: Recognizer, run: Path) -> list[Talk]:
    """Talks of `TALK_S`, of sentences with pauses between."""
    said = iter(read_manifest(run / "manifests/test.jsonl"))
    pause, step = np.zeros(round(PAUSE_S * LIVE_RATE), np.float32), round(PACKET_S * LIVE_RATE)
    talks = []
    for _ in range(TALKS):
        parts: list[np.ndarray] = []
        while sum(map(len, parts)) < TALK_S * LIVE_RATE:
            u = next(said)
            parts += [load_audio(u.audio, LIVE_RATE, u.offset_s, u.duration_s), pause]
        samples = np.concatenate(parts)[: round(TALK_S * LIVE_RATE)]
        pcm = np.round(samples * 32767).astype("<i2")
        stream = recognizer.stream()
        stream.accept(pcm.astype(np.float32) / 32768, LIVE_RATE)
        stream.finish()
        packets = (pcm[at : at + step].tobytes() for at in range(0, len(pcm), step))
        kind = "input_audio_buffer.append"
        events = [
            json.dumps({"type": kind, "audio": base64.b64encode(packet).decode()})
            for packet in packets
        ]
        talks.append(Talk(events, " ".join(final.text for final in stream.finals() if final.text)))
    return talks


def live(model: Path, run: Path, n: int) -> None:
    """Print how late text is where many speak at once."""
    recognizer = load_for_files(Loading(str(model)), print)
    talks = talks_of(recognizer, run)
    chunk_s = choose_latency(recognizer.bundle).chunk * recognizer.bundle.clock.shift_s
    command = [sys.executable, "-m", "asr", "serve", "--model", f"m={model}", "--port", "0"]
    with serving(command) as (port, process):
        url = f"ws://127.0.0.1:{port}/v1/realtime?intent=transcription"

        async def all_at_once() -> list[list[float]]:
            rng = np.random.default_rng(0)
            said = [talks[i % TALKS] for i in range(n)]
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(spoken(url, talk, early_s))
                    for talk, early_s in zip(said, rng.uniform(0, 2, n), strict=True)
                ]
            return [task.result() for task in tasks]

        before = processor_s(process)
        lags = [lag for each in asyncio.run(all_at_once()) for lag in each]
        used_s = processor_s(process) - before
    row(
        f"{n} live clients for {TALK_S:g} s, lag of a result behind its audio, p50 and p95 "
        f"(a chunk is {1000 * chunk_s:.0f} ms)",
        f"{1000 * percentile(lags, 50):.0f}, {1000 * percentile(lags, 95):.0f} ms "
        f"({len(lags)} results)",
    )
    row(
        "processor time of the server for a second of live audio",
        f"{1000 * used_s / n / TALK_S:.1f} ms",
    )


def processor_s(process: int) -> float:
    """Seconds that a process has computed."""
    stat = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")


async def spoken(url: str, talk: Talk, wait_s: float) -> list[float]:
    """Say something at its pace; the lag in seconds of each result."""
    await asyncio.sleep(wait_s)
    lags: list[float] = []
    try:
        await converse(url, talk, lags)
    except (ConnectionClosed, TimeoutError) as error:
        WRONG.append(f"a live session ended before its text was there ({error!r})")
    return lags


async def converse(url: str, talk: Talk, lags: list[float]) -> None:
    """Say something, and note the lag of each result as it comes."""
    texts: dict[str, str] = {}
    committed: list[str] = []
    n_updated = 0
    async with connect(
        url, max_size=None, compression=None, open_timeout=60, ping_interval=None
    ) as socket:
        ours = {"type": "transcription", "include": ["carousel.tentative"]}
        update = json.dumps({"type": "session.update", "session": ours})
        await socket.send(update)
        begun = time.perf_counter()

        async def listen() -> None:
            nonlocal n_updated
            async for message in socket:
                event: dict[str, Any] = json.loads(message)
                kind = event["type"]
                if kind == "carousel.input_audio_transcription.tentative":
                    lags.append(time.perf_counter() - begun - event["audio_ms"] / 1000)
                elif kind == "input_audio_buffer.committed":
                    committed.append(event["item_id"])
                elif kind == "conversation.item.input_audio_transcription.completed":
                    texts[event["item_id"]] = event["transcript"]
                elif kind == "session.updated":
                    n_updated += 1
                elif kind == "error":
                    WRONG.append(message if isinstance(message, str) else repr(message))
                if n_updated == 2 and all(item in texts for item in committed):
                    return

        listening = asyncio.ensure_future(listen())
        for number, event in enumerate(talk.events, start=1):
            await asyncio.sleep(begun + number * PACKET_S - time.perf_counter())
            await socket.send(event)
        await socket.send('{"type": "input_audio_buffer.commit"}')
        # Its answer comes after that of the commit.
        await socket.send(update)
        await asyncio.wait_for(listening, 60)
    found = " ".join(texts[item] for item in committed if texts[item])
    check((200, found), talk.text)


def beside_pocketsphinx(load: Load, python: str, references: Sequence[Sequence[str]]) -> None:
    """Print the speed and the errors of another server under the same load."""
    ours, n_few = load._replace(most_s=PEER_S), min(PEER_FILES, len(load.files))
    with serving([python, "-c", POCKETSPHINX, str(N_CORES)]) as (port, process):
        theirs = ours._replace(port=port, process=process)
        alone_s: list[list[float]] = [[], []]
        clients = [Client(server.port, ANSWER_S) for server in (ours, theirs)]
        for content in load.files[:n_few]:
            for client, seconds in zip(clients, alone_s, strict=True):
                seconds.append(timed(partial(client.post, content, "m")))
        begun = time.perf_counter()
        their_answers = answers_at_once(theirs, len(load.files))
        their_s = time.perf_counter() - begun
    n = len(their_answers)
    begun = time.perf_counter()
    our_answers = answers_at_once(ours, n)
    our_s = time.perf_counter() - begun
    for answer, text in zip(our_answers, load.expected, strict=False):
        check(answer, text)
    row(
        f"seconds and words of the {n} files that both servers get",
        f"{audio_s(load.paths[:n]):.0f}; {sum(map(len, references[:n]))}",
    )
    for name, answers, seconds, took_s in (
        ("this server", our_answers, alone_s[0], our_s),
        ("PocketSphinx behind http.server", their_answers, alone_s[1], their_s),
    ):
        speed = audio_s(load.paths[: len(answers)]) / took_s
        lost = sum(status != 200 for status, _ in answers)
        row(
            f"{name}: word error rate; ms a file one after another ({n_few} files); s of audio a "
            f"second for {CLIENTS} clients; lost",
            f"{100 * error_rate([text for _, text in answers], references):.1f} %; "
            f"{1000 * statistics.median(seconds):.0f}; {speed:.1f}; {lost}",
        )


def audio_s(paths: Sequence[Path]) -> float:
    """Seconds of files."""
    return sum(soundfile.info(path).duration for path in paths)


def error_rate(texts: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Word error rate of the first files."""
    pairs = list(zip(texts, references, strict=False))
    edits = sum(Levenshtein.distance(words, text.lower().split()) for text, words in pairs)
    return edits / sum(len(words) for _, words in pairs)


if __name__ == "__main__":
    main()
