"""Parts of a split, from the shards that a manifest names into memory or mapped from disk."""

import math
import resource
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from amst.config.run import Kind, Modality
from amst.datasets.base import PARTS, Part
from amst.datasets.splitfile import Split
from amst.errors import AmstError
from amst.features.manifest import Manifest, ShardEntry, read_manifest
from amst.features.shards import Shard
from amst.files import sha256_of
from amst.loading.staged import staged

Residency = Literal["device", "host", "stream"]
"""Where a part's stored features lie: on the device, in host memory, or on disk, mapped."""

NEEDED: dict[Kind, tuple[str, ...]] = {
    "audio": ("features",),
    "visual": ("features",),
    "text": ("ids", "mask"),
}
"""Columns of a shard that a batch of each kind is made of."""

_HASHING_THREADS = 4
_FILES = 1 << 16  # that may be open, where the hard limit allows as many
_LARGE_ROW = 1 << 14  # bytes; below, a copy of its own costs more than it saves
_PIECE = 1 << 26  # bytes of a column on their way to a device
_NAMED_IDS = 5  # how many ids an error message lists


class Stored(Protocol):
    """The stored columns of one modality of a part, n rows."""

    def take(self, positions: Tensor) -> dict[str, Tensor]:
        """Rows by position: column name -> (B, ...) in the stored element type."""
        ...

    def on(self, device: torch.device) -> "Resident":
        """The same columns in a device's memory."""
        ...


@dataclass(frozen=True)
class Resident:
    """Columns held in memory, on the host or a device: name -> (n, ...)."""

    columns: Mapping[str, Tensor]

    def take(self, positions: Tensor) -> dict[str, Tensor]:
        """Rows by position, which lie where the columns lie."""
        return {name: _select(column, positions) for name, column in self.columns.items()}

    def on(self, device: torch.device) -> "Resident":
        """The same columns in a device's memory."""
        return Resident({name: column.to(device) for name, column in self.columns.items()})


@dataclass(frozen=True)
class Mapped:
    """Columns left on disk: per column the shards' arrays, per row (shard, row in it)."""

    columns: Mapping[str, Sequence[NDArray[Any]]]
    places: NDArray[np.int64]

    def take(self, positions: Tensor) -> dict[str, Tensor]:
        """Rows by position, copied from the page cache or the disk."""
        places = self.places[positions.numpy()]
        return {name: _gather(arrays, places) for name, arrays in self.columns.items()}

    def on(self, device: torch.device) -> Resident:
        """The same columns in a device's memory; the host holds a piece of a column at a time."""
        return Resident({name: self._whole(name, device) for name in self.columns})

    def _whole(self, name: str, device: torch.device) -> Tensor:
        arrays, like = self.columns[name], self.columns[name][0]
        kind, shape = _ELEMENTS[like.dtype.name], (len(self.places), *like.shape[1:])
        column = torch.empty(shape, dtype=kind, device=device)
        rows = max(1, _PIECE // (like.itemsize * math.prod(like.shape[1:])))
        for first in range(0, len(self.places), rows):
            column[first : first + rows] = _gather(arrays, self.places[first : first + rows])
        return column


def _select(column: Tensor, positions: Tensor) -> Tensor:
    if column.is_cuda or column[0].nbytes < _LARGE_ROW:
        return column.index_select(0, positions)
    source = column.numpy()
    return _copy([source[position] for position in positions.tolist()], source.dtype)


def _gather(arrays: Sequence[NDArray[Any]], places: NDArray[np.int64]) -> Tensor:
    """Rows of several arrays at (array, row in it)."""
    return _copy([arrays[array][row] for array, row in places.tolist()], arrays[0].dtype)


def _copy(rows: Sequence[NDArray[Any]], kind: np.dtype[Any]) -> Tensor:
    """Rows, at least one, side by side.

    One after the other: indexing with many at once makes a copy of them all before it assigns
    them, and the threads of ``index_select`` wait busily afterwards, in the way of those that cut
    pictures.
    """
    # Not aligned as PyTorch would: no arithmetic is done on them, and freed memory is found again.
    out = np.empty((len(rows), *rows[0].shape), kind)
    for target, row in zip(out, rows, strict=True):
        target[...] = row
    return torch.from_numpy(out)


_ELEMENTS = {
    "float16": torch.float16,
    "float32": torch.float32,
    "uint8": torch.uint8,
    "int32": torch.int32,
}


@dataclass(frozen=True)
class PartData:
    """One part of a split, ready to be cut into batches.

    Attributes:
        name: 'train', 'val' or 'test'.
        ids: n sample ids, in the split's order.
        labels: (n,) int64 class indices, in host memory.
        inputs: modality name -> its stored columns.
        sizes: visual modality name -> (n, 2) height and width of the original pictures.
        rejected: ids of the part that the dataset had to give up, with the reason in the manifest.
    """

    name: Part
    ids: tuple[str, ...]
    labels: Tensor
    inputs: Mapping[str, Stored]
    sizes: Mapping[str, Tensor]
    rejected: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def on(self, device: torch.device) -> "PartData":
        """The same part with its columns in a device's memory."""
        moved = {name: stored.on(device) for name, stored in self.inputs.items()}
        return PartData(self.name, self.ids, self.labels, moved, self.sizes, self.rejected)


class FeatureStore:
    """The shards of one manifest, checked and open for reading.

    Attributes:
        manifest: what the manifest says.

    Args:
        manifest: its path.
        stage: folder on the node's own disk to copy the shards to and read them from.

    Raises:
        AmstError: a shard is missing, is not the one the manifest names (by SHA-256), or has
            another format version; names the file.
    """

    def __init__(self, manifest: Path | str, stage: Path | None = None) -> None:
        self.manifest: Manifest = read_manifest(manifest)
        _allow_open_files()
        entries, originals = self.manifest.shards, self.manifest.paths(manifest)
        paths = staged(originals, entries, stage) if stage else originals
        with ThreadPoolExecutor(_HASHING_THREADS) as pool:
            here = zip(paths, originals, entries, strict=True)
            own = [(path, entry) for path, original, entry in here if path == original]
            for checked in [pool.submit(_check_file, path, entry) for path, entry in own]:
                checked.result()  # raises; copies have been checked when they were made
        self._shards = [_open(path, self.manifest) for path in paths]
        self._labels = [shard.labels for shard in self._shards]
        self._places = {
            sample: (index, row)
            for index, shard in enumerate(self._shards)
            for row, sample in enumerate(shard.ids)
        }

    def part(
        self,
        split: Split,
        name: Part,
        modalities: Mapping[str, Modality],
        mapped: bool = False,
    ) -> PartData:
        """Read a part, and nothing of the others.

        Args:
            split: the split.
            name: 'train', 'val' or 'test'.
            modalities: modality name -> settings; only these are read.
            mapped: leave the features on disk, mapped, instead of reading them into memory.

        Raises:
            AmstError: there is no such part, the split names samples that are neither in the
                shards nor rejected, the part has none with features, or the shards hold other
                features than ``modalities`` wants.
        """
        self._check_features(modalities)
        ids, rejected = self._known(split, name)
        places = np.array([self._places[sample] for sample in ids], dtype=np.int64)
        inputs: dict[str, Stored] = {}
        sizes = {}
        for modality, settings in modalities.items():
            stored = Mapped(self._columns(modality, NEEDED[settings.kind]), places)
            inputs[modality] = stored if mapped else Resident(stored.take(torch.arange(len(ids))))
            if settings.kind == "visual":
                sizes[modality] = _gather(self._columns(modality, ("size",))["size"], places)
        return PartData(
            name,
            ids,
            torch.from_numpy(self._labels_at(places)),
            inputs,
            sizes,
            rejected,
        )

    def labels(self, split: Split, name: Part) -> NDArray[np.int64]:
        """Class indices of a part, (n,), without its features.

        Raises:
            AmstError: the split names samples that are neither in the shards nor rejected, or the
                part has none with features.
        """
        ids, _ = self._known(split, name)
        return self._labels_at(np.array([self._places[sample] for sample in ids], dtype=np.int64))

    def _labels_at(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.array([self._labels[shard][row] for shard, row in places], dtype=np.int64)

    def row_bytes(self, modalities: Mapping[str, Modality]) -> int:
        """Bytes of memory that one resident sample takes."""
        columns = (
            arrays[0]
            for name, settings in modalities.items()
            for arrays in self._columns(name, NEEDED[settings.kind]).values()
        )
        return sum(column.itemsize * math.prod(column.shape[1:]) for column in columns)

    def _columns(self, modality: str, names: Sequence[str]) -> dict[str, list[NDArray[Any]]]:
        return {
            name: [shard.array(f"{modality}/{name}") for shard in self._shards] for name in names
        }

    def _known(self, split: Split, name: Part) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Ids of a part that have features, and those that were rejected."""
        if name not in PARTS:
            raise AmstError(f"a split has no part {name!r}", f"Valid names: {', '.join(PARTS)}")
        given_up = {row.id for row in self.manifest.rejected}
        wanted = split.parts[name]
        lost = [sample for sample in wanted if sample not in self._places]
        unknown = [sample for sample in lost if sample not in given_up]
        if unknown:
            named = ", ".join(unknown[:_NAMED_IDS]) + (", ..." if len(unknown) > _NAMED_IDS else "")
            raise AmstError(
                f"{len(unknown)} ids of part {name!r} of split {split.name!r} are neither in the "
                f"shards of {self.manifest.dataset} nor rejected: {named}",
                "Make the split and the shards from the same raw data",
            )
        ids = tuple(sample for sample in wanted if sample in self._places)
        if not ids:
            raise AmstError(
                f"part {name!r} of split {split.name!r} has no sample with features",
                "The data report lists the rejected samples",
            )
        return ids, tuple(lost)

    def _check_features(self, modalities: Mapping[str, Modality]) -> None:
        remedy = "Run the extraction again with the features of this configuration"
        for name, settings in modalities.items():
            found = self.manifest.settings.get(name)
            if found is None:
                raise AmstError(f"the shards of {self.manifest.dataset} lack {name!r}", remedy)
            stored, wanted = found.model_dump(), settings.features.model_dump()
            differing = [key for key in wanted if stored.get(key) != wanted[key]]
            if differing:
                key = differing[0]
                raise AmstError(
                    f"{key} of {name!r} is {stored.get(key)} in the shards of "
                    f"{self.manifest.dataset}, and {wanted[key]} in the run's settings",
                    remedy,
                )


def _allow_open_files() -> None:
    """Let this process have as many files open as the mapped parts may need, where it may ask.

    Each shard is open twice, so that some hundred are more than the 1024 files that Linux allows at
    first.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(OSError, ValueError):  # a system may have a lower limit than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _check_file(path: Path, entry: ShardEntry) -> None:
    remedy = "Delete the shard and run the extraction again"
    if not path.is_file():
        raise AmstError(f"shard {path} is missing", "Run the extraction again")
    if sha256_of(path) == entry.sha256:
        return
    with Shard(path) as shard:
        shard.verify()  # names the damaged sample, if it is one
    raise AmstError(f"shard {path} is not the file that the manifest names", remedy)


def _open(path: Path, manifest: Manifest) -> Shard:
    shard = Shard(path)
    if shard.classes != manifest.classes:
        raise AmstError(
            f"shard {path} has other classes than the manifest of {manifest.dataset}",
            "Delete the shard and run the extraction again",
        )
    return shard
