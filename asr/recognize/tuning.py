"""Choose the decoders' weights on a dev set, and calibrate their confidences on it.

The emissions of the set are computed once; every trial after that only decodes.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import Progress

from asr.audio.read import file_state
from asr.data.manifest import plain, read_manifest
from asr.decode.confidence import (
    Calibration,
    expected_calibration_error,
    fit,
    label_features,
    predicted,
    word_features,
)
from asr.decode.config import DecoderConfig, DecodingOptions
from asr.decode.rescore import reorder, sentence_log_probs
from asr.errors import InputError
from asr.labels import fold, unit_symbols
from asr.lm.ngram import NGram
from asr.model.adaptation import adapted_by
from asr.model.bundle import Bundle, replaced_together, save_config, save_lexicon, save_own_lm
from asr.model.emissions import emissions_of
from asr.model.options import fitted
from asr.model.pretrained import TORCHAUDIO, load_model
from asr.model.weights import WEIGHTS
from asr.nets.tensors import load_tensors, save_tensors
from asr.recognize.evaluate import decoders_of, score_hypotheses, teacher_of
from asr.score.alignment import align
from asr.system.interrupts import deferred
from asr.system.progress import progress_bar
from asr.types import Hypothesis, Scores, Utterance

# Natural-log weights around the values that speech systems end with; dev chooses among them.
LM_WEIGHTS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.3)
BONUSES = (-1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0)
WORD_LM_WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5)
WORD_BONUSES = (-2.0, -1.0, 0.0, 1.0, 2.0, 4.0)
WORD_PRIOR_WEIGHTS = (0.0, 0.3, 0.6)
BLANK_PENALTIES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5)
PRIOR_WEIGHTS = (0.0, 0.15, 0.3, 0.45, 0.6, 0.9)
TRANSITION_WEIGHTS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0)
#: Where every trial runs a neural language model, fewer values.
FEW = slice(1, None, 2)
BEAMS = (5, 10, 20, 50, 100, 200)
#: No label is taken for rarer.
LEAST_SHARE = 1e-6
#: How often the refinement halves its steps.
HALVINGS = 2
#: The narrowest beam is taken whose error rate is no higher than the lowest times this.
ENOUGH = 1.01


Axes = Mapping[str, tuple[float, ...]]
"""Fields of `DecoderConfig` and their values."""


@dataclass(frozen=True)
class Search:
    """What `tune` searches: a decoder, and for two of its weights the values of a coarse grid.

    beams: widths to try afterwards; none keeps the configured one.
    """

    title: str
    config: DecoderConfig
    axes: Axes
    beams: tuple[int, ...] = ()

    @property
    def n_trials(self) -> int:
        """Trials that `tune` makes for it."""
        around = 3 ** len(self.axes) - 1
        coarse = math.prod(map(len, self.axes.values()))
        return coarse + 1 + HALVINGS * around + len(self.beams)


@dataclass(frozen=True)
class Trial:
    """One decoding of the dev set. stage: grid, refined or beam."""

    stage: str
    config: DecoderConfig
    rate: float


@dataclass(frozen=True)
class Tuned:
    """What a search found: all trials in their order, and the best of them."""

    search: Search
    trials: tuple[Trial, ...]
    best: Trial


def searches(bundle: Bundle, beams: tuple[int, ...] = ()) -> list[Search]:
    """The searches for this model: one for each decoder of `decoders_of` that has weights."""
    found = []
    for title, config in decoders_of(bundle).items():
        axes: dict[str, tuple[float, ...]] = {}
        if title == "viterbi":
            axes = {"prior_weight": PRIOR_WEIGHTS, "transition_weight": TRANSITION_WEIGHTS}
            found.append(Search(title, config, axes))
        elif title == "greedy":
            found.append(Search(title, config, {"blank_penalty": BLANK_PENALTIES}))
        elif title == "beam+lm":
            axes = {"lm_weight": LM_WEIGHTS, "bonus": BONUSES}
            found.append(_sparser(Search(title, config, axes, beams), bundle.label_lm))
        elif title == "beam+lexicon":
            if bundle.word_lm is not None:
                axes["word_lm_weight"] = WORD_LM_WEIGHTS
            axes["word_bonus"] = WORD_BONUSES
            axes["word_prior_weight"] = WORD_PRIOR_WEIGHTS
            found.append(_sparser(Search(title, config, axes, beams), bundle.word_lm))
    return found


def log_priors(log_probs: Mapping[str, np.ndarray]) -> tuple[float, ...]:
    """Logarithms of the labels' shares in what the net puts out for a set, to four digits."""
    shares = np.concatenate([np.exp(x, dtype=np.float64) for x in log_probs.values()]).mean(0)
    return tuple(np.log(np.maximum(shares, LEAST_SHARE)).round(4).tolist())


def rescoring_search(bundle: Bundle) -> Search:
    """The search for the second pass, over the N-best of the model's own first pass."""
    decoder = bundle.make_decoder(bundle.decoder)
    words = decoder.rescores_words
    axes = {
        "rescore_weight": WORD_LM_WEIGHTS if words else LM_WEIGHTS,
        "rescore_bonus": WORD_BONUSES if words else BONUSES,
    }
    return Search(decoder.title, bundle.decoder, axes)


def _sparser(search: Search, lm: object) -> Search:
    if lm is None or isinstance(lm, NGram):
        return search
    fewer = {n: values[FEW] if len(values) > 3 else values for n, values in search.axes.items()}
    return replace(search, axes=fewer)


def tune(
    utterances: Sequence[Utterance],
    log_probs: dict[str, np.ndarray],
    bundle: Bundle,
    search: Search,
    tick: Callable[[], None] = lambda: None,
) -> Tuned:
    """Search the weights with the lowest error rate: of words, where the decoder finds words.

    First a coarse grid, with a fifth of the beam; then the neighbours of the best, at half the
    grid's steps and at a quarter, with the whole beam; then the beam itself. Ties go to the
    earlier trial, which has the smaller weights. ``tick`` is called ``search.n_trials`` times.

    Raises:
        InputError: there is nothing in the transcripts to count errors against.
    """
    config = replace(search.config, nbest=1)
    decoded = _rescored if search.title.endswith("+rescore") else _decoded
    hypotheses_of = decoded(utterances, log_probs, bundle, config)
    trials: list[Trial] = []

    def trial(stage: str, config: DecoderConfig) -> Trial:
        rates = [t.rate for t in trials if t.config == config]
        if not rates:
            scores = score_hypotheses(utterances, hypotheses_of(config), bundle)
            rates = [main_scores(scores).error_rate]
        if math.isnan(rates[0]):
            raise InputError("tuning: the transcripts are empty, there are no errors to count")
        trials.append(Trial(stage, config, rates[0]))
        tick()
        return trials[-1]

    narrow = replace(config, beam=max(1, config.beam // 5))
    names = list(search.axes)
    for values in itertools.product(*search.axes.values()):
        point: dict[str, Any] = dict(zip(names, values, strict=True))
        trial("grid", replace(narrow, **point))
    at = min(trials, key=lambda t: t.rate)
    best = trial("refined", replace(at.config, beam=config.beam))
    steps = {name: _step(search.axes[name], getattr(at.config, name)) for name in names}
    for halving in range(1, HALVINGS + 1):
        centre = best
        for signs in itertools.product((-1, 0, 1), repeat=len(names)):
            if not any(signs):
                continue
            moved: dict[str, Any] = {
                name: round(getattr(centre.config, name) + sign * steps[name] / 2**halving, 4)
                for name, sign in zip(names, signs, strict=True)
            }
            if any(v < 0 and not name.endswith("bonus") for name, v in moved.items()):
                tick()
                continue
            found = trial("refined", replace(centre.config, **moved))
            best = min(best, found, key=lambda t: t.rate)
    by_beam = [trial("beam", replace(best.config, beam=beam)) for beam in search.beams]
    if by_beam:
        enough = ENOUGH * min(t.rate for t in by_beam)
        best = next(t for t in by_beam if t.rate <= enough)
    return Tuned(search, tuple(trials), best)


Decode = Callable[[DecoderConfig], list[Hypothesis]]


def _decoded(
    utterances: Sequence[Utterance],
    log_probs: dict[str, np.ndarray],
    bundle: Bundle,
    config: DecoderConfig,
) -> Decode:
    """A trial's hypotheses, by decoding."""

    def decode(config: DecoderConfig) -> list[Hypothesis]:
        decoder = bundle.make_decoder(config)
        return [nbest[0] for nbest in decoder.batch([log_probs[u.id] for u in utterances])]

    return decode


def _rescored(
    utterances: Sequence[Utterance],
    log_probs: dict[str, np.ndarray],
    bundle: Bundle,
    config: DecoderConfig,
) -> Decode:
    """A trial's hypotheses, by sorting anew what one first pass found."""
    decoder = bundle.make_decoder(config)
    first_pass = replace(config, nbest=config.rescore_nbest, rescore_weight=0.0)
    nbests = bundle.make_decoder(first_pass).batch([log_probs[u.id] for u in utterances])
    assert decoder.rescore_lm is not None
    first, share = decoder.rescored_beside, config.rescore_share
    tokens = [[decoder.rescored_tokens(h) for h in nbest] for nbest in nbests]
    flat = iter(
        sentence_log_probs([t for nbest in tokens for t in nbest], decoder.rescore_lm, first, share)
    )
    scored = [[next(flat) for _ in nbest] for nbest in nbests]
    counts = [[len(t) for t in nbest] for nbest in tokens]

    def sort(config: DecoderConfig) -> list[Hypothesis]:
        return [
            reorder(nbest, scores, n, config)[0]
            for nbest, scores, n in zip(nbests, scored, counts, strict=True)
        ]

    return sort


def _step(values: tuple[float, ...], value: float) -> float:
    """The narrower gap between ``value`` and its neighbours in the grid."""
    return min(abs(value - other) for other in values if other != value)


def main_scores(scores: dict[str, Scores]) -> Scores:
    """The error rate that counts: of words, where there are words, or else of the labels."""
    return scores["WER"] if "WER" in scores else next(iter(scores.values()))


def as_trained(utterances: Sequence[Utterance], bundle: Bundle) -> list[Utterance]:
    """Utterances as `plain` makes them, on which models are trained.

    A model that puts out capital letters was trained on others, and they stay as they are.
    """
    if bundle.labels.unit != "phone" and any(s.isupper() for s in bundle.labels.symbols):
        return list(utterances)
    known = bundle.lexicon.ids if bundle.lexicon else ()
    return [plain(u, known) for u in utterances]


def tune_all(
    utterances: Sequence[Utterance],
    log_probs: dict[str, np.ndarray],
    bundle: Bundle,
    wanted: Sequence[Search],
    progress: Progress,
) -> list[Tuned]:
    """Make the searches, one after the other; the bundle's decoder gets what they find. What the
    blank is worth is found by best-path decoding, for all searches of labels.

    Where not all utterances have phones, a model of phones is tuned by its words alone.

    Raises:
        InputError: then no words are searched.
    """
    if bundle.labels.unit == "phone" and any(u.phones is None for u in utterances):
        known = [search for search in wanted if search.config.lexicon]
        if wanted and not known:
            missing = next(u.id for u in utterances if u.phones is None)
            raise InputError(
                f"tuning: utterance {missing} has no phones, and no words are searched: add "
                "--lexicon, or phones to the manifest"
            )
        wanted = known
    if any("word_prior_weight" in search.axes for search in wanted):
        bundle.log_priors = log_priors(log_probs)
    found = []
    for search in wanted:
        task = progress.add_task(f"{search.title} weights", total=search.n_trials)
        tick = partial(progress.advance, task)
        penalty = bundle.decoder.blank_penalty
        search = replace(search, config=replace(search.config, blank_penalty=penalty))
        found.append(tune(utterances, log_probs, bundle, search, tick))
        bundle.decoder = adopted(bundle, found)
    return found


def tune_rescoring(
    utterances: Sequence[Utterance],
    log_probs: dict[str, np.ndarray],
    bundle: Bundle,
    first: Sequence[Tuned],
    own: str,
    progress: Progress,
    tell: Callable[[str], None],
) -> Tuned:
    """Tune the second pass after the ``first``, the model's ``own`` decoder (its title) among them.

    The bundle's decoder gets what is found; where that is no better, rescoring is left off.
    """
    (second,) = tune_all(utterances, log_probs, bundle, [rescoring_search(bundle)], progress)
    if any(t.search.title == own and t.best.rate <= second.best.rate for t in first):
        tell(f"{second.search.title} is no better than {own}: rescoring is left off")
        bundle.decoder = replace(bundle.decoder, rescore_weight=0.0)
    return second


def check_tunable(manifest: Path, model: str, force: bool) -> None:
    """See that weights may be chosen on a manifest, and that a model has a place for them.

    Raises:
        InputError: by its name or its folder's it is a test set, and nobody said ``force``; or the
            model is no directory.
    """
    of_test = re.search(r"(^|[^a-z])test([^a-z]|$)", manifest.stem.lower())
    if (of_test or manifest.absolute().parent.name.lower() == "test") and not force:
        raise InputError(
            f"{manifest}: a test set: weights chosen on it would flatter its error rate; tune on "
            "dev, or say --force"
        )
    if model.startswith(TORCHAUDIO) or model.endswith(".onnx"):
        raise InputError(
            f"--model {model}: asr tune writes what it finds into a model directory, and this is "
            "none; give asr transcribe --lm-weight, --bonus and --beam instead"
        )


@dataclass(frozen=True)
class Outcome:
    """What `tune_model` found. lacking: a line about words that the lexicon lacks, or nothing."""

    found: list[Tuned]
    calibrated: list[Calibrated]
    lacking: str


def tune_model(
    folder: Path,
    manifest: Path,
    options: DecodingOptions,
    device: str,
    tell: Callable[[str], None],
    adapt: bool = False,
) -> Outcome:
    """Tune a model directory on a manifest, with what ``options`` name put into it.

    With no lexicon and no language model among them, every decoder that the model has is tuned.
    adapt: and then once more, on the net as it is adapted to each speaker.

    Raises:
        InputError: what cannot be read, does not fit the model or cannot be written; nothing of
            the model directory is replaced.
    """
    utterances = read_manifest(manifest, lambda line, error: tell(f"{line} left out: {error}"))
    bundle = load_model(folder, device)
    lexicon, lm, rescore = options.lexicon, options.lm, options.rescore
    is_new_lm, is_new_rescore = lm not in (None, "none"), rescore not in (None, "none")
    stand_ins = replace(
        options,
        decoder=None if bundle.criterion == "framewise" else "beam",
        # What they are is about to be found.
        lm_weight=1.0 if is_new_lm else None,
        rescore_weight=1.0 if is_new_rescore else None,
    )
    bundle, _ = fitted(bundle, stand_ins, tell)
    if adapt:
        adapted_by(bundle, teacher_of(bundle))  # What cannot be adapted is told at once.
    utterances = as_trained(utterances, bundle)
    wanted = searches(bundle, BEAMS if options.beam is None else (options.beam,))
    own = bundle.make_decoder(replace(bundle.decoder, rescore_weight=0.0)).title
    if lexicon or lm or rescore:
        wanted = [search for search in wanted if search.title == own]
    skipped: dict[str, str] = {}
    with progress_bar() as progress:
        task = progress.add_task("emissions", total=len(utterances))
        tick = partial(progress.advance, task)
        log_probs = cached_emissions(folder, manifest.stem, bundle, utterances, skipped, tick)
        for id, reason in skipped.items():
            tell(f"{manifest}: {id} left out: {reason}")
        heard = [u for u in utterances if u.id in log_probs]
        if not heard:
            raise InputError(f"{manifest}: none of its {len(utterances)} utterances can be read")
        found = tune_all(heard, log_probs, bundle, wanted, progress)
        if adapt:
            progress.add_task("adapting", total=None)
            outputs = adapted_by(bundle, teacher_of(bundle))
            log_probs = emissions_of(bundle, heard, skipped, outputs=outputs)
            found = tune_all(heard, log_probs, bundle, wanted, progress)
        if bundle.rescore_lm is not None and rescore != "none":
            found.append(tune_rescoring(heard, log_probs, bundle, found, own, progress, tell))
        progress.add_task("confidences", total=None)
        bundle.calibrations, reports = calibrate(heard, log_probs, bundle)
    with deferred(), replaced_together(folder) as new:
        if lexicon not in (None, "none", "model"):
            save_lexicon(new, bundle)
        if is_new_lm:
            save_own_lm(new, bundle, "word_lm" if bundle.decoder.lexicon else "label_lm")
        if is_new_rescore:
            save_own_lm(new, bundle, "rescore_lm")
        save_config(new, bundle)
    searched = bundle.lexicon if bundle.decoder.lexicon else None
    return Outcome(found, reports, searched.lacking(heard) if searched else "")


def adopted(bundle: Bundle, found: Sequence[Tuned]) -> DecoderConfig:
    """The model's own decoder with the weights that were found, and the widest of the beams."""
    chosen = bundle.decoder
    for tuned in found:
        weights: dict[str, Any] = {n: getattr(tuned.best.config, n) for n in tuned.search.axes}
        chosen = replace(chosen, **weights)
    beams = [t.best.config.beam for t in found if t.search.beams]
    return replace(chosen, beam=max(beams)) if beams else chosen


@dataclass(frozen=True)
class Calibrated:
    """How far confidences are off: expected calibration errors on the dev set.

    title: the decoder. unit: label or word. after: on the halves of the set that the map was not
    fitted to; ``None`` where there was too little to fit.
    """

    title: str
    unit: str
    count: int
    accuracy: float
    before: float
    after: float | None


def calibrate(
    utterances: Sequence[Utterance],
    log_probs: dict[str, np.ndarray],
    bundle: Bundle,
    tick: Callable[[], None] = lambda: None,
) -> tuple[dict[str, Calibration], list[Calibrated]]:
    """Fit the confidences of every decoder of `decoders_of` to what was right on the dev set."""
    raw = replace(bundle, calibrations={})
    calibrations = {}
    reports = []
    for config in decoders_of(bundle).values():
        decoder = raw.make_decoder(config)
        nbest = decoder.batch([log_probs[u.id] for u in utterances])
        searched = {u.id: decoder.weighed(log_probs[u.id]) for u in utterances}
        hypotheses = [best for best, *_ in nbest]
        weights: dict[str, tuple[float, ...] | None] = {}
        for unit in ("label", "word"):
            sample = _Sample.of(unit, utterances, hypotheses, searched, bundle)
            if sample is None:
                continue
            weights[f"{unit}s"] = fit(sample.features, sample.correct)
            reports.append(sample.report(decoder.title))
        calibrations[decoder.title] = Calibration(**weights)
        tick()
    return calibrations, reports


@dataclass(frozen=True)
class _Sample:
    """The labels or words found in a set. fold: 0 or 1, by utterance."""

    unit: str
    features: np.ndarray
    raw: np.ndarray
    correct: np.ndarray
    half: np.ndarray

    @classmethod
    def of(
        cls,
        unit: str,
        utterances: Sequence[Utterance],
        hypotheses: Sequence[Hypothesis],
        log_probs: dict[str, np.ndarray],
        bundle: Bundle,
    ) -> _Sample | None:
        """Collect them; ``None`` where the set does not tell what was said, or there is none."""
        phones = unit == "label" and bundle.labels.unit == "phone"
        if any((u.phones if phones else u.text) is None for u in utterances):
            return None
        if unit == "word" and any(h.words is None for h in hypotheses):
            return None
        pairs, features, raw = [], [], []
        for utterance, hypothesis in zip(utterances, hypotheses, strict=True):
            of_labels = label_features(hypothesis, log_probs[utterance.id])
            if unit == "word":
                pairs.append(((utterance.text or "").split(), list(hypothesis.words or ())))
                features.append(word_features(hypothesis, of_labels))
                raw.append(hypothesis.word_confidences or ())
            else:
                pairs.append((_said(utterance, bundle), _heard(hypothesis, bundle)))
                features.append(of_labels)
                raw.append(hypothesis.confidences)
        correct = [
            [c.error == "" for c in a.columns if c.hypothesis is not None] for a in align(pairs)
        ]
        if not any(correct):
            return None
        half = [np.full(len(c), i % 2) for i, c in enumerate(correct)]
        return cls(
            unit,
            np.concatenate(features),
            np.concatenate(raw),
            np.concatenate([np.array(c, bool) for c in correct]),
            np.concatenate(half),
        )

    def report(self, title: str) -> Calibrated:
        """Measure before and, fitting each half on the other, after."""
        after = np.empty(len(self.raw))
        fitted = True
        for half in (0, 1):
            mine = self.half == half
            weights = fit(self.features[~mine], self.correct[~mine])
            fitted = fitted and weights is not None
            if weights is not None:
                after[mine] = predicted(weights, self.features[mine])
        return Calibrated(
            title,
            self.unit,
            len(self.raw),
            float(self.correct.mean()),
            expected_calibration_error(self.raw, self.correct),
            expected_calibration_error(after, self.correct) if fitted else None,
        )


def _said(utterance: Utterance, bundle: Bundle) -> list[str]:
    unit = bundle.labels.unit
    symbols = unit_symbols(utterance, unit)
    where = f"utterance {utterance.id}"
    return fold(symbols, bundle.label_config.score_fold, where) if unit == "phone" else symbols


def _heard(hypothesis: Hypothesis, bundle: Bundle) -> list[str]:
    """The labels folded for scoring, none lost: each has its confidence."""
    symbols = bundle.labels.decode(hypothesis.labels)
    if bundle.labels.unit != "phone":
        return symbols
    folding = bundle.label_config.score_fold
    return [(fold([symbol], folding) or [symbol])[0] for symbol in symbols]


def cached_emissions(
    folder: Path,
    name: str,
    bundle: Bundle,
    utterances: Sequence[Utterance],
    skipped: dict[str, str],
    tick: Callable[[], None] = lambda: None,
) -> dict[str, np.ndarray]:
    """`emissions_of`, kept in a file beside the model directory ``folder``.

    The file, ``<folder>-emissions/<name>.safetensors``, is used as long as the weights, the
    utterances and their audio files are the same.
    """
    path = folder.with_name(f"{folder.name}-emissions") / f"{name}.safetensors"
    key = hashlib.sha256((folder / WEIGHTS).read_bytes())
    key.update(repr(bundle.features).encode())
    for u in utterances:
        size, changed = file_state(u.audio) or (0, 0)
        key.update(
            repr((u.id, u.speaker, u.audio, u.offset_s, u.duration_s, size, changed)).encode()
        )
    wanted = {"emissions": key.hexdigest()}
    if path.is_file():
        try:
            tensors, found = load_tensors(path)
        except InputError:
            found = {}  # A cache that is spoilt is made anew.
        if found == wanted:
            skipped |= {u.id: "cannot be read" for u in utterances if u.id not in tensors}
            return {u.id: tensors[u.id].numpy() for u in utterances if u.id in tensors}
    log_probs = emissions_of(bundle, utterances, skipped, tick)
    save_tensors(path, {i: torch.from_numpy(x) for i, x in log_probs.items()}, wanted)
    return log_probs
