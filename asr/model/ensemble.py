"""Several models as one, whose label probabilities are averaged frame by frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace

import numpy as np

from asr.audio.features import FeatureConfig
from asr.errors import InputError
from asr.model.bundle import Bundle
from asr.nets.acoustic import AcousticModel, Ensemble


def combined(bundles: Mapping[str, Bundle]) -> Bundle:
    """An ensemble of the models, by their names; the first one's decoder and language models.

    Raises:
        InputError: there are fewer than two, or two differ in what an ensemble has to share.
    """
    if len(bundles) < 2:
        raise InputError(f"{', '.join(bundles)}: expected two models or more to combine")
    (first_name, first), *rest = bundles.items()
    for name, bundle in bundles.items():
        if not isinstance(bundle.model, AcousticModel | Ensemble):
            raise InputError(f"{name}: only models that asr train wrote can be combined")
        for what, one, other in (
            ("labels", first.labels.symbols, bundle.labels.symbols),
            ("criterion", first.criterion, bundle.criterion),
            ("features", first.features, bundle.features),
            ("frames", first.clock, bundle.clock),
        ):
            if one != other:
                line = f"{name}: cannot be combined with {first_name}: its {what} are others"
                raise InputError(line + _differences(one, other))
        if not _alike(first, bundle):
            raise InputError(
                f"{name}: cannot be combined with {first_name}: features are normalised by what "
                f"each was trained on; train both on the same, or with features.normalize=utterance"
            )
    nets = [net for bundle in bundles.values() for net in nets_of(bundle)]
    others = [(b.architecture, *b.others) for _, b in rest]
    return replace(
        first,
        model=Ensemble(nets).eval(),
        others=(*first.others, *(a for each in others for a in each)),
        calibrations={},
    )


def _differences(one: object, other: object) -> str:
    """Of settings, which differ, and how."""
    if not isinstance(one, FeatureConfig) or not isinstance(other, FeatureConfig):
        return ""
    mine, theirs = asdict(one), asdict(other)
    told = [f"{k}={theirs[k]}, not {mine[k]}" for k in mine if mine[k] != theirs[k]]
    return f" ({'; '.join(told)})"


def nets_of(bundle: Bundle) -> list[AcousticModel]:
    """The nets of an ensemble, or the one that a model has."""
    return [m for m in bundle.model.modules() if isinstance(m, AcousticModel)]


def _alike(one: Bundle, other: Bundle) -> bool:
    if one.stats is None or other.stats is None:
        return one.stats is other.stats
    return np.allclose(one.stats.mean, other.stats.mean) and np.allclose(
        one.stats.std, other.stats.std
    )
