"""Training single runs."""

import os
import re
from pathlib import Path
from typing import Annotated

import typer

from amst import grid
from amst.cli.configuration import RESULTS, ConfigFiles, Results, configuration, from_json
from amst.cluster.allocation import deadline
from amst.cluster.image import noted_digest
from amst.cluster.slots import place
from amst.cluster.snapshot import CodeOfCall
from amst.config.run import RunSettings
from amst.errors import AmstError
from amst.grid.messages import validated
from amst.provenance import (
    COMMIT,
    commit,
    package_digest,
    pinned_packages,
    training_digest,
)
from amst.training import kills
from amst.training.execution import Execution
from amst.training.signals import listening

RunName = Annotated[
    str, typer.Argument(metavar="RUN", help="dataset/split/variant/seed<k>, as below results/runs")
]


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command(rich_help_panel="Runs")(train)


def train(
    run: RunName,
    settings: Annotated[
        str | None, typer.Option(help="resolved settings as JSON; by config.yaml unless given")
    ] = None,
    manifest: Annotated[
        Path | None, typer.Option(dir_okay=False, help="manifest of the dataset")
    ] = None,
    split: Annotated[Path | None, typer.Option(dir_okay=False, help="the split file")] = None,
    execution: Annotated[
        str | None,
        typer.Option(
            envvar="AMST_EXECUTION", help="section execution as JSON; by config.yaml unless given"
        ),
    ] = None,
    log: Annotated[str, typer.Option(help="where the output goes, for `amst status`")] = "",
    results: Results = RESULTS,
    configfile: ConfigFiles = None,
) -> None:
    """Train one run, or continue it where an earlier attempt left off.

    Leaves with 75 when it was asked to stop and has saved its state: the same command continues.
    """
    resolved = run_settings(run, settings, configfile)
    run = resolved.run_id  # it may have been named by its folder
    owner = resolved.dataset
    if manifest is None or split is None:
        owner = grid.features_owner(configuration(configfile), resolved.dataset)
    features = results / "features" / owner
    if execution is None:
        how = configuration(configfile).execution.model_dump()
        # a call of Snakemake that lives and has yet to start this run deletes its files then
        how["keep"] = any((results.parent / ".snakemake" / "locks").glob("*.lock"))
    else:
        how = validated(Execution, from_json(execution, "--execution"), "--execution").model_dump()
    # a job of a call on this host is no Snakemake of its own, which would look
    method = resolved.method
    CodeOfCall(is_job=True).same(f"training {method}", lambda: training_digest(method))
    place(resolved.dataset, how.get("device", "auto"))
    # after the wait for a slot, which takes from the time that is left
    how["deadline"] = deadline(how.get("deadline", 0))
    checkpoints = results / "checkpoints" / run
    # from here on: importing torch takes seconds, and memory
    with listening() as stop, kills.counted(checkpoints, stop):
        from amst.training.run import train as train_run

        record = train_run(
            resolved,
            manifest or features / "manifest.json",
            split or features / "splits" / f"{resolved.split}.json",
            results / "runs" / run,
            checkpoints,
            execution_of(resolved, how, log),
        )
    shown = record.metrics(record.main)
    typer.echo(f"{run}: test accuracy {100 * shown.accuracy:.1f} % ({record.main})")


def run_settings(
    run: str, settings: str | None, configfile: list[Path] | None = None
) -> RunSettings:
    """Settings of a run: as given, or resolved by the configuration.

    Raises:
        AmstError: the name is not that of a run, or not of the run that the settings are of.
    """
    if settings is not None:
        given = validated(RunSettings, from_json(settings, "--settings"), "--settings")
        if given.run_id != run:
            raise AmstError(f"--settings are those of {given.run_id}, not of {run}")
        return given
    return grid.Resolver(configuration(configfile))(cell_of(run))


def cell_of(run: str) -> grid.Cell:
    """The run that a name such as digits/random/naive/seed0 stands for.

    Raises:
        AmstError: it is no such name.
    """
    parts = run.strip("/").removeprefix("results/runs/").split("/")
    if len(parts) != 4 or not re.fullmatch("(seed)?[0-9]+", parts[3]):
        raise AmstError(
            f"{run!r} is not the name of a run", "A run is called dataset/split/variant/seed<k>"
        )
    dataset, split, variant, seed = parts
    return grid.Cell(dataset, split, variant, int(seed.removeprefix("seed")))


def execution_of(settings: RunSettings, how: dict[str, object], log: str = "") -> Execution:
    """How this process executes a run, with the digests that its record keeps."""
    return Execution.model_validate(
        {
            **how,
            "commit": os.environ.get(COMMIT) or commit(),
            "container_digest": noted_digest(),
            "code_digest": training_digest(settings.method),
            "package_digest": package_digest(),
            "packages": tuple(pinned_packages()),
            "log": log,
        }
    )
