"""What a run directory holds, read again and scored again; whatever is not there stays empty."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asr.data.manifest import read_manifest
from asr.errors import InputError
from asr.model.bundle import Bundle
from asr.model.weights import load_bundle
from asr.score.alignment import Alignments
from asr.score.error_rate import RATE_NAMES, UNIT_NAMES, policy_name, total
from asr.score.lines import Line, Matched
from asr.score.pairs import align_matched
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
        return self.scores.error_rate

    @property
    def name(self) -> str:
        """PER, CER or WER."""
        return RATE_NAMES[self.scores.unit]

    @property
    def units(self) -> str:
        """Phones, characters or words."""
        return UNIT_NAMES[self.scores.unit]


@dataclass(frozen=True)
class ScoredSet:
    """One set through one decoder: utterances, what was heard, and the rates by name."""

    set: str
    decoder: str
    utterances: list[Utterance]
    lines: list[Line]
    rates: dict[str, Rate]

    @property
    def title(self) -> str:
        """What set it is, and how it was decoded."""
        return f"{self.set}, {self.decoder}"

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
    scored: list[ScoredSet] = field(default_factory=list)
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
    manifests = sorted((folder / "manifests").glob("*.jsonl"), key=_train_first)
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
        {path.stem: read_manifest(path) for path in manifests},
        bundle,
        notes=notes,
    )
    if not decoded:
        notes.append(
            "This run has not been judged yet: there are no decoded sets, and so no error rates."
        )
    elif bundle is None:
        notes.append(
            "Without the model, which knows how its labels are scored, the decoded sets cannot be "
            "scored."
        )
    else:
        order = list(results.get("decoders") or {})
        for path in sorted(decoded, key=lambda p: _place(p, list(run.sets), order)):
            _score(run, bundle, path)
    return run


def chosen(run: Run, set_name: str | None, decoder: str | None) -> ScoredSet | None:
    """The decoded set that is looked into: a test set, by the decoder that is best on dev.

    Raises:
        InputError: ``set_name`` or ``decoder`` is none of those that there are.
    """
    if not run.scored:
        return None
    sets = list(dict.fromkeys(of.set for of in run.scored))
    name = set_name or next((s for s in sets if s != "dev"), sets[0])
    if name not in sets:
        raise InputError(f"--set {name}: the decoded sets of this run are {', '.join(sets)}")
    found = {of.decoder: of for of in run.scored if of.set == name}
    if decoder is None:
        tuned = {of.decoder: of.main.value for of in run.scored if of.set == "dev"}
        known = [d for d in found if math.isfinite(tuned.get(d, math.nan))]
        decoder = min(known, key=tuned.__getitem__, default=next(iter(found)))
    if decoder not in found:
        raise InputError(f"--decoder {decoder}: set {name} was decoded by {', '.join(found)}")
    return found[decoder]


def _score(run: Run, bundle: Bundle, path: Path) -> None:
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
    if utterances:
        lines = [heard[u.id] for u in utterances]
        recorded = run.results.get("sets", {}).get(name, {}).get(decoder, {})
        rates = _rates(bundle, utterances, lines, recorded)
        run.scored.append(ScoredSet(name, decoder, utterances, lines, rates))


def _rates(
    bundle: Bundle, utterances: Sequence[Utterance], lines: Sequence[Line], recorded: dict[str, Any]
) -> dict[str, Rate]:
    """The rates that training computes too (see `evaluate.score_hypotheses`)."""
    config, unit = bundle.label_config, bundle.labels.unit
    speakers = [u.speaker for u in utterances]
    pairs = []
    for u, heard in zip(utterances, lines, strict=True):
        phones = None if u.phones is None else tuple(s.label for s in u.phones)
        said = Line(f"utterance {u.id}", u.text or "", phones)
        pairs.append((said, heard._replace(text=heard.text or "", phones=heard.phones or ())))
    matched = Matched((), pairs, (), ())
    units = []
    if unit == "char" or (unit == "phone" and all(u.phones is not None for u in utterances)):
        units.append(unit)
    has_words = unit != "phone" or "WER" in recorded or any(line.text for line in lines)
    if (has_words or not units) and all(u.text is not None for u in utterances):
        units.append("word")
    if not units:
        raise InputError(f"{lines[0].where}: its references have neither phones nor text to score")
    rates = {}
    for unit in units:
        of_phones = (config.score_fold, config.silence) if unit == "phone" else ("none", "count")
        alignments = align_matched(matched, unit, "edit", *of_phones, ())
        scores = total(alignments, unit, policy_name(unit, *of_phones))
        rates[RATE_NAMES[unit]] = Rate(scores, alignments, *intervals(alignments, speakers))
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
    return [*sets, name].index(name), [*decoders, decoder].index(decoder), decoded.name
