"""SLURM jobs of one working folder: found by the name that profiles/slurm gives them.

A controller that is killed leaves its jobs running, and the next one does not know them. Whoever
starts next looks here first, so that no run is submitted twice.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from amst.errors import AmstError

_POLL = 5.0  # seconds between two looks at the queue
_OUTAGE = 600.0  # seconds without an answer that a wait sits out, as profiles/slurm does
_PATIENCE = 60.0  # seconds for a cancelled job to leave the queue; SLURM's KillWait is 30


@dataclass(frozen=True)
class LiveJob:
    """A job that is waiting, running or ending.

    Attributes:
        id: SLURM's number.
        state: SLURM's word for its state.
        about: rule and wildcards, as Snakemake notes them in the job's comment.
    """

    id: str
    state: str
    about: str

    def __str__(self) -> str:
        return f"{self.id} {self.state.lower()} {self.about}".rstrip()


def prefix_of(folder: Path) -> str:
    """What the names of all jobs of a working folder begin with; as in profiles/slurm."""
    return "amst-" + hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]


def live_jobs(folder: Path) -> list[LiveJob]:
    """Jobs of this folder that SLURM still knows as not ended; none where there is no SLURM.

    Raises:
        AmstError: SLURM does not answer, so nobody can say.
    """
    if not shutil.which("squeue"):
        return []
    asked = _slurm("squeue", "--noheader", "--user", str(os.getuid()), "--format=%i|%j|%T|%k")
    found = []
    for line in asked.splitlines():
        number, name, state, about = line.split("|", 3)
        if name.startswith(prefix_of(folder) + "_"):
            found.append(LiveJob(number, state, "" if about == "(null)" else about))
    return found


def has_ended(job: str, own: str = "") -> bool:
    """Whether SLURM says that a job does not live any more; False where it says nothing.

    Args:
        job: SLURM's number; empty for none.
        own: the job that asks.
    """
    if not job or job == own or not shutil.which("squeue"):
        return False
    try:
        return not _slurm("squeue", "--noheader", "--jobs", job, "--format=%i").strip()
    except AmstError as error:  # it knows ended jobs for some minutes only
        return "Invalid job id" in str(error)


def cancel(jobs: Sequence[LiveJob], folder: Path) -> None:
    """End jobs and wait until they are gone.

    Raises:
        AmstError: they stay.
    """
    _slurm("scancel", *(job.id for job in jobs))
    wait(folder, poll=0.5, patience=_PATIENCE)


def wait(
    folder: Path,
    poll: float = _POLL,
    patience: float = float("inf"),
    tell: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
) -> None:
    """Wait until no job of this folder lives.

    Raises:
        AmstError: they still live after ``patience`` seconds, or SLURM does not answer for ten
            minutes.
    """
    until, told = time.monotonic() + patience, -1
    while jobs := _live_jobs_after_an_outage(folder, poll):
        if len(jobs) != told:
            tell(f"waiting for {len(jobs)} jobs of an earlier call: {jobs[0]}, ...")
            told = len(jobs)
        if time.monotonic() > until:
            raise AmstError(f"{len(jobs)} jobs do not end, such as {jobs[0]}", "See `squeue --me`")
        time.sleep(poll)


def _live_jobs_after_an_outage(folder: Path, poll: float) -> list[LiveJob]:
    """The jobs of this folder, when SLURM answers."""
    until = time.monotonic() + _OUTAGE
    while True:
        try:
            return live_jobs(folder)
        except AmstError:
            if time.monotonic() > until:
                raise
        time.sleep(poll)


def settle(folder: Path, way: str) -> None:
    """Make sure that no job of an earlier controller lives before new ones are submitted.

    Args:
        folder: the working folder.
        way: 'refuse', 'wait' or 'cancel'.

    Raises:
        AmstError: jobs live and the way is to refuse, with their list; or there is no such way.
    """
    if way not in ("refuse", "wait", "cancel"):
        raise AmstError(f"AMST_LIVE_JOBS is {way!r}", "Set it to refuse, wait or cancel")
    jobs = live_jobs(folder)
    if not jobs:
        return
    if way == "wait":
        wait(folder)
    elif way == "cancel":
        cancel(jobs, folder)
    else:
        listed = "".join(f"\n  {job}" for job in jobs[:20])
        more = f"\n  and {len(jobs) - 20} more" if len(jobs) > 20 else ""
        raise AmstError(
            f"{len(jobs)} jobs of an earlier call live in this folder:{listed}{more}\n"
            "They may go on writing",
            "Wait for them: AMST_LIVE_JOBS=wait snakemake ... (or `amst jobs --wait`); "
            "or end them: AMST_LIVE_JOBS=cancel snakemake ... (or `amst jobs --cancel`); "
            "either way finished runs stay and others continue",
        )


def _slurm(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    except subprocess.TimeoutExpired:
        raise AmstError(f"{command[0]} has not answered for two minutes", "Try later") from None
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip() or f"exit code {error.returncode}"
        raise AmstError(f"{command[0]}: {said}", "Try again when SLURM answers") from None
    return done.stdout
