"""The pieces that several tables are made of: columns, numbers as text, states of cells."""

from collections.abc import Callable, Iterable

from amst.results.cells import UNFINISHED, Cell, Collection
from amst.results.sheet import DASH, MINUS, Block, Entry, Origin, Value
from amst.results.statistics import Summary

IDENTITY = ("dataset", "split", "variant", "method")
COUNTS = ("seeds", "expected_seeds", *UNFINISHED)
SPREAD = ("mean", "std", "ci95_low", "ci95_high")
NOTHING = DASH
"""Stands where the grid has no such run."""


def identity(cell: Cell) -> dict[str, Value]:
    """The columns that say which cell a tidy row is of."""
    return {
        "dataset": cell.dataset,
        "split": cell.split,
        "variant": cell.variant,
        "method": cell.method,
    }


def spread(summary: Summary | None) -> dict[str, Value]:
    """The columns of a mean over seeds; all empty without a value."""
    if summary is None:
        return dict.fromkeys(SPREAD)
    numbers = (summary.mean, summary.std, summary.low, summary.high)
    return dict(zip(SPREAD, numbers, strict=True))


def counts(cell: Cell, summary: Summary | None) -> dict[str, Value]:
    """The columns that say how many seeds a number has, and what became of the others."""
    states: dict[str, Value] = {state: cell.count(state) for state in UNFINISHED}
    seeds = summary.count if summary else 0
    return {"seeds": seeds, "expected_seeds": len(cell.runs), **states}


def percent(share: float) -> str:
    """A share as percent with one decimal and a true minus sign."""
    return number(100 * share, 1)


def number(value: float, decimals: int) -> str:
    """A number with a true minus sign and no negative zero."""
    text = f"{value:.{decimals}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", MINUS)


def mean_text(summary: Summary | None, cell: Cell, form: Callable[[float], str] = percent) -> str:
    """``71.2 ± 0.5 (3)``; what is known of the runs where there is no number."""
    if summary is None:
        return states_text(cell) or NOTHING
    spread_text = "" if summary.std is None else f" ± {form(summary.std)}"
    return f"{form(summary.mean)}{spread_text} ({seeds_text(summary.count, cell)})"


def mean_entry(
    summary: Summary | None,
    cell: Cell,
    bold: bool = False,
    form: Callable[[float], str] = percent,
) -> Entry:
    """The entry of a mean over seeds."""
    return Entry(mean_text(summary, cell, form), bold, cell.run_ids if summary else ())


def by_variant(collection: Collection, entry: Callable[[Cell], Entry]) -> tuple[Block]:
    """A row per variant, a column per dataset and split; a dash where the grid has no such cell."""
    rows = []
    for variant in collection.variants:
        cells = (collection.find(*block, variant) for block in collection.blocks)
        entries = (entry(cell) if cell else Entry(NOTHING) for cell in cells)
        rows.append((Entry(collection.label(variant)), *entries))
    return (Block("", tuple(rows)),)


def difference_text(difference: Summary | None) -> str:
    """``-12.3 ± 2.9``, half of the 95 % interval behind the sign; nothing there for one pair."""
    if difference is None:
        return NOTHING
    text = percent(difference.mean)
    if difference.mean > 0 and not text.startswith("0.0"):
        text = f"+{text}"
    if difference.high is None:
        return text
    return f"{text} ± {percent(difference.high - difference.mean)}"


def seeds_text(count: int, cell: Cell) -> str:
    """``3``, or ``2 of 3, 1 running`` while the cell is not complete."""
    unfinished = states_text(cell, always_count=True)
    return f"{count} of {len(cell.runs)}, {unfinished}" if unfinished else str(count)


def states_text(cell: Cell, always_count: bool = False) -> str:
    """``missing``, or ``2 missing, 1 failed`` where states differ; empty when all are done."""
    states = {state: cell.count(state) for state in UNFINISHED if cell.count(state)}
    if len(states) == 1 and not always_count:
        return next(iter(states))
    return ", ".join(f"{times} {state}" for state, times in states.items())


def origins(cells: Iterable[Cell]) -> dict[str, Origin]:
    """Run id -> where it comes from, for all finished runs of the cells."""
    return {
        record.settings.run_id: Origin(
            record.settings_hash,
            record.environment.commit,
            record.environment.code_digest,
            record.environment.container_digest,
            "; ".join(record.adopted),
        )
        for cell in cells
        for record in cell.records.values()
    }


def modalities_of(cells: Iterable[Cell]) -> list[str]:
    """Every modality that a finished run of the cells has, sorted."""
    records = [cell.any_record for cell in cells]
    return sorted({name for record in records if record for name in record.settings.modalities})
