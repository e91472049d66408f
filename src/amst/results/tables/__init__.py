"""The tables: each a pure function of run records, written in four forms."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from amst.results.cells import Collection
from amst.results.common_settings import differing_recipes, mixed_code
from amst.results.comparison import (
    Comparison,
    blind_notes,
    compare,
    drawn_text,
    groups_of,
    leaders,
)
from amst.results.names import TABLE_NAMES
from amst.results.sheet import Table, write_files
from amst.results.tables.balance import balance_table
from amst.results.tables.cost import cost_table
from amst.results.tables.provenance import runs_table
from amst.results.tables.reproduction import read_figures, reproduction_table
from amst.results.tables.scores import score_table, validation_table
from amst.results.tables.significance import (
    intervals_table,
    mcnemar_table,
    ranks_table,
    significance_table,
)
from amst.results.tables.unimodal import unimodal_table


@dataclass
class Material:
    """What tables are made from; comparisons are made once, when the first table asks.

    Attributes:
        collection: the records.
        samples: dataset -> its ``samples.jsonl``; without it every test sample is a group of its
            own in the bootstrap, and the tables say so.
        published: CSV of published figures; None for no such figures.
        metric: of the tables `main` and `validation`, one of ``scores.WORDS``.
    """

    collection: Collection
    samples: Mapping[str, Path] = field(default_factory=dict)
    published: Path | None = None
    metric: str = "accuracy"

    @cached_property
    def comparison(self) -> Comparison:
        """All pairs of variants, from the stored predictions."""
        datasets = {dataset for dataset, _ in self.collection.blocks}
        groups = {d: groups_of(path) for d, path in self.samples.items() if d in datasets}
        return compare(self.collection, groups)


def _main(material: Material) -> Table:
    # The test behind bold numbers is one of accuracies.
    if material.metric != "accuracy":
        return score_table("main", material.collection, material.metric)
    best = leaders(material.collection, material.comparison)
    drawn = drawn_text(material.collection, material.comparison)
    blind = blind_notes(material.collection, material.comparison)
    return score_table("main", material.collection, material.metric, best, drawn, blind)


def _reproduction(material: Material) -> Table:
    figures = read_figures(material.published) if material.published else []
    return reproduction_table(material.collection, figures)


TABLES: Mapping[str, Callable[[Material], Table]] = {
    "main": _main,
    "macro_f1": lambda m: score_table("macro_f1", m.collection, "macro_f1"),
    "validation": lambda m: validation_table(m.collection, m.metric),
    "unimodal": lambda m: unimodal_table(m.collection),
    "balance": lambda m: balance_table(m.collection),
    "cost": lambda m: cost_table(m.collection),
    "reproduction": _reproduction,
    "significance": lambda m: significance_table(m.collection, m.comparison),
    "intervals": lambda m: intervals_table(m.collection, m.comparison),
    "mcnemar": lambda m: mcnemar_table(m.collection, m.comparison),
    "ranks": lambda m: ranks_table(m.collection),
    "runs": lambda m: runs_table(m.collection),
}
"""Name of every table -> how it is made."""
SAYING_RECIPES = ("main", "significance", "unimodal")
"""Tables that hold variants against each other; under them stands where recipes differ, or the
code of one mean's seeds."""


def make_tables(material: Material, only: Sequence[str] = TABLE_NAMES) -> Iterator[Table]:
    """The tables of these names.

    Raises:
        AmstError: predictions or published figures are not what they should be.
        KeyError: there is no table of that name.
    """
    return (_with_origins(TABLES[name](material), material.collection) for name in only)


def _with_origins(table: Table, collection: Collection) -> Table:
    if table.name not in SAYING_RECIPES:
        return table
    return replace(
        table, notes=(*table.notes, *differing_recipes(collection), *mixed_code(collection))
    )


def write_tables(material: Material, out: Path, only: Sequence[str] = TABLE_NAMES) -> list[Path]:
    """Write tables as ``<name>.csv``, ``.md``, ``.tex`` and ``.html``.

    Args:
        material: what they are made from.
        out: folder of the files.
        only: names of the tables to write.

    Returns:
        The files written.

    Raises:
        AmstError: predictions or published figures are not what they should be.
        KeyError: there is no table of that name.
    """
    return [path for table in make_tables(material, only) for path in write_files(table, out)]
