"""LibriSpeech's tree: ROOT/<set>/<speaker>/<chapter>/<utterance>.flac and <...>.trans.txt.

A transcript line is the utterance's name and its upper-case words. https://www.openslr.org/12
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from asr.audio.sources import SUFFIXES
from asr.corpora.audit import Audit, Corpus, Track, measured
from asr.errors import InputError
from asr.system.text import nfc, read_text
from asr.types import Utterance


def load_librispeech(root: Path, track: Track) -> Corpus:
    """Load every set below ROOT, or ROOT itself where it is one; folders name the sets.

    Raises:
        InputError: no transcripts are where they should be.
    """
    transcripts = _transcripts(root)
    audit = Audit()
    texts: dict[Path, str] = {}  # by audio file
    for path in transcripts:
        texts |= _read_chapter(path, audit)
    n_found = len(texts) + len(audit.missing)
    durations = measured(texts, audit, track)
    sets: dict[str, list[Utterance]] = {path.parts[-4]: [] for path in transcripts}
    for path, text in texts.items():
        if path in durations:
            utterance = Utterance(nfc(path.stem), path, path.parts[-3], durations[path], text=text)
            sets[path.parts[-4]].append(utterance)
    return Corpus(sets, replace(audit, found=n_found), transcripts[0].parents[3])


def _transcripts(root: Path) -> list[Path]:
    """Find the transcripts whether ROOT is above the sets, one level higher, or a set itself."""
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; expected the root of a LibriSpeech tree")
    for above in ("*/*/*", "*/*", "*/*/*/*"):
        found = sorted(root.absolute().glob(f"{above}/*.trans.txt"))
        if found:
            return found
    raise InputError(
        f"{root}: no <set>/<speaker>/<chapter>/*.trans.txt here or one level below; "
        "give the folder that holds train-clean-100, dev-clean, ..."
    )


def _read_chapter(transcript: Path, audit: Audit) -> dict[Path, str]:
    """Return the text of each audio file of the chapter; note audio without a line."""
    folder = transcript.parent
    audio = {nfc(p.stem): p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES}
    texts = {}
    try:
        for line in read_text(transcript).split("\n"):
            name, *words = line.split() or [""]
            if name:
                texts[audio.pop(name, folder / f"{name}.flac")] = " ".join(words).lower()
    except InputError as error:
        audit.corrupt[str(transcript)] = str(error)
    for path in audio.values():
        audit.missing[str(path)] = f"no line in {transcript.name}"
    return texts
