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

RARELY = 60.0
"""Seconds to the next look where none is known to be needed: Snakemake is told when jobs end."""


class Timers:
    """Sets one timer at a time for a scheduler: the one that is due first."""

    def __init__(self) -> None:
        self._set: WeakKeyDictionary[JobScheduler, tuple[float, threading.Timer]]
        self._set = WeakKeyDictionary()

    def look_again(self, scheduler: JobScheduler, delay: float) -> None:
        """Does what Snakemake's method of that purpose does.

        Args:
            scheduler: its semaphore ``_open_jobs`` is released then.
            delay: seconds; more if it is the timespan of a limit that leaves room now, since the
                jobs that wait then wait for something else.
        """
        limit = scheduler.job_rate_limiter
        if limit is not None and delay == limit.timespan and limit.get_free_jobs() > 0:
            delay = max(delay, RARELY)
        due = time.monotonic() + delay
        if scheduler in self._set:
            before, timer = self._set[scheduler]
            if timer.is_alive() and before <= due:
                return
            timer.cancel()
        timer = threading.Timer(delay, scheduler._open_jobs.release)
        timer.daemon = True  # Snakemake's end does not wait for it
        self._set[scheduler] = due, timer
        timer.start()


def mend_the_scheduler() -> None:
    """Let the schedulers of this process look again when there is a reason."""
    timers = Timers()
    JobScheduler._schedule_reevalutation = lambda self, delay: timers.look_again(self, delay)
