"""The process that runs Snakemake: how it starts after one that was killed."""

from amst.cluster import allocation, controllers, earlier, held, live
from amst.cluster.failed import end_failed_runs
from amst.cluster.nesting import mend_the_graph
from amst.cluster.scheduling import mend_the_scheduler
from amst.training.kept import forget, forget_seen, set_aside
from amst.training.lock import Writer

# Known before Snakemake's plugin drops what SLURM says of the job that this may be.
ME = Writer.this()


def settle_jobs_of_an_earlier_controller():
    """Submit nothing while jobs of an earlier call live in this folder (docs/cluster.md)."""
    try:
        earlier.settle(Path(), os.environ.get("AMST_LIVE_JOBS", "refuse"))
    except AmstError as error:
        raise WorkflowError(str(error)) from None
    except KeyboardInterrupt:
        sys.exit(
            "amst: interrupted; the jobs of the earlier call go on, `amst jobs` lists them"
        )


def run_of(wildcards):
    """Settings of a run, and the folder of its features."""
    cell = cell_of(wildcards)
    return RESOLVE(cell), Path("results/features", owner(cell.dataset))


# Another profile, or --default-resources, replaces the whole block and not single keys of it.
if (
    workflow.is_main_process
    and SITE
    and workflow.resource_settings.nodes is not None
    and "slurm_partition" not in (workflow.resource_settings.default_resources or {})
):
    raise WorkflowError(
        "default-resources of profiles/slurm are replaced by another profile or option: jobs "
        "would get no partition. Take `default-resources` out of it; the site's file has "
        "`resources` for single rules"
    )

# So it is with --set-resources, and the site's `resources` would be lost.
if workflow.is_main_process and SITE and workflow.resource_settings.nodes is not None:
    for _rule, _asked in SITE.overriding().items():
        _given = (workflow.resource_settings.overwrite_resources or {}).get(_rule, {})
        if not set(_asked) <= set(_given):
            raise WorkflowError(
                f"the site's resources.{_rule} are replaced by set-resources of another profile "
                "or option. Take `set-resources` out of it, and amend the site's file"
            )

mend_the_graph()

# A report, a summary or --unlock may be asked for while jobs or another controller live.
if (
    workflow.is_main_process
    and not workflow.output_settings.dryrun
    and this_call().runs
):
    controllers.keep_locks_of_others()
    # Where another call lives that makes what this one needs, Snakemake says so in a moment.
    if controllers.clear_locks_of_the_dead(Path(".snakemake"), ME):
        # a local call after one through SLURM must not meet its jobs either
        if workflow.resource_settings.nodes is not None or os.path.isdir("logs/slurm"):
            settle_jobs_of_an_earlier_controller()
        for run in set_aside(Path()):
            print(f"{run} ended without a controller; it is kept", file=sys.stderr)
        # notes in a database do not say here which ends Snakemake has not seen
        if NOTES_IN_FILES:
            forget_seen(Path())
    mend_the_scheduler()
    end_failed_runs(run_of, Path("results"))
    if workflow.resource_settings.nodes is not None:
        from amst.cluster.refusals import wait_for_slurm
        from amst.cluster.status import mend_the_plugin
        from amst.cluster.submission import (
            ask_for_gpus,
            keep_the_settings,
            submit_steps,
        )

        live.forget_preferences()  # the plugin asks by itself, too
        mend_the_plugin()
        keep_the_settings()
        submit_steps()
        ask_for_gpus()
        wait_for_slurm()
        held.watch(Path())

# Here, outside the container, SLURM can say when this job ends; its run saves before that.
allocation.note_end()


onsuccess:
    if NOTES_IN_FILES:
        forget_seen(Path())
    else:  # of this call's runs, at least, all ends were seen
        for job in workflow.dag.jobs:
            if job.rule.name == "train":
                forget(Path("results/checkpoints", cell_of(job.wildcards).run))
