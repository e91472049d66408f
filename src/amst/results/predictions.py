"""Stored predictions as results read them: which test samples a run answers correctly."""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amst.errors import AmstError
from amst.records import PREDICTIONS

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
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in names or file}
    except DAMAGE as error:
        raise AmstError(
            f"{path} cannot be read as predictions ({error})",
            "Delete the run's folder and run it again",
        ) from error


def correctness(record: Path, main: str) -> tuple[list[str], NDArray[np.bool_]]:
    """Test sample ids, sorted, and whether the main prediction of each is correct.

    Args:
        record: the run's ``run.json``.
        main: name of its main prediction.

    Raises:
        AmstError: its predictions are missing or damaged.
    """
    names = "test/ids", "test/labels", f"test/logits/{main}"
    found = read_predictions(record.with_name(PREDICTIONS), names)
    stored, labels, logits = (found[name] for name in names)
    ids = [_text(value) for value in stored]
    order = sorted(range(len(ids)), key=ids.__getitem__)
    return [ids[i] for i in order], np.asarray(logits.argmax(axis=1) == labels)[order]


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
