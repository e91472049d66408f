"""Writing a shard: rows are collected, then written as one file, and verified.

A row's values are held in anonymous temporary files until the number of rows is known, so memory
does not grow with the shard, and a job that is killed while it decodes leaves nothing behind.
"""

import json
import tempfile
import zlib
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import h5py
import numpy as np

from amst.config.run import Features
from amst.features.shards import (
    FORMAT,
    Shard,
    attributes_checksum,
    columns,
    of_disk,
    row_checksum,
)
from amst.files import replacing

_COPY_BYTES = 1 << 24


@dataclass(frozen=True)
class Header:
    """What holds for a whole shard.

    Attributes:
        index: number of the shard, from 0.
        shards: how many shards the dataset has.
        classes: class names; a label is a position in it.
        features: modality name -> settings of its features.
        settings_hash: hash of all that the features depend on.
        vocabulary: size of the tokenizer's vocabulary; None without text.
    """

    dataset: str
    index: int
    shards: int
    classes: tuple[str, ...]
    features: Mapping[str, Features]
    settings_hash: str
    vocabulary: int | None = None

    def attributes(self) -> dict[str, Any]:
        """The root attributes of the file."""
        settings = {name: value.model_dump(mode="json") for name, value in self.features.items()}
        values = {
            "format": FORMAT,
            "dataset": self.dataset,
            "shard": self.index,
            "shards": self.shards,
            "settings": json.dumps(settings, sort_keys=True),
            "settings_hash": self.settings_hash,
            "classes": json.dumps(list(self.classes)),
            "modalities": json.dumps({name: f.kind for name, f in self.features.items()}),
            "vocabulary": json.dumps(self.vocabulary),
        }
        return {**values, "crc32": attributes_checksum(values)}


@dataclass(frozen=True)
class Source:
    """A raw file: path relative to the raw root, hexadecimal SHA-256; both empty without a file."""

    path: str = ""
    sha256: str = ""


@dataclass(frozen=True)
class Row:
    """One sample on its way into a shard.

    Attributes:
        label: class index.
        values: modality -> column -> value.
        sources: modality -> raw file.
    """

    id: str
    label: int
    group: str
    values: Mapping[str, Mapping[str, Any]]
    sources: Mapping[str, Source]


@dataclass
class _Column:
    """Rows of one column, held in a temporary file that has no name."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    spool: BinaryIO

    def append(self, value: Any) -> bytes:
        array = np.asarray(value)
        if array.shape != self.shape:
            raise ValueError(f"a row of shape {array.shape} where {self.shape} is stored")
        data = np.ascontiguousarray(array, dtype=self.dtype).tobytes()
        self.spool.write(data)
        return data

    def write(self, group: h5py.Group, name: str, rows: int) -> None:
        target = group.create_dataset(name, shape=(rows, *self.shape), dtype=self.dtype)
        row_bytes = self.dtype.itemsize * int(np.prod(self.shape))
        step = max(1, _COPY_BYTES // row_bytes)
        self.spool.seek(0)
        for first in range(0, rows, step):
            last = min(first + step, rows)
            block = self.spool.read((last - first) * row_bytes)
            target[first:last] = np.frombuffer(block, self.dtype).reshape(-1, *self.shape)


@dataclass
class _Modality:
    columns: dict[str, _Column]
    crc32: list[int] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)

    def append(self, values: Mapping[str, Any], source: Source) -> None:
        checksum = 0
        for name, column in self.columns.items():
            checksum = zlib.crc32(column.append(values[name]), checksum)
        self.crc32.append(checksum)
        self.sources.append(source)

    def write(self, group: h5py.Group) -> None:
        for name, column in self.columns.items():
            column.write(group, name, len(self.crc32))
        group.create_dataset("crc32", data=np.array(self.crc32, "<u4"))
        _write_texts(group, "path", [source.path for source in self.sources])
        _write_texts(group, "sha256", [source.sha256 for source in self.sources])


class ShardWriter:
    """Collects rows and writes them as one shard; equal rows give equal bytes.

    Use as a context manager: the file appears, verified, when the block succeeds, and not at all
    when it raises.
    """

    def __init__(self, path: Path, header: Header) -> None:
        self._path = path
        self._header = header
        self._stack = ExitStack()
        self._ids: list[str] = []
        self._labels: list[int] = []
        self._groups: list[str] = []
        self._modalities: dict[str, _Modality] = {}

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        for name, features in sorted(self._header.features.items()):
            self._modalities[name] = _Modality(
                {
                    column: _Column(dtype, shape, self._spool())
                    for column, (dtype, shape) in columns(features).items()
                }
            )
        return self

    def _spool(self) -> BinaryIO:
        # Beside the shard, where there is room for it; /tmp of a node may be small.
        return self._stack.enter_context(tempfile.TemporaryFile(dir=self._path.parent))

    def append(self, row: Row) -> None:
        """Add a row.

        Raises:
            ValueError: a value has another shape than the settings say.
        """
        for name, modality in self._modalities.items():
            modality.append(row.values[name], row.sources.get(name, Source()))
        self._ids.append(row.id)
        self._labels.append(row.label)
        self._groups.append(row.group)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            with self._stack:
                if kind is None:
                    self._write()
        except OSError as refused:
            error = refused  # closing what the rows are held in writes, too
            raise
        finally:
            if isinstance(error, OSError) and error.errno and error.filename is None:
                error.filename = str(self._path)  # what the rows are held in has no name

    def _write(self) -> None:
        with replacing(self._path) as temporary:
            try:
                self._fill(temporary)
            except RuntimeError as error:
                # So h5py raises what HDF5 could not write when it closed the file.
                if refused := of_disk(error, self._path):
                    raise refused from error
                raise
            with Shard(temporary) as shard:
                shard.verify()

    def _fill(self, path: Path) -> None:
        with _new_file(path) as file:
            file.attrs.update(self._header.attributes())
            _write_texts(file, "id", self._ids)
            _write_texts(file, "group", self._groups)
            file.create_dataset("label", data=np.array(self._labels, "<i8"))
            facts = zip(self._ids, self._groups, self._labels, strict=True)
            checksums = [row_checksum(*row) for row in facts]
            file.create_dataset("crc32", data=np.array(checksums, "<u4"))
            for name, modality in self._modalities.items():
                modality.write(file.create_group(name))


def _new_file(path: Path) -> h5py.File:
    """An HDF5 file that writes small arrays when told, not when their objects are let go.

    There Python ignores what a full disk refuses, and HDF5 2.0 ends the process some calls later.
    """
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_libver_bounds(h5py.h5f.LIBVER_EARLIEST, h5py.h5f.LIBVER_LATEST)
    access.set_file_locking(False, False)
    access.set_sieve_buf_size(0)
    return h5py.File(h5py.h5f.create(bytes(path), h5py.h5f.ACC_TRUNC, fapl=access))


def _write_texts(group: h5py.Group, name: str, texts: list[str]) -> None:
    data = [text.encode() for text in texts]
    length = max([1, *map(len, data)])
    group.create_dataset(name, data=np.array(data, h5py.string_dtype("utf-8", length)))
