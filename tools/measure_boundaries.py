"""Measure how far aligned boundaries lie from the true ones.

    python tools/measure_boundaries.py MANIFEST LEXICON MODEL...

For every model, phones (the manifest's own, aligned as they stand; where each begins, but for the
first) and words (of the manifest's text, by the lexicon; where each begins and ends), once with the
boundaries between frames as the best path has them and once as `asr align` places them. Errors are
aligned minus true time, in milliseconds.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from asr.data.manifest import read_manifest
from asr.decode.lexicon import Lexicon
from asr.errors import InputError
from asr.labels import fold_segments, folding_named
from asr.model.bundle import load_bundle
from asr.model.emissions import emissions_of
from asr.recognize.aligner import Aligner
from asr.recognize.times import label_times
from asr.types import Utterance

HEAD = ("model", "unit", "boundaries", "n", "mean", "median", "mean abs.", "median abs.",
        "in 20 ms", "in 50 ms", "refused")  # fmt: skip
Times = list[tuple[float, float]]


def both(
    aligner: Aligner, utterance: Utterance, log_probs: np.ndarray
) -> dict[str, tuple[list[str], Times]]:
    """The words (or phones) and their times, from the frames of the best path and as placed."""
    words, (labels, word_spans, spans, _, _) = aligner.search(utterance, log_probs)
    clock, duration_s = aligner.bundle.clock, utterance.duration_s
    frames = [(clock.start_s(a), min(clock.start_s(b), duration_s)) for a, b in spans]
    placed = label_times(aligner.bundle, log_probs, labels, spans, duration_s)
    return {
        name: (words, [(times[a][0], times[b - 1][1]) for a, b in word_spans])
        for name, times in (("frames", frames), ("placed", placed))
    }


def errors(
    aligner: Aligner, utterances: list[Utterance], log_probs: dict[str, np.ndarray]
) -> tuple[dict[str, list[float]], int]:
    """Errors in seconds by kind of boundary, and how many utterances were refused."""
    found: dict[str, list[float]] = defaultdict(list)
    refused = 0
    for utterance in utterances:
        folding = aligner.bundle.label_config.fold
        true = utterance.words if aligner.unit == "word" else utterance.phones
        segments = fold_segments(true or (), "none" if aligner.unit == "word" else folding)
        try:
            by_name = both(aligner, utterance, log_probs[utterance.id])
        except InputError:
            refused += 1
            continue
        for name, (words, times) in by_name.items():
            if words != [s.label for s in segments]:
                raise InputError(f"{utterance.id}: the words or phones differ from the true ones")
            pairs = list(zip(times, segments, strict=True))
            if aligner.unit == "word":
                found[name] += [end - (s.end_s or 0) for (_, end), s in pairs]
            found[name] += [
                start - (s.start_s or 0) for (start, _), s in pairs[aligner.unit == "phone" :]
            ]
    return found, refused


def row(values: list[float]) -> list[str]:
    """The figures of one table row."""
    e = 1000 * np.array(values)
    size = np.abs(e)
    figures = [f"{v:.1f}" for v in (e.mean(), np.median(e), size.mean(), np.median(size))]
    # Half a sample of slack: times are rounded.
    shares = [f"{100 * (size <= limit + 0.05).mean():.1f} %" for limit in (20, 50)]
    return [str(len(e)), *figures, *shares]


def main() -> None:
    """Print the table."""
    manifest, lexicon, *models = map(Path, sys.argv[1:])
    utterances = read_manifest(manifest)
    for line in (HEAD, ("---",) * len(HEAD)):
        print("| " + " | ".join(line) + " |")
    for model in models:
        bundle = load_bundle(model)
        log_probs = emissions_of(bundle, utterances, {})
        if bundle.labels.unit == "phone":
            words = Lexicon.read(lexicon, bundle.labels, bundle.label_config.fold)
            aligners = [Aligner(bundle, "word", words)]
            said = {phone.label for u in utterances for phone in u.phones or ()}
            # Of phones that fold otherwise than the model's nobody knows where they would lie.
            folding = folding_named(bundle.label_config.fold)
            if folding is None or said <= folding.keys():
                aligners.insert(0, Aligner(bundle, "phone"))
        else:
            aligners = [Aligner(bundle, "word")]
        for aligner in aligners:
            found, refused = errors(aligner, utterances, log_probs)
            for name, values in found.items():
                cells = [f"{model} ({bundle.criterion})", aligner.unit, name]
                print("| " + " | ".join([*cells, *row(values), str(refused)]) + " |", flush=True)


if __name__ == "__main__":
    main()
