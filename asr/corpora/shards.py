"""Tar shards in the WebDataset convention: KEY.flac and KEY.json side by side in plain tars.

https://github.com/webdataset/webdataset. Beside its shards a set has a manifest whose audio paths
say where in which tar the audio lies (``train-000003.tar:5632:171204``), so that any utterance is
found without a search and an epoch is planned without opening a tar.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import soundfile

from asr.audio.read import audio_rate, file_state, load_audio, member_path
from asr.audio.sources import SUFFIXES
from asr.corpora.audit import Audit, Corpus, Track
from asr.data.manifest import parsed, record_of, utterance_of
from asr.errors import InputError
from asr.system.files import remove_leftovers, write_aside, write_text
from asr.system.text import decoded
from asr.types import Utterance

#: Where pieces of the manifest wait until all shards of a set are written.
UNFINISHED = "unfinished"
_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9}
#: Utterances that are encoded together before they are written.
TOGETHER = 32
SUMMARY = "shards.json"


@dataclass(frozen=True)
class ShardSize:
    """How many shards a set is cut into, or else how many bytes one may have."""

    count: int = 0
    n_bytes: int = 0


def shard_size(text: str) -> ShardSize:
    """``64`` (shards a set) or ``500MB`` (bytes a shard; KB, MB or GB).

    Raises:
        InputError: it is neither.
    """
    found = re.fullmatch(r"([1-9][0-9]{0,8})([KMG]B)?", text.strip(), re.IGNORECASE)
    if not found:
        raise InputError(
            f"--shards {text}: expected a number of shards for each set, such as 64, or the size "
            f"of one, such as 500MB"
        )
    if found[2]:
        return ShardSize(n_bytes=int(found[1]) * _UNITS[found[2].upper()])
    return ShardSize(count=int(found[1]))


@dataclass(frozen=True)
class Shard:
    """A tar that is written: its name, size and SHA-256, and what it holds."""

    name: str
    bytes: int
    sha256: str
    utterances: int
    seconds: float


def write_shards(
    folder: Path,
    name: str,
    utterances: Sequence[Utterance],
    size: ShardSize,
    audit: Audit,
    tick: Callable[[], None] = lambda: None,
) -> list[Shard]:
    """Write ``<name>-000000.tar`` ... and then ``<name>.jsonl``, the set's manifest.

    Utterances are mixed, in an order that follows from their ids, so that any shard is a fair
    sample. FLAC files are copied, everything else is encoded without loss (the mean of the
    channels; 16 bits where the source has no more, else 24). Audio that cannot be read is left out
    and noted in ``audit``. A shard is whole or not there. Broken off and begun again, it goes on
    after the last shard that is whole, where the utterances and their files are the same. The same
    corpus gives the same bytes.

    Raises:
        InputError: the folder cannot be written to, or no utterance can be read.
    """
    remove_leftovers(folder, f"{name}-")
    mixed = sorted(utterances, key=lambda u: _mixed_up(u.id))
    count = min(size.count, len(mixed))
    ends = [len(mixed) * (k + 1) // count for k in range(count)]
    shards: list[Shard] = []
    pieces: list[Path] = []
    done = 0
    while done < len(mixed):
        number = len(shards)
        tar = folder / f"{name}-{number:06d}.tar"
        piece = folder / UNFINISHED / f"{tar.stem}.json"
        stop = ends[number] if count else len(mixed)
        found = _finished(piece, tar, mixed[done:stop], size)
        if found is None:
            found = _write_shard(tar, mixed[done:stop], size)
            write_text(piece, json.dumps(found))
        for _ in range(found["done"]):
            tick()
        audit.corrupt.update(found["skipped"])
        shards.append(Shard(**found["shard"]))
        pieces.append(piece)
        done += found["done"]
    n_written = sum(shard.utterances for shard in shards)
    if not n_written:
        first = next(iter(audit.corrupt.items()), ("", "nothing was there"))
        raise InputError(f"{folder}: set {name} has no readable audio ({': '.join(first)})")
    with write_aside(folder / f"{name}.jsonl") as aside, aside.open("w", encoding="utf-8") as out:
        for piece in pieces:
            out.writelines(json.loads(piece.read_text(encoding="utf-8"))["lines"])
    for piece in pieces:
        piece.unlink()
    for tar in set(folder.glob(f"{name}-[0-9]*.tar")) - {folder / shard.name for shard in shards}:
        audit.stray[str(tar)] = f"is none of the {len(shards)} tars of {name}.jsonl"
    with suppress(OSError):
        (folder / UNFINISHED).rmdir()
    return shards


def write_summary(folder: Path, sets: dict[str, list[Shard]]) -> None:
    """Write shards.json: what each set and each of its tars holds."""
    about = {
        name: {
            "utterances": sum(s.utterances for s in shards),
            "seconds": round(sum(s.seconds for s in shards), 3),
            "bytes": sum(s.bytes for s in shards),
            "shards": [asdict(s) for s in shards],
        }
        for name, shards in sets.items()
    }
    write_text(folder / SUMMARY, json.dumps(about, indent=2) + "\n")


def _mixed_up(utterance_id: str) -> bytes:
    return hashlib.blake2b(utterance_id.encode("utf-8", "surrogateescape")).digest()


def _finished(
    piece: Path, tar: Path, left: Sequence[Utterance], size: ShardSize
) -> dict[str, Any] | None:
    """What an earlier run wrote of these utterances, where that is whole and still true."""
    try:
        found: dict[str, Any] = json.loads(piece.read_text(encoding="utf-8"))
        whole = tar.stat().st_size == found["shard"]["bytes"]
        if whole and found["source"] == _source(left[: found["done"]], size, found["done"]):
            return found if found["done"] == len(left) or size.n_bytes else None
    except (OSError, ValueError, KeyError):
        pass
    return None


def _source(utterances: Sequence[Utterance], size: ShardSize, n: int) -> str:
    """A digest of what a shard is made of: the utterances, and their files' sizes and times."""
    digest = hashlib.blake2b(f"{size.n_bytes} {n}".encode(), digest_size=16)
    for utterance in utterances:
        digest.update(json.dumps([record_of(utterance), file_state(utterance.audio)]).encode())
    return digest.hexdigest()


def _write_shard(tar: Path, utterances: Sequence[Utterance], size: ShardSize) -> dict[str, Any]:
    """Write one tar of the first of these utterances, as many as fit."""
    lines: list[str] = []
    skipped: dict[str, str] = {}
    seconds, done = 0.0, 0
    with write_aside(tar) as aside:
        with tarfile.open(aside, "w", format=tarfile.PAX_FORMAT) as out:
            for utterance, encoded in _encoded(utterances):
                if isinstance(encoded, InputError):
                    skipped[str(utterance.audio)] = str(encoded)
                    done += 1
                    continue
                flac, duration_s = encoded
                if size.n_bytes and lines and out.offset + len(flac) > size.n_bytes:
                    break
                record = record_of(replace(utterance, duration_s=duration_s, offset_s=0.0))
                del record["audio_filepath"], record["offset"]
                key = quote(utterance.id, safe="").replace(".", "%2E")
                start = add_file(out, f"{key}.flac", flac)
                about = json.dumps(record, ensure_ascii=False).encode("utf-8", "surrogateescape")
                add_file(out, f"{key}.json", about)
                where = {
                    "id": utterance.id,
                    "audio_filepath": member_path(tar.name, start, len(flac)),
                }
                lines.append(json.dumps(where | record, ensure_ascii=False) + "\n")
                seconds += duration_s
                done += 1
        with aside.open("rb") as handle:
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
        n_bytes = aside.stat().st_size
    shard = Shard(tar.name, n_bytes, digest, len(lines), round(seconds, 3))
    return {
        "source": _source(utterances[:done], size, done),
        "done": done,
        "shard": asdict(shard),
        "skipped": skipped,
        "lines": lines,
    }


def add_file(out: tarfile.TarFile, name: str, data: bytes) -> int:
    """Add a file to a tar, without owner or time; returns where its first byte lies."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    out.addfile(info, io.BytesIO(data))
    return out.offset - -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _encoded(
    utterances: Sequence[Utterance],
) -> Iterator[tuple[Utterance, tuple[bytes, float] | InputError]]:
    """Each utterance as FLAC with its seconds, or why not."""

    def one(utterance: Utterance) -> tuple[bytes, float] | InputError:
        try:
            return encode_flac(utterance)
        except InputError as error:
            return error

    with ThreadPoolExecutor() as pool:
        for first in range(0, len(utterances), TOGETHER):
            some = utterances[first : first + TOGETHER]
            yield from zip(some, pool.map(one, some), strict=True)


def encode_flac(utterance: Utterance) -> tuple[bytes, float]:
    """The utterance as a FLAC file of its own, and its length in seconds.

    Raises:
        InputError: its audio cannot be read.
    """
    rate = audio_rate(utterance.audio)
    # Read in any case: what cannot be decoded is found now.
    waveform = load_audio(utterance.audio, rate, utterance.offset_s, utterance.duration_s)
    if utterance.audio.suffix.lower() == ".flac":
        with soundfile.SoundFile(utterance.audio) as sound:
            if sound.frames == len(waveform) and not utterance.offset_s and sound.channels == 1:
                return utterance.audio.read_bytes(), len(waveform) / rate
    steps = waveform.astype(np.float64) * 2**15
    bits = 16 if np.array_equal(steps, np.rint(steps)) else 24
    full = 2 ** (bits - 1)
    whole = np.clip(np.rint(waveform.astype(np.float64) * full), -full, full - 1).astype(np.int32)
    out = io.BytesIO()
    # libsndfile takes the upper bits of 32.
    soundfile.write(out, whole << (32 - bits), rate, f"PCM_{bits}", format="FLAC")
    return out.getvalue(), len(waveform) / rate


def load_webdataset(root: Path, track: Track) -> Corpus:
    """Load the tars in ROOT, or the one tar ROOT; names without their number are the sets.

    Each utterance is audio beside KEY.json, whose fields are those of a
    manifest, or KEY.txt, its text.

    Raises:
        InputError: no such folder, or no tar in it.
    """
    tars = sorted(root.glob("*.tar")) if root.is_dir() else [root]
    if not tars or not tars[0].exists():
        raise InputError(f"{root}: no *.tar there; expected shards such as train-000000.tar")
    audit = Audit()
    sets: dict[str, list[Utterance]] = {}
    n_found = 0
    for tar in track(tars):
        name = re.sub(r"[-_.]?\d+$", "", tar.stem) or root.name
        found, n_keys = scan_shard(tar, audit)
        n_found += n_keys
        sets.setdefault(name, []).extend(found)
    return Corpus(sets, replace(audit, found=n_found), root)


def scan_shard(tar: Path, audit: Audit) -> tuple[list[Utterance], int]:
    """The utterances of one tar, and how many there should be; what is wrong goes to ``audit``."""
    members: dict[str, dict[str, tuple[int, int]]] = {}
    texts: dict[str, tuple[str, bytes]] = {}
    n_bytes = tar.stat().st_size
    reason = ""
    try:
        with tarfile.open(tar, "r:") as opened:
            for member in opened:
                folder, _, base = member.name.rpartition("/")
                key, _, suffix = base.partition(".")
                key = f"{folder}/{key}" if folder else key
                if not member.isfile():
                    continue
                if member.offset_data + member.size > n_bytes:
                    reason = f"truncated inside {member.name}"
                    break
                files = members.setdefault(key, {})
                files[suffix.lower()] = (member.offset_data, member.size)
                if suffix in ("json", "txt"):
                    content = opened.extractfile(member)
                    assert content is not None
                    if texts.get(key, ("",))[0] != "json":
                        texts[key] = (suffix, content.read())
            # A tar ends with two blocks of zeros; without them it was cut between two files.
            end = opened.offset
        if not reason and members and n_bytes < end:
            reason = "truncated: its end is missing"
        if not members:
            reason = reason or "holds no utterance"
    except (tarfile.TarError, OSError, EOFError) as error:
        reason = f"not a whole, uncompressed tar ({error})"
    if reason:
        audit.corrupt[str(tar)] = reason
    utterances = []
    for key, files in members.items():
        where = f"{tar}/{key}"
        audio = next((files[s[1:]] for s in SUFFIXES if s[1:] in files), None)
        if audio is None or key not in texts:
            audit.missing[where] = (
                "no audio beside its JSON" if audio is None else "no JSON beside its audio"
            )
            continue
        kind, text = texts[key]
        try:
            record = parsed(text) if kind == "json" else {"text": decoded(where, text).strip()}
            record |= {"audio_filepath": member_path(tar.name, *audio), "offset": 0.0}
            utterance = utterance_of(record, tar.parent.absolute())
        except InputError as error:
            audit.corrupt[where] = str(error)
            continue
        name = utterance.id or "_".join(key.split())
        utterances.append(replace(utterance, id=name, speaker=utterance.speaker or name))
    return utterances, max(len(members), 1)
