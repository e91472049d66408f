"""The main table: one metric of every variant's main prediction, a column per dataset.

And the same on the validation part, by which settings are chosen.
"""

from collections.abc import Collection as Members
from collections.abc import Mapping, Sequence

from amst.results.cells import Cell, Collection
from amst.results.comparison import FEWEST_SEEDS
from amst.results.sheet import Table
from amst.results.statistics import DECIMALS, Summary, summarise
from amst.results.tables.entries import (
    COUNTS,
    IDENTITY,
    SPREAD,
    by_variant,
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
    best: Members[Key] = (),
    drawn: str = "",
    blind: Sequence[str] = (),
) -> Table:
    """One metric of the main prediction on the test part.

    Args:
        name: of the table.
        collection: the grid's cells.
        metric: one of ``WORDS``.
        best: (dataset, split, variant) of the entries in bold.
        drawn: what of the test parts the comparison drew, in words.
        blind: notes on datasets where the comparison can tell nothing apart.
    """
    return _table(
        name,
        collection,
        metric,
        "test",
        _found(collection, metric, "test"),
        best,
        caption=f"Test {WORDS[metric]} in %: mean ± standard deviation over seeds "
        "(number of seeds), at the epoch with the highest validation accuracy.",
        notes=_notes(best, drawn, metric, blind),
    )


def validation_table(collection: Collection, metric: str) -> Table:
    """One metric of the main prediction on the validation part, to choose settings by."""
    found = _found(collection, metric, "val")
    return _table(
        "validation",
        collection,
        metric,
        "val",
        found,
        _best_of_methods(collection, found),
        caption=f"Validation {WORDS[metric]} in %: mean ± standard deviation over seeds "
        "(number of seeds), at the epoch with the highest validation accuracy. Settings are to be "
        "chosen by this table, and of the variants of a method the chosen one alone is to be "
        "reported on the test part.",
        notes=(
            "The epoch was chosen on the same part, so a figure here is higher than that of new "
            "samples would be. Bold: the highest of the variants of one method, where it has "
            "several and all their runs are done.",
        ),
    )


def _found(collection: Collection, metric: str, part: str) -> dict[Key, Summary | None]:
    return {
        cell.key: summarise(list(cell.values(cell.main, metric, part).values()))
        for cell in collection.cells
    }


def _best_of_methods(collection: Collection, found: Mapping[Key, Summary | None]) -> set[Key]:
    """The variants that validation chooses among the others of their method."""
    best = set()
    for block in collection.blocks:
        cells = collection.block(*block)
        for cell in cells:
            rivals = [other for other in cells if _rivals(cell, other)]
            summaries = [found[rival.key] for rival in rivals]
            means = [
                round(summary.mean, DECIMALS)
                for summary, rival in zip(summaries, rivals, strict=True)
                if summary and summary.count == len(rival.runs)
            ]
            mine = found[cell.key]
            if len(means) == len(rivals) > 1 and mine and round(mine.mean, DECIMALS) == max(means):
                best.add(cell.key)
    return best


def _rivals(cell: Cell, other: Cell) -> bool:
    """Whether two cells of a block differ in settings of one method, not in their modalities."""
    if cell.method != other.method:
        return False
    records = [record for each in (cell, other) if (record := each.any_record)]
    return len({frozenset(record.settings.modalities) for record in records}) < 2


def _table(
    name: str,
    collection: Collection,
    metric: str,
    part: str,
    found: Mapping[Key, Summary | None],
    best: Members[Key],
    *,
    caption: str,
    notes: Sequence[str],
) -> Table:
    rows = []
    for cell in collection.cells:
        summary = found[cell.key]
        about = {"prediction": cell.main, "part": part, "metric": metric}
        rows.append({**identity(cell), **about, **spread(summary), **counts(cell, summary)})
    return Table(
        name=name,
        caption=caption,
        columns=COLUMNS,
        rows=tuple(rows),
        heads=("", *(collection.title(*block) for block in collection.blocks)),
        blocks=by_variant(
            collection, lambda cell: mean_entry(found[cell.key], cell, cell.key in best)
        ),
        notes=tuple(notes),
        origins=origins(collection.cells),
    )


def _notes(best: Members[Key], drawn: str, metric: str, blind: Sequence[str]) -> tuple[str, ...]:
    if metric != "accuracy":
        return ("Nothing is bold: the test behind bold numbers is one of accuracies.",)
    if not best:
        return tuple(blind) or (
            f"Nothing is bold: on no dataset does the best share {FEWEST_SEEDS} seeds with another "
            "variant.",
        )
    return (
        "Bold: the best of a dataset and all not significantly lower at 0.05 (paired bootstrap "
        f"of the difference over seeds and the test part, drawn were {drawn}; Holm over all pairs "
        "of variants of the dataset and split). A variant that shares fewer than "
        f"{FEWEST_SEEDS} seeds with the best is not bold. {THE_BEST}",
        *blind,
        SURENESS,
    )
