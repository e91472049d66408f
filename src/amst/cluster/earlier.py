"""Jobs that an earlier call of Snakemake has left: refused, waited for or cancelled."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from amst.cluster.held import HeldJobs, say
from amst.cluster.live import LiveJob, ask, live_jobs
from amst.errors import AmstError

_POLL = 5.0  # seconds between two looks at the queue
_PATIENCE = 60.0  # seconds for a cancelled job to leave the queue; SLURM's KillWait is 30


def cancel(jobs: Sequence[LiveJob], folder: Path) -> None:
    """End jobs and wait until they are gone.

    Raises:
        AmstError: they stay.
    """
    ask("scancel", *(job.id for job in jobs))
    wait(folder, poll=0.5, patience=_PATIENCE)


def wait(
    folder: Path,
    poll: float = _POLL,
    patience: float = float("inf"),
    tell: Callable[[str], None] = say,
) -> None:
    """Wait until no job of this folder lives.

    Jobs that SLURM holds are let go on or told of, as `amst.cluster.held` does.

    Raises:
        AmstError: they still live after ``patience`` seconds, or SLURM does not answer then.
    """
    until, told, held = time.monotonic() + patience, -1, HeldJobs(tell)
    while jobs := _live_jobs_after_an_outage(folder, poll, until, tell):
        if len(jobs) != told:
            tell(f"waiting for {len(jobs)} jobs of an earlier call: {jobs[0]}, ...")
            told = len(jobs)
        held.look(jobs)
        if time.monotonic() > until:
            raise AmstError(f"{len(jobs)} jobs do not end, such as {jobs[0]}", "See `squeue --me`")
        time.sleep(poll)


def _live_jobs_after_an_outage(
    folder: Path, poll: float, until: float, tell: Callable[[str], None]
) -> list[LiveJob]:
    """The jobs of this folder, when SLURM answers."""
    told = False
    while True:
        try:
            return live_jobs(folder)
        except AmstError as error:
            if time.monotonic() > until:
                raise
            if not told:
                tell(f"{error.message}: waiting until SLURM answers")
            told = True
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
