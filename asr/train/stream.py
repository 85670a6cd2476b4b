"""Training sets that are read while they are trained on: tar shards, or manifests beyond memory.

Everything that an epoch does follows from the manifest, the seed and the epoch alone: tars are
shuffled, neighbours in that order fill a window of at least ``trainer.shuffle_buffer`` utterances,
and a window is cut into batches of like length in random order. So every process plans the same
batches, takes its own share of each, and a training that resumes starts to read where it stopped.
"""

from __future__ import annotations

import hashlib
import stat
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from io import BufferedReader
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from asr.audio.features import BY_TRAIN, LogMel, Statistics, statistics
from asr.audio.read import load_audio
from asr.audio.resample import change_speed
from asr.data.examples import Epoch, Example, bucket, make_examples
from asr.data.index import IndexedManifest
from asr.data.matrices import matrix_of, pooled
from asr.errors import InputError
from asr.labels import unit_symbols
from asr.nets.losses import frame_targets
from asr.train.rundir import log
from asr.train.sets import AboutSet, check_skipped
from asr.train.world import World

#: Audio in files of its own is shuffled freely; so many of them stand for a tar.
GROUP = 1000
#: Utterances that tell the statistics of all (features.normalize=global), or how long labels last.
SAMPLE = 2000
BOUNDLESS = np.iinfo(np.int64).max
#: Bytes read at once: less than an utterance would make many small reads of a network file system.
READ = 1 << 20
#: Seconds between two looks at what may never come: bytes from a pipe, Ctrl-C.
LOOK_S = 0.05


@dataclass(frozen=True)
class Batches(Sequence[list[int]]):
    """Lists of utterances, held as one array and the position where each list ends."""

    order: np.ndarray
    ends: np.ndarray

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, number: int) -> list[int]:  # type: ignore[override]
        first = self.ends[number - 1] if number else 0
        utterances: list[int] = self.order[first : self.ends[number]].tolist()
        return utterances


@dataclass(frozen=True)
class Plan:
    """An epoch: its batches, and for each utterance of the manifest its frames, and which of
    ``augment.speeds`` it has drawn.

    window_ends: the batches of window w end before number ``window_ends[w]``.
    """

    batches: Batches
    window_ends: np.ndarray
    lens: np.ndarray
    speeds: np.ndarray


class Stream:
    """A training set of which only the plan is in memory.

    kept: positions in the manifest of the utterances that can be trained on, as far as one knows
    before reading them. lost: gets the ids of those that turn out otherwise, with the reason.
    lost_here: positions of those that this process has found in this epoch.
    """

    reads = True

    def __init__(
        self,
        about: AboutSet,
        manifest: IndexedManifest,
        kept: np.ndarray,
        lost: dict[str, str],
    ) -> None:
        """Raises InputError where features are to be normalised by what is not known."""
        if about.features.normalize == "speaker":
            raise InputError(
                "features.normalize=speaker needs all of a speaker's audio beforehand; for a "
                "streamed corpus choose utterance, global or none"
            )
        self.about, self.manifest, self.kept, self.lost = about, manifest, kept, lost
        self.lost_here: list[int] = []
        self.pipes: dict[int, TarPipe] = {}
        self.log_mel = LogMel(about.features)
        self.stats: Statistics | None = None
        if about.features.normalize in BY_TRAIN:
            self.stats = statistics((e.features for e in self.sample()), about.features)

    def __len__(self) -> int:
        return len(self.kept)

    def digest(self) -> str:
        """What identifies the training set: the manifest's bytes and which of its lines are used.

        Audio that is lost later does not count.
        """
        digest = hashlib.blake2b(self.manifest.columns.digest.encode(), digest_size=16)
        digest.update(self.kept.tobytes())
        return digest.hexdigest()

    def transcripts(self) -> Iterator[list[str]]:
        """The labels' symbols of each utterance, from the manifest alone."""
        unit, fold = self.about.targets.config.unit, self.about.targets.config.fold
        return (unit_symbols(self.manifest[i], unit, fold) for i in self.kept.tolist())

    def sample(self) -> list[Example]:
        """Some utterances, the same each time, ready for batching."""
        return [e for i in self._some() if (e := self.example(i, None, 1.0)) is not None]

    def frame_targets(self) -> list[np.ndarray]:
        """Framewise targets of some utterances, the same each time, from the manifest alone.

        Raises:
            InputError: no label has times.
        """
        targets = self.about.targets
        found, reason = [], None
        for utterance in (self.manifest[i] for i in self._some()):
            n_frames = int(utterance.duration_s / targets.clock.shift_s) + 1
            try:
                segments, ids = targets.timed(utterance)
                found.append(np.array(frame_targets(segments, ids, n_frames, targets.clock)))
            except InputError as error:
                reason = error
        if reason is not None and not found:
            raise reason
        return found

    def _some(self) -> list[int]:
        draw = np.random.default_rng([self.about.seed, 0])
        chosen: list[int] = draw.permutation(self.kept)[:SAMPLE].tolist()
        return chosen

    def plan(self, epoch: int) -> Plan:
        """Draw the epoch's speeds, windows and batches."""
        trainer, speeds = self.about.trainer, self.about.augment.speeds
        columns, hop_s = self.manifest.columns, self.about.features.hop_s
        draw = np.random.default_rng([self.about.seed, epoch])
        drawn = draw.integers(len(speeds), size=len(self.manifest), dtype=np.uint8)
        frames_a_second = np.array([1 / (hop_s * s) for s in speeds], np.float32)
        lens = (columns.durations * frames_a_second[drawn]).astype(np.int32) + 1
        generator = torch.Generator().manual_seed(int(draw.integers(1 << 62)))
        orders: list[np.ndarray] = []
        sizes: list[int] = []
        counts: list[int] = []
        for window in self.windows(draw):
            batches = bucket(
                lens[window].tolist(),
                trainer.batch_size,
                int(trainer.max_batch_s / hop_s),
                generator,
                short_first=epoch < trainer.curriculum_epochs,
            )
            flat = np.fromiter(chain.from_iterable(batches), np.int32, len(window))
            orders.append(window[flat])
            sizes += map(len, batches)
            counts.append(len(batches))
        return Plan(
            Batches(np.concatenate(orders), np.cumsum(sizes)), np.cumsum(counts), lens, drawn
        )

    def windows(self, draw: np.random.Generator) -> Iterator[np.ndarray]:
        """The utterances kept, in windows of whole tars (of groups, for audio outside tars)."""
        shards, kept = self.manifest.columns.shards[self.kept], self.kept
        if np.any(shards[1:] < shards[:-1]):
            order = np.argsort(shards, kind="stable")
            shards, kept = shards[order], kept[order]
        groups = np.split(kept, np.flatnonzero(shards[1:] != shards[:-1]) + 1)
        if shards[0] < 0:
            free = draw.permutation(groups.pop(0))
            groups += np.split(free, range(GROUP, len(free), GROUP))
        window: list[np.ndarray] = []
        for number in draw.permutation(len(groups)).tolist():
            window.append(groups[number])
            if sum(map(len, window)) >= self.about.trainer.shuffle_buffer:
                yield np.concatenate(window)
                window = []
        if window:
            yield np.concatenate(window)

    def open(
        self,
        epoch: int,
        first: int = 0,
        rank: int = 0,
        size: int = 1,
        asked_to_stop: Callable[[], bool] = lambda: False,
    ) -> Epoch:
        """Plan an epoch; one of ``size`` processes will read its share, from batch ``first`` on.

        Loading raises `KeyboardInterrupt` where it has to wait after ``asked_to_stop``.
        """
        self.lost_here.clear()
        plan = self.plan(epoch)
        reader = Reader(self, plan, first, rank, size, asked_to_stop)
        return Epoch(
            len(plan.batches),
            reader.load,
            lens=lambda number: plan.lens[plan.batches[number]].tolist(),
            ids=lambda number: [self.manifest[i].id for i in plan.batches[number]],
        )

    def example(self, i: int, data: bytes | InputError | None, speed: float) -> Example | None:
        """Decode an utterance and compute its features; None, and noted, where that cannot be.

        ``data`` is its file's content where that was read, or why it could not be.
        """
        about = self.about
        try:
            if isinstance(data, InputError):
                raise data
            utterance = self.manifest[i]
            waveform = load_audio(
                utterance.audio,
                about.features.sample_rate,
                utterance.offset_s,
                utterance.duration_s,
                data,
            )
        except InputError as error:
            self.lose(i, str(error))
            return None
        waveform = change_speed(waveform, speed)
        matrix = matrix_of(self.log_mel, waveform)
        stats = pooled([matrix]) if about.features.normalize == "utterance" else self.stats
        unfit: dict[str, str] = {}
        name = utterance.id
        try:
            found = make_examples(
                [utterance], {name: matrix}, {name: stats}, about.targets, unfit, speed
            )
        except InputError as error:
            # All symbols are known, so this one lacks its transcript.
            self.lose(i, str(error))
            return None
        if not found:
            self.lose(i, unfit[name])
            return None
        return replace(found[0], waveform=waveform) if about.augment.wants_waveforms else found[0]

    def note_lost(self, world: World) -> None:
        """Note what any process has lost in an epoch; looks itself why others could not read it."""
        for i in set(world.gather(self.lost_here)) - set(self.lost_here):
            if self.example(i, None, 1.0) is not None:
                self.lose(i, "another process could not read it")

    def lose(self, i: int, reason: str) -> None:
        """Note an utterance that cannot be trained on."""
        try:
            name = self.manifest[i].id
        except InputError:
            name = f"utterance {i + 1}"
        if name not in self.lost:
            log.warning("train: %s left out: %s", name, reason)
        self.lost[name] = reason


class Reader:
    """Reads one process' share of an epoch, from batch ``first`` on; tars in one go, ahead of use.

    A tar's bytes are read from front to back, past what is other processes', so that it may also be
    a pipe (which one process alone can read). The audio of two windows is in memory at most,
    compressed as it is.
    """

    def __init__(
        self,
        stream: Stream,
        plan: Plan,
        first: int,
        rank: int,
        size: int,
        asked_to_stop: Callable[[], bool],
    ) -> None:
        self.stream, self.plan, self.first, self.rank, self.size = stream, plan, first, rank, size
        self.asked_to_stop = asked_to_stop
        self._windows: dict[int, Future[dict[int, bytes | InputError]]] = {}
        self._lock = threading.Lock()

    def share(self, number: int) -> list[int]:
        """This process' utterances of a batch."""
        return self.plan.batches[number][self.rank :: self.size]

    def load(self, number: int) -> list[Example]:
        """This process' part of a batch, without what could not be read.

        Raises:
            InputError: more than the share ``trainer.max_skipped`` is lost.
        """
        share = self.share(number)
        window = int(np.searchsorted(self.plan.window_ends, number, "right"))
        data = self._window(window)
        examples = []
        for i in share:
            speed = self.stream.about.augment.speeds[self.plan.speeds[i]]
            example = self.stream.example(i, data.pop(i, None), speed)
            if example is None:
                self.stream.lost_here.append(i)
            else:
                examples.append(example)
        n_lost, most = len(self.stream.lost_here), self.stream.about.trainer.max_skipped
        if n_lost * self.size > most * len(self.stream):
            name, reason = list(self.stream.lost.items())[-1]
            raise InputError(
                f"train: {n_lost} utterances of this epoch could not be used (more than "
                f"trainer.max_skipped={most:g}); the last: {name}: {reason}"
            )
        return examples

    def _window(self, window: int) -> dict[int, bytes | InputError]:
        """What was read of a window's tars; reading of the next one begins."""
        with self._lock:
            for w in (window, window + 1):
                if w not in self._windows and w < len(self.plan.window_ends):
                    self._windows[w] = Future()
                    # A daemon, for opening a pipe may wait for ever.
                    threading.Thread(target=self._read, args=(w,), daemon=True).start()
            future = self._windows[window]
        while True:
            try:
                return future.result(LOOK_S)
            except TimeoutError:
                # A process that left alone would cost the others their last steps.
                if self.size == 1 and self.asked_to_stop():
                    raise KeyboardInterrupt from None

    def _read(self, window: int) -> None:
        before, future = self._windows.get(window - 1), self._windows[window]
        try:
            if before is not None:
                # One after the other: the window that is wanted first has the disk for itself.
                before.exception()
            future.set_result(self._read_window(window))
        except BaseException as error:
            future.set_exception(error)

    def _read_window(self, window: int) -> dict[int, bytes | InputError]:
        """The bytes of this process' utterances of a window, or why they could not be read."""
        columns, ends = self.stream.manifest.columns, self.plan.window_ends
        start = max(self.first, int(ends[window - 1]) if window else 0)
        mine = np.array([i for n in range(start, ends[window]) for i in self.share(n)], np.int64)
        found: dict[int, bytes | InputError] = {}
        for shard in np.unique(columns.shards[mine]).tolist():
            if shard < 0:
                continue
            here = mine[columns.shards[mine] == shard]
            here = here[np.argsort(columns.member_starts[here])]
            wanted = zip(
                here.tolist(),
                columns.member_starts[here].tolist(),
                columns.member_sizes[here].tolist(),
                strict=True,
            )
            tar = Path(columns.tars[shard])
            try:
                if tar.is_fifo():
                    pipe = self.stream.pipes.setdefault(shard, TarPipe(tar))
                    found |= pipe.members(wanted)
                else:
                    with tar.open("rb", buffering=READ) as handle:
                        found |= members(handle, wanted)
            except OSError as error:
                reason = InputError(f"{tar}: cannot be read ({error.strerror})")
            else:
                reason = InputError(f"{tar}: ends before this utterance")
            found |= {i: reason for i in here.tolist() if i not in found}
        return found


def members(
    handle: BinaryIO, wanted: Iterable[tuple[int, int, int]]
) -> Iterator[tuple[int, bytes]]:
    """Read stretches (name, start, size), in ascending order, from a file, as far as it goes."""
    for name, start, size in wanted:
        handle.seek(start)
        data = handle.read(size)
        if len(data) < size:
            return
        yield name, data


class TarPipe:
    """A named pipe that somebody writes the same tar into, once an epoch.

    For trainings whose audio another program fetches or decrypts while they go on, and that have no
    room for it on their disk (docs/scale.md). It stays open for the whole training, so that a
    writer may be early with the next copy. The end of a tar, behind what was wanted of it, is read
    when the next one is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.handle: BufferedReader | None = None
        self.rest: Iterator[tarfile.TarInfo] = iter(())

    def members(self, wanted: Iterable[tuple[int, int, int]]) -> Iterator[tuple[int, bytes]]:
        """Yield (name, bytes) for each of the stretches (name, start, size) that are files in it.

        Waits for a writer, for ever if need be. A tar that breaks off, or is none, ends it.
        """
        by_start = {start: (name, size) for name, start, size in wanted}
        try:
            handle = self.handle = self.handle or self.path.open("rb")
            for _ in self.rest:
                pass
            # Zeros fill up the tar before; without a writer there is nothing.
            while (following := handle.peek(1)[:1]) in (b"", b"\0"):
                if following:
                    handle.read(tarfile.BLOCKSIZE)
                else:
                    time.sleep(LOOK_S)
            # In single blocks, for what follows belongs to the next tar.
            tar = tarfile.open(fileobj=handle, mode="r|", bufsize=tarfile.BLOCKSIZE)  # noqa: SIM115
            self.rest = iter(tar)
            for member in self.rest:
                name, size = by_start.get(member.offset_data, (0, -1))
                if member.size == size:
                    content = tar.extractfile(member)
                    assert content is not None
                    yield name, content.read()
                    del by_start[member.offset_data]
                    if not by_start:
                        return
        except tarfile.TarError:
            # What comes next is not known; the writer is sent away, another may begin anew.
            if self.handle is not None:
                self.handle.close()
            self.handle, self.rest = None, iter(())


def open_stream(
    about: AboutSet, manifest: IndexedManifest, skipped: dict[str, str], n_processes: int
) -> Stream:
    """The training set of a manifest; ``skipped`` gets what is left out, now and later.

    Looks at the sizes of tars, not into them: missing, empty and truncated ones are found.

    Raises:
        InputError: more than the share ``trainer.max_skipped`` is lost, a label that the inventory
            lacks, or a tar that is a pipe, and several processes or the statistics of
            features.normalize=global or online would read it.
    """
    # A stray symbol is told before anything is read.
    targets, normalize = about.targets, about.features.normalize
    (said,) = manifest.vocabulary()
    symbols = unit_symbols(said, targets.config.unit, targets.config.fold)
    targets.labels.encode(symbols, str(manifest.paths[0]))
    columns = manifest.columns
    # All that compares ids or audio has been done.
    manifest.forget_digests()
    rooms, reasons = [], []
    for name in columns.tars:
        try:
            found = Path(name).stat()
        except OSError as error:
            rooms.append(0)
            reasons.append(f"{name}: {error.strerror}")
            continue
        is_pipe = stat.S_ISFIFO(found.st_mode)
        if is_pipe and n_processes > 1:
            raise InputError(
                f"{name}: is a pipe, which {n_processes} processes cannot share; give them files"
            )
        if is_pipe and normalize in BY_TRAIN:
            raise InputError(
                f"{name}: is a pipe, which cannot be read beforehand, as "
                f"features.normalize={normalize} needs; choose utterance or none"
            )
        rooms.append(BOUNDLESS if is_pipe else found.st_size)
        reasons.append(f"{name}: truncated, {found.st_size} bytes")
    # Audio in a file of its own has shard -1 and so takes the last.
    room = np.array([*rooms, BOUNDLESS])[columns.shards]
    beyond = columns.member_starts + columns.member_sizes > room
    most_s = about.trainer.max_utterance_s
    is_long = columns.durations > most_s
    told: Counter[str] = Counter()
    for i in np.flatnonzero(beyond | is_long).tolist():
        reason = (
            reasons[columns.shards[i]]
            if beyond[i]
            else f"more than trainer.max_utterance_s={most_s:g} s"
        )
        skipped[manifest[i].id] = reason
        told[reason] += 1
    for reason, n in told.items():
        log.warning("train: %d utterances left out: %s", n, reason)
    if skipped:
        most, first = about.trainer.max_skipped, next(iter(skipped.items()))
        check_skipped("train", len(skipped), len(manifest), most, ": ".join(first))
    kept = np.flatnonzero(~(beyond | is_long)).astype(np.int32)
    return Stream(about, manifest, kept, skipped)
