"""Spoilt inputs for readers: mutations of good files, and what must hold whatever is read.

>>> for data in mutated(SEEDS, n=1000, seed=0):
...     survives(lambda: read(data))
"""

import random
import resource
import signal
from collections.abc import Callable, Iterator, Sequence

from asr.errors import InputError

#: Bytes that readers stumble over: separators, markup, numbers at the edge, broken Unicode.
TOKENS = [
    *(bytes([n]) for n in (0, 9, 10, 13, 26, 27, 32, 127, 128, 255)),
    *rb"""{ } / @ ( ) [ ] " ' \ ; ;; : , . - * < > # % & = |""".split(),
    *b"nan inf -inf -1 0 1e999 -1e999 1_0 0x10 99999999999999999999 4294967296 2147483648".split(),
    *b"{} [] null true \\ud800 \\u0000 <ALT_BEGIN> <ALT> <ALT_END> ngram= \\data\\ \\end\\".split(),
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    "\u2028\u00a0\u3000é日".encode(),
    b"(" * 2000,
    b"[" * 2000,
    b"{ " * 500,
    b"9" * 5000,
]
MAX_BYTES = 1 << 16


def mutated(seeds: Sequence[bytes], n: int, seed: int) -> Iterator[bytes]:
    """Yield ``n`` spoilt files: each a seed after one to eight mutations; the same every time."""
    rng = random.Random(seed)
    for _ in range(n):
        data = bytearray(rng.choice(seeds))
        for _ in range(min(8, 1 + int(rng.expovariate(0.7)))):
            rng.choice(MUTATIONS)(rng, data, seeds)
            del data[MAX_BYTES:]
        yield bytes(data)


def _range(rng: random.Random, data: bytearray) -> tuple[int, int]:
    """A random stretch, most often a short one."""
    begin = rng.randrange(len(data) + 1)
    return begin, min(len(data), begin + int(rng.expovariate(0.1)))


def _flip(rng: random.Random, data: bytearray, seeds: Sequence[bytes]) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _overwrite(rng: random.Random, data: bytearray, seeds: Sequence[bytes]) -> None:
    begin, end = _range(rng, data)
    data[begin:end] = rng.randbytes(end - begin)


def _delete(rng: random.Random, data: bytearray, seeds: Sequence[bytes]) -> None:
    begin, end = _range(rng, data)
    del data[begin:end]


def _repeat(rng: random.Random, data: bytearray, seeds: Sequence[bytes]) -> None:
    begin, end = _range(rng, data)
    data[begin:begin] = data[begin:end] * rng.choice((1, 1, 2, 50))


def _insert(rng: random.Random, data: bytearray, seeds: Sequence[bytes]) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.choice(TOKENS)


def _replace_word(rng: random.Random, data: bytearray, seeds: Sequence[bytes]) -> None:
    words = bytes(data).split()
    if words:
        word = rng.choice(words)
        at = data.find(word)
        data[at : at + len(word)] = rng.choice((*TOKENS, rng.choice(words)))


def _truncate(rng: random.Random, data: bytearray, seeds: Sequence[bytes]) -> None:
    del data[rng.randrange(len(data) + 1) :]


def _shuffle_lines(rng: random.Random, data: bytearray, seeds: Sequence[bytes]) -> None:
    lines = bytes(data).splitlines(keepends=True)
    rng.shuffle(lines)
    data[:] = b"".join(lines)


def _splice(rng: random.Random, data: bytearray, seeds: Sequence[bytes]) -> None:
    begin, end = _range(rng, data)
    other = rng.choice(seeds)
    data[begin:end] = other[rng.randrange(len(other) + 1) :]


MUTATIONS = (
    _flip,
    _overwrite,
    _delete,
    _repeat,
    _insert,
    _replace_word,
    _truncate,
    _shuffle_lines,
    _splice,
)


class Hang(BaseException):
    """A reader took too long; no ``except Exception`` of a reader may catch it."""


def survives(read: Callable[[], object], seconds: float = 10) -> bool:
    """Run a reader: True where it read, False where it said in one line why not.

    Any other exception passes, and `Hang` is raised after ``seconds``.
    """

    def stop(*_: object) -> None:
        raise Hang(f"no answer after {seconds} s")

    said = ""
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        read()
    except InputError as error:
        said = str(error)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert "\n" not in said, f"more than one line: {said}"
    assert len(said) < 1000, f"too long a message: {said[:200]}"
    return not said


def peak_bytes() -> int:
    """The high-water mark of this process's resident memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
