"""Files that the released code saves: read without running anything in them, and written."""

import argparse
import math
import pickle
import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

import torch
from safetensors import SafetensorError
from torch import Tensor

from amst.errors import AmstError, HostError, not_given
from amst.files import opened, replacing


@dataclass(frozen=True)
class ReleasedFile:
    """Content of a released checkpoint.

    Attributes:
        model: weights by released name, in host memory.
        args: the command line, by argument.
        epoch: of the weights, counted from 0.
        best_val_acc: validation accuracy at that epoch, of 1.
        best_test_acc: test accuracy at that epoch; None in checkpoints of a single modality.
    """

    model: Mapping[str, Tensor]
    args: Mapping[str, Any]
    epoch: int
    best_val_acc: float
    best_test_acc: float | None


_FORMATS = {"f4": "<f", "f8": "<d"}


class _FloatType:
    """Stands for ``numpy.dtype`` in a file: the two floating-point types and nothing else."""

    def __init__(self, code: str, align: bool = False, copy: bool = True) -> None:
        if code not in _FORMATS:
            raise ValueError(f"a number in it is of type {code!r}")
        self.format = _FORMATS[code]

    def __setstate__(self, state: Any) -> None:
        """Byte order and the like, which the two types do not need."""


def _number(kind: _FloatType, data: bytes) -> float:
    """Stands for NumPy's constructor of a single number."""
    return float(struct.unpack(kind.format, data)[0])


# The accuracies in released files are NumPy numbers, whose pickles call NumPy's constructors, by
# another name since NumPy 2. Functions of ours stand in, so that no code but torch's and this runs.
_ALLOWED: list[Any] = [
    argparse.Namespace,
    (_number, "numpy.core.multiarray.scalar"),
    (_number, "numpy._core.multiarray.scalar"),
    (_FloatType, "numpy.dtype"),
]


def read_file(path: Path) -> ReleasedFile:
    """Read a released checkpoint.

    Raises:
        AmstError: it is missing or damaged, asks for code to be run, or is no such checkpoint.
    """
    value = _load(path)
    missing = [key for key in ("model", "args", "epoch") if key not in value]
    if missing:
        raise _no_checkpoint(path, f"it lacks {', '.join(map(repr, missing))}")
    model, args = value["model"], value["args"]
    if not isinstance(args, argparse.Namespace):
        raise _no_checkpoint(path, "its args are no command line")
    if not isinstance(model, Mapping) or not all(isinstance(v, Tensor) for v in model.values()):
        raise _no_checkpoint(path, "its model is no map of tensors")
    accuracies = [value.get(key) for key in ("best_val_acc", "best_acc", "best_test_acc")]
    val = accuracies[0] if accuracies[0] is not None else accuracies[1]
    test = accuracies[2]
    if type(value["epoch"]) is not int or not _is_number(val):
        raise _no_checkpoint(path, "its epoch or validation accuracy is no number")
    if not (test is None or _is_number(test)):
        raise _no_checkpoint(path, "its test accuracy is no number")
    return ReleasedFile(
        model, vars(args), value["epoch"], float(val), None if test is None else float(test)
    )


def _is_number(value: Any) -> TypeGuard[float]:
    return type(value) in (float, int) and math.isfinite(value)


def _load(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise AmstError(f"there is no file {path}")
    try:
        with opened(path) as file:
            value, foreign = _unpickled(path, file)
    except OSError as error:
        raise not_given(path, error) or error from error
    if foreign:
        raise AmstError(
            f"{path} asks for {', '.join(sorted(foreign))} to be run; nothing of it was",
            "A released checkpoint holds tensors, numbers and a command line only",
        )
    if not isinstance(value, dict):
        raise _no_checkpoint(path, f"it holds a {type(value).__name__}")
    return value


def _unpickled(path: Path, file: BinaryIO) -> tuple[Any, list[str]]:
    """What is in a file; None, and what it asks for to be run, where it asks for that."""
    try:
        with zipfile.ZipFile(file) as archive:
            # torch.load does not look at the checksums of the archive that it reads.
            damaged = archive.testzip()
    except Exception as error:  # whatever is in place of what such a file begins and ends with
        raise _no_checkpoint(path, "it is not what torch.save writes, or cut short") from error
    if damaged is not None:
        raise _no_checkpoint(path, f"its entry {damaged} is damaged")
    with torch.serialization.safe_globals(_ALLOWED):
        try:
            file.seek(0)
            if foreign := torch.serialization.get_unsafe_globals_in_checkpoint(file):
                return None, foreign
            file.seek(0)
            return torch.load(file, map_location="cpu", weights_only=True), []
        except pickle.UnpicklingError as error:
            why = "it holds more than tensors, plain values and a command line"
            raise _no_checkpoint(path, why) from error
        except Exception as error:  # whatever a file made to mislead brings about
            line = str(error).strip().partition("\n")[0] or type(error).__name__
            raise _no_checkpoint(path, line) from error


def _no_checkpoint(path: Path, why: str) -> AmstError:
    return AmstError(
        f"{path} is no checkpoint of the released code: {why}",
        "Give a best_model.pth of it",
    )


@contextmanager
def saving(path: Path) -> Iterator[Path]:
    """``replacing`` for PyTorch and safetensors, whose words for a full disk are their own.

    Raises:
        HostError: the file cannot be written.
        OSError: the same, where it has a number.
    """
    try:
        with replacing(path) as temporary:
            yield temporary
    except (RuntimeError, SafetensorError) as error:
        raise HostError(
            f"{path} cannot be written ({str(error).splitlines()[0]})",
            "Make room (`amst clean` says what can go) and call again",
        ) from error


def write_file(path: Path, content: ReleasedFile, *, unimodal: bool) -> None:
    """Write a checkpoint that the released code reads, by rename.

    Args:
        path: the file.
        content: what it holds.
        unimodal: a model of a single modality has one accuracy, by a name of its own.
    """
    value: dict[str, Any] = {
        "model": dict(content.model),
        "args": argparse.Namespace(**content.args),
        "epoch": content.epoch,
    }
    if unimodal:
        value["best_acc"] = content.best_val_acc
    else:
        value["best_val_acc"] = content.best_val_acc
        value["best_test_acc"] = content.best_test_acc
    with saving(path) as temporary:
        torch.save(value, temporary)
