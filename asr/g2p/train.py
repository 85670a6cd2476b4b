"""Training of a model from letters to phones on a pronouncing dictionary."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path
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
from asr.nets.tensors import load_tensors, optimizer_tensors, restore_optimizer, save_tensors
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


class Dictionaries(NamedTuple):
    """What a model is trained on, what chooses its best epoch, and what other models taught it."""

    train: Dictionary
    dev: Dictionary
    taught: Sequence[Entry]


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


@dataclass
class State:
    """Where a training stands. epoch: those done; trained_s: what they took, over all sittings."""

    epoch: int = 0
    best: float = math.inf
    trained_s: float = 0.0


@dataclass
class Training:
    """A training between two epochs, and all that going on from there takes.

    draws: the state of torch's generators, on the CPU and on the net's device.
    """

    dictionaries: Dictionaries
    config: TrainConfig
    model: Pronouncer
    data: Examples
    optimizer: torch.optim.Optimizer
    order: np.random.Generator
    draws: list[Tensor]
    best: dict[str, Tensor]
    state: State = field(default_factory=State)

    @classmethod
    def begin(
        cls, dictionaries: Dictionaries, config: TrainConfig, device: torch.device
    ) -> Training:
        """The training before its first epoch.

        Raises:
            InputError: nothing to train on.
        """
        words, _, taught = dictionaries
        letters, phones = Letters.of(words.by_word), words.phones()
        with _drawing([], device) as draws:
            torch.manual_seed(config.seed)
            net = LettersToPhones(config.net, len(letters.symbols), len(phones)).to(device)
        cuts = cut(words.entries, letters, phones)
        spoken = Spoken(cuts, config.order, config.joint_order)
        model = Pronouncer(letters, phones, (net,), spoken)
        optimizer = torch.optim.AdamW(
            net.parameters(), config.lr, weight_decay=config.weight_decay, fused=True
        )
        data = examples_of(words, model, taught)
        order = np.random.default_rng(config.seed)
        best = copy.deepcopy(net.state_dict())
        return cls(dictionaries, config, model, data, optimizer, order, draws, best)

    @property
    def net(self) -> LettersToPhones:
        """What is trained."""
        return self.model.nets[0]

    def epochs(self, limit_s: float = math.inf) -> Iterator[Epoch]:
        """Train on, epoch by epoch. limit_s: where they take longer, over all sittings, the
        learning rate comes to its end then.

        Raises:
            InputError: a loss that is not finite.
        """
        state = self.state
        while state.epoch < self.config.epochs and (state.epoch == 0 or state.trained_s < limit_s):
            started = time.perf_counter()
            with _drawing(self.draws, device_of(self.net)) as self.draws:
                loss = self._epoch(started - state.trained_s, max(limit_s, 1e-3))
            if not math.isfinite(loss):
                raise InputError(f"epoch {state.epoch + 1}: the loss is not finite; try a lower lr")
            dev = self.dictionaries.dev
            found = rates(best_paths(self.model, list(dev.by_word)), dev)
            is_best = found.word_error_rate < state.best
            if is_best:
                state.best, self.best = found.word_error_rate, copy.deepcopy(self.net.state_dict())
            state.epoch += 1
            wall_s = time.perf_counter() - started
            state.trained_s += wall_s
            lr = self.optimizer.param_groups[0]["lr"]
            yield Epoch(state.epoch, loss, found, lr, is_best, wall_s)

    def _epoch(self, began: float, limit_s: float) -> float:
        """Train an epoch; return its loss."""
        device = device_of(self.net)
        total = torch.zeros((), device=device)
        batches = batches_of(self.data, self.config.batch, self.order)
        self.net.train()
        there = torch.from_numpy(np.concatenate(batches)).to(device)
        for i, picked in enumerate(there.split(list(map(len, batches)))):
            done = (self.state.epoch + i / len(batches)) / self.config.epochs
            done = max(done, (time.perf_counter() - began) / limit_s)
            self.optimizer.param_groups[0]["lr"] = rate(self.config.lr, min(done, 1.0))
            loss = loss_of(self.net, self.data, batches[i], picked)
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.net.parameters(), self.config.clip_norm)
            self.optimizer.step()
            total += loss.detach()
        return total.item() / len(batches)

    def finish(self) -> tuple[Pronouncer, Rates]:
        """The model of the best epoch, with the weights of its search `tuned`; its dev rates."""
        self.net.load_state_dict(self.best)
        return tuned(self.model, self.dictionaries.dev)

    def about(self) -> dict[str, str]:
        """What must be alike to go on, by what it is told as."""
        words, dev, taught = self.dictionaries
        return {
            "settings": json.dumps(asdict(self.config)),
            "LEXICON": _digest(words.entries),
            "--dev": _digest(dev.entries),
            "--taught": _digest(taught),
        }

    def save(self, path: Path) -> None:
        """Write where the training stands, whole or not at all.

        Raises:
            InputError: the disk is full or the folder not writable.
        """
        groups: dict[str, Mapping[str, Tensor]] = {
            "net": self.net.state_dict(),
            "optimizer": optimizer_tensors(self.optimizer),
            "best": self.best,
            "draws": {str(i): drawn for i, drawn in enumerate(self.draws)},
        }
        tensors = {f"{g}.{name}": t for g, group in groups.items() for name, t in group.items()}
        state = {"state": asdict(self.state), "order": self.order.bit_generator.state}
        save_tensors(path, tensors, {**self.about(), "at": json.dumps(state)})

    def go_on(self, path: Path) -> None:
        """Stand where the training stood that was saved there.

        Raises:
            InputError: it cannot be read, or was another training; the line says what differs.
        """
        tensors, about = load_tensors(path)
        at = json.loads(about.pop("at", "{}"))
        if other := [name for name, what in self.about().items() if about.get(name) != what]:
            raise InputError(
                f"{path}: is of a training with other {' and other '.join(other)}: "
                "give what it began with"
            )
        groups: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            group, _, own = name.partition(".")
            groups.setdefault(group, {})[own] = tensor
        device = device_of(self.net)
        self.net.load_state_dict(groups["net"])
        restore_optimizer(self.optimizer, groups["optimizer"])
        self.best = {name: tensor.to(device) for name, tensor in groups["best"].items()}
        self.draws = [groups["draws"][str(i)] for i in range(len(groups["draws"]))]
        self.order.bit_generator.state = at["order"]
        self.state = State(**at["state"])


def _digest(entries: Sequence[Entry]) -> str:
    """A digest of words and pronunciations, wherever they were read."""
    said = json.dumps([entry[1:] for entry in entries])
    return hashlib.blake2b(said.encode(), digest_size=16).hexdigest()


@contextmanager
def _drawing(draws: Sequence[Tensor], device: torch.device) -> Iterator[list[Tensor]]:
    """Let torch draw on from ``draws``, if there are any, and its own draws be as if nothing was.

    Yields a list that holds, after it, where the draws stand.
    """
    is_cuda = device.type == "cuda"
    after: list[Tensor] = []
    with torch.random.fork_rng(devices=[device] if is_cuda else []):
        if draws:
            torch.set_rng_state(draws[0])
        if is_cuda and len(draws) > 1:
            torch.cuda.set_rng_state(draws[1], device)
        yield after
        after.append(torch.get_rng_state())
        if is_cuda:
            after.append(torch.cuda.get_rng_state(device))


def train(
    dictionary: Dictionary,
    dev: Dictionary,
    config: TrainConfig,
    device: torch.device,
    taught: Sequence[Entry] = (),
) -> tuple[Pronouncer, Rates]:
    """Train on ``dictionary``: the model of the epoch whose best paths were best on ``dev``.

    The weights of its search are then chosen on ``dev``; its rates there are returned, too.
    taught: what other models say of more words, each pronunciation trained on in as many epochs as
    it is probable (the n-gram is of ``dictionary`` alone).

    Raises:
        InputError: nothing to train on, or a loss that is not finite.
    """
    training = Training.begin(Dictionaries(dictionary, dev, taught), config, device)
    for _ in training.epochs():
        pass
    return training.finish()


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
