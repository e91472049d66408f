"""Limits of a job: its memory and its time."""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from amst.cluster.live import prefix_of
from tests.cluster.longruns import LONG, hold, is_training, job_of, run_name, same_bytes
from tests.cluster.machines import SITE, ClusterSuite, Slurm, until


def configure(suite: ClusterSuite, seeds: Sequence[int], **resources: int) -> list[str]:
    """Only some of the runs, asking for these resources; their records."""
    digits = LONG["datasets"]["digits"]
    digits = {**digits, "resources": {**digits["resources"], **resources}}
    grid = {"methods": ["naive"], "seeds": list(seeds)}
    suite.configure({"grid": grid, "datasets": {"digits": digits}})
    return [f"results/runs/{run_name(seed)}/run.json" for seed in seeds]


def jobs_of(suite: ClusterSuite, slurm: Slurm, seed: int) -> list[dict[str, str]]:
    """Training jobs of one run, in their order."""
    own, about = prefix_of(suite.work) + "_", f"rule_train_wildcards_digits_random_naive_{seed}"
    return [job for job in slurm.jobs() if job["name"].startswith(own) and job["about"] == about]


def test_a_job_that_slurm_ends_for_its_memory_gets_more(
    slurm: Slurm, undisturbed: ClusterSuite, folder: Path
):
    """What the site says of it goes first."""
    suite = ClusterSuite.on(undisturbed, folder, slurm)
    suite.site = {**SITE, "resources": {"train": {"mem_mb": 700}}}
    suite.snakemake(*suite.on_slurm(*configure(suite, [0], mem_mb=9000)))
    jobs = jobs_of(suite, slurm, 0)
    assert [job["state"] for job in jobs] == ["FAILED", "COMPLETED"]
    assert [job["mem"] for job in jobs] == ["700M", "1400M"]
    same_bytes(suite, undisturbed)


@pytest.fixture
def full_group() -> Iterator[Path]:
    """A control group whose processes the kernel kills as soon as they touch new memory."""
    group = Path(f"/sys/fs/cgroup/memory/amst-test-{os.getpid()}")
    try:
        group.mkdir()
    except OSError:
        pytest.skip("no memory group of version 1 that this user may write to")
    (group / "memory.limit_in_bytes").write_text(str(64 << 10))
    yield group
    until(lambda: not (group / "cgroup.procs").read_text(), 20, "the end of its processes")
    group.rmdir()


def test_a_job_that_the_kernel_kills_for_its_memory_gets_more_and_continues(
    slurm: Slurm, undisturbed: ClusterSuite, folder: Path, full_group: Path
):
    """As where SLURM leaves memory to control groups."""
    suite = ClusterSuite.on(undisturbed, folder, slurm)
    call = suite.start(*suite.on_slurm(*configure(suite, [0], mem_mb=1500)))
    process = until(lambda: is_training(suite, 0) and hold(suite, 0), 90, "an epoch")
    (full_group / "cgroup.procs").write_text(str(process))
    os.kill(process, signal.SIGCONT)
    assert call.wait(200) == 0, suite.log()[-5000:]
    jobs = jobs_of(suite, slurm, 0)
    assert [job["state"] for job in jobs] == ["FAILED", "COMPLETED"]
    assert [job["mem"] for job in jobs] == ["1500M", "3000M"]
    log = suite.file(f"logs/train/{run_name(0)}.log").read_text()
    assert "continuing in epoch" in log
    same_bytes(suite, undisturbed)


@pytest.fixture(scope="module")
def limited(
    slurm: Slurm, undisturbed: ClusterSuite, tmp_path_factory: pytest.TempPathFactory
) -> ClusterSuite:
    """Two runs with two minutes for a job; the first job of each is held still.

    That of seed 0 goes on when it must leave, a minute ahead of the limit; that of seed 1 does not
    before SLURM ends it, at a limit that has been lowered to its least. On a busy machine the
    second jobs may not be done in time, either, and third ones continue. The dataset wants no GPU,
    where GPUs are asked for by --gres.
    """
    suite = ClusterSuite.on(undisturbed, tmp_path_factory.mktemp("limited") / "suite", slurm)
    suite.site = {**SITE, "gpu_request": "gres"}
    suite.change("cluster/allocation.py", "_MARGIN = (30, 300)", "_MARGIN = (60, 300)")
    call = suite.start(*suite.on_slurm(*configure(suite, [0, 1], runtime=2, gpu=0)))
    until(lambda: is_training(suite, 1) and hold(suite, 1), 90, "an epoch of seed 1")
    process = until(lambda: is_training(suite, 0) and hold(suite, 0), 90, "an epoch of seed 0")
    job, other = (until(lambda s=s: job_of(slurm, run_name(s)), 20, "its job") for s in (0, 1))
    slurm("scontrol", "update", f"jobid={other['id']}", "timelimit=1")
    began = time.mktime(time.strptime(slurm.field(job["id"], "StartTime"), "%Y-%m-%dT%H:%M:%S"))
    time.sleep(max(0.0, began + 63 - time.time()))  # the limit less the margin
    os.kill(process, signal.SIGCONT)
    assert call.wait(400) == 0, suite.log()[-5000:]
    return suite


def test_a_run_saves_and_leaves_ahead_of_its_time_limit(limited: ClusterSuite, slurm: Slurm):
    assert "(deadline)" in limited.log(), "shown with the failed attempt"
    *left, last = [job["state"] for job in jobs_of(limited, slurm, 0)]
    assert set(left) == {"FAILED"}, "not one is killed at its limit"
    assert last == "COMPLETED"


def test_a_run_that_slurm_ends_at_its_time_limit_continues(limited: ClusterSuite, slurm: Slurm):
    ended, *others, last = [job["state"] for job in jobs_of(limited, slurm, 1)]
    assert (ended, last) == ("TIMEOUT", "COMPLETED")
    assert set(others) <= {"FAILED"}


@pytest.mark.parametrize("seed", [0, 1])
def test_a_run_that_had_no_more_time_continues_with_what_it_had(
    limited: ClusterSuite, undisturbed: ClusterSuite, slurm: Slurm, seed: int
):
    log = limited.file(f"logs/train/{run_name(seed)}.log").read_text()
    assert "continuing in epoch" in log
    jobs = jobs_of(limited, slurm, seed)
    assert {job["mem"] for job in jobs} == {"1500M"}, "a time limit asks for no more memory"
    assert {(job["gpus"], job["partition"]) for job in jobs} == {("N/A", "cpu")}
    same_bytes(limited, undisturbed)
