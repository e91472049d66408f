"""Whether the facts that a dataset's class states can be true, told before anything is read."""

import re
from collections.abc import Iterator
from typing import get_args

from amst.config.run import Kind
from amst.datasets.base import FOLDS, Dataset
from amst.datasets.lists import LISTS
from amst.errors import AmstError

_NAME = re.compile(r"[A-Za-z0-9_+][A-Za-z0-9._+-]*")
_DATASET = re.compile(r"\w[\w.-]*")
_MODALITY = re.compile(r"(?!(id|group|label|crc32|\.)$)[^+/]+")
"""Not a name of the shard's own; + joins names of modalities, / those of predictions."""
_PAGE = "See docs/add-a-dataset.md"
_PARTS = "Name the split otherwise and state `parts` in its rows: docs/add-a-dataset.md"
_SESSIONS = "amst.datasets.iemocap"
"""Module of the classes whose groups are the sessions that group-folds go by."""


def check_facts(cls: type[Dataset], file: str) -> None:
    """Refuse a class that lacks something or states what cannot be.

    Args:
        cls: of the dataset.
        file: where it stands.

    Raises:
        AmstError: names the first thing that is wrong.
    """
    for wrong, remedy in _faults(cls):
        raise AmstError(f"{file}: {wrong}", remedy)


def _faults(cls: type[Dataset]) -> Iterator[tuple[str, str]]:
    """What is wrong, and what to do; nothing is looked at when something before it is wrong."""
    facts = [fact for fact in ("modalities", "classes") if not hasattr(cls, fact)]
    if lacking := [*facts, *sorted(cls.__abstractmethods__)]:
        yield f"class {cls.__name__} lacks {', '.join(lacking)}", _PAGE
    if not _DATASET.fullmatch(cls.name):
        yield (
            f"{cls.__name__} cannot be called {cls.name!r}",
            "Use letters, digits and . _ -, and begin with none of . -",
        )
    if not _are_texts(cls.classes) or list(cls.classes) != sorted(set(cls.classes)):
        yield (
            f"the classes of {cls.__name__} are no sorted tuple of texts",
            'Write them so: classes = ("finch", "robin", "wren")',
        )
    for modality, kind in cls.modalities.items():
        if not _MODALITY.fullmatch(modality):
            yield (
                f"a modality of {cls.__name__} cannot be called {modality!r}",
                "Use no + and no /, and none of id, group, label and crc32",
            )
        if kind not in get_args(Kind):
            yield (
                f"modality {modality} of {cls.__name__} is of the kind {kind!r}",
                f"The kinds are {', '.join(get_args(Kind))}",
            )
    if not _are_texts(cls.splits) or len(cls.splits) != len(set(cls.splits)):
        yield (
            f"the splits of {cls.__name__} are no tuple of texts that differ",
            'Write them so, one with a comma, too: splits = ("fold1",)',
        )
    for split in cls.splits:
        if not _NAME.fullmatch(split):
            yield (
                f"the split {split!r} of {cls.__name__} cannot name a folder",
                "Use letters, digits and . _ + -, and begin with none of . -",
            )
        if split == "amst" and cls.name not in (*LISTS, "URFUNNY"):
            yield f"{cls.__name__} has the split amst, and {cls.name} no published lists", _PARTS
        if split in FOLDS and all(one.__module__ != _SESSIONS for one in cls.__mro__):
            yield f"{cls.__name__} has the split {split}, which is of sessions of IEMOCAP", _PARTS


def _are_texts(values: object) -> bool:
    return isinstance(values, tuple) and all(isinstance(each, str) for each in values)
