"""How a training begins, or goes on from a checkpoint."""

from __future__ import annotations

from pathlib import Path

from asr.corpora import Corpus, load_corpus
from asr.errors import InputError
from asr.model.bundle import Bundle
from asr.nets.recurrent import count_parameters
from asr.system.progress import progress_bar
from asr.train.averaging import MovingAverage, Snapshots
from asr.train.config import RunConfig
from asr.train.optim import new_optimizer, rate_of_extension
from asr.train.rundir import log
from asr.train.setup import Prepared, corpus_root
from asr.train.start import shares
from asr.train.state import Checkpoint, Training, load_state
from asr.train.world import World


def read_corpus(config: RunConfig) -> Corpus:
    """The configured corpus, with a progress bar."""
    with progress_bar() as progress:
        return load_corpus(
            config.corpus.kind,
            corpus_root(config),
            lambda files: progress.track(files, description="reading the corpus"),
        )


def begin(run: Path, config: RunConfig, prepared: Prepared, world: World) -> Training:
    """A training of which nothing is done yet."""
    bundle = prepared.bundle
    model = bundle.model.to(world.device)
    return Training(
        run=run,
        config=config,
        world=world,
        train=prepared.train,
        scored=prepared.scored,
        skipped=prepared.skipped,
        bundle=bundle,
        parallel=world.wrap(model),
        optimizer=new_optimizer(config.optim, model, shares(config.init, bundle)),
        moving=MovingAverage(model, config.optim.ema) if config.optim.ema else None,
        snapshots={
            "last": Snapshots(config.trainer.average_last, best=False),
            "best": Snapshots(config.trainer.average_best, best=True),
        },
    )


def find_checkpoint(run: Path, world: World) -> Checkpoint | None:
    """The newest whole checkpoint, the same one in every process.

    Raises:
        InputError: none is whole, or a process sees another run directory than rank 0.
    """
    # Rank 0 first: it sets aside what is corrupt.
    found = load_state(run) if world.is_main else None
    step = world.from_main(found.state.step if found else -1)[0]
    if not world.is_main:
        found = load_state(run)
    if step != (found.state.step if found else -1):
        raise InputError(
            f"{run}: holds other checkpoints here than for rank 0: "
            f"run_dir must be a folder that all machines share"
        )
    return found


def go_on(training: Training, found: Checkpoint) -> None:
    """Stand where a checkpoint stood, and log what has changed since."""
    optim, n_epochs = training.config.optim, training.config.trainer.max_epochs
    changes, state = training.go_on(found), found.state
    log.info("resuming after epoch %d and %d batches", state.epoch, state.batch)
    for change in changes:
        log.info("changed: %s", change)
    if found.max_epochs <= state.epoch < n_epochs:
        log.info("%s", rate_of_extension(optim, state, found.max_epochs, n_epochs))


def tell_model(config: RunConfig, bundle: Bundle, world: World) -> None:
    """Log what is about to be trained, and on what."""
    log.info(
        "%d labels (%s), %.2f M parameters, %s, seed %d; model frames every %g ms",
        len(bundle.labels) - 1,
        config.labels.unit,
        count_parameters(bundle.model) / 1e6,
        f"{world.size} x {world.device.type}" if world.size > 1 else world.device,
        config.seed,
        bundle.clock.shift_s * 1000,
    )
