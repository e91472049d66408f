"""Runs that ended when no controller was looking: kept, so that they are not trained again.

Snakemake marks a job's outputs as incomplete until it has seen the job's end, and deletes them
before it runs the job again. A controller that was killed has seen nothing. So the next one puts
finished runs aside before it plans, and the job that Snakemake starts for such a run only takes
it back. Imports no torch.
"""

import shutil
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from pathlib import Path

RECORD = "run.json"
KEPT = "finished"
"""Folder below a run's checkpoints that holds the finished run."""


def set_aside(folder: Path) -> list[str]:
    """Put finished runs aside that Snakemake would delete; only while no other controller lives.

    Args:
        folder: the working folder, with ``.snakemake`` and ``results``.

    Returns:
        Names of the runs.
    """
    runs = folder / "results" / "runs"
    names = []
    for output in _incomplete(folder / ".snakemake" / "incomplete"):
        record = folder / output
        if record.name != RECORD or runs not in record.parents or not record.is_file():
            continue
        name = record.parent.relative_to(runs).as_posix()
        kept = folder / "results" / "checkpoints" / name / KEPT
        shutil.rmtree(kept, ignore_errors=True)
        kept.parent.mkdir(parents=True, exist_ok=True)
        record.parent.rename(kept)
        names.append(name)
    return names


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


def take_back(checkpoints: Path, out: Path) -> bool:
    """Bring a run that was put aside back to its folder, its record last.

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
        path.rename(target)
    kept.rmdir()
    return True
