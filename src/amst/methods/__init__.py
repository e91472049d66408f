"""Training methods, one file each: the file's name is the method's name.

``names`` lists them and ``load`` imports the one that is asked for, so that no method is linked to
another unless it is built on it.
"""

from importlib import import_module
from types import ModuleType
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
        AmstError: no method has this name, its file does not hold exactly one, or the class
            does not use the settings of its file.
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
    _refuse_foreign_settings(found[0], module)
    return found[0]


def _refuse_foreign_settings(cls: "type[Method]", file: ModuleType) -> None:
    """Refuse a class without the settings of its file: the configuration goes by the file."""
    if getattr(cls, "Settings", None) is not vars(file)["Settings"]:
        raise AmstError(
            f"{file.__file__}: class {cls.__name__} does not use the Settings of its file",
            "Derive it from Method[Settings]; if it derives from another method, write `Settings = "
            "Settings` in its body, and state in Settings what that method reads as well",
        )
