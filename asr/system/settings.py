"""What a setting means and may be, said once where it is declared and checked in one place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import Field, field, fields
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from asr.errors import InputError

MOST_ITEMS = 256
#: Characters of a wrong value that a message shows.
MOST_SHOWN = 60
KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def setting(
    default: Any,
    meaning: str,
    least: float = -math.inf,
    most: float = math.inf,
    *,
    above: float = -math.inf,
    below: float = math.inf,
    choices: Sequence[Any] = (),
) -> Any:
    """A field of a configuration; the bounds hold for each item where it has several.

    Only where ``most`` is not given may a number be infinite, which then means: no limit.
    """
    said = {"meaning": meaning, "least": least, "most": most, "above": above, "below": below}
    metadata = {**said, "choices": tuple(choices)}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def check(config: Any, section: str) -> None:
    """Refuse a dataclass of settings with a value of another type or outside its bounds.

    Numbers of any size are looked at and nothing is computed with them: wrong ones cost nothing.

    Raises:
        InputError: ``section.name=value: expected ...``.
    """
    hints = get_type_hints(type(config))
    for known in fields(config):
        value, kind = getattr(config, known.name), hints[known.name]
        if known.metadata and not _fits(value, kind, known):
            shown = repr(list(value) if isinstance(value, tuple) else value)
            if len(shown) > MOST_SHOWN:
                shown = shown[:MOST_SHOWN] + " ..."
            name = f"{section}.{known.name}" if section else known.name
            raise InputError(f"{name}={shown}: expected {expected(known, kind)}")


def is_bounded(known: Field[Any]) -> bool:
    """Whether more is to be said of what a setting may be than its type."""
    said = known.metadata
    bounds = (said["least"], said["most"], said["above"], said["below"])
    return bool(said["choices"]) or any(map(math.isfinite, bounds))


def expected(known: Field[Any], kind: Any) -> str:
    """What a setting may be, in words: "a whole number from 1 to 64"."""
    said = known.metadata
    if get_origin(kind) is UnionType:
        inner = next(k for k in get_args(kind) if k is not NoneType)
        return f"{expected(known, inner)}, or null"
    if get_origin(kind) in (tuple, list):
        return f"a list of up to {MOST_ITEMS}, each {expected(known, get_args(kind)[0])}"
    if said["choices"]:
        return "one of " + ", ".join(map(str, said["choices"]))
    lowest = (
        f"above {said['above']:g}" if said["above"] > -math.inf else f"from {said['least']:.15g}"
    )
    highest = f"below {said['below']:g}" if said["below"] < math.inf else f"to {said['most']:.15g}"
    bounds = [lowest] if "-inf" not in lowest else []
    bounds += [highest] if highest != "to inf" else []
    return " ".join([KINDS.get(kind, str(kind)), *bounds])


def _fits(value: Any, kind: Any, known: Field[Any]) -> bool:
    if get_origin(kind) is UnionType:
        return any(_fits(value, one, known) for one in get_args(kind))
    if kind is NoneType:
        return value is None
    if get_origin(kind) in (tuple, list):
        inner = get_args(kind)[0]
        return (
            isinstance(value, list | tuple)
            and len(value) <= MOST_ITEMS
            and all(_fits(v, inner, known) for v in value)
        )
    said = known.metadata
    if said["choices"] and value not in said["choices"]:
        return False
    if kind not in (int, float):
        return isinstance(value, kind)
    wanted = int if kind is int else (int, float)
    return (
        isinstance(value, wanted)
        and not isinstance(value, bool)
        and said["least"] <= value <= said["most"]
        and said["above"] < value
        and (value < said["below"] or said["below"] == math.inf)
    )
