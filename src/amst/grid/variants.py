"""Variants: named entries under ``methods:``, sweeps expanded, settings checked."""

import difflib
import fnmatch
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from amst.config.methods import foreign_name, method_names, settings_class
from amst.config.run import MethodSettings, Recipe
from amst.config.settings import Config
from amst.datasets import registry
from amst.errors import AmstError
from amst.grid.messages import known, nearest, no_duplicates, validated

NAME = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9._+-]*")
"""What an entry may be called: it is a folder's name."""
_LONGEST = 150
"""Letters of a variant's name: files are named after it and its dataset, split and seed."""
RESERVED = ("method", "recipe", "sweep")
"""Keys of an entry under ``methods:`` that are not settings of its method."""


@dataclass(frozen=True)
class Variant:
    """A method with settings, as the grid crosses it with datasets and seeds.

    Attributes:
        entry: the entry under ``methods:`` that it comes from.
        swept: settings whose values come from the entry's sweep.
    """

    name: str
    method: str
    settings: dict[str, Any]
    recipe: dict[str, Any]
    entry: str
    swept: frozenset[str] = frozenset()

    def place(self, key: str) -> str:
        """Path of one of the settings in the configuration."""
        return f"methods.{self.entry}{'.sweep' if key in self.swept else ''}.{key}"


def all_variants(config: Config) -> dict[str, Variant]:
    """Variant name -> variant, of every entry under ``methods:``.

    Raises:
        AmstError: an entry names no method, an unknown one, or has a wrong key.
    """
    expanded: dict[str, Variant] = {}
    for entry in config.methods:
        for variant in expand(config, entry):
            if variant.name in expanded:
                raise AmstError(f"methods.{entry}: a second variant named {variant.name!r}")
            expanded[variant.name] = variant
    return expanded


def grid_variants(config: Config) -> list[str]:
    """Names of the variants that the grid runs, in its order.

    It names entries; of a sweep all its variants, or some of them each by its own name.
    """
    return [
        variant
        for name in config.grid.methods
        for variant in (
            [each.name for each in expand(config, name)] if name in config.methods else [name]
        )
    ]


def expand(config: Config, entry: str) -> list[Variant]:
    """The variants of one entry: one, or one for each point of its sweep.

    Raises:
        AmstError: it names no method, an unknown one, has a wrong key, or its name fits no folder.
    """
    values = config.methods[entry]
    where = f"methods.{entry}"
    method = values.get("method", "")
    if not method:
        near = difflib.get_close_matches("method", values, n=1)
        if near:
            raise AmstError(f"{where}.{near[0]}: unknown key", "Did you mean 'method'?")
        raise AmstError(f"{where}.method: missing", f"Valid names: {', '.join(method_names())}")
    if not isinstance(method, str):
        raise AmstError(f"{where}.method: expected a name, got {method!r}")
    known(method, method_names(), f"{where}.method")
    sweep, recipe = values.get("sweep", {}), values.get("recipe", {})
    settings = {key: value for key, value in values.items() if key not in RESERVED}
    _check_keys(method, where, settings, sweep, recipe)
    common = config.recipe.model_dump()
    validated(Recipe, {**common, **recipe}, f"{where}.recipe")
    swept = {key: value for key, value in sweep.items() if key != "recipe"}
    swept_recipe = sweep.get("recipe", {})
    variants = []
    for point in itertools.product(*swept.values(), *swept_recipe.values()):
        named = list(zip([*swept, *swept_recipe], point, strict=True))
        suffix = "".join(f"-{key}-{_spelled(value)}" for key, value in named)
        chosen, chosen_recipe = dict(named[: len(swept)]), dict(named[len(swept) :])
        validated(Recipe, {**common, **recipe, **chosen_recipe}, f"{where}.sweep.recipe")
        if not NAME.fullmatch(entry):
            raise AmstError(
                f"{where}: {entry!r} cannot be a folder's name",
                "Use letters, digits and . _ + - only, the first of them no .",
            )
        if len(entry + suffix) > _LONGEST:
            raise AmstError(
                f"{where}: {entry + suffix!r} is too long for a folder's name",
                f"It may have {_LONGEST} letters, of a sweep the settings with them: name the "
                "entry shorter, or write one for each value",
            )
        variants.append(
            Variant(
                entry + suffix,
                method,
                {**settings, **chosen},
                {**recipe, **chosen_recipe},
                entry,
                frozenset(swept),
            )
        )
    return variants


def _check_keys(method: str, where: str, settings: Mapping, sweep: Any, recipe: Any) -> None:
    for name, value in (("sweep", sweep), ("recipe", recipe)):
        _check_map(value, f"{where}.{name}")
    fields = settings_class(method).model_fields
    for key in settings:
        if key not in fields:
            raise AmstError(f"{where}.{key}: unknown key", nearest(key, [*fields, *RESERVED]))
    for key, values in sweep.items():
        place = f"{where}.sweep.{key}"
        if key == "recipe":
            _check_map(values, place)
            for name, own in values.items():
                _check_list(own, f"{place}.{name}")
        elif key in fields:
            _check_list(values, place)
        elif key in Recipe.model_fields:
            raise AmstError(
                f"{place}: belongs to the recipe, not to method {method}",
                f"Write sweep: {{recipe: {{{key}: [...]}}}}",
            )
        else:
            raise AmstError(f"{place}: unknown key", nearest(key, [*fields, "recipe"]))


def _check_map(value: Any, place: str) -> None:
    if not isinstance(value, Mapping):
        raise AmstError(f"{place}: expected a map of settings, got {value!r}")


def _check_list(values: Any, place: str) -> None:
    if not isinstance(values, list) or not values:
        raise AmstError(f"{place}: expected a list of values, got {values!r}")
    no_duplicates(values, place)


def _spelled(value: Any) -> str:
    """A value as part of a variant's name, which is a folder's name."""
    if isinstance(value, Mapping):
        return "-".join(f"{key}{_spelled(item)}" for key, item in sorted(value.items()))
    return "".join(c if c.isalnum() or c in "._+" else "_" for c in str(value))


def applies(dataset: str, variant: Variant) -> bool:
    """Whether a variant can run on a dataset: one that trains a single modality needs it there."""
    modality = modality_of(variant)
    return modality is None or modality in registry.load(dataset).modalities


def modality_of(variant: Variant) -> str | None:
    """What a variant's setting ``modality`` says, or its method's default of it; None without."""
    field = settings_class(variant.method).model_fields.get("modality")
    default = None if field is None or field.is_required() else field.default
    return variant.settings.get("modality", default)


def _settings(method: str, values: Mapping[str, Any], where: str) -> MethodSettings:
    """A method's settings, checked.

    Raises:
        AmstError: a value is wrong, or a validator uses a name that reading the file does not give.
    """
    try:
        return validated(settings_class(method), values, where)
    except NameError as error:
        raise foreign_name(method, error) from error


def own_settings(variant: Variant) -> MethodSettings:
    """A variant's own values, checked, without the dataset's.

    Raises:
        AmstError: with the path of the key as it stands in the file, which a sweep makes longer.
    """
    where = f"methods.{variant.entry}"
    try:
        return _settings(variant.method, variant.settings, where)
    except AmstError as error:
        key = error.message.removeprefix(f"{where}.").partition(":")[0].partition(".")[0]
        if key not in variant.swept:
            raise
        rest = error.message.removeprefix(f"{where}.{key}")
        raise AmstError(variant.place(key) + rest, error.remedy) from error


def method_settings(config: Config, dataset: str, variant: Variant) -> dict[str, Any]:
    """The variant's settings on a dataset: the method's, the dataset's, then its own values.

    Raises:
        AmstError: a value is out of range or of a wrong type.
    """
    fields = settings_class(variant.method).model_fields
    own_settings(variant)
    values: dict[str, Any] = {}
    places: dict[str, str] = {}
    for name, defaults in _defaults_of(config, dataset, variant.method):
        own = {key: value for key, value in defaults.items() if key in fields}
        values = merge(values, own)
        places |= dict.fromkeys(own, name)
    values = merge(values, variant.settings)
    where = f"datasets.{dataset}.method_defaults"
    try:
        return _settings(variant.method, values, where).model_dump(mode="json")
    except AmstError as error:
        if not error.message.startswith(where):
            raise
        rest = error.message.removeprefix(where)
        place = places.get(re.split("[.:]", rest.lstrip("."))[0], variant.method)
        raise AmstError(f"{where}.{place}{rest}", error.remedy) from error


def _defaults_of(config: Config, dataset: str, method: str) -> list[tuple[str, Mapping[str, Any]]]:
    """What a dataset sets for a method, by the name it stands below; the method's own is last."""
    defaults = config.datasets[dataset].method_defaults.items()
    found = [(name, values) for name, values in defaults if fnmatch.fnmatchcase(method, name)]
    return sorted(found, key=lambda item: item[0] == method)


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
