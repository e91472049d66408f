"""Jobs that SLURM holds or never starts: Snakemake waits for ever, unless somebody acts.

SLURM holds a job when a node could not start it ("launch failed requeued held"). Such a job is let
go on, some times; one that somebody has held on purpose, or that asks for what it may not
have, is only told of.
"""

import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from amst.cluster.live import LiveJob, ask, live_jobs
from amst.errors import AmstError

_RELEASES = 3  # of one job; where no node can start it, the cluster has a fault to be mended
_POLL = 30.0  # seconds between two looks at the queue


def say(line: str) -> None:
    """Print a line for whoever watches the call; a call goes on that nobody watches any more."""
    with suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)


class HeldJobs:
    """What has been done about jobs that are held or stuck.

    Args:
        tell: is given one line for each change.
    """

    def __init__(self, tell: Callable[[str], None] = say) -> None:
        self._tell = tell
        self._released: Counter[str] = Counter()
        self._told: set[str] = set()
        self._stuck: set[str] = set()

    def look(self, jobs: Sequence[LiveJob]) -> None:
        """Release jobs that no node has started; tell of those that stay held, once each time.

        And of those that are stuck, once, all with one reason in one line: SLURM may give other
        reasons in between.
        """
        stuck = [job for job in jobs if job.stuck and job.id not in self._stuck]
        self._stuck |= {job.id for job in stuck}
        for reason, many in Counter(job.reason for job in stuck).items():
            job = next(job for job in stuck if job.reason == reason)
            others = f" and {many - 1} more" if many > 1 else ""
            self._tell(
                f"SLURM does not start job {job.id} ({reason}) {job.about}".rstrip() + f"{others}: "
                f"as it is, it may wait for ever; `scontrol update jobid={job.id} ...` changes it, "
                f"`scancel {job.id}` ends it for another attempt, and the site's file amends what "
                "the next call asks for"
            )
        held = {job.id: job for job in jobs if job.held}
        self._told &= set(held)
        for number, job in held.items():
            if number in self._told:
                continue
            reason = job.reason or job.state.lower()
            why = f"SLURM holds job {number} ({reason}) {job.about}".rstrip()
            if self._release(job):
                self._tell(f"{why}: a node could not start it; released, it will be tried again")
                continue
            self._told.add(number)
            self._tell(
                f"{why}: it waits until `scontrol release {number}` lets it go on, or "
                f"`scancel {number}` ends it for another attempt"
            )

    def _release(self, job: LiveJob) -> bool:
        """Let a job go on that SLURM itself holds, if it was not released too often."""
        launch_failed = job.reason.replace("_", " ").lower().startswith("launch failed")
        if not launch_failed or self._released[job.id] >= _RELEASES:
            return False
        try:
            ask("scontrol", "release", job.id)
        except AmstError:
            return False
        self._released[job.id] += 1
        return True


def watch(folder: Path, poll: float = _POLL) -> threading.Thread:
    """Look at the jobs of a folder again and again, in a thread that ends with the process.

    Args:
        folder: the working folder of the call.
        poll: seconds between two looks; one without an answer of SLURM is left out.
    """

    def look_on() -> None:
        held, pause = HeldJobs(), threading.Event()
        while not pause.wait(poll):
            try:
                held.look(live_jobs(folder))
            except AmstError:
                continue

    thread = threading.Thread(target=look_on, name="held jobs", daemon=True)
    thread.start()
    return thread
