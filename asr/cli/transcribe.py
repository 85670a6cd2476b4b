"""asr transcribe: audio files to text with times."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
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
    DeviceOption,
    LexiconOption,
    LmOption,
    NoLexiconOption,
    RescoreOption,
    lexicon_named,
)
from asr.errors import InputError, one_line

if TYPE_CHECKING:
    from asr.audio.sources import Failed, Source
    from asr.model.options import DecodingOptions
    from asr.recognize.recognizer import Recognizer
    from asr.recognize.transcripts import Format
    from asr.types import Transcript


class DecoderName(StrEnum):
    """The searches."""

    greedy = "greedy"
    beam = "beam"
    viterbi = "viterbi"


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
#: Models of waveforms were trained on longer utterances than ours.
WAVEFORM_WINDOW_S = 20.0
FULL = (errno.ENOSPC, errno.EDQUOT)
#: Files written at once: each waits for the disk, which serves many in the time of one.
WRITERS = 8
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
    decoder: Annotated[
        DecoderName | None,
        typer.Option(help="Instead of the model's own.", rich_help_panel=SEARCH),
    ] = None,
    beam: BeamOption = None,
    nbest: Annotated[
        int | None, typer.Option(min=1, help="Alternatives, in JSON.", rich_help_panel=SEARCH)
    ] = None,
    lexicon: LexiconOption = None,
    no_lexicon: NoLexiconOption = False,
    lm: LmOption = None,
    lm_weight: Annotated[
        float | None, typer.Option(min=0, help="Of the LM.", rich_help_panel=SEARCH)
    ] = None,
    bonus: Annotated[
        float | None, typer.Option(help="For each label, or word.", rich_help_panel=SEARCH)
    ] = None,
    unknown: Annotated[
        float | None,
        typer.Option(help="Price of a word outside the lexicon.", rich_help_panel=SEARCH),
    ] = None,
    hotword: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WORDS:BOOST", help="More likely by BOOST; repeat.", rich_help_panel=SEARCH
        ),
    ] = None,
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
    from asr.audio.sources import distinct, each_channel, find_sources
    from asr.model.options import DecodingOptions
    from asr.recognize.transcripts import formats_named
    from asr.system.files import remove_abandoned, write_text

    on_ray = engine is Engine.ray
    if on_ray and (out is None or format not in (None, "jsonl")):
        raise InputError("--engine ray writes JSONL into a folder: name it with --out, no --format")
    if on_ray and device not in ("auto", "cpu"):
        raise InputError(f"--device {device}: --engine ray computes on CPUs; use auto or cpu")
    named = (format or ("jsonl" if on_ray else TEXT if out is None else "txt")).lower()
    formats = {} if named == TEXT else formats_named(named)
    if out is None and len(formats) > 1:
        raise InputError(f"--format {format}: standard output takes one; name a folder with --out")
    if out is not None and named == TEXT:
        raise InputError("--format text is for standard output; in files it is called txt")
    if out is not None and out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: is a file; expected a folder")
    if out is not None and not _may_hold_files(out):
        raise InputError(f"--out {out}: cannot be written to; name another folder")
    if nbest is not None and nbest > 1 and not {"json", "jsonl"} & formats.keys():
        raise InputError(f"--nbest {nbest}: alternatives are for --format json")
    bad: list[str] = []

    def failed(path: Path, error: InputError) -> None:
        hint = "; a list of files is for --list -" if path == STDIN else ""
        bad.append(f"{error}{hint}")

    sources = find_sources(_names(files or [], listed, on_ray), failed)
    if on_ray:
        from asr.recognize.ray import unpacked

        sources = unpacked(sources, failed)
    if channels is Channels.each:
        sources = each_channel(sources)
    # Lines of path and text say all; anything else goes by ids.
    if named != TEXT:
        sources = distinct(sources, failed)
    n_asked = len(sources) + len(bad)
    if out is None and len(sources) > 1 and named not in ("text", "json"):
        (only,) = formats.values()
        if not only.joins:
            raise InputError(f"--format {named}: standard output takes one such file; use --out")
    wanted = {source.id: formats for source in sources}
    if out is not None:
        remove_abandoned(out)
    if out is not None and not redo and not on_ray:
        wanted = {
            source.id: {n: f for n, f in formats.items() if not _is_there(out, source.id, f)}
            for source in sources
        }
        sources = [source for source in sources if wanted[source.id]]
        if n_there := len(wanted) - len(sources):
            tell(f"{n_there} of {len(wanted)} transcripts are there (--redo replaces them)")

    def deliver(transcript: Transcript) -> None:
        if out is None:
            _print(transcript, named)
            return
        for format in wanted[transcript.id].values():
            write_text(_place(out, transcript.id, format), format.write(transcript))

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
    try:
        if sources and on_ray and out is not None:
            from asr.recognize.ray import transcribe_parts

            make = partial(_recognizer, *how, "cpu")
            transcribe_parts(sources, out, make, repr(how), redo, tell, failed)
        elif sources:
            recognizer = _recognizer(*how, device)
            if "wrd" in formats and not recognizer.finds_words:
                raise InputError("--format wrd: this model finds phones, no words; add --lexicon")
            n_writers = 1 if out is None else WRITERS
            _transcribe_all(recognizer, sources, deliver, failed, n_writers)
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


def _recognizer(
    model: str,
    options: DecodingOptions,
    window: float | None,
    keep_silence: bool,
    precision: str,
    device: str,
) -> Recognizer:
    import torch

    from asr.audio.windows import WindowConfig
    from asr.model.pretrained import WaveformModel, load_model
    from asr.recognize.recognizer import Recognizer

    if precision == "int8" and device == "auto":
        device = "cpu"
    bundle = load_model(model, device)
    windowing, n_threads = WindowConfig(skip_silence=not keep_silence), 1
    if isinstance(bundle.model, WaveformModel):
        windowing = replace(windowing, longest_s=WAVEFORM_WINDOW_S)
    else:
        # Two batches beside each other take less time than two threads for one.
        n_threads = len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1
        torch.set_num_threads(1)
    if window is not None:
        windowing = replace(windowing, longest_s=window)
    return Recognizer(bundle, options, tell, windowing, precision, n_threads)


def _may_hold_files(out: Path) -> bool:
    """Whether a folder that is there, or is to be made, can be written to."""
    there = next(folder for folder in (out, *out.parents) if folder.exists())
    return os.access(there, os.W_OK | os.X_OK)


def _place(out: Path, id: str, format: Format) -> Path:
    return out / f"{id}{format.suffix}"


def _is_there(out: Path, id: str, format: Format) -> bool:
    # Of a place that cannot even be asked about, the attempt to write there will tell.
    return os.path.isfile(_place(out, id, format))  # noqa: PTH113


def _print(transcript: Transcript, name: str) -> None:
    from asr.recognize.transcripts import FORMATS, to_jsonl

    if name == TEXT:
        channel = f".ch{transcript.channel}" if transcript.channel else ""
        text = f"{one_line(str(transcript.audio))}{channel}\t{transcript.text}\n"
    else:
        text = to_jsonl(transcript) if name == "json" else FORMATS[name].write(transcript)
    sys.stdout.write(text)
    sys.stdout.flush()


def _transcribe_all(
    recognizer: Recognizer,
    sources: Sequence[Source],
    deliver: Callable[[Transcript], None],
    failed: Failed,
    n_writers: int,
) -> None:
    """Transcribe one after the other, and deliver ``n_writers`` at once, with a bar."""
    from asr.system.progress import progress_bar

    begun, heard_s = time.perf_counter(), 0.0
    writing: deque[tuple[str, Future[None]]] = deque()
    with progress_bar("speed") as bar, ThreadPoolExecutor(n_writers) as pool:
        task = bar.add_task("transcribing", total=len(sources), speed="")

        def heard(seconds: float) -> None:
            nonlocal heard_s
            heard_s += seconds
            speed = heard_s / (time.perf_counter() - begun)
            bar.update(task, speed=f"{heard_s / 60:.0f} min of audio, {speed:.0f} x real time")

        def unread(source: Source, error: InputError) -> None:
            failed(source.path, error)
            bar.advance(task)

        def settle(most: int) -> None:
            while len(writing) > most:
                id, future = writing.popleft()
                try:
                    future.result()
                except InputError as error:
                    if is_full(error):
                        raise
                    failed(Path(id), error)
                bar.advance(task)

        for transcript in recognizer.transcribe_files(sources, unread, heard):
            writing.append((transcript.id, pool.submit(deliver, transcript)))
            settle(n_writers)
        settle(0)


def is_full(error: InputError) -> bool:
    """Whether there is no room to write to: then there is none for the next file, either."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in FULL
