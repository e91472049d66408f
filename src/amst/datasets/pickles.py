"""Reading pickles from strangers: plain containers, numbers, strings and numpy arrays only.

``pickle.load`` runs whatever a file tells it to. Here every name that a pickle asks for is looked
up in a short table; anything else refuses the file.
"""

import io
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from amst.datasets.rawfiles import unreadable
from amst.errors import AmstError


def read_pickle(path: Path) -> Any:
    """The plain value in a pickle file.

    Raises:
        AmstError: the file is missing or cannot be read, is no complete pickle, or asks for
            anything but plain containers, numbers, strings and numpy arrays of these.
    """
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise AmstError(
            f"there is no file {path}", "See the dataset's page for the layout"
        ) from None
    except OSError as error:
        raise unreadable(path, error) from None
    again = "It was not executed. Get the file again from the dataset's own page"
    try:
        # Latin-1 reads the byte strings and arrays that Python 2 wrote.
        return _PlainUnpickler(io.BytesIO(content), encoding="latin1").load()
    except _RefusedError as error:
        raise AmstError(
            f"{path} is a pickle that asks for {error}, which no data needs", again
        ) from None
    except Exception as error:
        # A damaged pickle can raise nearly anything from within the unpickler.
        raise AmstError(
            f"{path} is no complete pickle ({type(error).__name__}: {error})",
            "Compare its size with the source; a Git LFS pointer or an error page is short text",
        ) from None


class _RefusedError(Exception):
    """A pickle asks for a name that is not in the table."""


class _DType:
    """Stands for a numpy dtype while it is unpickled, so that no forged state reaches numpy."""

    def __init__(self, code: str, *_: Any) -> None:
        if not isinstance(code, str) or not re.fullmatch(r"[biufcSUO]\d+", code):
            raise _RefusedError(f"the numpy dtype {code!r}")
        self.code = code
        self.order: Literal["<", ">", "=", "|"] = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Take the byte order; fields and sub-arrays are refused."""
        order, *structure = state[1:5]
        if order not in ("<", ">", "=", "|") or any(each is not None for each in structure):
            raise _RefusedError("a structured numpy dtype")
        self.order = order

    def resolved(self) -> np.dtype[Any]:
        """The real dtype."""
        return np.dtype(self.code).newbyteorder(self.order)


class _ArrayClass:
    """Stands for the class ``numpy.ndarray`` where a pickle names it; it cannot be called."""


class _Array(np.ndarray[Any, np.dtype[Any]]):
    """An array whose state is checked before numpy sees it."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        version, shape, dtype, fortran, content = state
        if not isinstance(dtype, _DType):
            raise _RefusedError("a numpy array without a plain dtype")
        if isinstance(content, str):
            content = content.encode("latin1")
        super().__setstate__((version, shape, dtype.resolved(), fortran, content))


def _empty_array(kind: object, *_: Any) -> _Array:
    if kind is not _ArrayClass:
        raise _RefusedError("an array of a class of its own")
    return _Array(0)


def _from_buffer(
    content: bytes | bytearray, dtype: _DType, shape: tuple[int, ...], order: Literal["C", "F"]
) -> np.ndarray[Any, np.dtype[Any]]:
    """How protocol 5 writes arrays: the bytes are checked by numpy, which makes no objects here."""
    if not isinstance(dtype, _DType) or not isinstance(content, bytes | bytearray):
        raise _RefusedError("a numpy array without plain content")
    return np.frombuffer(content, dtype=dtype.resolved()).reshape(shape, order=order)


def _scalar(dtype: _DType, content: bytes | str) -> Any:
    raw = content.encode("latin1") if isinstance(content, str) else content
    return np.frombuffer(raw, dtype=dtype.resolved())[0].item()


def _encode(text: str, encoding: str) -> bytes:
    """How protocol 2 writes bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise _RefusedError(f"the codec {encoding!r}")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """How protocol 2 writes the empty bytes."""
    return b""


_PLAIN: dict[tuple[str, str], Callable[..., Any] | type] = {
    ("builtins", "bytes"): _no_bytes,
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("collections", "OrderedDict"): dict,
    ("_codecs", "encode"): _encode,
    ("numpy", "ndarray"): _ArrayClass,
    ("numpy", "dtype"): _DType,
    ("numpy.core.multiarray", "_reconstruct"): _empty_array,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
}


class _PlainUnpickler(pickle.Unpickler):
    """An unpickler that knows the names of the table and no others."""

    def find_class(self, module: str, name: str) -> Any:
        """The entry of the table for a name."""
        module = module.replace("numpy._core", "numpy.core").replace("__builtin__", "builtins")
        if (module, name) not in _PLAIN:
            raise _RefusedError(f"{module}.{name}")
        return _PLAIN[module, name]

    def persistent_load(self, pid: Any) -> Any:
        """Persistent ids point outside the file."""
        raise _RefusedError(f"the outside object {pid!r}")
