"""SLURM jobs of one working folder: found by the name that profiles/slurm gives them.

A controller that is killed leaves its jobs running, and the next one does not know them. Whoever
starts next looks here first, so that no run is submitted twice.
"""

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path

from amst.errors import AmstError

_PATIENCE = 120.0  # seconds for an answer; SLURM's commands themselves mostly give up before
_ALL = ("--all", "--noheader")  # those of hidden partitions, too
_HELD = ("REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT")
_HOLDS = re.compile(r"\bJobH[eo]ld|\b(requeued|in) held\b|\bholding job\b")
"""What SLURM's reasons for a held job have in common, and no other (QOSUsageThreshold) has."""
_REFUSED = re.compile(
    r"Partition(Time|Node)Limit|BadConstraints|DependencyNeverSatisfied|ReservationDeleted"
    r"|(Account|QOS)NotAllowed|Invalid(Account|QOS)|QOSMin\w+|(Assoc|QOS)Max\w*Per(Job(Limit)?|Node)"
    r"|(Assoc|QOS)Grp((?!\w*Run)\w+Minutes(Limit)?|WallLimit)"  # hours that are used up
)
"""SLURM's reasons for a job that does not start as it is, whatever becomes of other jobs.

It takes such jobs unless a site has set EnforcePartLimits.
"""

_PREFERENCES = re.compile(r"(SQUEUE|SACCT|SCANCEL|SCONTROL|SINFO)_\w+|SLURM_TIME_FORMAT")
"""Environment variables that stand for options of SLURM's commands, but those of sbatch."""


@dataclass(frozen=True)
class LiveJob:
    """A job that is waiting, running or ending.

    Attributes:
        id: SLURM's number.
        state: SLURM's word for its state.
        about: rule and wildcards, as Snakemake notes them in the job's comment.
        reason: SLURM's words for why it waits; empty for a job that runs.
    """

    id: str
    state: str
    about: str
    reason: str = ""

    @property
    def held(self) -> bool:
        """Whether it waits until somebody lets it go on."""
        return self.state in _HELD or bool(_HOLDS.search(self.reason.replace("_", " ")))

    @property
    def stuck(self) -> bool:
        """Whether it asks for what it may not have, and waits nevertheless."""
        return self.state == "PENDING" and bool(_REFUSED.fullmatch(self.reason))

    def __str__(self) -> str:
        why = f" ({self.reason})" if self.held or self.stuck else ""
        return f"{self.id} {self.state.lower()}{why} {self.about}".rstrip()


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
    asked = ask("squeue", *_ALL, "--user", str(os.getuid()), "--format=%i|%j|%T|%r|%k")
    found = []
    for line in asked.splitlines():
        number, name, state, reason, about = line.split("|", 4)
        if name.startswith(prefix_of(folder) + "_"):
            about = "" if about == "(null)" else about
            found.append(LiveJob(number, state, about, "" if reason == "None" else reason))
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
        return not ask("squeue", *_ALL, "--jobs", job, "--format=%i").strip()
    except AmstError as error:  # it knows ended jobs for some minutes only
        return "Invalid job id" in str(error)


def is_unknown(job: str) -> bool:
    """Whether SLURM says that there is no job of this number; False where it says nothing."""
    try:
        ask("scontrol", "show", "job", job)
    except AmstError as error:
        return "Invalid job id" in str(error)
    return False


def forget_preferences(environ: MutableMapping[str, str] = os.environ) -> None:
    """Drop what a user has set to be shown less by SLURM's commands, or otherwise.

    A job that SQUEUE_PARTITION hides would be no job, or one that never ends.
    """
    for name in list(filter(_PREFERENCES.fullmatch, environ)):
        del environ[name]


def ask(*command: str) -> str:
    """Call one of SLURM's commands, by its own preferences; what it prints.

    Raises:
        AmstError: it cannot be started, fails, or has not answered for two minutes.
    """
    environment = dict(os.environ)
    forget_preferences(environment)
    try:
        done = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=True,
        )
    except subprocess.TimeoutExpired:
        raise AmstError(f"{command[0]} has not answered for two minutes", "Try later") from None
    except subprocess.CalledProcessError as error:
        said = " ".join(error.stderr.split()) or f"exit code {error.returncode}"
        raise AmstError(f"{command[0]}: {said}", "Try again when SLURM answers") from None
    except OSError as error:
        raise AmstError(f"{command[0]}: {error.strerror or error}", "Try later") from None
    return done.stdout
