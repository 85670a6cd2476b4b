"""The `asr` command: one small file a subcommand, heavy imports only inside the commands."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated

import typer

from asr import __version__
from asr.errors import InputError, one_line
from asr.system import interrupts

app = typer.Typer(
    name="asr",
    help="Carousel: train recurrent speech recognisers, transcribe audio, score error rates.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


#: Modules of this package, each named like its command.
COMMANDS = (
    "align",
    "check",
    "combine",
    "compare",
    "demo",
    "export",
    "g2p",
    "listen",
    "lm",
    "memory",
    "plot",
    "prepare",
    "report",
    "score",
    "serve",
    "synthesize",
    "train",
    "transcribe",
    "tune",
)


def _tell_version(wanted: bool) -> None:
    if wanted:
        print(f"asr {__version__}")
        raise typer.Exit


@app.callback()
def _app(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_tell_version, is_eager=True, help="Say which this is, and exit."
        ),
    ] = False,
) -> None:
    # With a callback, `asr` stays a group when a single command is registered.
    pass


def tell(line: str) -> None:
    """Say something beside the output."""
    print(f"asr: {one_line(line)}", file=sys.stderr)


def register(commands: Sequence[str] = COMMANDS) -> None:
    """Import the command modules; each adds itself to `app`."""
    for command in commands:
        import_module(f"asr.cli.{command}")


def _occupy() -> None:
    """Take the places of standard streams that are closed (``>&-``), before an opened file does.

    What is then written to standard output fails, which is told; to standard error it is lost.
    """
    for number, mode in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def main() -> None:
    """Run `asr`; a user's mistake is one line on standard error and exit status 2."""
    # Features must not depend on the number of cores, as sums that numpy's threads share do; and
    # starting the threads is a tenth of the time that scoring a million words takes.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    _occupy()
    interrupts.listen()
    for stream in (sys.stdout, sys.stderr):
        # File names may hold any bytes; they are printed as they are.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")
    try:
        # Just what is asked for, as a start with all of them takes half as long again.
        named = [command for command in COMMANDS if command in sys.argv[1:2]]
        register(named or COMMANDS)
        try:
            app()
        finally:
            # Here and not while Python exits, so that a full disk is told.
            sys.stdout.flush()
    except InputError as error:
        print(f"asr: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        # What is still buffered for standard output cannot be written either.
        os.dup2(nowhere := os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno == errno.EPIPE:
            # The reader (head, less) has left: that is its right; it may have read both.
            os.dup2(nowhere, sys.stderr.fileno())
            sys.exit(0)
        if error.errno == errno.EBADF:
            print("asr: standard output is closed; redirect it instead", file=sys.stderr)
            sys.exit(2)
        where = f"{error.filename}: " if error.filename else ""
        print(f"asr: {where}{error.strerror or error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("asr: interrupted", file=sys.stderr)
        sys.exit(130)
