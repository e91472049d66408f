"""Runs that have failed for good: Snakemake tries them no more in this call.

Snakemake (9.27) knows one number of tries for whatever ends a job, and it has to be high enough for
a run of many time limits. A run that refuses to start, since it failed without getting further,
would wait in the queue for a GPU as often, only to refuse again.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from snakemake.scheduling.job_scheduler import JobScheduler

from amst.config.run import RunSettings
from amst.provenance import present_digest
from amst.training.state import failed_for_good


@contextmanager
def last_try(job: Any) -> Iterator[None]:
    """Let Snakemake start a job no more whose error it handles; all others keep their tries."""
    rules = [each.rule for each in (job.jobs if job.is_group() else [job])]
    tries = [rule._restart_times for rule in rules]
    for rule in rules:
        rule._restart_times = 0  # for this job only: errors are handled one by one
    try:
        yield
    finally:
        for rule, number in zip(rules, tries, strict=True):
            rule._restart_times = number


def end_failed_runs(run_of: Callable[[Any], tuple[RunSettings, Path]], results: Path) -> None:
    """Let the schedulers of this process start runs no more that have failed for good.

    Args:
        run_of: settings of a run and folder of its features, from the wildcards of rule train.
        results: folder that the runs lie below.
    """
    handle_error = JobScheduler._handle_error

    def end_or_try_again(self: Any, job: Any, postprocess_job: bool = True) -> None:
        rule = None if job.is_group() else job.rule
        if rule is None or rule.name != "train":
            handle_error(self, job, postprocess_job)
            return
        ended = False
        with suppress(OSError):  # where a file cannot be read now, it is tried again
            settings, features = run_of(job.wildcards)
            ended = failed_for_good(results, settings.run_id, present_digest(settings, features))
        with last_try(job) if ended else nullcontext():
            handle_error(self, job, postprocess_job)

    JobScheduler._handle_error = end_or_try_again
