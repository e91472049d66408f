"""Digests that say what a result was made with: code of a step, installed packages.

A change that cannot change a result (a comment, a docstring, another method's file) changes no
digest; a change that can, does.
"""

import hashlib
import os
import re
import site
import subprocess
import sys
from functools import cache
from importlib.metadata import Distribution
from pathlib import Path
from typing import TYPE_CHECKING

from amst.sources import Facts, Sources
from amst.training.state import run_digest

if TYPE_CHECKING:  # any Python can import this module, without a package installed
    from amst.config.run import RunSettings

SOURCE = Path(__file__).parents[1]
"""The folder that holds the package ``amst``."""
REQUIREMENTS = SOURCE.parent / "containers" / "requirements.txt"
"""The pinned packages that the image and the local set-up install."""
COMMIT = "AMST_COMMIT"
"""Environment variable by which a call tells its jobs the commit: images and nodes may lack git."""
_GIT_SECONDS = 10
_VERSION = re.compile(r"^Version: *(\S+)", re.MULTILINE)


def commit() -> str:
    """Git commit of the checkout that holds this package, '+changes' when it was edited.

    A file of the package that git does not know, as a method of one's own, is such a change. Empty
    where there is no checkout or no git.
    """
    try:
        revision = _git("rev-parse", "HEAD")
        changes = _git("status", "--porcelain", "--untracked-files=no")
        changes = changes or _git("ls-files", "--others", "--exclude-standard", str(SOURCE))
    except (OSError, subprocess.SubprocessError):
        return ""
    return revision + ("+changes" if changes else "")


def _git(*arguments: str) -> str:
    # git says nothing of another user's checkout unless it is named, and its code runs here anyway
    named = f"safe.directory={SOURCE.parent.resolve()}"
    command = ["git", "-C", str(SOURCE), "-c", named, *arguments]
    ended = subprocess.run(
        command,
        env=environment_of_git(),
        capture_output=True,
        text=True,
        check=True,
        timeout=_GIT_SECONDS,
    )
    return ended.stdout.strip()


def environment_of_git() -> dict[str, str]:
    """The environment by which git takes the repository of its folder.

    A hook of git or a manager of dotfiles may have named another.
    """
    elsewhere = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR")
    return {name: value for name, value in os.environ.items() if name not in elsewhere}


@cache
def code_digest(*modules: str) -> str:
    """Digest of modules of the package and of all that they import from it, statically.

    Comments, docstrings and layout do not count; a file beside a module that has its name and
    another suffix (a template) does.

    Args:
        modules: dotted names such as 'amst.training.run'.

    Returns:
        16 hexadecimal digits.
    """
    total = hashlib.sha256()
    for module in sorted(closure(*modules)):
        total.update(f"{module}={_module_digest(module)}\n".encode())
    _sources().keep()
    return total.hexdigest()[:16]


def training_digest(method: str) -> str:
    """Digest of the code that trains a method: the loop and the method's file."""
    return code_digest("amst.training.run", f"amst.methods.{method}")


@cache
def closure(*modules: str) -> frozenset[str]:
    """The modules and everything of the package that they import, directly or not."""
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting.extend(_imports(module))
    return frozenset(found)


def _path(module: str) -> Path | None:
    """The file of a module of the package, or None when there is no such module."""
    base = SOURCE.joinpath(*module.split("."))
    for path in (base / "__init__.py", base.with_suffix(".py")):
        if path.is_file():
            return path
    return None


@cache
def _sources() -> Sources:
    return Sources(SOURCE / "amst" / "__pycache__")


@cache
def _facts(module: str) -> Facts:
    path = _path(module)
    if path is None:
        raise ModuleNotFoundError(f"no module {module} below {SOURCE}")
    return _sources().read(path)


@cache
def _imports(module: str) -> frozenset[str]:
    """Modules of the package named in the import statements of a module, and its own parent."""
    names = {n for n in _facts(module).imports if n.split(".")[0] == "amst" and _path(n)}
    return frozenset(names | ({module.rpartition(".")[0]} if "." in module else set()))


@cache
def _module_digest(module: str) -> str:
    path = _path(module)
    assert path is not None
    digest = hashlib.sha256(_facts(module).code.encode())
    for beside in sorted(path.parent.glob(f"{path.stem}.*")):
        if beside.suffix not in {".py", ".pyc"}:
            digest.update(beside.read_bytes())
    return digest.hexdigest()


def pinned_packages() -> dict[str, str]:
    """Package name -> pinned version, as the image and the local set-up install them."""
    text = REQUIREMENTS.read_text("utf-8")
    return dict(re.findall(r"^([A-Za-z0-9_.-]+)==([^ \\;]+)", text, re.MULTILINE))


@cache
def installed_packages() -> tuple[tuple[str, str], ...]:
    """(name, version) of every pinned package as it is installed here.

    A package that is not installed counts with its pinned version: the light set-up plans with
    the same digest as the machine that computes.
    """
    return _installed_in(sys.path)


def shadowed_packages() -> list[str]:
    """Pinned packages that PYTHONPATH, as environment modules set it, has in another version.

    Jobs get none of it, so they have other packages than this process.
    """
    given = os.environ.get("PYTHONPATH", "")
    if not given:
        return []
    brought = {Path(path).resolve() for path in given.split(os.pathsep)}
    left = [path for path in sys.path if Path(path).resolve() not in brought]
    own = _installed_in([*left, *site.getsitepackages()])  # PYTHONPATH may name those, too
    return [
        f"{name} {here} in place of {there}"
        for (name, here), (_, there) in zip(installed_packages(), own, strict=True)
        if here != there
    ]


def _installed_in(folders: list[str]) -> tuple[tuple[str, str], ...]:
    pins = sorted(pinned_packages().items())
    return tuple((name, _installed(name, pin, folders)) for name, pin in pins)


def _installed(name: str, pin: str, folders: list[str]) -> str:
    found = next(iter(Distribution.discover(name=name, path=folders)), None)
    if found is None:
        return pin
    # One header of some dozens, without the parser of mails that reads them all: every start of
    # Snakemake asks for every package.
    header = _VERSION.search(found.read_text("METADATA") or "")
    return header[1] if header else found.version


@cache
def package_digest() -> str:
    """Digest of the installed package set: 16 hexadecimal digits."""
    text = "\n".join(f"{name}=={version}" for name, version in installed_packages())
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def with_packages(code: str) -> str:
    """What a step is made by, as one text: the digest of its code and that of the packages."""
    return f"{code}-{package_digest()}"


def present_digest(settings: "RunSettings", features: Path) -> str:
    """Digest of all that a run's numbers would depend on if it were trained now.

    Args:
        settings: of the run.
        features: folder of the dataset whose shards it uses.
    """
    return run_digest(
        settings.hash,
        training_digest(settings.method),
        package_digest(),
        features / "manifest.json",
        features / "splits" / f"{settings.split}.json",
    )
