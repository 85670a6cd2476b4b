"""From tars and manifests to the utterances in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from asr.audio.read import tar_member
from asr.audio.sources import Failed, Source
from asr.corpora.audit import Audit
from asr.corpora.shards import scan_shard
from asr.data.manifest import is_manifest, read_manifest
from asr.errors import InputError


def unpacked(sources: Sequence[Source], failed: Failed) -> list[Source]:
    """Replace tars (``.tar``) and manifests (``.jsonl``) by the utterances in them.

    ``failed`` gets a tar or manifest that cannot be read, and what is wrong within a tar.
    """
    found: list[Source] = []
    for source in sources:
        try:
            if source.path.suffix == ".tar":
                found += _in_tar(source.path, failed)
            elif is_manifest(source.path):
                found += _in_manifest(source.path, failed)
            else:
                found.append(source)
        except InputError as error:
            failed(source.path, error)
    return found


def _in_tar(tar: Path, failed: Failed) -> list[Source]:
    audit = Audit()
    try:
        utterances, _ = scan_shard(tar, audit)
    except OSError as error:
        raise InputError(f"{tar}: cannot be read ({error.strerror})") from error
    for where, reason in (audit.corrupt | audit.missing).items():
        failed(Path(where), InputError(f"{where}: {reason}"))
    # Here the duration is that of the whole member.
    return [Source(u.audio, u.id, speaker=u.speaker) for u in utterances]


def _in_manifest(path: Path, failed: Failed) -> list[Source]:
    def malformed(line: str, error: InputError) -> None:
        failed(path, InputError(f"{line}: {error}"))

    return [
        Source(u.audio, u.id, speaker=u.speaker)
        if tar_member(u.audio)
        else Source(u.audio, u.id, None, u.offset_s, u.duration_s, u.speaker)
        for u in read_manifest(path, malformed)
    ]
