"""A cluster with accounting, as most are: Snakemake asks sacct, the doctor the account and QOS."""

from pathlib import Path
from typing import Any

import pytest

from tests.cluster.conftest import GRID
from tests.cluster.longruns import LONG, hold, is_training, job_of, run_name, same_bytes
from tests.cluster.machines import SITE, ClusterSuite, Slurm, missing, until
from tests.cluster.test_doctor import examined


@pytest.fixture(scope="module")
def accounted(start_slurm) -> Slurm:
    """A cluster with accounting; the user has the account lab, and may submit 50 jobs.

    Jobs of the QOS normal pre-empt those of three others, each in its own way; those of the QOS
    idle meet nobody who would.
    """
    if reason := missing("slurmdbd", "slurmdbd") or missing("mariadbd", "MariaDB"):
        pytest.skip(reason)
    slurm = start_slurm(nodes=1, gpus=1, accounting="dbd", preempt_by="qos")
    qos = {"scav": "cancel", "again": "requeue", "plain": "cluster", "idle": "cancel"}
    for name, mode in qos.items():
        slurm("sacctmgr", "-i", "add", "qos", name, f"preemptmode={mode}")
    slurm("sacctmgr", "-i", "modify", "qos", "normal", "set", "preempt=scav,again,plain")
    allowed = f"qos=normal,{','.join(qos)}"
    slurm("sacctmgr", "-i", "modify", "account", "lab", "set", allowed, "defaultqos=normal")
    return slurm


def test_the_end_of_jobs_is_learnt_by_sacct(accounted: Slurm, grid: ClusterSuite, folder: Path):
    suite = ClusterSuite.on(grid, folder, accounted)
    suite.configure({**GRID, "grid": {"methods": ["naive"], "seeds": [0]}})
    suite.site = {**SITE, "account": "lab", "jobs": 50}
    suite.extra = {"AMST_LIVE_JOBS": "refuse"}
    done = suite.snakemake(
        *suite.on_slurm("results/runs/digits/random/naive/seed0/run.json"), "--verbose"
    )
    said = done.stdout + done.stderr
    assert "command=sacct" in said
    assert "command=squeue" not in said
    listed = accounted("sacct", "-X", "-n", "-P", "--format=state,account,allocnodes")
    assert "COMPLETED|lab|1" in listed


def test_a_cancelled_job_is_tried_again(accounted: Slurm, undisturbed: ClusterSuite, folder: Path):
    """Which sacct calls "CANCELLED by 0"."""
    suite = ClusterSuite.on(undisturbed, folder, accounted)
    suite.configure({**LONG, "grid": {"methods": ["naive"], "seeds": [0]}})
    suite.site = {**SITE, "account": "lab", "jobs": 50}
    call = suite.start(*suite.on_slurm(f"results/runs/{run_name(0)}/run.json"))
    until(lambda: is_training(suite, 0) and hold(suite, 0), 120, "an epoch")
    job = until(lambda: job_of(accounted, run_name(0)), 20, "its job")
    accounted("scancel", job["id"])
    assert call.wait(300) == 0, suite.log()[-5000:]
    listed = accounted("sacct", "-X", "-n", "-P", "--format=state", "-j", job["id"])
    assert listed.startswith("CANCELLED by ")
    same_bytes(suite, undisturbed)


def test_jobs_beyond_what_a_user_may_submit_wait_and_lose_no_try(
    accounted: Slurm, grid: ClusterSuite, folder: Path
):
    suite = ClusterSuite.on(grid, folder, accounted)
    suite.configure(GRID)
    suite.site = {**SITE, "account": "lab", "jobs": 50}
    runs = [f"digits/random/{variant}/seed0" for variant in GRID["grid"]["methods"]]
    limit = ("sacctmgr", "-i", "modify", "account", "lab", "set")
    accounted(*limit, "grpsubmitjobs=1")
    try:
        targets = [f"results/runs/{run}/run.json" for run in runs]
        done = suite.snakemake(*suite.on_slurm(*targets, "--retries", "0"))
    finally:
        accounted(*limit, "grpsubmitjobs=-1")
    said = done.stdout + done.stderr
    assert said.count("SLURM takes no jobs now (AssocGrpSubmitJobsLimit)") == 1
    assert suite.bytes_of_runs() == grid.bytes_of_runs()


@pytest.mark.parametrize(
    ("site", "said"),
    [
        ({"account": "lab", "jobs": 50}, "ok account: lab"),
        ({"account": "nope", "jobs": 50}, "you have no nope (you have lab"),
        ({"jobs": 200}, "may submit 50 jobs, and the profile 200"),
        ({"qos": "nope", "jobs": 50}, "--qos=nope"),
    ],
)
def test_the_doctor_knows_the_account(
    accounted: Slurm, tmp_path: Path, monkeypatch, site: dict[str, Any], said: str
):
    found = examined(accounted, tmp_path, monkeypatch, site, {"gpu": 1})
    assert said in "".join(f"{f.verdict} {f.about}: {f.text}\n" for f in found)
    assert ("fault" in {finding.verdict for finding in found}) is not said.startswith("ok")


@pytest.mark.parametrize(
    ("site", "verdict"),
    [
        ({}, "note"),
        ({"qos": "again"}, "note"),
        ({"qos": "Scav"}, "fault"),
        ({"resources": {"train": {"qos": "scav"}}}, "fault"),
        ({"cpu_partition": "scav"}, "note"),
    ],
)
def test_the_doctor_knows_which_qos_cancels_jobs(
    accounted: Slurm, tmp_path: Path, monkeypatch, site: dict[str, Any], verdict: str
):
    found = examined(accounted, tmp_path, monkeypatch, {"jobs": 50, **site}, {})
    said = [(f.verdict, f.text.split(":")[0]) for f in found if f.about == "pre-emption"]
    assert said == [(verdict, "QOS scav cancels pre-empted jobs")]
    assert {f.about for f in found if f.verdict == "fault"} <= {"pre-emption"}


def test_a_default_qos_that_cancels_jobs_is_a_fault(accounted: Slurm, tmp_path: Path, monkeypatch):
    change = ("sacctmgr", "-i", "modify", "account", "lab", "set")
    accounted(*change, "defaultqos=scav")
    try:
        found = examined(accounted, tmp_path, monkeypatch, {"jobs": 50}, {})
    finally:
        accounted(*change, "defaultqos=normal")
    assert [f.verdict for f in found if f.about == "pre-emption"] == ["fault"]


def test_slurm_does_to_jobs_of_a_qos_what_the_doctor_says(accounted: Slurm):
    ends = {"scav": "PREEMPTED", "again": "PENDING", "plain": "PENDING", "idle": "RUNNING"}

    def submit(qos: str, cpus: int) -> str:
        options = ("-A", "lab", "-o", "/dev/null", "--mem=100", "--requeue")
        asked = ("--qos", qos, "-c", str(cpus), "--wrap", "sleep 300")
        return accounted("sbatch", "--parsable", *options, *asked).strip()

    def states() -> list[str]:
        return [accounted.field(job, "JobState") for job in jobs]

    jobs = [submit(qos, cpus=2) for qos in ends]
    try:
        until(lambda: states() == ["RUNNING"] * 4, 30, "their start on the only node")
        submit("normal", cpus=6)
        until(lambda: states() == list(ends.values()), 30, "pre-emption")
    finally:
        accounted("scancel", "--account", "lab")
