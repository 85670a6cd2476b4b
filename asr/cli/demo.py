"""asr demo: the whole way on one page: corpus, training, decoding, scores, a transcript."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asr.cli import app

if TYPE_CHECKING:
    from asr.types import Transcript


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the corpus and the run.")] = Path("demo"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of corpus and training.")] = 1,
) -> None:
    """Speak a small corpus, train on it, decode, score and transcribe: five minutes, two cores.

    Interrupted, it goes on where it stopped; finished, it shows its results again.
    """
    import json

    from asr.cli.train import summarise
    from asr.corpora.synthetic import synthesize
    from asr.data.manifest import read_manifest
    from asr.recognize.recognizer import Recognizer
    from asr.train.loop import train
    from asr.train.recipe import load_config, read_config

    corpus, run = out / "corpus", out / "run"
    if not corpus.is_dir():
        print(f"1. Speaking a corpus with espeak-ng into {corpus}")
        synthesize(corpus, seed)
    results_file = run / "results.json"
    if results_file.is_file():
        print(f"2. Trained before; delete {out} to begin anew")
        results = json.loads(results_file.read_text(encoding="utf-8"))
    else:
        print(f"2. Training a bidirectional LSTM with CTC into {run}")
        resume = (run / "config.yaml").is_file()
        if resume:
            config, resolved = read_config(run / "config.yaml")
        else:
            config, resolved = load_config(
                "recipes/demo/ctc.yaml",
                [f"corpus.root={corpus}", f"run_dir={run}", f"seed={seed}"],
            )
        results = train(config, resolved, resume)
    print("3. Error rates on voices never heard in training")
    summarise(results, str(run))
    utterance = read_manifest(run / "manifests" / "test.jsonl")[0]
    print(f"4. {utterance.audio}")
    print(f"   said:  {utterance.text}")
    show(Recognizer.load(run).transcribe(utterance.audio))
    print(
        f"5. Everything lies in {out}: corpus/ (a TIMIT-style tree), run/model (use it with\n"
        f"   asr transcribe --model {run} FILE), run/results.json, run/metrics.jsonl, and curves:\n"
        f"   tensorboard --logdir {run}/tensorboard"
    )


def show(transcript: Transcript) -> None:
    """Print a transcript's words and phones with their times."""
    from rich.console import Console
    from rich.table import Table

    print(f"   heard: {transcript.text}")
    table = Table("word", "from", "to", "confidence", "phones")
    for word in transcript.words:
        inside = [
            p.label
            for p in transcript.labels
            if (p.start_s or 0) >= (word.start_s or 0) and (p.end_s or 0) <= (word.end_s or 0)
        ]
        table.add_row(
            word.label,
            f"{word.start_s:.2f} s",
            f"{word.end_s:.2f} s",
            f"{word.confidence:.2f}",
            " ".join(inside),
        )
    Console().print(table)
