"""Plain JSONL manifests, ours or NeMo's: a file is a set, a folder of them is a corpus."""

from __future__ import annotations

from pathlib import Path

from asr.corpora.audit import Audit, Corpus, Track, lies_within, measured
from asr.errors import InputError
from asr.manifest import read_manifest


def load_jsonl(root: Path, track: Track) -> Corpus:
    """Load ROOT, a ``.jsonl`` file, or every ``*.jsonl`` in the folder ROOT; stems name the sets.

    Raises:
        InputError: no such file or folder, no manifest in it, or a malformed line.
    """
    manifests = sorted(root.glob("*.jsonl")) if root.is_dir() else [root]
    if not manifests:
        raise InputError(f"{root}: no *.jsonl in this folder; expected one such as train.jsonl")
    if not manifests[0].exists():
        raise InputError(f"{root}: no such file or folder; expected a manifest or a folder of them")
    listed = {path.stem: read_manifest(path) for path in manifests}
    audit = Audit(found=len({u.id for utterances in listed.values() for u in utterances}))
    durations = measured((u.audio for us in listed.values() for u in us), audit, track)
    sets = {
        name: [
            u
            for u in utterances
            if u.audio in durations and lies_within(u, durations[u.audio], audit)
        ]
        for name, utterances in listed.items()
    }
    return Corpus(sets, audit, root)
