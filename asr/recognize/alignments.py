"""Alignments of an audio file, or of a whole manifest, as files."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from asr.audio.read import STDIN, audio_duration_s, audio_rate
from asr.corpora.tree import BEFORE_SENTENCE
from asr.data.manifest import is_manifest, read_manifest, write_manifest
from asr.errors import InputError, one_line
from asr.g2p.unknown import PRONOUNCED, Pronounced, noted
from asr.recognize.aligner import Aligner, align_corpus, with_times
from asr.recognize.files import is_full
from asr.recognize.transcripts import FORMATS, Format, formats_named, to_phn, to_wrd
from asr.system.files import remove_abandoned, write_text
from asr.system.progress import progress_bar
from asr.system.text import read_text
from asr.types import Segment, Transcript, Utterance

#: A format besides those of `transcripts`: the manifest with the times found.
MANIFEST = "manifest"
#: Formats that are opened beside the audio: their times are the recording's, not the utterance's.
OF_RECORDINGS = ("textgrid", "eaf")
#: What gets the id of an utterance, or the place of a line, and what is wrong with it.
Failed = Callable[[str, str | InputError], None]


def align_named(
    source: Path,
    text: Path | None,
    format: str,
    out: Path | None,
    load: Callable[[], Aligner],
    tell: Callable[[str], None],
    pronounced: str | None = None,
) -> bool:
    """Align an audio file with its text, or a manifest, as asr align does; whether all was.

    What cannot be aligned is told, the rest goes on. pronounced: a file with words that the lexicon
    lacks, read and then written with those that are pronounced by their letters; by default
    `PRONOUNCED` in the folder ``out``; ``none`` pronounces none.

    Raises:
        InputError: options that contradict each other or the model, or no room to write to.
    """
    formats = _formats(source, text, format, out)
    aligner = load()
    if "wrd" in formats and aligner.unit == "phone":
        raise InputError("--format wrd: aligned by phones there are no words; choose phn")
    apart = {name: f for name, f in formats.items() if f and not f.joins and text is None}
    n_failed = 0
    with progress_bar() as progress:

        def failed(name: str, reason: str | InputError) -> None:
            nonlocal n_failed
            n_failed += 1
            line = f"asr: {one_line(f'{name}: {reason}')}"
            progress.console.print(line, markup=False, highlight=False, soft_wrap=True)

        utterances = utterances_of(source, text, aligner.unit, failed)
        words = Path(pronounced) if pronounced else (out or Path()) / PRONOUNCED
        guessed = Pronounced()
        if pronounced != "none":
            readable = pronounced is not None or out is not None
            aligner, guessed = aligner.with_guesses(utterances, words if readable else None)
        task = progress.add_task("aligning", total=len(utterances))
        tick = partial(progress.advance, task)
        found = align_into(out or Path(), aligner, utterances, apart, failed, tick)
    if out is not None and out.is_dir():
        remove_abandoned(out)
    is_kept = pronounced is not None or (out is not None and out.is_dir())
    if line := noted(guessed, words if is_kept else None):
        tell(line)
    stem = utterances[0].id if text and utterances else source.stem
    for name in [name for name in formats if name not in apart] if found else ():
        if out is None:
            sys.stdout.write(written(name, found[0][1]))
        else:
            write_joined(out, name, found, stem, single=text is not None and len(formats) == 1)
    if out is not None:
        print(f"{out}: {len(found)} of {len(found) + n_failed} utterances aligned")
    if n_failed:
        if missing := aligner.missing(utterances):
            tell(missing)
        tell(f"{n_failed} of {len(found) + n_failed} utterances not aligned")
    return not n_failed


def _formats(
    source: Path, text: Path | None, format: str, out: Path | None
) -> dict[str, Format | None]:
    """The formats that are asked for; the manifest is none of `FORMATS`."""
    names = list(dict.fromkeys(name.strip().lower() for name in format.split(",")))
    others = [name for name in names if name != MANIFEST]
    known = formats_named(",".join(others)) if others else {}
    if out is None and (text is None or names != others or len(names) > 1):
        raise InputError("--out is missing: name a folder (or, for one format, a file)")
    if source == STDIN and MANIFEST in names:
        raise InputError("--format manifest: names audio files, and standard input is none")
    if {"jsonl", MANIFEST} <= set(names):
        raise InputError(f"--format {format}: jsonl and manifest would be one file; choose one")
    return {name: known.get(name) for name in names}


def utterances_of(source: Path, text: Path | None, unit: str, failed: Failed) -> list[Utterance]:
    """The manifest's utterances, or the one of an audio file and its text.

    ``failed`` gets a line of the manifest that cannot be used.
    """
    if text is None:
        if source.is_dir() and (there := sorted(source.glob("*.jsonl"))):
            names = ", ".join(path.name for path in there)
            raise InputError(f"{source}: a folder; align one of its manifests: {names}")
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
    offsets = {u.id: u.offset_s for u in utterances}

    def unfit(utterance: Utterance, reason: str) -> None:
        failed(utterance.id, reason)

    wanted = [u for u in utterances if u.id in file_names]
    for transcript in align_corpus(aligner, wanted, unfit, tick):
        try:
            for name, format in formats.items():
                file = file_names[transcript.id] + format.suffix
                offset_s = offsets[transcript.id] if name in OF_RECORDINGS else 0.0
                write_text(out / file, written(name, _later(transcript, offset_s)))
        except InputError as error:
            if is_full(error):
                raise
            failed(transcript.id, error)
        else:
            done[transcript.id] = transcript
    return [(u, done[u.id]) for u in wanted if u.id in done]


def _later(transcript: Transcript, offset_s: float) -> Transcript:
    """The transcript with its times ``offset_s`` later."""
    if not offset_s:
        return transcript
    words, labels = (
        tuple(
            replace(s, start_s=(s.start_s or 0) + offset_s, end_s=(s.end_s or 0) + offset_s)
            for s in segments
        )
        for segments in (transcript.words, transcript.labels)
    )
    duration_s = transcript.duration_s + offset_s
    return replace(transcript, words=words, labels=labels, duration_s=duration_s)


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
