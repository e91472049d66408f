"""What happens to jobs on a cluster: every run ends once, with the bytes of a local run.

One call of Snakemake trains five runs on pre-emptable nodes. Four are stopped (SIGSTOP) when they
have saved their first epoch, so that none is done before its fault comes; then slurmctld is killed
and started again, and each of the four meets a fault of its own. SLURM sends SIGCONT ahead of the
SIGTERM with which it takes a job away.
"""

import json
import os
import signal
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from amst.training.lock import Writer
from tests.cluster.longruns import (
    LONG,
    SCAVENGING,
    hold,
    is_training,
    job_of,
    preempt,
    run_name,
    same_bytes,
    training_process,
)
from tests.cluster.machines import ClusterSuite, Slurm, until


def all_held(suite: ClusterSuite, seeds: Iterable[int]) -> bool:
    """Stop what trains by now; whether all these runs are stopped."""
    running = [seed for seed in seeds if is_training(suite, seed)]
    return [seed for seed in running if hold(suite, seed)] == list(seeds)


def requeue(slurm: Slurm, job: dict[str, str]) -> None:
    """And hold it: the call has to say so, since it would wait for ever."""
    slurm("scontrol", "requeuehold", job["id"])


def cancel(slurm: Slurm, job: dict[str, str]) -> None:
    slurm("scancel", job["id"])


def take_node_down(slurm: Slurm, job: dict[str, str]) -> None:
    slurm("scontrol", "update", f"nodename={job['node']}", "state=down", "reason=test")


def leave_lock(suite: ClusterSuite, run: str, job: str) -> None:
    """As a node does that goes out: a lock of this job, on a host where nobody can look."""
    lock = suite.file(f"results/checkpoints/{run}/lock")
    assert not lock.exists(), "a run that saved and left has given it back"
    writer = replace(Writer.this(), host="another-node", job=job, restarts=0)
    lock.write_text(json.dumps(asdict(writer)), encoding="utf-8")


FAULTS: dict[int, Callable[[Slurm, dict[str, str]], None]] = {
    0: requeue,
    1: cancel,
    2: take_node_down,
    3: preempt,
}  # and seed 4 meets none


@pytest.fixture(scope="module")
def storm(
    start_slurm: Callable[..., Slurm],
    undisturbed: ClusterSuite,
    tmp_path_factory: pytest.TempPathFactory,
) -> ClusterSuite:
    """The runs through profiles/slurm, disturbed, after the call has ended."""
    slurm = start_slurm(nodes=6, gpus=1)
    suite = ClusterSuite.on(undisturbed, tmp_path_factory.mktemp("storm"), slurm)
    suite.site = SCAVENGING
    call = suite.start(*suite.on_slurm("results/tables/main.csv"))
    until(lambda: all_held(suite, FAULTS), 240, "an epoch of every run")
    jobs = {
        seed: until(lambda seed=seed: job_of(slurm, run_name(seed)), 20, "its job")
        for seed in FAULTS
    }
    # Before the faults: what slurmctld has not written down yet when it is killed, it forgets.
    # Long enough for some looks at the queue in vain, and for seed 4 to end meanwhile.
    end = suite.file(f"results/runs/{run_name(4)}/run.json").exists
    slurm.restart_controller(10, meanwhile=lambda: until(end, 120, "the end of seed 4"))
    for seed, fault in FAULTS.items():
        fault(slurm, jobs[seed])
    # refused where the node has come back by itself (ReturnToService)
    back = ("scontrol", "update", f"nodename={jobs[2]['node']}", "state=resume")
    slurm(*back, check=False)
    held = f"SLURM holds job {jobs[0]['id']} "
    until(lambda: held in suite.log(), 120, "a word about the job that is held")
    until(lambda: not training_process(suite, run_name(0)), 60, "the end of its process")
    leave_lock(suite, run_name(0), jobs[0]["id"])
    slurm("scontrol", "release", jobs[0]["id"])
    call.wait(400)
    assert call.returncode == 0, suite.log()[-6000:]
    return suite


def test_tables_and_runs_are_those_of_an_undisturbed_call(
    storm: ClusterSuite, undisturbed: ClusterSuite
):
    assert storm.tables() == undisturbed.tables()
    assert storm.bytes_of_runs() == undisturbed.bytes_of_runs()


@pytest.mark.parametrize("seed", FAULTS, ids=lambda seed: FAULTS[seed].__name__)
def test_a_disturbed_run_continues_where_it_was(storm: ClusterSuite, seed: int):
    record = storm.record(run_name(seed))
    assert record["cost"]["attempts"] >= 2
    log = storm.file(f"logs/train/{run_name(seed)}.log").read_text()
    assert "continuing in epoch" in log
    assert "--- started again" in log, "what the first attempt has said is there, too"


def test_slurm_itself_queues_again_what_it_has_taken_away(storm: ClusterSuite):
    """A job that ends by itself after SIGTERM is FAILED there, and only Snakemake repeats it."""
    assert storm.slurm
    ends = storm.slurm.ends()
    for seed, state in {0: "PENDING", 3: "PREEMPTED"}.items():
        jobs = storm.jobs_of(f"rule_train/digits_random_naive_{seed}")
        assert len(jobs) == 1, "one submission"
        assert ends[jobs[0]] == [state, "COMPLETED"]


def test_a_job_that_slurm_queued_again_knows_its_own_lock(storm: ClusterSuite):
    """Two jobs of one number do not run at once, so that no heartbeat is waited for."""
    log = storm.file(f"logs/train/{run_name(0)}.log").read_text()
    assert "taking over from another-node" in log
    assert "is held by another-node" not in log


def test_a_run_that_was_left_alone_was_trained_once(storm: ClusterSuite):
    """Its job is not lost while SLURM does not answer, nor submitted again."""
    assert storm.record(run_name(4))["cost"]["attempts"] == 1
    assert len(storm.jobs_of("rule_train/digits_random_naive_4")) == 1


def test_nothing_of_a_fault_is_left(storm: ClusterSuite):
    left = [path for path in storm.file("results/checkpoints").rglob("*") if path.is_file()]
    assert left == [], "checkpoints, locks and counts go when a run is done"


TWO_RUNS = [f"results/runs/{run_name(seed)}/run.json" for seed in (0, 1)]


@pytest.fixture
def abandoned(slurm: Slurm, undisturbed: ClusterSuite, folder: Path) -> ClusterSuite:
    """Two runs in SLURM's hands whose controller was killed."""
    suite = ClusterSuite.on(undisturbed, folder, slurm)
    suite.configure({**LONG, "grid": {"methods": ["naive"], "seeds": [0, 1]}})
    call = suite.start(*suite.on_slurm(*TWO_RUNS))
    until(lambda: all_held(suite, (0, 1)), 120, "two runs in training")
    call.send_signal(signal.SIGKILL)
    call.wait()
    return suite


def test_jobs_of_a_killed_controller_are_found_and_never_doubled(
    abandoned: ClusterSuite, undisturbed: ClusterSuite, slurm: Slurm
):
    arguments = abandoned.on_slurm(*TWO_RUNS)
    before = {job["id"] for job in slurm.jobs()}
    refused = abandoned.snakemake(*arguments, check=False)
    said = refused.stdout + refused.stderr
    assert refused.returncode == 1
    assert "2 jobs of an earlier call live in this folder" in said
    assert "rule_train_wildcards_digits_random_naive_0" in said
    assert "AMST_LIVE_JOBS=wait" in said
    assert "AMST_LIVE_JOBS=cancel" in said
    assert {job["id"] for job in slurm.jobs()} == before, "nothing is submitted"
    local = abandoned.snakemake(*TWO_RUNS, "--cores", "2", check=False)
    assert local.returncode == 1, "nor does a local call touch what the jobs write"

    for seed in (0, 1):
        process = training_process(abandoned, run_name(seed))
        assert process
        os.kill(process, signal.SIGCONT)
    abandoned.extra = {"AMST_LIVE_JOBS": "wait"}
    abandoned.snakemake(*arguments)
    same_bytes(abandoned, undisturbed)
    assert len(abandoned.bytes_of_runs()) == 6
    for seed in (0, 1):
        assert abandoned.record(run_name(seed))["cost"]["attempts"] == 1, "trained once"
    assert "nothing to be done" in abandoned.snakemake(*arguments).stderr.lower()


def test_jobs_of_a_killed_controller_can_be_cancelled(
    abandoned: ClusterSuite, undisturbed: ClusterSuite, slurm: Slurm
):
    done = abandoned.amst("jobs", "--cancel")
    assert "cancelled 2 jobs" in done.stdout
    assert abandoned.amst("jobs").stdout.startswith("no jobs")
    abandoned.snakemake(*TWO_RUNS, "--cores", "2")
    same_bytes(abandoned, undisturbed)
    attempts = [abandoned.record(run_name(seed))["cost"]["attempts"] for seed in (0, 1)]
    assert attempts == [2, 2]
