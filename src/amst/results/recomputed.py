"""Metrics of a finished run computed anew from its stored predictions, and held against its record.

Needs NumPy only, so a run can be checked on any machine.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isclose
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amst.errors import AmstError
from amst.metrics import metrics_of, shapley
from amst.records import PREDICTIONS, RECORD, Metrics, Result, RunRecord, read_record
from amst.results.predictions import read_predictions

Arrays = Mapping[str, NDArray[Any]]


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
    """Compute a run's metrics from ``predictions.npz`` and compare with ``run.json``.

    Raises:
        AmstError: a file is missing or damaged.
    """
    record = read_record(folder / RECORD)
    path = folder / PREDICTIONS
    arrays = read_predictions(path)
    try:
        return _recompute(record, arrays)
    except (KeyError, ValueError, IndexError) as error:
        raise AmstError(
            f"{path} does not belong to its record ({error})",
            "Delete the run's folder and run it again",
        ) from error


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


def _differing(what: str, noted: Any, found: Any) -> Iterator[str]:
    """Lines for values that are not equal, but for the last digits of other processors."""
    if isinstance(noted, dict) and isinstance(found, dict):
        for key in sorted(noted.keys() | found.keys()):
            yield from _differing(f"{what} {key}", noted.get(key), found.get(key))
    elif isinstance(noted, float) and isinstance(found, float):
        if not isclose(noted, found, rel_tol=1e-9, abs_tol=1e-12):
            yield f"{what} {noted!r} in run.json, {found!r} from the predictions"
    elif noted != found:
        yield f"{what} {noted!r} in run.json, {found!r} from the predictions"
