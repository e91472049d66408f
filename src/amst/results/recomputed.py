"""Metrics of a finished run computed anew from its stored predictions, and held against its record.

So are the best epochs and the cost, from the rows of each epoch, and the hash of the settings.

Needs NumPy only, so a run can be checked on any machine.
"""

import csv
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isclose
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amst.errors import AmstError, unread
from amst.metrics import metrics_of, shapley
from amst.records import (
    COSTS,
    HISTORY,
    PREDICTIONS,
    RECORD,
    Metrics,
    Result,
    RunRecord,
    read_record,
    stated_hash,
)
from amst.results.predictions import read_predictions

Arrays = Mapping[str, NDArray[Any]]
_OF_ALL_EPOCHS: Mapping[str, Callable[[Sequence[float]], float]] = {
    "train_seconds": sum,
    "validate_seconds": sum,
    "load_seconds": sum,
    "peak_host_bytes": max,
    "peak_device_bytes": max,
}


@dataclass(frozen=True)
class Recomputed:
    """What stored predictions give.

    Attributes:
        record: the run's record.
        samples: part -> number of samples.
        metrics: (selecting prediction, prediction, part) -> metrics.
        subset_accuracy: as in the record.
        shapley: as in the record. The answer from no modality at all is read off the record, as
            the training labels are not among the predictions.
        differences: one line for each value that is not the record's.
    """

    record: RunRecord
    samples: Mapping[str, int]
    metrics: Mapping[tuple[str, str, str], Metrics]
    subset_accuracy: Mapping[str, float]
    shapley: Mapping[str, float]
    differences: tuple[str, ...]


def recompute(folder: Path) -> Recomputed:
    """Compute a run's metrics from its other files and compare with ``run.json``.

    Raises:
        AmstError: a file is missing or damaged.
    """
    record = read_record(folder / RECORD)
    path = folder / PREDICTIONS
    arrays = read_predictions(path)
    try:
        found = _recompute(record, arrays)
    except (KeyError, ValueError, IndexError) as error:
        raise AmstError(
            f"{path} does not belong to its record ({error})",
            "Delete the run's folder and run it again",
        ) from error
    more = (
        *_of_settings(record, folder / RECORD),
        *_of_epochs(record, folder / HISTORY),
        *_of_cost(record, folder / COSTS),
    )
    return replace(found, differences=(*more, *found.differences))


def _columns(path: Path, names: Collection[str]) -> dict[str, list[float]]:
    """Those columns of a table of epochs that it has.

    Raises:
        AmstError: it is missing or is no such table.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return {name: [float(row[name]) for row in rows] for name in names if name in rows[0]}
    except (OSError, IndexError, ValueError, TypeError, csv.Error) as error:
        fault = f"cannot be read as a table of epochs ({error!r})"
        raise unread(path, error, fault, "Delete the run's folder and run it again") from error


def _of_settings(record: RunRecord, path: Path) -> Iterator[str]:
    hashed = stated_hash(path)
    yield from _differing("hash of the settings", record.settings_hash, hashed, "them")


def _of_epochs(record: RunRecord, path: Path) -> Iterator[str]:
    """The epoch of each row is the first with the highest validation accuracy."""
    noted = {(row.selected_by, row.best_epoch) for row in record.results}
    columns = _columns(path, {f"val_accuracy:{name}" for name, _ in noted})
    for name, epoch in sorted(noted):
        accuracies = columns.get(f"val_accuracy:{name}")
        best = accuracies and accuracies.index(max(accuracies))
        yield from _differing(f"best epoch of {name}", epoch, best, HISTORY)


def _of_cost(record: RunRecord, path: Path) -> Iterator[str]:
    columns = _columns(path, _OF_ALL_EPOCHS)
    for name, of_all in _OF_ALL_EPOCHS.items():
        noted = getattr(record.cost, name)
        found = type(noted)(of_all(columns[name])) if name in columns else None
        yield from _differing(name, noted, found, COSTS)


def _recompute(record: RunRecord, arrays: Arrays) -> Recomputed:
    classes = tuple(str(name) for name in arrays["classes"])
    labels = {part: arrays[f"{part}/labels"] for part in ("val", "test")}
    metrics: dict[tuple[str, str, str], Metrics] = {
        (row.selected_by, row.prediction, row.part): metrics_of(
            arrays[_stored(row, record.main)], labels[row.part], classes
        )
        for row in record.results
    }
    accuracies = {
        names: _accuracy(arrays[f"test/subset/{names}"], labels["test"])
        for names in record.subset_accuracy
    }
    worth: dict[frozenset[str] | str, float] = {
        frozenset(names.split("+")): each for names, each in accuracies.items()
    }
    contributions = shapley(worth, _empty(record, labels["test"], len(classes)))
    differences = [
        *_differing("classes", list(record.classes), list(classes)),
        *(line for row in record.results for line in _row_differences(row, metrics, labels)),
        *_differing("accuracy from", dict(record.subset_accuracy), accuracies),
        *_differing("contribution of", dict(record.shapley), contributions),
    ]
    return Recomputed(
        record,
        {part: len(values) for part, values in labels.items()},
        metrics,
        accuracies,
        contributions,
        tuple(differences),
    )


def _stored(row: Result, main: str) -> str:
    """Name of the array with a row's logits."""
    if row.selected_by == main:
        return f"{row.part}/logits/{row.prediction}"
    return f"{row.part}/selected/{row.selected_by}/{row.prediction}"


def _accuracy(logits: NDArray[Any], labels: NDArray[Any]) -> float:
    return float((logits.argmax(axis=1) == labels).mean())


def _empty(record: RunRecord, labels: NDArray[Any], classes: int) -> float:
    """Accuracy of the one answer that is given without any modality.

    Contributions sum to the accuracy of all modalities less this one, which is the share of one of
    the classes.
    """
    whole = record.subset_accuracy["+".join(sorted(record.shapley))]
    noted = whole - sum(record.shapley.values())
    shares = np.bincount(labels, minlength=classes) / len(labels)
    return float(shares[np.abs(shares - noted).argmin()])


def _row_differences(
    row: Result,
    metrics: Mapping[tuple[str, str, str], Metrics],
    labels: Mapping[str, NDArray[Any]],
) -> Iterator[str]:
    where = f"{row.part}, {row.prediction} at epoch {row.best_epoch}:"
    found = metrics[row.selected_by, row.prediction, row.part]
    yield from _differing(f"{where} samples", row.samples, len(labels[row.part]))
    yield from _differing(where, row.metrics.model_dump(), found.model_dump())


def _differing(what: str, noted: Any, found: Any, by: str = "the predictions") -> Iterator[str]:
    """Lines for values that are not equal, but for the last digits of other processors."""
    if isinstance(noted, dict) and isinstance(found, dict):
        for key in sorted(noted.keys() | found.keys()):
            yield from _differing(f"{what} {key}", noted.get(key), found.get(key), by)
    elif isinstance(noted, float) and isinstance(found, float):
        if not isclose(noted, found, rel_tol=1e-9, abs_tol=1e-12):
            yield f"{what} {noted!r} in run.json, {found!r} from {by}"
    elif noted != found:
        yield f"{what} {noted!r} in run.json, {found!r} from {by}"
