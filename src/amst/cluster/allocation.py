"""When the allocation that this process runs in ends, so that a run saves and leaves before."""

import os
import time
from collections.abc import MutableMapping
from datetime import datetime

from amst.cluster.live import ask
from amst.errors import AmstError

ENDS = "AMST_JOB_ENDS"
"""Environment variable `<job id>:<Unix time>`: found outside the container, used inside it."""
_MARGIN = (30, 300)
"""Least and most seconds to leave before the end; a tenth of the time between these."""


def note_end(environ: MutableMapping[str, str] = os.environ) -> None:
    """Note when this SLURM job ends, for all processes that begin from here.

    Called where SLURM's commands are: in a container they are not. Does nothing outside a job,
    and where SLURM does not say.
    """
    job = environ.get("SLURM_JOB_ID", "")
    if not job or environ.get(ENDS, "").startswith(f"{job}:"):
        return
    environ.pop(ENDS, None)  # of the job that this one was submitted from
    end = environ.get("SLURM_JOB_END_TIME") or _end_of(job)
    if end:
        environ[ENDS] = f"{job}:{end}"


def _end_of(job: str) -> str:
    """Unix time of a job's end by SLURM; empty when it does not say."""
    try:
        end = ask("squeue", "--noheader", f"--jobs={job}", "--format=%e").strip()
        return str(int(datetime.fromisoformat(end).timestamp()))
    except (AmstError, ValueError):
        return ""


def deadline(wanted: int = 0, environ: MutableMapping[str, str] = os.environ) -> int:
    """Seconds after which a run that starts now should save and leave; 0 for never.

    Args:
        wanted: what the configuration says; 0 for nothing. The sooner of both holds.
        environ: where `note_end` has left the end of the allocation.
    """
    job, _, end = environ.get(ENDS, "").partition(":")
    if not end or job != environ.get("SLURM_JOB_ID"):
        return wanted
    left = int(end) - time.time()
    least, most = _MARGIN
    before = max(1, int(left - min(most, max(least, left / 10))))
    return min(wanted or before, before)
