"""Manifests of millions of lines: columns in memory, the lines themselves read when asked for.

One pass over the file, in several processes, finds where each line lies and what planning an epoch
takes; what it found is kept beside the manifest as ``<manifest>.npz`` and used again while the
manifest's size and time of change stay the same. An utterance costs about 50 bytes of memory.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import re
import zipfile
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, overload

import numpy as np
import orjson

from asr.data.manifest import default_id, may_name_file, parsed, plain, utterance_of
from asr.data.utterances import Utterances
from asr.errors import InputError
from asr.labels import is_unicode
from asr.system.files import write_aside
from asr.system.lock import lock
from asr.system.text import nfc, plain_text
from asr.types import Segment, Utterance

FORMAT = "carousel-manifest-4"
#: Bytes of a manifest that are parsed at once: few enough for the processor's cache.
BLOCK = 1 << 21
#: Bytes from which on other processes are worth their start.
LARGE = 1 << 26
#: More speakers than this are not remembered: whom dev shares with train is then not told.
MOST_SPEAKERS = 1_000_000
MOST_COLLISIONS = 10
_BOM = b"\xef\xbb\xbf"
#: One of many names, each with a NUL behind it; a tar, byte and size where it is a tar's member.
_MEMBER = re.compile(r"(?:([^\0]+\.tar):([0-9]{1,18}):([0-9]{1,9})|[^\0]*)\0")


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
    "member_sizes": np.uint32,
}


class BadLineError(Exception):
    """A line that cannot be used: (byte where it starts, what is wrong)."""


class IndexedManifest(Utterances):
    """The utterances of a manifest, or of several one after the other; each is parsed when read.

    It is there to train on, so that texts are as `plain` makes them. Unlike
    `manifest.read_manifest` it takes no two utterances for different ones that came without
    an id and would get the same, and finds what is wrong with times of words and phones only when
    a line is read.
    """

    streamed = True

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
        return plain(replace(utterance, id=name, speaker=utterance.speaker or name))

    def __iter__(self) -> Iterator[Utterance]:
        return (self[i] for i in range(len(self)))

    def words(self) -> set[str]:
        """As of `Utterances`."""
        return self.columns.words

    def plain(self, known: Container[str]) -> IndexedManifest:
        """As it is: each utterance is made so when read."""
        return self

    def vocabulary(self, phones: Iterable[str] = ()) -> list[Utterance]:
        """One utterance that says every word and every phone there is, once."""
        words = {plain for word in self.columns.words for plain in plain_text(word).split()}
        said = tuple(map(Segment, sorted(self.columns.phones.union(phones))))
        return [
            Utterance(
                # In errors: "utterance of train.jsonl: has no phones".
                id=f"of {' '.join(map(str, self.paths))}",
                audio=self.paths[0],
                speaker="all",
                duration_s=0.0,
                text=" ".join(sorted(words)) if words else None,
                phones=said or None,
            )
        ]

    def shared_with(self, others: Sequence[Utterance]) -> tuple[list[str], list[str]]:
        """As of `Utterances`."""
        # Paths are digested as they are written: absolute, or relative to the manifest's folder.
        folders = {"", *(f"{path.parent.absolute()}/" for path in self.paths)}
        here = np.zeros(len(others), bool)
        for folder in folders:
            digests = _digests(
                [_stretch(str(u.audio).removeprefix(folder), u.offset_s) for u in others]
            )
            # The many are looked up among the few: nothing large is sorted.
            few = np.sort(digests)
            near = few[np.searchsorted(few, self.columns.audio).clip(max=len(few) - 1)]
            here |= np.isin(digests, np.unique(near[near == self.columns.audio]))
        speakers = {u.speaker for u in others} & self.columns.speakers
        return [u.id for u, found in zip(others, here, strict=True) if found], sorted(speakers)

    def forget_digests(self) -> None:
        """Let go what only `shared_with` and joining take: 16 bytes an utterance."""
        self.columns.ids = self.columns.audio = np.zeros(0, np.uint64)


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
                lock(handle.fileno())
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
    scan = partial(_scan_block, path, path.parent.absolute(), BLOCK)
    try:
        if size < LARGE:
            columns = _joined(map(scan, starts))
        else:
            # Not forked: the parent has threads.
            fresh = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(os.cpu_count(), mp_context=fresh) as pool:
                columns = _joined(pool.map(scan, starts, chunksize=4))
    except BrokenProcessPool as error:
        raise InputError(
            f"{path}: a process that read the manifest was killed, perhaps for want of memory"
        ) from error
    except BadLineError as error:
        start, what = error.args
        with path.open("rb") as handle:
            number = 1 + sum(handle.read(min(BLOCK, start - at)).count(b"\n")
                             for at in range(0, start, BLOCK))  # fmt: skip
        raise InputError(f"{path}:{number}: {what}") from error
    if not len(columns.starts):
        raise InputError(f"{path}: manifest is empty; expected one JSON object a line")
    return columns


def _joined(blocks: Iterable[Columns]) -> Columns:
    """One after the other, as they come: the words of all of them at once would be too many."""
    columns: dict[str, Any] = {name: np.zeros(0, kind) for name, kind in _TYPES.items()}
    n = room = 0
    tars: dict[str, int] = {}
    words: set[str] = set()
    phones: set[str] = set()
    speakers: set[str] | None = set()
    digest = hashlib.blake2b(digest_size=16)
    for block in blocks:
        # -1, for no tar, picks the last.
        numbers = [tars.setdefault(tar, len(tars)) for tar in block.tars]
        block.shards = np.array([*numbers, -1], np.int32)[block.shards]
        end = n + len(block.starts)
        if end > room:
            room = end + end // 8
            for column in columns.values():
                # In place: a list of all parts and their sum would be twice the memory.
                column.resize(room, refcheck=False)
        for name, column in columns.items():
            column[n:end] = getattr(block, name)
        n = end
        words |= block.words
        phones |= block.phones
        if speakers is not None:
            speakers |= block.speakers
            if len(speakers) > MOST_SPEAKERS:
                speakers = None
        digest.update(block.digest.encode())
    for column in columns.values():
        column.resize(n, refcheck=False)
    return Columns(
        **columns,
        tars=list(tars),
        words=words,
        phones=phones,
        speakers=speakers or set(),
        digest=digest.hexdigest(),
    )


def _scan_block(path: Path, folder: Path, size: int, start: int) -> Columns:
    """The lines that begin in [start, start + size)."""
    with path.open("rb") as handle:
        if start:
            handle.seek(start - 1)
            handle.readline()
        first = handle.tell()
        data = handle.read(max(0, start + size - first))
        if data and not data.endswith(b"\n"):
            data += handle.readline()
    digest = hashlib.blake2b(data, digest_size=16).hexdigest()
    if first == 0 and data.startswith(_BOM):
        first, data = len(_BOM), data[len(_BOM) :]
    lines = data.split(b"\n")
    sizes = np.fromiter(map(len, lines), np.int64, len(lines))
    starts = first + np.cumsum(sizes + 1) - sizes - 1
    filled = [i for i, line in enumerate(lines) if line and not line.isspace()]
    lines, sizes, starts = [lines[i] for i in filled], sizes[filled], starts[filled]
    fields = _fields(_records(lines, starts), starts, folder)
    names = fields.audio
    together = "\n" + "\n".join(names)
    if any(odd in together for odd in ("//", "/./", "\n./")):
        names = [str(Path(name)) for name in names]
    shards, tars, member_starts, member_sizes = _members(fields.audio)
    return Columns(
        starts=starts,
        sizes=sizes.astype(np.int32),
        durations=np.array(fields.durations, np.float32),
        ids=_digests(fields.names),
        audio=_digests(list(map(_stretch, names, fields.offsets))),
        shards=shards,
        member_starts=member_starts,
        member_sizes=member_sizes,
        tars=tars,
        words=fields.words,
        phones=fields.phones,
        speakers=fields.speakers,
        digest=digest,
    )


def _members(names: Sequence[str]) -> tuple[np.ndarray, list[str], np.ndarray, np.ndarray]:
    """Where audio lies in tars: each one's tar as a position in the list (-1: none), byte, size."""
    found = _MEMBER.findall("".join([name.replace("\0", " ") + "\0" for name in names]))
    in_tars, starts, sizes = zip(*found, strict=True) if found else ((), (), ())
    tars = list(dict.fromkeys(filter(None, in_tars)))
    positions = {tar: i for i, tar in enumerate(tars)} | {"": -1}
    return (
        np.array([positions[tar] for tar in in_tars], np.int32),
        tars,
        np.array([int(start or 0) for start in starts], np.int64),
        np.array([int(size or 0) for size in sizes], np.uint32),
    )


def _records(lines: Sequence[bytes], starts: np.ndarray) -> list[dict[str, Any]]:
    """The lines' objects; all at once takes two thirds of the time of one after the other."""
    try:
        records: list[dict[str, Any]] = orjson.loads(b"[%b]" % b",".join(lines))
        if len(records) == len(lines) and set(map(type, records)) <= {dict}:
            return records
    except (ValueError, RecursionError):
        pass
    records = []
    for line, start in zip(lines, starts.tolist(), strict=True):
        try:
            records.append(parsed(line))
        except InputError as error:
            raise BadLineError(start, str(error)) from None
    return records


@dataclass
class _Fields:
    """What is taken from the lines, in their order, and the words, phones and speakers in them."""

    names: list[str]
    audio: list[str]
    durations: list[float]
    offsets: list[float]
    words: set[str]
    phones: set[str]
    speakers: set[str]


def _fields(records: Sequence[dict[str, Any]], starts: np.ndarray, folder: Path) -> _Fields:
    """The fields, if every line has what it should; else line by line, to say which has not."""
    try:
        found = _Fields(
            # As many names as before, or the check below fails.
            names=nfc("\n".join([r["id"] for r in records])).split("\n"),
            audio=[r["audio_filepath"] for r in records],
            durations=[r["duration"] for r in records],
            offsets=[r.get("offset") or 0.0 for r in records],
            words=set(nfc(" ".join([r["text"] for r in records if r.get("text")])).split()),
            phones=_composed(
                p if isinstance(p, str) else p[0] for r in records for p in r.get("phones") or ()
            ),
            speakers=_composed(r["speaker"] for r in records if r.get("speaker")),
        )
        seconds = np.array([found.durations, found.offsets], np.float64)
        if (
            len(" ".join(found.names).split()) == len(found.names) == len(records)
            and may_name_file(" ".join([*found.names, *found.audio, *found.speakers]))
            and all(found.audio)
            and set(map(type, found.audio)) <= {str}
            and set(map(type, found.durations + found.offsets)) <= {int, float}
            and bool(np.all((seconds >= 0) & (seconds < np.inf)))
            and all(found.durations)
            # Half a character, as JSON's escapes can make, is refused.
            and is_unicode(" ".join(found.words | found.phones))
        ):
            return found
    except (TypeError, KeyError, IndexError, ValueError, OverflowError):
        pass
    found = _Fields([], [], [], [], set(), set(), set())
    for record, start in zip(records, starts.tolist(), strict=True):
        try:
            utterance = utterance_of(record, folder)
        except InputError as error:
            raise BadLineError(start, str(error)) from None
        found.names.append(utterance.id or default_id(utterance))
        found.audio.append(record["audio_filepath"])
        found.durations.append(utterance.duration_s)
        found.offsets.append(utterance.offset_s)
        found.words.update((utterance.text or "").split())
        found.phones.update(p.label for p in utterance.phones or ())
        if utterance.speaker:
            found.speakers.add(utterance.speaker)
    return found


def _composed(texts: Iterable[str]) -> set[str]:
    return set(map(nfc, set(texts)))


def _stretch(audio: str, offset_s: float) -> str:
    return f"{audio} {float(offset_s)}"


def _digests(texts: Sequence[str]) -> np.ndarray:
    """64-bit digests (n,) of n texts: FNV-1a (Fowler, Noll and Vo), a character at a time."""
    pieces = [np.zeros(0, np.uint64)]
    for first in range(0, len(texts), 4096):
        # A row of code points each, zeros after the end.
        wide = np.array(texts[first : first + 4096])
        points = wide.view(np.uint32).reshape(len(wide), -1).astype(np.uint64)
        digest = np.full(len(points), 0xCBF29CE484222325, np.uint64)
        for column in np.ascontiguousarray(points.T):
            digest = np.where(column > 0, (digest ^ column) * np.uint64(0x100000001B3), digest)
        pieces.append(digest)
    return np.concatenate(pieces)


def _refuse_doubles(manifest: IndexedManifest) -> None:
    """Raise InputError where an id is there twice."""
    ids = manifest.columns.ids
    ordered = np.sort(ids)
    again = np.flatnonzero(ordered[1:] == ordered[:-1])
    for digest in ordered[again][:MOST_COLLISIONS]:
        first, second = np.flatnonzero(ids == digest)[:2].tolist()
        name = manifest[second].id
        # Different ids share a digest once in a hundred thousand manifests of ten million lines.
        if name == manifest[first].id:
            raise InputError(
                f"{' '.join(map(str, manifest.paths))}: id {name!r} of utterance {second + 1} was "
                f"already used by utterance {first + 1}; give each an id of its own"
            )
