"""The model card: what a model is, for people and for the Hugging Face hub, as its README.md."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from asr.score.error_rate import RATE_NAMES
from asr.score.significance import intervals
from asr.score.systems import BY_POLICY, score_files
from asr.train.config import RunConfig
from asr.types import Utterance

CARD = "README.md"
PAGE = """\
---
{head}---

# {title}

A {direction} recurrent net ({layers} layers of {hidden} {cell} units, {parameters:.1f} million
parameters) that was trained with {criterion} to recognise {unit}s, by Carousel {version}.

## Use

```sh
pip install carousel-asr
asr transcribe --model DIR audio.wav
```

`DIR` is the folder of this file; on the Hugging Face hub it is `hf:USER/NAME`. The folder holds
tensors (safetensors), JSON and text, and nothing that is executed when it is loaded. Audio of any
format and rate is resampled to {rate} Hz.

## Training

Corpus: {corpus}. Seed {seed}, {epochs} epochs (the best on dev: {best}), {minutes:.0f} minutes on
{machine}.{start}

| set | utterances | speakers | hours |
|---|---:|---:|---:|
{sets}

## Results

| set | decoder | rate | % | 95 % interval by speaker | scored |
|---|---|---|---:|---|---|
{rates}

Decoder weights were chosen on dev; the test sets were decoded once. Rates are over the whole set,
and comparable only with those scored in the same way.

## Limits

The model knows speech like that of its corpus: its language, its speakers' accents, its microphones
and its style. What it says of other speech is not measured here. {words}
"""


class Rate(NamedTuple):
    """An error rate of a set through a decoder, as results.json has it."""

    name: str
    decoder: str
    rate: str
    found: Mapping[str, Any]


def card(
    run: Path,
    config: RunConfig,
    results: Mapping[str, Any],
    sets: Mapping[str, Sequence[Utterance]],
    n_train: int,
) -> str:
    """The card of a run's model as Markdown with the hub's YAML head.

    results: what results.json has. sets: dev and the test sets. n_train: utterances trained on.
    """
    model, environment = config.model, results["environment"]
    corpus = config.corpus.kind if config.corpus.kind != "jsonl" else Path(config.corpus.root).name
    rows = list(_rates(results))
    intervals_of = _intervals(run, rows)
    start = f" It started from {results['start']['model']}." if results["start"] else ""
    sizes = [f"| train | {n_train} | | |"] + [
        f"| {name} | {len(said)} | {len({u.speaker for u in said})} | "
        f"{sum(u.duration_s for u in said) / 3600:.2f} |"
        for name, said in sets.items()
    ]
    return PAGE.format(
        head=yaml.safe_dump(_head(run.name, corpus, rows), sort_keys=False, allow_unicode=True),
        title=run.name,
        direction="bidirectional" if model.bidirectional else "unidirectional",
        layers=model.layers,
        hidden=model.hidden,
        cell=model.cell.upper(),
        parameters=results["parameters"] / 1e6,
        criterion={"ctc": "CTC", "framewise": "a label for every frame"}[config.loss.name],
        unit=config.labels.unit,
        version=environment["asr"],
        rate=config.features.sample_rate,
        corpus=corpus,
        seed=results["seed"],
        epochs=results["epochs"],
        best=results["best_epoch"],
        minutes=results["training_s"] / 60,
        machine=environment["gpu"] or f"{environment['threads']} thread(s) of a processor",
        start=start,
        sets="\n".join(sizes),
        rates="\n".join(_line(row, intervals_of[row.name, row.decoder, row.rate]) for row in rows),
        words="Words outside its lexicon are not found unless one is given with `--lexicon`."
        if any(row.decoder == "beam+lexicon" for row in rows)
        else "",
    )


def _rates(results: Mapping[str, Any]) -> Iterator[Rate]:
    for name, decoders in results["sets"].items():
        for decoder, found in decoders.items():
            for rate in RATE_NAMES.values():
                if rate in found:
                    yield Rate(name, decoder, rate, found[rate])


def _head(name: str, corpus: str, rows: Sequence[Rate]) -> dict[str, Any]:
    """What the hub reads (https://github.com/huggingface/hub-docs, modelcard.md)."""
    tested = [
        {
            "task": {"type": "automatic-speech-recognition"},
            "dataset": {"name": f"{corpus}, {row.name}", "type": corpus},
            "metrics": [
                {
                    "type": row.rate.lower(),
                    "name": f"{row.rate}, {row.decoder}; {row.found['policy']}",
                    "value": round(100 * row.found["error_rate"], 2),
                }
            ],
        }
        for row in rows
        if row.name != "dev" and row.found["error_rate"] is not None
    ]
    return {
        "library_name": "carousel-asr",
        "pipeline_tag": "automatic-speech-recognition",
        "tags": ["speech-recognition", "recurrent", "ctc"],
        "model-index": [{"name": name, "results": tested}],
    }


def _line(row: Rate, interval: str) -> str:
    rate = row.found["error_rate"]
    shown = "" if rate is None else f"{100 * rate:.2f}"
    cells = (row.name, row.decoder, row.rate, shown, interval, row.found["policy"])
    return "| " + " | ".join(cells) + " |"


def _intervals(run: Path, rows: Sequence[Rate]) -> dict[tuple[str, str, str], str]:
    """Where each set's rate through each decoder may lie, speakers drawn anew."""
    alike: dict[tuple[str, str], list[Rate]] = defaultdict(list)
    for row in rows:
        alike[row.name, row.found["policy"]].append(row)
    found = {}
    for (name, policy), group in alike.items():
        heard = [run / f"decoded/{name}.{row.decoder}.jsonl" for row in group]
        references = run / f"manifests/{name}.jsonl"
        systems = score_files(references, heard, BY_POLICY[policy], lambda _: None)
        for row, system in zip(group, systems, strict=True):
            _, over = intervals(system.alignments, system.speakers)
            shown = f"{100 * over.low:.1f} to {100 * over.high:.1f}" if over else ""
            found[name, row.decoder, row.rate] = shown
    return found
