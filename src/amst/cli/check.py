"""Looking at the data before any GPU is booked."""

from pathlib import Path
from typing import Annotated

import typer

from amst import grid
from amst.cli.configuration import RESULTS, ConfigFiles, configuration
from amst.config.settings import Config
from amst.datasets import registry
from amst.features.check import Finding, Wanted, check_dataset, check_models
from amst.grid.messages import known
from amst.grid.unseen import has_no_note
from amst.pretrained import STAGED


def register(app: typer.Typer) -> None:
    """Add this command to the command line."""
    app.command(rich_help_panel="Data")(check_data)


def check_data(
    datasets: Annotated[
        list[str] | None,
        typer.Argument(metavar="[DATASET]...", help="the datasets of the grid unless given"),
    ] = None,
    media: Annotated[
        bool, typer.Option("--media", help="compare raw files with what was extracted, too")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="trust no checksum from an earlier call")
    ] = False,
    configfile: ConfigFiles = None,
) -> None:
    """Verify raw folders, splits, shards and fetched models; say what is missing or wrong.

    Leaves with 1 unless all is there and well; what is lost within the limit is noted. A second
    look takes seconds: a checksum is worked out anew only for a file whose size or time changed.
    """
    config = configuration(configfile)
    for name in datasets or ():
        known(name, config.datasets, "dataset")
    owners = [grid.features_owner(config, name) for name in datasets or config.grid.datasets]
    whole = True
    for name in dict.fromkeys(owners):
        dataset = registry.load(name, config.datasets[name].options)
        found = check_dataset(dataset, _wanted(config, name), media, forget=again)
        _show(name, found)
        whole = whole and _is_well(found)
    if models := grid.models_of(config, datasets or config.grid.datasets):
        found = check_models(models, STAGED, forget=again)
        _show("pretrained models", found)
        whole = whole and _is_well(found)
    raise typer.Exit(0 if whole else 1)


def _wanted(config: Config, name: str) -> Wanted:
    settings = config.datasets[name]
    users = [each for each in config.datasets if grid.features_owner(config, each) == name]
    folder, notes = RESULTS / "features" / name, Path(".snakemake")
    shards = [folder / f"shards/{shard:03d}.h5" for shard in range(settings.shards)]
    unseen = [file for file in (folder / "samples.jsonl", *shards) if has_no_note(file, notes)]
    return Wanted(
        raw=grid.raw_root(config, name),
        folder=folder,
        features=grid.features_of(config, name),
        shards=settings.shards,
        splits=tuple(sorted({split for user in users for split in config.datasets[user].splits})),
        split_seed=settings.split_seed,
        lists=Path(settings.lists) if settings.lists else STAGED / "lists",
        max_lost=settings.max_lost,
        unseen=tuple(unseen),
    )


def _is_well(found: list[Finding]) -> bool:
    return all(finding.state in ("ok", "noted") for finding in found)


def _show(name: str, found: list[Finding]) -> None:
    typer.echo(name)
    for finding in found:
        typer.echo(f"  {finding.state:<8} {finding.text}")
