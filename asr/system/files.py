"""Write aside, sync, rename: no reader sees half a file, a full disk never costs the old one."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import rmtree
from typing import BinaryIO

from asr.errors import InputError

#: What `write_aside` leaves where a process is killed while it writes.
LEFTOVER = re.compile(r"\..+\.(\d+)\.part(\.\w+)?")
#: Bytes of a file's name, on nearly every file system.
MOST_NAME = 255
#: Seconds after which a file of a process that is not on this machine is nobody's: it may be one of
#: another machine's, which renames it as soon as it is written.
ABANDONED_S = 10.0
# It can only be read by setting it; once, before there are threads.
UMASK = os.umask(0)
os.umask(UMASK)


@contextmanager
def write_aside(path: Path) -> Iterator[Path]:
    """Yield a path beside ``path``; on success it is synced and takes the place of ``path``.

    Raises:
        InputError: the folder cannot be written to or the disk is full; ``path`` is untouched.
    """
    path = Path(path)
    if "\0" in str(path):
        raise InputError(f"{path}: no file's name may hold NUL; name another")
    aside = _aside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        # Some writers make their files private; a shared model is for all who may see its folder.
        aside.chmod(0o666 & ~UMASK)
        with aside.open("rb+") as handle:
            os.fsync(handle.fileno())
        aside.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        where = error.filename or path
        raise InputError(f"{path}: cannot be written ({error.strerror}: {where})") from error
    finally:
        # Where the folder is no folder, there is nothing to remove, and the error above counts.
        with suppress(OSError):
            aside.unlink()


def remove_leftovers(folder: Path, name: str = "") -> None:
    """Remove what a killed process was writing in or below ``folder``: files called ``name...``."""
    for path in folder.rglob(".*.part*"):
        if LEFTOVER.fullmatch(path.name) and path.name.startswith(f".{name}"):
            path.unlink()


def remove_abandoned(folder: Path) -> None:
    """Remove what killed processes were writing in or below ``folder``, where others may write."""
    for path in folder.rglob(".*.part*"):
        found = LEFTOVER.fullmatch(path.name)
        with suppress(OSError):
            if not found or _runs(int(found[1])):
                continue
            if time.time() - path.stat().st_mtime > ABANDONED_S:
                path.unlink()


def _runs(process: int) -> bool:
    """Whether another process of this number is there."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return process != os.getpid()


def _aside(path: Path) -> Path:
    """Where this process writes ``path`` aside."""
    # The suffix stays last: writers that choose the format by it keep working.
    ending = f".{os.getpid()}.part{path.suffix}"
    name = f".{path.stem}{ending}"
    if len(os.fsencode(name)) > MOST_NAME:
        name = f".{hashlib.blake2b(os.fsencode(path.name), digest_size=16).hexdigest()}{ending}"
    return path.with_name(name)


def sync_folder(folder: Path) -> None:
    """Make the folder's entries last through a power cut, as `os.fsync` does a file's bytes."""
    if sys.platform == "win32":
        return  # It opens no folders.
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def refuse_full(folder: Path) -> None:
    """See that there is no such file or folder, or an empty one.

    Raises:
        InputError: there is.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: exists and is not an empty folder; choose another")


@contextmanager
def write_folder_aside(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes ``folder`` at the end, whole or not at all.

    Raises:
        InputError: that is there and not empty, or cannot be written.
    """
    refuse_full(folder)
    aside = _aside(folder)
    try:
        aside.mkdir(parents=True)
        yield aside
        if folder.exists():
            folder.rmdir()
        aside.rename(folder)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror})") from error
    finally:
        rmtree(aside, ignore_errors=True)


def given() -> BinaryIO:
    """Standard input.

    Raises:
        InputError: it is closed.
    """
    if sys.stdin is None:
        raise InputError("-: standard input is closed; name a file, or pipe something in")
    return sys.stdin.buffer


def walked(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Each folder at and below ``root`` with the sorted names of its files, and each only once.

    Links to folders are followed after the folders themselves, so that of two ways to a folder
    the one without links counts; a link to a folder that holds ``root`` leads nowhere.
    """
    seen = {_identity(folder) for folder in root.resolve().parents}
    tops = [root]
    for top in tops:
        for name, folders, files in os.walk(top):
            folder = Path(name)
            if _identity(folder) in seen:
                folders.clear()
                continue
            seen.add(_identity(folder))
            folders.sort()
            tops += [folder / name for name in folders if (folder / name).is_symlink()]
            yield folder, sorted(files)


def _identity(path: Path) -> tuple[int, int]:
    at = path.stat()
    return at.st_dev, at.st_ino


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8 to ``path``, whole or not at all."""
    with write_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")
