"""What several commands need of the configuration: the files it is read from, values as JSON."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from amst import grid
from amst.config.settings import Config, DatasetSettings
from amst.errors import AmstError
from amst.grid.messages import known

ConfigFiles = Annotated[
    list[Path] | None,
    typer.Option("--configfile", help="merged over config.yaml; may be given several times"),
]
Results = Annotated[Path, typer.Option("--results", help="folder that the workflow writes to")]
RESULTS = Path("results")


def configuration(files: list[Path] | None) -> Config:
    """config.yaml of the working directory with the given files merged over it."""
    return grid.read_config(Path("config.yaml"), *(files or ()))


def dataset_settings(dataset: str, files: list[Path] | None) -> DatasetSettings:
    """What the configuration says of a dataset.

    Raises:
        AmstError: it defines no such dataset.
    """
    datasets = configuration(files).datasets
    known(dataset, datasets, "dataset")
    return datasets[dataset]


def from_json(text: str, option: str) -> Any:
    """The value of an option given as JSON.

    Raises:
        AmstError: it is not JSON.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise AmstError(f"{option} is not JSON ({error}): {text[:80]}") from error
