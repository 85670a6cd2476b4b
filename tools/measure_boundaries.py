"""Measure how far aligned boundaries lie from the true ones.

    python tools/measure_boundaries.py MANIFEST LEXICON MODEL... [--pocketsphinx PYTHON]
    python tools/measure_boundaries.py --folds PREPARED LEXICON MODEL...

For every model, phones (the manifest's own, aligned as they stand; where each begins, but for the
first) and words (of the manifest's text, by the lexicon; where each begins and ends): with the
boundaries between frames as the best path has them, as the net's output places them within and
between frames, and settled, as `asr align` has them: where the sound changes. Words that the
lexicon lacks are guessed by their letters. Errors are aligned minus true time, in milliseconds.

PYTHON is an interpreter that has PocketSphinx, which aligns the same words by its own dictionary
and model. With --folds the Nth model is measured on sets testN and test_saN of a folder that
`asr prepare timit` made of TIMIT's sample, settled, and all of them together.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import soundfile

from asr.audio.read import load_audio
from asr.data.manifest import read_manifest
from asr.decode.lexicon import Lexicon
from asr.decode.pronunciations import read_entries
from asr.errors import InputError
from asr.labels import fold_segments, folding_named
from asr.model.emissions import emissions_of
from asr.model.weights import load_bundle
from asr.recognize.aligner import Aligner
from asr.recognize.times import label_times, settled
from asr.types import Segment, Utterance

HEAD = ("model", "unit", "boundaries", "n", "mean", "median", "mean abs.", "median abs.",
        "in 20 ms", "in 50 ms", "refused")  # fmt: skip
FOLD_HEAD = ("fold", "phones in 20 ms", "median ms", "bias ms", "words in 20 ms", "median ms",
             "bias ms", "refused")  # fmt: skip
Times = list[tuple[float, float]]
Errors = dict[str, list[float]]
#: Decodes each recording as the words given; frames are 10 ms.
POCKETSPHINX = """
import json, sys, wave, pocketsphinx
extra, jobs = json.load(open(sys.argv[1]))
decoder = pocketsphinx.Decoder(loglevel="FATAL")
for word, phones in extra:
    if decoder.lookup_word(word) is None:
        try:
            decoder.add_word(word, phones, True)
        except RuntimeError:
            pass
for name, words in jobs:
    try:
        decoder.set_align_text(" ".join(words))
        decoder.start_utt()
        decoder.process_raw(wave.open(name).readframes(1 << 40), full_utt=True)
        decoder.end_utt()
        found = [(s.word, s.start_frame / 100, (s.end_frame + 1) / 100) for s in decoder.seg()]
    except (RuntimeError, TypeError):
        found = []
    print(json.dumps(found))
"""


def kinds(aligner: Aligner, utterance: Utterance, log_probs: np.ndarray) -> dict[str, Times]:
    """The times of words (or phones): of the best path's frames, as placed, and as settled."""
    _, (labels, word_spans, spans, _, _) = aligner.search(utterance, log_probs)
    bundle, duration_s = aligner.bundle, utterance.duration_s
    frames = [(bundle.clock.start_s(a), min(bundle.clock.start_s(b), duration_s)) for a, b in spans]
    found = {"frames": frames}
    found["placed"] = label_times(bundle, log_probs, labels, spans, duration_s)
    if bundle.labels.unit == "phone":
        rate = bundle.features.sample_rate
        waveform = load_audio(utterance.audio, rate, utterance.offset_s, duration_s)
        found["settled"] = settled(found["placed"], waveform, rate, duration_s)
    return {
        name: [(times[a][0], times[b - 1][1]) for a, b in word_spans]
        for name, times in found.items()
    }


def compared(times: Times, true: Sequence[Segment], unit: str) -> list[float]:
    """Errors of boundaries in seconds."""
    if len(times) != len(true):
        raise InputError(f"{len(times)} {unit}s aligned, the truth has {len(true)}")
    pairs = list(zip(times, true, strict=True))
    ends = [end - (s.end_s or 0) for (_, end), s in pairs] if unit == "word" else []
    return ends + [start - (s.start_s or 0) for (start, _), s in pairs[unit == "phone" :]]


def errors(
    aligner: Aligner, utterances: list[Utterance], log_probs: dict[str, np.ndarray]
) -> tuple[Errors, int]:
    """Errors by kind of boundary, and how many utterances were refused."""
    found: Errors = defaultdict(list)
    refused = 0
    for utterance in utterances:
        folding = aligner.bundle.label_config.fold
        true = utterance.words if aligner.unit == "word" else utterance.phones
        segments = fold_segments(true or (), "none" if aligner.unit == "word" else folding)
        try:
            for name, times in kinds(aligner, utterance, log_probs[utterance.id]).items():
                found[name] += compared(times, segments, aligner.unit)
        except InputError as error:
            print(f"{utterance.id}: {error}", file=sys.stderr)
            refused += 1
    return found, refused


def by_unit(
    model: Path, lexicon: Path, utterances: list[Utterance]
) -> Iterator[tuple[str, Errors, int]]:
    """The unit, `errors` and refused utterances of all units that a model aligns."""
    bundle = load_bundle(model)
    log_probs = emissions_of(bundle, utterances, {})
    aligners = [Aligner(bundle, "word")] if bundle.labels.unit != "phone" else []
    if not aligners:
        said = {phone.label for u in utterances for phone in u.phones or ()}
        # Of phones that fold otherwise than the model's nobody knows where they would lie.
        folding = folding_named(bundle.label_config.fold)
        if folding is None or said <= folding.keys():
            aligners.append(Aligner(bundle, "phone"))
        words = Lexicon.read(lexicon, bundle.labels, bundle.label_config.fold)
        aligners.append(Aligner(bundle, "word", words).with_guesses(utterances)[0])
    for aligner in aligners:
        yield aligner.unit, *errors(aligner, utterances, log_probs)


def by_pocketsphinx(
    python: str, lexicon: Path, utterances: list[Utterance]
) -> tuple[list[float], int]:
    """Errors of PocketSphinx's word boundaries, and how many utterances it refuses.

    Words that its dictionary lacks are pronounced as the lexicon, of CMU's phones, has them.
    """
    said = {s.label for u in utterances for s in u.words or ()}
    entries = [(e.word.lower(), " ".join(e.phones).upper()) for e in read_entries(lexicon)]
    extra = [(w, re.sub(r"\d", "", phones)) for w, phones in entries if w in said]
    found: list[float] = []
    refused = 0
    with tempfile.TemporaryDirectory() as folder:
        jobs = []
        for number, utterance in enumerate(utterances):
            path = f"{folder}/{number}.wav"
            waveform = load_audio(utterance.audio, 16_000, utterance.offset_s, utterance.duration_s)
            soundfile.write(path, waveform, 16_000, "PCM_16")
            jobs.append((path, [s.label for s in utterance.words or ()]))
        script, job = Path(folder) / "align.py", Path(folder) / "jobs.json"
        script.write_text(POCKETSPHINX, encoding="utf-8")
        job.write_text(json.dumps([extra, jobs]), encoding="utf-8")
        command = [python, str(script), str(job)]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for utterance, line in zip(utterances, lines.splitlines(), strict=True):
        # Silence and noise stand in brackets; a variant has a number.
        spoken = [s for s in json.loads(line) if s[0][0] not in "<["]
        words = [re.sub(r"\(\d+\)$", "", word) for word, _, _ in spoken]
        if words == [s.label for s in utterance.words or ()]:
            found += compared([(a, b) for _, a, b in spoken], utterance.words or (), "word")
        else:
            print(f"{utterance.id}: not aligned by PocketSphinx", file=sys.stderr)
            refused += 1
    return found, refused


def figures(values: list[float]) -> list[str]:
    """The figures of one table row."""
    e = 1000 * np.array(values)
    size = np.abs(e)
    found = [f"{v:.1f}" for v in (e.mean(), np.median(e), size.mean(), np.median(size))]
    return [str(len(e)), *found, *(f"{share(values, limit):.1f} %" for limit in (20, 50))]


def share(values: list[float], limit: float) -> float:
    """How many percent of errors are at most ``limit`` milliseconds."""
    # Half a sample of slack: times are rounded.
    return float(100 * (1000 * np.abs(values) <= limit + 0.05).mean())


def show(cells: Sequence[str]) -> None:
    """Print a row of a table."""
    print("| " + " | ".join(cells) + " |", flush=True)


def fold_row(name: str, found: dict[str, list[float]], refused: int) -> None:
    """Print a fold's row: of phones and of words, settled."""
    cells = [name]
    for unit in ("phone", "word"):
        e = 1000 * np.array(found[unit])
        cells += [f"{share(found[unit], 20):.1f} %", f"{np.median(np.abs(e)):.1f}"]
        cells.append(f"{e.mean():.1f}")
    show([*cells, str(refused)])


def folds(prepared: Path, lexicon: Path, models: list[Path]) -> None:
    """Print the table of models whose speakers were held out in turn."""
    everything: dict[str, list[float]] = defaultdict(list)
    n_refused = 0
    show(FOLD_HEAD)
    show(("---", *("---:",) * (len(FOLD_HEAD) - 1)))
    for number, model in enumerate(models, start=1):
        mark = "" if number == 1 else str(number)
        names = (f"test{mark}.jsonl", f"test_sa{mark}.jsonl")
        utterances = [u for name in names for u in read_manifest(prepared / name)]
        found, refused = {}, 0
        for unit, by_kind, n in by_unit(model, lexicon, utterances):
            found[unit] = by_kind["settled"]
            everything[unit] += found[unit]
            refused += n
        n_refused += refused
        fold_row(str(number), found, refused)
    fold_row("all", everything, n_refused)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folds", action="store_true")
    parser.add_argument("--pocketsphinx", metavar="PYTHON")
    parser.add_argument("paths", nargs="+", type=Path)
    args = parser.parse_args()
    manifest, lexicon, *models = args.paths
    if args.folds:
        folds(manifest, lexicon, models)
        return
    utterances = read_manifest(manifest)
    show(HEAD)
    show(("---",) * len(HEAD))
    for model in models:
        for unit, by_kind, refused in by_unit(model, lexicon, utterances):
            for name, values in by_kind.items():
                show([str(model), unit, name, *figures(values), str(refused)])
    if args.pocketsphinx:
        values, refused = by_pocketsphinx(args.pocketsphinx, lexicon, utterances)
        show(["PocketSphinx", "word", "frames", *figures(values), str(refused)])


if __name__ == "__main__":
    main()
