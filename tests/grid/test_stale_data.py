"""A dataset's files that were made with other settings are told by the setting."""

from pathlib import Path
from typing import Any

import pytest

from amst.config.settings import Config
from amst.datasets import registry
from amst.datasets.base import PARTS
from amst.datasets.digits import DigitsSettings
from amst.datasets.splitfile import Split, write_split
from amst.features.fingerprint import features_hash
from amst.features.manifest import Manifest, ShardEntry
from amst.files import write_json
from amst.grid import check_config, features_of
from amst.grid.stale_data import stale_data


def made(config: Config, results: Path, dataset: str, split: str) -> None:
    """The files of a dataset as this configuration has them made; shards themselves are none."""
    settings, features = config.datasets[dataset], features_of(config, dataset)
    if settings.generate is not None:
        values = DigitsSettings(**settings.generate).model_dump(mode="json")
        write_json(results / f"raw/{dataset}/{dataset}.json", {"settings": values})
    reader = registry.load(dataset, settings.options)
    manifest = Manifest(
        dataset=dataset,
        classes=reader.classes,
        modalities=dict(reader.modalities),
        settings=features,
        settings_hash=features_hash(reader, features),
        vocabulary=None,
        listed="",
        shards=[ShardEntry(file=f"{n}.h5", sha256="", samples=1) for n in range(settings.shards)],
        samples=settings.shards,
        rejected=(),
    )
    folder = results / "features" / dataset
    write_json(folder / "manifest.json", manifest.model_dump(mode="json"))
    nothing = {part: [] for part in PARTS}
    cut = Split(dataset=dataset, name=split, seed=settings.split_seed, parts=nothing)
    write_split(folder / f"splits/{split}.json", cut)


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path("results")


@pytest.mark.parametrize(
    ("change", "setting"),
    [
        ({}, ""),
        ({"recipe": {"epochs": 1}}, ""),
        ({"generate": {"samples": 100, "pools": DigitsSettings().pools}}, ""),
        ({"generate": {"samples": 101}}, "generate"),
        ({"shards": 15}, "shards"),
        ({"modalities": {"audio": {"features": {"mel_bins": 24}}}}, "shards"),
        ({"split_seed": 1}, "split_seed"),
    ],
)
def test_the_setting_by_which_files_differ_is_named(
    values: dict[str, Any], results: Path, change: dict[str, Any], setting: str
):
    made(check_config(values), results, "digits", "random")
    values["datasets"]["digits"] |= change
    assert stale_data(check_config(values), results, "digits", "random") == setting


def test_files_are_those_of_the_dataset_that_is_shared_with(values: dict[str, Any], results: Path):
    values["datasets"] |= {"IEMOCAP3": {"raw": "x"}, "IEMOCAP": {"shares": "IEMOCAP3"}}
    split = "group-fold1"
    made(check_config(values), results, "IEMOCAP3", split)
    assert stale_data(check_config(values), results, "IEMOCAP", split) == ""
    values["datasets"]["IEMOCAP3"]["shards"] = 3
    assert stale_data(check_config(values), results, "IEMOCAP", split) == "shards"


@pytest.mark.parametrize("text", [None, "", "[]", "{}"], ids=["lost", "empty", "a list", "a map"])
def test_files_that_are_lost_or_damaged_say_nothing(
    values: dict[str, Any], results: Path, text: str | None
):
    config = check_config(values)
    made(config, results, "digits", "random")
    for path in [path for path in results.rglob("*") if path.is_file()]:
        if text is None:
            path.unlink()
        else:
            path.write_text(text)
    assert stale_data(config, results, "digits", "random") == ""
