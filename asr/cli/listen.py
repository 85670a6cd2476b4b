"""asr listen: words while one speaks."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from asr.cli import app, tell
from asr.cli.options import COMPUTING, DeviceOption, searching
from asr.decode.config import DecodingOptions
from asr.decode.endpoint import EndpointConfig

KALDI = EndpointConfig()
ENDPOINTS = "Ends of segments (Kaldi's rules; 0 switches one off)"


def _rule(help: str) -> typer.models.OptionInfo:
    return typer.Option(min=0, metavar="SECONDS", help=help, rich_help_panel=ENDPOINTS)


def _cost(rule: int) -> typer.models.OptionInfo:
    return typer.Option(min=0, help=f"Relative, of rule {rule}.", rich_help_panel=ENDPOINTS)


@app.command()
@searching("nbest", "rescore", "rescore_weight")
def listen(
    audio: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE|-]",
            help="An audio file, or - for 16-bit mono samples (raw or WAV) on standard input; "
            "by default the microphone.",
        ),
    ] = None,
    *,
    model: Annotated[str, typer.Option(help="Model (or run) directory.")],
    paced: Annotated[
        bool, typer.Option("--paced", help="Hear FILE as if it were spoken now.")
    ] = False,
    rate: Annotated[
        int | None, typer.Option(min=1, metavar="HZ", help="Of raw samples on standard input.")
    ] = None,
    format: Annotated[
        Literal["text", "jsonl"],
        typer.Option(help="text, or jsonl: an event a line (partial, committed, final)."),
    ] = "text",
    chunk_ms: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Audio that the net takes at once; one that it was trained for.",
            rich_help_panel=COMPUTING,
        ),
    ] = None,
    lookahead_ms: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Audio that it hears beyond that; one that it was trained for.",
            rich_help_panel=COMPUTING,
        ),
    ] = None,
    device: DeviceOption = "auto",
    options: DecodingOptions,
    rule1: Annotated[float, _rule("Silence without speech.")] = KALDI.rule1_s,
    rule2: Annotated[float, _rule("Silence after a likely end.")] = KALDI.rule2_s,
    rule2_cost: Annotated[float, _cost(2)] = KALDI.rule2_cost,
    rule3: Annotated[float, _rule("Silence after a possible end.")] = KALDI.rule3_s,
    rule3_cost: Annotated[float, _cost(3)] = KALDI.rule3_cost,
    rule4: Annotated[float, _rule("Silence after speech.")] = KALDI.rule4_s,
    rule5: Annotated[float, _rule("A segment, at most.")] = KALDI.rule5_s,
    carry: Annotated[
        bool,
        typer.Option(
            "--carry",
            help="Let the net go on from segment to segment; by itself it begins anew.",
            rich_help_panel=ENDPOINTS,
        ),
    ] = False,
) -> None:
    """Recognise speech while it is spoken: from the microphone, a pipe or a file.

    On a terminal, words that may yet change are dim. A line ends where the speaker pauses. Ctrl-C
    ends with the last words.
    """
    from asr.audio.live import Feed
    from asr.model.pretrained import load_model
    from asr.recognize.listening import listen as listen_to
    from asr.recognize.listening import packets_of, reader
    from asr.recognize.recognizer import Recognizer

    endpoint = EndpointConfig(rule1, rule2, rule2_cost, rule3, rule3_cost, rule4, rule5, carry)
    recognizer = Recognizer(load_model(model, device), options, tell)
    stream = recognizer.stream(endpoint=endpoint, chunk_ms=chunk_ms, lookahead_ms=lookahead_ms)
    own_rate = recognizer.bundle.features.sample_rate
    packets = packets_of(audio, paced, rate, own_rate, tell)
    with reader(format == "jsonl", tell) as shown:
        listen_to(stream, Feed(packets), shown)
