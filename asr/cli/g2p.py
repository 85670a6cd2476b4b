"""asr g2p: pronunciations for any word, by a net from letters to phones."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from asr.cli import app, tell
from asr.cli.options import DeviceOption
from asr.errors import InputError

g2p_app = typer.Typer(
    help="Letters to phones: learn them from a dictionary, pronounce any word, score that.",
    no_args_is_help=True,
)
app.add_typer(g2p_app, name="g2p")

LEXICON_HELP = "A word and its phones a line, CMUdict's, MFA's or Kaldi's; stress is left out."
Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="A folder of asr g2p train, or english.")
]


@g2p_app.command()
def train(
    lexicon: Annotated[Path, typer.Argument(metavar="LEXICON", help=LEXICON_HELP)],
    out: Annotated[Path, typer.Option(help="A new folder.")],
    dev: Annotated[
        Path | None,
        typer.Option(
            metavar="LEXICON",
            help="Words to choose the best epoch and the search's weights on.",
            show_default="each twentieth word, held out",
        ),
    ] = None,
    taught: Annotated[
        Path | None,
        typer.Option(
            metavar="LEXICON",
            help="More words, as asr g2p apply --nbest pronounces them with a larger MODEL.",
        ),
    ] = None,
    cell: Annotated[
        str, typer.Option(help="rnn, lstm, peephole, coupled, gru or gru_before.")
    ] = "lstm",
    layers: Annotated[int, typer.Option(help="Recurrent layers.")] = 3,
    hidden: Annotated[int, typer.Option(help="Units of a layer in each direction.")] = 256,
    embedding: Annotated[int, typer.Option(help="Units of a letter.")] = 128,
    frames: Annotated[int, typer.Option(help="Frames that a letter becomes.")] = 2,
    dropout: Annotated[float, typer.Option(help="Of what each layer puts out.")] = 0.3,
    order: Annotated[int, typer.Option(help="Phones in an n-gram.")] = 8,
    joint_order: Annotated[
        int, typer.Option(help="Letters with their phones in another n-gram.")
    ] = 7,
    epochs: Annotated[int, typer.Option(help="Passes over the lexicon.")] = 40,
    minutes: Annotated[
        float | None,
        typer.Option(min=0, help="Come to the end then, where the epochs take longer."),
    ] = None,
    batch: Annotated[int, typer.Option(help="Words trained side by side.")] = 256,
    lr: Annotated[float, typer.Option(help="Learning rate, at its highest.")] = 3e-3,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 1,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on with the training interrupted in --out; all else as it began."
        ),
    ] = False,
    device: DeviceOption = "auto",
) -> None:
    """Train a net on LEXICON: recurrent layers over letters, with CTC and n-grams.

    Written is the epoch with the fewest wrong words among those of --dev. What is interrupted can
    go on from its last whole epoch, and comes to the same weights.
    """
    import math
    import shlex
    import sys

    from asr.g2p.net import NetConfig
    from asr.g2p.train import TrainConfig, Training
    from asr.g2p.write import TRAINING, read_dictionaries, write_trained
    from asr.system.device import pick_device
    from asr.system.interrupts import ignore

    config = TrainConfig(
        net=NetConfig(cell, layers, hidden, embedding, frames, dropout),
        order=order,
        joint_order=joint_order,
        epochs=epochs,
        batch=batch,
        lr=lr,
        seed=seed,
    )
    target = pick_device(device)
    limit_s = math.inf if minutes is None else 60 * minutes
    try:
        training = Training.begin(read_dictionaries(lexicon, dev, taught), config, target)
        print(write_trained(out, training, limit_s, partial(typer.echo, err=True), resume))
    except KeyboardInterrupt:
        ignore()
        again = shlex.join(["asr", *sys.argv[1:], *["--resume"] * (not resume)])
        begun = (out / TRAINING).is_file()
        tell(f"stopped; {f'go on with: {again}' if begun else 'nothing was begun'}")
        raise typer.Exit(130) from None


@g2p_app.command()
def join(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL...", help="Of one lexicon.")],
    out: Annotated[Path, typer.Option(help="A new folder.")],
    dev: Annotated[
        Path,
        typer.Option(metavar="LEXICON", help="Words to choose the search's weights on."),
    ],
    device: DeviceOption = "auto",
) -> None:
    """Join the nets of several models, such as of other seeds, to one model that hears them all."""
    from asr.g2p.write import write_joined
    from asr.system.device import pick_device

    print(write_joined(out, models, dev, pick_device(device)))


@g2p_app.command()
def apply(
    model: Model,
    words: Annotated[
        str | None,
        typer.Argument(
            metavar="[WORDS]",
            help="A file of words, apart by white space or lines; - for standard input.",
        ),
    ] = None,
    more: Annotated[
        list[str] | None,
        typer.Option(
            "--word", metavar="WORD", help="A word, instead of WORDS or beside them; repeat."
        ),
    ] = None,
    nbest: Annotated[
        int, typer.Option(min=1, help="Pronunciations of a word; several come with probabilities.")
    ] = 1,
    device: DeviceOption = "auto",
) -> None:
    """Print the pronunciation of each word, as a lexicon that --lexicon takes.

    A word with letters that MODEL does not know is listed, and the exit status is 1.
    """
    from asr.g2p.model import Pronouncer
    from asr.g2p.unknown import folder_of
    from asr.g2p.words import lexicon_line
    from asr.system.device import pick_device
    from asr.system.files import given
    from asr.system.text import decoded, nfc, read_text

    named = [nfc(word) for word in more or ()]
    if words is None and not named:
        raise InputError("no words: name a file of them (- for standard input), or --word WORD")
    if words is not None:
        text = decoded(words, given().read()) if words == "-" else read_text(Path(words))
        if not text.split():
            raise InputError(f"{words}: holds no word")
        named += text.split()
    said = list(dict.fromkeys(named))
    pronouncer = Pronouncer.load(folder_of(model)).to(pick_device(device))
    lacking = []
    for word, ways in zip(said, pronouncer.pronounce(said, nbest), strict=True):
        if not ways:
            lacking.append(word)
        for phones, probability in ways:
            print(lexicon_line(word, phones, probability if nbest > 1 else None))
    if lacking:
        tell(
            f"{len(lacking)} of {len(said)} words have letters that {model} does not know: "
            f"{' '.join(lacking[:10])}{' ...' * (len(lacking) > 10)}"
        )
        raise typer.Exit(1)


@g2p_app.command()
def score(
    model: Model,
    lexicon: Annotated[Path, typer.Argument(metavar="LEXICON", help=LEXICON_HELP)],
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
    device: DeviceOption = "auto",
) -> None:
    """Print how many words of LEXICON get none of its pronunciations, and how many phones differ.

    Phones are compared with those of the nearest pronunciation.
    """
    import json
    from dataclasses import asdict

    from asr.g2p.model import Pronouncer
    from asr.g2p.score import score as score_model
    from asr.g2p.unknown import folder_of
    from asr.g2p.words import Dictionary
    from asr.system.device import pick_device

    pronouncer = Pronouncer.load(folder_of(model)).to(pick_device(device))
    found = score_model(pronouncer, Dictionary.read(lexicon, pronouncer.phones.symbols[1:]))
    if as_json:
        print(json.dumps(asdict(found), indent=2))
        return
    print(found)
