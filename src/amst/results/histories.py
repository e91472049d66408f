"""What the epochs of a cell's finished runs were, from their ``history.csv``."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from amst.errors import AmstError
from amst.records import HISTORY
from amst.results.cells import Cell
from amst.results.statistics import Floats


@dataclass(frozen=True)
class History:
    """One run's epochs.

    Attributes:
        active: modalities that trained, by epoch.
        val_accuracy: prediction -> (epochs,) accuracies on the validation part.
    """

    active: tuple[frozenset[str], ...]
    val_accuracy: Mapping[str, Floats]


def read_history(path: Path) -> History:
    """Read a ``history.csv``.

    Raises:
        AmstError: it is missing or is no history.
    """
    prefix = "val_accuracy:"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        if any(None in row.values() for row in rows):
            raise ValueError("a line is cut off")
        names = [name.removeprefix(prefix) for name in rows[0] if name.startswith(prefix)]
        accuracy = {n: np.array([float(row[prefix + n]) for row in rows]) for n in names}
        active = tuple(frozenset(filter(None, row["active"].split("+"))) for row in rows)
    except (OSError, KeyError, IndexError, ValueError, csv.Error) as error:
        raise AmstError(
            f"{path} cannot be read as a history ({error!r})",
            "Delete the run's folder and run it again",
        ) from error
    return History(active, accuracy)


def histories(cell: Cell) -> list[History]:
    """Histories of the finished runs, by seed."""
    done = (run for run in cell.runs if run.seed in cell.records)
    return [read_history(run.path.with_name(HISTORY)) for run in done]


def curves(found: list[History], prediction: str) -> Floats:
    """Validation accuracy: (seeds, epochs), as many epochs as all of them have; 0 seeds if none."""
    rows = [h.val_accuracy[prediction] for h in found if prediction in h.val_accuracy]
    epochs = min((len(row) for row in rows), default=0)
    return np.array([row[:epochs] for row in rows]).reshape(len(rows), epochs)
