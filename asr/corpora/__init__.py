"""Corpora: each loader turns a folder as published into sets of utterances and an audit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from asr.corpora.audit import Audit, Corpus, Track
from asr.corpora.jsonl import load_jsonl, load_streamed
from asr.corpora.kaldi import load_kaldi
from asr.corpora.librispeech import load_librispeech
from asr.corpora.own.config import Own
from asr.corpora.own.folder import load_folder
from asr.corpora.own.table import load_table
from asr.corpora.shards import load_webdataset
from asr.corpora.so762 import load_so762
from asr.corpora.timit import load_timit
from asr.corpora.tree import load_tree
from asr.errors import InputError

__all__ = ["CORPORA", "OWN", "Audit", "Corpus", "Own", "load_corpus"]

CORPORA: dict[str, Callable[[Path, Track], Corpus]] = {
    "timit": load_timit,
    "so762": load_so762,
    "synthetic": load_tree,
    "kaldi": load_kaldi,
    "librispeech": load_librispeech,
    "jsonl": load_jsonl,
    "webdataset": load_webdataset,
    "streamed": load_streamed,
    "folder": load_folder,
    "table": load_table,
}
#: Those of them that have nothing to go by but what `Own` tells.
OWN = {"folder": load_folder, "table": load_table}


def _untracked(items: Sequence[Any]) -> Iterable[Any]:
    return items


def load_corpus(kind: str, root: Path, track: Track = _untracked, own: Own | None = None) -> Corpus:
    """Load the corpus at ``root`` as ``kind`` (a key of `CORPORA`); every set has utterances.

    Utterances whose files are missing or corrupt are left out and listed in the audit. ``track``
    wraps the sequence of files to be read, to show progress. ``own``: how one of `OWN` is read.

    Raises:
        InputError: no such kind, nothing of that kind at ``root``, a set without a single usable
            utterance, or tables (of Kaldi, JSONL) that are malformed.
    """
    if kind not in CORPORA:
        raise InputError(f"corpus {kind!r} does not exist; choose one of {', '.join(CORPORA)}")
    root = Path(root)
    corpus = OWN[kind](root, track, own) if own else CORPORA[kind](root, track)
    audit = corpus.audit
    if kind == "streamed":
        # None is empty, and counting ids would take a look at every line.
        return replace(corpus, audit=replace(audit, used=audit.found))
    used = {utterance.id for utterances in corpus.sets.values() for utterance in utterances}
    for name, utterances in corpus.sets.items():
        if not utterances:
            problems = [*audit.corrupt.items(), *audit.missing.items(), *audit.stray.items()]
            first = ": ".join(problems[0]) if problems else "no such files there"
            raise InputError(
                f"{root}: set {name} of this {kind} corpus has no usable utterance ({first})"
            )
    if not used:
        raise InputError(f"{root}: no utterance of a {kind} corpus found there")
    return replace(corpus, audit=replace(audit, used=len(used)))
