"""Recipes: Hydra composes schema < conf groups < recipe < command line into a `RunConfig`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import yaml
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from asr.audio.features import ONCE
from asr.errors import InputError
from asr.train.config import RunConfig

PACKAGE = Path(__file__).parents[1]
#: What comes of files that are no YAML, of unknown keys and wrong types.
MALFORMED = (
    HydraException,
    OmegaConfBaseException,
    yaml.YAMLError,
    ValueError,
    RecursionError,
)
#: What other toolkits call our settings.
SYNONYMS = {
    "learning_rate": "lr",
    "optimizer": "name",
    "epochs": "max_epochs",
    "num_epochs": "max_epochs",
    "n_epochs": "max_epochs",
    "batch": "batch_size",
    "bs": "batch_size",
    "hidden_size": "hidden",
    "hidden_dim": "hidden",
    "num_layers": "layers",
    "n_layers": "layers",
    "num_workers": "workers",
    "beam_size": "beam",
    "beam_width": "beam",
    "n_mel": "n_mels",
    "num_mel_bins": "n_mels",
    "grad_clip": "clip_norm",
    "max_grad_norm": "clip_norm",
    "weight_decay_rate": "weight_decay",
    "early_stopping": "patience",
    "output_dir": "run_dir",
    "pretrained": "model",
    "random_seed": "seed",
}
NO_RECIPE = "not a recipe: its 'defaults' must begin with 'base'"
#: What a command line may say of Hydra itself: which launcher and sweeper, and their settings.
SWEEP_PREFIXES = ("hydra/launcher", "hydra/sweeper", "hydra.launcher.", "hydra.sweeper.")
#: The parts of Hydra's own configuration that name Python classes or reach other programs.
NAMING_CODE = ("launcher", "sweeper", "callbacks", "job_logging", "hydra_logging", "job.env_set")


def shipped(name: str) -> Path:
    """The folder conf/ or recipes/, in an installed wheel (in the package) or in a checkout."""
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
    if (path / "config.yaml").is_file():
        raise InputError(f"{recipe}: is a run; go on with it: asr train {recipe} --resume")
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
    prepare_hydra(overrides)
    try:
        with initialize_config_dir(str(path.parent), version_base="1.3"):
            composed = compose(path.name, overrides=[searchpath(), *overrides])
        return to_run_config(composed)
    except MALFORMED as error:
        raise InputError(f"{path.name}: {one_line(error)}") from error


def prepare_hydra(overrides: Sequence[str]) -> None:
    """Make Hydra know the schema and nothing else.

    Raises:
        InputError: an override would change the schema.
    """
    for override in overrides:
        if override.startswith(("+", "~")):
            raise InputError(f"{override}: the schema is fixed; write it without {override[0]!r}")
    ConfigStore.instance().store(name="schema", node=RunConfig)
    GlobalHydra.instance().clear()


def searchpath() -> str:
    """The override that lets recipes name the groups of conf/."""
    return f"hydra.searchpath=[file://{shipped('conf').resolve()}]"


def read_config(path: Path, overrides: Sequence[str] = ()) -> tuple[RunConfig, str]:
    """Read the resolved configuration of a run directory, and change it (``key=value``).

    Raises:
        InputError: missing, or not a configuration of this version; an unknown key or a wrong type.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected the configuration of a run")
    schema = OmegaConf.structured(RunConfig)
    for override in overrides:
        key = override.partition("=")[0]
        if key in schema and OmegaConf.is_dict(schema[key]):
            raise InputError(
                f"{override}: the groups of a recipe are chosen where a run begins; of a run that "
                f"goes on only single settings change, such as trainer.patience=3"
            )
    try:
        loaded = OmegaConf.merge(
            schema,
            {"features": ONCE},
            OmegaConf.load(path),
            OmegaConf.from_dotlist(list(overrides)),
        )
        assert isinstance(loaded, DictConfig)
        return to_run_config(loaded)
    except (*MALFORMED, OSError) as error:
        raise InputError(f"{path}: {one_line(error)}") from error


def to_run_config(composed: DictConfig) -> tuple[RunConfig, str]:
    """A composed configuration as dataclasses and as YAML."""
    # A run is resumed from anywhere, so its configuration holds no relative path.
    for node, key in (
        (composed, "run_dir"),
        (composed, "resume"),
        (composed.corpus, "root"),
        (composed.init, "model"),
        (composed.augment, "noise_dir"),
        (composed.augment, "reverb_dir"),
        (composed.trainer, "feature_cache"),
    ):
        if node[key]:
            node[key] = str(Path(node[key]).absolute())
    config = OmegaConf.to_object(composed)
    if not isinstance(config, RunConfig):
        raise ValueError(NO_RECIPE)
    return config, OmegaConf.to_yaml(composed, resolve=True)


def multirun(
    recipe: str, overrides: Sequence[str], job: Callable[[RunConfig, str], float | None]
) -> None:
    """Run ``job(config, config as YAML)`` for each of the values in overrides such as ``seed=1,2``.

    Run number N gets the directory run_dir/N. Hydra's launchers and sweepers are chosen by name,
    where they are installed: ``hydra/launcher=joblib`` (processes side by side), ``submitit_slurm``
    or ``submitit_local``, ``hydra/sweeper=optuna``, which minimises what ``job`` returns. ``job``
    must be a function of a module, or other processes could not be given it.

    Raises:
        InputError: as `load_config`, before anything runs; or what a run raises, after all.
    """
    path = find_recipe(recipe)
    about_hydra = [o for o in overrides if o.startswith(SWEEP_PREFIXES)]
    for override in overrides:
        if override.startswith("hydra") and override not in about_hydra:
            raise InputError(
                f"{override}: of Hydra itself only hydra/launcher=NAME, hydra/sweeper=NAME and "
                f"their settings (hydra.launcher.KEY=VALUE) can be set"
            )
    if any(o.startswith("hydra/sweeper") for o in about_hydra):
        # What values it will try is up to the sweeper.
        load_config(recipe)
    else:
        for values in sweep([o for o in overrides if o not in about_hydra]):
            load_config(recipe, values)
    prepare_hydra(overrides)
    about_hydra += [
        searchpath(),
        "hydra.sweep.dir=${run_dir}",
        # Each run logs by itself, and its directory is its own.
        "hydra/job_logging=none",
        "hydra/hydra_logging=none",
        "hydra.output_subdir=null",
    ]
    changes = [*about_hydra, *(o for o in overrides if o not in about_hydra)]
    try:
        with initialize_config_dir(str(shipped("conf").resolve()), version_base="1.3"):
            hydra = GlobalHydra.instance().hydra
            assert hydra is not None
            ours = hydra.compose_config(None, about_hydra, RunMode.MULTIRUN)
        with initialize_config_dir(str(path.parent), version_base="1.3"):
            hydra = GlobalHydra.instance().hydra
            assert hydra is not None
            composed = hydra.compose_config(path.name, changes, RunMode.MULTIRUN)
            for part in NAMING_CODE:
                found, own = (OmegaConf.select(c.hydra, part) for c in (composed, ours))
                if OmegaConf.to_container(found) != OmegaConf.to_container(own):
                    raise InputError(
                        f"{path.name}: hydra.{part} cannot be set by a recipe; "
                        f"name launcher and sweeper on the command line"
                    )
            if not composed.run_dir:
                raise InputError("run_dir is not set: add run_dir=DIR, the folder for the runs")
            hydra.multirun(path.name, partial(one_of_many, job), changes)
        print(f"side by side: asr compare {composed.run_dir}/[0-9]*")
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(f"{path.name}: {one_line(error)}") from error


def one_of_many(
    job: Callable[[RunConfig, str], float | None], composed: DictConfig
) -> float | None:
    """One run of a sweep, in whatever process the launcher has made for it."""
    hydra = HydraConfig.get()
    composed.run_dir = hydra.runtime.output_dir
    print(f"run {hydra.job.num}: {' '.join(hydra.overrides.task)}", flush=True)
    return job(*to_run_config(composed))


def sweep(overrides: Sequence[str]) -> list[list[str]]:
    """Expand overrides such as ``seed=1,2`` into one list of overrides for each run.

    Raises:
        InputError: an override does not parse.
    """
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        for override in parsed:
            if override.is_interval_sweep():
                raise InputError(
                    f"{override.input_line}: only hydra/sweeper=optuna takes values from an "
                    f"interval; list them, or add it (pip install carousel-asr[sweep])"
                )
        batches = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    except HydraException as error:
        raise InputError(f"overrides: {one_line(error)}") from error
    return [list(job) for batch in batches for job in batch]


def one_line(error: BaseException) -> str:
    """What Hydra and OmegaConf say, in one line and without their advice for programmers."""
    if isinstance(error, yaml.YAMLError):
        return " ".join(str(error).split())
    texts = []
    cause: BaseException | None = error
    while cause is not None:
        texts.append(str(cause))
        cause = cause.__cause__
    text = " ".join(texts)
    stray = re.search(r"Key '([^']+)' (?:is )?not in '(\w+)'|Could not override '([^']+)'", text)
    if stray:
        key = (re.search(r"full_key: (\S+)", text) or stray).group(1) or stray.group(3)
        if key in known_keys():
            return NO_RECIPE
        near = nearest(key)
        return f"unknown key {key!r}" + (f"; did you mean {near!r}?" if near else "")
    first = texts[-1].strip().splitlines()
    if any("Available options" in line for line in first):
        told = [line.strip() for line in first if "provider=" not in line and line.strip()]
        more = "; others come with: pip install carousel-asr[sweep]" if "'hydra/" in text else ""
        return " ".join(line for line in told if line != "Config search path:") + more
    key_named = re.search(r"full_key: (\S+)", text)
    said = " ".join(first[:2]) if first[0].endswith(":") else first[0]
    return (f"{key_named.group(1)}: " if key_named else "") + said


def nearest(key: str) -> str:
    """The known key that a mistyped one most likely means; empty where none is near.

    What it is called counts more than the section that it is looked for in; names that others give
    to a setting are known.
    """
    section, _, name = key.rpartition(".")
    synonyms = {theirs.replace("_", ""): ours for theirs, ours in SYNONYMS.items()}
    ways = {known.rpartition(".")[2]: known for known in reversed(known_keys())}
    there = {k.rpartition(".")[2]: k for k in known_keys() if k.rpartition(".")[0] == section}
    for known in (there, ways):
        if (other := synonyms.get(name.replace("_", ""), name)) in known:
            return known[other]
        if close := difflib.get_close_matches(name, known, n=1, cutoff=0.7):
            return known[close[0]]
    return next(iter(difflib.get_close_matches(key, known_keys(), n=1)), "")


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
