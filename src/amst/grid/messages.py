"""One line for a wrong setting: the key's path, what is wrong, the nearest valid name."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from amst.config.run import Settings
from amst.errors import AmstError

Model = TypeVar("Model", bound=Settings)


def known(name: str, valid: Iterable[str], where: str) -> None:
    """Refuse a name that is not among the valid ones.

    Raises:
        AmstError: naming ``where`` and the nearest valid name.
    """
    names = sorted(valid)
    if name not in names:
        raise AmstError(f"{where}: unknown name {name!r}", nearest(name, names))


def nearest(name: str, valid: Iterable[str]) -> str:
    """A hint at the valid name closest to ``name``, or at all of them."""
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"Did you mean {close[0]!r}?" if close else f"Valid names: {', '.join(names)}"


def validated(model: type[Model], values: Mapping[str, Any], where: str) -> Model:
    """``values`` as a settings model.

    Raises:
        AmstError: the first wrong key, its path below ``where`` and what is wrong with it.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise told(error, model, where) from error


def told(error: ValidationError, model: Any, where: str) -> AmstError:
    """The first error of a validation as an error of one line."""
    first = error.errors()[0]
    location = first["loc"]
    path = ".".join(str(part) for part in (where, *location) if part != "")
    if first["type"] == "extra_forbidden":
        return AmstError(
            f"{path}: unknown key", nearest(str(location[-1]), _keys_at(model, location[:-1]))
        )
    if first["type"] == "missing":
        return AmstError(f"{path}: missing", "Add this key; docs/configuration.md describes it")
    shown = "" if isinstance(first["input"], Mapping) else f", got {first['input']!r}"
    return AmstError(f"{path}: {first['msg'][:1].lower()}{first['msg'][1:]}{shown}")


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
