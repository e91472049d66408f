"""The shard: one HDF5 file of features with contiguous arrays, a checksum per row, stable bytes.

Layout, n rows (root attributes say the rest: format, dataset, shard, shards, settings,
settings_hash, classes, modalities, vocabulary, and their own checksum):

=================  ======================  ==========================================
``id``, ``group``  (n,) bytes, UTF-8
``label``          (n,) int64              index into ``classes``
``crc32``          (n,) uint32             over the row's id, group and label
``<m>/...``        see ``columns``         what a modality of each kind stores
``<m>/crc32``      (n,) uint32             over the row's bytes in all columns, in order
``<m>/path``       (n,) bytes, UTF-8       raw file, relative to the raw root; may be empty
``<m>/sha256``     (n,) bytes              of that file
=================  ======================  ==========================================
"""

import errno
import json
import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, Self
from weakref import ref

import h5py
import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from amst.config.run import AudioFeatures, Features, Kind, TextFeatures, VisualFeatures
from amst.errors import AmstError, unread
from amst.files import reading

FORMAT = 2
_REMEDY = "Delete the shard and run the extraction again"
_FEATURES: TypeAdapter[Features] = TypeAdapter(Features)

Array = NDArray[Any]


def columns(features: Features) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    """What a modality stores: column name -> (element type, shape of one row).

    Audio: ``features`` (frames, mel bins), ``seconds`` of the clip, its ``peak`` amplitude (1 is
    full scale). Visual: ``features`` (T, S, S, 3), ``size`` of the original (height, width),
    ``decoded`` frames of the clip, its frame ``rate`` (0 for a picture), ``damaged`` frames or
    packets met while decoding. Text: ``ids`` and ``mask``.
    """
    match features:
        case AudioFeatures():
            return {
                "features": (_little(features.dtype), (features.frames, features.mel_bins)),
                "seconds": (_little("float64"), ()),
                "peak": (_little("float32"), ()),
            }
        case VisualFeatures():
            side = features.size
            return {
                "features": (_little("uint8"), (features.frames, side, side, 3)),
                "size": (_little("int32"), (2,)),
                "decoded": (_little("int32"), ()),
                "rate": (_little("float64"), ()),
                "damaged": (_little("int32"), ()),
            }
        case TextFeatures():
            return {
                "ids": (_little("int32"), (features.tokens,)),
                "mask": (_little("uint8"), (features.tokens,)),
            }


def _little(name: str) -> np.dtype[Any]:
    return np.dtype(name).newbyteorder("<")


def attributes_checksum(values: Mapping[str, Any]) -> int:
    """CRC32 over root attributes, numbers and texts alike, without the checksum itself."""
    facts = [f"{name}={values[name]}" for name in sorted(values) if name != "crc32"]
    return zlib.crc32("\n".join(facts).encode())


def row_checksum(name: str, group: str, label: int) -> int:
    """CRC32 over what a row is, apart from its features."""
    return zlib.crc32(json.dumps([name, group, label]).encode())


def of_disk(error: Exception, path: Path) -> OSError | None:
    """What the disk has refused, which HDF5 tells in the texts of various errors; None if nothing.

    Args:
        error: of h5py.
        path: the file that it is told of.
    """
    found = re.search(r"\berrno = (\d+)", str(error))
    number = int(found[1]) if found else 0
    # a damaged file sends HDF5 to places that no file has
    if number in (0, errno.EINVAL):
        return None
    return OSError(number, os.strerror(number), str(path))


class Shard:
    """A shard opened for reading; context manager.

    Arrays lie in a memory map of the file, so a reader holds only what it touches, and any number
    of jobs read one shard at a time, on file systems without locks too. A shard that is deleted or
    replaced stays, for its readers, what they have opened.

    Attributes:
        path: the file.
        dataset: name of the dataset.
        index: number of the shard.
        shards: how many there are.
        classes: class names.
        modalities: modality name -> kind.
        settings: modality name -> settings of its features, as stored.
        settings_hash: hash of all that the features depend on.
        vocabulary: size of the tokenizer's vocabulary; None without text.

    Raises:
        AmstError: the file is missing, no shard, damaged, or has another format version.
        HostError: its disk does not give it.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._mapped: Callable[[], mmap | None] = lambda: None
        try:
            self._file = h5py.File(self.path, "r", locking=False)
        except FileNotFoundError:
            raise AmstError(f"shard {self.path} is missing", "Run the extraction again") from None
        except OSError as error:
            raise self._told(error, f"cannot be opened ({error})") from error
        try:
            self._read_attributes()
        except BaseException as error:
            self._file.close()
            if isinstance(error, AmstError) or not isinstance(error, Exception):
                raise
            # Texts that are none and numbers that are none, as damage makes them.
            raise self._told(error, "is damaged: its attributes") from error

    def _read_attributes(self) -> None:
        found = self._attribute("format")
        if found != FORMAT:
            raise AmstError(
                f"shard {self.path} has format {found}, this version reads {FORMAT}", _REMEDY
            )
        if self._attribute("crc32") != attributes_checksum(dict(self._file.attrs)):
            raise AmstError(f"shard {self.path} is damaged: its attributes", _REMEDY)
        self.dataset = str(self._attribute("dataset"))
        self.index = int(self._attribute("shard"))
        self.shards = int(self._attribute("shards"))
        self.settings: dict[str, dict[str, Any]] = json.loads(self._attribute("settings"))
        self.settings_hash = str(self._attribute("settings_hash"))
        self.classes: tuple[str, ...] = tuple(json.loads(self._attribute("classes")))
        self.modalities: dict[str, Kind] = json.loads(self._attribute("modalities"))
        self.vocabulary: int | None = json.loads(self._attribute("vocabulary"))

    def _attribute(self, name: str) -> Any:
        try:
            return self._file.attrs[name]
        except (KeyError, OSError, RuntimeError) as error:
            raise self._told(error, f"lacks its attribute {name!r}") from error

    def _told(self, error: Exception, damage: str) -> AmstError:
        """An error of h5py: the shard is not to be made again where it only could not be read."""
        refused = of_disk(error, self.path)
        return unread(f"shard {self.path}", refused or ValueError(), damage, _REMEDY)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; arrays taken from it stay valid."""
        self._file.close()

    def _content(self) -> mmap:
        """The file, mapped once for all arrays that there are; it takes memory as long as they do.

        It is the file that is open: what its name leads to by now may be another one, or none.
        """
        content = self._mapped()
        if content is None:
            with reading(self.path):
                content = mmap(self._file.id.get_vfd_handle(), 0, access=ACCESS_READ)
            self._mapped = ref(content)
        return content

    def __len__(self) -> int:
        return int(self._dataset("label").shape[0])

    @property
    def ids(self) -> list[str]:
        """Sample ids, (n,)."""
        return self.texts("id")

    @property
    def groups(self) -> list[str]:
        """Groups, (n,)."""
        return self.texts("group")

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class indices, (n,) int64, a copy in memory."""
        return np.asarray(self._values("label"), dtype=np.int64)

    def texts(self, name: str) -> list[str]:
        """A dataset of strings ('id', 'visual/path'), (n,).

        Raises:
            AmstError: it is not there or damaged.
        """
        try:
            return [bytes(value).decode() for value in self._values(name).astype("S")]
        except UnicodeDecodeError as error:
            raise AmstError(f"shard {self.path} is damaged: its {name!r}", _REMEDY) from error

    def array(self, name: str) -> Array:
        """A dataset ('audio/features'), read-only, as it lies in the file; empty without rows.

        Raises:
            AmstError: it is not there, or the file is cut short.
        """
        dataset = self._dataset(name)
        offset = dataset.id.get_offset()
        if offset is None or dataset.size == 0:
            return np.empty(dataset.shape, dataset.dtype)
        try:
            return np.ndarray(dataset.shape, dataset.dtype, self._content(), offset)
        except TypeError as error:  # the file is shorter than its own description says
            raise AmstError(f"shard {self.path} is cut short", _REMEDY) from error

    def _dataset(self, name: str) -> h5py.Dataset:
        try:
            return self._file[name]
        except (KeyError, OSError, RuntimeError) as error:
            raise self._told(error, f"lacks {name!r}") from error

    def _values(self, name: str) -> Array:
        dataset = self._dataset(name)
        try:
            return dataset[:]
        except (OSError, RuntimeError) as error:
            raise self._told(error, f"is damaged: its {name!r}") from error

    def columns(self, modality: str) -> dict[str, Array]:
        """All columns of a modality that its checksums cover, in their order."""
        features = _FEATURES.validate_python(self.settings[modality])
        return {name: self.array(f"{modality}/{name}") for name in columns(features)}

    def verify(self) -> None:
        """Compare every row with its checksum.

        Raises:
            AmstError: a row differs, or a column has not as many; names the shard and the first
                such sample or column.
        """
        self._check_shapes()
        facts = zip(self.ids, self.groups, self.labels.tolist(), strict=True)
        for row, (fact, checksum) in enumerate(zip(facts, self.array("crc32"), strict=True)):
            if row_checksum(*fact) != checksum:
                raise AmstError(
                    f"shard {self.path} is damaged: id, group or label of its row {row} "
                    f"({fact[0]}) do not match their checksum",
                    _REMEDY,
                )
        for modality in sorted(self.modalities):
            expected = self.array(f"{modality}/crc32")
            for row, checksum in enumerate(_checksums(self.columns(modality), len(self))):
                if checksum != expected[row]:
                    raise AmstError(
                        f"shard {self.path} is damaged: {modality} of sample "
                        f"{self.ids[row]} does not match its checksum",
                        _REMEDY,
                    )

    def _check_shapes(self) -> None:
        rows = (self._dataset("label").size,)
        wanted = dict.fromkeys(("label", "id", "group", "crc32"), rows)
        for modality in sorted(self.modalities):
            features = _FEATURES.validate_python(self.settings[modality])
            for name, (_, shape) in columns(features).items():
                wanted[f"{modality}/{name}"] = (*rows, *shape)
            wanted |= {f"{modality}/{name}": rows for name in ("crc32", "path", "sha256")}
        for name, shape in wanted.items():
            found = self._dataset(name).shape
            if found != shape:
                raise AmstError(
                    f"shard {self.path} is damaged: its {name!r} is of shape {found}, not {shape}",
                    _REMEDY,
                )


def _checksums(arrays: Mapping[str, Array], rows: int) -> Iterator[int]:
    for row in range(rows):
        checksum = 0
        for array in arrays.values():
            checksum = zlib.crc32(array[row].tobytes(), checksum)
        yield checksum
