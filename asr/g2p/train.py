"""Training of a model from letters to phones on a pronouncing dictionary."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from asr.decode.pronunciations import Entry
from asr.errors import InputError
from asr.g2p.joint import cut
from asr.g2p.model import Pronouncer, Spoken
from asr.g2p.net import LettersToPhones, NetConfig
from asr.g2p.score import Rates, rates
from asr.g2p.words import Dictionary, Letters, padded
from asr.labels import BLANK
from asr.nets.losses import ctc_frames_needed, ctc_loss
from asr.system.device import device_of
from asr.system.settings import check, setting

#: Share of the loss that the layers before the last have.
INNER = 0.5
#: Share of the training in which the learning rate rises.
WARMUP = 0.05
#: What is tried on dev: weights of the n-gram over phones with each of that over letters with their
#: phones, then what a phone gets beside.
LM_WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
JOINT_WEIGHTS = (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0)
BONUSES = (-0.5, 0.5, 1.0)
#: Each of so many words is held out where there is no dev dictionary.
HELD_OUT = 20


@dataclass
class TrainConfig:
    """A model and its training."""

    net: NetConfig = field(default_factory=NetConfig)
    order: int = setting(8, "phones in an n-gram", 1, 16)
    joint_order: int = setting(7, "letters with their phones in an n-gram", 1, 16)
    epochs: int = setting(40, "passes over the dictionary", 1, 1_000_000)
    batch: int = setting(256, "words that are trained side by side", 1, 1_000_000)
    lr: float = setting(3e-3, "learning rate of AdamW, at its highest", above=0, most=100)
    weight_decay: float = setting(1e-2, "share of the weights taken off, times lr", 0, 1000)
    clip_norm: float = setting(1.0, "longer gradients are shortened to it", above=0)
    seed: int = setting(1, "of all that is drawn", 0, 2**63 - 1)

    def __post_init__(self) -> None:
        check(self, "g2p")


class Examples(NamedTuple):
    """Words and their phones, padded: letters (N, L) and targets (N, U).

    They lie on the net's device, their lengths (N,) on the CPU, where CTC wants them; those of the
    words on the device, too. shares (N,): of the epochs, in which one is trained on.
    """

    letters: Tensor
    lens: NDArray[np.int64]
    lens_there: Tensor
    targets: Tensor
    target_lens: NDArray[np.int64]
    shares: NDArray[np.float64]


@dataclass(frozen=True)
class Epoch:
    """What one epoch brought. loss: nats a phone on train, while training; dev: of best paths."""

    number: int
    loss: float
    dev: Rates
    lr: float
    is_best: bool
    wall_s: float


def held_out(dictionary: Dictionary) -> tuple[Dictionary, Dictionary]:
    """All words but each twentieth, to train on, and those, to measure on.

    Raises:
        InputError: there is a single one.
    """
    held = set(list(dictionary.by_word)[::HELD_OUT])
    parts = [
        replace(dictionary, entries=tuple(e for e in dictionary.entries if (e.word in held) is dev))
        for dev in (False, True)
    ]
    if not parts[0].entries:
        raise InputError(
            f"{dictionary.source}: a single word: nothing can be held out; give --dev LEXICON"
        )
    return parts[0], parts[1]


def train(
    dictionary: Dictionary,
    dev: Dictionary,
    config: TrainConfig,
    device: torch.device,
    on_epoch: Callable[[Pronouncer, Epoch], None] = lambda model, epoch: None,
    limit_s: float = math.inf,
    taught: Sequence[Entry] = (),
) -> tuple[Pronouncer, Rates]:
    """Train on ``dictionary``: the model of the epoch whose best paths were best on ``dev``.

    The weights of its search are then chosen on ``dev``; its rates there are returned, too.
    on_epoch: called after each epoch. limit_s: where the epochs take longer, the learning rate
    comes to its end then. taught: what other models say of more words, each pronunciation trained
    on in as many epochs as it is probable (the n-grams are of ``dictionary`` alone).

    Raises:
        InputError: nothing to train on, or a loss that is not finite.
    """
    letters, phones = Letters.of(dictionary.by_word), dictionary.phones()
    dev_words = list(dev.by_word)
    order = np.random.default_rng(config.seed)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(config.seed)
        net = LettersToPhones(config.net, len(letters.symbols), len(phones)).to(device)
        cuts = cut(dictionary.entries, letters, phones)
        spoken = Spoken(cuts, config.order, config.joint_order)
        model = Pronouncer(letters, phones, (net,), spoken)
        data = examples_of(dictionary, model, taught)
        optimizer = torch.optim.AdamW(
            net.parameters(), config.lr, weight_decay=config.weight_decay, fused=True
        )
        began, best, best_weights = time.perf_counter(), math.inf, net.state_dict()
        for number in range(1, config.epochs + 1):
            started = time.perf_counter()
            total = torch.zeros((), device=device)
            batches = batches_of(data, config.batch, order)
            net.train()
            there = torch.from_numpy(np.concatenate(batches)).to(device)
            for i, picked in enumerate(there.split(list(map(len, batches)))):
                done = (number - 1 + i / len(batches)) / config.epochs
                done = max(done, (time.perf_counter() - began) / max(limit_s, 1e-3))
                optimizer.param_groups[0]["lr"] = rate(config.lr, min(done, 1.0))
                loss = loss_of(net, data, batches[i], picked)
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(net.parameters(), config.clip_norm)
                optimizer.step()
                total += loss.detach()
            mean = total.item() / len(batches)
            if not math.isfinite(mean):
                raise InputError(f"epoch {number}: the loss is not finite; try a lower lr")
            found = rates(best_paths(model, dev_words), dev)
            is_best = found.word_error_rate < best
            if is_best:
                best, best_weights = found.word_error_rate, copy.deepcopy(net.state_dict())
            now = time.perf_counter()
            lr = optimizer.param_groups[0]["lr"]
            on_epoch(model, Epoch(number, mean, found, lr, is_best, now - started))
            if now - began >= limit_s:
                break
    net.load_state_dict(best_weights)
    return tuned(model, dev)


def rate(peak: float, done: float) -> float:
    """The learning rate where so much of the training is done, 0 to 1: up, and down by a cosine."""
    return peak * min(max(done / WARMUP, 0.01), 0.5 * (1 + math.cos(math.pi * done)))


def examples_of(
    dictionary: Dictionary, model: Pronouncer, taught: Sequence[Entry] = ()
) -> Examples:
    """The dictionary's entries and those ``taught`` for the net of ``model``, but for those with
    more phones than it has frames.

    Raises:
        InputError: none is left, or a phone is taught that the dictionary lacks.
    """
    (net,) = model.nets
    rows, targets, shares = [], [], []
    asked = [(entry, 1.0) for entry in dictionary.entries]
    for entry, share in [*asked, *((entry, entry.probability) for entry in taught)]:
        row = model.letters.encode(entry.word) or []
        ids = model.phones.encode(entry.phones, entry.where)
        if ctc_frames_needed(ids) <= net.config.frames * len(row):
            rows.append(row)
            targets.append(ids)
            shares.append(share)
    if 1.0 not in shares:
        raise InputError(
            f"{dictionary.source}: every word has more phones than frames: raise --frames"
        )
    (letters, lens), (labels, label_lens) = padded(rows), padded(targets)
    there = [torch.from_numpy(table).to(device_of(net)) for table in (letters, lens, labels)]
    return Examples(there[0], lens, there[1], there[2], label_lens, np.array(shares))


def batches_of(data: Examples, size: int, order: np.random.Generator) -> list[NDArray[np.int64]]:
    """The rows of an epoch's batches: words of about one length, drawn anew, in random order."""
    drawn = np.flatnonzero(order.random(len(data.shares)) < data.shares)
    shuffled = order.permutation(drawn)
    by_length = shuffled[np.argsort(data.lens[shuffled], kind="stable")]
    cut = [by_length[first : first + size] for first in range(0, len(by_length), size)]
    return [cut[i] for i in order.permutation(len(cut)).tolist()]


def loss_of(
    net: LettersToPhones, data: Examples, rows: NDArray[np.int64], picked: Tensor
) -> Tensor:
    """CTC of a batch: of the last layer, and the mean of the others. Nothing waits for a GPU.

    picked: the rows on the device.
    """
    device = data.letters.device
    lens, target_lens = data.lens[rows], data.target_lens[rows]
    letters = data.letters[picked, : lens.max()]
    targets = data.targets[picked, : target_lens.max()]
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        said = net(letters, data.lens_there[picked])
    frames = torch.from_numpy(lens * net.config.frames)
    n_phones = torch.from_numpy(target_lens)
    *inner, last = [ctc_loss(log_probs, frames, targets, n_phones) for log_probs in said]
    if not inner:
        return last
    return (1 - INNER) * last + INNER * torch.stack(inner).mean()


def best_paths(model: Pronouncer, words: Sequence[str]) -> list[list[str]]:
    """The phones of each word's best path; none where its letters are not known."""
    found: list[list[str]] = [[] for _ in words]
    for (said,) in model.hear(words):
        paths = said.log_probs.argmax(2)
        fresh = (paths != BLANK) & (np.diff(paths, axis=1, prepend=BLANK) != 0)
        for place, path, is_new, n in zip(said.places, paths, fresh, said.lens, strict=True):
            found[place] = model.phones.decode(path[:n][is_new[:n]].tolist())
    return found


def joined(models: Sequence[Pronouncer], dev: Dictionary) -> tuple[Pronouncer, Rates]:
    """The nets of several models as one, with the n-grams of the first, `tuned` on ``dev``.

    Raises:
        InputError: the models have different letters or phones.
    """
    first = models[0]
    if any((m.letters, m.phones) != (first.letters, first.phones) for m in models):
        raise InputError("the models have different letters or phones: train them on one lexicon")
    return tuned(replace(first, nets=tuple(net for m in models for net in m.nets)), dev)


def tuned(model: Pronouncer, dev: Dictionary) -> tuple[Pronouncer, Rates]:
    """The model with the weights of its search that are best on ``dev``, and its rates there."""
    heard = list(model.hear(list(dev.by_word)))

    def tried(lm_weight: float, bonus: float) -> Iterator[tuple[Pronouncer, Rates]]:
        search = replace(model.search, lm_weight=lm_weight, bonus=bonus)
        found = list(replace(model, search=search).found(heard))
        for joint_weight in JOINT_WEIGHTS:
            trial = replace(model, search=replace(search, joint_weight=joint_weight))
            ways = trial.ways(len(dev.by_word), found)
            yield trial, rates([best[0].phones if best else () for best in ways], dev)

    def errors(found: tuple[Pronouncer, Rates]) -> tuple[float, float]:
        return found[1].word_error_rate, found[1].phone_error_rate

    best = min(chain(*(tried(weight, 0.0) for weight in LM_WEIGHTS)), key=errors)
    lm_weight = best[0].search.lm_weight
    return min(chain([best], *(tried(lm_weight, bonus) for bonus in BONUSES)), key=errors)
