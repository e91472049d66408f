"""What happens to jobs on a cluster: every run ends once, with the bytes of a local run.

One call of Snakemake trains five runs on pre-emptable nodes. Four are stopped (SIGSTOP) when they
have saved their first epoch, so that none is done before its fault comes; then slurmctld is killed
and started again, and each of the four meets a fault of its own. SLURM sends SIGCONT ahead of the
SIGTERM with which it takes a job away.
"""

import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from amst.cluster.live import prefix_of
from tests.cluster.conftest import DIGITS
from tests.cluster.machines import SITE, ClusterSuite, Slurm, local_grid, until

EPOCHS = 40  # long enough to be stopped after the first one on a quiet machine
LONG: dict[str, Any] = {
    "grid": {"methods": ["naive"], "seeds": [0, 1, 2, 3, 4]},
    "datasets": {"digits": {**DIGITS, "recipe": {"epochs": EPOCHS, "decay_every": 20}}},
}
SCAVENGING = {**SITE, "resources": {"train": {"slurm_partition": "scav"}}}


def run_name(seed: int) -> str:
    return f"digits/random/naive/seed{seed}"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> ClusterSuite:
    """The same runs on this machine, one after the other."""
    return local_grid(tmp_path_factory.mktemp("undisturbed"), LONG)


def is_training(suite: ClusterSuite, seed: int) -> bool:
    """Whether a run has saved an epoch and is not done."""
    return any(suite.file(f"results/checkpoints/{run_name(seed)}").glob("*/epoch-*.pt"))


def job_of(slurm: Slurm, seed: int) -> dict[str, str] | None:
    """The running job of a run."""
    about = f"rule_train_wildcards_digits_random_naive_{seed}"
    running = [job for job in slurm.jobs("RUNNING") if job["about"] == about]
    return running[-1] if running else None


def training_process(suite: ClusterSuite, seed: int) -> int | None:
    """The process that trains a run of this folder."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().decode().split("\0")
            if command[1:5] == ["-m", "amst", "train", run_name(seed)] and (
                (process / "cwd").resolve() == suite.work.resolve()
            ):
                return int(process.name)
        except OSError:
            continue
    return None


def hold(suite: ClusterSuite, seed: int) -> int | None:
    """Stop the process that trains a run, as it is; which one it is."""
    process = training_process(suite, seed)
    if process:
        os.kill(process, signal.SIGSTOP)
    return process


def all_held(suite: ClusterSuite, seeds: Iterable[int]) -> bool:
    """Stop what trains by now; whether all these runs are stopped."""
    running = [seed for seed in seeds if is_training(suite, seed)]
    return [seed for seed in running if hold(suite, seed)] == list(seeds)


def requeue(slurm: Slurm, job: dict[str, str]) -> None:
    slurm("scontrol", "requeue", job["id"])


def cancel(slurm: Slurm, job: dict[str, str]) -> None:
    slurm("scancel", job["id"])


def take_node_down(slurm: Slurm, job: dict[str, str]) -> None:
    slurm("scontrol", "update", f"nodename={job['node']}", "state=down", "reason=test")


def preempt(slurm: Slurm, job: dict[str, str]) -> None:
    """Want the whole node in a partition of higher priority, for a moment."""
    slurm("sbatch", "-p", "gpu", "-w", job["node"], "--gpus-per-node=1", "-o", "/dev/null",
          "--wrap", "sleep 1")  # fmt: skip


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
    jobs = {seed: until(lambda seed=seed: job_of(slurm, seed), 20, "its job") for seed in FAULTS}
    # Before the faults: what slurmctld has not written down yet when it is killed, it forgets.
    # Long enough for some looks at the queue in vain, and for seed 4 to end meanwhile.
    slurm.restart_controller(down_for=30)
    for seed, fault in FAULTS.items():
        fault(slurm, jobs[seed])
    # refused where the node has come back by itself (ReturnToService)
    back = ("scontrol", "update", f"nodename={jobs[2]['node']}", "state=resume")
    slurm(*back, check=False)
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


def test_slurm_itself_queues_again_what_it_has_taken_away(storm: ClusterSuite):
    """A job that ends by itself after SIGTERM is FAILED there, and only Snakemake repeats it."""
    assert storm.slurm
    ends = storm.slurm.ends()
    for seed, state in {0: "PENDING", 3: "PREEMPTED"}.items():
        jobs = storm.jobs_of(f"rule_train/digits_random_naive_{seed}")
        assert len(jobs) == 1, "one submission"
        assert ends[jobs[0]] == [state, "COMPLETED"]


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
        process = training_process(abandoned, seed)
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


def one_run(suite: ClusterSuite, **resources: int) -> None:
    """Seed 0 only, asking for these resources."""
    digits = LONG["datasets"]["digits"]
    digits = {**digits, "resources": {**digits["resources"], **resources}}
    suite.configure({"grid": {"methods": ["naive"], "seeds": [0]}, "datasets": {"digits": digits}})


def states(suite: ClusterSuite, slurm: Slurm) -> list[str]:
    """How the jobs of this folder ended."""
    return [job["state"] for job in own_jobs(suite, slurm)]


def same_bytes(suite: ClusterSuite, undisturbed: ClusterSuite) -> None:
    runs, whole = suite.bytes_of_runs(), undisturbed.bytes_of_runs()
    assert runs
    assert runs == {name: content for name, content in whole.items() if name in runs}


def own_jobs(suite: ClusterSuite, slurm: Slurm) -> list[dict[str, str]]:
    """Jobs of this folder."""
    own = prefix_of(suite.work) + "_"
    return [job for job in slurm.jobs() if job["name"].startswith(own)]


@pytest.mark.parametrize("given_by", ["config", "site"])
def test_a_job_killed_for_memory_gets_more(
    slurm: Slurm, undisturbed: ClusterSuite, folder: Path, given_by: str
):
    suite = ClusterSuite.on(undisturbed, folder, slurm)
    one_run(suite, mem_mb=700 if given_by == "config" else 9000)
    if given_by == "site":
        suite.site = {**SITE, "resources": {"train": {"mem_mb": 700}}}
    suite.snakemake(*suite.on_slurm(f"results/runs/{run_name(0)}/run.json"))
    assert states(suite, slurm) == ["FAILED", "COMPLETED"]
    assert [job["mem"] for job in own_jobs(suite, slurm)] == ["700M", "1400M"]
    same_bytes(suite, undisturbed)


def test_a_run_saves_and_leaves_ahead_of_its_time_limit(
    slurm: Slurm, undisturbed: ClusterSuite, folder: Path
):
    """Two minutes in all; the run is held until it must leave, and another job continues it.

    One minute would do on an idle machine. On a busy one the second job may not end in time,
    either, and a third continues. The dataset wants no GPU, where GPUs are asked for by --gres.
    """
    suite = ClusterSuite.on(undisturbed, folder, slurm)
    suite.site = {**SITE, "gpu_request": "gres"}
    one_run(suite, runtime=2, gpu=0)
    call = suite.start(*suite.on_slurm(f"results/runs/{run_name(0)}/run.json"))
    process = until(lambda: is_training(suite, 0) and hold(suite, 0), 90, "an epoch")
    job = until(lambda: job_of(slurm, 0), 20, "its job")
    began = time.mktime(time.strptime(slurm.field(job["id"], "StartTime"), "%Y-%m-%dT%H:%M:%S"))
    time.sleep(max(0.0, began + 93 - time.time()))  # the limit less the margin of 30 s
    os.kill(process, signal.SIGCONT)
    assert call.wait(300) == 0, suite.log()[-5000:]
    log = suite.file(f"logs/train/{run_name(0)}.log").read_text()
    assert "(deadline)" in suite.log(), "shown with the failed attempt"
    assert "continuing in epoch" in log
    *left, last = states(suite, slurm)
    assert set(left) == {"FAILED"}, "not one is killed at its limit"
    assert last == "COMPLETED"
    jobs = own_jobs(suite, slurm)
    assert {job["mem"] for job in jobs} == {"1500M"}, "a time limit asks for no more memory"
    assert {(job["gpus"], job["partition"]) for job in jobs} == {("N/A", "cpu")}
    same_bytes(suite, undisturbed)
