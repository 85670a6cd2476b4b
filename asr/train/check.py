"""Learn one batch by heart: whether features, labels, loss and updates fit together at all.

Karpathy 2019, "A Recipe for Training Neural Networks": overfit one batch before anything else.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace

import torch

from asr.audio.augment import AugmentConfig
from asr.corpora import load_corpus
from asr.data.examples import collate, seed_of
from asr.data.utterances import Listed
from asr.errors import InputError
from asr.labels import unit_symbols
from asr.score.error_rate import RATE_NAMES
from asr.system.device import pick_device
from asr.train.config import LmConfig, RunConfig
from asr.train.judge import rate_on_dev
from asr.train.optim import new_optimizer
from asr.train.setup import (
    Pronounced,
    build,
    choose_sets,
    corpus_root,
    find_lexicon,
    pronounced,
    with_plain_texts,
)
from asr.train.step import StepConfig, step
from asr.train.telling import ALL_BLANK
from asr.train.world import World
from asr.types import Utterance

N_UTTERANCES, MOST_S = 4, 60.0
MOST_LOOKED_AT = 10_000
#: Below this error rate the batch is known by heart.
LEARNT = 0.02
#: And below this loss, where it is framewise: labels shorter than a frame are errors for ever.
LEARNT_LOSS = 0.05
#: Fewer steps prove nothing.
FEW_STEPS = 50
#: A loss that has not come down to this share of its first value has not fallen.
FALLEN = 0.8


def overfit(config: RunConfig, most_s: float = MOST_S) -> bool:
    """Train on a few utterances alone for up to ``most_s`` seconds; print how it goes, and why.

    At the recipe's own learning rate, without augmentation, dropout and weight noise. Returns
    whether the error rate came down to about nothing.

    Raises:
        InputError: the corpus or the settings cannot be worked with.
    """
    config = replace(
        config,
        augment=AugmentConfig(freq_masks=0, time_masks=0),
        lm=LmConfig(),
        loss=replace(config.loss, framewise_epochs=0, framewise_weight=0.0, label_smoothing=0.0),
        model=replace(
            config.model, conv_dropout=0.0, dropout=0.0, drop_connect=0.0, weight_noise=0.0
        ),
        trainer=replace(config.trainer, max_skipped=1.0),
    )
    world = World(pick_device(config.trainer.device, "trainer.device="))
    corpus = load_corpus(config.corpus.kind, corpus_root(config))
    # Of a corpus beyond memory a part will do.
    some = {"train": Listed(choose_sets(config.corpus, corpus)["train"][:MOST_LOOKED_AT])}
    lexicon = find_lexicon(config.corpus, corpus)
    said = pronounced(config.labels, with_plain_texts(some, lexicon), lexicon)
    chosen = Listed(choose(said.sets["train"], config))
    prepared = build(config, Pronounced({"train": chosen, "dev": chosen}), None)
    bundle = prepared.bundle
    model, criterion = bundle.model.to(world.device), bundle.criterion
    optimizer = new_optimizer(config.optim, model)
    batch = collate(prepared.train.sample(), config.features, criterion == "framewise")
    rate_name = RATE_NAMES[config.labels.unit]
    print(
        f"learning {len(batch.ids)} utterances ({sum(u.duration_s for u in chosen):.1f} s) by "
        f"heart at optim.lr={config.optim.lr:g}, for {most_s:g} s at most"
    )
    losses: list[float] = []
    rate, blanks, next_look = 1.0, 0.0, 1.0
    began = time.perf_counter()
    while not is_learnt(losses, rate, criterion) and time.perf_counter() - began < most_s:
        model.train()
        torch.manual_seed(seed_of(config.seed, len(losses), 0))
        done = step(StepConfig.of(config, criterion), model, optimizer, batch, world)
        losses.append(done.loss if done.is_good else math.nan)
        if not done.is_good:
            break
        if len(losses) >= next_look:
            rate, blanks = rate_on_dev(bundle, criterion, prepared.scored["dev"])
            print(
                f"step {len(losses):5d}  loss {done.loss:8.4f}  {rate_name} {100 * rate:6.2f} %  "
                f"blank {100 * blanks:3.0f} %",
                flush=True,
            )
            next_look *= 1.3
    print(f"{len(losses)} steps in {time.perf_counter() - began:.0f} s: ", end="")
    print(verdict(losses, rate, blanks, criterion))
    return is_learnt(losses, rate, criterion)


def is_learnt(losses: Sequence[float], rate: float, criterion: str) -> bool:
    """Whether the batch is known by heart."""
    by_loss = criterion == "framewise" and bool(losses) and losses[-1] < LEARNT_LOSS
    return rate <= LEARNT or by_loss


def choose(utterances: Sequence[Utterance], config: RunConfig) -> list[Utterance]:
    """A few of the shorter utterances, which are the sooner learnt.

    Raises:
        InputError: none has a transcript.
    """
    unit, fold = config.labels.unit, config.labels.fold
    by_length = sorted(utterances, key=lambda u: (u.duration_s, u.id))
    short = by_length[len(by_length) // 10 :]
    chosen: list[Utterance] = []
    for utterance in short:
        if unit_symbols(utterance, unit, fold):
            chosen.append(utterance)
        if len(chosen) == min(N_UTTERANCES, config.trainer.batch_size):
            return chosen
    if not chosen:
        raise InputError(f"corpus.root={config.corpus.root}: no utterance with a transcript")
    return chosen


def verdict(losses: Sequence[float], rate: float, blanks: float, criterion: str) -> str:
    """What came out, and what to try where it was not learning."""
    if is_learnt(losses, rate, criterion):
        return "learning works"
    if not math.isfinite(losses[-1]):
        return (
            f"NOT learnt: the loss or its gradient became infinite or NaN in step {len(losses)}: "
            f"lower optim.lr or optim.clip_norm"
        )
    if len(losses) < FEW_STEPS:
        return (
            f"only {len(losses)} steps, too few to tell: this machine is slow or busy; try again, "
            f"or with a smaller model"
        )
    fallen = losses[-1] / losses[0]
    if fallen > FALLEN:
        return (
            f"NOT learnt: the loss went from {losses[0]:.2f} to {losses[-1]:.2f}: raise optim.lr "
            f"(or lower it, if the loss jumps up and down); then look whether the audio is silent, "
            f"and whether the transcripts are those of the audio"
        )
    if criterion == "ctc" and blanks > ALL_BLANK:
        return (
            "NOT learnt: every frame is blank: CTC's first phase lasts too long: raise optim.lr, "
            "begin with loss.framewise_epochs where labels have times, or take a smaller model"
        )
    return (
        f"NOT yet learnt: the loss fell from {losses[0]:.2f} to {losses[-1]:.2f}, the error rate "
        f"to {100 * rate:.0f} %: too slow for this machine, or raise optim.lr"
    )
