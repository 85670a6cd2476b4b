"""A corpus as manifests, or as shards with manifests, and the audit of its files."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path

from rich.progress import Progress

from asr.corpora.audit import Corpus
from asr.corpora.shards import Shard, ShardSize, write_shards, write_summary
from asr.data.manifest import write_manifest
from asr.system.files import write_text


def write_sets(
    out: Path, corpus: Corpus, size: ShardSize | None, progress: Progress
) -> dict[str, list[Shard]]:
    """Write ``<set>.jsonl`` and audit.json; with ``size`` also the audio, in the tars returned."""
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
    return written
