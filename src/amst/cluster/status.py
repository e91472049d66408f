"""How Snakemake's SLURM plugin learns the state of jobs."""

import snakemake_executor_plugin_slurm as plugin


def remember_min_job_age() -> None:
    """Ask SLURM once how long it knows of ended jobs, at a call's start, when it answers.

    The plugin (2.8) asks anew at every look at the jobs. While slurmctld is away it gets no answer
    and asks sacct for the jobs instead of squeue; where there is no accounting, sacct fails even
    when slurmctld is back, and the plugin at last forgets the jobs and waits for ever.
    """
    age = plugin.get_min_job_age()
    if age is not None:
        plugin.get_min_job_age = lambda: age
