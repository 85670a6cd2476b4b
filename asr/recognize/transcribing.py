"""From names of audio to transcripts on standard output or in files: what asr transcribe does."""

from __future__ import annotations

import sys
from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from asr.audio.read import STDIN
from asr.audio.sources import Failed, Source, distinct, each_channel, find_sources, read_list
from asr.errors import InputError, one_line
from asr.g2p.unknown import PRONOUNCED
from asr.model.emissions import by_speaker
from asr.recognize.files import (
    Loading,
    Transcriber,
    load_for_files,
    may_hold_files,
    transcribe_all,
    transcribe_into,
)
from asr.recognize.transcripts import FORMATS, Format, formats_named, to_jsonl
from asr.system.device import OF_CPU
from asr.system.files import given, remove_abandoned
from asr.system.text import read_keys
from asr.types import Transcript

if TYPE_CHECKING:
    from asr.recognize.remote import RemoteRecognizer

#: What holds audio files, or names them.
PACKED = (".tar", ".jsonl", ".json")
#: The format of standard output that names the file.
TEXT = "text"


class Output(NamedTuple):
    """What becomes of transcripts, in the terms of the command line.

    format: names of formats, with commas; None stands for the usual one. out: a folder; None stands
    for standard output. each_channel: a transcript a channel. on_ray: by Ray, in parts.
    """

    format: str | None = None
    out: Path | None = None
    redo: bool = False
    each_channel: bool = False
    on_ray: bool = False


def transcribe_named(
    named: Sequence[str],
    listed: Path | None,
    output: Output,
    loading: Loading,
    tell: Callable[[str], None],
    server: str | None = None,
    key_file: Path | None = None,
) -> bool:
    """Transcribe the audio that is ``named`` or ``listed`` in a file; returns whether all was.

    server: where one answers, by the model that it calls as ``loading`` does, to the first key of
    ``key_file``.

    What cannot be read or written is told at the end, the rest goes on.

    Raises:
        InputError: options that contradict each other or the model, or no room to write to.
    """
    out = output.out
    remote = _remote(server, key_file, loading, output.on_ray)
    asked, formats = _formats(output)
    _check(loading, output, formats)
    bad: list[str] = []

    def failed(path: Path, error: InputError) -> None:
        hint = "; a list of files is for --list -" if path == STDIN else ""
        bad.append(f"{error}{hint}")

    names = _names(named, listed, output.on_ray)
    # Lines of path and text say all; anything else goes by ids.
    sources = _sources(names, output, server is not None, asked != TEXT, failed)
    if loading.adapt:
        places = by_speaker(source.speaker or source.id for source in sources)
        sources = [sources[i] for of_one in places.values() for i in of_one]
    n_asked = len(sources) + len(bad)
    joins = asked == "json" or all(f.joins for f in formats.values())
    if out is None and len(sources) > 1 and not joins:
        raise InputError(f"--format {asked}: standard output takes one such file; use --out")

    def load() -> Transcriber:
        if remote is not None:
            return remote()
        options = loading.options
        if out is not None and options.pronounced is None:
            options = replace(options, pronounced=out / PRONOUNCED)
        recognizer = load_for_files(loading._replace(options=options), tell)
        if "wrd" in formats and not recognizer.finds_words:
            raise InputError("--format wrd: this model finds phones, no words; add --lexicon")
        return recognizer

    try:
        if out is None:
            transcribe_all(sources, load, partial(_print, asked), failed)
        elif output.on_ray:
            # What it and a server need takes a tenth of the start.
            from asr.recognize.ray import transcribe_parts

            remove_abandoned(out)
            if sources:
                on_cpu = loading._replace(device="cpu")
                make = partial(load_for_files, on_cpu, tell)
                transcribe_parts(sources, out, make, repr(on_cpu), output.redo, tell, failed)
        else:
            transcribe_into(out, sources, formats, load, output.redo, tell, failed)
    except KeyboardInterrupt:
        tell("interrupted; what is written is whole")
        raise
    finally:
        for line in bad:
            tell(line)
    if bad and n_asked > 1:
        tell(f"{len(bad)} of {n_asked} inputs failed")
    return not bad


def _check(loading: Loading, output: Output, formats: Container[str]) -> None:
    """See that how a model is used goes with what becomes of its transcripts."""
    if output.on_ray and loading.device not in OF_CPU:
        raise InputError(
            f"--device {loading.device}: --engine ray computes on CPUs; use auto or cpu"
        )
    nbest = loading.options.nbest or 1
    if nbest > 1 and "json" not in formats and "jsonl" not in formats:
        raise InputError(f"--nbest {nbest}: alternatives are for --format json")


def _remote(
    server: str | None, key_file: Path | None, loading: Loading, on_ray: bool
) -> Callable[[], RemoteRecognizer] | None:
    """What asks the server, where there is one."""
    if server is None:
        if not loading.model:
            raise InputError("name a model with --model, or what serves one with --server")
        return None
    from asr.recognize.remote import RemoteRecognizer, check_loading

    check_loading(server, loading, on_ray)
    key = read_keys(key_file)[0] if key_file else None
    return partial(RemoteRecognizer, server, loading.model or None, key)


def _formats(output: Output) -> tuple[str, dict[str, Format]]:
    """What --format says or is by default, and the formats of that."""
    format, out, on_ray = output.format, output.out, output.on_ray
    if on_ray and (out is None or format not in (None, "jsonl")):
        raise InputError("--engine ray writes JSONL into a folder: name it with --out, no --format")
    named = (format or ("jsonl" if on_ray else TEXT if out is None else "txt")).lower()
    formats = {} if named == TEXT else formats_named(named)
    if out is None:
        if len(formats) > 1:
            raise InputError(
                f"--format {format}: standard output takes one; name a folder with --out"
            )
        return named, formats
    if named == TEXT:
        raise InputError("--format text is for standard output; in files it is called txt")
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: is a file; expected a folder")
    if not may_hold_files(out):
        raise InputError(f"--out {out}: cannot be written to; name another folder")
    return named, formats


def _names(named: Sequence[str], listed: Path | None, on_ray: bool) -> Sequence[str]:
    """The names of audio on the command line, and those of the list."""
    if on_ray and str(STDIN) in named:
        raise InputError("-: --engine ray reads files, and standard input is none; name files")
    if listed is None:
        if not named:
            raise InputError("no AUDIO: name files or folders, - for standard input, or a --list")
        return named
    if listed == STDIN and str(STDIN) in named:
        raise InputError("-: standard input is either audio or the --list")
    try:
        if listed == STDIN:
            names = read_list(given())
        else:
            with listed.open("rb") as stream:
                names = read_list(stream)
    except OSError as error:
        raise InputError(f"--list {listed}: cannot be read ({error.strerror})") from error
    if not names and not named:
        raise InputError(f"--list {listed}: names no file")
    return [*named, *names]


def _sources(
    names: Sequence[str], output: Output, as_named: bool, by_id: bool, failed: Failed
) -> list[Source]:
    """The audio that the names mean, or, but for ``as_named``, what is in tars and manifests.

    by_id: no two of one id.
    """
    sources = find_sources(names, failed)
    if not as_named and any(source.path.suffix.lower() in PACKED for source in sources):
        # What reads them takes a while to import.
        from asr.recognize.unpacking import unpacked

        sources = unpacked(sources, failed)
        if output.out is not None and not output.on_ray:
            sources = below_out(sources, failed)
    if output.each_channel:
        sources = each_channel(sources)
    return distinct(sources, failed) if by_id else sources


def below_out(sources: Sequence[Source], failed: Failed) -> list[Source]:
    """Those whose ids name files below a folder; ``failed`` gets the others."""
    found = []
    for source in sources:
        place = Path(source.id)
        if place.is_absolute() or ".." in place.parts:
            failed(
                source.path,
                InputError(f"{source.path}: its id {source.id!r} leads out of --out; rename it"),
            )
        else:
            found.append(source)
    return found


def _print(name: str, transcript: Transcript) -> None:
    if name == TEXT:
        channel = f".ch{transcript.channel}" if transcript.channel else ""
        text = f"{one_line(str(transcript.audio))}{channel}\t{transcript.text}\n"
    else:
        text = to_jsonl(transcript) if name == "json" else FORMATS[name].write(transcript)
    sys.stdout.write(text)
    sys.stdout.flush()
