"""The main table: one metric of every variant's main prediction, a column per dataset."""

from collections.abc import Collection as Members

from amst.results.cells import Collection
from amst.results.comparison import FEWEST_SEEDS
from amst.results.sheet import Block, Entry, Table
from amst.results.statistics import summarise
from amst.results.tables.entries import (
    COUNTS,
    IDENTITY,
    SPREAD,
    counts,
    identity,
    mean_entry,
    origins,
    spread,
)
from amst.results.tables.significance import SURENESS, THE_BEST

WORDS = {
    "accuracy": "accuracy",
    "macro_f1": "macro-averaged F1",
    "mean_average_precision": "mean average precision",
}
"""Metrics that a main table can show -> how its caption calls them."""
COLUMNS = (*IDENTITY, "prediction", "part", "metric", *SPREAD, *COUNTS)
Key = tuple[str, str, str]


def score_table(
    name: str,
    collection: Collection,
    metric: str,
    best: Members[Key] | None = None,
    drawn: str = "",
) -> Table:
    """One metric of the main prediction on the test part.

    Args:
        name: of the table.
        collection: the grid's cells.
        metric: a scalar field of ``amst.records.Metrics``.
        best: (dataset, split, variant) of the entries in bold; None when nothing was compared.
        drawn: what of the test parts the comparison drew, in words.
    """
    found = {
        (cell.dataset, cell.split, cell.variant): summarise(
            list(cell.values(cell.main, metric).values())
        )
        for cell in collection.cells
    }
    rows = []
    for cell in collection.cells:
        summary = found[cell.dataset, cell.split, cell.variant]
        about = {"prediction": cell.main, "part": "test", "metric": metric}
        rows.append({**identity(cell), **about, **spread(summary), **counts(cell, summary)})
    body = []
    for variant in collection.variants:
        entries = [Entry(collection.label(variant))]
        for dataset, split in collection.blocks:
            key = (dataset, split, variant)
            cell_or_none = collection.find(*key)
            entries.append(mean_entry(found.get(key), cell_or_none, key in (best or ())))
        body.append(tuple(entries))
    return Table(
        name=name,
        caption=f"Test {WORDS[metric]} in %: mean ± standard deviation over seeds "
        "(number of seeds), at the epoch with the highest validation accuracy.",
        columns=COLUMNS,
        rows=tuple(rows),
        heads=("", *(collection.title(*block) for block in collection.blocks)),
        blocks=(Block("", tuple(body)),),
        notes=_notes(best, drawn, name),
        origins=origins(collection.cells),
    )


def _notes(best: Members[Key] | None, drawn: str, name: str) -> tuple[str, ...]:
    if name == "macro_f1":
        return ("Nothing is bold: the test behind bold numbers is one of accuracies.",)
    if best is None:
        return ()
    if not best:
        return (
            f"Nothing is bold: on no dataset does the best share {FEWEST_SEEDS} seeds with another "
            "variant.",
        )
    return (
        "Bold: the best of a dataset and all not significantly lower at 0.05 (paired bootstrap "
        f"of the difference over seeds and the test part, drawn were {drawn}; Holm over all pairs "
        "of variants of the dataset and split). A variant that shares fewer than "
        f"{FEWEST_SEEDS} seeds with the best is not bold. {THE_BEST}",
        SURENESS,
    )
