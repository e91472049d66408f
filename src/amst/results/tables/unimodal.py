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
        body = tuple(
            row for cell in cells for row in _readers_rows(collection, cell, alone, modalities)
        )
        blocks.append(Block(collection.title(dataset, split), body))
    heads = [head for name in modalities for head in (name, f"{MINUS} alone")]
    return Table(
        name="unimodal",
        caption="Test accuracy in % of the fused prediction and of each modality inside a method, "
        "by a linear probe on its encoder (probe) and by its own prediction (own); "
        "mean ± standard deviation over seeds (number of seeds).",
        columns=COLUMNS,
        rows=tuple(rows),
        heads=("", "by", "fused", *heads),
        blocks=tuple(blocks),
        notes=(
            f"{MINUS} alone: difference in percentage points to the same modality trained alone, "
            "paired over seeds, ± half of its 95 % t interval (none for one pair). An interval "
            "wholly below zero: the encoder (probe) or the prediction (own) of this modality is "
            "worse inside the method than alone.",
            *_branches_note(collection),
        ),
        origins=origins(collection.cells),
        beside=_branches_beside(collection),
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


def _branches_note(collection: Collection) -> tuple[str, ...]:
    names = _second_models(collection)
    if not names:
        return ()
    return (
        "A method of two models has two encoders of each modality: rows named "
        f"{', '.join(names)} are of the second one, the others of the first, which "
        "alternates between modalities; fused is of both together.",
    )


def _branches_beside(collection: Collection) -> tuple[str, ...]:
    if not _second_models(collection):
        return ()
    return ("What each of two models fuses by itself is in unimodal.csv.",)


def _second_models(collection: Collection) -> list[str]:
    return sorted({name for cell in collection.cells for name in _branches(cell) if name})


def _branches(cell: Cell) -> list[str]:
    """Names of the models that a method has side by side, the first of them empty."""
    singles = [name for _, name in cell.predictions() if kind_of(name) != "fused"]
    return sorted({"/".join(name.split("/")[:-2]) for name in singles})


def _readers_rows(
    collection: Collection, cell: Cell, alone: Mapping[str, Cell], modalities: list[str]
) -> list[tuple[Entry, ...]]:
    """A row for the probes and one for the modalities' own predictions, of each branch."""
    fused = mean_entry(summarise(list(cell.values(cell.main).values())), cell)
    rows: list[tuple[Entry, ...]] = []
    for branch in _branches(cell):
        for kind, word in (("probe", "probe"), ("modality", "own")):
            prefix = f"{branch}/{kind}/" if branch else f"{kind}/"
            entries = [_pair(cell, prefix + name, alone.get(name)) for name in modalities]
            if all(entry.text == NOTHING for pair in entries for entry in pair):
                continue
            first = (
                Entry(collection.label(cell.variant)),
                Entry(f"{branch} {word}".strip()),
                fused,
            )
            again = (Entry(""), first[1], Entry(""))
            rows.append((*(again if rows else first), *(e for pair in entries for e in pair)))
    empty = [Entry(NOTHING)] * (2 * len(modalities))
    return rows or [(Entry(collection.label(cell.variant)), Entry(NOTHING), fused, *empty)]


def _pair(cell: Cell, prediction: str, reference: Cell | None) -> tuple[Entry, Entry]:
    """Accuracy of one prediction, and its difference to the modality trained alone."""
    values = cell.values(prediction)
    if not values:
        return Entry(NOTHING), Entry(NOTHING)
    difference = None
    if reference is not None and reference is not cell:
        difference = paired_difference(values, reference.values(reference.main))
    both = (*cell.run_ids, *reference.run_ids) if reference and difference else ()
    shown = mean_entry(summarise(list(values.values())), cell)
    return shown, Entry(difference_text(difference), runs=both)
