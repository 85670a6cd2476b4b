"""Alignments of an audio file, or of a whole manifest, as files."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from asr.audio.read import STDIN, audio_duration_s, audio_rate
from asr.corpora.tree import BEFORE_SENTENCE
from asr.data.manifest import is_manifest, read_manifest, write_manifest
from asr.errors import InputError
from asr.recognize.aligner import Aligner, align_corpus, with_times
from asr.recognize.files import is_full
from asr.recognize.transcripts import FORMATS, Format, to_phn, to_wrd
from asr.system.files import write_text
from asr.system.text import read_text
from asr.types import Segment, Transcript, Utterance

#: A format besides those of `transcripts`: the manifest with the times found.
MANIFEST = "manifest"
#: What gets the id of an utterance, or the place of a line, and what is wrong with it.
Failed = Callable[[str, str | InputError], None]


def utterances_of(source: Path, text: Path | None, unit: str, failed: Failed) -> list[Utterance]:
    """The manifest's utterances, or the one of an audio file and its text.

    ``failed`` gets a line of the manifest that cannot be used.
    """
    if text is None:
        if not is_manifest(source):
            raise InputError(
                f"{source}: expected a .jsonl manifest, or the audio's TEXT after it; "
                "asr prepare makes manifests of corpora"
            )
        return read_manifest(source, failed)
    said = BEFORE_SENTENCE.sub("", read_text(text))
    phones = tuple(Segment(phone) for phone in said.split()) if unit == "phone" else None
    name = "stdin" if source == STDIN else source.stem
    duration_s = audio_duration_s(source)
    return [Utterance(name, source, name, duration_s, text=said, phones=phones)]


def align_into(
    out: Path,
    aligner: Aligner,
    utterances: Sequence[Utterance],
    formats: Mapping[str, Format],
    failed: Failed,
    tick: Callable[[int], None],
) -> list[tuple[Utterance, Transcript]]:
    """Align, and write a file of each format for each utterance into the folder ``out``.

    Returns the utterances that succeeded, with their times; ``failed`` gets the others. ``tick``
    gets the number of utterances just done.

    Raises:
        InputError: there is no room left.
    """
    file_names = _file_names(utterances, failed) if formats else {u.id: "" for u in utterances}
    done: dict[str, Transcript] = {}

    def unfit(utterance: Utterance, reason: str) -> None:
        failed(utterance.id, reason)

    wanted = [u for u in utterances if u.id in file_names]
    for transcript in align_corpus(aligner, wanted, unfit, tick):
        try:
            for name, format in formats.items():
                file = file_names[transcript.id] + format.suffix
                write_text(out / file, written(name, transcript))
        except InputError as error:
            if is_full(error):
                raise
            failed(transcript.id, error)
        else:
            done[transcript.id] = transcript
    return [(u, done[u.id]) for u in wanted if u.id in done]


def _file_names(utterances: Sequence[Utterance], failed: Failed) -> dict[str, str]:
    """The name of each utterance's file, by id; ``failed`` gets those whose name another has."""
    by_name: dict[str, Utterance] = {}
    for utterance in utterances:
        other = by_name.setdefault(re.sub(r"[/\\]", "_", utterance.id), utterance)
        if other is not utterance:
            failed(utterance.id, f"its file would be that of {other.id}; rename one")
    return {utterance.id: name for name, utterance in by_name.items()}


def written(name: str, transcript: Transcript) -> str:
    """The transcript in the named format; TIMIT's count the samples of the audio."""
    timit = {"phn": to_phn, "wrd": to_wrd}
    if name in timit and transcript.audio is not None:
        return timit[name](transcript, audio_rate(transcript.audio))
    return FORMATS[name].write(transcript)


def write_joined(
    out: Path,
    name: str,
    found: Sequence[tuple[Utterance, Transcript]],
    stem: str,
    single: bool,
) -> None:
    """Write all transcripts to one file in the named format: ``out``, or ``stem`` in it.

    ``single``: one output file is all there will be, so that ``out`` is its name.
    """
    suffix = ".jsonl" if name == MANIFEST else FORMATS[name].suffix
    is_folder = out.is_dir() or not (single or out.suffix.lower() == suffix.lower())
    path = out / (stem + suffix) if is_folder else out
    if name == MANIFEST:
        write_manifest(path, [with_times(u, transcript) for u, transcript in found])
    else:
        write_text(path, "".join(written(name, transcript) for _, transcript in found))
