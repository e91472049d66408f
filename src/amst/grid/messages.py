"""One line for a wrong setting: the key's path, what is wrong, the nearest valid name."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from amst.config.run import KeyMistake
from amst.errors import AmstError

Model = TypeVar("Model", bound=BaseModel)

PLAIN = {
    "bool": "expected true or false",
    "dict": "expected a map of settings",
    "finite_number": "expected a finite number",
    "float": "expected a number",
    "int": "expected a whole number",
    "list": "expected a list",
    "model": "expected a map of settings",
    "string": "expected text",
    "too_short": "expected at least one value",
    "tuple": "expected a list",
}
"""Beginning of a pydantic error's type -> what a writer of YAML understands."""


def known(name: object, valid: Iterable[str], where: str) -> None:
    """Refuse a name that is not among the valid ones, or no name: YAML takes ``on`` for true.

    Raises:
        AmstError: naming ``where`` and the nearest valid name.
    """
    names = sorted(valid)
    if not isinstance(name, str):
        raise AmstError(f"{where}: expected a name, got {name!r}", nearest(name, names))
    if name not in names:
        raise AmstError(f"{where}: unknown name {name!r}", nearest(name, names))


def nearest(name: object, valid: Iterable[str]) -> str:
    """A hint at the valid name closest to ``name``, or at all of them."""
    names = sorted(valid)
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    return f"Did you mean {close[0]!r}?" if close else f"Valid names: {', '.join(names)}"


def no_duplicates(values: Sequence[Any], where: str) -> None:
    """Refuse a list in which a value stands twice.

    Raises:
        AmstError: naming ``where`` and the value.
    """
    twice = next((value for value in values if values.count(value) > 1), None)
    if twice is not None:
        raise AmstError(f"{where}: {twice!r} stands twice", "Remove one of them")


def validated(model: type[Model], values: Any, where: str) -> Model:
    """``values`` as a settings model.

    Raises:
        AmstError: the first wrong key, its path below ``where`` and what is wrong with it.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise told(error, model, where, values) from error


def told(error: ValidationError, model: Any, where: str, values: Any) -> AmstError:
    """The first error of a validation as an error of one line.

    Args:
        error: what pydantic found.
        model: the model, or another type, that the values are not.
        where: path of the values.
        values: what was validated.
    """
    first = _most_telling(error.errors())
    kind, location = first["type"], first["loc"]
    found = first.get("ctx", {}).get("error")
    key = found.key if isinstance(found, KeyMistake) else ""
    path = ".".join(part for part in (where, *_steps(values, location, kind), key) if part)
    if kind == "value_error":
        return AmstError(f"{path}: {found}")
    if kind == "extra_forbidden":
        keys = _keys_at(model, location[:-1])
        return AmstError(f"{path}: unknown key", nearest(location[-1], keys))
    if kind == "missing":
        return AmstError(f"{path}: missing", "Add this key; docs/configuration.md describes it")
    if kind.startswith("union_tag"):
        return _wrong_tag(first, path)
    if kind == "literal_error":
        # all of them, which are few: of `device: gpu` the nearest would be cpu
        quoted = first["ctx"]["expected"].replace(" or ", ", ").split(", ")
        names = ", ".join(name.strip("'") or name for name in quoted)
        if first["input"] is False and "'off'" in quoted:
            bare = "the bare word off is false to YAML"
            return AmstError(f"{path}: {bare}", 'Write it in quotes: "off"')
        return AmstError(f"{path}: unknown name {first['input']!r}", f"Valid names: {names}")
    shown = "" if isinstance(first["input"], Mapping) else f", got {first['input']!r}"
    return AmstError(f"{path}: {_plain(first)}{shown}")


def _most_telling(errors: Sequence[ErrorDetails]) -> ErrorDetails:
    """The first error; of a key that is missing and one that is unknown, the unknown one.

    A key that is misspelt is both.
    """
    first = errors[0]
    if first["type"] != "missing":
        return first
    beside = (
        e for e in errors if e["type"] == "extra_forbidden" and e["loc"][:-1] == first["loc"][:-1]
    )
    return next(beside, first)


def _steps(values: Any, location: Sequence[str | int], kind: str) -> list[str]:
    """The parts of a location that stand in the file: pydantic's names of union members do not."""
    steps = []
    for number, part in enumerate(location):
        last = number == len(location) - 1
        if isinstance(values, Mapping):
            inside = part in values or (last and kind == "missing")
            values = values.get(part, values)
        else:
            inside = isinstance(part, int) and isinstance(values, list | tuple)
            if inside and int(part) < len(values):
                values = values[int(part)]
        if inside:
            steps.append(str(part))
    return steps


def _wrong_tag(error: ErrorDetails, path: str) -> AmstError:
    """The key that says which of several models is meant is missing or names none of them."""
    key = error["ctx"]["discriminator"].strip("'")
    if error["type"] == "union_tag_not_found":
        return AmstError(
            f"{path}.{key}: missing", "Add this key; docs/configuration.md describes it"
        )
    names = error["ctx"]["expected_tags"].replace("'", "").split(", ")
    tag = error["ctx"]["tag"]
    return AmstError(f"{path}.{key}: unknown name {tag!r}", nearest(tag, names))


def _plain(error: ErrorDetails) -> str:
    """What is wrong, without words of Python or pydantic."""
    if error["type"] in PLAIN:
        return PLAIN[error["type"]]
    kind = error["type"].partition("_")[0]
    if kind in PLAIN:
        return PLAIN[kind]
    return error["msg"].replace("Input should be", "must be")


def _keys_at(model: Any, location: tuple[str | int, ...]) -> list[str]:
    """Names of the keys that the model's schema allows at ``location``."""
    schema = TypeAdapter(model).json_schema()
    definitions = schema.get("$defs", {})

    def follow(node: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in node:
            node = definitions[node["$ref"].rsplit("/", 1)[1]]
        options = [follow(option) for option in node.get("anyOf", [])]
        return next((o for o in options if "properties" in o or "discriminator" in o), node)

    node = follow(schema)
    for part in map(str, location):
        if part in node.get("discriminator", {}).get("mapping", {}):
            node = follow({"$ref": node["discriminator"]["mapping"][part]})
        elif part in node.get("properties", {}):
            node = follow(node["properties"][part])
        else:
            node = follow(node.get("additionalProperties") or {})
    return list(node.get("properties", {}))
