"""Recipes: Hydra composes schema < conf groups < recipe < command line into a `RunConfig`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from asr.errors import InputError
from asr.recipe import RunConfig

PACKAGE = Path(__file__).parent


def shipped(name: str) -> Path:
    """The folder conf/ or recipes/, in an installed wheel (beside this file) or in a checkout."""
    inside = PACKAGE / name
    return inside if inside.is_dir() else PACKAGE.parent / name


def find_recipe(recipe: str) -> Path:
    """A recipe's file: a path as it stands, or one of the recipes that travel with the package.

    Raises:
        InputError: there is no such file; the line lists the recipes that exist.
    """
    path = Path(recipe)
    if path.is_file():
        return path.resolve()
    own = shipped("recipes") / recipe.removeprefix("recipes/")
    if own.suffix == ".yaml" and own.is_file():
        return own.resolve()
    known = sorted(str(p.relative_to(shipped("recipes").parent)) for p in recipes())
    raise InputError(f"{recipe}: no such recipe; there are {', '.join(known)}")


def recipes() -> list[Path]:
    """Every recipe that travels with the package."""
    return sorted(shipped("recipes").glob("*/*.yaml"))


def load_config(recipe: str, overrides: Sequence[str] = ()) -> tuple[RunConfig, str]:
    """Compose a recipe with command-line overrides; also returns the result as YAML.

    Raises:
        InputError: an unknown key (with the nearest known one), a wrong type or value.
    """
    path = find_recipe(recipe)
    for override in overrides:
        if override.startswith(("+", "~")):
            raise InputError(f"{override}: the schema is fixed; write it without {override[0]!r}")
    ConfigStore.instance().store(name="schema", node=RunConfig)
    GlobalHydra.instance().clear()
    searchpath = f"hydra.searchpath=[file://{shipped('conf').resolve()}]"
    try:
        with initialize_config_dir(str(path.parent), version_base="1.3"):
            composed = compose(path.name, overrides=[searchpath, *overrides])
        return to_run_config(composed)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise InputError(f"{path.name}: {one_line(error)}") from error


def read_config(path: Path) -> tuple[RunConfig, str]:
    """Read the resolved configuration of a run directory.

    Raises:
        InputError: missing, or not a configuration of this version.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected the configuration of a run")
    try:
        loaded = OmegaConf.merge(OmegaConf.structured(RunConfig), OmegaConf.load(path))
        assert isinstance(loaded, DictConfig)
        return to_run_config(loaded)
    except OmegaConfBaseException as error:
        raise InputError(f"{path}: {one_line(error)}") from error


def to_run_config(composed: DictConfig) -> tuple[RunConfig, str]:
    """A composed configuration as dataclasses and as YAML."""
    # A run is resumed from anywhere, so its configuration holds no relative path.
    for node, key in ((composed.corpus, "root"), (composed, "run_dir")):
        if node[key]:
            node[key] = str(Path(node[key]).absolute())
    config = OmegaConf.to_object(composed)
    assert isinstance(config, RunConfig)
    return config, OmegaConf.to_yaml(composed, resolve=True)


def sweep(overrides: Sequence[str]) -> list[list[str]]:
    """Expand overrides such as ``seed=1,2`` into one list of overrides for each run.

    Raises:
        InputError: an override does not parse.
    """
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        batches = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    except HydraException as error:
        raise InputError(f"overrides: {one_line(error)}") from error
    return [list(job) for batch in batches for job in batch]


def one_line(error: BaseException) -> str:
    """What Hydra and OmegaConf say, in one line and without their advice for programmers."""
    texts = []
    cause: BaseException | None = error
    while cause is not None:
        texts.append(str(cause))
        cause = cause.__cause__
    text = " ".join(texts)
    stray = re.search(r"Key '([^']+)' (?:is )?not in '(\w+)'|Could not override '([^']+)'", text)
    if stray:
        key = (re.search(r"full_key: (\S+)", text) or stray).group(1) or stray.group(3)
        near = difflib.get_close_matches(key, known_keys(), n=1)
        return f"unknown key {key!r}" + (f"; did you mean {near[0]!r}?" if near else "")
    first = texts[-1].strip().splitlines()
    if any("Available options" in line for line in first):
        told = [line.strip() for line in first if "provider=" not in line and line.strip()]
        return " ".join(line for line in told if line != "Config search path:")
    key_named = re.search(r"full_key: (\S+)", text)
    return (f"{key_named.group(1)}: " if key_named else "") + first[0]


def known_keys() -> list[str]:
    """Every section and key of the schema, dotted."""

    def under(node: DictConfig, prefix: str) -> list[str]:
        keys = []
        for key, child in node.items():
            name = f"{prefix}{key!s}"
            keys.append(name)
            if isinstance(child, DictConfig):
                keys += under(child, f"{name}.")
        return keys

    return under(OmegaConf.structured(RunConfig), "")
