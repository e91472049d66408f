"""Reading config.yaml: files merged, every key checked, used or not."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from amst.config.methods import method_names, settings_class
from amst.config.settings import Config, DatasetSettings
from amst.datasets import registry
from amst.datasets.digits import Digits, DigitsSettings
from amst.errors import AmstError
from amst.grid.messages import known, validated
from amst.grid.runs import modalities_of, recipe_of
from amst.grid.variants import all_variants, applies, grid_variants, method_settings


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two configurations as Snakemake does: maps merge, lists and values are replaced."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            merged[key] = merge(old, value)
        else:
            merged[key] = value
    return merged


def read_config(*paths: Path) -> Config:
    """Read and check configuration files; later ones are merged over earlier ones.

    Raises:
        AmstError: a file is missing, is not YAML, or says something that cannot be.
    """
    merged: dict[str, Any] = {}
    for path in paths:
        merged = merge(merged, _read_yaml(path))
    return check_config(merged)


def _read_yaml(path: Path) -> Mapping[str, Any]:
    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise AmstError(
            f"there is no {path}", "Call from the project's folder or name a file by --configfile"
        ) from error
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise AmstError(f"{path}{line}: not YAML ({error.problem})") from error
    if not isinstance(values, Mapping):
        raise AmstError(f"{path}: expected a map of settings")
    return values


def check_config(values: Mapping[str, Any]) -> Config:
    """Turn merged values into a checked configuration.

    Raises:
        AmstError: with the path of the first wrong key and the nearest valid name.
    """
    config = validated(Config, values, "")
    for name, settings in config.datasets.items():
        _check_dataset(config, name, settings)
    for variant in all_variants(config).values():
        for name in config.datasets:
            if applies(name, variant):
                method_settings(config, name, variant)
    _check_grid(config)
    _check_modalities(config)
    return config


def _check_grid(config: Config) -> None:
    grid = config.grid
    for name in grid.datasets:
        known(name, config.datasets, "grid.datasets")
    for name in grid.methods:
        known(name, config.methods, "grid.methods")
    for key in ("datasets", "methods", "seeds"):
        names = getattr(grid, key)
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise AmstError(f"grid.{key}: {twice!r} stands twice", "Remove one of them")


def _check_modalities(config: Config) -> None:
    """Refuse a variant of the grid that sets something for a modality that a dataset lacks."""
    variants = all_variants(config)
    for name in config.grid.datasets:
        for variant in (variants[one] for one in grid_variants(config)):
            for key, value in variant.settings.items():
                for modality in value if isinstance(value, Mapping) else ():
                    where = f"methods.{variant.name}.{key} on {name}"
                    known(modality, registry.load(name).modalities, where)


def _check_dataset(config: Config, name: str, settings: DatasetSettings) -> None:
    where = f"datasets.{name}"
    known(name, registry.names(), "datasets")
    try:
        dataset = registry.load(name, settings.options)
    except AmstError as error:
        raise AmstError(f"{where}.options: {error.message}", error.remedy) from error
    for modality in settings.modalities:
        known(modality, dataset.modalities, f"{where}.modalities")
    for split in settings.splits:
        known(split, dataset.splits, f"{where}.split")
    if settings.shares:
        known(settings.shares, config.datasets, f"{where}.shares")
    elif not settings.raw and settings.generate is None:
        raise AmstError(f"{where}.raw: missing", "Set it to the folder of the raw data")
    if settings.generate is not None:
        known(name, [Digits.name], f"{where}.generate: only the embedded dataset is made")
        validated(DigitsSettings, settings.generate, f"{where}.generate")
    fields = {key for method in method_names() for key in settings_class(method).model_fields}
    for key in settings.method_defaults:
        known(key, fields, f"{where}.method_defaults")
    for key, value in settings.method_defaults.items():
        for modality in value if isinstance(value, Mapping) else ():
            known(modality, dataset.modalities, f"{where}.method_defaults.{key}")
    modalities_of(config, name)
    recipe_of(config, name)
