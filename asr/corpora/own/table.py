"""Tables of utterances, a row each: audio, text and, where there is one, a speaker.

Common Voice's TSV, CSV of any origin, parquet as Hugging Face has it, cut manifests of Lhotse.
"""

from __future__ import annotations

import math
import os
import re
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path, PurePath

from asr.audio.read import member_path
from asr.corpora.audit import Audit, Corpus, Track, audible, measured
from asr.corpora.own.config import SETS, Own, spoken
from asr.corpora.own.rows import KINDS, Fault, Row, Rows, read_rows, suffix_of
from asr.corpora.own.split import split_by_speaker
from asr.corpora.shards import add_file
from asr.data.manifest import may_name_file, with_names
from asr.errors import InputError
from asr.system.files import write_aside
from asr.system.text import nfc
from asr.types import Utterance

#: Folders beside a table that hold its audio: Common Voice's, LJSpeech's and common ones.
_BESIDE = ("", "clips", "audio", "wav", "wavs")


def load_table(root: Path, track: Track, own: Own = Own()) -> Corpus:
    """Load the table ROOT, or those in the folder ROOT that are called after sets.

    A file called train, dev (valid, validation) or test, with whatever number behind, is that set,
    and so says a column ``split``; otherwise sets are drawn by speaker. A row without a speaker is
    one of its own.

    Raises:
        InputError: no such table, one that cannot be read or lacks a column, or not a row that can
            be used.
    """
    audit = Audit()
    told: dict[str, None] = {}
    rows: list[Row] = []
    n_rows = 0
    for path in track(_tables(root)):
        for row in _kept(read_rows(path, own, told.setdefault), path, own):
            n_rows += 1
            if isinstance(row, Fault):
                audit.corrupt[row.where] = row.reason
            else:
                rows.append(_placed(row, path))
    utterances = _utterances(rows, audit)
    durations = measured((u.audio for u, _ in utterances), audit, track)
    audit.notes.extend(told)
    sets = _sets(utterances, durations, own, audit)
    return Corpus(sets, replace(audit, found=n_rows), root)


def _tables(root: Path) -> list[Path]:
    if root.is_file() and suffix_of(root):
        return [root]
    kinds = ", ".join(KINDS)
    if not root.is_dir():
        found = "is no such table" if root.exists() else "no such file or folder"
        raise InputError(f"{root}: {found}; expected one of {kinds}, or a folder of them")
    # Hugging Face's data sets have theirs in the folder data.
    for folder in (root, root / "data"):
        tables = [p for p in sorted(folder.glob("*")) if suffix_of(p) and p.is_file()]
        if called := [path for path in tables if _set_called(path)]:
            return called
        if len(tables) == 1:
            return tables
        if tables:
            names = ", ".join(path.name for path in tables[:5])
            raise InputError(f"{root}: no table called train, dev or test; give one of {names}")
    raise InputError(f"{root}: no table in this folder; expected one of {kinds}")


def _set_called(path: Path) -> str:
    """The set of a file called train.tsv, test-00000-of-00002.parquet, cuts_dev.jsonl.gz."""
    stem = path.name[: -len(suffix_of(path))].lower()
    words = [w for w in re.split(r"[-_.]", stem) if w != "of" and not w.isdigit()]
    return next((SETS[w] for w in words[:1] + words[-1:] if w in SETS), "")


def _kept(rows: Rows, path: Path, own: Own) -> Rows:
    """The rows; the audio that they hold goes into a tar, and they name its places there."""
    if suffix_of(path) != ".parquet":
        yield from rows
        return
    if own.kept is None:
        raise InputError(f"{path}: may hold audio; asr prepare writes it beside the manifests")
    first = next(rows, None)
    tar, n_kept = own.kept.absolute() / f"{path.stem}.tar", 0
    with write_aside(tar) as aside, tarfile.open(aside, "w", format=tarfile.PAX_FORMAT) as out:
        for number, row in enumerate(chain([first] if first else [], rows)):
            if isinstance(row, Row) and row.data:
                n_kept += 1
                stem, suffix = PurePath(row.audio).stem, PurePath(row.audio).suffix
                start = add_file(out, f"{number:08d}{suffix[:8]}", row.data)
                row = row._replace(
                    audio=member_path(str(tar), start, len(row.data)),
                    id=row.id or stem or f"{path.stem}-{number:08d}",
                    data=None,
                )
            yield row
    if not n_kept:
        tar.unlink()


def _placed(row: Row, path: Path) -> Row:
    """The row with its audio where that lies, and with its set, if it is known."""
    folder = path.parent.absolute()
    audio = row.audio
    if audio and may_name_file(audio):
        places = [folder / beside / audio for beside in _BESIDE] + [Path.cwd() / audio]
        # Unlike Path.exists, for any name, however long.
        audio = str(next((p for p in places if os.path.exists(p)), places[0]))  # noqa: PTH110
    return row._replace(audio=audio, set=SETS.get(row.set.lower(), "") or _set_called(path))


def _utterances(rows: Iterable[Row], audit: Audit) -> list[tuple[Utterance, str]]:
    """The rows as utterances with their sets; those that are wrong, or there before, are noted."""
    first: dict[tuple[str, float, float | None], Row] = {}
    found, sets = [], []
    ids: set[str] = set()
    for row in rows:
        try:
            if not row.audio or not may_name_file(row.audio):
                raise InputError(f"names no file that could be ({row.audio[:60]!r})")
            text = spoken(row.text)
        except InputError as error:
            audit.corrupt[row.where] = str(error)
            continue
        before = first.setdefault((row.audio, row.start_s, row.duration_s), row)
        if before is not row:
            if before.text == row.text:
                audit.stray[row.where] = f"the same as {before.where}"
            else:
                audit.corrupt[row.where] = f"its audio has another text at {before.where}"
            continue
        id_ = "_".join(nfc(row.id).split())
        if id_ and id_ in ids:
            # Tables number their rows, each from 1 on.
            id_ = f"{row.set}-{id_}" if row.set and f"{row.set}-{id_}" not in ids else ""
        ids.add(id_)
        length_s = math.inf if row.duration_s is None else row.duration_s
        found.append(Utterance(id_, Path(row.audio), nfc(row.speaker), length_s, row.start_s, text))
        sets.append(row.set)
    return list(zip(with_names(found, ids - {""}), sets, strict=True))


def _sets(
    found: list[tuple[Utterance, str]], durations: Mapping[Path, float], own: Own, audit: Audit
) -> dict[str, list[Utterance]]:
    """The utterances that lie within their audio, by set: the one they came in, or drawn."""
    set_of = {utterance.id: name for utterance, name in found}
    utterances = audible([utterance for utterance, _ in found], durations, audit)
    if own.shares or not any(set_of.values()):
        return split_by_speaker(utterances, own, audit)
    sets: dict[str, list[Utterance]] = {name: [] for name in dict.fromkeys(SETS.values())}
    n_outside = 0
    for utterance in utterances:
        name = set_of[utterance.id]
        if name:
            sets[name].append(utterance)
        n_outside += not name
    if n_outside:
        audit.dropped["of another split than train, dev and test"] = n_outside
    there = {name: utterances for name, utterances in sets.items() if utterances}
    audit.notes.append(f"sets are given, by column or file name: {', '.join(there)}")
    return there
