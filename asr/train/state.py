"""Where a training stands, and the checkpoints that bring it back there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from asr.data.examples import Example
from asr.errors import InputError
from asr.model.bundle import Bundle
from asr.model.weights import load_weights
from asr.nets.tensors import load_tensors, optimizer_tensors, restore_optimizer, save_tensors
from asr.train.averaging import MovingAverage, Snapshots
from asr.train.config import RunConfig
from asr.train.rundir import checkpoint_path, checkpoints, log, read_metrics
from asr.train.sets import TrainingSet, digest_of
from asr.train.world import World

STATE_FORMAT = "carousel-state-4"
#: Checkpoints kept: the newest, and the one before in case the newest turns out corrupt.
N_KEPT = 2

#: Settings that may change when a run goes on: where it runs, how it is watched, when it stops.
HARMLESS = {
    "run_dir",
    "resume",
    "corpus.root",
    "trainer.device",
    "trainer.feature_cache",
    "trainer.workers",
    "trainer.save_minutes",
    "trainer.patience",
    "trainer.max_bad_steps",
    "trainer.max_skipped",
    "trainer.tune",
}


@dataclass
class Totals:
    """Sums over the steps of an epoch; ``lr`` is the last step's rate.

    loss: nats over ``n_labels`` labels. gradient_norm: over ``n_good`` steps with finite loss and
    gradient. frames and padded_frames: of log-mel, without and with padding.
    """

    loss: float = 0.0
    n_labels: float = 0.0
    gradient_norm: float = 0.0
    n_good: int = 0
    lr: float = 0.0
    frames: int = 0
    padded_frames: int = 0
    wall_s: float = 0.0
    waited_s: float = 0.0


@dataclass
class State:
    """Where a training stands, beside the tensors; the rest follows from seed, epoch and step.

    epoch: whole epochs done, dev judged. batch: steps done of the epoch after them, and
    ``totals`` their sums. step: of all epochs. since_plateau: epochs since the rate fell.
    trained_s: seconds on a monotonic clock, over all sittings.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    totals: Totals = field(default_factory=Totals)
    best_rate: float | None = None
    best_epoch: int = 0
    lr_scale: float = 1.0
    since_plateau: int = 0
    bad_steps: int = 0
    trained_s: float = 0.0


@dataclass
class Training:
    """A training between two steps: what it trains, and all that a checkpoint keeps of it.

    scored: dev and the test sets. skipped: by set, what is left out, as found until now. bundle:
    the model alone; parallel: as all processes train it together. moving: the moving average of the
    weights, where one is wanted. best: the weights of the best epoch.
    """

    run: Path
    config: RunConfig
    world: World
    train: TrainingSet
    scored: Mapping[str, Sequence[Example]]
    skipped: Mapping[str, Mapping[str, str]]
    bundle: Bundle
    parallel: nn.Module
    optimizer: torch.optim.Optimizer
    moving: MovingAverage | None
    snapshots: dict[str, Snapshots]
    state: State = field(default_factory=State)
    best: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def model(self) -> nn.Module:
        """The model alone."""
        return self.bundle.model

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """What dev judges and the run keeps: the moving average where there is one."""
        return self.model.state_dict() | (self.moving.weights if self.moving else {})

    def forget_best(self) -> None:
        """Look for the best epoch, and what to average, from here on."""
        self.best = {}
        self.state.best_rate, self.state.best_epoch = None, self.state.epoch
        self.state.since_plateau = 0
        for kept in self.snapshots.values():
            kept.kept.clear()

    @cached_property
    def about(self) -> dict[str, str]:
        """What must be alike to go on from a checkpoint, or is told where it is not.

        And ``start``, so that going on takes no second look at the model that was started from.
        """
        return {
            "config": json.dumps(asdict(self.config)),
            "data": json.dumps(
                {"train": self.train.digest()}
                | {name: digest_of(examples) for name, examples in self.scored.items()}
            ),
            "place": json.dumps(
                {
                    "torch": torch.__version__,
                    "threads": torch.get_num_threads(),
                    "processes": self.world.size,
                }
            ),
            "start": json.dumps(self.bundle.start),
        }

    def save(self) -> None:
        """Write a checkpoint; rank 0 alone does."""
        if not self.world.is_main:
            return
        groups: dict[str, Mapping[str, torch.Tensor]] = {
            "model": self.model.state_dict(),
            "optim": optimizer_tensors(self.optimizer),
            "best": self.best,
        }
        groups |= {f"snapshots_{which}": kept.state() for which, kept in self.snapshots.items()}
        if self.moving is not None:
            groups["moving"] = self.moving.state()
        save_state(self.run, self.state, groups, self.about)

    def go_on(self, found: Checkpoint) -> list[str]:
        """Stand where a checkpoint stood; returns what is harmlessly different by now.

        Raises:
            InputError: something differs that would make another training of it.
        """
        changes = check_unchanged(found, self.about, self.config)
        load_weights(self.model, found.groups["model"], found.path)
        # A group without tensors leaves no trace: no step has been taken, no epoch judged.
        restore_optimizer(self.optimizer, found.groups.get("optim", {}))
        self.state, self.best = found.state, found.groups.get("best", {})
        if self.moving is not None:
            self.moving.load(found.groups["moving"])
        for which, kept in self.snapshots.items():
            kept.load(found.groups.get(f"snapshots_{which}", {}))
        return changes


#: Named tensors by what they belong to, such as {"model": {"output.bias": ...}}.
Groups = Mapping[str, Mapping[str, torch.Tensor]]


def save_state(run: Path, state: State, groups: Groups, about: Mapping[str, str]) -> None:
    """Write a checkpoint, whole or not at all, and remove all but the last ones.

    ``about`` is kept as it is: what the run must still be like to go on from here.

    Raises:
        InputError: the disk is full or the folder not writable; earlier checkpoints survive.
    """
    tensors = {f"{g}.{name}": t for g, group in groups.items() for name, t in group.items()}
    metadata = {**about, "format": STATE_FORMAT, "state": json.dumps(asdict(state))}
    save_tensors(checkpoint_path(run, state.step), tensors, metadata)
    for old in checkpoints(run)[:-N_KEPT]:
        old.unlink()


@dataclass(frozen=True)
class Checkpoint:
    """What `save_state` wrote."""

    path: Path
    state: State
    groups: dict[str, dict[str, torch.Tensor]]
    about: dict[str, str]

    @property
    def max_epochs(self) -> int:
        """Where the run was to end."""
        epochs: int = json.loads(self.about["config"])["trainer"]["max_epochs"]
        return epochs

    @property
    def start(self) -> dict[str, Any]:
        """What the run started from: `Bundle.start`."""
        return dict(json.loads(self.about.get("start", "{}")))


def load_state(run: Path) -> Checkpoint | None:
    """Read the newest checkpoint that is whole; None where the run has not got to one.

    A corrupt one is set aside as ``*.corrupt``, and the log says so.

    Raises:
        InputError: none is whole, or it is of another version.
    """
    corrupt: list[Path] = []
    for path in reversed(checkpoints(run)):
        try:
            tensors, about = load_tensors(path)
        except InputError as error:
            log.warning("%s; trying the checkpoint before it", error)
            corrupt.append(path)
            continue
        if (written := about.pop("format", None)) != STATE_FORMAT:
            raise InputError(
                f"{path}: expected a training state of format {STATE_FORMAT!r}, found {written!r}: "
                f"go on with the version of asr that wrote it, or begin another run"
            )
        values = json.loads(about.pop("state"))
        values["totals"] = Totals(**values["totals"])
        groups: dict[str, dict[str, torch.Tensor]] = {}
        for key, tensor in tensors.items():
            group, _, name = key.partition(".")
            groups.setdefault(group, {})[name] = tensor
        for spoilt in corrupt:
            spoilt.rename(spoilt.with_name(spoilt.name + ".corrupt"))
        return Checkpoint(path, State(**values), groups, about)
    # The first epoch's figures are written just before its checkpoint.
    if corrupt or len(read_metrics(run)) > 1:
        raise InputError(
            f"{run}: no whole checkpoint left in {run / 'checkpoints'} to go on from; "
            f"begin anew in another run_dir"
        )
    return None


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings with dotted keys, as users write them."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= (
            flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return found


def check_unchanged(found: Checkpoint, about: Mapping[str, str], config: RunConfig) -> list[str]:
    """Compare what a checkpoint says of itself with what is to go on (`Training.about`).

    Returns the harmless differences, ``key: old -> new`` each.

    Raises:
        InputError: a difference would make another training of it; the line names each.
    """
    # Settings newer than the checkpoint had their defaults.
    defaults = json.loads(json.dumps(asdict(RunConfig())))
    old = flat(defaults) | flat(json.loads(found.about["config"]))
    new = flat(json.loads(about["config"]))
    harmless = HARMLESS
    # The other schedules' rates depend on where the end is. A run that came to it has had them all.
    is_over = found.state.epoch >= found.max_epochs
    extended = is_over and config.trainer.max_epochs > found.max_epochs
    if extended or config.optim.schedule in ("constant", "plateau"):
        harmless = harmless | {"trainer.max_epochs"}
    told = {key: f"{key}: {old[key]} -> {new[key]}" for key in new if old[key] != new[key]}
    harmful = [line for key, line in told.items() if key not in harmless]
    if harmful:
        raise InputError(
            f"{found.path}: comes from other settings ({'; '.join(harmful)}): "
            f"go on with the old ones, or begin another run with the new ones"
        )
    began_with, has = json.loads(found.about["data"]), json.loads(about["data"])
    others = [name for name in has if has[name] != began_with[name]]
    if others:
        raise InputError(
            f"{found.path}: the utterances of {' and '.join(others)} under "
            f"corpus.root={config.corpus.root} are not those that the run began with "
            f"(names, texts, labels, times or audio): begin another run"
        )
    was, now = json.loads(found.about["place"]), json.loads(about["place"])
    moved = [
        f"{key}: {was[key]} -> {now[key]} (sums are taken in another order: "
        f"the last bits of the weights will differ from an uninterrupted run's)"
        for key in now
        if was[key] != now[key]
    ]
    return [*told.values(), *moved]
