"""Stored predictions as results read them: which test samples a run answers correctly."""

import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from amst.errors import AmstError
from amst.records import PREDICTIONS


def correctness(record: Path, main: str) -> tuple[list[str], NDArray[np.bool_]]:
    """Test sample ids, sorted, and whether the main prediction of each is correct.

    Args:
        record: the run's ``run.json``.
        main: name of its main prediction.

    Raises:
        AmstError: its predictions are missing or damaged.
    """
    path = record.with_name(PREDICTIONS)
    try:
        with np.load(path, allow_pickle=False) as file:
            ids = [_text(value) for value in file["test/ids"]]
            labels, logits = file["test/labels"], file[f"test/logits/{main}"]
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise AmstError(
            f"{path} cannot be read as predictions ({error})",
            "Delete the run's folder and run it again",
        ) from error
    order = sorted(range(len(ids)), key=ids.__getitem__)
    return [ids[i] for i in order], np.asarray(logits.argmax(axis=1) == labels)[order]


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
