"""How often Snakemake (9.27) looks for jobs to start: made to last for days.

For its limit of jobs in a timespan, every look sets a timer that brings the next one; and every
job that ends brings one more look. None of these ever ceases while jobs wait, so that after some
hundreds of jobs Snakemake does nothing but look: a whole core of the login node, and each time the
size of every waiting job's inputs from the file system.
"""

import threading
import time
from weakref import WeakKeyDictionary

from snakemake.scheduling.job_scheduler import JobScheduler

RARELY = 10.0
"""Seconds to the next look where none is known to be needed.

Snakemake is told when jobs end; but of many ready jobs it looks at some only, drawn at random.
"""


class Timers:
    """Sets one timer at a time for a scheduler: the one that is due first."""

    def __init__(self) -> None:
        self._set: WeakKeyDictionary[JobScheduler, tuple[float, threading.Timer]]
        self._set = WeakKeyDictionary()

    def look_again(self, scheduler: JobScheduler, delay: float) -> None:
        """Does what Snakemake's method of that purpose does.

        Args:
            scheduler: its semaphore ``_open_jobs`` is released then.
            delay: seconds; more if it is the timespan of a limit that left room at this look, since
                the jobs that wait then wait for something else.
        """
        limit = scheduler.job_rate_limiter
        # Not what it says now, which may be some time after the look.
        if limit and delay == limit.timespan and len(limit._jobs) < limit.max_jobs:
            delay = max(delay, RARELY)
        now = time.monotonic()
        before, timer = self._set.get(scheduler, (now, None))
        if now < before <= now + delay:
            return
        if timer:
            timer.cancel()
        due = now + delay
        timer = threading.Timer(delay, scheduler._open_jobs.release)
        timer.daemon = True  # Snakemake's end does not wait for it
        self._set[scheduler] = due, timer
        timer.start()


def mend_the_scheduler() -> None:
    """Let the schedulers of this process look again when there is a reason."""
    timers = Timers()
    JobScheduler._schedule_reevalutation = lambda self, delay: timers.look_again(self, delay)
