"""asr serve: models over HTTP."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from asr.cli import app, tell
from asr.cli.options import COMPUTING, DeviceOption
from asr.errors import InputError
from asr.system.memory import loading


@app.command()
def serve(
    model: Annotated[
        list[str],
        typer.Option(
            metavar="[NAME=]MODEL",
            help="Model (or run) directory, FILE.onnx, torchaudio:BUNDLE or hf:USER/NAME, and what "
            "clients call it; again for each.",
        ),
    ],
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8765,
    key_file: Annotated[
        Path | None,
        typer.Option(help="File of keys, one a line; a client must name one of them."),
    ] = None,
    open_to_all: Annotated[
        bool, typer.Option("--open", help="Listen beyond this machine without a key.")
    ] = False,
    origin: Annotated[
        list[str] | None,
        typer.Option(help="Web site whose pages may use the server (CORS); again for each."),
    ] = None,
    max_upload_mb: Annotated[int, typer.Option(min=1, help="Largest file.")] = 512,
    max_audio_s: Annotated[float, typer.Option(min=1.0, help="Longest audio.")] = 14_400.0,
    max_requests: Annotated[int, typer.Option(min=1, help="At once; others get 503.")] = 64,
    max_streams: Annotated[
        int, typer.Option(min=1, help="Live sessions at once; others get 503.")
    ] = 128,
    log_text: Annotated[bool, typer.Option("--log-text", help="Log what was said, too.")] = False,
    device: DeviceOption = "auto",
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="That compute files; by default one for each core.",
            rich_help_panel=COMPUTING,
        ),
    ] = None,
) -> None:
    """Serve models to clients of OpenAI's transcription API.

    Answers are logged on standard output, a JSON object each.
    """
    if sys.platform == "win32":
        raise InputError("asr serve needs Linux or macOS, which limit what decoding a file takes")
    try:
        with loading():
            from asr.serve.app import Limits, Settings, names_of
            from asr.serve.run import bound, those_that_load
            from asr.serve.run import serve as serve_at
            from asr.system.text import read_keys
    except ModuleNotFoundError as error:
        raise InputError(
            f"asr serve needs {error.name}: pip install 'carousel-asr[serve]'"
        ) from error

    keys = read_keys(key_file)
    named = names_of(model)
    listening = bound(host, port, open_to_all or bool(keys))
    with loading():
        models = those_that_load(named, device, threads, tell)
    limits = Limits(max_upload_mb << 20, max_audio_s, max_requests, max_streams)
    try:
        serve_at(models, listening, Settings(limits, keys, tuple(origin or ()), log_text))
    except KeyboardInterrupt:
        # Everything is answered by now.
        print("asr: stopped", file=sys.stderr)
