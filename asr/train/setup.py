"""What a training begins with: its device, the corpus' sets, examples, and an untrained model."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from asr.audio.augment import WaveformAugment
from asr.audio.features import Statistics
from asr.corpora import Audit, Corpus
from asr.data.cache import cached
from asr.data.examples import Example, extract, join_speeds, make_examples, pooled, set_statistics
from asr.data.index import IndexedManifest, join_manifests
from asr.decode.lexicon import Lexicon
from asr.decode.pronunciations import MOST_TOLD, look_up, read_entries, sum_up
from asr.decode.viterbi import estimate_transitions
from asr.errors import InputError
from asr.labels import LabelConfig, Labels, fold, folding_named, inventory, unit_symbols
from asr.lm.ngram import NGram
from asr.model.bundle import Bundle
from asr.nets.acoustic import AcousticModel, sketched
from asr.system.progress import progress_bar
from asr.train.config import CorpusConfig, RunConfig
from asr.train.rundir import log
from asr.train.stream import Stream, open_stream
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


def choose_sets(config: CorpusConfig, corpus: Corpus) -> dict[str, Sequence[Utterance]]:
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
    for name in wanted:
        if not corpus.sets.get(name):
            raise InputError(
                f"corpus.root={config.root}: no utterances in set {name!r}; "
                f"the sets found are {', '.join(corpus.sets) or 'none'}"
            )
    parts = [corpus.sets[name] for name in config.train]
    manifests = [part for part in parts if isinstance(part, IndexedManifest)]
    sets: dict[str, Sequence[Utterance]] = {
        "train": join_manifests(manifests) if manifests else [u for part in parts for u in part]
    }
    sets["dev"] = list(corpus.sets[config.dev])
    sets |= {name: list(corpus.sets[name]) for name in config.test}
    if not manifests:
        trained = {(u.audio, u.offset_s) for u in sets["train"]}
        speakers = {u.speaker for u in sets["train"]}
    for name in list(sets)[1:]:
        if isinstance(sets["train"], IndexedManifest):
            leak, heard = sets["train"].shared_with(sets[name])
        else:
            leak = [u.id for u in sets[name] if (u.audio, u.offset_s) in trained]
            heard = sorted({u.speaker for u in sets[name]} & speakers)
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
    return sets


@dataclass(frozen=True)
class Pronounced:
    """Sets whose utterances have phones, as far as a lexicon tells them.

    left_out: by set, utterances with words that it lacks, and the reason. phones: all those of the
    lexicon, where any utterance has its phones from there.
    """

    sets: Mapping[str, Sequence[Utterance]]
    left_out: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    phones: tuple[str, ...] = ()

    @property
    def vocabulary(self) -> list[Utterance]:
        """An utterance that says every phone of the lexicon once, or none."""
        phones = tuple(map(Segment, self.phones))
        return [Utterance("of the lexicon", Path(), "", 0.0, phones=phones)] if phones else []


def pronounced(
    config: LabelConfig, sets: Mapping[str, Sequence[Utterance]], lexicon: Path | None
) -> Pronounced:
    """Give utterances of words alone their phones: the first pronunciation of each word.

    Words are looked up as `look_up` does, and become what the lexicon calls them.

    Whether there is silence between words nobody knows, so there is none among the labels: CTC's
    blank takes its place. Words that the lexicon lacks are summed up.

    Raises:
        InputError: the corpus is streamed, or the lexicon cannot be read or has stray phones.
    """
    wordy = config.unit == "phone" and lexicon is not None
    if isinstance(train := sets["train"], IndexedManifest):
        if wordy and train.vocabulary().phones is None:
            raise InputError(
                f"{train.vocabulary().id}: has no phones, and a streamed corpus does not get them "
                "from a lexicon; write them into its manifests"
            )
        wordy = False
    if lexicon is None or not wordy or all(u.phones is not None for s in sets.values() for u in s):
        return Pronounced(sets)
    first: dict[str, tuple[Segment, ...]] = {}
    for where, word, symbols, _ in read_entries(lexicon, folding_named(config.fold) or ()):
        fold(symbols, config.fold, where)
        first.setdefault(word, tuple(map(Segment, symbols)))
    found: dict[str, Sequence[Utterance]] = {}
    left_out: dict[str, dict[str, str]] = {}
    for name, utterances in sets.items():
        kept, lacking = [], {}
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
    return Pronounced(
        found, left_out, tuple(sorted({p.label for said in first.values() for p in said}))
    )


def report_lost(audit: Audit, most: float) -> None:
    """Log the corpus files that were missing or corrupt; their utterances are in no set.

    Raises:
        InputError: more than the share ``most`` of the utterances is lost.
    """
    lost = audit.missing | audit.corrupt
    for path, reason in lost.items():
        log.warning("corpus: %s left out: %s", path, reason)
    if len(lost) > most * audit.found:
        raise InputError(
            f"corpus: {len(lost)} files of {audit.found} utterances are missing or corrupt (more "
            f"than trainer.max_skipped={most:g}); the first: {': '.join(next(iter(lost.items())))}"
        )


def build(
    config: RunConfig,
    said: Pronounced,
    lexicon: Path | None,
    n_processes: int = 1,
) -> tuple[Bundle, dict[str, Sequence[Example]], dict[str, dict[str, str]]]:
    """Features, inventory, examples of each set, and the untrained model with its belongings.

    A train set that is an `IndexedManifest` becomes a `Stream`, whose features come when used.
    """
    net = partial(AcousticModel, config.model, config.features.size)
    # A net beyond all bounds, or a folder of noise that is not there, is told now and not in the
    # first step.
    sketched(partial(net, n_labels=2, n_bins=config.features.n_mels))
    WaveformAugment(config.augment, config.features)
    skipped = {name: dict(said.left_out.get(name, {})) for name in said.sets}
    train = said.sets["train"]
    held = dict(said.sets)
    if isinstance(train, IndexedManifest):
        del held["train"]
    else:
        most_s = config.trainer.max_utterance_s
        skipped["train"] |= {
            u.id: f"{u.duration_s:.0f} s are more than trainer.max_utterance_s={most_s:g}"
            for u in train
            if u.duration_s > most_s
        }
    speeds = {name: tuple(config.augment.speeds) if name == "train" else (1.0,) for name in held}
    folder = config.trainer.feature_cache
    compute = partial(cached, Path(folder), tell=log.info) if folder else extract
    matrices = {}
    began = time.perf_counter()
    with progress_bar() as progress:
        for name, utterances in held.items():
            task = progress.add_task(
                f"features of {name}", total=len(utterances) * len(speeds[name])
            )
            for speed in speeds[name]:
                matrices[name, speed] = compute(
                    [u for u in utterances if u.id not in skipped[name]],
                    config.features,
                    skipped[name],
                    partial(progress.advance, task),
                    speed,
                )
    took_s = time.perf_counter() - began
    if not folder and took_s > LONG_S:
        log.info("features took %.0f s; trainer.feature_cache=DIR keeps them on disk", took_s)
    # Statistics see train alone; they travel with the model.
    stats: Statistics | None = None
    examples: dict[str, Sequence[Example]] = {}
    if isinstance(train, IndexedManifest):
        labels = inventory([train.vocabulary()], config.labels.unit, config.labels.fold)
        stream = open_stream(config, train, labels, skipped["train"], n_processes)
        examples["train"], stats = stream, stream.stats
    else:
        labels = inventory([*train, *said.vocabulary], config.labels.unit, config.labels.fold)
        if config.features.normalize == "global":
            stats = pooled([m for s in speeds["train"] for m in matrices["train", s].values()])

    framewise = config.loss.name == "framewise"
    subsampling = config.model.subsampling
    for name, utterances in held.items():
        training = name == "train"
        speakers = {u.id: u.speaker for u in utterances}
        unfit: list[dict[str, str]] = []
        by_speed = []
        for speed in speeds[name]:
            found = matrices[name, speed]
            unfit.append({})
            by_speed.append(
                make_examples(
                    utterances,
                    found,
                    set_statistics(found, speakers, config.features.normalize, stats),
                    labels,
                    config.labels,
                    config.features,
                    subsampling,
                    unfit[-1],
                    with_ctc=training and not framewise,
                    with_frames=training and (framewise or config.loss.framewise_epochs > 0),
                    with_labels=training,
                    speed=speed,
                )
            )
        examples[name] = join_speeds(by_speed)
        usable = {e.utterance.id for e in examples[name]}
        n_fewer = sum(i in usable for told in unfit for i in told)
        if n_fewer:
            log.info("%s: %d copies are too short for their labels at their speed", name, n_fewer)
        skipped[name] |= {i: why for told in unfit for i, why in told.items() if i not in usable}
        n_all = len(utterances) + len(said.left_out.get(name, {}))
        report_skipped(name, n_all, skipped[name], config.trainer.max_skipped)
        report_strays(name, utterances, labels.symbols, config.labels)
        if training:
            report_rare(examples[name], labels)

    torch.manual_seed(config.seed)
    bundle = Bundle(
        features=config.features,
        architecture=config.model,
        labels=labels,
        label_config=config.labels,
        criterion=config.loss.name,
        model=net(len(labels), config.features.n_mels),
        decoder=config.decoder,
        stats=stats,
    )
    known = examples["train"]
    if framewise or config.loss.framewise_epochs > 0:
        targets = (
            known.sample_frame_targets()
            if isinstance(known, Stream)
            else [np.array(e.frames) for e in known]
        )
        bundle.transitions = estimate_transitions(targets, len(labels))
    if config.lm.label_order and not framewise:
        spelled = (
            known.transcripts()
            if isinstance(known, Stream)
            else (labels.decode(e.labels) for e in known)
        )
        bundle.label_lm = NGram.estimate(spelled, config.lm.label_order)
    if lexicon is not None:
        bundle.lexicon = Lexicon.read(lexicon, labels, config.labels.fold)
    else:
        bundle.decoder = replace(config.decoder, lexicon=False)
    if config.lm.word_order:
        texts = ((u.text or "").split() for u in train)
        bundle.word_lm = NGram.estimate(texts, config.lm.word_order)
    return bundle, examples, skipped


def report_skipped(name: str, n_all: int, reasons: dict[str, str], most: float) -> None:
    """Log what a set lost, and stop where it lost too much.

    Raises:
        InputError: more than the share ``most`` is gone, or nothing is left.
    """
    for utterance_id, reason in reasons.items():
        log.warning("%s: %s left out: %s", name, utterance_id, reason)
    if len(reasons) > most * n_all or len(reasons) == n_all:
        first = next(iter(reasons.items()))
        raise InputError(
            f"{name}: {len(reasons)} of {n_all} utterances cannot be used (more than "
            f"trainer.max_skipped={most:g}); the first: {first[0]}: {first[1]}"
        )
    if reasons:
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
