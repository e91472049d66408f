"""The manifest: the one file through which runs meet a dataset's shards.

Reading it needs neither torch nor HDF5: the light set-up of a login node does it.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from amst.config.run import Features, Kind, settings_hash
from amst.datasets.base import Dataset, Rejected
from amst.errors import AmstError
from amst.features.samples import read_rejected
from amst.files import sha256_of, write_json

if TYPE_CHECKING:
    from amst.features.shards import Shard

FORMAT = 1
LOST_LIMIT = 0.005
"""Share of a dataset's samples that may be lost before the chain stops."""

_FEATURES: TypeAdapter[dict[str, Features]] = TypeAdapter(dict[str, Features])


class ShardEntry(BaseModel):
    """One shard: its file relative to the manifest's folder, that file's SHA-256, its rows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    sha256: str
    samples: int


class Manifest(BaseModel):
    """All shards of one dataset, and what every reader needs to know of them.

    Attributes:
        classes: class names; a label is a position in it.
        modalities: modality name -> kind.
        settings: modality name -> settings of its features.
        settings_hash: hash of all that the features depend on.
        vocabulary: size of the tokenizer's vocabulary; None without text.
        samples: number of rows in all shards.
        rejected: the samples that could not be used.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = FORMAT
    dataset: str
    classes: tuple[str, ...]
    modalities: dict[str, Kind]
    settings: dict[str, Features]
    settings_hash: str
    vocabulary: int | None
    shards: tuple[ShardEntry, ...]
    samples: int
    rejected: tuple[Rejected, ...]

    def paths(self, manifest: Path | str) -> list[Path]:
        """The shard files, given where the manifest itself lies."""
        return [Path(manifest).parent / entry.file for entry in self.shards]


def features_hash(dataset: Dataset, features: Mapping[str, Features]) -> str:
    """Hash of all that features depend on: the dataset's facts and the settings per modality."""
    settings = {name: value.model_dump(mode="json") for name, value in features.items()}
    return settings_hash({"dataset": dataset.fingerprint(), "features": settings})


def read_manifest(path: Path | str) -> Manifest:
    """Read and check a manifest.

    Raises:
        AmstError: the file is no manifest, or one of another format version.
    """
    path = Path(path)
    remedy = "Delete it and run the preparation of the dataset again"
    try:
        value: Any = json.loads(path.read_text(encoding="utf-8"))
        found = value.get("format")
    except FileNotFoundError as error:
        raise AmstError(
            f"there is no manifest {path}", f"Prepare the dataset: snakemake {path}"
        ) from error
    except (OSError, ValueError, AttributeError) as error:
        raise AmstError(f"{path} is not a manifest ({error})", remedy) from error
    if found != FORMAT:
        raise AmstError(f"{path} has manifest format {found}, this version reads {FORMAT}", remedy)
    try:
        return Manifest.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise AmstError(f"{path}: {where}: {first['msg']}", remedy) from error


def write_manifest(
    dataset: Dataset,
    features: Mapping[str, Features],
    shards: Sequence[Path],
    rejected: Sequence[Path],
    out: Path,
    lost_limit: float = LOST_LIMIT,
) -> Manifest:
    """Verify every shard row by row and write the manifest that names them.

    Args:
        dataset: the dataset.
        features: modality name -> settings the shards must have been made with.
        shards: the shard files in order, all of them.
        rejected: the lists of rejected samples: of the raw manifest and of each shard.
        out: the manifest, by rename.
        lost_limit: share of samples that may be lost.

    Raises:
        AmstError: a shard is damaged, belongs to another dataset or was made with other settings;
            a sample is in two shards; more samples are lost than the limit allows.
    """
    # Here, since HDF5 is not part of the light set-up, which reads manifests.
    from amst.features.shards import Shard

    entries: list[ShardEntry] = []
    vocabularies: set[int | None] = set()
    seen: dict[str, Path] = {}
    for index, path in enumerate(shards):
        with Shard(path) as shard:
            _check_belongs(shard, dataset, features, index, len(shards))
            shard.verify()
            for sample in shard.ids:
                _check_new(sample, path, seen)
            vocabularies.add(shard.vocabulary)
            file = os.path.relpath(path, out.parent)
            entries.append(ShardEntry(file=file, sha256=sha256_of(path), samples=len(shard)))
    lost = tuple(row for path in rejected for row in read_rejected(path))
    manifest = Manifest(
        dataset=dataset.name,
        classes=dataset.classes,
        modalities=dict(dataset.modalities),
        settings=_FEATURES.validate_python({name: features[name] for name in dataset.modalities}),
        settings_hash=features_hash(dataset, features),
        vocabulary=vocabularies.pop() if len(vocabularies) == 1 else None,
        shards=tuple(entries),
        samples=len(seen),
        rejected=lost,
    )
    _check_lost(manifest, rejected, lost_limit)
    write_json(out, manifest.model_dump(mode="json"))
    return manifest


def totals(manifest: Manifest, expected: int | None) -> str:
    """One line: samples found, expected and rejected.

    Args:
        manifest: the dataset's manifest.
        expected: ``Dataset.expected_samples``.
    """
    wanted = "" if expected is None else f" of {expected} expected"
    lost = len(manifest.rejected)
    return f"{manifest.dataset}: {manifest.samples} samples{wanted}, {lost} rejected"


def _check_belongs(
    shard: "Shard", dataset: Dataset, features: Mapping[str, Features], index: int, count: int
) -> None:
    remedy = "Delete the shard and run the extraction again"
    if (shard.index, shard.shards) != (index, count):
        raise AmstError(
            f"{shard.path} is shard {shard.index} of {shard.shards}, not {index} of {count}", remedy
        )
    if shard.settings_hash != features_hash(dataset, features):
        raise AmstError(
            f"{shard.path} was made of another dataset than {dataset.name}, or with other settings",
            remedy,
        )


def _check_new(sample: str, path: Path, seen: dict[str, Path]) -> None:
    if sample in seen:
        raise AmstError(
            f"sample {sample} is in {seen[sample].name} and in {path.name}",
            "Delete both shards and run the preparation again",
        )
    seen[sample] = path


def _check_lost(manifest: Manifest, lists: Sequence[Path], limit: float) -> None:
    # A file that no annotation names has only its path for an id: it is no sample that is lost.
    lost = [row for row in manifest.rejected if row.id != row.file]
    total = len(lost) + manifest.samples
    if len(lost) > limit * total:
        raise AmstError(
            f"{manifest.dataset}: {len(lost)} of {total} samples are lost, more than {limit:.2%} "
            f"(first: {lost[0].id}, {lost[0].reason}; all are in "
            f"{', '.join(str(path) for path in lists if path.stat().st_size)})",
            "Mend the raw files, or raise the limit on lost samples",
        )
    if not manifest.samples:
        raise AmstError(f"{manifest.dataset} has no samples", "Check the raw folder")
