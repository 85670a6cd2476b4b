"""Models from letters to phones made, measured on dev words, and written: a line about each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from asr.decode.pronunciations import Entry
from asr.g2p.model import CONFIG, Pronouncer
from asr.g2p.train import Epoch, TrainConfig, held_out, joined, train
from asr.g2p.words import Dictionary
from asr.nets.recurrent import count_parameters
from asr.system.files import refuse_full


class Dictionaries(NamedTuple):
    """What a model is trained on, what chooses its best epoch, and what other models taught it."""

    train: Dictionary
    dev: Dictionary
    taught: Sequence[Entry]


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
    dictionaries: Dictionaries,
    config: TrainConfig,
    device: torch.device,
    limit_s: float,
    tell: Callable[[str], object],
) -> str:
    """Train a model (see `train`) and write the best epoch as a folder, from the first one on.

    tell: gets a line about each epoch.

    Raises:
        InputError: ``out`` exists and is no empty folder, or cannot be written; also
            what `train` raises.
    """
    refuse_full(out)

    def on_epoch(model: Pronouncer, epoch: Epoch) -> None:
        if epoch.is_best and not (out / CONFIG).is_file():
            model.save(out)
        elif epoch.is_best:
            model.save_weights(out)
        tell(
            f"epoch {epoch.number}/{config.epochs}  loss {epoch.loss:.3f}  dev {epoch.dev}"
            f"{' *' * epoch.is_best}  lr {epoch.lr:.2g}  {epoch.wall_s:.1f} s"
        )

    words, dev, taught = dictionaries
    model, rates = train(words, dev, config, device, on_epoch, limit_s, taught)
    model.save(out)
    n_parameters = count_parameters(model.nets[0])
    return f"{out}: {n_parameters} parameters, {len(words.by_word)} words, dev {rates}"


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
