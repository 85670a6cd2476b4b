"""Sound out of a file, in a process of its own: a file that crashes a decoder costs one request.

WAV without a codec and FLAC have no decoder to speak of, and are read in the server itself.
The process reads the file on descriptor 0 and writes the rate, a line, and then mono samples as
float32. It limits its own memory and processor time before it looks at the file.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np

from asr.audio.read import HEAD, audio_blocks, audio_rate, is_plain, resampled_blocks
from asr.errors import InputError

#: Of the process: bytes of memory, seconds of processor time, and of time. It writes no file.
MEMORY, CPU_S, WALL_S = 2 << 30, 300, 900.0
INPUT = Path("/dev/fd/0")
BLOCK = 1 << 18
#: Seconds of a plain file that are read at once.
PLAIN_S = 2.0
#: prctl's number: what the process gets when its parent ends.
PR_SET_PDEATHSIG = 1


def decoded(content: BinaryIO, name: str, sample_rate: int) -> Generator[np.ndarray, None, None]:
    """Blocks (N,) float32 at ``sample_rate`` Hz of a file's content.

    content: a file with a descriptor, read from its beginning. name: for messages.

    Raises:
        InputError: it holds no sound that can be read, or takes more than it may.
    """
    content.seek(0)
    if is_plain(content.read(HEAD)):
        # Many channels at a high rate are 12 MB a second.
        yield from audio_blocks(Path(name), sample_rate, block_s=PLAIN_S, content=content)
        return
    content.seek(0)
    command = [sys.executable, "-m", "asr.serve.decoding"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdin=content, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        alarm = threading.Timer(WALL_S, process.kill)
        alarm.start()
        try:
            line = process.stdout.readline()
            if line:
                yield from resampled(_samples(process.stdout), int(line), sample_rate, name)
            told = process.stderr.read().decode(errors="replace").strip().splitlines()
            status = process.wait()
        finally:
            alarm.cancel()
            process.kill()
    if status == 2 and told:
        raise InputError(told[-1].replace(str(INPUT), name))
    if status != 0:
        raise InputError(f"{name}: cannot be decoded (its decoder ended with status {status})")


def resampled(
    blocks: Iterator[np.ndarray], rate: int, sample_rate: int, name: str
) -> Iterator[np.ndarray]:
    """Blocks (N,) at ``rate`` Hz -> blocks at ``sample_rate`` Hz."""
    if rate != sample_rate:
        blocks = resampled_blocks(blocks, rate, sample_rate, Path(name))
    for block in blocks:
        yield np.clip(block, -1.0, 1.0)


def _samples(stream: IO[bytes]) -> Iterator[np.ndarray]:
    while block := stream.read(BLOCK):
        yield np.frombuffer(block[: len(block) // 4 * 4], np.float32)


def main() -> None:
    """Decode descriptor 0 to descriptor 1."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    limits = {
        # macOS counts what it maps for all processes, and refuses.
        **({resource.RLIMIT_AS: MEMORY} if sys.platform == "linux" else {}),
        resource.RLIMIT_CPU: CPU_S,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
    }
    for limit, most in limits.items():
        resource.setrlimit(limit, (most, most))
    out = sys.stdout.buffer
    try:
        rate = audio_rate(INPUT)
        out.write(f"{rate}\n".encode())
        for block in audio_blocks(INPUT, rate):
            out.write(block.astype(np.float32).tobytes())
        out.flush()
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


if __name__ == "__main__":
    main()
