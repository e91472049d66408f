"""JSON files of one format version, read into models with messages that say what to do."""

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from amst.errors import AmstError, unread

Document = TypeVar("Document", bound=BaseModel)


def read_document(path: Path, model: type[Document], what: str, remedy: str) -> Document:
    """Read and check a JSON file.

    Args:
        path: the file.
        model: has a field ``format`` whose default is the version that this code reads.
        what: what the file is, for messages, such as 'manifest'.
        remedy: what a user does about a file that cannot be read.

    Raises:
        AmstError: the file is not there, is something else, or is of another format version.
    """
    expected = model.model_fields["format"].default
    try:
        value: Any = json.loads(path.read_text(encoding="utf-8"))
        found = value.get("format")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise unread(path, error, f"is not a {what} ({error})", remedy) from error
    if found != expected:
        raise AmstError(f"{path} has {what} format {found}, this version reads {expected}", remedy)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise AmstError(f"{path}: {first_fault(error)}", remedy) from error


def first_fault(error: ValidationError) -> str:
    """The first fault that pydantic has found, as ``place.in.it: what is wrong``."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    told = first["msg"].removeprefix("Value error, ")
    return f"{where}: {told}" if where else told
