"""`asr serve` under load, from this machine: `python tools/bench_serve.py MODEL FOLDER`.

MODEL is a model (or run) directory, FOLDER has files of a few seconds. Measured, in this order:

- files one after another through HTTP against the same in Python, taking turns;
- all files from 32 clients at once against `asr transcribe` on the folder, start included;
- the time of single files while a recording of ``--hours`` is being transcribed, against without;
- memory, and answers lost or mixed up, over ``--requests`` requests and a tenth as many that are
  aborted.

Every answer is compared with what the model finds in Python.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from asr.audio.read import load_audio
from asr.audio.sources import find_sources
from asr.recognize.files import Loading, load_for_files
from asr.recognize.recognizer import Recognizer
from asr.train.rundir import processor_name

CLIENTS, ROUNDS = 32, 3


class Client:
    """A connection of its own."""

    def __init__(self, port: int) -> None:
        self.connection = HTTPConnection("127.0.0.1", port, timeout=3600)

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
        self.connection.request("POST", "/v1/audio/transcriptions", body, headers)
        answer = self.connection.getresponse()
        found = json.loads(answer.read())
        return answer.status, found.get("text", "")


def timed(work: Callable[[], object]) -> float:
    """Seconds that something takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def resident_mib(process: int) -> float:
    """Memory of a process."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def p95(values: Sequence[float]) -> float:
    """The value that 19 of 20 do not exceed."""
    return float(np.quantile(values, 0.95))


def alone(load: Load) -> list[float]:
    """Seconds of each file, one after another."""
    client = Client(load.port)
    seconds = []
    for content, text in zip(load.files, load.expected, strict=True):
        begun = time.perf_counter()
        check(client.post(content, "m"), text)
        seconds.append(time.perf_counter() - begun)
    return seconds


WRONG: list[str] = []


def check(found: tuple[int, str], expected: str) -> None:
    """Count an answer that is lost or somebody else's."""
    if found != (200, expected):
        WRONG.append(f"{found} instead of {expected!r}")


def at_once(load: Load, n: int) -> None:
    """``n`` requests from `CLIENTS` clients."""
    local = threading.local()

    def one(i: int) -> None:
        if not hasattr(local, "client"):
            local.client = Client(load.port)
        place = i % len(load.files)
        check(local.client.post(load.files[place], "m"), load.expected[place])

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(one, range(n)))


def abort(load: Load) -> None:
    """Ask, and leave before the answer."""
    client = Client(load.port)
    client.connection.timeout = 0.005
    with suppress(OSError):
        client.post(load.files[0], "m")
    client.connection.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("folder")
    parser.add_argument("--files", type=int, default=100)
    parser.add_argument("--hours", type=float, default=3.0)
    parser.add_argument("--requests", type=int, default=10_000)
    options = parser.parse_args()
    sources = find_sources([options.folder], lambda path, error: None)[: options.files]
    recognizer = load_for_files(Loading(options.model), print)
    waveforms = [load_audio(s.path, recognizer.bundle.features.sample_rate) for s in sources]
    expected = [recognizer.transcribe(w).text for w in waveforms]
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number, waveform in enumerate(waveforms):
            paths.append(Path(folder, "short", f"{number:05d}.wav"))
            paths[-1].parent.mkdir(exist_ok=True)
            soundfile.write(paths[-1], waveform, recognizer.bundle.features.sample_rate)
        command = [sys.executable, "-m", "asr", "serve", "--model", f"m={options.model}"]
        process = subprocess.Popen(
            [*command, "--port", "0"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        try:
            assert process.stderr is not None
            port = int(next(line for line in process.stderr if "serving" in line).split(":")[-1])
            files = [path.read_bytes() for path in paths]
            load = Load(port, process.pid, options.model, paths, files, expected)
            print(f"{datetime.date.today()}, {os.cpu_count()} cores of {processor_name()}")
            one_by_one(load, recognizer)
            together(load)
            beside_a_recording(load, options.hours, Path(folder))
            endurance(load, options.requests)
        finally:
            process.terminate()
            process.wait(60)


class Load(NamedTuple):
    """What is asked of which server."""

    port: int
    process: int
    model: str
    paths: Sequence[Path]
    files: Sequence[bytes]
    expected: Sequence[str]


def one_by_one(load: Load, recognizer: Recognizer) -> None:
    """Print what HTTP adds to a file."""
    at_once(load, len(load.files))
    ratios = []
    for _ in range(ROUNDS):
        python_s = timed(lambda: [recognizer.transcribe(path) for path in load.paths])
        ratios.append(sum(alone(load)) / python_s)
    print(f"one after another, HTTP / Python: {statistics.median(ratios):.2f}")


def together(load: Load) -> None:
    """Print how many clients fare against one command."""
    folder = str(load.paths[0].parent)
    command = [sys.executable, "-m", "asr", "transcribe", "--model", load.model, folder]
    ratios = []
    for _ in range(ROUNDS):
        local_s = timed(lambda: subprocess.run(command, capture_output=True, check=True))
        ratios.append(local_s / timed(lambda: at_once(load, len(load.files))))
    print(f"{CLIENTS} clients, speed / asr transcribe: {statistics.median(ratios):.2f}")


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
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(Client(load.port).post, long.read_bytes(), "m")
        time.sleep(3)
        while not waiting.done() and len(busy) < 3 * len(load.files):
            busy += alone(load)
        if waiting.done():
            print("the recording was through too soon: take more hours")
        print(
            f"p95 of a file beside a recording of {hours:g} h {p95(busy):.3f} s, without "
            f"{p95(quiet):.3f} s: {p95(busy) / p95(quiet):.2f} times ({len(busy)} files)"
        )
        print(f"the recording: status {waiting.result()[0]}")


def endurance(load: Load, n: int) -> None:
    """Print memory and wrong answers over ``n`` requests and a tenth as many aborted ones."""
    before = resident_mib(load.process)
    at_once(load, n // 2)
    middle = resident_mib(load.process)
    for _ in range(n // 10):
        abort(load)
    at_once(load, n - n // 2)
    after = resident_mib(load.process)
    print(f"memory over {n} requests: {before:.0f}, {middle:.0f}, {after:.0f} MiB")
    with urllib.request.urlopen(f"http://127.0.0.1:{load.port}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    print(next(line for line in lines if line.startswith("asr_requests_in_progress ")))
    print(f"lost or mixed up: {len(WRONG)}", *WRONG[:3], sep="\n")


if __name__ == "__main__":
    main()
