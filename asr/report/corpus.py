"""A corpus before anything trains on it or aligns it: what would stop that, and what is odd.

What training refuses or leaves out is found by its own rules (`data.examples`, `train.setup`);
nothing is changed.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from asr.audio.features import FeatureConfig, FrameClock, frame_clock
from asr.corpora import Corpus
from asr.data.manifest import plain
from asr.decode.lexicon import cmudict_file
from asr.decode.pronunciations import look_up, read_entries
from asr.errors import InputError
from asr.g2p.unknown import pronounced
from asr.labels import BLANK_SYMBOL, Labels, folding_named, unit_symbols
from asr.model.bundle import Bundle
from asr.nets.losses import ctc_frames_needed
from asr.report.heard import Heard, hear
from asr.system.text import counted
from asr.train.config import TrainerConfig
from asr.types import Utterance

#: Share of clipped samples from which one hears it; the peak below which nobody speaks (-50 dB).
MOST_CLIPPED, LEAST_PEAK = 1e-3, 10 ** (-50 / 20)
#: Letters of a word beyond which it is a link or a line whose spaces are lost. Scripts without
#: spaces are no words of letters.
MOST_LETTERS = 60
#: No one says more letters in a second.
MOST_A_SECOND = 33.0
BINS = 10


@dataclass(frozen=True)
class Finding:
    """Something found: ``told`` in a sentence, each place in ``examples``.

    stops: a training would stop at it.
    """

    kind: str
    told: str
    count: int
    examples: Sequence[str] = ()
    stops: bool = False


class SetSize(NamedTuple):
    """A set's size; seconds are those of the shortest, the median and the longest utterance."""

    utterances: int
    speakers: int
    hours: float
    shortest_s: float
    median_s: float
    longest_s: float


@dataclass
class CorpusReport:
    """Sizes by set, the durations of all utterances in seconds, and what was found."""

    sets: dict[str, SetSize]
    durations_s: Sequence[float]
    findings: list[Finding] = field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        """Whether nothing would stop a training."""
        return not any(finding.stops for finding in self.findings)


class _Speech(NamedTuple):
    """How texts become labels. unit: of the labels; empty where nobody knows it.

    spelled: words and their shortest spellings; None: there is no lexicon. guessed: those of them
    that the lexicon lacks, pronounced by their letters.
    """

    unit: str
    folding: str
    labels: Mapping[str, int] | None
    spelled: Mapping[str, Sequence[str]] | None
    clock: FrameClock
    ctc: bool
    guessed: Mapping[str, Sequence[str]] = MappingProxyType({})


def examine(
    corpus: Corpus,
    lexicon: str | None = None,
    bundle: Bundle | None = None,
    tick: Callable[[], None] = lambda: None,
) -> CorpusReport:
    """Look at every utterance's audio and text, with the ``lexicon`` (a file, or cmudict) and the
    model that are to be used, where there are any. ``tick``: after each utterance.

    Raises:
        InputError: the lexicon cannot be read.
    """
    sets = {name: list(utterances) for name, utterances in corpus.sets.items()}
    everyone = [u for utterances in sets.values() for u in utterances]
    heard = dict(zip(map(id, everyone), hear(everyone, tick), strict=True))
    measured = [(u, h) for u in everyone if isinstance(h := heard[id(u)], Heard)]
    speech, strays = _speech(lexicon, bundle)
    speech = _guessing(everyone, speech, bundle)
    lost: dict[int, str] = {}
    for utterance in everyone:
        reason = _unusable(utterance, heard[id(utterance)], speech)
        if reason:
            lost[id(utterance)] = reason
    findings = [
        _unread(corpus),
        _lost(sets, lost),
        *_words(everyone, speech, strays),
        _unfit(everyone, speech),
        *_texts(everyone),
        _doubled(sets, measured),
        _double_ids(sets),
        _double_speakers(sets),
        *_levels(measured),
        *_rates(measured, bundle.features.sample_rate if bundle else FeatureConfig().sample_rate),
    ]
    sizes = {name: _size(utterances) for name, utterances in sets.items()}
    durations_s = [u.duration_s for u in everyone]
    return CorpusReport(sizes, durations_s, [f for f in findings if f is not None and f.count])


def _size(utterances: Sequence[Utterance]) -> SetSize:
    seconds = [u.duration_s for u in utterances]
    speakers = len({u.speaker for u in utterances})
    middle = (min(seconds), float(np.median(seconds)), max(seconds))
    return SetSize(len(utterances), speakers, sum(seconds) / 3600, *middle)


def _speech(lexicon: str | None, bundle: Bundle | None) -> tuple[_Speech, dict[str, list[str]]]:
    """How texts are spelled, and where the lexicon has phones that the model has not."""
    unit, folding, labels = "", "none", None
    known: Collection[str] = ()
    clock, ctc = frame_clock(FeatureConfig()), True
    if bundle is not None:
        unit, folding, labels = bundle.labels.unit, bundle.label_config.fold, bundle.labels.ids
        clock, ctc = bundle.clock, bundle.criterion == "ctc"
        known = (folding_named(folding) or labels) if unit == "phone" else ()
    strays: dict[str, list[str]] = defaultdict(list)
    spelled: dict[str, Sequence[str]] | None = None
    if lexicon is not None:
        spelled = {}
        path = cmudict_file() if lexicon == "cmudict" else Path(lexicon)
        for where, word, phones, _ in read_entries(path, known):
            folded = _folded(phones, folding)
            stray = [p for p in folded if labels is not None and p not in labels]
            if stray and unit == "phone":
                for phone in dict.fromkeys(stray):
                    strays[phone].append(f"{where}: {word}")
            elif word not in spelled or len(folded) < len(spelled[word]):
                spelled[word] = folded
    elif bundle is not None and bundle.lexicon is not None and unit == "phone":
        pairs = zip(bundle.lexicon.words, bundle.lexicon.spellings, strict=True)
        shortest = {word: sorted(ways, key=len)[0] for word, ways in pairs}
        spelled = {word: bundle.labels.decode(ids) for word, ids in shortest.items()}
    return _Speech(unit, folding, labels, spelled, clock, ctc), strays


def _guessing(utterances: Sequence[Utterance], speech: _Speech, bundle: Bundle | None) -> _Speech:
    """The same, with the words that the lexicon lacks, as a training and `asr align` guess them."""
    if speech.spelled is None or speech.unit not in ("", "phone"):
        return speech
    missing = [w for u in utterances for w in look_up(u.text or "", speech.spelled.get)[1]]
    if bundle is not None:
        labels = bundle.labels
    else:
        phones = sorted({phone for said in speech.spelled.values() for phone in said})
        labels = Labels("phone", (BLANK_SYMBOL, *phones))
    guessed = dict(pronounced(missing, labels, speech.folding).guessed)
    return speech._replace(spelled={**speech.spelled, **guessed}, guessed=guessed)


def _folded(phones: Iterable[str], folding: str) -> list[str]:
    """Phones through the folding; those that it does not know stay, those that it deletes go."""
    table = folding_named(folding)
    if table is None:
        return list(phones)
    return [p for phone in phones if (p := table.get(phone, phone)) is not None]


def _symbols(utterance: Utterance, speech: _Speech) -> list[str] | None:
    """The labels of an utterance at their fewest; None: it cannot be spelled, or nobody knows."""
    if utterance.phones is not None and speech.unit in ("", "phone"):
        return _folded((p.label for p in utterance.phones), speech.folding)
    if speech.unit in ("char", "word"):
        return None if utterance.text is None else unit_symbols(plain(utterance), speech.unit)
    spelled = speech.spelled
    if spelled is None:
        return None
    words, missing = look_up(utterance.text or "", spelled.get)
    return None if missing else [p for word in words for p in spelled[word]]


def _frames(utterance: Utterance, speech: _Speech) -> tuple[int, int] | None:
    """Frames that the labels need at least, and those that there are."""
    symbols = _symbols(utterance, speech)
    if symbols is None:
        return None
    needed = ctc_frames_needed(symbols) if speech.ctc else len(symbols)
    hops = int(utterance.duration_s / speech.clock.hop_s) + 1
    return needed, -(-hops // speech.clock.factor)


def _unusable(utterance: Utterance, heard: Heard | InputError, speech: _Speech) -> str:
    """Why a training would leave the utterance out, or nothing."""
    if isinstance(heard, InputError):
        return str(heard)
    if utterance.duration_s > TrainerConfig().max_utterance_s:
        return f"lasts {utterance.duration_s:.0f} s, more than trainer.max_utterance_s"
    if not utterance.text and not utterance.phones:
        return "has neither text nor phones"
    if speech.spelled is not None and utterance.phones is None and speech.unit in ("", "phone"):
        missing = look_up(utterance.text or "", speech.spelled.get)[1]
        if missing:
            return f"words without a pronunciation: {' '.join(dict.fromkeys(missing))}"
    frames = _frames(utterance, speech)
    if frames and frames[0] > frames[1]:
        return f"its labels need {frames[0]} frames, there are {frames[1]}"
    return ""


def _unread(corpus: Corpus) -> Finding:
    lost = corpus.audit.missing | corpus.audit.corrupt
    most = TrainerConfig().max_skipped
    return Finding(
        "files",
        f"{len(lost)} of {corpus.audit.found} utterances are in no set: files missing, corrupt, or "
        "lines that cannot be used",
        len(lost),
        [f"{where}: {reason}" for where, reason in lost.items()],
        stops=len(lost) > most * corpus.audit.found,
    )


def _lost(sets: Mapping[str, Sequence[Utterance]], lost: Mapping[int, str]) -> Finding:
    """What training leaves out by itself, and whether that is more than it bears."""
    most = TrainerConfig().max_skipped
    shares = {name: sum(id(u) in lost for u in us) / len(us) for name, us in sets.items()}
    return Finding(
        "left out",
        f"{counted(len(lost), 'utterance')} left out of training: "
        + ", ".join(f"{100 * share:.1f} % of {name}" for name, share in shares.items() if share)
        + f" (trainer.max_skipped={most:g})",
        len(lost),
        [f"{u.id}: {lost[id(u)]}" for us in sets.values() for u in us if id(u) in lost],
        stops=any(share > most or share == 1 for share in shares.values()),
    )


def _words(
    utterances: Sequence[Utterance], speech: _Speech, strays: Mapping[str, Sequence[str]]
) -> Iterable[Finding]:
    """Words that nobody can spell, and labels that the model has not."""
    if (spelled := speech.spelled) is not None and speech.unit in ("", "phone"):

        def in_lexicon(word: str) -> bool:
            return word in spelled and word not in speech.guessed

        said = {u.id: look_up(u.text or "", in_lexicon)[1] for u in utterances}
        times = Counter(word for words in said.values() for word in words)
        first = {word: u for u, words in reversed(said.items()) for word in words}
        ways = {word: f", by its letters {' '.join(way)}" for word, way in speech.guessed.items()}
        n_places = sum(map(bool, said.values()))
        yield Finding(
            "words",
            f"{counted(len(times), 'word')} that the lexicon lacks, said "
            f"{counted(times.total(), 'time')} in {counted(n_places, 'utterance')}",
            len(times),
            [
                f"{word}: {counted(n, 'time')}, first in {first[word]}{ways.get(word, '')}"
                for word, n in times.most_common()
            ],
        )
    if strays:
        yield Finding(
            "phones of the lexicon",
            f"{len(strays)} phones of the lexicon are none of the model's: {_few(strays)}",
            len(strays),
            [f"{p}: {len(where)} times, first at {where[0]}" for p, where in strays.items()],
            stops=True,
        )
    if speech.labels is not None:
        unknown: dict[str, list[str]] = defaultdict(list)
        for utterance in utterances:
            own = utterance.phones is not None or speech.unit != "phone"
            for symbol in dict.fromkeys(_symbols(utterance, speech) or ()) if own else ():
                if symbol not in speech.labels:
                    unknown[symbol].append(utterance.id)
        yield Finding(
            "labels",
            f"{len(unknown)} {speech.unit}s are none of the model's: {_few(unknown)}",
            len(unknown),
            [f"{s}: in {len(ids)} utterances, first in {ids[0]}" for s, ids in unknown.items()],
            stops=speech.unit != "word",
        )


def _unfit(utterances: Sequence[Utterance], speech: _Speech) -> Finding:
    unfit = []
    for utterance in utterances:
        frames = _frames(utterance, speech)
        letters = sum(c.isalpha() for c in utterance.text or "")
        if frames and frames[0] > frames[1]:
            unfit.append(
                f"{utterance.id}: its labels need {frames[0]} frames, there are {frames[1]}"
            )
        elif letters > MOST_A_SECOND * utterance.duration_s:
            unfit.append(f"{utterance.id}: {letters} letters in {utterance.duration_s:.2f} s")
    return Finding(
        "text that does not fit", f"{len(unfit)} texts do not fit their audio", len(unfit), unfit
    )


def _texts(utterances: Sequence[Utterance]) -> Iterable[Finding]:
    silent = [u.id for u in utterances if not u.text and not u.phones]
    yield Finding("no text", f"{len(silent)} utterances have no text", len(silent), silent)
    long = {
        word: u.id
        for u in utterances
        for word in (u.text or "").split()
        if len(word) > MOST_LETTERS and word.isascii()
    }
    yield Finding(
        "long words",
        f"{len(long)} words of more than {MOST_LETTERS} letters: links, or spaces that are lost?",
        len(long),
        [f"{id_}: {word[:MOST_LETTERS]}... ({len(word)})" for word, id_ in long.items()],
    )


def _doubled(
    sets: Mapping[str, Sequence[Utterance]], measured: Sequence[tuple[Utterance, Heard]]
) -> Finding:
    set_of = {id(u): name for name, utterances in sets.items() for u in utterances}
    groups: dict[bytes, list[Utterance]] = defaultdict(list)
    for utterance, heard in measured:
        groups[heard.digest].append(utterance)
    doubled = [
        group for group in groups.values() if len({(str(u.audio), u.offset_s) for u in group}) > 1
    ]
    across = sum(len({set_of[id(u)] for u in group}) > 1 for group in doubled)
    return Finding(
        "doubled audio",
        f"{len(doubled)} recordings are there more than once, {across} of them in several sets",
        len(doubled),
        [
            " = ".join(f"{u.id} ({set_of[id(u)]})" for u in group)
            + (": with different texts" if len({u.text for u in group}) > 1 else "")
            for group in doubled
        ],
    )


def _double_ids(sets: Mapping[str, Sequence[Utterance]]) -> Finding:
    names: dict[str, list[str]] = defaultdict(list)
    for name, utterances in sets.items():
        for utterance in utterances:
            names[utterance.id].append(name)
    doubled = {i: found for i, found in names.items() if len(found) > 1}
    return Finding(
        "doubled ids",
        f"{len(doubled)} ids stand for several utterances",
        len(doubled),
        [f"{i}: in {', '.join(found)}" for i, found in doubled.items()],
    )


def _double_speakers(sets: Mapping[str, Sequence[Utterance]]) -> Finding:
    where: dict[str, set[str]] = defaultdict(set)
    for name, utterances in sets.items():
        for utterance in utterances:
            where[utterance.speaker].add(name)
    shared = {speaker: sorted(found) for speaker, found in where.items() if len(found) > 1}
    return Finding(
        "speakers in several sets",
        f"{len(shared)} speakers are in several sets, which flatters error rates",
        len(shared),
        [f"{speaker}: {', '.join(found)}" for speaker, found in shared.items()],
    )


def _levels(measured: Sequence[tuple[Utterance, Heard]]) -> Iterable[Finding]:
    clipped = [(u, h) for u, h in measured if h.clipped > MOST_CLIPPED]
    yield Finding(
        "clipping",
        f"{len(clipped)} utterances are clipped (more than {100 * MOST_CLIPPED:g} % of samples)",
        len(clipped),
        [f"{u.id}: {100 * h.clipped:.1f} % of its samples" for u, h in clipped],
    )
    silent = [(u, h) for u, h in measured if h.peak < LEAST_PEAK]
    yield Finding(
        "silence",
        f"{len(silent)} utterances are silent (no sample above -50 dB)",
        len(silent),
        [f"{u.id}: peak {20 * math.log10(max(h.peak, 1e-9)):.0f} dB" for u, h in silent],
    )


def _rates(measured: Sequence[tuple[Utterance, Heard]], wanted: int) -> Iterable[Finding]:
    by_rate: dict[int, list[str]] = defaultdict(list)
    for utterance, heard in measured:
        by_rate[heard.rate].append(utterance.id)
    low = {rate: ids for rate, ids in sorted(by_rate.items()) if rate < wanted}
    yield Finding(
        "low rates",
        f"{sum(map(len, low.values()))} utterances have fewer than {wanted} samples a second, and "
        "lack what lies above half their rate",
        sum(map(len, low.values())),
        [f"{rate} Hz: {len(ids)} utterances, such as {ids[0]}" for rate, ids in low.items()],
    )
    if len(by_rate) > 1:
        yield Finding(
            "several rates",
            f"{len(by_rate)} sample rates in one corpus: "
            + ", ".join(f"{rate} Hz ({len(by_rate[rate])})" for rate in sorted(by_rate)),
            len(by_rate),
        )


def _few(names: Iterable[str]) -> str:
    shown = list(names)
    return " ".join(shown[:10]) + (" ..." if len(shown) > 10 else "")


def histogram(durations_s: Sequence[float]) -> tuple[list[float], list[int]]:
    """Edges in seconds of up to `BINS` bins of a round width, and how many lie in each."""
    longest = max(durations_s)
    power = 10.0 ** math.floor(math.log10(longest / BINS))
    width = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power * BINS >= longest)
    counts, edges = np.histogram(durations_s, bins=np.arange(BINS + 1) * width)
    last = int(np.flatnonzero(counts)[-1]) + 1
    return [round(e, 9) for e in edges[: last + 1].tolist()], counts[:last].tolist()


def as_json(report: CorpusReport) -> dict[str, Any]:
    """The report as a JSON object; each finding with all of its examples."""
    edges, counts = histogram(report.durations_s)
    return {
        "sound": report.is_sound,
        "sets": {name: size._asdict() for name, size in report.sets.items()},
        "durations": {"edges_s": edges, "utterances": counts},
        "findings": [
            {"kind": f.kind, "stops": f.stops, "count": f.count, "told": f.told}
            | {"examples": list(f.examples)}
            for f in report.findings
        ],
    }


def as_text(report: CorpusReport, n_examples: int, width: int = 40) -> list[str]:
    """The report in lines: durations as bars of up to ``width`` characters, then what was found."""
    edges, counts = histogram(report.durations_s)
    lines = ["seconds"]
    for first, last, count in zip(edges, edges[1:], counts, strict=False):
        bar = "█" * math.ceil(width * count / max(counts))
        lines.append(f"{first:>7g} to {last:<7g} {bar} {count}")
    for finding in sorted(report.findings, key=lambda f: not f.stops):
        lines.append(f"{'stops' if finding.stops else 'note'}: {finding.told}")
        lines += [f"  {example}" for example in finding.examples[:n_examples]]
        if len(finding.examples) > n_examples:
            lines.append(f"  ... {len(finding.examples) - n_examples} more (--json has all)")
    lines.append(
        "nothing that would stop a training" if report.is_sound else "a training would stop"
    )
    return lines
