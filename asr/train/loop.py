"""Training, from a configuration to a run directory; read `train` top to bottom."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from asr.audio.augment import WaveformAugment
from asr.data.examples import (
    Epoch,
    collate,
    filler,
    made_ahead,
    pinned,
    seed_of,
)
from asr.data.manifest import write_manifest
from asr.errors import InputError
from asr.g2p.unknown import PRONOUNCED
from asr.model.bundle import save_lexicon
from asr.model.weights import load_bundle, save_bundle, save_weights
from asr.score.error_rate import RATE_NAMES
from asr.system.device import is_out_of_memory, pick_device
from asr.system.files import write_text
from asr.system.interrupts import deferred
from asr.system.memory import give_back_memory
from asr.system.progress import progress_bar
from asr.train.averaging import in_place_of
from asr.train.begin import begin, find_checkpoint, go_on, read_corpus, tell_model
from asr.train.config import RunConfig
from asr.train.judge import keep_best, rate_on_dev
from asr.train.optim import Schedule, follow_plateau
from asr.train.results import tune_and_score
from asr.train.rundir import (
    RESULTS,
    add_metrics,
    claim,
    environment,
    has_trained,
    keep_metrics,
    log,
    open_log,
)
from asr.train.setup import (
    build,
    choose_sets,
    find_lexicon,
    in_memory,
    pronounced,
    report_audit,
    with_plain_texts,
)
from asr.train.start import hold, read_start, take, tell_learning
from asr.train.state import State, Totals, Training
from asr.train.step import Step, StepConfig, out_of_memory, step
from asr.train.telling import board, epoch_metrics, how_it_goes, log_epoch
from asr.train.world import World, join, restarts
from asr.types import Batch

# Kernels that oneDNN keeps, one for each shape of a product. Of the 1024 that it keeps by itself
# few are met again, for hardly two batches are equally long; steps with 64 took no longer.
KEPT_KERNELS = 64


def train(config: RunConfig, resolved: str, resume: bool = False) -> dict[str, Any]:
    """Train as configured, judge the best model on dev and test, return what results.json holds.

    ``resolved`` is the configuration as text, kept in the run directory as config.yaml. Under
    torchrun every process calls this; only rank 0 writes, and only it returns results. Stopped by
    one of `interrupts.ENDINGS`, the training saves where it stands and raises `KeyboardInterrupt`.

    Raises:
        InputError: whatever the user can mend: see the message.
    """
    run = Path(config.run_dir)
    # Read at the first product.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(KEPT_KERNELS))
    with join(pick_device(config.trainer.device, "trainer.device=")) as world:
        # torchrun starts its processes again, with the same command, when one has died.
        resume = resume or (restarts() and has_trained(run))
        with claim(run, resume) if world.is_main else nullcontext():
            return train_in(run, config, resolved, resume, world)


def train_in(
    run: Path, config: RunConfig, resolved: str, resume: bool, world: World
) -> dict[str, Any]:
    """`train` in a run directory that is ours."""
    resume = bool(world.from_main(resume)[0])
    corpus = read_corpus(config)
    lexicon = find_lexicon(config.corpus, corpus)
    sets = choose_sets(config.corpus, corpus)
    open_log(run, world.is_main)
    found = find_checkpoint(run, world) if resume else None
    # A run that has got to a checkpoint has all that it started from.
    start = None if found else read_start(config.init, config.features)
    said = pronounced(config.labels, with_plain_texts(sets, lexicon), lexicon, run / PRONOUNCED)
    if world.is_main:
        if not resume:
            write_text(run / "config.yaml", resolved)
            about = environment() | ({"start": start.about} if start else {})
            write_text(run / "environment.json", json.dumps(about, indent=2) + "\n")
        write_text(run / "audit.json", json.dumps(asdict(corpus.audit), indent=2) + "\n")
        for name, utterances in in_memory(said.sets).items():
            write_manifest(run / "manifests" / f"{name}.jsonl", utterances)
    report_audit(corpus.audit, config.trainer.max_skipped)
    prepared = build(config, said, lexicon, world.size)
    bundle = prepared.bundle
    tell_model(config, bundle, world)
    if start:
        take(start, bundle)
        tell_learning(config.init, bundle)
    elif found:
        bundle.start = found.start
    training = begin(run, config, prepared, world)
    if found:
        go_on(training, found)
        if world.from_main(is_over(training) and (run / RESULTS).is_file())[0]:
            log.info("nothing left to train; the results are in %s", run / RESULTS)
            return json.loads((run / RESULTS).read_text(encoding="utf-8")) if world.is_main else {}
    if world.is_main:
        if resume:
            # With the changes.
            write_text(run / "config.yaml", resolved)
            (run / RESULTS).unlink(missing_ok=True)
        write_text(run / "skipped.json", json.dumps(prepared.skipped, indent=2) + "\n")
        save_bundle(run / "model", bundle)
        save_lexicon(run / "model", bundle)
        if training.best:
            # What lies there may be of an epoch that was lost.
            save_weights(run / "model", bundle, training.best)
        keep_metrics(run, training.state.epoch)

    fit(training)
    if not world.is_main:
        return {}
    kept = keep_best(training)
    n_lost = len(corpus.audit.missing) + len(corpus.audit.corrupt)
    return tune_and_score(training, load_bundle(run / "model"), kept, n_lost)


def fit(training: Training) -> None:
    """Train epoch after epoch, each judged on dev, logged and saved, until the last.

    Raises:
        KeyboardInterrupt: a signal came; where the training stands is saved.
    """
    config, state = training.config, training.state
    with board(training) as show:
        try:
            while not is_over(training):
                criterion = criterion_of(config, state.epoch)
                if state.batch == 0 and criterion != criterion_of(config, max(state.epoch - 1, 0)):
                    # Its error rates are another decoder's, and its weights know no blank.
                    training.forget_best()
                run_epoch(training, criterion)
                metrics = end_epoch(training, criterion)
                log_epoch(config, metrics, is_best=state.best_epoch == state.epoch)
                show(metrics)
                give_back_memory()
        except KeyboardInterrupt:
            # A terminal that is closed may send its signal twice.
            with deferred():
                training.save()
                log.info("stopped after epoch %d and %d batches; saved", state.epoch, state.batch)
            raise
    if state.epoch < config.trainer.max_epochs:
        rate_name = RATE_NAMES[config.labels.unit]
        log.info("no better dev %s for %d epochs: stopping", rate_name, config.trainer.patience)


def criterion_of(config: RunConfig, epoch: int) -> str:
    """What an epoch (from 0) trains by: "ctc" or "framewise"."""
    return "framewise" if epoch < config.loss.framewise_epochs else config.loss.name


def is_over(training: Training) -> bool:
    """Whether all epochs are done, or dev got no better for ``trainer.patience`` of them."""
    trainer, state = training.config.trainer, training.state
    if state.epoch >= trainer.max_epochs:
        return True
    # What begins framewise gets to CTC, whatever dev says.
    is_last = criterion_of(training.config, max(state.epoch - 1, 0)) == training.config.loss.name
    return is_last and 0 < trainer.patience <= state.epoch - state.best_epoch


def run_epoch(training: Training, criterion: str) -> None:
    """One pass over the training examples, or the rest of one: ``state`` says and learns where.

    Raises:
        InputError: too many steps with infinite or NaN loss, or not enough memory for one.
        KeyboardInterrupt: a signal came, here or to another process of the world.
    """
    config, state, world = training.config, training.state, training.world
    # Late: signals are looked for from the first batch on.
    epoch = training.train.open(
        state.epoch, state.batch, world.rank, world.size, lambda: asked_to_stop()
    )
    # Between a CPU's steps, nothing is waited for where features are in memory: threads that make
    # batches ahead would only share its cores.
    is_worth = world.device.type == "cuda" or training.train.reads
    n_threads = config.trainer.workers if is_worth else 0
    numbers = range(state.batch, epoch.n_batches)
    hold(training)
    training.parallel.train()
    saved = last = time.perf_counter()
    with (
        deferred() as asked_to_stop,
        progress_bar("about") as progress,
        closing(made_ahead(batch_maker(training, criterion, epoch), numbers, n_threads)) as made,
    ):
        task = progress.add_task(
            f"epoch {state.epoch + 1}", total=epoch.n_batches, completed=state.batch, about=""
        )
        for number, batch in zip(numbers, made, strict=True):
            state.totals.waited_s += time.perf_counter() - last
            at = state.epoch + number / epoch.n_batches
            done = take_step(training, criterion, batch, at, asked_to_stop())
            count_step(training, done, epoch, number)
            now = time.perf_counter()
            state.trained_s += now - last
            state.totals.wall_s += now - last
            last = now
            progress.update(task, advance=1, about=how_it_goes(config, state))
            refuse_bad_steps(config.trainer.max_bad_steps, state)
            if done.stopping:
                raise KeyboardInterrupt
            if now - saved > 60 * config.trainer.save_minutes:
                training.save()
                saved = last = time.perf_counter()
                state.trained_s += saved - now
    if not state.totals.n_good:
        raise InputError(
            f"epoch {state.epoch + 1}: not one step had a finite loss and gradient: lower "
            f"optim.lr or optim.clip_norm; the batches are listed in train.log"
        )


def batch_maker(training: Training, criterion: str, epoch: Epoch) -> Callable[[int], Batch]:
    """What makes this process' part of a batch, given its number in the epoch that begins now."""
    config, number_of_epoch = training.config, training.state.epoch
    augment = WaveformAugment(config.augment, config.features)
    on_gpu = training.world.device.type == "cuda"

    def make(number: int) -> Batch:
        """Every process needs some, so an empty part gets a filler."""
        part = epoch.load(number)
        batch = collate(
            part or [filler(config.features)],
            config.features,
            criterion == "framewise",
            augment if part else None,
            config.seed,
            number_of_epoch,
            criterion == "ctc" and config.loss.framewise_weight > 0,
        )
        batch = batch if part else replace(batch, ids=())
        return pinned(batch) if on_gpu else batch

    return make


def take_step(training: Training, criterion: str, batch: Batch, epoch: float, stop: bool) -> Step:
    """A `step` with the rate of a (fractional) epoch.

    Raises:
        InputError: there is not enough memory for it.
    """
    config, state, world = training.config, training.state, training.world
    schedule = Schedule(config.optim, config.trainer.max_epochs)
    state.totals.lr = schedule.apply(training.optimizer, epoch, state.lr_scale)
    # Dropout knows only torch's global generator; seeding it a step makes it explicit.
    torch.manual_seed(seed_of(config.seed, state.step, world.rank))
    how = StepConfig.of(config, criterion)
    try:
        return step(how, training.parallel, training.optimizer, batch, world, stop)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(out_of_memory(config.trainer, state.step + 1, batch)) from error


def count_step(training: Training, done: Step, epoch: Epoch, number: int) -> None:
    """Note a step that was taken with batch ``number``, in the average too where it was good."""
    state, totals, lens = training.state, training.state.totals, epoch.lens(number)
    state.step += 1
    state.batch += 1
    totals.frames += sum(lens)
    totals.padded_frames += len(lens) * max(lens)
    if done.is_good:
        totals.loss += done.loss * done.n_labels
        totals.n_labels += done.n_labels
        totals.gradient_norm += done.gradient_norm
        totals.n_good += 1
        if training.moving is not None:
            training.moving.update(training.model)
        return
    state.bad_steps += 1
    log.warning(
        "step %d left out: loss %g, gradient norm %g; utterances %s",
        state.step,
        done.loss,
        done.gradient_norm,
        " ".join(epoch.ids(number)),
    )


def refuse_bad_steps(most: int, state: State) -> None:
    """Stop where there were more than ``most`` bad steps.

    Raises:
        InputError: there were.
    """
    if state.bad_steps > most:
        raise InputError(
            f"{state.bad_steps} steps with infinite or NaN loss or gradient (more than "
            f"trainer.max_bad_steps={most}): lower optim.lr or optim.clip_norm; the batches are "
            f"listed in train.log"
        )


def end_epoch(training: Training, criterion: str) -> dict[str, Any]:
    """Judge the weights on dev, keep what is best, write metrics and a checkpoint."""
    config, state, world, bundle = training.config, training.state, training.world, training.bundle
    training.train.note_lost(world)
    began = time.perf_counter()
    rate, blanks = 0.0, 0.0
    weights = training.weights
    if world.is_main:
        with in_place_of(training.model, weights):
            rate, blanks = rate_on_dev(bundle, criterion, training.scored["dev"])
    rate, blanks = world.from_main(rate, blanks)
    # From here to the checkpoint all or nothing, as far as signals are concerned.
    with deferred():
        totals = state.totals
        state.epoch, state.batch, state.totals = state.epoch + 1, 0, Totals()
        is_best = state.best_rate is None or rate < state.best_rate
        if is_best:
            state.best_rate, state.best_epoch = rate, state.epoch
            training.best = {name: t.detach().clone() for name, t in weights.items()}
        for kept in training.snapshots.values():
            kept.add(state.epoch, rate, weights)
        follow_plateau(config.optim, state, is_best)
        state.trained_s += time.perf_counter() - began
        metrics = epoch_metrics(training, totals, criterion, rate, blanks)
        if world.is_main:
            skipped = json.dumps(training.skipped, indent=2) + "\n"
            write_text(training.run / "skipped.json", skipped)
            if is_best:
                save_weights(training.run / "model", bundle, training.best)
            # Before the checkpoint: resuming drops metrics that outrun it, but could not make
            # them up.
            add_metrics(training.run, metrics)
        training.save()
    return metrics
