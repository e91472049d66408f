"""Steps from run records to tables, figures and the report."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from amst import grid
from amst.cli.configuration import RESULTS, ConfigFiles, Results, configuration
from amst.documents import read_document
from amst.errors import AmstError
from amst.grid.messages import known
from amst.grid.planned import PlannedGrid
from amst.results.names import CHECKOUT, FIGURE_NAMES, PUBLISHED, TABLE_NAMES

if TYPE_CHECKING:
    from amst.results.anonymous import Identities
    from amst.results.cells import Collection
    from amst.results.tables import Material

GridFile = Annotated[
    Path | None,
    typer.Option("--grid", dir_okay=False, help="what runs, as results/grid.json; by config.yaml"),
]
Partial = Annotated[
    bool, typer.Option("--partial", help="from what is there; unfinished runs are shown as such")
]
Only = Annotated[
    list[str] | None, typer.Option("--only", help="one of them; may be given several times")
]
Anonymous = Annotated[
    bool,
    typer.Option(
        "--anonymous",
        help="for double-blind review: without hosts, commits, SLURM jobs, times and folders; "
        "stops where a file holds a name of yours",
    ),
]
Ordinary = Annotated[
    list[str] | None,
    typer.Option(
        "--ordinary",
        metavar="NAME",
        help="with --anonymous: do not search for this name of yours, which stands in the results "
        "as an ordinary word; may be given several times",
    ),
]
Published = Annotated[
    Path, typer.Option(dir_okay=False, help="published figures that `reproduction` compares with")
]


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command in (tables, figures, report, export):
        app.command(rich_help_panel="Results")(command)


def collected(planned: dict[str, Any], results: Path, partial: bool, command: str) -> "Collection":
    """The records of a grid's runs, read once, for a command; damaged, outdated runs are told.

    Raises:
        AmstError: a run is not done and ``partial`` is false, or a record is not the run's.
    """
    from amst.grid.last_call import LastCall
    from amst.results.cells import collect, of_last_call
    from amst.results.expected import expected_runs

    methods = {variant["name"]: variant["method"] for variant in planned["variants"]}
    last = LastCall.of(results).runs
    runs = expected_runs(planned["runs"], methods, results, partial, planned["features"], last)
    for run in runs:
        if run.why:
            typer.echo(f"left out: {run.why}", err=True)
    if partial and (earlier := of_last_call(runs)):
        typer.echo(earlier, err=True)
    datasets, names = planned["datasets"], planned["names"]
    return collect(runs, list(methods), names, partial, datasets, f"amst {command}")


def material_of(
    planned: dict[str, Any], results: Path, partial: bool, published: Path, command: str
) -> "Material":
    """What the tables of a grid are made from: all parts of an output rest on one reading.

    Raises:
        AmstError: as of ``collected``, or there is no such file of published figures.
    """
    from amst.results.tables import Material

    figures = figures_to_compare(published)
    collection = collected(planned, results, partial, command)
    samples = lists_of_samples(planned, results)
    finished = {run.dataset for run in collection.finished}
    for dataset, owner in planned["features"].items():
        if dataset in finished and dataset not in samples:
            path = results / "features" / owner / "samples.jsonl"
            typer.echo(
                f"{path} is missing: p and intervals of {dataset} are made from single test "
                f"samples, whatever their groups. Make it again: snakemake {path}",
                err=True,
            )
    return Material(collection, samples, figures, metric=planned["metric"])


def runs_in(collection: "Collection") -> str:
    """What an output was made of: ``2 of 3 runs``."""
    return f"{len(collection.finished)} of {len(collection.runs)} runs"


def planned_grid(file: Path | None, configfile: list[Path] | None) -> dict[str, Any]:
    """What runs: as the workflow wrote it down, or by the configuration."""
    if file is not None:
        remedy = (
            "Make it: snakemake results/grid.json; that of a bundle is read by a checkout of the "
            "commit that its README.md names"
        )
        return read_document(file, PlannedGrid, "grid", remedy).model_dump()
    return grid.as_dict(configuration(configfile))


def figures_to_compare(published: Path) -> Path | None:
    """The published figures; None where the package runs without its checkout, which has them.

    Raises:
        AmstError: the file was named by the user and is not there.
    """
    if published.is_file():
        return published
    if published != PUBLISHED:
        raise AmstError(
            f"--published: there is no file {published}",
            "Name a CSV of published figures, or leave the option out",
        )
    return None


def chosen(only: list[str] | None, names: Sequence[str]) -> Sequence[str]:
    """The names given with ``--only``, all where none is.

    Raises:
        AmstError: one of them is unknown.
    """
    for name in only or ():
        known(name, names, "--only")
    return only or names


def lists_of_samples(planned: dict[str, Any], results: Path) -> dict[str, Path]:
    """Dataset -> its ``samples.jsonl``, where there is one: of a working folder, or of a bundle."""
    found: dict[str, Path] = {}
    for name, owner in planned["features"].items():
        for folder in ("features", "data"):
            path = results / folder / owner / "samples.jsonl"
            if path.is_file():
                found.setdefault(name, path)
    return found


def tables(
    planned: GridFile = None,
    published: Published = PUBLISHED,
    partial: Partial = False,
    only: Only = None,
    out: Annotated[Path | None, typer.Option(help="folder of the tables")] = None,
    results: Results = RESULTS,
    configfile: ConfigFiles = None,
) -> None:
    """Merge the run records into tables: CSV, Markdown, LaTeX and HTML."""
    from amst.results.tables import write_tables

    names = chosen(only, TABLE_NAMES)
    what = planned_grid(planned, configfile)
    material = material_of(what, results, partial, published, "tables")
    folder = out or (results / "tables" / "partial" if partial else results / "tables")
    written = write_tables(material, folder, names)
    typer.echo(f"{len(written)} files in {folder}, from {runs_in(material.collection)}")
    if not (partial or only or out):
        clear(folder / "partial")


def figures(
    planned: GridFile = None,
    partial: Partial = False,
    only: Only = None,
    out: Annotated[Path | None, typer.Option(help="folder of the figures")] = None,
    results: Results = RESULTS,
    configfile: ConfigFiles = None,
) -> None:
    """Draw the figures of every dataset: PDF and PNG."""
    from amst.results.figures import write_figures

    names = chosen(only, FIGURE_NAMES)
    collection = collected(planned_grid(planned, configfile), results, partial, "figures")
    folder = out or (results / "figures" / "partial" if partial else results / "figures")
    written = write_figures(collection, folder, names)
    typer.echo(f"{len(written)} files in {folder}")
    if not (partial or only or out):
        clear(folder / "partial")


def report(
    planned: GridFile = None,
    published: Published = PUBLISHED,
    partial: Partial = False,
    anonymous: Anonymous = False,
    ordinary: Ordinary = None,
    out: Annotated[
        Path | None, typer.Option(dir_okay=False, help="the report, one HTML file")
    ] = None,
    results: Results = RESULTS,
    configfile: ConfigFiles = None,
) -> None:
    """Write the report: tables, figures, data, settings, environment and runs in one HTML file."""
    from amst.results.report import write_report

    what = planned_grid(planned, configfile)
    material = material_of(what, results, partial, published, "report")
    whose = "-anonymous" if anonymous else ""
    page = out or results / f"report{'-partial' if partial else ''}{whose}.html"
    data = {
        owner: results / "features" / owner / "report.html"
        for owner in sorted(set(what["features"].values()))
    }
    write_report(
        material,
        page,
        left_out=what["left_out"],
        data_reports={name: path for name, path in data.items() if path.is_file()},
        anonymous=identities(material, anonymous, ordinary),
    )
    typer.echo(f"{page}, from {runs_in(material.collection)}")
    if not (partial or out):
        clear(results / f"report-partial{whose}.html")


def export(
    out: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE",
            help="the bundle, a .tar.gz; results/export.tar.gz (export-anonymous.tar.gz) unless "
            "given",
        ),
    ] = None,
    planned: GridFile = None,
    published: Published = PUBLISHED,
    partial: Partial = False,
    weights: Annotated[bool, typer.Option("--weights", help="with the weights of runs")] = False,
    anonymous: Anonymous = False,
    ordinary: Ordinary = None,
    results: Results = RESULTS,
    configfile: ConfigFiles = None,
) -> None:
    """Bundle records, predictions, tables, figures and settings for an archive, with checksums."""
    from amst.results.bundle import write_bundle
    from amst.results.bundle_readme import runs_of_edited_code

    out = out or results / f"export{'-anonymous' if anonymous else ''}.tar.gz"
    # what stands before it is the folder that the bundle unpacks to
    if not out.name.endswith(".tar.gz") or not out.name.removesuffix(".tar.gz").strip("."):
        raise AmstError(f"{out} is no .tar.gz", "Name a file that ends in .tar.gz")
    what = planned_grid(planned, configfile)
    material = material_of(what, results, partial, published, "export")
    settings = files_of_settings(what, planned, configfile)
    tell_of_absent_data(material.collection, what, results)
    others = files_besides(what, results, settings, published)
    hidden = identities(material, anonymous, ordinary)
    count = write_bundle(material, out, weights=weights, others=others, anonymous=hidden)
    typer.echo(f"{out}: {count} files of {runs_in(material.collection)}")
    if edited := runs_of_edited_code(material.collection):
        typer.echo(
            f"note: {edited} of its runs were made by a checkout with changes that were not "
            "committed, and the bundle does not hold them: nobody else can make these runs again",
            err=True,
        )


def identities(
    material: "Material", anonymous: bool, ordinary: list[str] | None
) -> "Identities | None":
    """What an anonymous output must not hold; names that are not searched for are told."""
    if not anonymous:
        if ordinary:
            raise AmstError("--ordinary is of --anonymous only", "Give that, too, or leave it out")
        return None
    from amst.results.anonymous import Identities

    found = Identities.of(material.collection, ordinary or ())
    if found.ordinary:
        names = ", ".join(f"{name!r} ({found.kinds[name]})" for name in found.ordinary)
        typer.echo(f"note: not searched for, as ordinary text may hold it: {names}", err=True)
    if not shutil.which("git"):
        said = "note: there is no git here: names and remotes that it has are not searched for"
        typer.echo(said, err=True)
    return found


def files_of_settings(
    planned: dict[str, Any], file: Path | None, configfile: list[Path] | None
) -> list[Path]:
    """The files of the configuration; none where it is not the one that planned a grid's file.

    Raises:
        AmstError: the configuration with files named by the user is not that one.
    """
    files = [Path("config.yaml"), *(configfile or ())]
    if file is None:
        return files
    try:
        own = json.loads(_json(grid.as_dict(configuration(configfile))))
        why = "" if planned == own else "the configuration plans another grid"
    except AmstError as error:
        if configfile:
            raise
        why = error.message
    if not why:
        return files
    remedy = f"Give the --configfile that {file} was planned with"
    if configfile:
        raise AmstError(f"{file}: {why}", f"{remedy}, or none, for a bundle without these files")
    typer.echo(f"left out: the files of the configuration: {why}. {remedy}", err=True)
    return []


def tell_of_absent_data(collection: "Collection", planned: dict[str, Any], results: Path) -> None:
    """Name manifests and splits of finished runs that are not there: a purge took them, say."""
    wanted: dict[Path, None] = {}
    for run in collection.finished:
        folder = results / "features" / planned["features"][run.dataset]
        files = folder / "manifest.json", folder / "splits" / f"{run.split}.json"
        wanted |= dict.fromkeys(files)
    for path in wanted:
        if not path.is_file():
            typer.echo(f"left out: {path} is missing. Make it again: snakemake {path}", err=True)


def files_besides(
    planned: dict[str, Any], results: Path, settings: list[Path], published: Path
) -> dict[str, Path | bytes]:
    """What an archive needs besides records and results: path in the bundle -> file or content.

    Settings as written, what they plan, published figures, how to cite, the pinned packages; of the
    data the manifest, the splits and the label and group of each sample, which name samples and
    show none, since many datasets may not be passed on.
    """
    from amst.results.comparison import rows_of

    found = {f"settings/{number}-{file.name}": file for number, file in enumerate(settings)}
    found |= {
        "reference/published.csv": published,
        "CITATION.cff": CHECKOUT / "CITATION.cff",
        "LICENSE": CHECKOUT / "LICENSE",
        "requirements.txt": CHECKOUT / "containers" / "requirements.txt",
    }
    for owner in set(planned["features"].values()):
        folder = results / "features" / owner
        found[f"data/{owner}/manifest.json"] = folder / "manifest.json"
        for split in folder.glob("splits/*.json"):
            found[f"data/{owner}/splits/{split.name}"] = split
    samples = {
        f"data/{planned['features'][name]}/samples.jsonl": _json_lines(rows_of(path))
        for name, path in lists_of_samples(planned, results).items()
    }
    there = {name: path for name, path in found.items() if path.is_file()}
    return {**there, **samples, "settings/grid.json": _json(planned)}


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _json_lines(rows: list[dict[str, str]]) -> bytes:
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows).encode()


def clear(partial: Path) -> None:
    """Remove what was made of unfinished runs, once there is the whole.

    What cannot be removed is told, and is no failure: Snakemake would delete the whole, too.
    """
    if not partial.exists():
        return
    try:
        shutil.rmtree(partial) if partial.is_dir() else partial.unlink()
    except OSError as error:  # of another user, or another command writes it now
        if partial.exists():
            typer.echo(f"note: {partial} is of unfinished runs, and stays ({error})", err=True)
            return
    typer.echo(f"{partial} removed: it was of unfinished runs, and all are done")
