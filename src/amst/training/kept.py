"""Finished runs that Snakemake has yet to see: kept, so that they are not trained again.

Snakemake deletes the outputs of a job before it starts it again, and starts it again whenever it
has not seen the job's end: SLURM has put the job back into its queue, somebody has cancelled it
between its last file and its end, or the controller was killed. So a run's files have second names
below its checkpoints until a controller has seen its end; a job that is started for such a run only
takes them back. Imports no torch.
"""

import os
import shutil
from base64 import urlsafe_b64decode
from collections.abc import Iterator, Sequence
from pathlib import Path

RECORD = "run.json"
KEPT = "finished"
"""Folder below a run's checkpoints that holds the finished run."""


def keep(out: Path, checkpoints: Path, names: Sequence[str]) -> None:
    """Give the files of a finished run second names, that of the record last.

    Does nothing where there are no hard links, or none from one folder to the other: then such a
    job trains once more.

    Args:
        out: the run's folder.
        checkpoints: the run's folder of working checkpoints.
        names: the files, the record last.
    """
    kept = checkpoints / KEPT
    if (kept / RECORD).is_file() and (kept / RECORD).samefile(out / RECORD):
        return  # taken back from there, and never to be missing in between
    forget(checkpoints)
    kept.mkdir(parents=True)
    try:
        for name in names:
            os.link(out / name, kept / name)
    except OSError:
        forget(checkpoints)


def take_back(checkpoints: Path, out: Path) -> bool:
    """Bring a finished run back to its folder, its record last.

    Args:
        checkpoints: the run's folder of working checkpoints.
        out: the run's folder; what it holds of the same names is replaced.

    Returns:
        Whether there was one.
    """
    kept = checkpoints / KEPT
    if not (kept / RECORD).is_file():
        return False
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(kept.iterdir(), key=lambda path: path.name == RECORD):
        target = out / path.name
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        target.unlink(missing_ok=True)
        try:
            os.link(path, target)
        except OSError:  # a folder, or a file system without hard links
            shutil.move(path, target)
    return True


def forget(checkpoints: Path) -> None:
    """Remove a finished run's second names, that of the record first: the rest is no run.

    Args:
        checkpoints: the run's folder of working checkpoints.
    """
    kept = checkpoints / KEPT
    (kept / RECORD).unlink(missing_ok=True)
    shutil.rmtree(kept, ignore_errors=True)


def set_aside(folder: Path) -> list[str]:
    """Put finished runs aside that Snakemake would delete; only while no other controller lives.

    Args:
        folder: the working folder, with ``.snakemake`` and ``results``.

    Returns:
        Names of the runs.
    """
    names = _unseen(folder)
    for name in names:
        checkpoints = folder / "results" / "checkpoints" / name
        forget(checkpoints)
        checkpoints.mkdir(parents=True, exist_ok=True)
        shutil.move(folder / "results" / "runs" / name, checkpoints / KEPT)
    return names


def forget_seen(folder: Path) -> None:
    """Remove the second names of all runs whose end Snakemake has seen.

    A run whose files are gone from its own folder was taken from a job that had ended: it stays.

    Args:
        folder: the working folder, with ``.snakemake`` and ``results``.
    """
    runs, checkpoints = folder / "results" / "runs", folder / "results" / "checkpoints"
    unseen = set(_unseen(folder))
    for kept in checkpoints.glob(f"*/*/*/seed*/{KEPT}"):
        name = kept.parent.relative_to(checkpoints).as_posix()
        if name not in unseen and (runs / name / RECORD).is_file():
            forget(kept.parent)


def _unseen(folder: Path) -> list[str]:
    """Finished runs that Snakemake has marked as incomplete."""
    runs = folder / "results" / "runs"
    records = [folder / output for output in _incomplete(folder / ".snakemake" / "incomplete")]
    return [
        record.parent.relative_to(runs).as_posix()
        for record in records
        if record.name == RECORD and runs in record.parents and record.is_file()
    ]


def _incomplete(markers: Path) -> Iterator[str]:
    """Outputs that Snakemake has marked; it names a marker by the output's path in base64.

    A name too long for the file system is cut into folders that begin with '@'.
    """
    for marker in sorted(markers.rglob("*")):
        if marker.is_file():
            parts = marker.relative_to(markers).parts
            encoded = "".join(part.removeprefix("@") for part in parts)
            try:
                yield urlsafe_b64decode(encoded).decode()
            except ValueError:
                continue
