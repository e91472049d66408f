"""Finished runs that Snakemake has yet to see: kept, so that they are not trained again.

Snakemake deletes the outputs of a job before it starts it again, and starts it again whenever it
has not seen the job's end: SLURM has put the job back into its queue, somebody has cancelled it
between its last file and its end, or the controller was killed. So a run's files have second names
below its checkpoints until the call has ended that saw its end; a job that is started for such a
run only takes them back. Imports no torch.
"""

import os
import shutil
import uuid
from base64 import urlsafe_b64decode
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from amst.records import RECORD

KEPT = "finished"
"""Folder below a run's checkpoints that holds the finished run."""
LOG = "log.txt"
"""What a finished run has said, in that folder."""


def keep(out: Path, checkpoints: Path, names: Sequence[str], log: str = "") -> None:
    """Give the files of a finished run second names, that of the record last.

    Does nothing where there are no hard links, or none from one folder to the other: then such a
    job trains once more. Never fails: the run is done.

    Args:
        out: the run's folder.
        checkpoints: the run's folder of working checkpoints.
        names: the files, the record last.
        log: path of what the run has said; deleted with its files, too. Empty for none.
    """
    kept = checkpoints / KEPT
    if _same(kept / RECORD, out / RECORD):
        return  # taken back from there, and never to be missing in between
    with suppress(OSError):
        forget(checkpoints)
        kept.mkdir(parents=True)
        try:
            if Path(log).is_file():
                os.link(log, kept / LOG)
            for name in names:
                os.link(out / name, kept / name)
        except OSError:
            forget(checkpoints)


def take_back(checkpoints: Path, out: Path) -> None:
    """Bring a finished run back to its folder, its record last.

    Args:
        checkpoints: the run's folder of working checkpoints, with a finished run.
        out: the run's folder; what it holds of the same names is replaced.
    """
    kept = checkpoints / KEPT
    out.mkdir(parents=True, exist_ok=True)
    files = (path for path in kept.iterdir() if path.name != LOG)
    for path in sorted(files, key=lambda path: path.name == RECORD):
        target = out / path.name
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        target.unlink(missing_ok=True)
        try:
            os.link(path, target)
        except OSError:  # a folder, or a file system without hard links
            shutil.move(path, target)


def forget(checkpoints: Path) -> None:
    """Remove a finished run's second names, all at once as far as readers see.

    Args:
        checkpoints: the run's folder of working checkpoints.
    """
    kept = checkpoints / KEPT
    for left in checkpoints.glob(f".{KEPT}.*"):
        shutil.rmtree(left, ignore_errors=True)
    if kept.exists():
        aside = checkpoints / f".{KEPT}.{uuid.uuid4().hex}"
        kept.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)


def _same(one: Path, other: Path) -> bool:
    """Whether two names are of one file that exists."""
    try:
        return one.samefile(other)
    except OSError:
        return False


def set_aside(folder: Path) -> list[str]:
    """Put finished runs aside that Snakemake would delete; only while no other controller lives.

    Args:
        folder: the working folder, with ``.snakemake`` and ``results``.

    Returns:
        Names of the runs.
    """
    runs, checkpoints = folder / "results" / "runs", folder / "results" / "checkpoints"
    names = [name for name in unseen(folder) if (runs / name / RECORD).is_file()]
    for name in names:
        kept = checkpoints / name / KEPT
        if not _same(kept / RECORD, runs / name / RECORD):
            forget(checkpoints / name)
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(runs / name, kept)
    return names


def forget_seen(folder: Path) -> None:
    """Remove the second names of all runs whose end Snakemake has seen.

    A run whose files are gone from its own folder was taken from a job that had ended: it stays.

    Args:
        folder: the working folder, with ``.snakemake`` and ``results``.
    """
    runs, checkpoints = folder / "results" / "runs", folder / "results" / "checkpoints"
    waiting = set(unseen(folder))
    for kept in checkpoints.glob(f"*/*/*/seed*/{KEPT}"):
        name = kept.parent.relative_to(checkpoints).as_posix()
        if name not in waiting and (runs / name / RECORD).is_file():
            forget(kept.parent)


def unseen(folder: Path) -> list[str]:
    """Runs whose record Snakemake has marked as incomplete, whether it is there or not.

    Args:
        folder: the working folder, with ``.snakemake`` and ``results``.
    """
    runs = folder / "results" / "runs"
    records = [folder / output for output in _incomplete(folder / ".snakemake" / "incomplete")]
    return [
        record.parent.relative_to(runs).as_posix()
        for record in records
        if record.name == RECORD and runs in record.parents
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
