"""asr align: audio and its text to the times of words and phones."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asr.cli import app, tell
from asr.cli.options import DeviceOption
from asr.cli.transcribe import is_full
from asr.errors import InputError, one_line

if TYPE_CHECKING:
    from asr.types import Transcript, Utterance

#: A format besides those of `recognize.transcripts`: the manifest with the times found.
MANIFEST = "manifest"


class Unit(StrEnum):
    """What texts are made of."""

    word = "word"
    phone = "phone"


@app.command()
def align(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="AUDIO|MANIFEST",
            help="An audio file (- for audio on standard input), or a .jsonl manifest.",
        ),
    ],
    model: Annotated[
        str,
        typer.Option(
            help="Model (or run) directory, FILE.onnx, or torchaudio:BUNDLE, perhaps with "
            "=WEIGHTS; framewise ones are exacter."
        ),
    ],
    text: Annotated[
        Path | None, typer.Argument(metavar="[TEXT]", help="The text of AUDIO: words, or phones.")
    ] = None,
    format: Annotated[
        str,
        typer.Option(
            help="textgrid, ctm, phn, wrd, json, jsonl, srt, vtt, txt, trn or manifest (a manifest "
            "with the times, to train on); several with commas."
        ),
    ] = "textgrid",
    out: Annotated[
        Path | None,
        typer.Option(
            help="For AUDIO a file (standard output by default), for MANIFEST a folder; also a "
            "folder for several formats and a file for a MANIFEST's ctm, jsonl, txt, trn, manifest."
        ),
    ] = None,
    unit: Annotated[
        Unit | None, typer.Option(help="By default word where words can be spelled, else phone.")
    ] = None,
    lexicon: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|cmudict",
            help="Instead of the model's: lines of a word and its phones, or all of CMUdict.",
        ),
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Find where in AUDIO each word and phone of its TEXT lies, or do so for a whole MANIFEST.

    What cannot be aligned (audio too short for its text, a word that the lexicon lacks) is listed,
    the rest goes on, and the exit status is 1.
    """
    from asr.audio.read import STDIN
    from asr.data.manifest import write_manifest
    from asr.recognize.aligner import Aligner, align_corpus, with_times
    from asr.recognize.transcripts import formats_named
    from asr.system.files import remove_abandoned, write_text
    from asr.system.progress import progress_bar

    names = list(dict.fromkeys(name.strip().lower() for name in format.split(",")))
    others = [name for name in names if name != MANIFEST]
    formats = formats_named(",".join(others)) if others else {}
    if out is None and (text is None or names != others or len(names) > 1):
        raise InputError("--out is missing: name a folder (or, for one format, a file)")
    if source == STDIN and MANIFEST in names:
        raise InputError("--format manifest: names audio files, and standard input is none")
    aligner = Aligner.load(model, unit and unit.value, lexicon, device)
    if "wrd" in names and aligner.unit == "phone":
        raise InputError("--format wrd: aligned by phones there are no words; choose phn")
    joined = {n for n in names if n == MANIFEST or formats[n].joins or text is not None}
    done: dict[str, Transcript] = {}
    n_failed = 0
    with progress_bar() as progress:

        def failed(name: str, reason: str | InputError) -> None:
            nonlocal n_failed
            n_failed += 1
            progress.console.print(
                f"asr: {one_line(f'{name}: {reason}')}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )

        utterances = utterances_of(source, text, aligner.unit, failed)
        file_names = _file_names(utterances, failed) if joined != set(names) else {}
        utterances = [u for u in utterances if not file_names or u.id in file_names]
        task = progress.add_task("aligning", total=len(utterances))

        def tick(count: int) -> None:
            progress.advance(task, count)

        def unfit(utterance: Utterance, reason: str) -> None:
            failed(utterance.id, reason)

        for transcript in align_corpus(aligner, utterances, unfit, tick):
            try:
                for name in formats.keys() - joined:
                    file = file_names[transcript.id] + formats[name].suffix
                    write_text(Path(out or "") / file, written(name, transcript))
            except InputError as error:
                if is_full(error):
                    raise
                failed(transcript.id, error)
            else:
                done[transcript.id] = transcript

    if out is not None and out.is_dir():
        remove_abandoned(out)
    found = [(u, done[u.id]) for u in utterances if u.id in done]
    for name in joined if found else ():
        suffix = ".jsonl" if name == MANIFEST else formats[name].suffix
        if out is None:
            sys.stdout.write(written(name, found[0][1]))
            continue
        path = out
        if is_folder(out, suffix, single=text is not None and len(names) == 1):
            path = out / ((utterances[0].id if text else source.stem) + suffix)
        if name == MANIFEST:
            write_manifest(path, [with_times(u, transcript) for u, transcript in found])
        else:
            write_text(path, "".join(written(name, transcript) for _, transcript in found))
    if out is not None:
        print(f"{out}: {len(found)} of {len(found) + n_failed} utterances aligned")
    if n_failed:
        if missing := aligner.missing(utterances):
            tell(missing)
        tell(f"{n_failed} of {len(found) + n_failed} utterances not aligned")
        raise typer.Exit(1)


def is_folder(out: Path, suffix: str, single: bool) -> bool:
    """Whether ``out`` names a folder; ``single``: one output file is all there will be."""
    return out.is_dir() or not (single or out.suffix.lower() == suffix.lower())


def _file_names(
    utterances: Sequence[Utterance], failed: Callable[[str, str], None]
) -> dict[str, str]:
    """The name of each utterance's file, by id; ``failed`` gets those whose name another has."""
    by_name: dict[str, Utterance] = {}
    for utterance in utterances:
        other = by_name.setdefault(re.sub(r"[/\\]", "_", utterance.id), utterance)
        if other is not utterance:
            failed(utterance.id, f"its file would be that of {other.id}; rename one")
    return {utterance.id: name for name, utterance in by_name.items()}


def utterances_of(
    source: Path, text: Path | None, unit: str, failed: Callable[[str, InputError], None]
) -> list[Utterance]:
    """The manifest's utterances, or the one of an audio file and its text.

    ``failed`` gets a line of the manifest that cannot be used.
    """
    from asr.audio.read import STDIN, audio_duration_s
    from asr.data.manifest import read_manifest
    from asr.system.text import read_text
    from asr.types import Segment, Utterance

    if text is None:
        if source.suffix.lower() not in (".jsonl", ".json"):
            raise InputError(
                f"{source}: expected a .jsonl manifest, or the audio's TEXT after it; "
                "asr prepare makes manifests of corpora"
            )
        return read_manifest(source, failed)
    # TIMIT's .TXT begins with the audio's first and last sample.
    said = re.sub(r"^\s*0\s+\d{4,}\s+", "", read_text(text))
    phones = tuple(Segment(phone) for phone in said.split()) if unit == "phone" else None
    name = "stdin" if source == STDIN else source.stem
    duration_s = audio_duration_s(source)
    return [Utterance(name, source, name, duration_s, text=said, phones=phones)]


def written(name: str, transcript: Transcript) -> str:
    """The transcript in the named format; TIMIT's count the samples of the audio."""
    from asr.audio.read import audio_rate
    from asr.recognize.transcripts import FORMATS, to_phn, to_wrd

    timit = {"phn": to_phn, "wrd": to_wrd}
    if name in timit and transcript.audio is not None:
        return timit[name](transcript, audio_rate(transcript.audio))
    return FORMATS[name].write(transcript)
