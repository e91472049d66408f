"""How Snakemake's SLURM plugin (2.8) learns the state of jobs: made to last for days.

Left to itself the plugin waits for ever for a job that sacct calls "CANCELLED by 1000", that SLURM
has forgotten, or that was pre-empted or lost its node and is not queued again; it keeps all later
jobs from a node that has failed once, so that a small partition runs out of nodes; and it forgets
all jobs when SLURM does not answer for longer than some number of attempts. Here its question to
SLURM gets an answer that it understands.
"""

import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import snakemake_executor_plugin_slurm as plugin

from amst.cluster.held import say
from amst.cluster.live import is_unknown

_FORGOTTEN = 3  # answers without a job that was submitted, after which SLURM is asked for it alone
_PREEMPTED = 300.0  # seconds after which SLURM will not queue a job again that it took away
_TAKEN_AWAY = {"PREEMPTED": "pre-empted job {}", "NODE_FAIL": "job {}, whose node has failed,"}

Answer = tuple[dict[str, str] | None, float | None]
Query = Callable[[str, Any], Awaitable[Answer]]


class JobStates:
    """Answers of SLURM in words that the plugin knows what to do with.

    Args:
        query: the plugin's own: command, logger -> states of jobs and seconds, or None and None.
        tell: is given a line for what a user should know.
        clock: seconds.
        unknown: whether SLURM says that there is no such job.

    Attributes:
        by_squeue: whether the last question was one to squeue, which lists ended jobs for
            MinJobAge only.
    """

    def __init__(
        self,
        query: Query,
        tell: Callable[[str], None] = say,
        clock: Callable[[], float] = time.monotonic,
        unknown: Callable[[str], bool] = is_unknown,
    ) -> None:
        self._query, self._tell, self._clock, self._unknown = query, tell, clock, unknown
        self.by_squeue = False
        self._awaited: set[str] = set()
        self._absent: Counter[str] = Counter()
        self._taken_away: dict[str, float] = {}
        self._away = False

    def await_jobs(self, jobs: Iterable[str]) -> None:
        """Say which submitted jobs have not ended as far as the plugin knows."""
        # those of job arrays have other names while they wait
        self._awaited = {job for job in jobs if job.isdigit()}

    async def __call__(self, command: str, logger: Any) -> Answer:
        """States of jobs; none of any job while SLURM does not answer: it is asked again."""
        self.by_squeue = command.split()[0] == "squeue"
        # it lists no jobs of hidden partitions by itself
        asked = f"{command} --all" if self.by_squeue else command
        states, seconds = await self._query(asked, logger)
        if states is None:
            if not self._away:
                self._tell("SLURM does not say how the jobs are; they go on, and it is asked again")
            self._away = True
            return {}, 0.0
        self._away = False
        # sacct: "CANCELLED by 1000"
        states = {job: " ".join(state.split()[:1]) for job, state in states.items()}
        states |= self._forgotten(states)
        states |= self._given_up(states)
        # the plugin would exclude the node, which SLURM itself does while it is down
        lost = [job for job, state in states.items() if state == "NODE_FAIL"]
        return states | dict.fromkeys(lost, "REQUEUED"), seconds

    def _forgotten(self, states: dict[str, str]) -> dict[str, str]:
        """Jobs that SLURM does not know any more.

        Those that ended longer than MinJobAge ago, and those whose submission slurmctld had not
        written down when it was killed. A job may also not be listed yet.
        """
        absent = self._awaited - set(states)
        self._absent = Counter({job: self._absent[job] + 1 for job in absent})
        long = [job for job in absent if self._absent[job] >= _FORGOTTEN]
        gone = [job for job in long if self._unknown(job)]
        for job in gone:
            self._tell(f"SLURM has forgotten job {job}: it is submitted again, if it has not ended")
        return dict.fromkeys(gone, "FAILED")

    def _given_up(self, states: dict[str, str]) -> dict[str, str]:
        """Jobs that were pre-empted, or lost their node, for good."""
        now = self._clock()
        away = [job for job in self._awaited if states.get(job) in _TAKEN_AWAY]
        self._taken_away = {job: self._taken_away.get(job, now) for job in away}
        gone = [job for job, since in self._taken_away.items() if now - since >= _PREEMPTED]
        for job in gone:
            what = _TAKEN_AWAY[states[job]].format(job)
            self._tell(f"SLURM does not queue {what} again: it is submitted anew")
        return dict.fromkeys(gone, "CANCELLED")


def mend_the_plugin() -> None:
    """Let the plugin of this process ask by :class:`JobStates`, and SLURM for MinJobAge once.

    The plugin asks for MinJobAge at every look at the jobs. While slurmctld is away it gets no
    answer and asks sacct for the jobs instead of squeue, which fails without accounting even when
    slurmctld is back.
    """
    age = plugin.get_min_job_age()
    if age is not None:
        known = age or 10**9  # 0: it forgets none
        plugin.get_min_job_age = lambda: known
    states = JobStates(plugin.query_job_status)
    look = plugin.Executor.check_active_jobs

    async def check_active_jobs(self: Any, active_jobs: list[Any]) -> AsyncIterator[Any]:
        # squeue lists jobs of this cluster; the first look may come before the plugin is set up
        elsewhere = getattr(self, "_submitted_job_clusters", ())
        states.await_jobs(() if elsewhere else (job.external_jobid for job in active_jobs))
        async for job in look(self, active_jobs):
            yield job
        if age and states.by_squeue:  # so that no job ends and is forgotten between two looks
            pause = min(self.next_seconds_between_status_checks, max(age // 3, 1))
            self.next_seconds_between_status_checks = pause

    plugin.query_job_status = states
    plugin.Executor.check_active_jobs = check_active_jobs
