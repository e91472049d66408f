"""Runs that have failed for good: Snakemake tries them no more in this call.

Snakemake (9.27) knows one number of tries for whatever ends a job, and it has to be high enough for
a run of many time limits. A run that refuses to start, since it failed without getting further,
would wait in the queue for a GPU as often, only to refuse again.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from snakemake.scheduling.job_scheduler import JobScheduler

from amst.config.run import RunSettings
from amst.provenance import present_digest
from amst.training.state import failed_for_good


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
        tries = rule._restart_times
        with suppress(OSError):  # where a file cannot be read now, it is tried again
            settings, features = run_of(job.wildcards)
            if failed_for_good(results, settings.run_id, present_digest(settings, features)):
                rule._restart_times = 0  # for this job only: errors are handled one by one
        try:
            handle_error(self, job, postprocess_job)
        finally:
            rule._restart_times = tries

    JobScheduler._handle_error = end_or_try_again
