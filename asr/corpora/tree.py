"""TIMIT's tree: ROOT/{TRAIN,DEV,TEST}/DR1/SPEAKER/UTTERANCE.{WAV,PHN,WRD,TXT}, in either case.

TIMIT itself, so762 and the synthetic corpus are such trees. Audio is SPHERE or RIFF ``.WAV``, a
RIFF ``.WAV.wav`` beside or instead of it, or ``.flac``. Label times are samples of the audio.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from asr.audio.read import audio_rate
from asr.corpora.audit import Audit, Corpus, Track, audited_duration_s
from asr.errors import InputError
from asr.system.text import nfc, plain_words, read_text
from asr.types import Segment, Utterance

SETS = ("train", "dev", "test")
#: Labels may end this much after the audio and are cut there; more means they belong elsewhere.
MAX_OVERSHOOT_S = 0.1
# File extensions in order of preference where an utterance's audio is there more than once.
_AUDIO = ("wav", "wav.wav", "flac")
_LABELS = ("phn", "wrd", "txt")


#: The first and last sample, which TIMIT's sentences stand behind.
BEFORE_SENTENCE = re.compile(r"^\s*0\s+\d{4,}\s+")


@dataclass(frozen=True)
class Entry:
    """The files of one utterance: by lower-case extension."""

    set: str
    speaker: str
    name: str
    folder: Path
    files: dict[str, Path] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Speaker and utterance, as in ``fcjf0_si1027``."""
        return nfc(f"{self.speaker}_{self.name}")


def load_tree(root: Path, track: Track) -> Corpus:
    """Load a tree whose sets are its TRAIN, DEV and TEST folders.

    Phones are checked against ROOT/phones.txt where there is one.

    Raises:
        InputError: no such tree, or a speaker in two sets.
    """
    root = find_root(root, SETS)
    audit = Audit()
    entries = scan(root, SETS, audit)
    utterances = read_entries(entries, phones_of(root), audit, track)
    sets: dict[str, list[Utterance]] = {name: [] for name in SETS}
    for entry, utterance in utterances:
        sets[entry.set].append(utterance)
    present = {entry.set for entry in entries}
    used = {name: utterances for name, utterances in sets.items() if name in present}
    return Corpus(used, replace(audit, found=len(entries)), root)


def find_root(root: Path, set_names: Sequence[str]) -> Path:
    """Return the folder that holds a folder for each of ``set_names`` (in either case).

    Where ``root`` does not, the folders one and two levels below it and the one above are tried.

    Raises:
        InputError: there is no such folder, or more than one at the same depth.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; expected the root of a corpus")

    def fits(folder: Path) -> bool:
        return set(set_names) <= {name.lower() for name in _subfolders(folder)}

    if fits(root):
        return root
    level = [root]
    for _ in range(2):
        level = [folder / name for folder in level for name in _subfolders(folder)]
        fitting = [folder for folder in level if fits(folder)]
        if len(fitting) > 1:
            raise InputError(f"{root}: holds several corpora; give one of {_listed(fitting)}")
        if fitting:
            return fitting[0]
    if root.absolute().name.lower() in set_names and fits(root.absolute().parent):
        return root.absolute().parent
    wanted = " and ".join(name.upper() for name in set_names)
    found = _listed(sorted(p.name for p in root.iterdir())) or "nothing"
    raise InputError(
        f"{root}: no folders {wanted} (in either case) here, two levels below or one above; "
        f"found {found}; give the folder that holds them"
    )


def scan(root: Path, set_names: Sequence[str], audit: Audit) -> list[Entry]:
    """List the utterances below ROOT's set folders in the order of their ids; note stray files.

    Raises:
        InputError: a speaker is in two sets.
    """
    entries: dict[tuple[str, str], Entry] = {}
    set_of: dict[str, str] = {}
    for top in _subfolders(root):
        set_name = top.lower()
        if set_name not in set_names:
            continue
        for folder_name, subfolders, files in os.walk(root / top, followlinks=True):
            folder = Path(folder_name)
            depth = len(folder.relative_to(root).parts)
            if depth == 3:
                for name in subfolders:
                    audit.stray[str(folder / name)] = "a folder inside a speaker's folder"
                subfolders.clear()
            if depth != 3:
                reason = f"not in {top}/<region>/<speaker>/"
                audit.stray.update({str(folder / name): reason for name in files})
                continue
            speaker = folder.name.lower()
            found = entries_of(folder, files, set_name, speaker, audit)
            other = set_of.setdefault(speaker, set_name) if found else set_name
            if other != set_name:
                raise InputError(
                    f"{folder}: speaker {speaker} is in {other.upper()} too; "
                    "a speaker belongs to one set: remove one of the folders"
                )
            for entry in found:
                known = entries.setdefault((speaker, entry.name), entry)
                for extension, path in entry.files.items():
                    if known.files.setdefault(extension, path) != path:
                        audit.stray[str(path)] = f"a second copy of {known.files[extension]}"
    return [entries[key] for key in sorted(entries)]


def entries_of(
    folder: Path, names: Iterable[str], set_name: str, speaker: str, audit: Audit
) -> list[Entry]:
    """The utterances of a speaker's folder, which has files of these names; note stray ones."""
    entries: dict[str, Entry] = {}
    for name in names:
        stem, _, extension = name.lower().partition(".")
        if not stem or extension not in _AUDIO + _LABELS:
            audit.stray[str(folder / name)] = f"not one of {', '.join(_AUDIO + _LABELS)}"
            continue
        entry = entries.setdefault(stem, Entry(set_name, speaker, stem, folder))
        if entry.files.setdefault(extension, folder / name) != folder / name:
            reason = f"a second copy of {entry.files[extension]}"
            audit.stray[str(folder / name)] = reason
    return list(entries.values())


def read_entries(
    entries: Sequence[Entry], inventory: Collection[str] | None, audit: Audit, track: Track
) -> list[tuple[Entry, Utterance]]:
    """Read the labels of every entry; note and leave out those that are incomplete or corrupt.

    Phones are needed; words and text are needed as soon as one entry has them. A phone that is
    not in ``inventory`` makes an entry corrupt.
    """
    needed = [k for k in _LABELS if k == "phn" or any(k in entry.files for entry in entries)]
    read = []
    for entry in track(entries):
        utterance = _read_entry(entry, needed, inventory, audit)
        if utterance is not None:
            read.append((entry, utterance))
    return read


def _read_entry(
    entry: Entry, needed: Sequence[str], inventory: Collection[str] | None, audit: Audit
) -> Utterance | None:
    audio_files = [entry.files[kind] for kind in _AUDIO if kind in entry.files]
    lacking = [kind for kind in needed if kind not in entry.files]
    if not audio_files:
        lacking.append(_AUDIO[0])
    for kind in lacking:
        audit.missing[str(entry.folder / f"{entry.name}.{kind}")] = f"{entry.id} has no such file"
    if lacking:
        return None
    for audio in audio_files:
        duration_s = audited_duration_s(audio, audit)
        if duration_s is not None:
            break
    else:
        return None
    rate = audio_rate(audio)
    known: dict[str, Any] = {}
    for kind in needed:
        path = entry.files[kind]
        try:
            if kind == "txt":
                known["text"] = read_sentence(path)
            elif kind == "wrd":
                known["words"] = read_segments(path, duration_s, rate)
            else:
                known["phones"] = read_segments(path, duration_s, rate)
                check_phones(known["phones"], inventory)
        except InputError as error:
            audit.corrupt[str(path)] = str(error)
            return None
    return Utterance(entry.id, audio.absolute(), entry.speaker, duration_s, **known)


def labels_beside(audio: Path) -> Utterance | None:
    """An audio file with what the ``.PHN`` and ``.WRD`` beside it say; None without either.

    Raises:
        InputError: the audio or one of these cannot be read.
    """
    stem = audio.name.lower().partition(".")[0]
    names = {f"{stem}.{kind}": kind for kind in ("phn", "wrd")}
    siblings = audio.parent.iterdir() if audio.parent.is_dir() else ()
    files = {names[p.name.lower()]: p for p in siblings if p.name.lower() in names}
    if not files:
        return None
    audit = Audit()
    entry = Entry("", audio.parent.name, stem, audio.parent, {_AUDIO[0]: audio} | files)
    utterance = _read_entry(entry, sorted(files), None, audit)
    if utterance is None:
        path, reason = next(iter((audit.corrupt | audit.missing).items()))
        raise InputError(f"{path}: {reason}")
    return utterance


def read_segments(path: Path, duration_s: float, sample_rate: int = 16_000) -> tuple[Segment, ...]:
    """Read ``.PHN`` or ``.WRD``: a line is start, end (samples) and label.

    Raises:
        InputError: the file cannot be read, or a line is malformed or out of order, or lies beyond
            the audio.
    """
    segments: list[Segment] = []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        fields = line.split()
        if not fields:
            continue
        # More digits are no time, and may be too many for Python to read.
        if len(fields) != 3 or not all(re.fullmatch(r"\d{1,15}", at) for at in fields[:2]):
            raise InputError(f"line {number}: expected 'start end label', found {line!r}")
        start_s, end_s = int(fields[0]) / sample_rate, int(fields[1]) / sample_rate
        if end_s < start_s or (segments and start_s < (segments[-1].start_s or 0)):
            raise InputError(f"line {number}: times go backwards in {line!r}")
        if start_s >= duration_s or end_s > duration_s + MAX_OVERSHOOT_S:
            raise InputError(
                f"line {number}: ends at {end_s:.3f} s, but the audio at {duration_s:.3f} s"
            )
        segments.append(Segment(fields[2].lower(), start_s, min(end_s, duration_s)))
    if not segments:
        raise InputError("holds no labels")
    return tuple(segments)


def check_phones(phones: Sequence[Segment], inventory: Collection[str] | None) -> None:
    """Raise InputError where a phone is not in the inventory (None allows any)."""
    for number, phone in enumerate(phones, 1):
        if inventory is not None and phone.label not in inventory:
            raise InputError(
                f"line {number}: phone {phone.label!r} is not one of the corpus's {len(inventory)}"
            )


def read_sentence(path: Path) -> str:
    """Read ``.TXT`` (``0 n_samples sentence``) as `plain_words`.

    Raises:
        InputError: the file cannot be read, or the line is malformed.
    """
    content = read_text(path).strip()
    match = re.fullmatch(r"\d+\s+\d+\s+(.+)", content, flags=re.DOTALL)
    if not match:
        raise InputError(f"expected '0 samples sentence', found {content[:60]!r}")
    return plain_words(match[1])


def phones_of(root: Path) -> frozenset[str] | None:
    """Return the symbols of ROOT/phones.txt, or None where there is no such file.

    Raises:
        InputError: it cannot be read or is empty.
    """
    path = root / "phones.txt"
    if not path.exists():
        return None
    phones = frozenset(read_text(path).split())
    if not phones:
        raise InputError(f"{path}: phone inventory is empty; expected one symbol a line")
    return phones


def _subfolders(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    except OSError:
        return []


def _listed(items: Sequence[object]) -> str:
    return ", ".join(str(item) for item in items[:5]) + (", ..." if len(items) > 5 else "")
