"""The split file: which samples a way to cut a dataset has put into which part."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, field_validator

from amst.datasets.base import PARTS, Part
from amst.documents import read_document
from amst.files import write_json

FORMAT: Literal[1] = 1
"""Version of the split file."""


class Split(BaseModel):
    """One way to cut a dataset.

    Attributes:
        format: version of this file's format.
        dataset: name of the dataset.
        name: name of the split.
        seed: the split's own seed; of no effect where the cut is given by lists or folds.
        parts: train, val and test, each with the ids of its samples, if only none. Published lists
            keep their order (and their repetitions); parts of our own cuts are sorted by id.
        absent: ids that the split's source names and the raw manifest lacks.
        unassigned: ids of the raw manifest that are in no part.
        note: what was cut otherwise than the split's source has it, in one line.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = FORMAT
    dataset: str
    name: str
    seed: int
    parts: dict[Part, list[str]]
    absent: list[str] = []
    unassigned: list[str] = []
    note: str = ""

    @field_validator("parts")
    @classmethod
    def _are_all_there(cls, parts: dict[Part, list[str]]) -> dict[Part, list[str]]:
        if lacking := [part for part in PARTS if part not in parts]:
            raise ValueError(
                f"no {' and no '.join(lacking)}; a part without samples is an empty list"
            )
        return parts


def read_split(path: Path | str) -> Split:
    """Read a split file.

    Raises:
        AmstError: the file is missing, damaged or of another format version.
    """
    remedy = (
        "Mend one of your own; delete any other if it is there, and `snakemake` without targets "
        "makes it"
    )
    return read_document(Path(path), Split, "split", remedy)


def write_split(path: Path | str, split: Split) -> None:
    """Write a split as JSON, by rename; the same split gives the same bytes."""
    # Without an empty note, as before there were any: the runs on a split go by its bytes.
    write_json(path, split.model_dump(mode="json", exclude=None if split.note else {"note"}))
