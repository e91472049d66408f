"""Where pretrained models lie on this machine. Nothing here opens a connection."""

from pathlib import Path

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
