"""Files that are not what the configuration gives, and Snakemake does not notice."""

import ast
import json
from base64 import urlsafe_b64encode
from pathlib import Path


def hidden_change(file: Path, planned: str, notes: Path, compared: bool = True) -> str:
    """One line where the grid's file is another one than planned and would not be made again.

    Snakemake compares only what it has noted of a file: nothing where its notes were deleted or
    left behind, and what ``--touch`` has noted though it made nothing. And it compares nothing of
    the kind where ``--rerun-triggers`` leaves ``params`` out.

    Args:
        file: the grid as it was written down, there or not.
        planned: the text that a job would write now.
        notes: Snakemake's own folder, ``.snakemake``, there or not.
        compared: whether this call compares parameters with those that were noted.
    """
    if not file.is_file() or file.read_text("utf-8") == planned:
        return ""
    if _made_again(file, notes):
        return ""
    noted = _noted(notes / "metadata" / _name(file))
    if compared and noted and planned not in noted:
        return ""
    why = "its notes were made by --touch" if noted else "it has no note of how that was made"
    if not compared:
        why = "--rerun-triggers leaves params out"
    return (
        f"{file} is not the grid of this configuration, and Snakemake does not see it: {why}. "
        f"Delete {file}, {file.with_name('figures')}, which is of the grid that it was, and the "
        "folders of runs whose settings `amst plan` says have changed"
    )


def has_no_note(file: Path, notes: Path) -> bool:
    """Whether a file is there of which Snakemake sees no change of what it was made with.

    It was made by hand, brought from elsewhere, or outlived Snakemake's notes.

    Args:
        file: as the rule that makes it names it.
        notes: Snakemake's own folder, ``.snakemake``, there or not.
    """
    noted = (notes / "metadata" / _name(file)).is_file()
    return file.is_file() and not noted and not _made_again(file, notes)


def _made_again(file: Path, notes: Path) -> bool:
    """Whether a call was killed while the file was made; the next one makes it again."""
    return (notes / "incomplete" / _name(file)).exists()


def _name(file: Path) -> str:
    return urlsafe_b64encode(str(file).encode()).decode()


def _noted(note_file: Path) -> list[object]:
    """The parameters that Snakemake has noted of a file; none where it has no note."""
    try:
        note = json.loads(note_file.read_text())
        return [ast.literal_eval(each) for each in note["params"]]
    except (OSError, ValueError, SyntaxError, LookupError, TypeError):
        return []
