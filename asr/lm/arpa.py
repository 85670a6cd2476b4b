"""ARPA files, which hold backoff n-gram models as text: read and write."""

from __future__ import annotations

import gzip
import math
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr.errors import InputError
from asr.system.files import write_aside
from asr.system.text import nfc

UNK, BOS, EOS = "<unk>", "<s>", "</s>"
#: How texts and ARPA files write the unknown token.
UNKNOWNS = (UNK, "<UNK>")
#: log10 P(<unk>) where the ARPA file has none, as KenLM's ``unknown_missing_logprob``.
MISSING_UNK = -100.0
#: Real n-grams unpack to some 5 times their size in gzip, ever the same line to 1000 times.
MOST_PACKED = 100
LONGEST_LINE = 1 << 20
DATA, END = "\\data\\", "\\end\\"


class Grams(NamedTuple):
    """The n-grams of a model, each the child of its context in a tree: node 0 is the root.

    parents, last: the node of the context and the last token of node 1, 2 ..., rising by order,
    parent and token. log10_prob, log10_backoff: of every node, the root included.
    """

    order: int
    tokens: tuple[str, ...]
    parents: NDArray[np.int64]
    last: NDArray[np.int64]
    log10_prob: NDArray[np.float64]
    log10_backoff: NDArray[np.float64]


def read(path: Path) -> Grams:
    """Read an ARPA file, plain or gzipped (.gz).

    Raises:
        InputError: no such file, or a malformed line, with its number.
    """
    try:
        return _Parser(_lines(path), path).read()
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read as an ARPA file ({error})") from error


def write(
    path: Path, counts: Sequence[int], grams: Iterable[tuple[tuple[str, ...], float, float]]
) -> None:
    """Write an ARPA file, gzipped if its name ends in .gz.

    counts: of the n-grams of each order. grams: each with its log10 probability and backoff,
    shorter ones first.
    """
    with write_aside(path) as aside, _open(aside, "wt") as out:
        out.write(f"{DATA}\n")
        out.writelines(f"ngram {n}={count}\n" for n, count in enumerate(counts, start=1))
        depth = 0
        for gram, prob, backoff in grams:
            if len(gram) > depth:
                depth = len(gram)
                out.write(f"\n\\{depth}-grams:\n")
            tail = f"\t{backoff:.7g}" if depth < len(counts) else ""
            out.write(f"{prob:.7g}\t{' '.join(gram)}{tail}\n")
        out.write(f"\n{END}\n")


def _open(path: Path, mode: str) -> IO[str]:
    encoding = "utf-8-sig" if mode == "rt" else "utf-8"
    if path.suffix == ".gz":
        return gzip.open(path, mode, encoding=encoding)  # type: ignore[return-value]
    return path.open(mode.rstrip("t"), encoding=encoding)


def _lines(path: Path) -> Iterator[str]:
    """The lines of a file, which may be a bomb: gzip packs a gigabyte of zeros in a megabyte."""
    most = path.stat().st_size * MOST_PACKED if path.suffix == ".gz" else math.inf
    n_read = 0
    with _open(path, "rt") as handle:
        while line := handle.readline(LONGEST_LINE):
            n_read += len(line)
            if len(line) == LONGEST_LINE:
                raise InputError(f"{path}: no ARPA file: a line has {LONGEST_LINE} characters")
            if n_read > most:
                raise InputError(f"{path}: no ARPA file: unpacks to {MOST_PACKED} times its size")
            yield nfc(line)


class _Parser:
    """What has been read of a file; the n-grams of a section may stand in any order.

    counts: what it promises, by order. keys: the node of each n-gram by the node of its context and
    its last token. Nodes are numbered as read here and sorted at the end.
    """

    def __init__(self, lines: Iterable[str], path: Path) -> None:
        self.path, self.number = path, 0
        self.texts = self._texts(lines)
        self.counts: list[int] = []
        self.tokens = {UNK: 0, BOS: 1, EOS: 2}
        self.keys: dict[tuple[int, int], int] = {}
        self.probs, self.backoffs = [0.0], [0.0]

    def _texts(self, lines: Iterable[str]) -> Iterator[str]:
        for self.number, line in enumerate(lines, start=1):
            if text := line.strip():
                yield text

    def _fail(self, message: str) -> InputError:
        return InputError(f"{self.path}:{self.number}: {message}")

    def read(self) -> Grams:
        if DATA not in self.texts:
            raise self._fail(f"the file ends before {DATA}")
        section = found = 0  # 0 is \data\, n is \n-grams:
        for text in self.texts:
            if text.startswith("\\") and (text.endswith("-grams:") or text == END):
                self._check_section(text, section, found)
                if text == END:
                    return self._sorted()
                section, found = section + 1, 0
            elif section == 0:
                self._read_count(text)
            else:
                self._read_gram(text.split(), section)
                found += 1
        raise self._fail(f"the file ends before {END}")

    def _check_section(self, text: str, section: int, found: int) -> None:
        """Check that ``section`` is complete where the line ``text`` ends it."""
        if not self.counts:
            raise self._fail("no 'ngram N=COUNT' line before the first section")
        if section and found != (promised := self.counts[section - 1]):
            raise self._fail(f"{DATA} promises {promised} {section}-grams, found {found}")
        expected = END if section == len(self.counts) else f"\\{section + 1}-grams:"
        if text != expected:
            raise self._fail(f"expected {expected}, found {text}")

    def _read_count(self, text: str) -> None:
        fields = re.fullmatch(r"ngram\s*(\d{1,9})\s*=\s*(\d{1,15})", text)
        if fields is None:
            raise self._fail(f"expected 'ngram N=COUNT', found {text!r}")
        order, count = map(int, fields.groups())
        if order != len(self.counts) + 1:
            raise self._fail(f"expected 'ngram {len(self.counts) + 1}=COUNT', found {text!r}")
        self.counts.append(count)

    def _read_gram(self, fields: list[str], section: int) -> None:
        if len(fields) not in (section + 1, section + 2):
            raise self._fail(
                f"expected a log10 probability, {section} tokens and perhaps a backoff weight, "
                f"found {len(fields)} fields"
            )
        try:
            prob = float(fields[0])
            backoff = float(fields[section + 1]) if len(fields) == section + 2 else 0.0
        except ValueError as error:
            raise self._fail(f"not a number ({error})") from error
        if math.isnan(prob) or math.isnan(backoff) or prob > 0 or backoff == math.inf:
            raise self._fail("a log10 probability must be a number of at most 0")
        gram = [UNK if w in UNKNOWNS else w for w in fields[1 : section + 1]]
        if section == 1:
            self.tokens.setdefault(gram[0], len(self.tokens))
        context = 0
        for depth, token in enumerate(gram, start=1):
            number = self.tokens.get(token)
            if number is None:
                raise self._fail(f"token {token!r} is not among the 1-grams")
            key = (context, number)
            if depth < section:
                if key not in self.keys:
                    raise self._fail(f"context {' '.join(gram[:depth])!r} is not among its n-grams")
                context = self.keys[key]
        if key in self.keys:
            raise self._fail(f"{section}-gram {' '.join(gram)!r} stands twice")
        self.keys[key] = len(self.probs)
        self.probs.append(prob)
        self.backoffs.append(backoff)

    def _sorted(self) -> Grams:
        """Number the nodes by (order, parent, token)."""
        for special, prob in ((0, MISSING_UNK), (1, 0.0), (2, MISSING_UNK)):
            if (0, special) not in self.keys:
                self.keys[(0, special)] = len(self.probs)
                self.probs.append(prob)
                self.backoffs.append(0.0)
        levels: list[list[tuple[int, int, int]]] = [[] for _ in self.counts]
        depth = {0: 0}
        for (context, token), node in sorted(self.keys.items(), key=lambda item: item[1]):
            depth[node] = depth[context] + 1
            levels[depth[context]].append((context, token, node))
        renumbered = {0: 0}
        rows: list[tuple[int, int, int]] = []
        for level in levels:
            for context, token, node in sorted((renumbered[c], t, n) for c, t, n in level):
                renumbered[node] = len(rows) + 1
                rows.append((context, token, node))
        parents, last, nodes = np.array(rows, np.int64).T
        picked = np.concatenate([[0], nodes])
        values = np.array(self.probs)[picked], np.array(self.backoffs)[picked]
        return Grams(len(self.counts), tuple(self.tokens), parents, last, *values)
