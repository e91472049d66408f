"""Working checkpoints of a run: all that has state, so that a killed run ends as if undisturbed.

A folder holds the two newest states (``epoch-0003-batch-000012.pt``: so many batches of that epoch
are done) and the weights of the epochs that are the best so far (``weights-0002.safetensors``),
which are written once and not with every state; after the last epoch also what the linear
evaluation has fitted (``fits.pt``), if that takes long. Its name carries the digest of all that
the numbers depend on, so that a changed run never continues an old one.
"""

import os
import re
import sys
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from amst.errors import AmstError, HostError, no_memory, not_given, unread
from amst.files import opened, replacing, sha256_of

FORMAT = 1
_KEPT = 2
_CONTAINERS = {dict, OrderedDict, Counter, list, tuple, set, torch.Size}
_PLAIN = {int, float, complex, str, bytes, bytearray, bool, type(None), torch.dtype, torch.device}
_STATE = re.compile(r"epoch-(\d+)-batch-(\d+)\.pt")
_WEIGHTS = re.compile(r"weights-(\d+)\.safetensors")


@contextmanager
def _storing(path: Path) -> Iterator[Path]:
    """``replacing``, in one line where the disk refuses, which its libraries say in their own ways.

    Raises:
        HostError: the file cannot be written.
    """
    try:
        with replacing(path) as temporary:
            yield temporary
    except (torch.AcceleratorError, torch.OutOfMemoryError):
        raise  # of a GPU, which writing waits for
    except (OSError, RuntimeError, SafetensorError) as error:
        told = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise HostError(
            f"{path} cannot be written ({told})",
            "Make room (`amst clean` says what can go) or mend its permissions; then `amst retry`",
        ) from error


class CheckpointFolder:
    """The working checkpoints of one run.

    Attributes:
        path: the folder; made when something is saved.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # State file -> epochs whose weights it refers to, of the states seen by this process.
        self._refers: dict[Path, set[int]] = {}

    def save(self, epoch: int, batch: int, state: Mapping[str, Any]) -> Path:
        """Save a state after ``batch`` batches of ``epoch``, by rename; drop the oldest.

        Args:
            epoch: counted from 0.
            batch: batches of it that are done.
            state: plain containers and tensors; ``weights`` in it maps the epochs whose weights
                it refers to, to what ``save_weights`` returned.

        Raises:
            AmstError: something in it could not be read again.
        """
        check_plain(state)
        path = self.path / f"epoch-{epoch:04d}-batch-{batch:06d}.pt"
        with _storing(path) as temporary:
            torch.save({"format": FORMAT, **state}, temporary)
        self._refers[path] = set(state["weights"])
        for old in self._states()[:-_KEPT]:
            old.unlink()
        self._drop_weights()
        return path

    def save_weights(self, epoch: int, weights: Mapping[str, Tensor]) -> str:
        """Keep the weights of an epoch, by rename.

        Returns:
            Hexadecimal SHA-256 of the file, for the state that refers to it.
        """
        path = self.weights_path(epoch)
        with _storing(path) as temporary:
            on_host = {name: value.cpu().contiguous() for name, value in weights.items()}
            save_file(on_host, temporary)
        return sha256_of(path)

    def weights_path(self, epoch: int) -> Path:
        """Where the weights of a best epoch are."""
        return self.path / f"weights-{epoch:04d}.safetensors"

    def load(self) -> dict[str, Any] | None:
        """The newest state that is whole; None when there is none.

        A damaged one is named on standard error and removed.

        Raises:
            HostError: the disk or the memory does not let it be read; nothing is removed.
        """
        self._drop_unfinished()
        for path in reversed(self._states()):
            try:
                state = self._read(path)
                self._refers[path] = set(state["weights"])
                return state
            except HostError:
                raise
            except Exception as error:  # whatever a damaged file makes the reader raise
                print(
                    f"checkpoint {path} is damaged ({_line(error)}); going back to the one before",
                    file=sys.stderr,
                    flush=True,
                )
                path.unlink()
        return None

    def save_fits(self, state: Mapping[str, Any]) -> None:
        """Keep what the linear evaluation has fitted so far, by rename.

        Args:
            state: plain containers and tensors.
        """
        with _storing(self._fits) as temporary:
            torch.save({"format": FORMAT, **state}, temporary)

    def load_fits(self) -> dict[str, Any] | None:
        """What ``save_fits`` was given last; None when there is nothing whole.

        Raises:
            HostError: the disk or the memory does not let it be read.
        """
        if not self._fits.is_file():
            return None
        try:
            return _read(self._fits)
        except HostError:
            raise
        except Exception as error:  # whatever a damaged file makes the reader raise
            said = f"{self._fits} is damaged ({_line(error)}); fitting anew"
            print(said, file=sys.stderr, flush=True)
            return None

    @property
    def _fits(self) -> Path:
        return self.path / "fits.pt"

    def progress(self) -> tuple[int, int] | None:
        """(epoch, batch) of the newest state; None when there is none."""
        states = self._states()
        return _position(states[-1]) if states else None

    def remove(self) -> None:
        """Remove the folder with all checkpoints."""
        if self.path.is_dir():
            for path in self.path.iterdir():
                path.unlink()
            self.path.rmdir()

    def _states(self) -> list[Path]:
        try:
            found = [path for path in self.path.iterdir() if _STATE.fullmatch(path.name)]
        except FileNotFoundError:
            return []
        return sorted(found, key=_position)

    def _read(self, path: Path) -> dict[str, Any]:
        state = _read(path)
        for epoch, digest in state["weights"].items():
            weights = self.weights_path(epoch)
            with _refused_told(weights):
                found = sha256_of(weights)
            if found != digest:
                raise ValueError(f"{weights.name} is not the file it refers to")
        return state

    def _drop_weights(self) -> None:
        """Remove weights that no kept state refers to, once it is known what each refers to."""
        kept = self._states()
        if all(path in self._refers for path in kept):
            wanted = set().union(*(self._refers[path] for path in kept))
            for path in self._weights():
                if _epoch(path) not in wanted:
                    path.unlink()

    def _weights(self) -> Iterable[Path]:
        return [path for path in self.path.iterdir() if _WEIGHTS.fullmatch(path.name)]

    def _drop_unfinished(self) -> None:
        """Remove what a killed writer left under a temporary name."""
        for path in self.path.glob(".*"):
            path.unlink()


@contextmanager
def _refused_told(path: Path) -> Iterator[None]:
    """Tell apart what this machine does not give from what is damaged.

    Raises:
        HostError: the disk does not give the file, or it does not fit into the memory.
    """
    try:
        yield
    except Exception as error:
        if refused := not_given(path, error):
            raise HostError(
                refused.message,
                "`amst retry` when that has passed; where it stays so, delete the file: the run "
                "goes on from what else is saved",
            ) from error
        if no_memory(error):
            raise HostError(
                f"{path} does not fit into the memory that this process may take",
                "Raise mem_mb of the training jobs; then `amst retry`",
            ) from error
        raise


def _read(path: Path) -> dict[str, Any]:
    with _refused_told(path), opened(path) as file:
        with zipfile.ZipFile(file) as archive:
            # torch.load does not look at the checksums of the archive that it reads.
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"checksum of {damaged}")
        file.seek(0)
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    if state["format"] != FORMAT:
        raise ValueError(f"format {state['format']}, this version reads {FORMAT}")
    return state


def check_plain(value: Any, where: str = "") -> None:
    """Refuse what could be written and not be read: states are read as data, not as programs.

    Args:
        value: a state, or something in it.
        where: its place in the state.

    Raises:
        AmstError: names the first type that is none of data, and its place.
    """
    if isinstance(value, Mapping) and type(value) in _CONTAINERS:
        for name, each in value.items():
            check_plain(name, where)
            check_plain(each, f"{where}.{name}" if where else str(name))
    elif type(value) in _CONTAINERS:
        for each in value:
            check_plain(each, where)
    elif not (isinstance(value, Tensor) or type(value) in _PLAIN):
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        raise AmstError(
            f"a checkpoint cannot hold a {kind} ({where})",
            "Let state_dict of the method give plain containers, numbers, texts and tensors, as by "
            "list(...), float(...) or torch.as_tensor(...), and load_state_dict take them back",
        )


def load_weights(path: Path) -> dict[str, Tensor]:
    """Weights by name, in host memory.

    Raises:
        AmstError: the file is missing or no safetensors file.
    """
    try:
        path.open("rb").close()  # safetensors calls missing whatever it cannot open
        return load_file(path)
    except Exception as error:
        fault, remedy = f"holds no weights ({_line(error)})", "Give weights.safetensors of a run"
        raise unread(path, _numbered(error), fault, remedy) from error


def _numbered(error: Exception) -> Exception:
    """What the disk has refused, where safetensors and PyTorch have only its text and number."""
    text = str(error)
    for found in re.finditer(r"\((?:os error )?(\d+)\)", text):
        number = int(found[1])
        if os.strerror(number) in text:
            return OSError(number, os.strerror(number))
    return error


def _position(path: Path) -> tuple[int, int]:
    found = _STATE.fullmatch(path.name)
    assert found
    return int(found[1]), int(found[2])


def _epoch(path: Path) -> int:
    found = _WEIGHTS.fullmatch(path.name)
    assert found
    return int(found[1])


def _line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
