"""The datasets by name; a dataset's file is imported when it is asked for.

No step imports this module, so that a dataset more changes the code of no step.
"""

import difflib
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from inspect import signature
from types import ModuleType
from typing import Any

from amst.datasets.base import Dataset
from amst.datasets.facts import check_facts
from amst.errors import AmstError, no_python

_MODULES = {
    "AVE": "ave",
    "CREMAD": "cremad",
    "IEMOCAP": "iemocap",
    "IEMOCAP3": "iemocap",
    "MVSA": "mvsa",
    "URFUNNY": "urfunny",
    "digits": "digits",
}
"""Dataset name -> module of this package that defines it."""


def names() -> tuple[str, ...]:
    """Names of all datasets, sorted."""
    return tuple(sorted(_MODULES))


def module(name: str) -> str:
    """Dotted name of the module that defines the dataset ``name``.

    Raises:
        AmstError: there is no dataset of that name.
    """
    if name not in _MODULES:
        near = difflib.get_close_matches(name, _MODULES, n=1, cutoff=0.4)
        remedy = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(names())}"
        raise AmstError(f"there is no dataset {name!r}", remedy)
    return f"amst.datasets.{_MODULES[name]}"


def load(name: str, options: Mapping[str, Any] | None = None) -> Dataset:
    """The dataset ``name``; imports its file only.

    Args:
        name: of the dataset.
        options: what its reader offers, by name; see the dataset's page.

    Raises:
        AmstError: there is no dataset of that name, or it has no such option; or its file is not
            there, is no Python, or states no whole dataset.
    """
    if not isinstance(options, Mapping | None):
        raise AmstError(f"dataset {name}: expected a map of options, got {options!r}")
    if not options:
        return _plain(name)
    cls = _class(name)
    offered = list(signature(cls).parameters)
    for key in options:
        if key not in offered:
            raise AmstError(
                f"dataset {name} has no option {key!r}",
                f"Its options: {', '.join(offered)}" if offered else "It has none",
            )
    return cls(**options)


@cache
def _plain(name: str) -> Dataset:
    """The dataset without options, made once."""
    return _class(name)()


def _class(name: str) -> type[Dataset]:
    """The class of the dataset ``name``.

    Raises:
        AmstError: its file is not there, is no Python, or states no whole dataset.
    """
    path = module(name)
    try:
        file = import_module(path)
    except ModuleNotFoundError as error:
        if error.name != path:
            raise
        raise AmstError(
            f"dataset {name}: there is no {path.replace('.', '/')}.py",
            "Correct its line in _MODULES of src/amst/datasets/registry.py",
        ) from error
    except SyntaxError as error:
        raise no_python(error) from error
    cls = _class_in(file, name)
    check_facts(cls, str(file.__file__))
    return cls


def _class_in(file: ModuleType, name: str) -> type[Dataset]:
    """The subclass of Dataset in ``file`` whose name attribute is ``name``.

    Raises:
        AmstError: there is none.
    """
    for value in vars(file).values():
        is_dataset = isinstance(value, type) and issubclass(value, Dataset)
        if is_dataset and getattr(value, "name", None) == name:
            return value
    raise AmstError(
        f"{file.__file__} defines no dataset {name!r}",
        f'Derive its class from Dataset and state `name = "{name}"` in it',
    )
