"""Log-mel features on disk: computed once, memory-mapped, computed again where the audio changed.

A folder holds a set at one speed in safetensors files of up to ``SHARD`` utterances. A file's name
is a digest of the settings that shape log-mel and of its stretches of audio; inside stand the sizes
and times of the audio files, which tell when it is stale: then it is replaced. Which utterances
share a file follows from their ids, so that one more changes one file. Files of settings and sets
that nobody asks for any more stay; deleting them, or the folder, costs time alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from asr.audio.features import FeatureConfig
from asr.audio.read import file_state
from asr.data.matrices import Matrix, extract
from asr.errors import InputError
from asr.system.files import write_aside
from asr.system.lock import lock
from asr.types import Utterance

FORMAT = "carousel-features-3"
#: Utterances in a file, at most: 130 MB of read sentences at 80 bins, 400 MB of LibriSpeech.
SHARD = 1000
BYTES_PER_VALUE = 4
#: How it is normalised, deltas and stacking come later and do not shape what is kept: the log-mel
#: and the moments of the frames that count.
SHAPING = (
    "sample_rate",
    "n_fft",
    "win_length",
    "hop_length",
    "n_mels",
    "min_hz",
    "max_hz",
    "ignore_silence",
    "log_mel",
)


def cached(
    folder: Path,
    utterances: Sequence[Utterance],
    config: FeatureConfig,
    skipped: dict[str, str],
    tick: Callable[[], None] = lambda: None,
    speed: float = 1.0,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Matrix]:
    """`data.extract` through files in ``folder``; the matrices are memory-mapped, read when used.

    Several processes may do this at once: one computes, the others wait and read. ``tell`` gets a
    line where a file was stale or broken, and one on what was read and what was computed.

    Raises:
        InputError: the folder cannot be written to, or the disk has too little room.
    """
    shards = divided(utterances)
    matrices: dict[str, Matrix] = {}
    n_computed = n_bytes = 0
    for shard in shards:
        path = folder / f"{shard_name(shard, config, speed)}.safetensors"
        found = read_shard(path, shard, tell)
        if found is None:
            with only_one(folder):
                # Another process may have written it while this one waited.
                found = read_shard(path, shard, lambda line: None)
                if found is None:
                    n_computed += 1
                    write_shard(path, shard, config, speed, tick)
                    found = read_shard(path, shard, tell)
        else:
            for _ in shard:
                tick()
        if found is None:
            raise InputError(f"{path}: cannot be read back; the audio changes while it is read")
        matrices |= found[0]
        skipped |= found[1]
        n_bytes += path.stat().st_size
    tell(
        f"features at speed {speed:g}: {len(matrices)} utterances, {n_bytes / 1e6:.0f} MB in "
        f"{folder}, {n_computed} of {len(shards)} files computed now"
    )
    return {u.id: matrices[u.id] for u in utterances if u.id in matrices}


def divided(utterances: Sequence[Utterance], bit: int = 0) -> list[list[Utterance]]:
    """Groups of up to ``SHARD``: those too large are halved by the next bit of the ids' digests."""
    if len(utterances) <= SHARD or bit == 32:
        return [list(utterances)] if utterances else []
    halves: tuple[list[Utterance], list[Utterance]] = ([], [])
    for utterance in utterances:
        digest = zlib.crc32(utterance.id.encode("utf-8", "surrogateescape"))
        halves[digest >> bit & 1].append(utterance)
    return divided(halves[0], bit + 1) + divided(halves[1], bit + 1)


def shard_name(shard: Sequence[Utterance], config: FeatureConfig, speed: float) -> str:
    """A digest of what the features of these utterances depend on, the audio's content aside."""
    about = [
        FORMAT,
        [getattr(config, name) for name in SHAPING],
        speed,
        [(u.id, str(u.audio.absolute()), u.offset_s, u.duration_s) for u in shard],
    ]
    return hashlib.blake2b(json.dumps(about).encode(), digest_size=16).hexdigest()


def audio_state(shard: Sequence[Utterance]) -> list[list[int]]:
    """Size in bytes and time of change of each audio file; zeros where there is none."""
    states = {path: [*(file_state(path) or (0, 0))] for path in {u.audio for u in shard}}
    return [states[u.audio] for u in shard]


def read_shard(
    path: Path, shard: Sequence[Utterance], tell: Callable[[str], None]
) -> tuple[dict[str, Matrix], dict[str, str]] | None:
    """Matrices by id and the reasons of those left out; None where there is no file to trust."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="np") as handle:
            about = handle.metadata() or {}
            features = handle.get_tensor("features")
            ends = handle.get_tensor("ends")
            moments = handle.get_tensor("moments")
        if about["seal"] != seal(features, ends, moments, about["audio"], about["skipped"]):
            raise ValueError("not what was written")
        states, skipped = json.loads(about["audio"]), json.loads(about["skipped"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        tell(f"{path}: broken ({error}); computing its features again")
        return None
    for utterance, then, now in zip(shard, states, audio_state(shard), strict=True):
        if then != now:
            tell(f"{utterance.audio}: changed since its features were kept; computing them again")
            return None
    ids = [u.id for u in shard if u.id not in skipped]
    starts = [0, *ends.tolist()]
    return {
        i: Matrix(features[starts[k] : starts[k + 1]], moments[k]) for k, i in enumerate(ids)
    }, skipped


def seal(
    features: NDArray[np.float32],
    ends: NDArray[np.int64],
    moments: NDArray[np.float64],
    *about: str,
) -> str:
    """A checksum of all in a file but the features' values, which are read when they are used."""
    crc = zlib.crc32(f"{features.dtype} {features.shape} {about}".encode())
    return str(zlib.crc32(moments.tobytes(), zlib.crc32(ends.tobytes(), crc)))


def write_shard(
    path: Path,
    shard: Sequence[Utterance],
    config: FeatureConfig,
    speed: float,
    tick: Callable[[], None],
) -> None:
    """Compute the features of some utterances and keep them, whole or not at all."""
    frames = sum(u.duration_s for u in shard) / speed * config.sample_rate / config.hop_length
    needed = frames * config.n_mels * BYTES_PER_VALUE
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise InputError(
            f"trainer.feature_cache={path.parent}: {needed / 1e6:.0f} MB needed for the next "
            f"{len(shard)} utterances, {free / 1e6:.0f} MB free; choose another disk, or none"
        )
    # Before the audio is read: what changes meanwhile is noticed the next time.
    states = audio_state(shard)
    skipped: dict[str, str] = {}
    matrices = list(extract(shard, config, skipped, tick, speed).values())
    ends = np.cumsum([len(m.features) for m in matrices], dtype=np.int64)
    none = np.zeros((0, config.n_mels), np.float32)
    features = np.concatenate([none, *(m.features for m in matrices)])
    moments = np.array([m.moments for m in matrices]).reshape(-1, 3, config.n_mels)
    tensors = {"features": features, "ends": ends, "moments": moments}
    about = {"audio": json.dumps(states), "skipped": json.dumps(skipped)}
    about["seal"] = seal(features, ends, moments, about["audio"], about["skipped"])
    with write_aside(path) as aside:
        try:
            save_file(tensors, aside, about)
        except SafetensorError as error:
            raise InputError(f"{path}: cannot be written ({error})") from error


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which the system frees when its holder dies."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise InputError(
            f"trainer.feature_cache={folder}: cannot be written to ({error.strerror})"
        ) from error
    try:
        lock(handle)
        yield
    finally:
        os.close(handle)
