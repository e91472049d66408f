"""Every run of the grid with its state and where its numbers come from."""

from amst.results.cells import Collection, Run
from amst.results.sheet import Block, Entry, Table, Value
from amst.results.tables.entries import origins

FROM_ENVIRONMENT = (
    "suite_version",
    "commit",
    "code_digest",
    "package_digest",
    "container_digest",
    "python",
    "host",
    "device",
    "slurm_job",
)
COLUMNS = (
    *("dataset", "split", "variant", "seed", "state", "method", "settings_hash"),
    *FROM_ENVIRONMENT,
    *("started", "finished", "attempts", "adopted", "record", "why"),
)


def runs_table(collection: Collection) -> Table:
    """One row per expected run."""
    blocks = []
    for dataset, split in collection.blocks:
        rows = [
            _readers_row(collection, run, cell.records.get(run.seed) is not None)
            for cell in collection.block(dataset, split)
            for run in cell.runs
        ]
        blocks.append(Block(collection.title(dataset, split), tuple(rows)))
    return Table(
        name="runs",
        caption="Every run of the grid and its state.",
        columns=COLUMNS,
        rows=tuple(_tidy(collection)),
        heads=("", "seed", "state"),
        blocks=tuple(blocks),
        notes=(),
        origins=origins(collection.cells),
        beside=(
            "runs.csv has settings hash, commit, code and image digests, host and times of each, "
            "and what is wrong with a damaged or outdated one.",
        ),
    )


def _tidy(collection: Collection) -> list[dict[str, Value]]:
    rows = []
    for cell in collection.cells:
        for run in cell.runs:
            row: dict[str, Value] = {
                "dataset": run.dataset,
                "split": run.split,
                "variant": run.variant,
                "seed": run.seed,
                "state": run.state,
                "why": run.why or None,
            }
            record = cell.records.get(run.seed)
            if record is not None:
                environment = record.environment.model_dump()
                row |= {name: environment[name] for name in FROM_ENVIRONMENT}
                row |= {
                    "method": record.settings.method,
                    "settings_hash": record.settings_hash,
                    "started": record.started,
                    "finished": record.finished,
                    "attempts": record.cost.attempts,
                    "adopted": "; ".join(record.adopted),
                    "record": f"{run.id}/run.json",
                }
            rows.append(row)
    return rows


def _readers_row(collection: Collection, run: Run, done: bool) -> tuple[Entry, ...]:
    runs = (run.id,) if done else ()
    texts = (collection.label(run.variant), str(run.seed), run.state)
    return tuple(Entry(text, runs=runs if text == run.state else ()) for text in texts)
