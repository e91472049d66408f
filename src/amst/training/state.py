"""What is known of a run from its files: done, running, failed or missing. Imports no torch."""

import hashlib
import json
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from amst.files import reading, sha256_of
from amst.training.kills import FILE as KILLS
from amst.training.kills import kills

StateName = Literal["done", "missing", "running", "failed"]
STALE_AFTER = 120.0
"""Seconds without a heartbeat after which a lock counts as left behind."""


@dataclass(frozen=True)
class State:
    """State of one run.

    Attributes:
        name: 'running' while a process holds its lock; 'done' with a record; 'failed' after an
            attempt that ended in an error without progress; else 'missing'.
        error: of a failed run, in one line.
        log: of a failed run, its log file.
        saved: whether a checkpoint lets a missing run continue.
        killed: how many attempts of a missing run have ended without a word; 0 while one may begin.
    """

    name: StateName
    error: str = ""
    log: str = ""
    saved: bool = False
    killed: int = 0


def state_of(results: Path, run: str) -> State:
    """State of ``run`` below the folder ``results``."""
    if (results / "runs" / run / "run.json").is_file():
        return State("done")
    folder = results / "checkpoints" / run
    if _alive(folder / "lock"):
        return State("running")
    try:
        failed = json.loads((folder / "failed.json").read_text("utf-8"))
        return State("failed", failed.get("error", ""), failed.get("log", ""))
    except (OSError, ValueError, AttributeError):
        saved = any(folder.glob("*/epoch-*.pt"))
        # who has begun counts as killed, and may not have the lock yet
        begins = _alive(folder / KILLS)
        return State("missing", saved=saved, killed=0 if begins else kills(folder))


def _alive(file: Path) -> bool:
    """Whether a file, as a lock, was just touched, by this host's clock or the file system's."""
    try:
        beat = file.stat().st_mtime
    except FileNotFoundError:
        return False
    return time.time() - beat < STALE_AFTER or _now(file.parent) - beat < STALE_AFTER


def _now(folder: Path) -> float:
    """The clock of a folder's file system; this host's where nothing may be written there."""
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            return os.fstat(probe.fileno()).st_mtime
    except OSError:
        return time.time()


def failed_for_good(results: Path, run: str, digest: str) -> bool:
    """Whether a run refuses to start anywhere, with settings, code and data of this digest."""
    try:
        failed = json.loads((results / "checkpoints" / run / "failed.json").read_text("utf-8"))
        return bool(failed["digest"] == digest and is_for_good(failed["hosts"]))
    except (OSError, ValueError, LookupError, TypeError):
        return False


def is_for_good(hosts: list[str]) -> bool:
    """Whether a failure stands for all hosts, and not for the one that it was met on.

    Args:
        hosts: those that met it, or were to start the run once more; none for a mistake in what
            the user gave.
    """
    return len(hosts) != 1


def run_digest(settings: str, code: str, packages: str, manifest: Path, split: Path) -> str:
    """Digest of all that a run's numbers depend on.

    Args:
        settings: hash of the run's settings.
        code: digest of the code that trains it.
        packages: digest of the installed packages.
        manifest: manifest of the dataset.
        split: the split file.
    """
    data = [sha256_of(path) if path.is_file() else "" for path in (manifest, split)]
    return digest_of(settings, code, packages, *data)


def digest_of(*parts: str) -> str:
    """``run_digest`` where the SHA-256 of manifest and split file are known, in its order."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def adopted_file(results: Path) -> Path:
    """Where adoptions are kept.

    Run -> digests of the code and the packages it was made with ('from'), joined by '-', and of
    those under which it was declared valid ('to').
    """
    return results / "adopted.json"


def read_adopted(results: Path) -> dict[str, dict[str, str]]:
    """The adoptions; none when there is no such file."""
    path = adopted_file(results)
    with reading(path):
        return dict(json.loads(path.read_text("utf-8"))) if path.is_file() else {}
