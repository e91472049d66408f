"""Which of a dataset's files were made with other settings than the configuration has now."""

import json
from pathlib import Path

from amst.config.settings import Config
from amst.datasets import registry
from amst.datasets.digits import Digits, DigitsSettings
from amst.datasets.splitfile import read_split
from amst.errors import AmstError
from amst.features.fingerprint import features_hash
from amst.features.manifest import read_manifest
from amst.grid.runs import features_of, features_owner, raw_root


def stale_data(config: Config, results: Path, dataset: str, split: str) -> str:
    """The setting by which a dataset's files differ from the configuration; empty if by none.

    A file that is missing or cannot be read says nothing: made again, it is what it was.
    """
    owner = features_owner(config, dataset)
    folder = results / "features" / owner
    checks = {
        "generate": generated_otherwise(config, owner),
        "shards": _stored_otherwise(config, owner, folder / "manifest.json"),
        "split_seed": _cut_otherwise(config, owner, folder / "splits" / f"{split}.json"),
    }
    return next((setting for setting, differs in checks.items() if differs), "")


def generated_otherwise(config: Config, owner: str) -> bool:
    """Whether a dataset's raw files were generated with other settings than it has now."""
    wanted = config.datasets[owner].generate
    if wanted is None:
        return False
    try:
        found = json.loads((raw_root(config, owner) / f"{Digits.name}.json").read_text("utf-8"))
        return DigitsSettings.model_validate(found["settings"]) != DigitsSettings(**wanted)
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _stored_otherwise(config: Config, owner: str, path: Path) -> bool:
    settings = config.datasets[owner]
    try:
        manifest = read_manifest(path)
    except AmstError:
        return False
    reader = registry.load(owner, settings.options)
    wanted = features_hash(reader, features_of(config, owner))
    return len(manifest.shards) != settings.shards or manifest.settings_hash != wanted


def _cut_otherwise(config: Config, owner: str, path: Path) -> bool:
    try:
        return read_split(path).seed != config.datasets[owner].split_seed
    except AmstError:
        return False
