"""How much each modality contributes to the prediction: Shapley values over their subsets."""

from amst.results.cells import Cell, Collection
from amst.results.sheet import Block, Entry, Table, Value
from amst.results.statistics import Summary, summarise
from amst.results.tables.entries import (
    COUNTS,
    IDENTITY,
    NOTHING,
    SPREAD,
    counts,
    identity,
    mean_entry,
    modalities_of,
    origins,
    spread,
)

COLUMNS = (*IDENTITY, "quantity", "modalities", "part", *SPREAD, *COUNTS)


def balance_table(collection: Collection) -> Table:
    """Shapley contribution of each modality, and the accuracy of every subset of modalities."""
    modalities = modalities_of(collection.cells)
    blocks = []
    for dataset, split in collection.blocks:
        cells = collection.block(dataset, split)
        body = tuple(_readers_row(collection, cell, modalities) for cell in cells)
        blocks.append(Block(collection.title(dataset, split), body))
    return Table(
        name="balance",
        caption="Shapley contribution of each modality to the test accuracy of the fused "
        "prediction at the epoch with the highest validation accuracy, in percentage points: "
        "mean ± standard deviation over seeds (number of seeds).",
        columns=COLUMNS,
        rows=tuple(row for cell in collection.cells for row in _tidy(cell)),
        heads=("", "fused", *modalities),
        blocks=tuple(blocks),
        notes=(
            "The contributions of a variant sum to its accuracy less that of always answering "
            "the most frequent training class.",
        ),
        origins=origins(collection.cells),
    )


def _tidy(cell: Cell) -> list[dict[str, Value]]:
    measured = {
        ("shapley", name) for record in cell.records.values() for name in record.shapley
    } | {
        ("accuracy", names) for record in cell.records.values() for names in record.subset_accuracy
    }
    if not measured:
        return [{**identity(cell), "quantity": "shapley", "part": "test", **counts(cell, None)}]
    rows = []
    # Contributions first, then subsets from small to large.
    ordered = sorted(measured, key=lambda pair: (pair[0] != "shapley", pair[1].count("+"), pair[1]))
    for quantity, names in ordered:
        summary = _summary(cell, quantity, names)
        about: dict[str, Value] = {"quantity": quantity, "modalities": names, "part": "test"}
        rows.append({**identity(cell), **about, **spread(summary), **counts(cell, summary)})
    return rows


def _summary(cell: Cell, quantity: str, names: str) -> Summary | None:
    records = cell.records.values()
    tables = [r.shapley if quantity == "shapley" else r.subset_accuracy for r in records]
    return summarise([table[names] for table in tables if names in table])


def _readers_row(collection: Collection, cell: Cell, modalities: list[str]) -> tuple[Entry, ...]:
    fused = summarise(list(cell.values(cell.main).values()))
    entries = [Entry(collection.label(cell.variant)), mean_entry(fused, cell)]
    for name in modalities:
        summary = _summary(cell, "shapley", name)
        entries.append(mean_entry(summary, cell) if summary else Entry(NOTHING))
    return tuple(entries)
