"""Who starves whom: what each modality is worth inside a method, against training it alone."""

from collections.abc import Mapping, Sequence

from amst.records import RunRecord
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
LINEAR = "linear"
"""Kind of the predictions of classifiers that were fitted to encoders at the end."""


def unimodal_table(collection: Collection) -> Table:
    """Test accuracy of every prediction, with the paired difference to the unimodal variant."""
    rows, blocks = [], []
    compared: dict[str, list[str]] = {}
    modalities = modalities_of(collection.cells)
    for dataset, split in collection.blocks:
        cells = collection.block(dataset, split)
        alone = references(cells)
        rows += [row for cell in cells for row in _tidy(cell, alone)]
        body = tuple(
            row for cell in cells for row in _readers_rows(collection, cell, alone, modalities)
        )
        blocks.append(Block(collection.title(dataset, split), body))
        if text := _references_text(collection, cells, alone):
            compared.setdefault(text, []).append(collection.title(dataset, split))
    heads = [head for name in modalities for head in (name, f"{MINUS} alone")]
    return Table(
        name="unimodal",
        caption="Test accuracy in % of the fused prediction and of each modality inside a method, "
        "by a linear classifier fitted to its encoder (encoder) and by its own prediction (own); "
        "mean ± standard deviation over seeds (number of seeds).",
        columns=COLUMNS,
        rows=tuple(rows),
        heads=("", "by", "fused", *heads),
        blocks=tuple(blocks),
        notes=(
            f"{MINUS} alone: difference in percentage points to the same modality trained alone, "
            "paired over seeds, ± half of its 95 % t interval (none for one pair): of encoders to "
            "the encoder trained alone, of predictions to its prediction. An interval wholly below "
            "zero: over these seeds and on this test part, what the encoder gives, or the "
            "prediction, is worse inside the method than alone. Each interval is by itself, with "
            "no correction for several, and knows nothing of other test samples; that of two or "
            "three seeds that happen to agree is too narrow. All are of the epoch that the fused "
            "prediction selected, by its validation accuracy.",
            *_references_note(compared),
            *_branches_note(collection),
        ),
        origins=origins(collection.cells),
        beside=_branches_beside(collection),
    )


References = Mapping[tuple[str, str], Cell]
"""(variant, modality) -> the cell of that modality trained alone."""


def references(cells: Sequence[Cell]) -> References:
    """What each modality of each finished variant of one split is compared with.

    That is the modality alone by the variant's own recipe and settings of the modality; among
    several of these, or where there is none, the variant ``unimodal_<modality>``, else the first.
    A variant that trains one modality alone is compared with nothing.
    """
    alone = _trained_alone(cells)
    return {
        (cell.variant, name): _reference(record, name, alone[name])
        for cell in cells
        if (record := cell.any_record) and cell.method != UNIMODAL
        for name in record.settings.modalities
        if name in alone
    }


def _trained_alone(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    """Modality -> the finished cells of it alone."""
    found: dict[str, list[Cell]] = {}
    for cell in cells:
        if cell.method == UNIMODAL and (record := cell.any_record):
            for name in record.settings.modalities:
                found.setdefault(name, []).append(cell)
    return found


def _reference(record: RunRecord, modality: str, alone: Sequence[Cell]) -> Cell:
    alike = [cell for cell in alone if _alike(record, cell.any_record, modality)]
    return min(alike or alone, key=lambda cell: cell.variant != f"{UNIMODAL}_{modality}")


def _alike(ours: RunRecord, theirs: RunRecord | None, modality: str) -> bool:
    if theirs is None:
        return False
    mine, other = ours.settings, theirs.settings
    same = mine.modalities[modality] == other.modalities[modality]
    return same and mine.recipe == other.recipe


def _references_text(collection: Collection, cells: Sequence[Cell], alone: References) -> str:
    """``visual alone is short for quick, else unimodal_visual``, of modalities with several."""
    texts = []
    for name, candidates in sorted(_trained_alone(cells).items()):
        rows: dict[str, list[str]] = {}
        for cell in cells if len(candidates) > 1 else ():
            if (cell.variant, name) in alone:
                reference = collection.label(alone[cell.variant, name].variant)
                rows.setdefault(reference, []).append(collection.label(cell.variant))
        if rows:
            most, *others = sorted(rows, key=lambda reference: -len(rows[reference]))
            said = "".join(f"{other} for {', '.join(rows[other])}, else " for other in others)
            texts.append(f"{name} alone is {said}{most}")
    return "; ".join(texts)


def _references_note(texts: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Which variants modalities are compared with: text -> the datasets that it is true of."""
    if not texts:
        return ()
    said = "; ".join(f"on {', '.join(titles)} {text}" for text, titles in texts.items())
    return (
        "Of several variants that train a modality alone the one of the row's recipe counts, "
        f"where there is one: {said}.",
    )


def _tidy(cell: Cell, alone: References) -> list[dict[str, Value]]:
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
        against = _against(values, alone.get((cell.variant, modality)), prediction)
        rows.append(
            {**identity(cell), **about, **spread(summary), **counts(cell, summary), **against}
        )
    return rows


def alone_values(reference: Cell, prediction: str) -> dict[int, float]:
    """Seed -> accuracy of a modality alone to hold a prediction against: like against like."""
    linear = kind_of(prediction) == LINEAR
    return reference.values(f"{LINEAR}/{modality_of(prediction)}" if linear else reference.main)


def _against(
    values: Mapping[int, float], reference: Cell | None, prediction: str
) -> dict[str, Value]:
    if reference is None:
        return {}
    difference = paired_difference(values, alone_values(reference, prediction))
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
        f"{', '.join(names)} are of the second one, the others of the first, which in AMST "
        "alternates between modalities; fused is of the whole method.",
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
    collection: Collection, cell: Cell, alone: References, modalities: list[str]
) -> list[tuple[Entry, ...]]:
    """A row for the encoders and one for the modalities' own predictions, of each branch."""
    fused = mean_entry(summarise(list(cell.values(cell.main).values())), cell)
    rows: list[tuple[Entry, ...]] = []
    for branch in _branches(cell):
        own = [f"{branch}/modality/{name}".lstrip("/") for name in modalities]
        encoders = [f"{branch}/{LINEAR}/{name}".lstrip("/") for name in modalities]
        for word, predictions in (("encoder", encoders), ("own", own)):
            entries = [
                _pair(cell, prediction, alone.get((cell.variant, modality_of(prediction))))
                for prediction in predictions
            ]
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
    if reference is not None:
        difference = paired_difference(values, alone_values(reference, prediction))
    both = (*cell.run_ids, *reference.run_ids) if reference and difference else ()
    shown = mean_entry(summarise(list(values.values())), cell)
    return shown, Entry(difference_text(difference), runs=both)
