"""Jobs that SLURM forgets, or takes away for good, are submitted again; nobody waits for ever."""

from collections.abc import Callable
from pathlib import Path

from tests.cluster.longruns import (
    LONG,
    SCAVENGING,
    hold,
    is_training,
    job_of,
    preempt,
    run_name,
    same_bytes,
)
from tests.cluster.machines import ClusterSuite, Slurm, until


def test_a_job_that_slurm_has_forgotten_is_submitted_again_and_continues(
    start_slurm: Callable[..., Slurm], undisturbed: ClusterSuite, folder: Path
):
    """As one whose submission slurmctld had not written down when its machine went down."""
    slurm = start_slurm(nodes=1, gpus=1)
    suite = ClusterSuite.on(undisturbed, folder, slurm)
    suite.configure({**LONG, "grid": {"methods": ["naive"], "seeds": [0]}})
    call = suite.start(*suite.on_slurm(f"results/runs/{run_name(0)}/run.json"))
    until(lambda: is_training(suite, 0) and hold(suite, 0), 120, "an epoch")
    slurm.restart_controller(down_for=1, forgetful=True)
    assert slurm.jobs() == []
    assert call.wait(300) == 0, suite.log()[-5000:]
    assert "SLURM has forgotten job" in suite.log()
    same_bytes(suite, undisturbed)


def test_a_run_that_is_pre_empted_for_good_is_submitted_anew_and_continues(
    start_slurm: Callable[..., Slurm], undisturbed: ClusterSuite, folder: Path
):
    slurm = start_slurm(nodes=1, gpus=1, preempt="CANCEL")
    suite = ClusterSuite.on(undisturbed, folder, slurm)
    suite.configure({**LONG, "grid": {"methods": ["naive"], "seeds": [0]}})
    suite.site = SCAVENGING
    suite.change("cluster/status.py", "_PREEMPTED = 300.0", "_PREEMPTED = 5.0")
    call = suite.start(*suite.on_slurm(f"results/runs/{run_name(0)}/run.json"))
    until(lambda: is_training(suite, 0) and hold(suite, 0), 120, "an epoch")
    job = until(lambda: job_of(slurm, run_name(0)), 20, "its job")
    preempt(slurm, job)
    assert call.wait(300) == 0, suite.log()[-5000:]
    assert slurm.field(job["id"], "JobState") == "PREEMPTED"
    assert f"SLURM does not queue pre-empted job {job['id']} again" in suite.log()
    same_bytes(suite, undisturbed)
