"""Models from letters to phones made, measured on dev words, and written: a line about each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from asr.errors import InputError
from asr.g2p.model import CONFIG, Pronouncer
from asr.g2p.train import Dictionaries, Training, held_out, joined
from asr.g2p.words import Dictionary
from asr.nets.recurrent import count_parameters
from asr.system.files import refuse_full

#: Where an interrupted training stands, in its folder; gone when it is over.
TRAINING = "training.safetensors"


def read_dictionaries(lexicon: Path, dev: Path | None, taught: Path | None) -> Dictionaries:
    """Read them; without ``dev``, words of ``lexicon`` are held out.

    Raises:
        InputError: one cannot be read, or no word can be held out.
    """
    dictionary = Dictionary.read(lexicon)
    known = dictionary.phones().symbols[1:]
    of_dev = held_out(dictionary) if dev is None else (dictionary, Dictionary.read(dev, known))
    return Dictionaries(*of_dev, Dictionary.read(taught, known).entries if taught else ())


def write_trained(
    out: Path,
    training: Training,
    limit_s: float,
    tell: Callable[[str], object],
    resume: bool = False,
) -> str:
    """Train a model and write the best epoch as a folder, from the first one on.

    After each epoch the folder holds where the training stands, too, until it is over. resume: go
    on from there. limit_s: see `Training.epochs`. tell: gets a line about each epoch.

    Raises:
        InputError: ``out`` exists and is no empty folder, has no training to go on with or that of
            another model, or cannot be written; also what `Training.epochs` raises.
    """
    path = out / TRAINING
    if resume and not path.is_file():
        raise InputError(f"{out}: nothing to resume: expected the {TRAINING} of a training there")
    if resume:
        training.go_on(path)
    elif path.is_file():
        raise InputError(f"{out}: holds a training that was interrupted: go on with --resume")
    else:
        refuse_full(out)
    for epoch in training.epochs(limit_s):
        if epoch.is_best and not (out / CONFIG).is_file():
            training.model.save(out)
        elif epoch.is_best:
            training.model.save_weights(out)
        training.save(path)
        tell(
            f"epoch {epoch.number}/{training.config.epochs}  loss {epoch.loss:.3f}  "
            f"dev {epoch.dev}{' *' * epoch.is_best}  lr {epoch.lr:.2g}  {epoch.wall_s:.1f} s"
        )
    model, rates = training.finish()
    model.save(out)
    path.unlink()
    n_parameters, n_words = (
        count_parameters(model.nets[0]),
        len(training.dictionaries.train.by_word),
    )
    return f"{out}: {n_parameters} parameters, {n_words} words, dev {rates}"


def write_joined(out: Path, folders: Sequence[Path], dev: Path, device: torch.device) -> str:
    """Write the nets of several models as one (see `joined`), with what is best on ``dev``.

    Raises:
        InputError: they are no models, or of different lexicons, ``dev`` cannot be read, ``out``
            exists and is no empty folder, or cannot be written.
    """
    refuse_full(out)
    models = [Pronouncer.load(folder).to(device) for folder in folders]
    model, rates = joined(models, Dictionary.read(dev, models[0].phones.symbols[1:]))
    model.save(out)
    return f"{out}: {len(model.nets)} nets, dev {rates}"
