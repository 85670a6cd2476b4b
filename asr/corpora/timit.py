"""TIMIT with the usual sets: train (462 speakers), dev (50), core test (24) and full test (168).

The lists are those of Kaldi's egs/timit/s5 (conf/dev_spk.list, conf/test_spk.list) and of TIMIT's
testset.doc. The sentences SA1 and SA2, which every speaker read, are dropped from all sets. Phones
keep their 61 symbols and their times; folding them is for `asr.labels`.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from asr.corpora.audit import Audit, Corpus, Track
from asr.corpora.timit_sample import load_sample, sample_folders
from asr.corpora.tree import find_root, read_entries, scan
from asr.errors import InputError
from asr.labels import TIMIT_61_PHONES
from asr.types import Utterance

DEV_SPEAKERS = frozenset(
    """
    faks0 fdac1 fjem0 mgwt0 mjar0 mmdb1 mmdm2 mpdf0 fcmh0 fkms0 mbdg0 mbwm0 mcsh0 fadg0 fdms0 fedw0
    mgjf0 mglb0 mrtk0 mtaa0 mtdt0 mthc0 mwjg0 fnmr0 frew0 fsem0 mbns0 mmjr0 mdls0 mdlf0 mdvc0 mers0
    fmah0 fdrw0 mrcs0 mrjm4 fcal1 mmwh0 fjsj0 majc0 mjsw0 mreb0 fgjd0 fjmg0 mroa0 mteb0 mjfc0 mrjr0
    fmml0 mrws1
    """.split()
)
CORE_TEST_SPEAKERS = frozenset(
    """
    mdab0 mwbt0 felc0 mtas1 mwew0 fpas0 mjmp0 mlnt0 fpkt0 mlll0 mtls0 fjlm0 mbpm0 mklt0 fnlp0 mcmj0
    mjdh0 fmgd0 mgrt0 mnjm0 fdhc0 mjln0 mpam0 fmld0
    """.split()
)
EXPECTED_UTTERANCES = {"train": 3696, "dev": 400, "test": 192, "test_full": 1344}
#: Reference phones without q.
EXPECTED_PHONES = {"dev": 15057, "test": 7215}


def load_timit(root: Path, track: Track) -> Corpus:
    """Load train, dev, test (the core test) and test_full; of NLTK's sample, as `load_sample`.

    Raises:
        InputError: no TRAIN and TEST folders, or a speaker of the test set in TRAIN.
    """
    if folders := sample_folders(root):
        return load_sample(folders, track)
    root = find_root(root, ("train", "test"))
    audit = Audit()
    kept = []
    n_dropped = 0
    for entry in scan(root, ("train", "test"), audit):
        if entry.set == "train" and entry.speaker in DEV_SPEAKERS | CORE_TEST_SPEAKERS:
            raise InputError(
                f"{entry.folder}: {entry.speaker} is a speaker of TIMIT's test set and must not be "
                "in TRAIN; get a whole copy of the corpus"
            )
        if entry.name in ("sa1", "sa2"):
            n_dropped += 1
        elif re.fullmatch(r"s[ix]\d+", entry.name):
            kept.append(entry)
        else:
            for path in entry.files.values():
                audit.stray[str(path)] = "not a TIMIT sentence (SA1, SX123, SI1234)"
    audit.dropped["SA1 and SA2, which every speaker read"] = n_dropped
    sets: dict[str, list[Utterance]] = {name: [] for name in EXPECTED_UTTERANCES}
    for entry, utterance in read_entries(kept, TIMIT_61_PHONES, audit, track):
        if entry.set == "train":
            sets["train"].append(utterance)
            continue
        sets["test_full"].append(utterance)
        if entry.speaker in DEV_SPEAKERS:
            sets["dev"].append(utterance)
        elif entry.speaker in CORE_TEST_SPEAKERS:
            sets["test"].append(utterance)
    _tell_deviations(sets, audit)
    return Corpus(sets, replace(audit, found=len(kept) + n_dropped), root)


def _tell_deviations(sets: dict[str, list[Utterance]], audit: Audit) -> None:
    for name, expected in EXPECTED_UTTERANCES.items():
        if len(sets[name]) != expected:
            audit.deviations.append(
                f"{name}: {len(sets[name])} utterances, TIMIT has {expected}; "
                "error rates cannot be compared with published ones"
            )
    for name, expected in EXPECTED_PHONES.items():
        n_phones = sum(p.label != "q" for u in sets[name] for p in u.phones or ())
        if n_phones != expected:
            audit.deviations.append(f"{name}: {n_phones} phones without q, TIMIT has {expected}")
    for name, speakers in (("dev", DEV_SPEAKERS), ("test", CORE_TEST_SPEAKERS)):
        absent = sorted(speakers - {u.speaker for u in sets[name]})
        if absent:
            audit.deviations.append(f"{name}: no utterance of {' '.join(absent)}")
