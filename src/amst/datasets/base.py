"""What a dataset is: facts known before any file is read, and the rows its raw folder gives."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from amst.config.run import Kind

Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = get_args(Part)
FOLDS = {f"group-fold{fold}": fold for fold in range(1, 6)}
"""Splits of IEMOCAP by session -> session of the test."""
BUILT_IN = ("amst", "group", "official", "random", *FOLDS)
"""Splits that are cut by a rule; one of any other name is cut by the ``parts`` of the rows."""


class Sample(BaseModel):
    """One row of the raw manifest: where a sample's media lie and what it shows.

    Attributes:
        id: unique within the dataset.
        label: class name.
        group: what must not be in two parts of a clean split (actor, session, video); empty, or the
            id, where it has none.
        files: modality name -> path of its raw file relative to the raw root; that of what is
            no modality of the dataset, as of one derived from one with more, is not extracted.
        start: begin of the sample inside its recordings, in seconds; None for the whole files.
        end: end of the sample inside its recordings, in seconds.
        whole: modalities whose file is the sample's own, such as the WAV of one utterance beside
            the video of a dialogue: start and end do not cut it.
        text: the sentence of a text modality whose text is not a file of its own.
        part: `train`, `val` or `test`, as the dataset's own split has it; None where it has none.
        parts: the same for splits of other names: name of the split -> part. A row that does not
            name a split is in no part of it.
        stamp: sizes and times of change of its raw files when they were listed, which no reader
            states; other ones mean that the sample is to be extracted again.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    label: str
    group: str
    files: dict[str, str]
    start: float | None = None
    end: float | None = None
    whole: tuple[str, ...] = ()
    text: str | None = None
    part: str | None = None
    parts: dict[str, str] = {}
    stamp: str | None = None


class Rejected(BaseModel):
    """A sample that cannot be used, or a file that is none, with the reason in one line.

    Attributes:
        id: of the sample; the path of a file that is none.
        file: path of what is wrong, relative to the raw root.
        annotated: whether it is a sample that is lost; not so a file that no annotation names.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    reason: str
    file: str = ""
    annotated: bool = True

    @model_serializer(mode="wrap")
    def _as_ever(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Lost samples are written as before there was `annotated`: manifests stay as they are."""
        row: dict[str, Any] = fields(self)
        return {name: row[name] for name in row if name != "annotated" or not self.annotated}

    @property
    def line(self) -> str:
        """Sample and reason; many reasons already begin with what they are about."""
        return self.reason if self.reason.startswith(self.id) else f"{self.id}: {self.reason}"


class Dataset(ABC):
    """A dataset: one subclass in one file of ``amst.datasets``, registered by its file's name.

    Class attributes state facts that the configuration and the graph need before any raw file is
    there. No module of this package imports torch or a media library.
    """

    name: ClassVar[str]
    """Letters, digits and . _ - only: folders and wildcards of the workflow have it."""
    modalities: ClassVar[Mapping[str, Kind]]
    """Modality name -> kind. A name has no + and no /, and is none of id, group, label, crc32."""
    classes: ClassVar[tuple[str, ...]]
    """Class names, sorted; a class index is a position in this tuple."""
    expected_samples: ClassVar[int | None] = None
    """How many usable samples the complete raw folder gives; None when that is a setting."""
    splits: ClassVar[tuple[str, ...]] = ("random",)
    """Names of the splits this dataset can be cut into: of `BUILT_IN`, and others of its own."""
    groups: ClassVar[str] = ""
    """What a group is ('actor', 'session', 'video'); empty when there are none."""
    random_keeps_groups: ClassVar[bool] = False
    """Whether the `random` split too keeps a group in one part, because its samples share media."""
    val_from_train: ClassVar[bool] = False
    """Whether a val is missing: a split by stated parts then cuts a tenth of its train off."""
    page: ClassVar[str] = ""
    """Page of the documentation that says how to get the raw data."""
    is_made: ClassVar[bool] = False
    """Whether the suite makes the raw files: equal settings then give equal files."""
    folders: tuple[str, ...] = ("**",)
    """Folders whose files are read, as patterns below the raw root; '' is the root itself.

    ``**`` stands for any folders below, linked ones included. A file that is added, removed or
    changed there makes the workflow list the samples anew.
    """

    @abstractmethod
    def read(self, raw: Path) -> Iterator[Sample | Rejected]:
        """Rows of the raw folder, in an order that does not depend on the file system.

        Args:
            raw: the raw root, laid out as the dataset's page says.

        Raises:
            AmstError: the folder lacks an annotation file without which no row can be made.
        """

    def set_aside(self, raw: Path) -> dict[str, int]:
        """How many annotated rows are no samples by definition, by reason; none unless stated.

        Args:
            raw: the raw root.
        """
        return {}

    def fingerprint(self) -> dict[str, Any]:
        """Facts that features depend on; part of the shards' settings hash."""
        return {"name": self.name, "classes": self.classes, "modalities": dict(self.modalities)}
