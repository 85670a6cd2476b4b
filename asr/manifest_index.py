"""Manifests of millions of lines: columns in memory, the lines themselves read when asked for.

One pass over the file, in several processes, finds where each line lies and what planning an epoch
takes; what it found is kept beside the manifest as ``<manifest>.npz`` and used again while the
manifest's size and time of change stay the same. An utterance costs about 50 bytes of memory.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import multiprocessing
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, overload

import numpy as np

from asr.audio import tar_member
from asr.errors import InputError
from asr.files import write_aside
from asr.manifest import default_id, parsed, utterance_of
from asr.types import Segment, Utterance

FORMAT = "carousel-manifest-1"
#: Bytes of a manifest that are parsed at once; their objects take about four times as much memory.
BLOCK = 1 << 24
#: More speakers than this are not remembered: whom dev shares with train is then not told.
MOST_SPEAKERS = 1_000_000
_UNNORMALISED = re.compile(r"//|/\.\.?/|^\.\.?/")
_BOM = b"\xef\xbb\xbf"


@dataclass
class Columns:
    """What is known of n utterances without their lines; each array is (n,).

    starts, sizes: where the lines lie, in bytes. durations: seconds. ids, audio: 64-bit digests of
    the id, and of file and offset. shards: position in ``tars``, or -1 for audio in a file of its
    own; member_starts, member_sizes: where the audio lies in the tar. words, phones: every one
    there is. digest: of all bytes.
    """

    starts: np.ndarray
    sizes: np.ndarray
    durations: np.ndarray
    ids: np.ndarray
    audio: np.ndarray
    shards: np.ndarray
    member_starts: np.ndarray
    member_sizes: np.ndarray
    tars: list[str] = field(default_factory=list)
    words: set[str] = field(default_factory=set)
    phones: set[str] = field(default_factory=set)
    speakers: set[str] = field(default_factory=set)
    digest: str = ""


_TYPES = {
    "starts": np.int64,
    "sizes": np.int32,
    "durations": np.float32,
    "ids": np.uint64,
    "audio": np.uint64,
    "shards": np.int32,
    "member_starts": np.int64,
    "member_sizes": np.int64,
}


class BadLineError(Exception):
    """A line that cannot be used: (byte where it starts, what is wrong)."""


class IndexedManifest(Sequence[Utterance]):
    """The utterances of a manifest, or of several one after the other; each is parsed when read.

    Unlike `manifest.read_manifest` it takes no two utterances for different ones that came without
    an id and would get the same, and finds what is wrong with times of words and phones only when
    a line is read.
    """

    def __init__(self, paths: Sequence[Path], columns: Sequence[Columns]) -> None:
        self.paths = list(paths)
        self._files = [path.open("rb") for path in paths]
        self._ends = np.cumsum([len(c.starts) for c in columns])
        arrays: dict[str, Any] = {
            name: np.concatenate([getattr(c, name) for c in columns])
            if len(columns) > 1
            else getattr(columns[0], name)
            for name in _TYPES
        }
        n_before = np.cumsum([0] + [len(c.tars) for c in columns])
        if n_before[-1] and len(columns) > 1:
            arrays["shards"] = np.concatenate(
                [
                    np.where(c.shards >= 0, c.shards + n, -1).astype(np.int32)
                    for c, n in zip(columns, n_before, strict=False)
                ]
            )
        self.columns = Columns(
            **arrays,
            tars=[
                str(path.parent.absolute() / tar)
                for path, c in zip(paths, columns, strict=True)
                for tar in c.tars
            ],
            words=set().union(*(c.words for c in columns)),
            phones=set().union(*(c.phones for c in columns)),
            speakers=set().union(*(c.speakers for c in columns)),
            digest=" ".join(c.digest for c in columns),
        )

    def __len__(self) -> int:
        return len(self.columns.starts)

    @overload
    def __getitem__(self, index: int) -> Utterance: ...

    @overload
    def __getitem__(self, index: slice) -> list[Utterance]: ...

    def __getitem__(self, index: int | slice) -> Utterance | list[Utterance]:
        """Read and check one line (or several).

        Raises:
            InputError: the line is no utterance, or the manifest has changed.
        """
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = range(len(self))[index]
        number = int(np.searchsorted(self._ends, i, "right"))
        start, size = int(self.columns.starts[i]), int(self.columns.sizes[i])
        path = self.paths[number]
        line = os.pread(self._files[number].fileno(), size, start)
        try:
            utterance = utterance_of(parsed(line), path.parent.absolute())
        except InputError as error:
            raise InputError(f"{path}, at byte {start}: {error}") from error
        name = utterance.id or default_id(utterance)
        return replace(utterance, id=name, speaker=utterance.speaker or name)

    def __iter__(self) -> Iterator[Utterance]:
        return (self[i] for i in range(len(self)))

    def vocabulary(self) -> Utterance:
        """One utterance that says every word and every phone there is, once."""
        columns = self.columns
        return Utterance(
            id="all",
            audio=self.paths[0],
            speaker="all",
            duration_s=0.0,
            text=" ".join(sorted(columns.words)) if columns.words else None,
            phones=tuple(Segment(p) for p in sorted(columns.phones)) if columns.phones else None,
        )

    def shared_with(self, utterances: Sequence[Utterance]) -> tuple[list[str], list[str]]:
        """Ids of those utterances whose audio is here too, and speakers that are."""
        here = np.zeros(len(utterances), bool)
        # Paths are digested as they are written: absolute, or relative to the manifest's folder.
        for folder in {"", *(f"{path.parent.absolute()}/" for path in self.paths)}:
            digests = [
                _audio_digest(str(u.audio).removeprefix(folder), u.offset_s) for u in utterances
            ]
            here |= np.isin(np.array(digests, np.uint64), self.columns.audio)
        speakers = {u.speaker for u in utterances} & self.columns.speakers
        return [u.id for u, found in zip(utterances, here, strict=True) if found], sorted(speakers)


def join_manifests(manifests: Sequence[IndexedManifest]) -> IndexedManifest:
    """The utterances of the first, then those of the second, and so on.

    Raises:
        InputError: an id is in two of them.
    """
    if len(manifests) == 1:
        return manifests[0]
    joined = IndexedManifest([m.paths[0] for m in manifests], [m.columns for m in manifests])
    _refuse_doubles(joined)
    return joined


def index_manifest(path: Path, tell: Callable[[str], None] = lambda line: None) -> IndexedManifest:
    """Open a manifest of any size; the first time, ``<path>.npz`` is written beside it.

    Where the folder cannot be written to, ``tell`` gets a line and the pass is made each time.

    Raises:
        InputError: ``path:line: ...`` for a line that cannot be used, an id that is there twice,
            no such file, or no utterance in it.
    """
    path = Path(path)
    kept = path.with_name(path.name + ".npz")
    try:
        stat = path.stat()
        about = f"{FORMAT} {stat.st_size} {stat.st_mtime_ns}"
        with path.open("rb") as handle:
            # Of several processes one reads it, the others wait. Some file systems have no locks.
            with suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_EX)
            columns = _read_kept(kept, about)
            if columns is not None:
                return IndexedManifest([path], [columns])
            columns = _scan(path, stat.st_size)
            manifest = IndexedManifest([path], [columns])
            _refuse_doubles(manifest)
            try:
                _keep(kept, about, columns)
            except InputError as error:
                tell(f"{error}; the manifest will be read anew each time")
            return manifest
    except OSError as error:
        raise InputError(f"{path}: manifest cannot be read ({error.strerror})") from error


def _keep(kept: Path, about: str, columns: Columns) -> None:
    texts = {"about": about, "digest": columns.digest, "tars": columns.tars}
    texts |= {n: sorted(getattr(columns, n)) for n in ("words", "phones", "speakers")}
    arrays = {name: getattr(columns, name) for name in _TYPES}
    with write_aside(kept) as aside:
        np.savez(aside, texts=np.frombuffer(json.dumps(texts).encode(), np.uint8), **arrays)


def _read_kept(kept: Path, about: str) -> Columns | None:
    """What `_keep` wrote, if it was of this manifest as it is now."""
    if not kept.is_file():
        return None
    try:
        with np.load(kept, allow_pickle=False) as found:
            texts = json.loads(found["texts"].tobytes())
            if texts.pop("about") != about:
                return None
            arrays = {name: found[name] for name in _TYPES}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        # Broken: it is made again.
        return None
    return Columns(
        **arrays,
        tars=texts["tars"],
        words=set(texts["words"]),
        phones=set(texts["phones"]),
        speakers=set(texts["speakers"]),
        digest=texts["digest"],
    )


def _scan(path: Path, size: int) -> Columns:
    """Read the whole manifest, with as many processes as there are cores where it is large."""
    starts = range(0, size, BLOCK)
    scan = partial(_scan_block, path, path.parent.absolute())
    try:
        if len(starts) < 4:
            blocks = list(map(scan, starts))
        else:
            # Not forked: the parent has threads.
            fresh = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(os.cpu_count(), mp_context=fresh) as pool:
                blocks = list(pool.map(scan, starts))
    except BadLineError as error:
        start, what = error.args
        with path.open("rb") as handle:
            number = 1 + sum(handle.read(min(BLOCK, start - at)).count(b"\n")
                             for at in range(0, start, BLOCK))  # fmt: skip
        raise InputError(f"{path}:{number}: {what}") from error
    if not sum(len(block.starts) for block in blocks):
        raise InputError(f"{path}: manifest is empty; expected one JSON object a line")
    return _joined(blocks)


def _joined(blocks: Sequence[Columns]) -> Columns:
    tars = {tar: None for block in blocks for tar in block.tars}
    numbers = {tar: number for number, tar in enumerate(tars)}
    for block in blocks:
        # -1, for no tar, picks the last.
        local = np.array([*(numbers[tar] for tar in block.tars), -1], np.int32)
        block.shards = local[block.shards]
    arrays: dict[str, Any] = {
        name: np.concatenate([getattr(block, name) for block in blocks]) for name in _TYPES
    }
    speakers: set[str] = set()
    for block in blocks:
        speakers |= block.speakers
        if len(speakers) > MOST_SPEAKERS:
            speakers = set()
            break
    return Columns(
        **arrays,
        tars=list(tars),
        words=set().union(*(block.words for block in blocks)),
        phones=set().union(*(block.phones for block in blocks)),
        speakers=speakers,
        digest=hashlib.blake2b(
            "".join(block.digest for block in blocks).encode(), digest_size=16
        ).hexdigest(),
    )


def _scan_block(path: Path, folder: Path, start: int) -> Columns:
    """The lines that begin in [start, start + BLOCK)."""
    with path.open("rb") as handle:
        if start:
            handle.seek(start - 1)
            handle.readline()
        first = handle.tell()
        data = handle.read(max(0, start + BLOCK - first))
        if data and not data.endswith(b"\n"):
            data += handle.readline()
    at = first
    lines, starts = [], []
    for line in data.split(b"\n"):
        length = len(line)
        if at == 0 and line.startswith(_BOM):
            line, at, length = line[3:], 3, length - 3
        if line.strip():
            lines.append(line)
            starts.append(at)
        at += length + 1
    rows: list[tuple[float, int, int, int, int, int]] = []
    words: set[str] = set()
    phones: set[str] = set()
    speakers: set[str] = set()
    tars: dict[str, int] = {}
    for record, line_start in zip(_records(lines, starts), starts, strict=True):
        try:
            rows.append(_row(record, folder, tars))
            text, spoken, speaker = record.get("text"), record.get("phones"), record.get("speaker")
            if text is not None:
                words.update(text.split())
            if spoken is not None:
                phones.update([p if isinstance(p, str) else p[0] for p in spoken])
            if speaker is not None:
                speakers.add(speaker)
        except (AttributeError, TypeError, KeyError, IndexError, InputError) as error:
            raise BadLineError(line_start, _what_is_wrong(record, folder, error)) from None
    columns = list(zip(*rows, strict=True)) or [()] * 6
    named = ("durations", "ids", "audio", "shards", "member_starts", "member_sizes")
    arrays: dict[str, Any] = {
        name: np.array(values, _TYPES[name]) for name, values in zip(named, columns, strict=True)
    }
    arrays["starts"] = np.array(starts, np.int64)
    arrays["sizes"] = np.array([len(line) for line in lines], np.int32)
    digest = hashlib.blake2b(data, digest_size=16).hexdigest()
    return Columns(**arrays, tars=list(tars), words=words, phones=phones, speakers=speakers,
                   digest=digest)  # fmt: skip


def _records(lines: Sequence[bytes], starts: Sequence[int]) -> list[dict[str, Any]]:
    """The lines' objects; all at once takes two thirds of the time of one after the other."""
    try:
        records = json.loads(b"[%b]" % b",".join(lines))
    except (ValueError, RecursionError):
        records = []
    if len(records) != len(lines):
        records = []
        for line, start in zip(lines, starts, strict=True):
            try:
                records.append(parsed(line))
            except InputError as error:
                raise BadLineError(start, str(error)) from None
    return records


def _row(
    record: dict[str, Any], folder: Path, tars: dict[str, int]
) -> tuple[float, int, int, int, int, int]:
    """Duration, digests of id and audio, and where in which tar the audio lies."""
    audio, name = record["audio_filepath"], record.get("id")
    duration_s, offset_s = record.get("duration"), record.get("offset") or 0.0
    if not (
        name
        and name.split() == [name]
        and duration_s
        and 0 < duration_s < math.inf
        and 0 <= offset_s < math.inf
    ):
        utterance = utterance_of(record, folder)
        name, duration_s = utterance.id or default_id(utterance), utterance.duration_s
    shard, start, size = -1, 0, 0
    if ".tar:" in audio:
        member = tar_member(audio)
        if member is not None:
            tar, start, size = member
            shard = tars.setdefault(str(tar), len(tars))
    path = str(Path(audio)) if _UNNORMALISED.search(audio) else audio
    return duration_s, _digest(name), _audio_digest(path, offset_s), shard, start, size


def _what_is_wrong(record: Any, folder: Path, error: Exception) -> str:
    """What the strict reading of a line says, or else the error met."""
    if not isinstance(record, dict):
        return f"expected a JSON object, found {type(record).__name__}"
    try:
        utterance_of(record, folder)
    except InputError as strict:
        return str(strict)
    return f"a field of the wrong type ({error})"


def _digest(text: str) -> int:
    return int.from_bytes(
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    )


def _audio_digest(path: str, offset_s: float) -> int:
    return _digest(f"{path} {offset_s or 0.0}")


def _refuse_doubles(manifest: IndexedManifest) -> None:
    """Raise InputError where an id is there twice."""
    ids = manifest.columns.ids
    order = np.argsort(ids, kind="stable")
    again = np.flatnonzero(ids[order[1:]] == ids[order[:-1]])
    if len(again):
        first, second = int(order[again[0]]), int(order[again[0] + 1])
        raise InputError(
            f"{' '.join(map(str, manifest.paths))}: id {manifest[second].id!r} of utterance "
            f"{second + 1} was already used by utterance {first + 1}; give each an id of its own"
        )
