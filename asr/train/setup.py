"""What a training begins with: its device, the corpus' sets, examples, and an untrained model."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch

from asr.audio.augment import WaveformAugment
from asr.audio.features import BY_TRAIN, Statistics, frame_clock
from asr.corpora import Audit, Corpus
from asr.data.cache import cached
from asr.data.examples import Example, Targets, join_speeds, make_examples
from asr.data.index import IndexedManifest
from asr.data.matrices import Matrix, extract, pooled, set_statistics
from asr.data.utterances import Listed, Utterances
from asr.decode.lexicon import Lexicon
from asr.decode.pronunciations import MOST_TOLD, look_up, read_entries, sum_up
from asr.decode.viterbi import estimate_transitions
from asr.errors import InputError
from asr.g2p.unknown import Spoken, extended, noted
from asr.g2p.unknown import pronounced as by_letters
from asr.labels import (
    BLANK_SYMBOL,
    LabelConfig,
    Labels,
    fold,
    folding_named,
    inventory,
    unit_symbols,
)
from asr.lm.ngram import NGram
from asr.model.bundle import Bundle
from asr.nets.acoustic import AcousticModel, sketched
from asr.system.progress import progress_bar
from asr.system.text import plain_text
from asr.train.config import CorpusConfig, LmConfig, RunConfig
from asr.train.rundir import log
from asr.train.sets import AboutSet, Held, TrainingSet, check_skipped
from asr.train.stream import open_stream
from asr.types import Segment, Utterance

#: Computing features for longer than this is worth keeping them.
LONG_S = 30.0


def corpus_root(config: RunConfig) -> Path:
    """The corpus' folder, which has no default."""
    if not config.corpus.root:
        raise InputError(f"corpus.root is not set: add corpus.root=DIR ({config.corpus.kind})")
    return Path(config.corpus.root)


def find_lexicon(config: CorpusConfig, corpus: Corpus) -> Path | None:
    """The configured lexicon's path, if one is configured.

    Raises:
        InputError: there is no such file.
    """
    if not config.lexicon:
        return None
    path = corpus.root / config.lexicon
    if not path.is_file():
        raise InputError(
            f"corpus.lexicon={config.lexicon}: no file {path}; "
            f"name one, or do without words: corpus.lexicon=''"
        )
    return path


def choose_sets(config: CorpusConfig, corpus: Corpus) -> dict[str, Utterances]:
    """The corpus' sets under the names train, dev, and each test set's own.

    Raises:
        InputError: a set is not there, empty or named twice, or train shares audio with another.
    """
    wanted = [*config.train, config.dev, *config.test]
    twice = sorted({name for name in wanted if wanted.count(name) > 1})
    clash = [name for name in (config.dev, *config.test) if name == "train"]
    if twice or clash or not config.train:
        raise InputError(
            f"corpus.train={config.train}, dev={config.dev}, test={config.test}: expected "
            "different sets, one or more of them to train on, and none named train to score"
        )
    mark = "" if config.fold == 1 else str(config.fold)
    found = {name: corpus.sets.get(f"{name}{mark}", ()) for name in wanted}
    for name, utterances in found.items():
        if not utterances:
            raise InputError(
                f"corpus.root={config.root}: no utterances in set '{name}{mark}'; "
                f"the sets found are {', '.join(corpus.sets) or 'none'}"
            )
    train = corpus.join([found[name] for name in config.train])
    scored = {"dev": Listed(found[config.dev])}
    scored |= {name: Listed(found[name]) for name in config.test}
    for name, utterances in scored.items():
        leak, heard = train.shared_with(utterances)
        if leak:
            raise InputError(
                f"set {name!r} shares {len(leak)} utterances with train, such as {leak[0]}"
            )
        if heard:
            log.warning(
                "set %r shares %d speakers with train, such as %s: its error rates flatter",
                name,
                len(heard),
                heard[0],
            )
    return {"train": train, **scored}


def with_plain_texts(
    sets: Mapping[str, Utterances], lexicon: Path | None
) -> Mapping[str, Utterances]:
    """The sets as `plain` makes them, and a line on each where that changes words.

    Words that the lexicon writes so stay, unless train is streamed: then no lexicon has a say.
    """
    words = {name: utterances.words() for name, utterances in sets.items()}
    if all(plain_text(word) == word for word in set().union(*words.values())):
        return sets
    known: set[str] = set()
    if lexicon and not sets["train"].streamed:
        known = {entry.word for entry in read_entries(lexicon)}
    for name, found in words.items():
        changed = sorted(word for word in found if plain_text(word, known) != word)
        if changed:
            log.info(
                "%s: %d words are taken in lower case and without punctuation, such as %r",
                name,
                len(changed),
                changed[0],
            )
    return {name: utterances.plain(known) for name, utterances in sets.items()}


def in_memory(sets: Mapping[str, Utterances]) -> dict[str, Utterances]:
    """All sets but a train set that is read while it is trained on."""
    return {name: s for name, s in sets.items() if not s.streamed}


@dataclass(frozen=True)
class Pronounced:
    """Sets whose utterances have phones, as far as a lexicon tells them.

    left_out: by set, utterances with words that it lacks, and the reason. phones: all those of the
    lexicon, where any utterance has its phones from there. guessed: words of train that the lexicon
    lacks, with their phones there.
    """

    sets: Mapping[str, Utterances]
    left_out: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    phones: Collection[str] = ()
    guessed: Sequence[Spoken] = ()


def pronounced(
    config: LabelConfig,
    sets: Mapping[str, Utterances],
    lexicon: Path | None,
    corrected: Path | None = None,
) -> Pronounced:
    """Give utterances of words alone their phones: the first pronunciation of each word.

    Words are looked up as `look_up` does, and become what the lexicon calls them. Words that it
    lacks are taken from the file ``corrected``, or pronounced by their letters and written there.

    Whether there is silence between words nobody knows, so there is none among the labels: CTC's
    blank takes its place. Words that cannot be pronounced are summed up.

    Raises:
        InputError: the corpus is streamed, or the lexicon cannot be read or has stray phones.
    """
    if config.unit != "phone":
        return Pronounced(sets)
    if lexicon is None:
        return with_phones(sets)
    if (train := sets["train"]).streamed:
        (all_of_it,) = train.vocabulary()
        if all_of_it.phones is None:
            raise InputError(
                f"{all_of_it.id}: has no phones, and a streamed corpus does not get them from a "
                "lexicon; write them into its manifests"
            )
        return Pronounced(sets)
    if all(u.phones is not None for s in sets.values() for u in s):
        return Pronounced(sets)
    first: dict[str, tuple[Segment, ...]] = {}
    for where, word, symbols, _ in read_entries(lexicon, folding_named(config.fold) or ()):
        fold(symbols, config.fold, where)
        first.setdefault(word, tuple(map(Segment, symbols)))
    trained_on = {w for u in train for w in look_up(u.text or "", first.get)[1]}
    spoken = _guessed(first, sets, corrected)
    for word, way in spoken:
        first.setdefault(word, tuple(map(Segment, way)))
    found: dict[str, Utterances] = {}
    left_out: dict[str, dict[str, str]] = {}
    for name, utterances in sets.items():
        kept, lacking = Listed(), {}
        for u in utterances:
            words, missing = look_up(u.text or "", first.get)
            if u.phones is not None:
                kept.append(u)
            elif missing:
                lacking[u.id] = missing
            else:
                phones = tuple(p for word in words for p in first[word])
                kept.append(replace(u, text=" ".join(words), phones=phones))
        left_out[name] = {
            i: f"words without a pronunciation: {' '.join(dict.fromkeys(ws))}"
            for i, ws in lacking.items()
        }
        if lacking:
            log.warning("%s: %s", name, sum_up(lacking, "without a pronunciation, left out"))
        if not kept:
            raise InputError(
                f"{lexicon}: lacks words of every utterance of {name}, such as "
                f"{next(iter(lacking.values()))[0]!r}: is it one of another language?"
            )
        found[name] = kept
    guessed = [(word, way) for word, way in spoken if word in trained_on]
    known_phones = sorted({p.label for said in first.values() for p in said})
    return Pronounced(found, left_out, known_phones, guessed)


def _guessed(
    known: Mapping[str, tuple[Segment, ...]],
    sets: Mapping[str, Utterances],
    corrected: Path | None,
) -> list[Spoken]:
    """Words that are said and not ``known``, in the phones of those that are."""
    said = (u for s in sets.values() for u in s if u.phones is None)
    missing = [word for u in said for word in look_up(u.text or "", known.get)[1]]
    phones = sorted({phone.label for segments in known.values() for phone in segments})
    guessed = by_letters(missing, Labels("phone", (BLANK_SYMBOL, *phones)), "none", corrected)
    if line := noted(guessed, corrected):
        log.warning("corpus: %s", line)
    return guessed.entries


def with_phones(sets: Mapping[str, Utterances]) -> Pronounced:
    """The sets without utterances that lack phones; a set that has none at all stays whole."""
    found = dict(sets)
    left_out: dict[str, dict[str, str]] = {}
    for name, utterances in in_memory(sets).items():
        kept = Listed(u for u in utterances if u.phones is not None)
        if kept and len(kept) < len(utterances):
            lacking = [u.id for u in utterances if u.phones is None]
            found[name], left_out[name] = kept, dict.fromkeys(lacking, "has no phones")
    return Pronounced(found, left_out)


def report_audit(audit: Audit, most: float) -> None:
    """Log what is odd about a corpus, and which files are missing or corrupt (they are in no set).

    Raises:
        InputError: more than the share ``most`` of the utterances is lost.
    """
    for deviation in audit.deviations:
        log.warning("corpus: %s", deviation)
    lost = audit.missing | audit.corrupt
    for path, reason in lost.items():
        log.warning("corpus: %s left out: %s", path, reason)
    if len(lost) > most * audit.found:
        raise InputError(
            f"corpus: {len(lost)} files of {audit.found} utterances are missing or corrupt (more "
            f"than trainer.max_skipped={most:g}); the first: {': '.join(next(iter(lost.items())))}"
        )


@dataclass(frozen=True)
class Prepared:
    """What a training begins with.

    bundle: the untrained model with its belongings. scored: dev and the test sets, by name.
    skipped: by set, the ids of utterances that are left out, and why.
    """

    bundle: Bundle
    train: TrainingSet
    scored: dict[str, list[Example]]
    skipped: dict[str, dict[str, str]]


def build(
    config: RunConfig, said: Pronounced, lexicon: Path | None, n_processes: int = 1
) -> Prepared:
    """Features, inventory, examples of each set, and the untrained model with its belongings.

    A train set that is streamed becomes a `Stream`, whose features come when used.

    Raises:
        InputError: the settings, the audio or the transcripts cannot be worked with.
    """
    net = partial(AcousticModel, config.model, config.features.size)
    # A net beyond all bounds, or a folder of noise that is not there, is told now and not in the
    # first step.
    sketched(partial(net, n_labels=2, n_bins=config.features.n_mels))
    WaveformAugment(config.augment, config.features)
    skipped = {name: dict(said.left_out.get(name, {})) for name in said.sets}
    train, held = said.sets["train"], in_memory(said.sets)
    if "train" in held:
        skipped["train"] |= too_long(train, config.trainer.max_utterance_s)
    copies = compute_features(config, held, skipped)
    labels = inventory(train.vocabulary(said.phones), config.labels.unit, config.labels.fold)
    about = about_sets(config, labels)
    # Statistics see train alone; they travel with the model.
    stats: Statistics | None = None
    stream = None
    if isinstance(train, IndexedManifest):
        stream = open_stream(about, train, skipped["train"], n_processes)
        stats = stream.stats
    elif config.features.normalize in BY_TRAIN:
        stats = pooled([m for _, found in copies["train"] for m in found.values()])
    scored = {}
    for name, utterances in held.items():
        scored[name] = examples_of(
            name,
            utterances,
            copies[name],
            (config.features.normalize, stats),
            about.targets if name == "train" else None,
            skipped[name],
        )
        n_all = len(utterances) + len(said.left_out.get(name, {}))
        report_skipped(name, n_all, skipped[name], config.trainer.max_skipped)
        report_strays(name, utterances, labels.symbols, config.labels)
        if name == "train":
            report_rare(scored[name], labels)
    known: TrainingSet = stream or Held(scored.pop("train"), about)
    torch.manual_seed(config.seed)
    bundle = Bundle(
        features=config.features,
        architecture=config.model,
        labels=labels,
        label_config=config.labels,
        criterion=config.loss.name,
        model=net(len(labels), config.features.n_mels),
        decoder=config.decoder if lexicon else replace(config.decoder, lexicon=False),
        stats=stats,
        transitions=estimate_transitions(known.frame_targets(), len(labels))
        if about.targets.frames
        else None,
        lexicon=lexicon_of(lexicon, said, labels, config.labels.fold) if lexicon else None,
    )
    add_language_models(bundle, config.lm, known.transcripts(), train)
    return Prepared(bundle, known, scored, skipped)


def lexicon_of(lexicon: Path, said: Pronounced, labels: Labels, folding: str) -> Lexicon:
    """The lexicon's words, and those of train that it lacks, as they were trained on."""
    guessed = [(word, fold(phones, folding, word)) for word, phones in said.guessed]
    return extended(Lexicon.read(lexicon, labels, folding), guessed, labels)


def about_sets(config: RunConfig, labels: Labels) -> AboutSet:
    """What the configured training set is made by: of transcripts, what the loss takes."""
    framewise = config.loss.name == "framewise"
    targets = Targets(
        labels,
        config.labels,
        frame_clock(config.features, config.model.subsampling),
        ctc=not framewise,
        frames=framewise or config.loss.framewise_epochs > 0 or config.loss.framewise_weight > 0,
    )
    return AboutSet(targets, config.features, config.augment, config.trainer, config.seed)


def add_language_models(
    bundle: Bundle,
    config: LmConfig,
    transcripts: Iterable[list[str]],
    utterances: Iterable[Utterance],
) -> None:
    """Estimate the configured n-grams: over labels from ``transcripts``, over words from texts."""
    if config.label_order and bundle.criterion != "framewise":
        bundle.label_lm = NGram.estimate(transcripts, config.label_order)
    if config.word_order:
        texts = ((u.text or "").split() for u in utterances)
        bundle.word_lm = NGram.estimate(texts, config.word_order)


def too_long(utterances: Iterable[Utterance], most_s: float) -> dict[str, str]:
    """Those of more than ``most_s`` seconds, by id, with the reason."""
    return {
        u.id: f"{u.duration_s:.0f} s are more than trainer.max_utterance_s={most_s:g}"
        for u in utterances
        if u.duration_s > most_s
    }


#: Features of a set's utterances, by id, at each of its speeds.
Copies = Sequence[tuple[float, Mapping[str, Matrix]]]


def compute_features(
    config: RunConfig,
    sets: Mapping[str, Utterances],
    skipped: Mapping[str, dict[str, str]],
) -> Mapping[str, Copies]:
    """Features of each set, of train at all speeds; ``skipped`` gets what cannot be read."""
    folder = config.trainer.feature_cache
    compute = partial(cached, Path(folder), tell=log.info) if folder else extract
    copies: dict[str, list[tuple[float, dict[str, Matrix]]]] = {}
    began = time.perf_counter()
    with progress_bar() as progress:
        for name, utterances in sets.items():
            speeds = config.augment.speeds if name == "train" else (1.0,)
            task = progress.add_task(f"features of {name}", total=len(utterances) * len(speeds))
            tick = partial(progress.advance, task)
            copies[name] = []
            for speed in speeds:
                wanted = [u for u in utterances if u.id not in skipped[name]]
                found = compute(wanted, config.features, skipped[name], tick, speed)
                copies[name].append((speed, found))
    took_s = time.perf_counter() - began
    if not folder and took_s > LONG_S:
        log.info("features took %.0f s; trainer.feature_cache=DIR keeps them on disk", took_s)
    return copies


def examples_of(
    name: str,
    utterances: Sequence[Utterance],
    copies: Copies,
    normalisation: tuple[str, Statistics | None],
    targets: Targets | None,
    skipped: dict[str, str],
) -> list[Example]:
    """A set's examples, each with its copies at other speeds.

    normalisation: by what features are normalised, and train's statistics where it is by them.
    """
    speakers = {u.id: u.speaker for u in utterances}
    unfit: list[dict[str, str]] = [{} for _ in copies]
    examples = join_speeds(
        [
            make_examples(
                utterances,
                found,
                set_statistics(found, speakers, *normalisation),
                targets,
                lost,
                speed,
            )
            for (speed, found), lost in zip(copies, unfit, strict=True)
        ]
    )
    usable = {e.utterance.id for e in examples}
    n_fewer = sum(i in usable for told in unfit for i in told)
    if n_fewer:
        log.info("%s: %d copies are too short for their labels at their speed", name, n_fewer)
    skipped |= {i: why for told in unfit for i, why in told.items() if i not in usable}
    return examples


def report_skipped(name: str, n_all: int, reasons: dict[str, str], most: float) -> None:
    """Log what a set lost, and stop where it lost too much.

    Raises:
        InputError: more than the share ``most`` is gone, or nothing is left.
    """
    for utterance_id, reason in reasons.items():
        log.warning("%s: %s left out: %s", name, utterance_id, reason)
    if reasons:
        first = ": ".join(next(iter(reasons.items())))
        check_skipped(name, len(reasons), n_all, most, first)
        log.warning("%s: %d of %d utterances left out", name, len(reasons), n_all)


def report_rare(examples: Sequence[Example], labels: Labels) -> None:
    """Say which labels train says only once: a slip of the transcript, or hardly to be learnt."""
    times = Counter(label for e in examples for label in e.labels)
    once = [e for e in examples if any(times[label] == 1 for label in e.labels)]
    told = [
        f"{labels.symbols[label]} ({e.utterance.id})"
        for e in once
        for label in e.labels
        if times[label] == 1
    ]
    if told:
        log.warning(
            "train says %d labels only once, hardly to be learnt: %s%s",
            len(told),
            ", ".join(told[:MOST_TOLD]),
            ", ..." if len(told) > MOST_TOLD else "",
        )


def report_strays(
    name: str, utterances: Iterable[Utterance], symbols: Sequence[str], config: LabelConfig
) -> None:
    """Say which symbols of a dev or test set the model can never output."""
    if config.unit == "word":
        return
    known = set(symbols)
    strays = {s for u in utterances for s in unit_symbols(u, config.unit, config.fold)} - known
    if strays:
        log.warning(
            "%s holds symbols that train lacks (each is an error for sure): %s",
            name,
            " ".join(sorted(strays)),
        )
