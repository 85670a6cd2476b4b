"""The sample of TIMIT that NLTK distributes: ten sentences of each of 16 speakers.

Its layout is ROOT/dr1-fvmh0/sa1.{wav,phn,wrd,txt}; all 16 are of TIMIT's TRAIN part, so that
TIMIT's own sets do not exist in it. They are dealt here by speaker, into four folds.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from asr.corpora.audit import Audit, Corpus, Track
from asr.corpora.tree import Entry, entries_of, read_entries
from asr.labels import TIMIT_61_PHONES
from asr.types import Utterance

FOLDER = re.compile(r"(dr[1-8])-([fm][a-z]{3}\d)", re.IGNORECASE)
#: By fold, test's speakers (two of each sex, of four dialect regions) and dev's; train has the
#: other eleven. Every speaker is in one fold's test.
FOLDS = (
    ("fvmh0 ftlg0 madc0 madd0", "faem0"),
    ("faem0 fapb0 maeb0 mbcg0", "mcpm0"),
    ("falk0 fblv0 mcpm0 mbgt0", "falr0"),
    ("falr0 fbcg1 marc0 mbma1", "madc0"),
)
SPEAKERS = frozenset(speaker for test, _ in FOLDS for speaker in test.split())
#: Of each speaker.
N_SENTENCES = 10
SA = ("sa1", "sa2")


def sample_folders(root: Path) -> list[Path]:
    """The speakers' folders of a sample at ``root``, or else in a folder in it; none: no sample."""
    if not root.is_dir():
        return []
    places = [root, *sorted(p for p in root.iterdir() if p.is_dir())]
    for place in places:
        found = [p for p in sorted(place.iterdir()) if p.is_dir() and FOLDER.fullmatch(p.name)]
        if found:
            return found
    return []


def load_sample(folders: list[Path], track: Track) -> Corpus:
    """Load train, dev and test of each fold, ``train2`` being fold 2's, and ``sa``.

    SA1 and SA2, which every speaker read, are in train, and in no dev and no test: the test
    speakers' are in ``test_sa``.
    """
    audit = Audit(
        deviations=[
            "the sample of TIMIT that NLTK distributes, dealt by speaker into sets that are not "
            "TIMIT's: error rates cannot be compared with published ones"
        ]
    )
    entries: list[Entry] = []
    for folder in folders:
        match = FOLDER.fullmatch(folder.name)
        assert match is not None
        names = sorted(p.name for p in folder.iterdir())
        entries += entries_of(folder, names, "", match[2].lower(), audit)
    entries.sort(key=lambda entry: (entry.speaker, entry.name))
    utterances = read_entries(entries, TIMIT_61_PHONES, audit, track)
    sets: dict[str, list[Utterance]] = {}
    for number, (test, dev) in enumerate(FOLDS, start=1):
        mark = "" if number == 1 else str(number)
        sets |= {f"{name}{mark}": [] for name in ("train", "dev", "test", "test_sa")}
        for entry, utterance in utterances:
            is_sa = entry.name in SA
            if entry.speaker in test.split():
                sets[f"{'test_sa' if is_sa else 'test'}{mark}"].append(utterance)
            elif entry.speaker != dev:
                sets[f"train{mark}"].append(utterance)
            elif not is_sa:
                sets[f"dev{mark}"].append(utterance)
    _tell_deviations([utterance for _, utterance in utterances], audit)
    present = {name: found for name, found in sets.items() if found}
    return Corpus(present, replace(audit, found=len(entries)), folders[0].parent)


def _tell_deviations(utterances: list[Utterance], audit: Audit) -> None:
    expected = N_SENTENCES * len(SPEAKERS)
    if len(utterances) != expected:
        audit.deviations.append(f"{len(utterances)} utterances, the sample has {expected}")
    found = {u.speaker for u in utterances}
    for speakers, what in ((SPEAKERS - found, "no utterance of"), (found - SPEAKERS, "unknown:")):
        if speakers:
            audit.deviations.append(f"speakers: {what} {' '.join(sorted(speakers))}")
