"""Training, from a configuration to a run directory; read `train` top to bottom."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asr.checkpoint import (
    LEXICON,
    Bundle,
    load_bundle,
    load_tensors,
    load_weights,
    save_bundle,
    save_tensors,
    save_weights,
)
from asr.corpora import Audit, Corpus, load_corpus
from asr.data import (
    Example,
    bucket,
    collate,
    extract,
    make_examples,
    normalize_set,
)
from asr.decode.lexicon import Lexicon
from asr.decode.viterbi import estimate_transitions
from asr.errors import InputError
from asr.evaluate import (
    blank_rate,
    decode_set,
    decoders_of,
    emissions,
    grids,
    policy,
    tune,
)
from asr.features import Statistics, statistics
from asr.files import write_text
from asr.labels import LabelConfig, inventory, unit_symbols
from asr.lm.ngram import NGram
from asr.losses import ctc_loss, framewise_loss
from asr.manifest import write_manifest
from asr.models.acoustic import AcousticModel
from asr.progress import progress_bar
from asr.recipe import CorpusConfig, OptimConfig, RunConfig
from asr.rundir import (
    LAST,
    check_run_dir,
    environment,
    keep_metrics,
    log,
    open_log,
    open_tensorboard,
    write_hypotheses,
)
from asr.score.error_rate import RATE_NAMES, error_rate
from asr.score.show import as_json
from asr.types import Batch, Utterance

STATE_FORMAT = "carousel-state-1"
OPTIMIZERS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}
# A greedy output with more blank than this has hardly any label in it.
ALL_BLANK = 0.98


@dataclass
class State:
    """Where a training stands, beside the tensors; the rest follows from seed, epoch and step."""

    epoch: int = 0
    step: int = 0
    best_rate: float | None = None
    best_epoch: int = 0
    lr_scale: float = 1.0
    since_plateau: int = 0
    bad_steps: int = 0
    trained_s: float = 0.0


def train(config: RunConfig, resolved: str, resume: bool = False) -> dict[str, Any]:
    """Train as configured, judge the best model on dev and test, return what results.json holds.

    ``resolved`` is the configuration as text, kept in the run directory as config.yaml.

    Raises:
        InputError: whatever the user can mend: see the message.
    """
    run = Path(config.run_dir)
    check_run_dir(run, resume)
    device = pick_device(config.trainer.device)
    with progress_bar() as progress:
        corpus = load_corpus(
            config.corpus.kind,
            corpus_root(config),
            lambda files: progress.track(files, description="reading the corpus"),
        )
    sets = choose_sets(config.corpus, corpus)
    lexicon = find_lexicon(config.corpus, corpus)
    try:
        run.mkdir(parents=True, exist_ok=True)
        open_log(run)
    except OSError as error:
        raise InputError(f"run_dir={run}: cannot be made ({error.strerror})") from error
    if not resume:
        write_text(run / "config.yaml", resolved)
        write_text(run / "environment.json", json.dumps(environment(), indent=2) + "\n")
    write_text(run / "audit.json", json.dumps(asdict(corpus.audit), indent=2) + "\n")
    for deviation in corpus.audit.deviations:
        log.warning("corpus: %s", deviation)
    report_lost(corpus.audit, config.trainer.max_skipped)
    for name, utterances in sets.items():
        write_manifest(run / "manifests" / f"{name}.jsonl", utterances)

    bundle, examples, skipped = build(config, sets, lexicon)
    write_text(run / "skipped.json", json.dumps(skipped, indent=2) + "\n")
    n_parameters = sum(p.numel() for p in bundle.model.parameters())
    log.info(
        "%d labels (%s), %.2f M parameters, %s, seed %d; model frames every %g ms",
        len(bundle.labels) - 1,
        config.labels.unit,
        n_parameters / 1e6,
        device,
        config.seed,
        bundle.clock.shift_s * 1000,
    )

    model = bundle.model.to(device)
    optimizer = OPTIMIZERS[config.optim.name](
        model.parameters(), lr=config.optim.lr, weight_decay=config.optim.weight_decay
    )
    state = State()
    if resume and (run / LAST).is_file():
        state = load_state(run, model, optimizer)
        log.info("resuming after epoch %d", state.epoch)
    else:
        save_bundle(run / "model", bundle)
        if lexicon is not None:
            write_text(run / "model" / LEXICON, lexicon.read_text(encoding="utf-8"))
    keep_metrics(run, state.epoch)

    dev_utterances = [e.utterance for e in examples["dev"]]
    tensorboard = open_tensorboard(run, state.epoch)
    rate_name = RATE_NAMES[config.labels.unit]
    while state.epoch < config.trainer.max_epochs:
        began = time.perf_counter()
        epoch = run_epoch(config, bundle, examples["train"], model, optimizer, state, device)
        log_probs = emissions(model, bundle, examples["dev"], device)
        decoder = bundle.make_decoder(
            next(iter(decoders_of(replace(bundle, criterion=epoch.criterion)).values()))
        )
        dev = decode_set(dev_utterances, log_probs, bundle, decoder)
        rate = error_rate(next(iter(dev.scores.values())))
        if math.isnan(rate):
            raise InputError(f"dev has no {config.labels.unit} in its references to score against")
        blanks = blank_rate(list(log_probs.values()))
        state.epoch += 1
        state.trained_s += time.perf_counter() - began

        is_best = state.best_rate is None or rate < state.best_rate
        if is_best:
            state.best_rate, state.best_epoch = rate, state.epoch
            save_weights(run / "model", bundle)
        follow_plateau(config.optim, state, is_best)
        metrics = {
            "epoch": state.epoch,
            "criterion": epoch.criterion,
            "loss": epoch.loss,
            f"dev_{rate_name}": rate,
            "blank_rate": blanks,
            "lr": epoch.lr,
            "gradient_norm": epoch.gradient_norm,
            "audio_s_per_s": epoch.audio_s / epoch.wall_s,
            "waiting": epoch.waited_s / epoch.wall_s,
            "padding": epoch.padding,
            "bad_steps": state.bad_steps,
            "wall_s": state.trained_s,
        }
        with (run / "metrics.jsonl").open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(metrics) + "\n")
        # After the metrics: resuming drops those that outrun the state, but could not make them up.
        save_state(run, model, optimizer, state)
        for name, value in metrics.items():
            if isinstance(value, (int, float)) and name != "epoch":
                tensorboard.add_scalar(name, value, state.epoch)
        log.info(
            "epoch %d/%d  %s loss %.3f  dev %s %.2f %%%s  blank %.0f %%  lr %.2g  gradient %.2f  "
            "%.0f x real time  waiting %.1f %%  padding %.1f %%",
            state.epoch,
            config.trainer.max_epochs,
            epoch.criterion,
            epoch.loss,
            rate_name,
            100 * rate,
            " *" if is_best else "",
            100 * blanks,
            epoch.lr,
            epoch.gradient_norm,
            epoch.audio_s / epoch.wall_s,
            100 * epoch.waited_s / epoch.wall_s,
            100 * epoch.padding,
        )
        if epoch.criterion == "ctc" and blanks > ALL_BLANK:
            log.info(
                "nearly every frame is blank: CTC's usual first phase, over within a few epochs; "
                "if it stays, raise optim.lr or begin with loss.framewise_epochs"
            )
        if config.trainer.patience and state.epoch - state.best_epoch >= config.trainer.patience:
            log.info("no better dev %s for %d epochs: stopping", rate_name, config.trainer.patience)
            break
    tensorboard.close()

    bundle = load_bundle(run / "model")
    n_lost = len(corpus.audit.missing) + len(corpus.audit.corrupt)
    return judge(config, run, bundle, examples, state, skipped, n_lost, n_parameters, device)


def pick_device(name: str) -> torch.device:
    """The configured device; auto takes a GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("trainer.device=cuda: torch finds no GPU here; use auto or cpu")
    return torch.device(name)


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


def choose_sets(config: CorpusConfig, corpus: Corpus) -> dict[str, list[Utterance]]:
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
    sets = {"train": [u for name in config.train for u in corpus.sets[name]]}
    sets["dev"] = corpus.sets[config.dev]
    sets |= {name: corpus.sets[name] for name in config.test}
    trained = {(u.audio, u.offset_s) for u in sets["train"]}
    speakers = {u.speaker for u in sets["train"]}
    for name in list(sets)[1:]:
        leak = [u.id for u in sets[name] if (u.audio, u.offset_s) in trained]
        if leak:
            raise InputError(
                f"set {name!r} shares {len(leak)} utterances with train, such as {leak[0]}"
            )
        heard = sorted({u.speaker for u in sets[name]} & speakers)
        if heard:
            log.warning(
                "set %r shares %d speakers with train, such as %s: its error rates flatter",
                name,
                len(heard),
                heard[0],
            )
    return sets


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
    config: RunConfig, sets: dict[str, list[Utterance]], lexicon: Path | None
) -> tuple[Bundle, dict[str, list[Example]], dict[str, dict[str, str]]]:
    """Features, inventory, examples of each set, and the untrained model with its belongings."""
    skipped: dict[str, dict[str, str]] = {name: {} for name in sets}
    matrices = {}
    with progress_bar() as progress:
        for name, utterances in sets.items():
            task = progress.add_task(f"features of {name}", total=len(utterances))
            matrices[name] = extract(
                utterances, config.features, skipped[name], partial(progress.advance, task)
            )
    # Statistics see train alone; they travel with the model.
    stats: Statistics | None = None
    if config.features.normalize == "global":
        stats = statistics(matrices["train"].values())
    labels = inventory(sets["train"], config.labels.unit, config.labels.fold)

    framewise = config.loss.name == "framewise"
    subsampling = config.model.subsampling
    examples = {}
    for name, utterances in sets.items():
        training = name == "train"
        features = normalize_set(
            matrices[name], {u.id: u.speaker for u in utterances}, config.features.normalize, stats
        )
        examples[name] = make_examples(
            utterances,
            features,
            labels,
            config.labels,
            config.features,
            subsampling,
            skipped[name],
            with_ctc=training and not framewise,
            with_frames=training and (framewise or config.loss.framewise_epochs > 0),
            with_labels=training,
        )
        report_skipped(name, len(utterances), skipped[name], config.trainer.max_skipped)
        report_strays(name, utterances, labels.symbols, config.labels)

    torch.manual_seed(config.seed)
    bundle = Bundle(
        features=config.features,
        architecture=config.model,
        labels=labels,
        label_config=config.labels,
        criterion=config.loss.name,
        model=AcousticModel(config.model, config.features.size, len(labels)),
        decoder=config.decoder,
        stats=stats,
    )
    if examples["train"][0].frames is not None:
        targets = (np.array(e.frames) for e in examples["train"])
        bundle.transitions = estimate_transitions(targets, len(labels))
    if config.lm.label_order and not framewise:
        bundle.label_lm = NGram.estimate(
            [labels.decode(e.labels) for e in examples["train"]], config.lm.label_order
        )
    if lexicon is not None:
        bundle.lexicon = Lexicon.read(lexicon, labels, config.labels.fold)
    else:
        bundle.decoder = replace(config.decoder, lexicon=False)
    if config.lm.word_order:
        texts = [(u.text or "").split() for u in sets["train"]]
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


@dataclass
class Epoch:
    """What one pass over train was like."""

    criterion: str
    loss: float
    lr: float
    gradient_norm: float
    audio_s: float
    wall_s: float
    waited_s: float
    padding: float


def run_epoch(
    config: RunConfig,
    bundle: Bundle,
    examples: Sequence[Example],
    model: AcousticModel,
    optimizer: torch.optim.Optimizer,
    state: State,
    device: torch.device,
) -> Epoch:
    """One pass over the training examples."""
    starting = state.epoch < config.loss.framewise_epochs
    criterion = "framewise" if starting else config.loss.name
    hop_s = bundle.features.hop_length / bundle.features.sample_rate
    lens = [len(e.features) for e in examples]
    # Everything random in an epoch comes from (seed, epoch, step): resuming needs no more.
    batches = bucket(
        lens,
        config.trainer.batch_size,
        int(config.trainer.max_batch_s / hop_s),
        generator_of(config.seed, state.epoch, 0),
    )

    def make(number: int) -> Batch:
        return collate(
            [examples[i] for i in batches[number]],
            config.features,
            criterion == "framewise",
            config.augment,
            generator_of(config.seed, state.epoch, 1 + number),
        )

    model.train()
    loss_sum, norm_sum, weight_sum, n_good = 0.0, 0.0, 0, 0
    audio_s, waited_s, lr = 0.0, 0.0, 0.0
    best = ""
    if state.best_rate is not None:
        best = f"best dev {RATE_NAMES[config.labels.unit]} {100 * state.best_rate:.1f} %  "
    began = time.perf_counter()
    with progress_bar("about") as progress:
        task = progress.add_task(f"epoch {state.epoch + 1}", total=len(batches), about="")
        for number in range(len(batches)):
            # Features lie in memory: making a batch takes milliseconds. Made ahead in a
            # thread, beside OpenMP's, it slowed the steps by half (BENCHMARKS.md).
            asked = time.perf_counter()
            batch = make(number)
            waited_s += time.perf_counter() - asked
            lr = learning_rate(config, state, state.epoch + number / len(batches))
            for group in optimizer.param_groups:
                group["lr"] = lr
            # Dropout knows only torch's global generator; seeding it a step makes it explicit.
            torch.manual_seed(step_seed(config.seed, state.step))
            loss, norm = step(config, criterion, model, optimizer, batch, device)
            state.step += 1
            audio_s += hop_s * sum(lens[i] for i in batches[number])
            if math.isfinite(loss) and math.isfinite(norm):
                weight = int(batch.target_lens.sum())
                loss_sum += loss * weight
                weight_sum += weight
                norm_sum += norm
                n_good += 1
            else:
                state.bad_steps += 1
                log.warning(
                    "step %d left out: loss %g, gradient norm %g; utterances %s",
                    state.step,
                    loss,
                    norm,
                    " ".join(batch.ids),
                )
                if state.bad_steps > config.trainer.max_bad_steps:
                    raise InputError(
                        f"{state.bad_steps} steps with infinite or NaN loss or gradient (more than "
                        f"trainer.max_bad_steps={config.trainer.max_bad_steps}): lower optim.lr "
                        f"or optim.clip_norm; the batches are listed in train.log"
                    )
            elapsed = time.perf_counter() - began
            progress.update(
                task,
                advance=1,
                about=f"loss {loss_sum / max(weight_sum, 1):.3f}  {best}{audio_s / elapsed:.0f} x "
                f"real time  waiting {100 * waited_s / elapsed:.0f} %",
            )
    padded = sum(len(b) * max(lens[i] for i in b) for b in batches)
    return Epoch(
        criterion=criterion,
        loss=loss_sum / max(weight_sum, 1),
        lr=lr,
        gradient_norm=norm_sum / max(n_good, 1),
        audio_s=audio_s,
        wall_s=time.perf_counter() - began,
        waited_s=waited_s,
        padding=1 - sum(lens) / padded,
    )


def step(
    config: RunConfig,
    criterion: str,
    model: AcousticModel,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    device: torch.device,
) -> tuple[float, float]:
    """Forward, backward, clip, update; the update is left out where loss or gradient is not finite.

    Returns the loss (nats per label or per labelled frame) and the gradient's norm before clipping.
    """
    targets = batch.targets.to(device)
    short = config.trainer.precision == "bfloat16"
    with torch.autocast(device.type, torch.bfloat16, enabled=short):
        log_probs, lens = model(batch.features.to(device), batch.feature_lens.to(device))
    if criterion == "ctc":
        loss = ctc_loss(log_probs, lens, targets, batch.target_lens.to(device))
    else:
        loss = framewise_loss(log_probs, targets, config.loss.label_smoothing)
    optimizer.zero_grad(set_to_none=True)
    if not torch.isfinite(loss):
        return float(loss), math.nan
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.optim.clip_norm)
    if torch.isfinite(norm):
        optimizer.step()
    return float(loss.detach()), float(norm)


def generator_of(seed: int, epoch: int, part: int) -> torch.Generator:
    """An own generator for each part of each epoch."""
    mixed = np.random.SeedSequence([seed, epoch, part]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(mixed) >> 1)


def step_seed(seed: int, step: int) -> int:
    """The seed of torch's global generator at a step."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0]) >> 1


def learning_rate(config: RunConfig, state: State, epoch: float) -> float:
    """The rate at a (fractional) epoch: linear warm-up, then the schedule towards zero."""
    optim, last = config.optim, config.trainer.max_epochs
    if epoch < optim.warmup_epochs:
        # Half a batch ahead of zero: a first step with rate 0 would be a step for nothing.
        return optim.lr * max(epoch / optim.warmup_epochs, 0.01)
    done = (epoch - optim.warmup_epochs) / max(last - optim.warmup_epochs, 1e-9)
    if optim.schedule == "linear":
        return optim.lr * (1 - done)
    if optim.schedule == "cosine":
        return optim.lr * 0.5 * (1 + math.cos(math.pi * done))
    return optim.lr * state.lr_scale


def follow_plateau(optim: OptimConfig, state: State, is_best: bool) -> None:
    """Under schedule=plateau, lower the rate after ``plateau_epochs`` epochs without a best."""
    state.since_plateau = 0 if is_best else state.since_plateau + 1
    if optim.schedule == "plateau" and state.since_plateau >= optim.plateau_epochs:
        state.lr_scale *= optim.plateau_factor
        state.since_plateau = 0


def save_state(
    run: Path, model: AcousticModel, optimizer: torch.optim.Optimizer, state: State
) -> None:
    """Write all that resuming takes as one safetensors file, whole or not at all."""
    tensors = {f"model.{k}": t for k, t in model.state_dict().items()}
    for index, slots in optimizer.state_dict()["state"].items():
        tensors |= {f"optim.{index}.{k}": torch.as_tensor(t) for k, t in slots.items()}
    metadata = {"format": STATE_FORMAT, "state": json.dumps(asdict(state))}
    save_tensors(run / LAST, tensors, metadata)


def load_state(run: Path, model: AcousticModel, optimizer: torch.optim.Optimizer) -> State:
    """Restore model and optimizer from a run directory and return where the training stood.

    Raises:
        InputError: the file is corrupt, of another version, or of another architecture.
    """
    path = run / LAST
    tensors, metadata = load_tensors(path)
    if metadata.get("format") != STATE_FORMAT:
        raise InputError(
            f"{path}: expected a training state of format {STATE_FORMAT!r}, "
            f"found {metadata.get('format')!r}"
        )
    own = {k[len("model.") :]: t for k, t in tensors.items() if k.startswith("model.")}
    load_weights(model, own, path)
    slots: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optim."):
            _, index, slot = name.split(".", 2)
            slots.setdefault(int(index), {})[slot] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": slots, "param_groups": groups})
    return State(**json.loads(metadata["state"]))


def judge(
    config: RunConfig,
    run: Path,
    bundle: Bundle,
    examples: dict[str, list[Example]],
    state: State,
    skipped: dict[str, dict[str, str]],
    n_lost: int,
    n_parameters: int,
    device: torch.device,
) -> dict[str, Any]:
    """Tune decoder weights on dev, decode dev and test with every decoder, write results.json."""
    judged = [name for name in examples if name != "train"]
    bundle.model.to(device)
    log_probs = {}
    with progress_bar() as progress:
        for name in judged:
            task = progress.add_task(f"emissions of {name}", total=len(examples[name]))
            log_probs[name] = emissions(
                bundle.model,
                bundle,
                examples[name],
                device,
                partial(progress.advance, task),
            )
        if config.trainer.tune:
            n_trials = sum(len(a[1]) * len(b[1]) for _, a, b in grids(bundle))
            task = progress.add_task("decoder weights on dev", total=n_trials)
            dev_utterances = [e.utterance for e in examples["dev"]]
            bundle.decoder = tune(
                dev_utterances, log_probs["dev"], bundle, lambda: progress.advance(task)
            )
    save_bundle(run / "model", bundle)

    sets: dict[str, dict[str, Any]] = {}
    for name in judged:
        utterances = [e.utterance for e in examples[name]]
        sets[name] = {}
        for title, decoder_config in decoders_of(bundle).items():
            began = time.perf_counter()
            decoded = decode_set(
                utterances, log_probs[name], bundle, bundle.make_decoder(decoder_config)
            )
            write_hypotheses(
                run / "decoded" / f"{name}.{title}.jsonl", utterances, decoded.hypotheses, bundle
            )
            sets[name][title] = {
                **{rate: as_json(scores) for rate, scores in decoded.scores.items()},
                "decoding_s": time.perf_counter() - began,
            }
            figures = "  ".join(
                f"{rate} {100 * error_rate(scores):.2f} %"
                for rate, scores in decoded.scores.items()
            )
            log.info("%s  %s  %s  (%s)", name, title, figures, policy(bundle.label_config))
    results = {
        "sets": sets,
        "decoders": {title: asdict(c) for title, c in decoders_of(bundle).items()},
        "policy": policy(bundle.label_config),
        "seed": config.seed,
        "epochs": state.epoch,
        "best_epoch": state.best_epoch,
        "training_s": state.trained_s,
        "parameters": n_parameters,
        "skipped": {name: len(reasons) for name, reasons in skipped.items()},
        "lost_files": n_lost,
        "bad_steps": state.bad_steps,
        "environment": environment(),
    }
    write_text(run / "results.json", json.dumps(results, indent=2) + "\n")
    return results
