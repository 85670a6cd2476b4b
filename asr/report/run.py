"""What a run directory holds, read again and scored again; whatever is not there stays empty."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from asr.data.manifest import read_manifest
from asr.errors import InputError
from asr.labels import unit_symbols
from asr.model.bundle import Bundle, load_bundle
from asr.recognize.evaluate import policy
from asr.score.alignment import Alignments, align, align_texts
from asr.score.error_rate import RATE_NAMES, error_rate, phone_policy, policy_name, total
from asr.score.lines import Line
from asr.score.read import read_transcripts
from asr.score.significance import Interval, intervals
from asr.train.rundir import read_metrics
from asr.types import Scores, Utterance


@dataclass(frozen=True)
class Rate:
    """An error rate of one set through one decoder, with all that it is made of."""

    scores: Scores
    alignments: Alignments
    over_utterances: Interval
    over_speakers: Interval | None

    @property
    def value(self) -> float:
        """The error rate as a fraction."""
        return error_rate(self.scores)

    @property
    def name(self) -> str:
        """PER, CER or WER."""
        return RATE_NAMES[self.scores.unit]


@dataclass(frozen=True)
class Judged:
    """One set through one decoder: utterances, what was heard, and the rates by name."""

    set: str
    decoder: str
    utterances: list[Utterance]
    lines: list[Line]
    rates: dict[str, Rate]

    @property
    def main(self) -> Rate:
        """The rate of the model's own unit."""
        return next(iter(self.rates.values()))


@dataclass(frozen=True)
class Run:
    """A run directory in memory. notes: what a reader should know of what is missing."""

    folder: Path
    config: str
    environment: dict[str, Any]
    metrics: list[dict[str, Any]]
    results: dict[str, Any]
    audit: dict[str, Any]
    skipped: dict[str, Any]
    sets: dict[str, list[Utterance]]
    bundle: Bundle | None = None
    judged: list[Judged] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_run(folder: Path) -> Run:
    """Read a run directory, finished or not, and score what was decoded.

    Raises:
        InputError: not a run directory, one without a single epoch and without decoded sets, or
            files that are spoilt.
    """
    if not (folder / "config.yaml").is_file():
        hint = f"; did you mean {folder / 'run'}?" if (folder / "run/config.yaml").is_file() else ""
        raise InputError(f"{folder}: not a run directory: expected a config.yaml there{hint}")
    metrics = read_metrics(folder)
    decoded = sorted((folder / "decoded").glob("*.jsonl"))
    if not metrics and not decoded:
        raise InputError(
            f"{folder}: nothing to report yet: the training has not ended its first epoch"
        )
    results = _json(folder / "results.json")
    manifests = sorted((folder / "manifests").glob("*.jsonl"))
    bundle, notes = None, []
    if (folder / "model").is_dir():
        try:
            bundle = load_bundle(folder)
        except InputError as error:
            notes.append(f"The model cannot be loaded: {error}.")
    run = Run(
        folder,
        (folder / "config.yaml").read_text(encoding="utf-8", errors="replace"),
        results.get("environment") or _json(folder / "environment.json"),
        metrics,
        results,
        _json(folder / "audit.json"),
        _json(folder / "skipped.json"),
        {path.stem: read_manifest(path) for path in sorted(manifests, key=_train_first)},
        bundle,
        notes=notes,
    )
    if not decoded:
        run.notes.append(
            "This run has not been judged yet: there are no decoded sets, and so no error rates."
        )
    elif run.bundle is None:
        run.notes.append(
            "Without the model, which knows how its labels are scored, the decoded sets cannot be "
            "scored."
        )
    else:
        order = list(results.get("decoders") or {})
        for path in sorted(decoded, key=lambda p: _place(p, list(run.sets), order)):
            _judge(run, run.bundle, path)
    return run


def chosen(run: Run, set_name: str | None, decoder: str | None) -> Judged | None:
    """The decoded set that is looked into: a test set, by the decoder that is best on dev.

    Raises:
        InputError: ``set_name`` or ``decoder`` is none of those that there are.
    """
    if not run.judged:
        return None
    sets = list(dict.fromkeys(j.set for j in run.judged))
    name = set_name or next((s for s in sets if s != "dev"), sets[0])
    if name not in sets:
        raise InputError(f"--set {name}: the decoded sets of this run are {', '.join(sets)}")
    found = {j.decoder: j for j in run.judged if j.set == name}
    if decoder is None:
        tuned = {j.decoder: j for j in run.judged if j.set == "dev"}
        known = [d for d in found if d in tuned and math.isfinite(tuned[d].main.value)]
        decoder = min(known, key=lambda d: tuned[d].main.value, default=next(iter(found)))
    if decoder not in found:
        raise InputError(f"--decoder {decoder}: set {name} was decoded by {', '.join(found)}")
    return found[decoder]


def subset(alignments: Alignments, places: Sequence[int]) -> Alignments:
    """The alignments of the utterances at ``places``."""
    first = alignments.first
    columns = np.concatenate([np.arange(first[i], first[i + 1]) for i in places])
    lengths = np.diff(first)[list(places)]
    return Alignments(
        alignments.codes[columns],
        np.concatenate(([0], np.cumsum(lengths))),
        lambda: (alignments.tokens, alignments.said[columns], alignments.heard[columns]),
    )


def _judge(run: Run, bundle: Bundle, path: Path) -> None:
    """Score one file of decoded/ against its manifest."""
    name, _, decoder = path.stem.rpartition(".")
    if name not in run.sets:
        run.notes.append(f"{path.name}: not scored, there is no manifests/{name}.jsonl.")
        return
    heard = read_transcripts(path, "jsonl", hypothesis=True).lines
    # What was skipped before training (unreadable, too short) was never decoded.
    utterances = [u for u in run.sets[name] if u.id in heard]
    n_left_out = len(run.sets[name]) - len(utterances)
    note = f"Set {name}: {n_left_out} utterances of the manifest were not decoded."
    if n_left_out and note not in run.notes:
        run.notes.append(note)
    if not utterances:
        return
    lines = [heard[u.id] for u in utterances]
    recorded = run.results.get("sets", {}).get(name, {}).get(decoder, {})
    run.judged.append(
        Judged(name, decoder, utterances, lines, _rates(bundle, utterances, lines, recorded))
    )


def _rates(
    bundle: Bundle, utterances: Sequence[Utterance], lines: Sequence[Line], recorded: dict[str, Any]
) -> dict[str, Rate]:
    """The rates that training computes too (see `evaluate.score_hypotheses`)."""
    config, unit = bundle.label_config, bundle.labels.unit
    speakers = [u.speaker for u in utterances]
    texts = [u.text or "" for u in utterances], [line.text or "" for line in lines]
    rates = {}

    def add(unit: str, policy: str, alignments: Alignments) -> None:
        scores = total(alignments, unit, policy)
        rates[RATE_NAMES[unit]] = Rate(scores, alignments, *intervals(alignments, speakers))

    if unit == "phone" and all(u.phones is not None for u in utterances):
        pairs = [
            (
                phone_policy(
                    unit_symbols(u, unit), config.score_fold, config.silence, f"utterance {u.id}"
                ),
                phone_policy(line.phones or (), config.score_fold, config.silence, line.where),
            )
            for u, line in zip(utterances, lines, strict=True)
        ]
        add(unit, policy(config), align(pairs))
    elif unit == "char":
        add(unit, policy(config), align_texts(*texts, characters=True))
    has_words = unit != "phone" or "WER" in recorded or any(texts[1]) or not rates
    if has_words and all(u.text is not None for u in utterances):
        add("word", policy_name("word"), align_texts(*texts))
    if not rates:
        raise InputError(f"{lines[0].where}: its references have neither phones nor text to score")
    return rates


def _json(path: Path) -> dict[str, Any]:
    """A JSON object, empty where there is no such file.

    Raises:
        InputError: the file is something else.
    """
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: is not JSON ({error}); remove it to go without") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def _train_first(manifest: Path) -> tuple[int, str]:
    return ({"train": 0, "dev": 1}.get(manifest.stem, 2), manifest.name)


def _place(decoded: Path, sets: list[str], decoders: list[str]) -> tuple[int, int, str]:
    """Sets and decoders in the order of the run."""
    name, _, decoder = decoded.stem.rpartition(".")
    return (
        sets.index(name) if name in sets else len(sets),
        decoders.index(decoder) if decoder in decoders else len(decoders),
        decoded.name,
    )
