"""Settings of the training methods, read from their files without importing torch.

A method is one file of ``amst.methods``; its name is the file's. The file defines a class
``Settings`` whose body needs pydantic, typing and ``amst.config.run`` only, so this module can
evaluate that one class from the syntax tree: the Snakefile validates a variant's settings in
milliseconds, and a method's settings stay beside its formula.
"""

import ast
import collections.abc
import re
import typing
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pydantic

from amst.config import run
from amst.config.run import AloneSettings, MethodSettings, Modality
from amst.errors import AmstError, no_python

FOLDER = Path(__file__).parents[1] / "methods"


def method_names() -> tuple[str, ...]:
    """Names of all methods, sorted: the files of ``amst.methods`` that define ``Settings``."""
    return _methods_in(FOLDER)


@cache
def _methods_in(folder: Path) -> tuple[str, ...]:
    return tuple(
        sorted(
            path.stem
            for path in folder.glob("*.py")
            if re.search(r"^class Settings\b", path.read_text("utf-8"), re.MULTILINE)
        )
    )


@cache
def settings_class(method: str) -> type[MethodSettings]:
    """The ``Settings`` class of a method.

    Args:
        method: name of a file of ``amst.methods``.

    Raises:
        AmstError: the file is no Python, it defines no such class, or the class needs more than
            the names of pydantic, typing, collections.abc and amst.config.run, or is none for
            pydantic, as where a field has no type.
    """
    path = FOLDER / f"{method}.py"
    try:
        tree = ast.parse(path.read_text("utf-8"), str(path))
    except SyntaxError as error:
        raise no_python(error) from error
    found = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "Settings"]
    if not found:
        raise AmstError(f"{path} defines no class Settings", "See docs/add-a-method.md")
    # A module of its own name, so that pydantic can resolve annotations in it.
    names: dict[str, Any] = {"__name__": f"amst.methods.{method}.settings"}
    for module in (collections.abc, typing, pydantic, run):
        names |= {k: v for k, v in vars(module).items() if not k.startswith("_")}
    try:
        exec(compile(ast.Module([*found], []), str(path), "exec"), names)
    except NameError as error:
        raise foreign_name(method, error) from error
    except pydantic.PydanticUserError as error:
        told = error.message.partition(". ")[0]
        raise AmstError(f"{path}: class Settings: {told}", "See docs/add-a-method.md") from error
    return names["Settings"]


def trained_modalities(
    method: str, settings: Mapping[str, Any], modalities: Mapping[str, Modality]
) -> dict[str, Modality]:
    """Those of a dataset's modalities that a run knows of: all, or the one of ``AloneSettings``.

    What is set for the others must not train such a run anew.

    Raises:
        AmstError: the dataset lacks that one.
    """
    if not issubclass(settings_class(method), AloneSettings):
        return dict(modalities)
    name = settings["modality"]
    if name not in modalities:
        raise AmstError(
            f"method {method} trains on {name!r}, which the dataset has not",
            f"It has: {', '.join(modalities)}",
        )
    return {name: modalities[name]}


def foreign_name(method: str, error: NameError) -> AmstError:
    """What to say where ``Settings``, or a validator of it, uses a name that is not there."""
    return AmstError(
        f"{FOLDER / f'{method}.py'}: class Settings needs the name {error.name!r}",
        "It may use only pydantic, typing, collections.abc and amst.config.run; a validator may "
        "import more in its own body",
    )
