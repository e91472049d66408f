"""Looking at a cluster from its login node: live jobs, what works here, what can go."""

from pathlib import Path
from typing import Annotated

import typer

from amst.cli.configuration import RESULTS, ConfigFiles, Results, configuration
from amst.config.settings import Config
from amst.errors import AmstError

KINDS = {
    "checkpoints": "checkpoints",
    "parts": "parts of files",
    "unfinished": "unfinished runs, of another --configfile or of none",
    "runs": "runs",
    "features": "features",
    "images": "images",
}
COLOURS = {"ok": "green", "note": "yellow", "fault": "red"}


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command in (doctor, jobs, clean):
        app.command(rich_help_panel="Cluster")(command)


def doctor(
    folder: Annotated[Path, typer.Option(help="working folder to examine")] = Path(),
    configfile: ConfigFiles = None,
) -> None:
    """Examine node, GPU, container, file system and scheduler before anything is submitted.

    The grid's training jobs are tried, too, in a folder with config.yaml. Leaves with 1 where
    something will not work.
    """
    from rich.console import Console
    from rich.text import Text

    from amst.cluster import node, scheduler, storage

    # what is found may hold what looks like markup
    console = Console(markup=False, emoji=False, highlight=False)
    config = configuration(configfile) if configfile or Path("config.yaml").is_file() else None
    compiles = config is not None and config.arithmetic.compile
    built = config is None or not config.container.image
    faults = 0
    for heading, findings in (
        ("This node", node.examine(_image(config, folder), compiles, built)),
        ("This folder", storage.examine(folder)),
        ("SLURM", scheduler.examine(folder, config)),
    ):
        console.print(heading, style="bold")
        for found in findings:
            faults += found.verdict == "fault"
            mark = Text(f"  {found.verdict:<5}", COLOURS[found.verdict])
            console.print(mark, f"{found.about}: {found.text}", soft_wrap=True)
    if faults:
        raise AmstError(f"{faults} of these will not work", "Mend them before you submit")


def _image(config: Config | None, folder: Path) -> Path | None:
    """The image file that jobs use; None where it is fetched by its address."""
    from amst.cluster.image import image_name
    from amst.provenance import SOURCE

    given = config.container.image if config else ""
    if "://" in given:
        return None
    return folder / (given or f"containers/{image_name(SOURCE.parent)}")


def jobs(
    wait: Annotated[bool, typer.Option("--wait", help="until all have ended")] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="end them; runs keep epochs")] = False,
    folder: Annotated[Path, typer.Option(help="working folder of the call")] = Path(),
) -> None:
    """List this folder's live SLURM jobs; wait for them or end them."""
    from amst.cluster import earlier, live

    if wait and cancel:
        raise AmstError("--wait and --cancel exclude each other", "Choose one")
    found = live.live_jobs(folder)
    if not found:
        typer.echo("no jobs of this folder live")
    elif wait:
        earlier.wait(folder)
    elif cancel:
        earlier.cancel(found, folder)
        typer.echo(f"cancelled {len(found)} jobs; finished runs stay, others continue")
    else:
        for job in found:
            typer.echo(str(job))


def clean(
    remove: Annotated[bool, typer.Option("--remove", help="delete what is listed")] = False,
    also: Annotated[
        list[str] | None,
        typer.Option(
            help="unfinished, runs, features or images too; several times; checkpoints and what "
            "killed steps were writing always"
        ),
    ] = None,
    results: Results = RESULTS,
    configfile: ConfigFiles = None,
) -> None:
    """List what no run of the configuration needs, with sizes; delete it only with --remove.

    Runs that the configuration does not know may be those of calls with another one: what they have
    goes only with --also, and what those of the last call have does not go.
    """
    from amst.cluster.image import image_name
    from amst.cluster.leftovers import leftovers, shared
    from amst.grid.last_call import LastCall
    from amst.provenance import SOURCE

    kinds = {"checkpoints", "parts", *(also or ())}
    if unknown := kinds - set(KINDS):
        raise AmstError(f"--also knows no {sorted(unknown)[0]!r}", f"It takes {', '.join(KINDS)}")
    config = configuration(configfile)
    if remove:
        _refuse_while_jobs_live(results.parent)
    images = Path("containers")
    found = leftovers(config, results, images, image_name(SOURCE.parent))
    chosen = [leftover for leftover in found if leftover.kind in kinds]
    for leftover in list(chosen):
        line = f"{leftover.size / 1e6:9.1f} MB  {leftover.path}: {leftover.why}"
        if remove and not leftover.remove(results):
            chosen.remove(leftover)
            line += "; kept, the run has begun or ended meanwhile"
        typer.echo(line)
    verb = "removed" if remove else "can go"
    typer.echo(f"{verb}: {sum(leftover.size for leftover in chosen) / 1e6:.1f} MB")
    for kind in KINDS:
        size = sum(leftover.size for leftover in found if leftover.kind == kind)
        if size and kind not in kinds:
            typer.echo(f"besides: {size / 1e6:.1f} MB of {KINDS[kind]} (--also {kind})")
    for link in shared(results, images):
        typer.echo(f"{link} leads to {link.resolve()}: kept, other working folders may need it")
    if LastCall.of(results).differs(config):
        typer.echo(
            f"the last call had other runs or settings ({results}/grid.json), and what they need "
            "is kept: give its --configfile; or call Snakemake with this configuration first"
        )


def _refuse_while_jobs_live(folder: Path) -> None:
    """A job that starts meanwhile would lose what it continues from."""
    from amst.cluster.live import live_jobs

    if not (folder / "logs" / "slurm").is_dir():
        return
    if jobs := live_jobs(folder):
        raise AmstError(
            f"nothing is removed: {len(jobs)} jobs of this folder live, such as {jobs[0]}",
            "Wait for them (`amst jobs --wait`) or end them (`amst jobs --cancel`)",
        )
