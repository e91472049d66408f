"""Bringing everything that comes over the network into one folder: models and published lists."""

from pathlib import Path
from typing import Annotated

import typer

from amst import grid, staging
from amst.cli.configuration import ConfigFiles, configuration
from amst.config.settings import Config
from amst.datasets import lists, registry
from amst.grid.messages import known
from amst.pretrained import STAGED

Out = Annotated[Path, typer.Option(help="folder of everything that is fetched")]
Hub = Annotated[str, typer.Option(envvar="HF_ENDPOINT", help="base address of the model hub")]
Dataset = Annotated[str, typer.Argument(metavar="DATASET", help="name of the dataset")]


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command in (fetch, fetch_lists, fetch_model):
        app.command(rich_help_panel="Data")(command)


def fetch(
    datasets: Annotated[
        list[str] | None,
        typer.Argument(metavar="[DATASET]...", help="the datasets of the grid unless given"),
    ] = None,
    out: Out = STAGED,
    hub: Hub = staging.HUB,
    source: Annotated[str, typer.Option(help="base address of the lists")] = lists.SOURCE,
    configfile: ConfigFiles = None,
) -> None:
    """Fetch all that compute nodes need, checked: tokenizers, weights, lists. Needs the network.

    Called again it continues where it stopped, and fetches nothing that is there as it should be.
    """
    config = configuration(configfile)
    names = tuple(dict.fromkeys(datasets or config.grid.datasets))
    for name in names:
        known(name, config.datasets, "dataset")
    models, listed = grid.models_of(config, names), _with_lists(config, names)
    if not (models or listed):
        typer.echo(f"nothing to fetch for {', '.join(names)}")
    for model in models:
        typer.echo(f"{staging.fetch_model(model, out, hub)}: as expected")
    for name in listed:
        for path in staging.fetch_lists(name, out / "lists", source):
            typer.echo(f"{path}: as published")


def _with_lists(config: Config, names: tuple[str, ...]) -> list[str]:
    """Datasets of which a split is read from published lists that no local folder holds."""
    owners = {grid.features_owner(config, n) for n in names if "amst" in config.datasets[n].splits}
    needing = owners & set(lists.LISTS)
    return sorted(owner for owner in needing if not config.datasets[owner].lists)


def fetch_lists(
    dataset: Dataset,
    out: Annotated[Path, typer.Option(help="folder of all datasets' lists")] = STAGED / "lists",
) -> None:
    """Fetch the published lists of the split 'amst' and check them. Needs the network."""
    known(dataset, registry.names(), "dataset")
    if dataset not in lists.LISTS:
        typer.echo(f"{dataset} needs no published list")
    for path in staging.fetch_lists(dataset, out):
        typer.echo(f"{path}: as published")


def fetch_model(
    model: Annotated[str, typer.Argument(help="name of the model on the hub")],
    out: Out = STAGED,
    hub: Hub = staging.HUB,
) -> None:
    """Fetch tokenizer and weights of one pretrained model and check them. Needs the network."""
    typer.echo(f"{staging.fetch_model(model, out, hub)}: as expected")
