"""Looking at the grid: what is done, what is running or failed, and letting a run try again."""

from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from amst import grid
from amst.cli.configuration import RESULTS, ConfigFiles, Results, configuration
from amst.cli.runs import cell_of
from amst.errors import AmstError
from amst.grid.last_call import LastCall
from amst.records import RECORD, RUN_FILES, read_record
from amst.training import kills
from amst.training.state import State, StateName, state_of

MARKS: dict[StateName, str] = {
    "done": "green",
    "running": "cyan",
    "failed": "red",
    "missing": "dim",
}


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command in (status, retry):
        app.command(rich_help_panel="Grid")(command)


def status(
    runs: Annotated[bool, typer.Option("--runs", help="every run on a line of its own")] = False,
    results: Results = RESULTS,
    configfile: ConfigFiles = None,
) -> None:
    """Show the grid: done, running, failed (with the log) and missing runs."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    config = configuration(configfile)
    cells = grid.cells(config)
    states = {cell: state_of(results, cell.run) for cell in cells}
    console = Console(markup=False, emoji=False)  # errors and paths may hold what looks like it
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("dataset", "split", "method"):
        table.add_column(column, overflow="fold")
    for name in MARKS:
        table.add_column(name, justify="right")
    for row, counts in _by_row(states).items():
        shown = (Text(str(counts[n]), MARKS[n]) if counts[n] else "-" for n in MARKS)
        table.add_row(*row, *shown)
    console.print(table)
    begun = _begun(states, results)
    for cell, state in states.items() if runs else ():
        log = f" {begun[cell]}" if cell in begun else ""
        mark = Text(f"{state.name:<7}", MARKS[state.name])
        console.print(mark, f"{cell.run}{log}", soft_wrap=True)
    total = Counter(state.name for state in states.values())
    console.print(", ".join(f"{total[name]} {name}" for name in MARKS) + f" of {len(cells)} runs")
    for cell, state in states.items():
        if state.name == "failed":
            console.print(Text("failed", "red"), f"{cell.run}: {state.error}", soft_wrap=True)
            told = f"       log: {state.log or 'none'}; again: amst retry {cell.run}"
            console.print(told, soft_wrap=True)
    notes = (
        *_killed(states),
        *_job_that_began(begun),
        *_outdated(config, states, results),
        *grid.left_out(config),
    )
    for line in notes:
        console.print(Text("note", "yellow"), line, soft_wrap=True)


def _by_row(states: dict[grid.Cell, State]) -> dict[tuple[str, str, str], Counter[StateName]]:
    """(Dataset, split, variant) -> how many of its seeds are in each state."""
    rows: dict[tuple[str, str, str], Counter[StateName]] = {}
    for cell, state in states.items():
        rows.setdefault((cell.dataset, cell.split, cell.variant), Counter())[state.name] += 1
    return rows


def _begun(states: dict[grid.Cell, State], results: Path) -> dict[grid.Cell, Path]:
    """Missing runs that saved nothing -> what their newest SLURM job wrote, if one began.

    A job that dies before Python begins, as in the start of the container, leaves nothing else.
    """
    folder, found = results.parent / "logs" / "slurm" / "rule_train", {}
    for cell, state in states.items() if folder.is_dir() else ():
        if state.name == "missing" and not state.saved:
            # as Snakemake's plugin names it
            name = f"{cell.dataset}_{cell.split}_{cell.variant}_{cell.seed}".replace("/", "_")
            logs = list((folder / name).glob("*.log"))
            if logs:
                found[cell] = max(logs, key=lambda log: log.stat().st_mtime)
    return found


def _killed(states: dict[grid.Cell, State]) -> list[str]:
    """One line about missing runs whose attempts were killed, if there are any."""
    killed = [cell.run for cell, state in states.items() if state.killed]
    if not killed:
        return []
    many = "1 missing run was" if len(killed) == 1 else f"{len(killed)} missing runs were"
    return [
        f"{many} {kills.WHY}: {killed[0]}{', ...' if killed[1:] else ''}. The next call continues "
        "what was saved; where memory was too little, with fewer runs at a time (--cores), or more "
        "memory for a job (datasets.*.resources.mem_mb; one of SLURM gets more by itself)"
    ]


def _job_that_began(begun: dict[grid.Cell, Path]) -> list[str]:
    """One line about the newest of the jobs that left a run missing, if there is one."""
    if not begun:
        return []
    cell = max(begun, key=lambda one: begun[one].stat().st_mtime)
    many = "1 missing run has" if len(begun) == 1 else f"{len(begun)} missing runs have"
    when = datetime.fromtimestamp(begun[cell].stat().st_mtime).isoformat(" ", "minutes")
    return [f"{many} a SLURM job that began; {cell.run}: {begun[cell]} ({when})"]


def _outdated(config: grid.Config, states: dict[grid.Cell, State], results: Path) -> list[str]:
    """One line for each finished run that snakemake runs again, as far as its folder tells.

    Those of the last call, which may have had another configuration, share one, and so do those
    that know less settings than this version of the suite.
    """
    resolve, last = grid.Resolver(config), LastCall.of(results).runs
    lines, of_last_call, before_update = [], [], []
    for cell, state in states.items():
        if state.name == "done":
            folder = results / "runs" / cell.run
            try:
                record = read_record(folder / RECORD)
            except AmstError as error:
                if (folder / RECORD).is_file():  # and not started again since its state was read
                    lines.append(str(error))
                continue
            if record.settings_hash == resolve(cell).hash:
                lost = [name for name in RUN_FILES if not (folder / name).is_file()]
                if lost:
                    lines.append(f"{cell.run} has lost {', '.join(lost)}; snakemake runs it again")
                continue
            if record.settings.hash == resolve(cell).hash:
                before_update.append(cell.run)
            elif record.settings_hash == last.get(cell.run):
                of_last_call.append(cell.run)
            else:
                lines.append(f"{cell.run} was made with other settings; snakemake runs it again")
    if before_update:
        lines.append(
            f"{_several(before_update)} done before an update of the suite added settings; "
            "snakemake runs them again"
        )
    if of_last_call:
        lines.append(
            f"{_several(of_last_call)} done with settings of the last call of Snakemake, not of "
            "this configuration: give its --configfile here, too; without it, or where an update "
            "of the suite changed them, snakemake runs them again"
        )
    return lines


def _several(runs: list[str]) -> str:
    """How many runs, and the first of them."""
    many = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
    return f"{many} ({runs[0]}{', ...' if runs[1:] else ''})"


def retry(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="RUN...", help="as `amst status` names them")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="all runs that have failed")] = False,
    results: Results = RESULTS,
) -> None:
    """Let failed runs try again, each from its last checkpoint if it has one."""
    notes = results / "checkpoints"
    failed = {
        path.parent.relative_to(notes).as_posix(): path
        for path in sorted(notes.glob("*/*/*/*/failed.json"))
    }
    if every and runs:
        raise AmstError(f"--all and {runs[0]} are both given", "Give one of them")
    names = list(failed) if every else [cell_of(run).run for run in runs or []]
    if not names and every:
        raise AmstError(f"no run below {notes} has failed")
    if not names:
        raise AmstError("no run is named", "Name runs as `amst status` does, or give --all")
    for name in names:
        if name not in failed:
            raise AmstError(f"{name} has not failed", "See `amst status`")
    for name in dict.fromkeys(names):
        failed[name].unlink(missing_ok=True)
        typer.echo(f"{name} will be tried again by the next snakemake call")
