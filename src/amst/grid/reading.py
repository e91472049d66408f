"""Reading config.yaml: files merged, every key checked, used or not."""

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from amst.config.methods import method_names, settings_class
from amst.config.run import ENCODERS, Kind, Recipe, VisualFeatures, settings_hash
from amst.config.settings import Config, DatasetSettings, ModalityOverrides
from amst.datasets import registry
from amst.datasets.base import Dataset
from amst.datasets.digits import Digits, DigitsSettings
from amst.errors import AmstError
from amst.files import reading
from amst.grid.messages import known, nearest, no_duplicates, validated
from amst.grid.runs import is_model, modalities_of, recipe_of
from amst.grid.variants import (
    all_variants,
    applies,
    grid_variants,
    merge,
    method_settings,
    modality_of,
    own_settings,
)

_OF_OWNER = ("raw", "generate", "options", "lists", "shards", "split_seed", "max_lost")
"""What a dataset sets for its raw data, shards and splits: not one that uses another one's."""


def read_config(*paths: Path) -> Config:
    """Read and check configuration files; later ones are merged over earlier ones.

    Raises:
        AmstError: a file is missing, is not YAML, or says something that cannot be.
    """
    merged: dict[str, Any] = {}
    for path in paths:
        merged = merge(merged, read_yaml(path))
    return check_config(merged, paths)


class _Loader(yaml.SafeLoader):
    """YAML in which a key may stand once; YAML itself takes the last one without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(
                    problem="a list or a map stands where a key should", problem_mark=key.start_mark
                )
            if key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key.value!r} stands twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ArithmeticError, AttributeError, LookupError, ValueError) as error:
            # what PyYAML's constructors let through: 2024-13-45, say, is taken for a date
            kind = node.tag.rpartition(":")[2]
            raise yaml.MarkedYAMLError(
                problem=f"{node.value[:40]!r} is no {kind}; text needs quotes",
                problem_mark=node.start_mark,
            ) from error


def read_yaml(path: Path) -> Mapping[str, Any]:
    """The settings in one file.

    Raises:
        AmstError: it is missing, cannot be read, is not YAML, is no map, or has a key twice in one
            place.
    """
    try:
        with reading(path):
            text = path.read_text("utf-8")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        # --configfile does not stand for config.yaml: it is merged over it
        own = path == Path("config.yaml")
        remedy = "Call from a folder that has it" if own else "Mend its path"
        raise AmstError(f"there is no file {path}", remedy) from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise AmstError(f"{path}, line {line}: not UTF-8 text", "Save it as UTF-8") from error
    try:
        values = yaml.load(text, _Loader)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        found = f"it holds the character {text[error.position]!r}"
        raise AmstError(f"{path}, line {line}: not YAML ({found})", "Remove it") from error
    except yaml.MarkedYAMLError as error:
        where = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise AmstError(f"{path}{where}: not YAML ({error.problem})") from error
    except RecursionError as error:
        raise AmstError(f"{path}: too many brackets within one another", "Close them") from error
    if not isinstance(values, Mapping):
        raise AmstError(f"{path}: expected a map of settings")
    return values


def check_config(
    values: Mapping[str, Any],
    files: Sequence[Path] = (),
    given: Mapping[str, Any] | None = None,
) -> Config:
    """Turn merged values into a checked configuration.

    Args:
        values: of all files, merged.
        files: where they come from, later ones merged over earlier ones.
        given: what the option ``--config`` has merged over the files.

    Raises:
        AmstError: with the path of the first wrong key, the file or option that it stands in and
            the nearest valid name.
    """
    contents: dict[Path | str, Mapping[str, Any]] = {file: read_yaml(file) for file in files}
    if given:
        contents["--config"] = given
    try:
        return _checked(values)
    except AmstError as error:
        if not contents:
            raise
        file = _file_of(error.message.partition(":")[0].partition(" ")[0], contents)
        raise AmstError(f"{file}: {error.message}", error.remedy) from error


def _file_of(path: str, contents: Mapping[Path | str, Mapping[str, Any]]) -> Path | str:
    """The last of the files that holds most of a key's path, or the option."""
    best, most = next(iter(contents)), 0
    for file, values in contents.items():
        depth = _depth(path, values)
        if depth >= most:
            best, most = file, depth
    return best if most else next(iter(contents))


def _depth(path: str, values: Any) -> int:
    """How many letters of a dotted path lead into values; a key may itself have dots."""
    if not isinstance(values, Mapping):
        return 0
    reached = 0
    for key, inner in values.items():
        if path == str(key) or path.startswith(f"{key}."):
            depth = len(str(key)) + 1 + _depth(path[len(str(key)) + 1 :], inner)
            reached = max(reached, depth)
    return reached


def _checked(values: Mapping[str, Any]) -> Config:
    config = validated(Config, values, "")
    # All names first: to check one entry, others are loaded, too.
    for name in config.datasets:
        known(name, registry.names(), "datasets")
    for name, settings in config.datasets.items():
        _check_dataset(config, name, settings)
    everywhere = {one for name in config.datasets for one in registry.load(name).modalities}
    for variant in all_variants(config).values():
        modality = modality_of(variant)
        if modality is not None:
            known(modality, everywhere, variant.place("modality"))
        for name in config.datasets:
            if applies(name, variant):
                method_settings(config, name, variant)
    _check_grid(config)
    _check_names(config)
    _check_modalities(config)
    _check_sweeps(config)
    return config


def _check_grid(config: Config) -> None:
    grid = config.grid
    for name in grid.datasets:
        known(name, config.datasets, "grid.datasets")
    methods = {*config.methods, *all_variants(config)}
    for name in grid.methods:
        known(name, methods, "grid.methods")
    for key in ("datasets", "methods", "seeds"):
        no_duplicates(getattr(grid, key), f"grid.{key}")
    no_duplicates(grid_variants(config), "grid.methods")


def _check_names(config: Config) -> None:
    """Refuse what is shown for something that is not there, or for two rows or columns."""
    names = config.tables.names
    for name in names:
        known(name, {*all_variants(config), *config.datasets}, "tables.names")
    for shown_together in (grid_variants(config), config.grid.datasets):
        users: dict[str, str] = {}
        for name in shown_together:
            shown = names.get(name, name)
            if shown in users:
                raise AmstError(
                    f"tables.names: {users[shown]} and {name} are both shown as {shown!r}",
                    "Name one of them otherwise",
                )
            users[shown] = name


def _check_modalities(config: Config) -> None:
    """Refuse a variant of the grid whose settings do not fit the modalities of a dataset."""
    variants = all_variants(config)
    for name in config.grid.datasets:
        present = registry.load(name).modalities
        for variant in (variants[one] for one in grid_variants(config)):
            for key, value in variant.settings.items():
                for modality in value if isinstance(value, Mapping) else ():
                    known(modality, present, f"{variant.place(key)} on {name}")
            if applies(name, variant):
                values = method_settings(config, name, variant)
                where = f"methods.{variant.entry} on {name}"
                settings = validated(settings_class(variant.method), values, where)
                if wrong := settings.misfit(present):
                    raise AmstError(f"{where}: {wrong}")


def _check_sweeps(config: Config) -> None:
    """Refuse a sweep that would train the same twice, as of 0.001 and 1e-3, which YAML calls text.

    Values that come to the same by what a dataset sets may differ on another, and are left.
    """
    variants = all_variants(config)
    common = config.recipe.model_dump()
    seen: dict[tuple[str, str], str] = {}
    for variant in (variants[one] for one in grid_variants(config) if one not in config.methods):
        where = f"methods.{variant.entry}"
        recipe = validated(Recipe, {**common, **variant.recipe}, f"{where}.recipe")
        own = [
            own_settings(variant).model_dump(mode="json", exclude_unset=True),
            recipe.model_dump(mode="json"),
        ]
        first = seen.setdefault((variant.entry, settings_hash(own)), variant.name)
        if first != variant.name:
            raise AmstError(
                f"{where}.sweep: {first} and {variant.name} have the same settings",
                "Remove one of the two values",
            )


def _check_dataset(config: Config, name: str, settings: DatasetSettings) -> None:
    where = f"datasets.{name}"
    try:
        dataset = registry.load(name, settings.options)
    except AmstError as error:
        raise AmstError(f"{where}.options: {error.message}", error.remedy) from error
    for modality in settings.modalities:
        known(modality, dataset.modalities, f"{where}.modalities")
    if not settings.splits:
        raise AmstError(f"{where}.split: expected at least one value", _valid(dataset.splits))
    for split in settings.splits:
        known(split, dataset.splits, f"{where}.split")
    no_duplicates(settings.splits, f"{where}.split")
    if settings.shares:
        _check_shares(config, name, settings.shares)
    elif not settings.raw and settings.generate is None:
        raise AmstError(f"{where}.raw: missing", "Set it to the folder of the raw data")
    if settings.generate is not None:
        known(name, [Digits.name], f"{where}.generate: only the embedded dataset is made")
        validated(DigitsSettings, settings.generate, f"{where}.generate")
    for method, defaults in settings.method_defaults.items():
        _check_defaults(dataset, method, defaults, f"{where}.method_defaults.{method}")
    for modality, kind in dataset.modalities.items():
        if modality in settings.modalities:
            inner = f"{where}.modalities.{modality}"
            _check_modality(settings.modalities[modality], kind, inner)
    _check_crops(config, name)
    _check_models(config, name)
    recipe_of(config, name)


def _check_defaults(dataset: Dataset, name: str, defaults: Any, where: str) -> None:
    """Refuse defaults of no method, or of settings or modalities that there are not."""
    methods = fnmatch.filter(method_names(), name)
    if not methods:
        raise AmstError(*_no_method(name, where))
    if not isinstance(defaults, Mapping):
        raise AmstError(f"{where}: expected a map of settings, got {defaults!r}")
    fields = {key for method in methods for key in settings_class(method).model_fields}
    for key, value in defaults.items():
        if key not in fields:
            raise AmstError(f"{where}.{key}: unknown key", nearest(key, fields))
        for modality in value if isinstance(value, Mapping) else ():
            known(modality, dataset.modalities, f"{where}.{key}")


def _no_method(name: str, where: str) -> tuple[str, str]:
    """What to say of defaults that stand below no method: a setting's name is often meant so."""
    able = [method for method in method_names() if name in settings_class(method).model_fields]
    if not able:
        return f"{where}: unknown method {name!r}", nearest(name, method_names())
    return (
        f"{where}: a setting of {', '.join(able)}, not a method",
        f"Write it below the method that is meant: {able[0]}: {{{name}: ...}}",
    )


def _valid(names: Iterable[str]) -> str:
    return f"Valid names: {', '.join(sorted(names))}"


def _check_shares(config: Config, name: str, owner: str) -> None:
    """Refuse shards of an entry that has none of its own, or not those that this one needs."""
    where = f"datasets.{name}.shares"
    able = [
        other
        for other, settings in config.datasets.items()
        if not settings.shares
        and set(registry.load(name).modalities) <= set(registry.load(other).modalities)
        and _have_same_rows(name, other)
    ]
    known(owner, config.datasets, where)
    remedy = _valid(able) if able else f"Remove it and set datasets.{name}.raw"
    if owner == name:
        raise AmstError(f"{where}: {name} cannot share with itself", remedy)
    if config.datasets[owner].shares:
        raise AmstError(f"{where}: {owner} has no shards of its own, it shares too", remedy)
    if not _have_same_rows(name, owner):
        raise AmstError(
            f"{where}: the rows of {name} are not those of {owner}, which it would be trained on",
            f"Give {name} a raw folder, or state its splits in the class of {owner}",
        )
    if owner not in able:
        raise AmstError(f"{where}: {owner} lacks modalities of {name}", remedy)
    own = config.datasets[name]
    unused = [key for key in _OF_OWNER if key in own.model_fields_set]
    unused += [
        f"modalities.{key}.features" for key, set_ in own.modalities.items() if set_.features
    ]
    if unused:
        raise AmstError(
            f"datasets.{name}.{unused[0]}: of no effect, since {name} shares the data of {owner}",
            f"Set it below datasets.{owner}, or remove it",
        )


def _have_same_rows(name: str, other: str) -> bool:
    """Whether two datasets read the same samples and label them alike."""
    one, two = type(registry.load(name)), type(registry.load(other))
    return one.read is two.read and one.classes == two.classes


def _check_modality(settings: ModalityOverrides, kind: Kind, where: str) -> None:
    """Refuse what a modality of this kind cannot have."""
    if settings.encoder is not None and kind not in settings.encoder.kinds:
        fitting = [each().name for each in ENCODERS if kind in each.kinds]
        raise AmstError(
            f"{where}.encoder.name: {settings.encoder.name} takes no {kind}", _valid(fitting)
        )
    for key in ("crop", "augmentation"):
        if kind != "visual" and key in settings.model_fields_set:
            raise AmstError(f"{where}.{key}: only a visual modality has it", "Remove this key")


def _check_crops(config: Config, name: str) -> None:
    """Refuse a picture for the encoder that is larger than the stored one."""
    for modality, resolved in modalities_of(config, name).items():
        stored = resolved.features
        if isinstance(stored, VisualFeatures) and (resolved.crop or 0) > stored.size:
            raise AmstError(
                f"datasets.{name}.modalities.{modality}.crop: {resolved.crop} is larger than the "
                f"stored picture (features.size: {stored.size})",
                f"Set it to {stored.size} or less",
            )


def _check_models(config: Config, name: str) -> None:
    """Refuse a pretrained model that is neither a local folder nor a name on the hub."""
    for modality, resolved in modalities_of(config, name).items():
        named = {
            "features.tokenizer": getattr(resolved.features, "tokenizer", None),
            "encoder.weights": getattr(resolved.encoder, "weights", None),
        }
        for key, model in named.items():
            if model is not None and not is_model(model):
                raise AmstError(
                    f"datasets.{name}.modalities.{modality}.{key}: there is no folder "
                    f"{model!r}, and no model of the hub can be called so",
                    "Give the folder's whole path (a ~ is none), or a name such as roberta-base",
                )
