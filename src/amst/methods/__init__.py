"""Training methods, one file each: the file's name is the method's name.

``names`` lists them and ``load`` imports the one that is asked for, so that no method is linked to
another unless it is built on it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from amst.config.methods import method_names
from amst.errors import AmstError

if TYPE_CHECKING:
    from amst.methods.base import Method


def names() -> list[str]:
    """Names of all methods, sorted. Imports none of them."""
    return [*method_names()]


def load(name: str) -> "type[Method]":
    """The method's class, from the file of that name.

    Raises:
        AmstError: no method has this name, or its file does not hold exactly one.
    """
    if name not in names():
        raise AmstError(f"method {name!r} is not known", f"Known methods: {', '.join(names())}")
    from amst.methods.base import Method

    module = import_module(f"{__name__}.{name}")
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Method)
        and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise AmstError(
            f"{module.__file__} defines {len(found)} methods",
            "A file of amst.methods holds exactly one class derived from Method",
        )
    return found[0]
