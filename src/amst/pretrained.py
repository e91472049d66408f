"""Where pretrained models lie on this machine. Nothing here opens a connection."""

from pathlib import Path

from amst.errors import AmstError, not_given

STAGED = Path("results/staged")
"""Folder of everything that is fetched: ``models/<name>`` and ``lists``."""

LOCK = "staged.json"
"""In a model's folder: what was fetched from where; written last."""


def model_folder(name: str, staged: Path = STAGED) -> Path:
    """Where the model ``name`` is, or will be, once it was fetched."""
    return staged / "models" / name


def located(name: str) -> str:
    """What to load a tokenizer or weights from.

    Args:
        name: a local folder, or a name on the model hub.

    Returns:
        The folder as given; else the folder that `amst fetch` made; else the name, which is then
        looked up in the cache of earlier downloads.
    """
    staged = model_folder(name)
    return str(staged) if not Path(name).is_dir() and (staged / LOCK).is_file() else name


def not_loaded(what: str, name: str, error: Exception, remedy: str) -> AmstError:
    """The error for a part of a pretrained model that cannot be loaded.

    Args:
        what: the part.
        name: a local folder, or a name on the model hub.
        error: what loading it has raised.
        remedy: what to do where the disk has given its files, or has none.
    """
    told: BaseException | None = error
    while told:  # transformers says in its own words that a file cannot be read
        if isinstance(told, OSError) and (refused := not_given(told.filename or name, told)):
            return refused
        told = told.__cause__ or told.__context__
    folder = Path(located(name))
    if not folder.is_dir():
        return AmstError(f"{what} {name!r} cannot be found on this machine", remedy)
    why = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
    where = "" if str(folder) == name else f" from {folder}"
    return AmstError(f"{what} {name!r} cannot be read{where} ({why})", remedy)
