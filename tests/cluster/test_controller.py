"""The process that runs Snakemake: its locks, calls beside it, and as a job of SLURM itself."""

import copy
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from amst.cluster import live
from amst.training.lock import Writer
from tests.cluster.conftest import GRID
from tests.cluster.machines import ClusterSuite, Slurm, until
from tests.cluster.test_faults import LONG, hold, is_training, run_name, training_process

TARGET = "results/features/digits/manifest.json"


@pytest.fixture
def sleeper(slurm: Slurm, grid: ClusterSuite, folder: Path) -> Iterator[tuple[ClusterSuite, str]]:
    """The finished grid in a folder of its own, of which a job lives; with the job's number."""
    suite = ClusterSuite.on(grid, folder, slurm)
    name = f"{live.prefix_of(suite.work)}_1"
    job = slurm("sbatch", "--parsable", "-J", name, "-o", "/dev/null", "--wrap", "sleep 600")
    yield suite, job.strip()
    slurm("scancel", job.strip())


def test_calls_that_only_look_neither_wait_for_jobs_nor_cancel_them(sleeper):
    suite, job = sleeper
    suite.extra = {"AMST_LIVE_JOBS": "cancel"}
    suite.file("logs/slurm").mkdir(parents=True, exist_ok=True)
    for words in (["--summary", TARGET], ["--unlock"]):
        suite.snakemake(*words)
    assert suite.slurm.field(job, "JobState") in ("PENDING", "RUNNING")
    suite.extra = {}
    refused = suite.snakemake(TARGET, check=False)
    assert "1 jobs of an earlier call live" in refused.stdout + refused.stderr


def locked_by(suite: ClusterSuite, job: str, **others: int) -> None:
    """As a controller leaves the folder that was killed on another node, within a job."""
    there = replace(Writer.this(), host="elsewhere", job=job, **others)
    suite.file(".snakemake/amst-controller.json").write_text(json.dumps(asdict(there)))
    locks = suite.file(".snakemake/locks")
    locks.mkdir(exist_ok=True)
    for kind in ("input", "output"):
        # what the target is made of
        (locks / f"0.{kind}.lock").write_text("results/features/digits/samples.jsonl\n")


def test_locks_of_an_ended_job_on_another_node_do_not_hold_the_next_one(sleeper):
    suite, job = sleeper
    locked_by(suite, job)
    refused = suite.snakemake(TARGET, check=False)
    assert "LockException" in refused.stdout + refused.stderr, "it may still live"
    suite.slurm("scancel", job)
    until(lambda: not suite.slurm("squeue", "-h", "-j", job, check=False), 60, "its end")
    suite.snakemake(TARGET)
    locked_by(suite, "99999999")  # ended so long ago that SLURM has forgotten it
    suite.snakemake(TARGET)


def test_the_note_names_the_last_controller_on_whatever_host_the_one_before_was(sleeper):
    suite, job = sleeper
    suite.slurm("scancel", job)
    note = suite.file(".snakemake/amst-controller.json")
    locked_by(suite, "99999999", uid=4242)
    refused = suite.snakemake(TARGET, check=False)
    assert "LockException" in refused.stdout + refused.stderr, "SLURM may hide others' jobs"
    assert json.loads(note.read_text())["host"] == "elsewhere"
    shutil.rmtree(suite.file(".snakemake/locks"))
    suite.snakemake(TARGET)
    assert json.loads(note.read_text())["host"] == Writer.this().host


def test_jobs_that_wait_train_by_the_configuration_of_their_call(
    start_slurm: Callable[..., Slurm], grid: ClusterSuite, folder: Path
):
    slurm = start_slurm(nodes=1, gpus=1)
    suite = ClusterSuite.on(grid, folder, slurm)
    values = {**GRID, "grid": {"methods": ["naive"], "seeds": [0]}}
    suite.configure(values)
    run = "digits/random/naive/seed0"
    slurm("scontrol", "update", "nodename=n1", "state=drain", "reason=test")
    call = suite.start(*suite.on_slurm(f"results/runs/{run}/run.json"))
    until(lambda: slurm.jobs("PENDING"), 60, "a job that waits")
    changed = copy.deepcopy(values)
    changed["datasets"]["digits"]["recipe"]["epochs"] = 1
    suite.configure(changed)
    slurm("scontrol", "update", "nodename=n1", "state=resume")
    assert call.wait(200) == 0, suite.log()[-5000:]
    assert suite.bytes_of_runs().items() <= grid.bytes_of_runs().items()
    assert suite.bytes_of_runs()
    suite.configure(values)
    done = suite.snakemake(f"results/runs/{run}/run.json", "-n")
    assert "Nothing to be done" in done.stdout + done.stderr
    assert len(list(suite.file(".snakemake").glob("amst-config-*.json"))) == 1


def test_jobs_that_wait_do_not_run_with_other_code_than_their_call_s(
    start_slurm: Callable[..., Slurm], grid: ClusterSuite, folder: Path
):
    slurm = start_slurm(nodes=1, gpus=1)
    suite = ClusterSuite.on(grid, folder, slurm)
    suite.configure({**GRID, "grid": {"methods": ["naive", "unimodal_audio"], "seeds": [0]}})
    runs = [f"results/runs/digits/random/{name}/seed0/run.json" for name in GRID["grid"]["methods"]]
    slurm("scontrol", "update", "nodename=n1", "state=drain", "reason=test")
    call = suite.start(*suite.on_slurm(*runs, "--retries", "0"))
    until(lambda: len(slurm.jobs("PENDING")) == 2, 60, "two jobs that wait")
    for module in ("methods/naive.py", "results/figures/style.py"):
        path = suite.checkout / "src/amst" / module
        path.write_text(path.read_text() + "\nADDED_BY_A_TEST = 1\n")
    slurm("scontrol", "update", "nodename=n1", "state=resume")
    assert call.wait(200) == 1
    (log,) = suite.file("logs/slurm/rule_train/digits_random_naive_0").glob("*.log")
    assert "the code of training naive has changed since this call" in log.read_text()
    assert [suite.file(run).exists() for run in runs] == [False, True], "the other one is trained"


def test_a_controller_that_is_itself_a_job_may_be_requeued(
    slurm: Slurm, grid: ClusterSuite, folder: Path
):
    """The command of docs/cluster.md, taken away from its node while a run trains."""
    suite = ClusterSuite.on(grid, folder, slurm)
    suite.configure({**LONG, "grid": {"methods": ["naive"], "seeds": [0]}})
    suite.extra = {"AMST_LIVE_JOBS": "wait"}
    target = f"results/runs/{run_name(0)}/run.json"
    call = suite.command(*suite.on_slurm(target))
    environment = suite.environment()
    script = folder / "controller.sh"
    script.write_text("#!/bin/bash\nexec " + " ".join(f"'{word}'" for word in call) + "\n")
    submitted = ("sbatch", "--parsable", "--requeue", "--mem=1000", "-D", str(suite.work),
                 "-o", "controller.log", "--open-mode=append", str(script))  # fmt: skip
    kept, slurm.environment = slurm.environment, environment
    try:
        controller = slurm(*submitted).strip()
    finally:
        slurm.environment = kept
    until(lambda: is_training(suite, 0) and hold(suite, 0), 240, "an epoch")
    slurm("scontrol", "requeue", controller)
    said = suite.file("controller.log")
    until(lambda: "jobs of an earlier call" in said.read_text(), 120, "the second start")
    process = training_process(suite, run_name(0))
    assert process, "the run goes on without its controller"
    note = json.loads(suite.file(".snakemake/amst-controller.json").read_text())
    assert note["job"] == controller
    os.kill(process, signal.SIGCONT)
    ended = ("COMPLETED", "FAILED")
    until(lambda: slurm.field(controller, "JobState") in ended, 240, "its end")
    assert slurm.field(controller, "JobState") == "COMPLETED", said.read_text()[-4000:]
    assert suite.record(run_name(0))["cost"]["attempts"] == 1, "trained once"
