"""From what a user names (files, folders, globs, lists) to audio files with ids."""

from __future__ import annotations

import codecs
import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from asr.audio.read import STDIN, audio_channels, standard_input
from asr.errors import InputError

#: What is taken for audio in folders, globs and tars, and which of several files of one name is; a
#: file named outright may be called anything.
SUFFIXES = tuple(
    ".wav .flac .ogg .mp3 .sph .wave .oga .opus .aif .aiff .aifc .au .snd .nist .w64 .rf64 "
    ".caf".split()
)
#: What holds sound that ffmpeg reads, and must never be passed over in silence.
MEDIA = tuple(".mp4 .m4a .m4b .aac .mov .mkv .webm .avi .wma .amr .3gp .wv .mka".split())
WILDCARDS = frozenset("*?[")
Failed = Callable[[Path, InputError], None]


#: What audio begins with in its commonest formats, and no name of a file does.
MAGIC = (b"RIFF", b"fLaC", b"OggS", b"NIST_1A", b"ID3\x03", b"ID3\x04", b"\xff\xfb")


@dataclass(frozen=True)
class Source:
    """Audio to transcribe, and the transcript's id. channel: it alone, from 1 on.

    offset_s, duration_s: the stretch of the file that is meant, in seconds; without, all of it.
    speaker: who is heard, where that is known.
    """

    path: Path
    id: str
    channel: int | None = None
    offset_s: float = 0.0
    duration_s: float | None = None
    speaker: str | None = None


def find_sources(names: Iterable[str], failed: Failed) -> list[Source]:
    """Find the audio files that ``names`` mean, in order, each once.

    Of folders, all below them that has a suffix of audio, sorted; of globs that are no file's name,
    what matches; of ``-``, audio on standard input, whose id is ``stdin``. A source's id is its
    path without the suffix, below the folder that all share: such a folder is one that was named,
    or the one that a named file lies in. Several may get the same, see `distinct`.

    ``failed`` gets a folder or glob without audio, or a name that cannot be looked up, and why.
    """
    paths: dict[Path, Path] = {}
    roots = []
    for name in names:
        if name == str(STDIN):
            paths[STDIN] = STDIN
            # Not in the thread that reads ahead: no Ctrl-C would wake it from a pipe that stalls.
            with suppress(InputError, OSError):
                standard_input()
            continue
        try:
            root, found = _found(name, failed)
        except OSError as error:
            failed(Path(name), InputError(f"{name}: cannot be read ({error.strerror})"))
            continue
        roots += [_absolute(root)] if found else []
        for path in found:
            paths.setdefault(_absolute(path), path)
    shared = os.path.commonpath(roots) if roots else ""
    sources = []
    for absolute, path in paths.items():
        if path is STDIN:
            sources.append(Source(path, "stdin"))
            continue
        below = absolute.relative_to(shared)
        is_known = below.suffix.lower() in SUFFIXES + MEDIA
        named = below.with_suffix("") if is_known else below
        sources.append(Source(path, str(named)))
    return sources


def each_channel(sources: Iterable[Source]) -> list[Source]:
    """Sources of more than one channel -> a source a channel, with ``.ch1`` ... behind its id.

    One that cannot be read is left as it is: what reads it will tell.
    """

    def channels(source: Source) -> Iterator[Source]:
        try:
            n = audio_channels(source.path)
        except InputError:
            n = 1
        if n == 1:
            yield source
            return
        for channel in range(1, n + 1):
            yield replace(source, id=f"{source.id}.ch{channel}", channel=channel)

    return [one for source in sources for one in channels(source)]


def read_list(stream: BinaryIO) -> list[str]:
    """File names, one a line, or separated by NUL where there is any (``find -print0``).

    Raises:
        InputError: it is audio.
    """
    data = stream.read().removeprefix(codecs.BOM_UTF8)
    if data.startswith(MAGIC):
        raise InputError("--list: is audio, not a list of files; name it without --list")
    names = data.split(b"\0") if b"\0" in data else re.split(rb"\r?\n", data)
    # In a list, - is a file like any other.
    return [os.fsdecode(b"./-" if name == b"-" else name) for name in names if name]


def distinct(sources: Iterable[Source], failed: Failed) -> list[Source]:
    """The sources without those whose id another has before them; ``failed`` gets these."""
    by_id: dict[str, Source] = {}
    for source in sources:
        other = by_id.setdefault(source.id, source)
        if other is not source:
            reason = f"would be called {source.id}, as {other.path} is; rename one"
            failed(source.path, InputError(f"{source.path}: {reason}"))
    return list(by_id.values())


def _found(name: str, failed: Failed) -> tuple[Path, Sequence[Path]]:
    """The folder that ``name`` stands for, and the audio in it."""
    path = Path(name)
    if path == STDIN:
        path = path.absolute()
    if not name:
        failed(path, InputError("'': no file has an empty name"))
        return path, []
    if path.is_dir():
        unread: list[Path] = []

        def unreadable(folder: Path, error: InputError) -> None:
            unread.append(folder)
            failed(folder, error)

        found = _below(path, unreadable)
        if not found and not unread:
            failed(path, InputError(f"{path}: no audio in this folder (no .wav, .flac, .mp3 ...)"))
        return path, found
    if os.path.lexists(path) or not WILDCARDS & set(name):
        return path.parent, [path]
    found = []
    for match in sorted(map(Path, glob.glob(name, recursive=True))):  # noqa: PTH207
        if match.suffix.lower() in SUFFIXES + MEDIA and not match.is_dir():
            found.append(match)
        elif match.is_dir() and "**" not in name:
            found += _below(match, failed)
    if not found:
        failed(path, InputError(f"{path}: no audio file has such a name"))
    root = path
    while WILDCARDS & set(str(root)):
        root = root.parent
    return root, found


def _below(folder: Path, failed: Failed) -> list[Path]:
    """All audio below a folder, sorted; links to folders are followed once.

    Films and the like, too, unless audio of that name stands beside them.
    """
    seen = set()
    found = []

    def told(error: OSError) -> None:
        reason = f"{error.filename}: this folder cannot be read ({error.strerror})"
        failed(Path(error.filename), InputError(reason))

    for parent, folders, files in os.walk(folder, onerror=told, followlinks=True):
        at = Path(parent).stat()
        if (at.st_dev, at.st_ino) in seen:
            folders.clear()
            continue
        seen.add((at.st_dev, at.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = [Path(parent, name) for name in sorted(files) if not name.startswith(".")]
        stems = {path.stem for path in paths if _is_audio(path)}
        found += [
            path
            for path in paths
            if _is_audio(path) or (path.suffix.lower() in MEDIA and path.stem not in stems)
        ]
    return found


def _is_audio(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def _absolute(path: Path) -> Path:
    """Without ``..``, but with links as they are: what is below a link stays below it."""
    return Path(os.path.normpath(path.absolute()))
