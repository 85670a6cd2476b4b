"""asr transcribe: audio files to text with times."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asr.cli import app, tell
from asr.cli.options import (
    COMPUTING,
    SEARCH,
    BeamOption,
    BonusOption,
    DecoderOption,
    DeviceOption,
    HotwordOption,
    LexiconOption,
    LmOption,
    LmWeightOption,
    NoLexiconOption,
    RescoreOption,
    UnknownOption,
    lexicon_named,
)
from asr.errors import InputError, one_line

if TYPE_CHECKING:
    from asr.audio.sources import Failed, Source
    from asr.recognize.recognizer import Recognizer
    from asr.recognize.transcripts import Format
    from asr.types import Transcript


class Channels(StrEnum):
    """What to do with more than one."""

    mix = "mix"
    each = "each"


class Engine(StrEnum):
    """What the work runs on."""

    local = "local"
    ray = "ray"


class Precision(StrEnum):
    """What the net computes in."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    int8 = "int8"


#: The format of standard output that names the file.
TEXT = "text"
AUDIO = "Audio"


@app.command()
def transcribe(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[AUDIO]...",
            help="Audio files of any format, rate and length; folders, with all audio below them; "
            "patterns such as 'a/**/*.flac'; - for audio on standard input.",
        ),
    ] = None,
    *,
    model: Annotated[
        str,
        typer.Option(
            help="Model (or run) directory, FILE.onnx, or torchaudio:BUNDLE, perhaps with =WEIGHTS."
        ),
    ],
    listed: Annotated[
        Path | None,
        typer.Option(
            "--list",
            help="File of further names of AUDIO, one a line (or with NUL between, as of find "
            "-print0); - for such a list on standard input.",
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            help="txt, json, jsonl, srt, vtt, ctm, trn, textgrid, phn or wrd; with --out several "
            "with commas. On standard output json is a line a file, and text, the default, is "
            "path, tab, text.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for a file an input, in the inputs' folders.", readable=False),
    ] = None,
    redo: Annotated[bool, typer.Option("--redo", help="Replace outputs that exist.")] = False,
    channels: Annotated[
        Channels,
        typer.Option(
            help="mix, or each: a transcript a channel (.ch1 ...).", rich_help_panel=AUDIO
        ),
    ] = Channels.mix,
    window: Annotated[
        float | None,
        typer.Option(
            min=1,
            help="Audio beyond 30 s is cut at its quietest into windows of so many seconds at most "
            "(6; 20 for models of waveforms).",
            rich_help_panel=AUDIO,
        ),
    ] = None,
    keep_silence: Annotated[
        bool,
        typer.Option(
            "--keep-silence",
            help="Let the model hear long silence, too.",
            rich_help_panel=AUDIO,
        ),
    ] = False,
    precision: Annotated[
        Precision,
        typer.Option(
            help="Of the net: bfloat16 is fast where the processor knows it, int8 elsewhere.",
            rich_help_panel=COMPUTING,
        ),
    ] = Precision.float32,
    device: DeviceOption = "auto",
    engine: Annotated[
        Engine,
        typer.Option(
            help="ray: on the cluster that RAY_ADDRESS names, or else on one of this machine's "
            "own; AUDIO may be tars and manifests (.tar, .jsonl); JSONL in parts goes to --out.",
            rich_help_panel=COMPUTING,
        ),
    ] = Engine.local,
    decoder: DecoderOption = None,
    beam: BeamOption = None,
    nbest: Annotated[
        int | None, typer.Option(min=1, help="Alternatives, in JSON.", rich_help_panel=SEARCH)
    ] = None,
    lexicon: LexiconOption = None,
    no_lexicon: NoLexiconOption = False,
    lm: LmOption = None,
    lm_weight: LmWeightOption = None,
    bonus: BonusOption = None,
    unknown: UnknownOption = None,
    hotword: HotwordOption = None,
    rescore: RescoreOption = None,
    rescore_weight: Annotated[
        float | None, typer.Option(min=0, help="Of that LM.", rich_help_panel=SEARCH)
    ] = None,
) -> None:
    """Transcribe AUDIO to standard output, in order, or to files.

    What cannot be read is listed at the end, the rest goes on, and the exit status is 1.

    The search, its lexicon, language models and weights are the model's own (see asr tune) where
    no option changes them. Weights and boosts are in natural logarithms.
    """
    from asr.audio.read import STDIN
    from asr.model.options import DecodingOptions
    from asr.recognize.files import load_for_files, transcribe_all, transcribe_into
    from asr.system.device import OF_CPU
    from asr.system.files import remove_abandoned

    on_ray = engine is Engine.ray
    named, formats = _formats(format, out, on_ray)
    if on_ray and device not in OF_CPU:
        raise InputError(f"--device {device}: --engine ray computes on CPUs; use auto or cpu")
    if nbest is not None and nbest > 1 and not {"json", "jsonl"} & formats.keys():
        raise InputError(f"--nbest {nbest}: alternatives are for --format json")
    bad: list[str] = []

    def failed(path: Path, error: InputError) -> None:
        hint = "; a list of files is for --list -" if path == STDIN else ""
        bad.append(f"{error}{hint}")

    names = _names(files or [], listed, on_ray)
    # Lines of path and text say all; anything else goes by ids.
    sources = _sources(names, channels, on_ray, by_id=named != TEXT, failed=failed)
    n_asked = len(sources) + len(bad)
    joins = named == "json" or all(f.joins for f in formats.values())
    if out is None and len(sources) > 1 and not joins:
        raise InputError(f"--format {named}: standard output takes one such file; use --out")
    options = DecodingOptions(
        decoder=decoder and decoder.value,
        beam=beam,
        nbest=nbest,
        lexicon=lexicon_named(lexicon, no_lexicon),
        lm=lm,
        lm_weight=lm_weight,
        bonus=bonus,
        unknown=unknown,
        hotword=tuple(hotword or ()),
        rescore=rescore,
        rescore_weight=rescore_weight,
    )
    how = (model, options, window, keep_silence, precision.value)

    def load() -> Recognizer:
        recognizer = load_for_files(*how, device, tell)
        if "wrd" in formats and not recognizer.finds_words:
            raise InputError("--format wrd: this model finds phones, no words; add --lexicon")
        return recognizer

    try:
        if out is None:
            transcribe_all(sources, load, partial(_print, named), failed)
        elif on_ray:
            remove_abandoned(out)
            if sources:
                from asr.recognize.ray import transcribe_parts

                make = partial(load_for_files, *how, "cpu", tell)
                transcribe_parts(sources, out, make, repr(how), redo, tell, failed)
        else:
            transcribe_into(out, sources, formats, load, redo, tell, failed)
    except KeyboardInterrupt:
        tell("interrupted; what is written is whole")
        raise typer.Exit(130) from None
    finally:
        for line in bad:
            tell(line)
    if bad:
        if n_asked > 1:
            tell(f"{len(bad)} of {n_asked} inputs failed")
        raise typer.Exit(1)


def _formats(format: str | None, out: Path | None, on_ray: bool) -> tuple[str, dict[str, Format]]:
    """What --format says or is by default, and the formats of that."""
    from asr.recognize.files import may_hold_files
    from asr.recognize.transcripts import formats_named

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
    from asr.audio.read import STDIN
    from asr.audio.sources import read_list

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
            names = read_list(sys.stdin.buffer)
        else:
            with listed.open("rb") as stream:
                names = read_list(stream)
    except OSError as error:
        raise InputError(f"--list {listed}: cannot be read ({error.strerror})") from error
    if not names and not named:
        raise InputError(f"--list {listed}: names no file")
    return [*named, *names]


def _sources(
    names: Sequence[str], channels: Channels, on_ray: bool, by_id: bool, failed: Failed
) -> list[Source]:
    """The audio that the names mean; ``by_id``: no two of one id."""
    from asr.audio.sources import distinct, each_channel, find_sources

    sources = find_sources(names, failed)
    if on_ray:
        from asr.recognize.ray import unpacked

        sources = unpacked(sources, failed)
    if channels is Channels.each:
        sources = each_channel(sources)
    return distinct(sources, failed) if by_id else sources


def _print(name: str, transcript: Transcript) -> None:
    from asr.recognize.transcripts import FORMATS, to_jsonl

    if name == TEXT:
        channel = f".ch{transcript.channel}" if transcript.channel else ""
        text = f"{one_line(str(transcript.audio))}{channel}\t{transcript.text}\n"
    else:
        text = to_jsonl(transcript) if name == "json" else FORMATS[name].write(transcript)
    sys.stdout.write(text)
    sys.stdout.flush()
