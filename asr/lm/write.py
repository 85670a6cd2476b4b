"""Language models made, measured on a dev text, and written: a line about each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from asr.errors import InputError
from asr.lm.lstm import Chunk, Epoch, NeuralConfig, NeuralLM, train
from asr.lm.mix import chosen_weights, mixed, pruned
from asr.lm.ngram import NGram
from asr.lm.query import summarize, token_scores
from asr.lm.text import vocabulary, with_unknowns
from asr.nets.recurrent import count_parameters
from asr.system.files import refuse_full
from asr.system.progress import progress_bar

Sentences = list[list[str]]


def write_ngram(
    out: Path, sentences: Sentences, dev: Sentences | None, order: int, least: int
) -> str:
    """Write the n-gram of ``sentences`` as an ARPA file; tokens rarer than ``least`` are unknown.

    Raises:
        InputError: ``out`` is a folder, or cannot be written.
    """
    if out.is_dir():
        raise InputError(f"{out}: is a folder; name the ARPA file to write")
    known = set(vocabulary(sentences, least))
    if least > 1:
        sentences = with_unknowns(sentences, known)
    lm = NGram.estimate(sentences, order)
    lm.write_arpa(out)
    n_tokens = sum(len(s) + 1 for s in sentences)
    return f"{out}: {order}-gram, {n_tokens} tokens, {len(known)} different{_measured(lm, dev)}"


def write_neural(
    out: Path,
    sentences: Sentences,
    dev: Sentences,
    config: NeuralConfig,
    tell: Callable[[str], object],
) -> str:
    """Train a recurrent model and write the epoch of the best dev perplexity as a folder.

    tell: gets a line about each epoch.

    Raises:
        InputError: ``out`` exists and is no empty folder, or cannot be written.
    """
    refuse_full(out)
    best: list[Epoch] = []

    def tracked(chunks: Sequence[Chunk]) -> Iterator[Chunk]:
        with progress_bar() as bar:
            yield from bar.track(chunks, description="training")

    def on_epoch(lm: NeuralLM, epoch: Epoch) -> None:
        if epoch.is_best:
            lm.save(out)
            best[:] = [epoch]
        tell(
            f"epoch {epoch.number}/{config.epochs}  loss {epoch.loss:.3f}  dev perplexity "
            f"{epoch.dev_perplexity:.2f}{' *' * epoch.is_best}  lr {epoch.lr:.2g}  "
            f"{epoch.wall_s:.0f} s"
        )

    lm = train(sentences, dev, config, tracked, on_epoch)
    return (
        f"{out}: {config.model.cell}, {count_parameters(lm.model)} parameters, "
        f"{len(lm.tokens) - 3} different tokens, dev perplexity {best[0].dev_perplexity:.2f} "
        f"(epoch {best[0].number})"
    )


def write_mixture(
    out: Path, models: list[NGram], dev: Sentences, shares: list[float], prune: float
) -> str:
    """Mix n-grams and write them as an ARPA file, a single one as it is.

    shares: of the models, where no ``dev`` chooses them. prune: see `asr.lm.mix.pruned`; 0 leaves
    all n-grams.

    Raises:
        InputError: the models or their shares do not fit, or ``out`` cannot be written.
    """
    lm = models[0]
    if len(models) > 1:
        shares = chosen_weights(models, dev) if dev else shares
        lm = mixed(models, shares)
    if prune:
        lm = pruned(lm, prune)
    lm.write_arpa(out)
    line = f"{out}: {lm.order}-gram, {len(lm.trie.token) - 1} n-grams"
    if len(models) > 1:
        line += f", weights {','.join(f'{share:.4g}' for share in shares)}"
    return line + _measured(lm, dev)


def _measured(lm: NGram, dev: Sentences | None) -> str:
    if not dev:
        return ""
    return f", dev perplexity {summarize(lm, dev, token_scores(lm, dev)).perplexity:.2f}"
