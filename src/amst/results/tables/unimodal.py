"""Who starves whom: what each modality is worth inside a method, against training it alone."""

from collections.abc import Mapping

from amst.results.cells import Cell, Collection, kind_of, modality_of
from amst.results.sheet import MINUS, Block, Entry, Table, Value
from amst.results.statistics import paired_difference, summarise
from amst.results.tables.entries import (
    COUNTS,
    IDENTITY,
    NOTHING,
    SPREAD,
    counts,
    difference_text,
    identity,
    mean_entry,
    modalities_of,
    origins,
    spread,
)

DIFFERENCE = ("reference", "difference", "difference_low", "difference_high", "pairs")
ABOUT = ("prediction", "kind", "modality", "part", "metric")
COLUMNS = (*IDENTITY, *ABOUT, *SPREAD, *COUNTS, *DIFFERENCE)
UNIMODAL = "unimodal"
"""Name of the method that trains one modality alone."""


def unimodal_table(collection: Collection) -> Table:
    """Test accuracy of every prediction, with the paired difference to the unimodal variant."""
    rows, blocks = [], []
    modalities = modalities_of(collection.cells)
    for dataset, split in collection.blocks:
        cells = collection.block(dataset, split)
        alone = references(cells)
        rows += [row for cell in cells for row in _tidy(cell, alone)]
        body = tuple(_readers_row(collection, cell, alone, modalities) for cell in cells)
        blocks.append(Block(collection.title(dataset, split), body))
    heads = [head for name in modalities for head in (name, f"{MINUS} alone")]
    return Table(
        name="unimodal",
        caption="Test accuracy in % of the fused prediction and of each modality inside a method: "
        "of a linear probe on its encoder, or of its own prediction where there is no probe; "
        "mean ± standard deviation over seeds (number of seeds).",
        columns=COLUMNS,
        rows=tuple(rows),
        heads=("", "fused", *heads),
        blocks=tuple(blocks),
        notes=(
            f"{MINUS} alone: difference in percentage points to the same modality trained alone, "
            "paired over seeds, ± half of its 95 % t interval (none for one pair). Below zero, the "
            "method's encoder has learnt less than it could have alone.",
        ),
        origins=origins(collection.cells),
    )


def references(cells: list[Cell]) -> dict[str, Cell]:
    """Modality -> the first cell of the unimodal method that was trained on it alone."""
    found: dict[str, Cell] = {}
    for cell in cells:
        if cell.method == UNIMODAL:
            for _, prediction in cell.predictions():
                if kind_of(prediction) == "modality":
                    found.setdefault(modality_of(prediction), cell)
    return found


def _tidy(cell: Cell, alone: Mapping[str, Cell]) -> list[dict[str, Value]]:
    pairs = cell.predictions()
    if not pairs:
        return [{**identity(cell), "part": "test", "metric": "accuracy", **counts(cell, None)}]
    rows = []
    for selected_by, prediction in pairs:
        values = cell.values(prediction, selected_by=selected_by)
        summary = summarise(list(values.values()))
        modality = modality_of(prediction)
        about: dict[str, Value] = {
            "prediction": prediction,
            "kind": kind_of(prediction),
            "modality": modality,
            "part": "test",
            "metric": "accuracy",
        }
        against = _against(values, alone.get(modality), cell)
        rows.append(
            {**identity(cell), **about, **spread(summary), **counts(cell, summary), **against}
        )
    return rows


def _against(values: Mapping[int, float], reference: Cell | None, cell: Cell) -> dict[str, Value]:
    if reference is None or reference is cell:
        return {}
    difference = paired_difference(values, reference.values(reference.main))
    if difference is None:
        return {"reference": reference.variant, "pairs": 0}
    numbers = (
        reference.variant,
        difference.mean,
        difference.low,
        difference.high,
        difference.count,
    )
    return dict(zip(DIFFERENCE, numbers, strict=True))


def _readers_row(
    collection: Collection, cell: Cell, alone: Mapping[str, Cell], modalities: list[str]
) -> tuple[Entry, ...]:
    fused = summarise(list(cell.values(cell.main).values()))
    entries = [Entry(collection.label(cell.variant)), mean_entry(fused, cell)]
    for name in modalities:
        values = cell.values(f"probe/{name}") or cell.values(f"modality/{name}")
        if not values:
            entries += [Entry(NOTHING), Entry(NOTHING)]
            continue
        reference = alone.get(name)
        difference = None
        if reference is not None and reference is not cell:
            difference = paired_difference(values, reference.values(reference.main))
        entries.append(mean_entry(summarise(list(values.values())), cell))
        both = (*cell.run_ids, *reference.run_ids) if reference and difference else ()
        entries.append(Entry(difference_text(difference), runs=both))
    return tuple(entries)
