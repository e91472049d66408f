"""Stored predictions as results read them: which test samples a run answers correctly."""

import zipfile
import zlib
from collections.abc import Sequence
from math import isclose
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amst.errors import AmstError, unread
from amst.files import opened
from amst.records import PREDICTIONS, RunRecord

DAMAGE = (OSError, EOFError, KeyError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error)
"""What NumPy and zipfile raise of a file that is cut off or has a wrong byte somewhere."""


def read_predictions(path: Path, names: Sequence[str] = ()) -> dict[str, NDArray[Any]]:
    """The arrays of a ``predictions.npz``.

    Args:
        path: the file.
        names: of the arrays to read; all of them unless given.

    Raises:
        AmstError: it is missing or damaged, or lacks one of these arrays.
    """
    try:
        with opened(path) as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in names or arrays}
    except DAMAGE as error:
        fault = f"cannot be read as predictions ({error})"
        raise unread(path, error, fault, "Delete the run's folder and run it again") from error


def correctness(path: Path, record: RunRecord) -> tuple[list[str], NDArray[np.bool_]]:
    """Test sample ids, sorted, and whether the main prediction of each is correct.

    Args:
        path: the run's ``run.json``.
        record: what is in it.

    Raises:
        AmstError: its predictions are missing, damaged, or not those of the record.
    """
    predictions, main = path.with_name(PREDICTIONS), record.main
    names = "test/ids", "test/labels", f"test/logits/{main}"
    found = read_predictions(predictions, names)
    try:
        ids = [_text(value) for value in found[names[0]]]
        correct = _correct(found[names[2]], found[names[1]], record, len(ids))
    except (TypeError, ValueError) as error:
        raise AmstError(
            f"{predictions} does not belong to its record ({error})",
            "Delete the run's folder and run it again",
        ) from error
    order = sorted(range(len(ids)), key=ids.__getitem__)
    return [ids[i] for i in order], correct[order]


def _correct(
    logits: NDArray[Any], labels: NDArray[Any], record: RunRecord, samples: int
) -> NDArray[np.bool_]:
    """Which samples are answered correctly, in their order in the file.

    Raises:
        ValueError: that is not what the record says.
    """
    main = record.main, record.main, "test"
    noted = next(r for r in record.results if (r.selected_by, r.prediction, r.part) == main)
    wanted = noted.samples, len(record.classes)
    if (samples, logits.shape, labels.shape) != (noted.samples, wanted, wanted[:1]):
        raise ValueError(
            f"{samples} ids, labels of shape {labels.shape} and logits of shape {logits.shape} "
            f"for {wanted[0]} samples and {wanted[1]} classes"
        )
    if not np.isfinite(logits).all():
        raise ValueError("logits are NaN or infinite")
    correct = np.asarray(logits.argmax(axis=1) == labels)
    if not isclose(correct.mean(), noted.metrics.accuracy, abs_tol=1e-9):
        raise ValueError(
            f"test accuracy {noted.metrics.accuracy!r} in run.json, {float(correct.mean())!r} from "
            "the predictions"
        )
    return correct


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
