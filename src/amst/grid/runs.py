"""The runs of the grid and the resolved settings of each."""

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amst.config.methods import trained_modalities
from amst.config.run import (
    SEPARATORS,
    AudioFeatures,
    Features,
    Modality,
    Recipe,
    ResNet18,
    Roberta,
    RunSettings,
    TextFeatures,
    VisualFeatures,
    hash_of,
)
from amst.config.settings import Config, ModalityOverrides
from amst.datasets import registry
from amst.errors import AmstError
from amst.grid.messages import known, validated
from amst.grid.variants import (
    Variant,
    all_variants,
    applies,
    grid_variants,
    method_settings,
    modality_of,
)

_ON_HUB = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*", re.ASCII)
ENCODERS = {"audio": ResNet18(), "visual": ResNet18(), "text": Roberta()}
FEATURES: dict[str, type] = {
    "audio": AudioFeatures,
    "visual": VisualFeatures,
    "text": TextFeatures,
}

FORMAT = 2
"""Version of what ``as_dict`` gives."""
_A_SEED = "any seed"
"""Stands in a variant's settings where each of its runs has its own."""


@dataclass(frozen=True)
class Cell:
    """One run of the grid, by name."""

    dataset: str
    split: str
    variant: str
    seed: int

    @property
    def run(self) -> str:
        """Folder of the run below ``results/runs``."""
        return f"{self.dataset}/{self.split}/{self.variant}/seed{self.seed}"

    @classmethod
    def of_file(cls, path: str) -> "Cell | None":
        """The run whose folder holds a file; None for any other file."""
        found = re.match(r"(?:\./)?results/runs/([^/]+)/([^/]+)/([^/]+)/seed(\d+)/", path)
        return cls(found[1], found[2], found[3], int(found[4])) if found else None


def cells(config: Config) -> list[Cell]:
    """Every run of the grid, dataset by dataset, in the configuration's order."""
    variants = all_variants(config)
    return [
        Cell(dataset, split, name, seed)
        for dataset in config.grid.datasets
        for split in config.datasets[dataset].splits
        for name in grid_variants(config)
        if applies(dataset, variants[name])
        for seed in config.grid.seeds
    ]


def as_dict(config: Config) -> dict[str, Any]:
    """The grid as plain values: what tables need to know of the configuration.

    Every run has the hash of its settings, so that what was made with others is not taken for it.
    """
    variants = all_variants(config)
    resolve = Resolver(config)
    names = names_shown(config)
    return {
        "format": FORMAT,
        "metric": config.tables.metric,
        "names": names,
        "variants": [{"name": n, "method": variants[n].method} for n in grid_variants(config)],
        "datasets": list(config.grid.datasets),
        "features": {name: features_owner(config, name) for name in config.grid.datasets},
        "runs": {cell.run: resolve.hash(cell) for cell in cells(config)},
        "left_out": left_out(config, names),
    }


def names_shown(config: Config) -> dict[str, str]:
    """Variant or dataset -> what a reader is shown, of those that the grid's tables can name.

    A name for anything else is none of theirs: they are not made anew for it.
    """
    datasets = config.grid.datasets
    owners = (features_owner(config, name) for name in datasets)
    named = {*grid_variants(config), *datasets, *owners}
    return {name: shown for name, shown in config.tables.names.items() if name in named}


def left_out(config: Config, names: Mapping[str, str] | None = None) -> list[str]:
    """One line for each method of the grid that a dataset of the grid cannot run.

    Args:
        config: the configuration.
        names: variant or dataset -> what the lines call it; itself unless given.
    """
    variants = all_variants(config)
    shown = names or {}
    return [
        f"{shown.get(name, name)} does not apply to {shown.get(dataset, dataset)}, which has no "
        f"{modality_of(variants[name])}"
        for dataset in config.grid.datasets
        for name in grid_variants(config)
        if not applies(dataset, variants[name])
    ]


def trained_alike(config: Config) -> list[str]:
    """One line for variants of the grid whose settings come to the same, but for their names."""
    resolve = Resolver(config)
    found: dict[tuple[str, ...], list[str]] = {}
    for dataset in config.grid.datasets:
        alike: dict[str, list[str]] = {}
        for name in grid_variants(config):
            if applies(dataset, resolve.variants[name]):
                alike.setdefault(resolve.but_for_names(dataset, name), []).append(name)
        for names in alike.values():
            if len(names) > 1:
                found.setdefault(tuple(names), []).append(dataset)
    return [
        f"{', '.join(names)} have the same settings on {', '.join(datasets)}: each is trained"
        for names, datasets in found.items()
    ]


def features_owner(config: Config, dataset: str) -> str:
    """The dataset whose raw root, shards and splits ``dataset`` uses: mostly itself."""
    return config.datasets[dataset].shares or dataset


def raw_root(config: Config, dataset: str) -> Path:
    """Raw folder that a dataset's samples are read from."""
    settings = config.datasets[features_owner(config, dataset)]
    return Path(settings.raw or f"results/raw/{dataset}")


def features_of(config: Config, dataset: str) -> dict[str, Features]:
    """Modality name -> settings of its stored features, sorted by name."""
    owner = features_owner(config, dataset)
    resolved: dict[str, Features] = {}
    for name, kind in sorted(registry.load(dataset).modalities.items()):
        given = config.datasets[owner].modalities.get(name, ModalityOverrides()).features
        resolved[name] = validated(
            FEATURES[kind], given, f"datasets.{owner}.modalities.{name}.features"
        )
    return resolved


def modalities_of(config: Config, dataset: str) -> dict[str, Modality]:
    """Modality name -> all that a run knows of it, sorted by name."""
    resolved = {}
    for name, features in features_of(config, dataset).items():
        given = config.datasets[dataset].modalities.get(name, ModalityOverrides())
        visual = features.kind == "visual"
        resolved[name] = Modality(
            kind=features.kind,
            features=features,
            encoder=given.encoder or ENCODERS[features.kind],
            crop=given.crop if visual else None,
            augmentation=given.augmentation if visual else None,
        )
    return resolved


def tokenizers_of(config: Config, dataset: str) -> tuple[str, ...]:
    """Names of the tokenizers to be fetched for a dataset's extraction.

    Local folders and the embedded dataset's own tokenizer are none.
    """
    features = features_of(config, dataset).values()
    return _to_fetch({own.tokenizer for own in features if isinstance(own, TextFeatures)})


def models_of(config: Config, datasets: Collection[str]) -> list[str]:
    """Names of all models to be fetched for some datasets, sorted: tokenizers and weights."""
    return sorted(
        {name for each in datasets for name in tokenizers_of(config, each)}
        | {name for each in datasets for name in _weights(modalities_of(config, each))}
    )


def _weights(modalities: Mapping[str, Modality]) -> tuple[str, ...]:
    encoders = [modality.encoder for modality in modalities.values()]
    return _to_fetch({own.weights for own in encoders if isinstance(own, Roberta)})


def _to_fetch(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(name for name in names if name != "digits" and not _is_folder(name)))


def is_model(name: str) -> bool:
    """Whether a tokenizer or weights can be called so: a local folder, or a name on the hub.

    What is fetched is a folder of that name below ``results/staged``, and a word of a command.
    """
    return _is_folder(name) or bool(_ON_HUB.fullmatch(name))


def _is_folder(name: str) -> bool:
    return Path(name).is_dir() or name.startswith(("/", "."))


def embedding_of(config: Config, dataset: str) -> int:
    """D: as configured, else 512 without text and RoBERTa's 768 with it (the published models)."""
    text = "text" in registry.load(dataset).modalities.values()
    return config.datasets[dataset].embedding or (768 if text else 512)


def recipe_of(config: Config, dataset: str, over: Mapping[str, Any] | None = None) -> Recipe:
    """The training recipe: the suite's, then the dataset's, then the variant's values."""
    own = {**config.recipe.model_dump(), **config.datasets[dataset].recipe}
    validated(Recipe, own, f"datasets.{dataset}.recipe")
    return validated(Recipe, {**own, **(over or {})}, "recipe")


class Resolver:
    """Settings of runs under one configuration; what runs share is worked out once."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.variants: dict[str, Variant] = all_variants(config)
        self._shared: dict[tuple[str, str], dict[str, Any]] = {}
        self._texts: dict[tuple[Any, ...], tuple[str, str]] = {}

    def __call__(self, cell: Cell) -> RunSettings:
        """The settings of one run.

        Raises:
            AmstError: no such dataset, split or variant, or a variant the dataset cannot run.
        """
        shared = self._of(cell.dataset, cell.variant)
        known(cell.split, registry.load(cell.dataset).splits, "split")
        return RunSettings(split=cell.split, seed=cell.seed, **shared)

    def text(self, cell: Cell, separators: tuple[str, str] = (", ", ": ")) -> str:
        """The settings of one run as JSON with sorted keys; a variant's runs differ in the seed.

        Args:
            cell: the run.
            separators: of items, and of keys and values.

        Raises:
            AmstError: as of calling.
        """
        key = cell.dataset, cell.split, cell.variant, separators
        if key not in self._texts:
            values = {**self(cell).model_dump(mode="json"), "seed": _A_SEED}
            whole = json.dumps(values, sort_keys=True, separators=separators)
            name = f'"seed"{separators[1]}'
            head, tail = whole.split(f"{name}{json.dumps(_A_SEED)}")
            self._texts[key] = f"{head}{name}", tail
        head, tail = self._texts[key]
        return f"{head}{cell.seed}{tail}"

    def pretrained(self, dataset: str, variant: str) -> tuple[str, ...]:
        """Names of the models to be fetched whose weights a variant's runs start from.

        Raises:
            AmstError: as of calling.
        """
        return _weights(self._of(dataset, variant)["modalities"])

    def hash(self, cell: Cell) -> str:
        """The hash of a run's settings."""
        return hash_of(self.text(cell, SEPARATORS))

    def but_for_names(self, dataset: str, variant: str) -> str:
        """The hash of what a variant trains on a dataset: not of its name, split and seed.

        Raises:
            AmstError: as of calling.
        """
        trained = {**self._of(dataset, variant), "variant": ""}
        return RunSettings(split="", seed=0, **trained).hash

    def _of(self, dataset: str, variant: str) -> dict[str, Any]:
        """What all seeds and splits of a variant on a dataset share."""
        if (dataset, variant) not in self._shared:
            known(dataset, self.config.datasets, "dataset")
            known(variant, self.variants, "method")
            chosen = self.variants[variant]
            if not applies(dataset, chosen):
                raise AmstError(
                    f"{variant} does not apply to {dataset}: it has no such modality",
                    f"{dataset} has {', '.join(sorted(registry.load(dataset).modalities))}",
                )
            own = method_settings(self.config, dataset, chosen)
            modalities = modalities_of(self.config, dataset)
            self._shared[dataset, variant] = {
                "dataset": dataset,
                "variant": variant,
                "method": chosen.method,
                "method_settings": own,
                "modalities": trained_modalities(chosen.method, own, modalities),
                "embedding": embedding_of(self.config, dataset),
                "recipe": recipe_of(self.config, dataset, chosen.recipe),
                "arithmetic": self.config.arithmetic,
            }
        return self._shared[dataset, variant]
