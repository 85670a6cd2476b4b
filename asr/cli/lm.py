"""`asr lm`: train, score and sample language models, n-gram and LSTM."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from asr.cli import app, tell
from asr.cli.options import DeviceOption, Folding, Unit
from asr.errors import InputError
from asr.score.normalise import NORMALISATIONS, named_ways, normaliser

lm_app = typer.Typer(
    help="Language models, n-gram and LSTM: train them on text, score text, draw sentences.",
    no_args_is_help=True,
)
app.add_typer(lm_app, name="lm")


Kind = Literal["ngram", "lstm"]
Text = Annotated[
    Path,
    typer.Argument(metavar="TEXT", help="A sentence a line; or a manifest (.jsonl)."),
]
Model = Annotated[
    Path,
    typer.Argument(metavar="LM", help="An ARPA file, perhaps gzipped, or a model directory."),
]
Normalise = Annotated[
    str,
    typer.Option(
        "--normalise",
        "--normalize",
        metavar="WHAT[,WHAT]",
        help=f"Make the text alike in {', '.join(NORMALISATIONS)}, as asr score does.",
    ),
]
FOLD_HELP = "Fold phones, after TIMIT's custom."
PANEL = "With --kind {}"
NgramOption = partial(typer.Option, rich_help_panel=PANEL.format("ngram"))
LstmOption = partial(typer.Option, rich_help_panel=PANEL.format("lstm"))


@lm_app.command()
def train(
    context: typer.Context,
    text: Text,
    out: Annotated[
        Path,
        typer.Option(help="The ARPA file to write (gzipped if it ends in .gz), or a new folder."),
    ],
    kind: Annotated[Kind, typer.Option(help="What to train.")] = "ngram",
    unit: Annotated[
        Unit, typer.Option(help="What a token is. The phones of a text stand apart, as words do.")
    ] = "word",
    fold: Annotated[Folding, typer.Option(help=FOLD_HELP)] = "none",
    normalise: Normalise = "",
    dev: Annotated[
        Path | None,
        typer.Option(
            metavar="TEXT",
            help="Text to measure the perplexity on. An LSTM needs one: by default it holds out "
            "the last tenth of the sentences.",
        ),
    ] = None,
    min_count: Annotated[
        int | None,
        typer.Option(
            help="Rarer tokens are the unknown token <unk>.", show_default="1 for ngram, 2 for lstm"
        ),
    ] = None,
    order: Annotated[int, NgramOption(help="Tokens in an n-gram.")] = 3,
    cell: Annotated[
        str, LstmOption(help="rnn, lstm, peephole, coupled, gru or gru_before.")
    ] = "lstm",
    layers: Annotated[int, LstmOption(help="Recurrent layers.")] = 1,
    hidden: Annotated[int, LstmOption(help="Units of a layer.")] = 256,
    dropout: Annotated[float, LstmOption(help="Between layers.")] = 0.3,
    tie: Annotated[bool, LstmOption(help="One weight matrix for embedding and output.")] = True,
    carry: Annotated[
        bool | None,
        LstmOption(
            "--carry/--independent",
            help="A line goes on from the one before, or starts afresh.",
            show_default="carry for a text, independent for a manifest",
        ),
    ] = None,
    epochs: Annotated[int, LstmOption(help="Passes over the text.")] = 10,
    batch: Annotated[int, LstmOption(help="Rows trained side by side.")] = 32,
    bptt: Annotated[int, LstmOption(help="Steps that errors flow back.")] = 64,
    lr: Annotated[
        float,
        LstmOption(help="Learning rate, halved after each epoch without a better dev perplexity."),
    ] = 2e-3,
    seed: Annotated[int, LstmOption(help="Random seed.")] = 1,
) -> None:
    """Train a language model on TEXT.

    ngram: interpolated modified Kneser-Ney, written as an ARPA file. lstm: a recurrent net, written
    as a folder, the epoch with the best dev perplexity. Both predict the tokens of a sentence and
    its end, so that their perplexities compare where the vocabularies (--min-count) are the same.
    """
    from asr.data.manifest import is_manifest
    from asr.lm.lstm import NeuralConfig
    from asr.lm.net import LanguageModelConfig
    from asr.lm.text import held_out, read_sentences, unplain
    from asr.lm.write import write_neural, write_ngram

    least = min_count if min_count is not None else 1 if kind == "ngram" else 2
    _refuse_foreign(context, kind)
    made_alike = _made_alike(normalise, unit)
    sentences = read_sentences(text, unit, fold, made_alike)
    dev_sentences = read_sentences(dev, unit, fold, made_alike) if dev else None
    if unit == "word" and not normalise and (odd := unplain(sentences)):
        tell(
            f"{text}: words with capitals or punctuation stay as they are, such as "
            f"{' '.join(odd)}; --normalise case,punctuation makes them as lexicons mostly have them"
        )
    if kind == "ngram":
        print(write_ngram(out, sentences, dev_sentences, order, least))
        return
    config = NeuralConfig(
        unit=unit,
        fold=fold,
        carry=not is_manifest(text) if carry is None else carry,
        min_count=least,
        model=LanguageModelConfig(cell, layers, hidden, dropout, tie),
        epochs=epochs,
        batch=batch,
        bptt=bptt,
        lr=lr,
        seed=seed,
    )
    if dev_sentences is None:
        sentences, dev_sentences = held_out(sentences, text)
    print(write_neural(out, sentences, dev_sentences, config, partial(typer.echo, err=True)))


def _made_alike(normalise: str, unit: str) -> Callable[[str], str]:
    ways = named_ways(normalise)
    if ways and unit == "phone":
        raise InputError("--normalise is for words and characters, not for phones")
    return normaliser(ways, markup=False)


def _refuse_foreign(context: typer.Context, kind: Kind) -> None:
    """Refuse options that only another kind has."""
    for option in context.command.params:
        source = context.get_parameter_source(option.name or "")
        panel = getattr(option, "rich_help_panel", None)
        if panel not in (None, PANEL.format(kind)) and source and source.name == "COMMANDLINE":
            raise InputError(f"option {option.name!r} is not for --kind {kind}")


@lm_app.command()
def mix(
    models: Annotated[
        list[Path], typer.Argument(metavar="LM...", help="ARPA files, perhaps gzipped.")
    ],
    out: Annotated[Path, typer.Option(help="The ARPA file to write (gzipped if it ends in .gz).")],
    dev: Annotated[
        Path | None,
        typer.Option(metavar="TEXT", help="The text that chooses the weights, by EM."),
    ] = None,
    weights: Annotated[
        str, typer.Option(metavar="W,W", help="The weights, instead of those that --dev chooses.")
    ] = "",
    prune: Annotated[
        float,
        typer.Option(
            help="Leave out n-grams without which the perplexity grows by less than this share, "
            "such as 1e-8 (Stolcke 1998)."
        ),
    ] = 0.0,
    normalise: Normalise = "",
) -> None:
    """Interpolate n-gram models linearly, and write the mixture as one ARPA file.

    A single model is no mixture: it is only pruned.
    """
    from asr.lm.ngram import NGram
    from asr.lm.query import unit_of
    from asr.lm.text import read_sentences
    from asr.lm.write import write_mixture

    if len(models) > 1 and bool(dev) == bool(weights):
        raise InputError(
            "lm mix: expected --dev TEXT, which chooses the weights, or else --weights"
        )
    found = [NGram.read_arpa(model) for model in models]
    unit = unit_of(found[0])
    sentences = read_sentences(dev, unit, "none", _made_alike(normalise, unit)) if dev else []
    print(write_mixture(out, found, sentences, _weights(weights) if weights else [1.0], prune))


def _weights(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--weights {text}: expected numbers, such as 0.3,0.7") from None


@lm_app.command()
def score(
    lm: Model,
    text: Text,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
    lines: Annotated[bool, typer.Option("--lines", help="Give the score of each line.")] = False,
    unit: Annotated[
        Unit | None,
        typer.Option(help="What a token is.", show_default="the model's, char if it has <space>"),
    ] = None,
    fold: Annotated[
        Folding | None, typer.Option(help=FOLD_HELP, show_default="the model's")
    ] = None,
    normalise: Normalise = "",
    device: DeviceOption = "auto",
) -> None:
    """Print the perplexity of TEXT under LM, with and without out-of-vocabulary tokens.

    As in KenLM, the tokens counted are all of a sentence and its end, and an out-of-vocabulary
    token is scored as <unk>. Blank lines are skipped.
    """
    import json
    from dataclasses import asdict

    from asr.lm.query import by_line, load_on, summarize, token_scores, unit_for
    from asr.lm.text import read_sentences

    model = load_on(lm, device)
    chosen, folding = unit_for(model, lm, unit)
    sentences = read_sentences(text, chosen, fold or folding, _made_alike(normalise, chosen))
    scores = token_scores(model, sentences)
    summary = summarize(model, sentences, scores)
    of_lines = by_line(model, sentences, scores, chosen) if lines else []
    if as_json:
        document = asdict(summary) | ({"lines": of_lines} if lines else {})
        print(json.dumps(document, ensure_ascii=False, indent=2))
        return
    for line in of_lines:
        print("{log10_prob:.4f}\t{tokens}\t{oov}\t{perplexity:.2f}\t{text}".format(**line))
    print(
        f"perplexity {summary.perplexity:.2f}, without out-of-vocabulary tokens "
        f"{summary.perplexity_without_oov:.2f}  ({summary.tokens} tokens, {summary.oov} "
        f"out of vocabulary, log10 P {summary.log10_prob:.2f})"
    )


@lm_app.command()
def sample(
    lm: Model,
    prime: Annotated[str, typer.Option(help="The first words; the model draws the rest.")] = "",
    count: Annotated[int, typer.Option(help="Sentences to draw.")] = 1,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 1,
    temperature: Annotated[
        float, typer.Option(help="1: as the model says; lower: more of the likely.")
    ] = 1.0,
    top_k: Annotated[int, typer.Option(help="Draw among that many likeliest tokens; 0: all.")] = 0,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            help="Stop there if the sentence does not end.", show_default="100, characters 500"
        ),
    ] = None,
) -> None:
    """Draw sentences from LM, one a line."""
    from asr.labels import join, split
    from asr.lm.query import load_lm, unit_of
    from asr.lm.query import sample as draw
    from asr.system.text import nfc

    model = load_lm(lm)
    unit = unit_of(model)
    first = split(nfc(prime), unit)
    for token in dict.fromkeys(t for t in first if not model.id(t)):
        tell(f"{unit} {token!r} is not in the vocabulary: read as <unk>")
    limit = max_tokens if max_tokens is not None else 500 if unit == "char" else 100
    for drawn in draw(model, first, count, seed, temperature, top_k, limit):
        print(join([*first, *drawn], unit))
