"""A corpus as manifests, or as shards with manifests, and the audit of its files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from rich.progress import Progress

from asr.corpora import OWN, Own, load_corpus
from asr.corpora.audit import Audit, Corpus
from asr.corpora.shards import Shard, shard_size, write_shards, write_summary
from asr.data.manifest import write_manifest
from asr.errors import InputError
from asr.system.files import write_text
from asr.types import Utterance

#: Options that only one kind has.
ONLY = {"tier": "folder", "phones": "folder", "audio": "table", "text": "table"}
#: Columns of `sizes`.
SIZES = ("utterances", "speakers", "hours", "words", "phones")
#: Files of a kind that warnings name.
SHOWN = 3


def prepare_sets(
    kind: str, root: Path, out: Path, own: Own, shards: str, progress: Progress
) -> tuple[Corpus, dict[str, list[Shard]]]:
    """Load a corpus and write ``<set>.jsonl`` and audit.json; with ``shards`` also the audio.

    shards: see `shard_size`; the tars of each set are returned.

    Raises:
        InputError: options that this ``kind`` does not have, or what `load_corpus` raises.
    """
    size = shard_size(shards) if shards else None
    if kind == "streamed":
        raise InputError("streamed is how prepared manifests are trained on; prepare them as jsonl")
    if own != Own() and kind not in OWN:
        raise InputError(
            f"{kind} says itself what is what: --tier, --phones, --audio, --text, --speaker, "
            f"--split and --seed are for {' and '.join(OWN)}"
        )
    for option, its_kind in ONLY.items():
        if getattr(own, option) and kind != its_kind:
            raise InputError(f"--{option} is for {its_kind}, not {kind}")
    corpus = load_corpus(
        kind,
        root,
        partial(progress.track, description="reading the corpus"),
        replace(own, kept=out / "audio") if kind in OWN else None,
    )
    written = {}
    for name, utterances in corpus.sets.items():
        if size is None:
            write_manifest(out / f"{name}.jsonl", utterances)
            continue
        task = progress.add_task(f"shards of {name}", total=len(utterances))
        tick = partial(progress.advance, task)
        written[name] = write_shards(out, name, utterances, size, corpus.audit, tick)
    if written:
        write_summary(out, written)
    write_text(out / "audit.json", json.dumps(asdict(corpus.audit), indent=2) + "\n")
    return corpus, written


def sizes(utterances: Sequence[Utterance]) -> tuple[str, ...]:
    """What `SIZES` names, of a set."""
    return (
        str(len(utterances)),
        str(len({u.speaker for u in utterances})),
        f"{sum(u.duration_s for u in utterances) / 3600:.2f}",
        str(sum(len((u.text or "").split()) for u in utterances)),
        str(sum(len(u.phones or ()) for u in utterances)),
    )


def told_of_tars(name: str, tars: Sequence[Shard]) -> str:
    """A line about the tars of a set."""
    return (
        f"{name}: {sum(t.utterances for t in tars)} utterances in {len(tars)} tars, "
        f"{sum(t.bytes for t in tars) / 1e6:.1f} MB, {sum(t.seconds for t in tars) / 3600:.2f} h"
    )


def warnings(audit: Audit) -> list[str]:
    """What the user should know of: deviations in full, the first few of the files left out."""
    lines = [f"warning: {deviation}" for deviation in audit.deviations]
    for kind in ("missing", "corrupt", "stray"):
        files: dict[str, str] = getattr(audit, kind)
        if files:
            lines.append(f"warning: {len(files)} files {kind} (all in audit.json)")
            lines += [f"  {path}: {reason}" for path, reason in list(files.items())[:SHOWN]]
    return lines
