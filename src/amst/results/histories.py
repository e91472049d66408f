"""What the epochs of a cell's finished runs were, from their ``history.csv``."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from amst.config.run import RunSettings
from amst.errors import unread
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


def read_history(path: Path, settings: RunSettings) -> History:
    """Read a ``history.csv``.

    Args:
        path: the file.
        settings: of the run, which say how many epochs and which modalities it has.

    Raises:
        AmstError: it is missing or is no history of such a run.
    """
    prefix = "val_accuracy:"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        if any(None in row.values() for row in rows):
            raise ValueError("a line is cut off")
        epochs = [int(row["epoch"]) for row in rows]
        if epochs != list(range(settings.recipe.epochs)):
            raise ValueError(f"{len(epochs)} epochs, not all {settings.recipe.epochs} in order")
        names = [name.removeprefix(prefix) for name in rows[0] if name.startswith(prefix)]
        accuracy = {n: _shares([row[prefix + n] for row in rows]) for n in names}
        active = tuple(frozenset(filter(None, row["active"].split("+"))) for row in rows)
        if unknown := set[str]().union(*active).difference(settings.modalities):
            raise ValueError(f"unknown modality {min(unknown)}")
    except (OSError, KeyError, IndexError, ValueError, csv.Error) as error:
        fault = f"cannot be read as a history ({error!r})"
        raise unread(path, error, fault, "Delete the run's folder and run it again") from error
    return History(active, accuracy)


def _shares(texts: Sequence[str]) -> Floats:
    """Fractions of 1.

    Raises:
        ValueError: one is none.
    """
    values = np.array([float(text) for text in texts])
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError("an accuracy is no fraction of 1")
    return values


def histories(cell: Cell) -> list[History]:
    """Histories of the finished runs, by seed."""
    return [
        read_history(run.path.with_name(HISTORY), cell.records[run.seed].settings)
        for run in cell.runs
        if run.seed in cell.records
    ]


def curves(found: list[History], prediction: str) -> Floats:
    """Validation accuracy: (seeds, epochs); empty where no run has this prediction."""
    return np.array([h.val_accuracy[prediction] for h in found if prediction in h.val_accuracy])
