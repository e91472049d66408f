"""Submissions that SLURM refuses for now: made again until it takes them, and never twice.

Snakemake's SLURM plugin (2.8) counts a refusal as a failed try of the job, and the next one follows
at once: while slurmctld is away, or as many jobs wait as a user may submit, a job would use up its
tries, each of which asks for more memory. What SLURM refuses for good, it refuses at every try.
"""

import re
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import snakemake_executor_plugin_slurm as plugin
from snakemake.scheduling.job_scheduler import JobScheduler
from snakemake_interface_common.exceptions import WorkflowError

from amst.cluster.failed import last_try
from amst.cluster.held import say
from amst.cluster.live import ask
from amst.errors import AmstError

_PAUSE = 15.0  # seconds between two tries; the plugin makes two submissions at a time
_OVER = 300.0  # seconds without a refusal after which the next one is told of again
_LIMIT = re.compile(r"\w*SubmitJobs?\w*Limit")
_AWAY = re.compile(
    r"Unable to contact slurm controller|Communication \w+ failure|Socket timed out"
    r"|Connection (refused|reset|timed out)|Zero Bytes were|temporarily (un|dis)a\w+|queue full"
    r"|job record, try again|nodes are busy|in standby mode|configuration source"
    r"|Protocol authentication error|I/O error writing script",  # munge away, a full disk there
    re.IGNORECASE,
)
_NODE = re.compile(r"\[Errno |\bKilled\b|Cannot (fork|allocate memory)|message was ''")
"""What is told where this node, for want of memory or processes, could not ask SLURM."""


def passing(said: str) -> str:
    """Why SLURM takes no jobs now, in its own words; empty for a refusal that would stay.

    Args:
        said: what the plugin tells of it.
    """
    lines = _words(said).splitlines()
    for line in lines:  # the reason stands before the failure
        if limit := _LIMIT.search(line):
            return limit[0]
    for line in reversed(lines):
        if not line.endswith("retrying") and (away := _AWAY.search(line)):
            return line[away.start() :].rstrip("'.")
    return ""


def _words(said: str) -> str:
    """What the plugin tells of a refusal, without the call."""
    return said.partition("    sbatch call:")[0]


class Submissions:
    """Submits jobs, in the two threads that the plugin has for it.

    Args:
        submit: the plugin's own: executor, job; it tells the executor what has come of it.
        tell: is given a line for what a user should know.
        pause: seconds between two tries.
        clock: seconds.

    Attributes:
        ended: whether the call takes its jobs back; nothing is submitted any more.
    """

    def __init__(
        self,
        submit: Callable[[Any, Any], None],
        tell: Callable[[str], None] = say,
        pause: float = _PAUSE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._submit, self._tell, self._pause, self._clock = submit, tell, pause, clock
        self.ended = threading.Event()
        self._known: set[str] = set()  # numbers of jobs that SLURM has confirmed
        self._refused: dict[str, float] = {}
        self._for_good: set[int] = set()
        self._lock = threading.Lock()

    def __call__(self, executor: Any, job: Any) -> None:
        """Submit a job, until SLURM takes it or refuses it for good, or the call ends.

        Nobody looks at what a thread of the plugin raises: the job would be waited for for ever.
        """
        try:
            self._until_taken(executor, job)
        except Exception as error:
            said = f"It could not be submitted: {type(error).__name__}: {error}"
            executor._report_job_error_threadsafe(plugin.SubmittedJobInfo(job), said)

    def _until_taken(self, executor: Any, job: Any) -> None:
        refusal = plugin.SubmittedJobInfo(job), "It was not submitted, since the call ends."
        while not self.ended.is_set() and not _leaves(executor):
            tried = _Try(executor, self._known)
            self._submit(tried, job)
            if tried.refusal is None:
                return
            refusal = tried.refusal
            why = passing(refusal[1])
            if not why:
                if not _NODE.search(_words(refusal[1])):
                    self._for_good.add(id(job))
                break
            limit = bool(_LIMIT.fullmatch(why))
            self._say(why, limit)
            if limit:
                self.ended.wait(self._pause)
            elif self._was_taken(executor, job):
                return
        if not self.ended.is_set():
            executor._report_job_error_threadsafe(*refusal)

    def refused_for_good(self, job: Any) -> bool:
        """Whether SLURM, or the plugin, will refuse every further try of a job."""
        return id(job) in self._for_good

    def _say(self, why: str, limit: bool) -> None:
        """Tell of an outage, or of a limit, once."""
        with self._lock:
            now, kind = self._clock(), "limit" if limit else "away"
            known = now - self._refused.get(kind, -_OVER) < _OVER
            self._refused[kind] = now
        if not known:
            until = "until others have ended" if limit else "and are submitted again"
            self._tell(f"SLURM takes no jobs now ({why}): they wait {until}")

    def _was_taken(self, executor: Any, job: Any) -> bool:
        """Wait until SLURM answers, and take a job over that it has taken without saying so.

        A submission that has timed out may have reached it nevertheless. When it goes on, it may
        answer before it has seen to what came earlier, so it is asked twice.
        """
        answers = 0
        while answers < 2 and not self.ended.wait(self._pause) and not _leaves(executor):
            try:
                unheard = _numbers_of(executor, job) - self._known
            except AmstError:
                answers = 0
                continue
            answers += 1
            if not unheard:
                continue
            number = min(unheard, key=int)
            self._known.add(number)
            self._tell(f"SLURM has taken job {number} without saying so: {_about(job)}")
            kind = "group" if job.is_group() else "rule"
            logs = executor.slurm_logdir / f"{kind}_{job.name}" / plugin.get_job_wildcards(job)
            log = {"slurm_logfile": logs / f"{number}.log"}
            executor._report_job_submission_threadsafe(plugin.SubmittedJobInfo(job, number, log))
            return True
        return False


class _Try:
    """The plugin's executor during one try: it keeps a refusal, and notes what SLURM takes."""

    def __init__(self, executor: Any, known: set[str]) -> None:
        self._executor, self._known = executor, known
        self.refusal: tuple[Any, str] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._executor, name)

    def _report_job_error_threadsafe(self, info: Any, said: str) -> None:
        self.refusal = info, said

    def _report_job_submission_threadsafe(self, info: Any) -> None:
        self._known.add(info.external_jobid)
        self._executor._report_job_submission_threadsafe(info)


def _about(job: Any) -> str:
    """What the plugin notes of a job in SLURM."""
    wildcards = plugin.get_job_wildcards(job)
    return f"rule_{job.name}" + (f"_wildcards_{wildcards}" if wildcards else "")


def _numbers_of(executor: Any, job: Any) -> set[str]:
    """Numbers of all tries of a job in this call that SLURM remembers.

    Raises:
        AmstError: it does not answer.
    """
    names = ("--name", executor.run_uuid, "--states=all")
    listed = ask("squeue", "--all", "--noheader", *names, "--format=%i|%k")
    found = (line.partition("|") for line in listed.splitlines())
    return {number for number, _, about in found if about == _about(job)}


def _leaves(executor: Any) -> bool:
    """Whether the call only waits for what runs, on SIGTERM, or has met a fault of its own."""
    scheduler = executor.workflow.scheduler
    return bool(scheduler._user_kill or scheduler._executor_error)


def wait_for_slurm() -> None:
    """Let the plugin of this process submit so."""
    submissions = Submissions(plugin.Executor.run_job)
    cancel, check = plugin.Executor.cancel, plugin.validate_account
    handle_error = JobScheduler._handle_error

    def end_or_try_again(self: Any, job: Any, postprocess_job: bool = True) -> None:
        with last_try(job) if submissions.refused_for_good(job) else nullcontext():
            handle_error(self, job, postprocess_job)

    def stop_and_cancel(self: Any) -> None:
        submissions.ended.set()
        try:  # first, so that what is just being submitted is cancelled, too
            self._job_submission_executor.shutdown(wait=True, cancel_futures=True)
        finally:  # also where a second Ctrl-C ends the waiting
            cancel(self)

    def validate_account(account: str, logger: Any) -> str:
        try:
            return str(check(account, logger))
        except WorkflowError as error:
            if "appears to be invalid" in str(error):
                raise
            return account  # accounting does not answer; sbatch says whether it is valid

    plugin.Executor.run_job = lambda self, job: submissions(self, job)
    plugin.Executor.cancel = stop_and_cancel
    plugin.validate_account = validate_account
    JobScheduler._handle_error = end_or_try_again
