"""What a call of Snakemake would train and what it would cost; declaring finished runs valid."""

import shlex
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from amst import grid
from amst.cli.configuration import RESULTS, ConfigFiles, Results, configuration
from amst.cli.forecast import Hours, encoders, mean_hours, scaled_hours
from amst.cli.runs import cell_of
from amst.cli.space import samples_by_dataset, space_of
from amst.cli.space import table as table_of_space
from amst.config.run import RunSettings
from amst.errors import AmstError
from amst.grid.adoptions import Adoptions
from amst.grid.stale_data import stale_data
from amst.provenance import package_digest, present_digest, training_digest, with_packages
from amst.records import RUN_FILES, RunRecord, read_record, write_record
from amst.training.kept import unseen
from amst.training.state import run_digest, state_of


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command in (plan, adopt):
        app.command(rich_help_panel="Grid")(command)


@dataclass(frozen=True)
class Planned:
    """One run of the grid.

    Attributes:
        why: why Snakemake would train it; empty when it would not.
        hours: what training it is expected to take; None when nothing like it was measured.
        like: whether the hours are those of other variants of its method.
        scaled: whether they are those of the same method on another dataset, by samples.
        kind: what a run must have in common with it to tell its hours: method and encoders.
        begins_anew: whether an attempt has saved states of it, and none that it continues from.
    """

    cell: grid.Cell
    why: str
    hours: float | None
    like: bool
    scaled: bool = False
    kind: tuple[str, tuple[str, ...]] = ("", ())
    begins_anew: bool = False


def plan_of(config: grid.Config, results: Path) -> list[Planned]:
    """What would be trained, run by run, from the records that are there."""
    resolve = grid.Resolver(config)
    records = {cell: _undamaged(results, cell) for cell in grid.cells(config)}
    measured = _hours_of_epochs(record for record in records.values() if record)
    samples = samples_by_dataset(config, results)
    elsewhere = scaled_hours((record for record in records.values() if record), samples)
    adoptions = Adoptions(results)
    planned = []
    for cell, record in records.items():
        settings = resolve(cell)
        state, data = state_of(results, cell.run), _data_of(config, results, settings)
        why: str = state.name
        if record is None and why == "done":
            why = "damaged"
        if record is not None:
            why = _outdated(record, settings, adoptions, data)
            why = why or _data_changed(config, results, record, data)
            why = why or _lost(results / "runs" / cell.run)
        own = measured.get((cell.dataset, "variant", cell.variant))
        hours = own or measured.get((cell.dataset, "method", settings.method))
        like, kind = own is None and hours is not None, (settings.method, encoders(settings))
        scaled = hours is None and kind in elsewhere and cell.dataset in samples
        if scaled:
            hours = elsewhere[kind].times(samples[cell.dataset])
        whole = hours.of(settings.recipe.epochs) if hours else None
        anew = state.saved and not _continues(results, settings, data)
        planned.append(Planned(cell, why, whole, like, scaled, kind, anew))
    return planned


def _outdated(
    record: RunRecord, settings: RunSettings, adoptions: Adoptions, data: tuple[Path, Path]
) -> str:
    """Why a finished run would be trained again; empty when it would not."""
    if why := _set_otherwise(record, settings):
        return why
    present = with_packages(training_digest(settings.method))
    counts_as = adoptions.made_by(settings.run_id, settings.hash, present, data)
    if record.environment.made_by == counts_as:
        return ""
    same = record.environment.package_digest == package_digest()
    return "code changed" if same else "packages changed"


def _set_otherwise(record: RunRecord, settings: RunSettings) -> str:
    """Why a run would be trained again for its settings; empty when it would not."""
    if record.settings_hash == settings.hash:
        return ""
    # what the record does not state has its default when it is read
    same = record.settings.hash == settings.hash
    return "settings added by an update" if same else "settings changed"


def _data_changed(
    config: grid.Config, results: Path, record: RunRecord, data: tuple[Path, Path]
) -> str:
    """Why a run would be trained again for its data, as configured or as they lie there now."""
    settings, made = record.settings, record.environment
    stale = stale_data(config, results, settings.dataset, settings.split)
    if stale:
        return f"data changed ({stale})"
    if not all(file.is_file() for file in data):
        return ""  # made again, they are what they were
    now = run_digest(record.settings_hash, made.code_digest, made.package_digest, *data)
    return "" if now == record.digest else "data changed"


def _continues(results: Path, settings: RunSettings, data: tuple[Path, Path]) -> bool:
    """Whether a run goes on from a state that is saved, as far as its data tell."""
    if not all(file.is_file() for file in data):
        return True  # made again, they are what they were
    folder = results / "checkpoints" / settings.run_id / present_digest(settings, data[0].parent)
    return any(folder.glob("epoch-*.pt"))


def _lost(folder: Path) -> str:
    """Why a finished run would be trained again for what its folder has lost, as by a purge."""
    return "" if all((folder / name).is_file() for name in RUN_FILES) else "files missing"


def _data_of(config: grid.Config, results: Path, settings: RunSettings) -> tuple[Path, Path]:
    """Manifest and split file of a run, there or not."""
    folder = results / "features" / grid.features_owner(config, settings.dataset)
    return folder / "manifest.json", folder / "splits" / f"{settings.split}.json"


def _record(results: Path, cell: grid.Cell) -> RunRecord | None:
    path = results / "runs" / cell.run / "run.json"
    return read_record(path) if path.is_file() else None


def _undamaged(results: Path, cell: grid.Cell) -> RunRecord | None:
    try:
        return _record(results, cell)
    except AmstError as error:
        typer.echo(f"left out: {error}", err=True)
        return None


def _hours_of_epochs(records: Iterable[RunRecord]) -> dict[tuple[str, str, str], Hours]:
    """Mean hours of one epoch and of the end.

    Keys are (dataset, 'variant', name), and (dataset, 'method', name) for variants that never ran:
    a method's variants may differ much, as one modality does from another.
    """
    found: dict[tuple[str, str, str], list[Hours]] = {}
    for record in records:
        settings = record.settings
        for key in (
            (settings.dataset, "variant", settings.variant),
            (settings.dataset, "method", settings.method),
        ):
            found.setdefault(key, []).append(Hours.measured(record))
    return {key: mean_hours(values) for key, values in found.items()}


def plan(
    runs: Annotated[bool, typer.Option("--runs", help="every run on a line of its own")] = False,
    jobs: Annotated[int, typer.Option(min=1, help="runs that train at a time")] = 200,
    results: Results = RESULTS,
    configfile: ConfigFiles = None,
) -> None:
    """Show what would be trained, why, the hours it should take, and the disk the grid takes."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    config = configuration(configfile)
    planned = plan_of(config, results)
    console = Console(markup=False, emoji=False)  # paths may hold what looks like it
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("dataset", "method", "runs", "hours", "why"):
        justify: Literal["left", "right"] = "right" if column in ("runs", "hours") else "left"
        table.add_column(column, justify=justify, overflow="fold")
    rows: dict[tuple[str, str], list[Planned]] = {}
    for one in planned:
        if one.why:
            rows.setdefault((one.cell.dataset, one.cell.variant), []).append(one)
    for (dataset, variant), members in rows.items():
        why = ", ".join(f"{n} {why}" for why, n in Counter(one.why for one in members).items())
        table.add_row(dataset, variant, str(len(members)), _hours(members), why)
    if rows:
        console.print(table)
    todo = [one for one in planned if one.why]
    console.print(f"{len(todo)} of {len(planned)} runs to train: {_hours(todo)} hours in all")
    for line in _about_hours(todo, configfile or []):
        console.print(line, soft_wrap=True)
    for line in (*_about_work_done(todo), *grid.left_out(config), *grid.trained_alike(config)):
        console.print(Text("note", "yellow"), line, soft_wrap=True)
    console.print()
    for line in table_of_space(space_of(config, results, jobs)):
        console.print(line, soft_wrap=True, highlight=False)
    free = shutil.disk_usage(results if results.is_dir() else Path()).free
    console.print(f"{free / 1e9:.0f} GB are free here", soft_wrap=True, highlight=False)
    if runs:
        for one in todo:
            console.print(f"  {one.cell.run}: {one.why}", soft_wrap=True)


def _hours(planned: list[Planned]) -> str:
    """Expected hours of runs.

    '?' where none was measured, '+' where some were not, '~' by other variants or another dataset.
    """
    known = [one.hours for one in planned if one.hours is not None]
    if planned and not known:
        return "?"
    about = "~" if any(one.like or one.scaled for one in planned) else ""
    return f"{about}{sum(known):.2f}" + ("+" if len(known) < len(planned) else "")


def _about_work_done(todo: list[Planned]) -> Iterator[str]:
    """What was trained and is not taken over, as after an update, and what can be done."""
    changed = sum(one.why in ("code changed", "packages changed") for one in todo)
    if changed:
        yield (
            f"{changed} finished {'run was' if changed == 1 else 'runs were'} trained by other "
            "code or packages: snakemake trains anew in the place of each, unless `amst adopt` "
            "declares it valid (docs/two-configurations.md says how to find out)"
        )
    anew = [one.cell.run for one in todo if one.begins_anew]
    if anew:
        yield (
            f"{len(anew)} unfinished {'run has' if len(anew) == 1 else 'runs have'} saved states "
            f"of other settings, code, packages or data only ({anew[0]}"
            f"{', ...' if anew[1:] else ''}): trained from the first epoch"
        )


def _about_hours(todo: list[Planned], configfile: list[Path]) -> Iterator[str]:
    """What '~' means, and how to get hours where there are none."""
    if any(one.like for one in todo):
        yield "~ as measured on other variants of the same method"
    if any(one.scaled for one in todo):
        yield "~ by the same method and encoders on another dataset, samples x epochs"
    first: dict[tuple[str, tuple[str, ...]], str] = {}
    for one in todo:
        if one.hours is None:
            first.setdefault(one.kind, one.cell.run)
    if first:
        words = [f"results/runs/{run}/run.json" for run in list(first.values())[:3]]
        if configfile:
            words += ["--configfile", *map(str, configfile)]
        yield (
            "? no run of this grid with this method and these encoders is done: train "
            f"{len(first)} first, one of each kind, and plan again; for example snakemake "
            f"{shlex.join(words)}"
        )


def adopt(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="finished runs")],
    reason: Annotated[str, typer.Option(help="why the change cannot have changed them")],
    results: Results = RESULTS,
    configfile: ConfigFiles = None,
) -> None:
    """Declare finished runs valid under changed code or packages; record and tables say so."""
    if not reason.strip():
        raise AmstError("--reason is empty", "Say why the change cannot have changed the runs")
    config = configuration(configfile)
    resolve, adoptions = grid.Resolver(config), Adoptions(results)
    not_seen = set(unseen(results.parent))
    changed: dict[grid.Cell, tuple[RunRecord, RunRecord]] = {}
    for run in runs:
        cell = cell_of(run)
        record = _record(results, cell)
        if record is None:
            raise AmstError(f"{cell.run} has not finished", "Only finished runs can be adopted")
        if cell.run in not_seen:
            raise AmstError(
                f"no call of Snakemake has seen the end of {cell.run}: the next one trains it anew",
                "Call one with the code that it was made with, and adopt it then",
            )
        settings = resolve(cell)
        data = _data_of(config, results, settings)
        why = _set_otherwise(record, settings) or _data_changed(config, results, record, data)
        if why:
            raise AmstError(
                f"{cell.run} would be trained anew all the same: {why}",
                "Only changed code or packages can be adopted",
            )
        digest = training_digest(settings.method)
        made, present = record.environment.made_by, with_packages(digest)
        if made == present:
            typer.echo(f"{cell.run}: code and packages are those it was made with")
            continue
        other = record.environment.package_digest != package_digest()
        what = f"code {digest}" + (f", packages {package_digest()}" if other else "")
        said = dict.fromkeys((*record.adopted, f"{what}: {reason.strip()}"))
        changed[cell] = record, record.model_copy(update={"adopted": tuple(said)})
        adoptions.add(cell.run, made, present)
    for cell, (read, _) in changed.items():
        if _record(results, cell) != read:
            raise AmstError(f"the record of {cell.run} was changed meanwhile", "Call it again")
    for cell, (_, adopted) in changed.items():
        write_record(results / "runs" / cell.run / "run.json", adopted)
    adoptions.save()
    for cell in changed:
        typer.echo(f"{cell.run}: adopted")
