"""The sample of TIMIT that NLTK distributes: ten sentences of each of 16 speakers.

Its layout is ROOT/dr1-fvmh0/sa1.{wav,phn,wrd,txt}; all 16 are of TIMIT's TRAIN part, so that
TIMIT's own sets do not exist in it. They are dealt here by speaker, into four folds.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

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
CR, LF = b"\r", 0x0A
#: What a lost byte must gain, in nats of the sum of log(1 + |difference of two samples|); a stretch
#: of noise of 1/100 s costs more.
PENALTY = 300.0
#: Bytes of the header that NLTK's files begin with.
HEADER = 44


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
    _tell_damage([utterance for _, utterance in utterances], audit)
    present = {name: found for name, found in sets.items() if found}
    return Corpus(present, replace(audit, found=len(entries)), folders[0].parent)


def mended(data: bytes) -> tuple[bytes, int]:
    """Bytes of 16-bit samples with those put back that were lost, and how many these are.

    In copies of the sample that NLTK distributes a program for texts has taken each carriage return
    before a line feed out of the samples: no two bytes are CR LF, and what follows such a place
    lies across the bytes of two samples, as loud noise. A carriage return is put back before those
    line feeds that make the signal smoothest (by Viterbi search over the two ways to lie across
    bytes).
    """
    values = np.frombuffer(data, np.uint8)
    costs = np.zeros((2, len(values) + 1))
    for side in (0, 1):
        samples = np.frombuffer(data[side : side + (len(data) - side) // 2 * 2], "<i2").astype(
            float
        )
        rough = np.log1p(np.abs(np.diff(samples, prepend=samples[:1])))
        costs[side, side + 1 : side + 1 + 2 * len(rough) : 2] = rough
    costs = costs.cumsum(axis=1)
    best, last = [0.0, np.inf], 0
    cuts: list[tuple[int, ...]] = [(), ()]
    for at in np.flatnonzero(values == LF).tolist():
        stay = [best[side] + costs[side, at] - costs[side, last] for side in (0, 1)]
        came = [stay[1] + PENALTY, stay[0] + PENALTY]
        cuts = [(*cuts[1], at) if came[0] < stay[0] else cuts[0],
                (*cuts[0], at) if came[1] < stay[1] else cuts[1]]  # fmt: skip
        best, last = [min(s, c) for s, c in zip(stay, came, strict=True)], at
    ends = [best[side] + costs[side, -1] - costs[side, last] for side in (0, 1)]
    found = cuts[int(np.argmin(ends))]
    pieces = [data[a:b] for a, b in zip((0, *found), (*found, len(data)), strict=True)]
    return CR.join(pieces), len(found)


def _tell_damage(utterances: list[Utterance], audit: Audit) -> None:
    damaged = []
    for utterance in utterances:
        data = utterance.audio.read_bytes()
        if data.startswith(b"RIFF") and mended(data[HEADER:])[1]:
            damaged.append(f"{utterance.audio.parent.name}/{utterance.audio.name}")
    if damaged:
        audit.deviations.append(
            f"recordings that have lost bytes and are noise from there on: {len(damaged)} (the "
            f"project's tools/mend_timit_sample.py makes a mended copy): {' '.join(damaged)}"
        )


def _tell_deviations(utterances: list[Utterance], audit: Audit) -> None:
    expected = N_SENTENCES * len(SPEAKERS)
    if len(utterances) != expected:
        audit.deviations.append(f"{len(utterances)} utterances, the sample has {expected}")
    found = {u.speaker for u in utterances}
    for speakers, what in ((SPEAKERS - found, "no utterance of"), (found - SPEAKERS, "unknown:")):
        if speakers:
            audit.deviations.append(f"speakers: {what} {' '.join(sorted(speakers))}")
