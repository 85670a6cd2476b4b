"""Starting from a model that has been trained: what comes with it, and what is drawn anew.

Weights alone come with it. The optimizer begins afresh, and feature statistics (of
features.normalize=global or online) are those of the new training set, as in any training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from asr.audio.features import FeatureConfig
from asr.errors import InputError
from asr.labels import BLANK_SYMBOL
from asr.model.bundle import Bundle, model_folder
from asr.model.weights import WEIGHTS, load_bundle
from asr.nets.acoustic import depth_of, layer_of
from asr.train.config import InitConfig
from asr.train.rundir import log
from asr.train.state import Training

OUTPUT = "output"
#: Feature settings that may differ: whatever features are normalised by, their scale is the same.
MAY_DIFFER = {"normalize", "ignore_silence"}
MOST_NAMED = 12


@dataclass(frozen=True)
class Start:
    """The model to start from, and what identifies it: its folder, and its weights' SHA-256."""

    bundle: Bundle
    about: Mapping[str, str]


def read_start(config: InitConfig, features: FeatureConfig) -> Start | None:
    """The model that ``init.model`` names, if any.

    Raises:
        InputError: there is none, or it hears other features than these.
    """
    if not config.model:
        return None
    bundle = load_bundle(Path(config.model))
    theirs, ours = asdict(bundle.features), asdict(features)
    differing = [key for key in ours if ours[key] != theirs[key]]
    if unfit := [key for key in differing if key not in MAY_DIFFER]:
        raise InputError(
            f"init.model={config.model}: hears other features than "
            f"{' '.join(f'features.{key}={ours[key]}' for key in unfit)}; start with its own: "
            f"{' '.join(f'features.{key}={theirs[key]}' for key in unfit)}"
        )
    for key in differing:
        log.info("start: features.%s=%s, the model's was %s", key, ours[key], theirs[key])
    with (model_folder(Path(config.model)) / WEIGHTS).open("rb") as weights:
        digest = hashlib.file_digest(weights, "sha256").hexdigest()
    return Start(bundle, {"model": config.model, "sha256": digest})


def take(start: Start, bundle: Bundle) -> None:
    """Give a new model the weights of one to start from, layer by layer; log which.

    A layer comes with it where its weights have the same names and shapes (and recurrent layers the
    same cells), whatever other layers there are. Of the output layer, those labels come that both
    have; CTC's blank does where both are trained by CTC. All else stays as it was drawn.
    ``bundle.start`` says what came.

    Raises:
        InputError: no layer fits.
    """
    own, theirs = bundle.model.state_dict(), start.bundle.model.state_dict()
    ours_by_layer, theirs_by_layer = by_layer(own), by_layer(theirs)
    taken: list[str] = []
    drawn: list[str] = []
    for layer, names in ours_by_layer.items():
        if layer == OUTPUT:
            continue
        why = unlike(layer, bundle, start.bundle)
        (drawn if why else taken).append(layer)
        log.info("start: %s %s", layer, f"is drawn anew: {why}" if why else "comes with the model")
        if not why:
            own.update({name: theirs[name] for name in names})
    for layer in theirs_by_layer:
        if layer not in ours_by_layer:
            log.info("start: %s of the model is left out", layer)
    if not taken:
        raise InputError(
            f"init.model={start.about['model']}: no layer of it fits: choose another, or its "
            f"model settings"
        )
    new = take_labels(start.bundle, bundle, own, theirs)
    bundle.model.load_state_dict(own)
    bundle.start = {**start.about, "taken": taken, "drawn": drawn, "labels_drawn": new}


def by_layer(weights: Mapping[str, torch.Tensor]) -> dict[str, list[str]]:
    """The names of weights by the layer that they belong to, from the first layer up."""
    found: dict[str, list[str]] = {}
    for name in weights:
        found.setdefault(layer_of(name), []).append(name)
    return found


def unlike(layer: str, bundle: Bundle, source: Bundle) -> str:
    """Why a layer of ``bundle`` cannot come from ``source``; empty where it can."""
    own, theirs = (
        {k: t.shape for k, t in b.model.state_dict().items() if layer_of(k) == layer}
        for b in (bundle, source)
    )
    if not theirs:
        return "the model has none"
    cells = bundle.architecture.cell, source.architecture.cell
    if layer.startswith("stack.layers.") and cells[0] != cells[1]:
        return f"its cells are {cells[0]}, the model's {cells[1]}"
    for name in own.keys() | theirs.keys():
        if own.get(name) != theirs.get(name):
            shapes = [tuple(s[name]) if name in s else "missing" for s in (own, theirs)]
            return f"{name} is {shapes[0]}, the model's {shapes[1]}"
    return ""


def take_labels(
    source: Bundle,
    bundle: Bundle,
    own: dict[str, torch.Tensor],
    theirs: Mapping[str, torch.Tensor],
) -> list[str]:
    """Give ``own`` the output layer's rows of the labels that both have; the others, as a list."""
    labels, known, why = bundle.labels, set(source.labels.symbols[1:]), ""
    widths = own["output.weight"].shape[1], theirs["output.weight"].shape[1]
    if labels.unit != source.labels.unit:
        why = f": the model's labels are {source.labels.unit}s"
    elif widths[0] != widths[1]:
        why = f": it sees {widths[0]} numbers a frame, the model's {widths[1]}"
    elif bundle.criterion == source.criterion == "ctc":
        known.add(BLANK_SYMBOL)
    shared = [] if why else [s for s in labels.symbols if s in known]
    for name in ("output.weight", "output.bias"):
        for symbol in shared:
            own[name][labels.ids[symbol]] = theirs[name][source.labels.ids[symbol]]
    # No frame is a framewise model's blank.
    wanted = labels.symbols if bundle.criterion == "ctc" else labels.symbols[1:]
    drawn = [s for s in wanted if s not in shared]
    log.info(
        "start: output: %d of %d labels come with the model%s",
        len(wanted) - len(drawn),
        len(wanted),
        f"; drawn anew{why}: {named(drawn)}" if drawn else "",
    )
    if lost := [s for s in source.labels.symbols[1:] if s not in shared]:
        log.info("start: output: %d labels of the model left out: %s", len(lost), named(lost))
    return drawn


def named(symbols: Sequence[str]) -> str:
    """The first of some labels."""
    return " ".join(symbols[:MOST_NAMED]) + (" ..." if len(symbols) > MOST_NAMED else "")


def shares(config: InitConfig, bundle: Bundle) -> dict[str, float]:
    """The share of the learning rate of each layer that came with the model to start from."""
    layers = by_layer(bundle.model.state_dict())
    depths = list(dict.fromkeys(map(depth_of, layers)))
    return {
        layer: config.depth_decay ** (len(depths) - 1 - depths.index(depth_of(layer)))
        for layer in bundle.start.get("taken", ())
    }


def tell_learning(config: InitConfig, bundle: Bundle) -> None:
    """Log how what came with the model learns, where that is otherwise than the rest does."""
    if config.freeze_epochs:
        log.info(
            "start: what came with the model stays as it is for init.freeze_epochs=%d, but the "
            "output layer",
            config.freeze_epochs,
        )
    if config.depth_decay < 1:
        rates = (f"{layer} {share:.2g}" for layer, share in shares(config, bundle).items())
        log.info("start: shares of the learning rate: %s", ", ".join(rates))


def hold(training: Training) -> None:
    """Let the coming epoch train what it is to: all, or not yet what came with the model."""
    is_early = training.state.epoch < training.config.init.freeze_epochs
    held = set(training.bundle.start.get("taken", ())) if is_early else set()
    changed = False
    for name, parameter in training.model.named_parameters():
        learns = layer_of(name) not in held
        changed |= parameter.requires_grad != learns
        parameter.requires_grad_(learns)
    if changed:
        # What averages gradients waits for those that there were when it was made.
        training.parallel = training.world.wrap(training.model)
