"""Plain JSONL manifests, ours or NeMo's: a file is a set, a folder of them is a corpus."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from asr.corpora.audit import Audit, Corpus, Track, audible, measured
from asr.data.index import index_manifest, join_manifests
from asr.data.manifest import read_manifest
from asr.errors import InputError


def load_jsonl(root: Path, track: Track) -> Corpus:
    """Load ROOT, a ``.jsonl`` file, or every ``*.jsonl`` in the folder ROOT; stems name the sets.

    Raises:
        InputError: no such file or folder, no manifest in it, or no line that can be used.
    """
    malformed: dict[str, str] = {}

    def failed(line: str, error: InputError) -> None:
        malformed[line] = str(error)

    listed = {path.stem: read_manifest(path, failed) for path in _manifests(root)}
    n_found = len({u.id for utterances in listed.values() for u in utterances})
    audit = Audit(found=n_found + len(malformed), corrupt=malformed)
    durations = measured((u.audio for us in listed.values() for u in us), audit, track)
    sets = {name: audible(utterances, durations, audit) for name, utterances in listed.items()}
    return Corpus(sets, audit, root)


def load_streamed(root: Path, track: Track) -> Corpus:
    """As `load_jsonl` for manifests of any size: neither they nor their audio are held or audited.

    The audio may lie in tar shards, as `asr prepare --shards` makes them. What cannot be read is
    found and counted in training.

    Raises:
        InputError: no such file or folder, no manifest in it, or a line that cannot be used.
    """
    audit = Audit()
    sets = {path.stem: index_manifest(path, audit.deviations.append) for path in _manifests(root)}
    return Corpus(sets, replace(audit, found=sum(map(len, sets.values()))), root, join_manifests)


def _manifests(root: Path) -> list[Path]:
    """The manifest ROOT, or all in the folder ROOT."""
    manifests = sorted(root.glob("*.jsonl")) if root.is_dir() else [root]
    if not manifests:
        raise InputError(f"{root}: no *.jsonl in this folder; expected one such as train.jsonl")
    if not manifests[0].exists():
        raise InputError(f"{root}: no such file or folder; expected a manifest or a folder of them")
    return manifests
