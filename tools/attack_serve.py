"""Attacks on `asr serve` that take their time: `python tools/attack_serve.py MODEL FILE`.

MODEL is a model (or run) directory, FILE a recording of a few seconds. A server is started for
each attack, and while it goes on, or right after it, FILE must get its text; a line says what held.
Quicker attacks are in tests/serve/test_attacks.py.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

CONNECTIONS, SLOW, READERS, PARTS = 10_000, 200, 5, 1_000_000
#: A client that is told to come again does so for so long.
PATIENCE_S = 60.0
#: What the server may have in memory after an attack beside what it had before.
MOST_MORE_MIB = 300.0


class Target(NamedTuple):
    """A server: its port and process, what is asked of it, and what is in there."""

    port: int
    process: int
    content: bytes
    text: str


def body_of(content: bytes, name: str = "a.wav") -> tuple[bytes, dict[str, str]]:
    """A form with a file, and its headers."""
    boundary = uuid.uuid4().hex
    fields = "".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{value}\r\n'
        for field, value in (("model", "m"), ("response_format", "text"))
    )
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    body = fields.encode() + head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
    return body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}


def ask(port: int, content: bytes) -> tuple[int, str]:
    """The status and text that a file gets."""
    connection = HTTPConnection("127.0.0.1", port, timeout=300)
    body, headers = body_of(content)
    connection.request("POST", "/v1/audio/transcriptions", body, headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def answered_s(target: Target) -> float:
    """Seconds until a client that comes again gets its text.

    Raises:
        AssertionError: it gets another, or none.
    """
    begun = time.monotonic()
    while time.monotonic() - begun < PATIENCE_S:
        try:
            status, text = ask(target.port, target.content)
        except OSError:
            status, text = 0, ""
        if status == 200:
            assert text == target.text, f"the text is {text!r} instead of {target.text!r}"
            return time.monotonic() - begun
        assert status in (0, 503), f"the answer is {status}: {text}"
        time.sleep(0.5)
    raise AssertionError(f"no answer within {PATIENCE_S:g} s")


def resident_mib(process: int) -> float:
    """Memory of a process."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def files_of(process: int) -> int:
    """Open files of a process."""
    return sum(1 for _ in Path(f"/proc/{process}/fd").iterdir())


async def held_open(target: Target, n: int, sent: bytes, again: bytes) -> tuple[int, float]:
    """Open ``n`` connections that begin with ``sent`` and send ``again`` each second.

    Returns how many are left after 30 s, and what a client in their midst waits.
    """
    writers = []
    before = files_of(target.process)
    for _ in range(n):
        with suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", target.port)
            writer.write(sent)
            writers.append(writer)
    begun = time.monotonic()
    waiting = asyncio.ensure_future(asyncio.to_thread(answered_s, target))
    while time.monotonic() - begun < 30:
        await asyncio.sleep(1)
        for writer in writers:
            if not writer.is_closing():
                writer.write(again)
    waited_s = await waiting
    left = files_of(target.process) - before
    for writer in writers:
        writer.close()
    return left, waited_s


def post_head(length: int) -> bytes:
    """The head of a form, and the beginning of its first part."""
    return (
        "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: a\r\n"
        f"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: {length}\r\n\r\n"
        '--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    ).encode()


def connections(target: Target) -> str:
    """Ten thousand connections that say nothing."""
    left, waited_s = asyncio.run(held_open(target, CONNECTIONS, b"", b""))
    assert left <= 0, f"{left} of {CONNECTIONS} are still there"
    return f"all are ended, a client waited {waited_s:.1f} s"


def slow_heads(target: Target) -> str:
    """Heads that never end, a byte a second."""
    left, waited_s = asyncio.run(held_open(target, SLOW, b"GET / HTTP/1.1\r\nX: ", b"a"))
    assert left <= 0, f"{left} of {SLOW} are still there"
    return f"all are ended, a client waited {waited_s:.1f} s"


def slow_bodies(target: Target) -> str:
    """Uploads that take every place, and bring 2 KiB a second."""
    left, waited_s = asyncio.run(held_open(target, SLOW, post_head(1 << 28), bytes(2048)))
    assert left <= SLOW // 2, f"{left} of {SLOW} are still there"
    return f"{left} of {SLOW} go on, a client waited {waited_s:.1f} s"


def slow_readers(target: Target) -> str:
    """Clients that ask for a page again and again, and read nothing of it."""
    request = b"GET /page.js HTTP/1.1\r\nHost: a\r\n\r\n"
    left, waited_s = asyncio.run(held_open(target, READERS, request * 2000, b""))
    assert left <= 0, f"{left} of {READERS} are still there"
    return f"all are ended, a client waited {waited_s:.1f} s"


def parts(target: Target) -> str:
    """A million tiny parts."""
    part = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n'
    connection = HTTPConnection("127.0.0.1", target.port, timeout=300)
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    with suppress(OSError):
        connection.request("POST", "/v1/audio/transcriptions", part * PARTS, headers)
    status = connection.getresponse().status
    assert status == 400, f"the answer is {status}"
    return f"{status}, then a client waited {answered_s(target):.1f} s"


def days(target: Target) -> str:
    """A FLAC of silence of two days: what a megabyte can say."""
    with tempfile.NamedTemporaryFile(suffix=".flac") as file:
        with soundfile.SoundFile(file.name, "w", 8000, 1) as out:
            minute = np.zeros(8000 * 60, np.int16)
            for _ in range(2 * 24 * 60):
                out.write(minute)
        content = Path(file.name).read_bytes()
    begun = time.monotonic()
    status, text = ask(target.port, content)
    assert status == 400, f"the answer is {status}: {text}"
    assert "longer than" in text, text
    return f"{len(content) >> 10} KiB refused after {time.monotonic() - begun:.1f} s"


def channels(target: Target) -> str:
    """Thirty uploads at once of eight channels at 192 kHz."""
    with tempfile.NamedTemporaryFile(suffix=".flac") as file:
        with soundfile.SoundFile(file.name, "w", 192_000, 8) as out:
            second = np.zeros((192_000, 8), np.int16)
            for _ in range(600):
                out.write(second)
        content = Path(file.name).read_bytes()

    async def at_once() -> list[int]:
        asked = [asyncio.to_thread(ask, target.port, content) for _ in range(30)]
        return [status for status, _ in await asyncio.gather(*asked)]

    statuses = asyncio.run(at_once())
    assert set(statuses) <= {200, 503}, f"the answers are {statuses}"
    return f"{statuses.count(200)} answered, {statuses.count(503)} told to come again"


ATTACKS: tuple[Callable[[Target], str], ...] = (
    connections,
    slow_heads,
    slow_bodies,
    slow_readers,
    parts,
    days,
    channels,
)


def tried(attack: Callable[[Target], str], model: str, content: bytes) -> bool:
    """Attack a server of its own, and say what held."""
    command = [sys.executable, "-m", "asr", "serve", "--model", f"m={model}", "--port", "0"]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        port = int(next(line for line in process.stderr if "serving" in line).split(":")[-1])
        status, text = ask(port, content)
        assert status == 200, text
        target = Target(port, process.pid, content, text)
        before, n_files = resident_mib(process.pid), files_of(process.pid)
        told = attack(target)
        answered_s(target)
        more = resident_mib(process.pid) - before
        assert more < MOST_MORE_MIB, f"{told}; but {more:.0f} MiB more are in memory"
        left = files_of(process.pid) - n_files
        assert left < 10, f"{told}; but {left} more files are open"
        print(f"held    {attack.__name__}: {told}; {more:+.0f} MiB", flush=True)
    except AssertionError as error:
        print(f"failed  {attack.__name__}: {error}", flush=True)
        return False
    finally:
        process.kill()
        process.wait()
    return True


def main() -> None:
    """Attack and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("file", type=Path)
    names = [attack.__name__ for attack in ATTACKS]
    parser.add_argument("--only", choices=names, action="append")
    options = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, CONNECTIONS + 100)), hard))
    content = options.file.read_bytes()
    chosen = [a for a in ATTACKS if not options.only or a.__name__ in options.only]
    held = [tried(attack, options.model, content) for attack in chosen]
    sys.exit(0 if all(held) else 1)


if __name__ == "__main__":
    main()
