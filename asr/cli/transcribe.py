"""asr transcribe: audio files to text with times."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asr.cli import app

if TYPE_CHECKING:
    from asr.errors import InputError
    from asr.types import Segment, Transcript


class Format(StrEnum):
    """What to print."""

    text = "text"
    json = "json"


class DecoderName(StrEnum):
    """The searches."""

    greedy = "greedy"
    beam = "beam"
    viterbi = "viterbi"


@app.command()
def transcribe(
    files: Annotated[list[Path], typer.Argument(help="Audio files of any format and rate.")],
    model: Annotated[Path, typer.Option(help="Model directory (or run directory).")],
    format: Annotated[
        Format, typer.Option(help="text: path, tab, text. json: a line a file, with times.")
    ] = Format.text,
    decoder: Annotated[
        DecoderName | None, typer.Option(help="Instead of the model's own decoder.")
    ] = None,
    beam: Annotated[int | None, typer.Option(min=1, help="Beam width.")] = None,
    nbest: Annotated[int | None, typer.Option(min=1, help="Alternatives, in JSON.")] = None,
    lexicon: Annotated[
        bool | None,
        typer.Option("--lexicon/--no-lexicon", help="Search words of the model's lexicon."),
    ] = None,
) -> None:
    """Transcribe FILES to standard output, in order; bad files are told and skipped."""
    from asr.recognizer import Recognizer

    wanted = {
        "name": decoder and decoder.value,
        "beam": beam,
        "nbest": nbest,
        "lexicon": lexicon,
    }
    recognizer = Recognizer.load(model, **{k: v for k, v in wanted.items() if v is not None})
    n_failed = 0

    def failed(path: Path, error: InputError) -> None:
        nonlocal n_failed
        n_failed += 1
        print(f"asr: {error}", file=sys.stderr)

    for transcript in recognizer.transcribe_files(files, failed):
        if format is Format.json:
            print(json.dumps(as_json(transcript), ensure_ascii=False), flush=True)
        else:
            print(f"{transcript.id}\t{transcript.text}", flush=True)
    if n_failed:
        print(f"asr: {n_failed} of {len(files)} files could not be read", file=sys.stderr)
        raise typer.Exit(1)


def as_json(transcript: Transcript) -> dict[str, Any]:
    """A transcript as one JSON object; times in seconds."""
    found: dict[str, Any] = {
        "audio_filepath": transcript.id,
        "text": transcript.text,
        "duration": round(transcript.duration_s, 4),
        "score": round(transcript.score, 4),
        "labels": [_segment(s) for s in transcript.labels],
        "words": [_segment(s) for s in transcript.words],
    }
    if transcript.nbest:
        found["nbest"] = [
            {
                "text": other.text,
                "score": round(other.score, 4),
                "labels": [_segment(s) for s in other.labels],
                "words": [_segment(s) for s in other.words],
            }
            for other in transcript.nbest
        ]
    return found


def _segment(segment: Segment) -> dict[str, Any]:
    return {
        "label": segment.label,
        "start_s": round(segment.start_s or 0.0, 4),
        "end_s": round(segment.end_s or 0.0, 4),
        "confidence": round(segment.confidence or 0.0, 4),
    }
