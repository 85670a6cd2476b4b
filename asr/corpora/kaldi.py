"""Kaldi data directories: wav.scp and, where there are, segments, text and utt2spk.

https://kaldi-asr.org/doc/data_prep.html
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path

from asr.corpora.audit import Audit, Corpus, Track, audible, measured
from asr.errors import InputError
from asr.system.text import nfc, read_text
from asr.types import Utterance

#: key -> (rest of the line, "file:line")
Table = dict[str, tuple[str, str]]


@dataclass(frozen=True)
class _DataDirectory:
    name: str
    audio: dict[str, Path]  # by recording
    segments: dict[str, tuple[str, float, float]]  # recording, start, end; by utterance
    text: Table | None
    utt2spk: Table | None


def load_kaldi(root: Path, track: Track) -> Corpus:
    """Load ROOT (a data directory, which names its set) or every ROOT/<set>/.

    Raises:
        InputError: no wav.scp there, a malformed line in a table, or audio that is a command.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; expected a Kaldi data directory with a wav.scp")
    here = root.absolute()
    tables = [here / "wav.scp"] if (here / "wav.scp").exists() else sorted(here.glob("*/wav.scp"))
    if not tables:
        raise InputError(f"{root}: no wav.scp here or one level below; expected Kaldi's data/<set>")
    directories = [_read_directory(path.parent) for path in tables]
    audit = Audit(found=len({id_ for directory in directories for id_ in directory.segments}))
    durations = measured((p for d in directories for p in d.audio.values()), audit, track)
    sets = {d.name: _utterances(d, durations, audit) for d in directories}
    return Corpus(sets, audit, root)


def _read_directory(folder: Path) -> _DataDirectory:
    audio = {
        recording: _audio_path(value, where, folder)
        for recording, (value, where) in _table(folder / "wav.scp").items()
    }
    if (folder / "segments").exists():
        segments = {
            id_: _segment(value, where, audio)
            for id_, (value, where) in _table(folder / "segments").items()
        }
    else:
        segments = {recording: (recording, 0.0, math.inf) for recording in audio}
    text, utt2spk = (
        _table(folder / name) if (folder / name).exists() else None for name in ("text", "utt2spk")
    )
    return _DataDirectory(folder.name, audio, segments, text, utt2spk)


def _utterances(
    directory: _DataDirectory, durations: dict[Path, float], audit: Audit
) -> list[Utterance]:
    tables = {"text": directory.text, "utt2spk": directory.utt2spk}
    there = {name: table for name, table in tables.items() if table is not None}
    utterances = []
    for id_, (recording, start_s, end_s) in directory.segments.items():
        lacking = [name for name, table in there.items() if id_ not in table]
        for name in lacking:
            audit.missing[f"{directory.name}/{name} ({id_})"] = f"no line for utterance {id_}"
        if not lacking:
            utterance = Utterance(
                id=id_,
                audio=directory.audio[recording],
                speaker=nfc(directory.utt2spk[id_][0]) if directory.utt2spk else id_,
                duration_s=end_s - start_s,
                offset_s=start_s,
                text=" ".join(nfc(directory.text[id_][0]).split()) if directory.text else None,
            )
            utterances.append(utterance)
    for name, table in there.items():
        for id_ in table.keys() - directory.segments.keys():
            audit.stray[f"{directory.name}/{name} ({id_})"] = "a line without audio"
    return audible(utterances, durations, audit)


def _table(path: Path) -> Table:
    """Read lines of a key, white space and the rest."""
    table: Table = {}
    # As it is, for wav.scp names files.
    for number, line in enumerate(read_text(path, as_is=True).split("\n"), 1):
        if not line.strip():
            continue
        key, *rest = line.split(maxsplit=1)
        key = nfc(key)
        if key in table:
            raise InputError(f"{path}:{number}: {key} was already listed; keep one of the lines")
        table[key] = (rest[0].strip() if rest else "", f"{path}:{number}")
    if not table:
        raise InputError(f"{path}: is empty; expected a line for each utterance")
    return table


def _audio_path(value: str, where: str, folder: Path) -> Path:
    if value.startswith("|") or value.endswith("|"):
        raise InputError(
            f"{where}: audio from a command is not run ({value[:60]!r}); write its output to files "
            "and list those (SPHERE files are read as they are)"
        )
    if not value or re.search(r"\.ark:\d+$", value):
        raise InputError(f"{where}: expected 'recording path-of-audio', found {value!r}")
    # Kaldi takes relative paths from where its scripts run: mostly two levels above data/<set>.
    for base in (folder, folder.parent, folder.parent.parent, Path.cwd()):
        # Unlike Path.exists, for any name, however long.
        if os.path.exists(base / value):  # noqa: PTH110
            return base / value
    return folder / value


def _segment(value: str, where: str, audio: dict[str, Path]) -> tuple[str, float, float]:
    try:
        recording, *times = nfc(value).split()
        start_s, end_s = map(float, times)
    except ValueError as error:
        raise InputError(f"{where}: expected 'utterance recording start end'") from error
    if recording not in audio:
        raise InputError(f"{where}: recording {recording} is not in wav.scp")
    # Kaldi writes -1 for the end of the recording.
    if start_s >= 0 and end_s == -1:
        return recording, start_s, math.inf
    if not 0 <= start_s < end_s < math.inf:
        raise InputError(f"{where}: a segment cannot go from {start_s:g} s to {end_s:g} s")
    return recording, start_s, end_s
