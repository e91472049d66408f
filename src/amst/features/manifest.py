"""The manifest: the one file through which runs meet a dataset's shards.

Reading it needs neither torch nor HDF5: the light set-up of a login node does it.
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from amst.config.run import Features, Kind
from amst.datasets.base import Rejected
from amst.documents import read_document
from amst.errors import AmstError

FORMAT = 2


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
        listed: digest of the ids in the list of samples (`amst.features.verification.ids_digest`).
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
    listed: str
    shards: tuple[ShardEntry, ...]
    samples: int
    rejected: tuple[Rejected, ...]

    def paths(self, manifest: Path | str) -> list[Path]:
        """The shard files, given where the manifest itself lies."""
        return [Path(manifest).parent / entry.file for entry in self.shards]


def read_manifest(path: Path | str) -> Manifest:
    """Read and check a manifest.

    Raises:
        AmstError: the file is no manifest, or one of another format version.
    """
    path = Path(path)
    remedy = "Delete it and run the preparation of the dataset again"
    if not path.exists():
        raise AmstError(f"there is no manifest {path}", f"Prepare the dataset: snakemake {path}")
    return read_document(path, Manifest, "manifest", remedy)
