"""Snakemake looks for jobs to start when there is a reason to."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from snakemake.scheduling.job_scheduler import JobRateLimiter, JobScheduler
from snakemake.settings.types import MaxJobsPerTimespan

from amst.cluster.scheduling import RARELY, Timers
from tests.end_to_end.suite import Suite

SNAKEFILE = """
import json, threading
from snakemake.scheduling.job_scheduler import JobScheduler

if config["mended"]:
    from amst.cluster import scheduling
    scheduling.mend_the_scheduler()
    scheduling.RARELY = 3600

seen = {"looks": 0, "timers": 0, "started": 0}
select = JobScheduler.job_selector

def counted(self, jobs):
    seen["looks"] += 1
    alive = [t for t in threading.enumerate() if isinstance(t, threading.Timer)]
    seen["timers"] = max(seen["timers"], len(alive))
    selected = select(self, jobs)
    seen["started"] = max(seen["started"], len(selected))
    return selected

JobScheduler.job_selector = counted

rule all:
    input: expand("{n}.txt", n=range(config["jobs"]))

rule one:
    output: "{n}.txt"
    shell: "sleep 0.1; touch {output}"

onsuccess:
    with open("seen.json", "w") as file:
        json.dump(seen, file)
"""


def run(folder: Path, jobs: int, mended: int, *options: str, cores: int = 1) -> dict[str, int]:
    """Run so many jobs, and say how often there was a look, and how many it started at most."""
    (folder / "Snakefile").write_text(SNAKEFILE, "utf-8")
    call = [sys.executable, "-m", "snakemake", f"--cores={cores}", "--scheduler=greedy", *options]
    config = ["--config", f"mended={mended}", f"jobs={jobs}"]
    done = subprocess.run([*call, *config], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(list(folder.glob("*.txt"))) == jobs
    return json.loads((folder / "seen.json").read_text("utf-8"))


def test_a_job_that_ends_brings_one_look_and_no_timers_that_never_cease(tmp_path: Path):
    seen = run(tmp_path, 25, 1)
    assert seen["timers"] <= 1
    assert seen["looks"] <= 26
    # What would be mended, on the day that Snakemake does it by itself, can go.
    (tmp_path / "before").mkdir()
    assert run(tmp_path / "before", 25, 0)["timers"] > 1


def test_jobs_that_only_the_limit_holds_back_start_when_it_lets_them(tmp_path: Path):
    seen = run(tmp_path, 7, 1, "--max-jobs-per-timespan=2/1s", cores=7)
    assert seen["started"] == 2


def test_every_call_of_the_suite_that_runs_jobs_is_mended(tmp_path: Path):
    suite = Suite.new(tmp_path)
    asked = """
from snakemake.dag import DAG
from snakemake.persistence.file import FilePersistence
from snakemake.scheduling.job_scheduler import JobScheduler

parts = (
    DAG.check_directory_outputs,
    JobScheduler._schedule_reevalutation,
    FilePersistence._delete_locks,
)
print("mended:", *(part.__module__ for part in parts), file=sys.stderr)
if workflow.is_main_process:
    # by another call that starts now, and gets no locks
    Path(".snakemake/amst-controller.json").write_text("{}")
"""
    with (suite.checkout / "Snakefile").open("a") as file:
        file.write(asked)
    # of a call that ended with a full disk, say
    suite.file(".snakemake/locks").mkdir(parents=True)
    note = suite.file(".snakemake/amst-controller.json")
    note.touch()
    suite.file(".snakemake/locks/0.output.lock").write_text("results/grid.json\n")
    said = suite.snakemake("results/grid.json").stderr
    mended = ("nesting", "scheduling", "controllers")
    assert f"mended: {' '.join(f'amst.cluster.{name}' for name in mended)}" in said
    assert json.loads(note.read_text())["uid"] == os.getuid()


@pytest.fixture
def scheduler():
    """A scheduler of which nothing is set but what looking again needs."""
    made = object.__new__(JobScheduler)
    made._open_jobs = threading.Semaphore(0)
    made.job_rate_limiter = JobRateLimiter(MaxJobsPerTimespan.parse_choice("2/1s"))
    made.job_rate_limiter.register_jobs(2)
    yield made
    for timer in alive():
        timer.cancel()


def alive() -> list[threading.Timer]:
    found = [each for each in threading.enumerate() if isinstance(each, threading.Timer)]
    return [timer for timer in found if not timer.finished.is_set()]


def test_the_timer_that_is_due_first_stays(scheduler: JobScheduler):
    timers = Timers()
    timers.look_again(scheduler, 50)
    timers.look_again(scheduler, 30)
    timers.look_again(scheduler, 40)
    assert [timer.interval for timer in alive()] == [30]
    timers.look_again(scheduler, 0)
    assert scheduler._open_jobs.acquire(timeout=30)
    timers.look_again(scheduler, 20)
    # the one that has just been due may still be about to end
    assert [timer.interval for timer in alive() if timer.interval] == [20]


def test_where_the_limit_left_room_the_next_look_is_late(scheduler: JobScheduler):
    scheduler.job_rate_limiter = JobRateLimiter(MaxJobsPerTimespan.parse_choice("2/1s"))
    scheduler.job_rate_limiter.register_jobs(1)
    Timers().look_again(scheduler, 1)
    assert [timer.interval for timer in alive()] == [RARELY]


def test_a_limit_that_was_reached_counts_though_its_timespan_is_over(scheduler: JobScheduler):
    """The jobs of a look may have taken longer than that to start."""
    time.sleep(1.1)
    Timers().look_again(scheduler, 1)
    assert [timer.interval for timer in alive()] == [1]


def test_other_reasons_to_look_again_keep_their_time(scheduler: JobScheduler):
    scheduler.job_rate_limiter = JobRateLimiter(MaxJobsPerTimespan.parse_choice("2/1s"))
    timers = Timers()
    timers.look_again(scheduler, 9)
    scheduler.job_rate_limiter = None
    timers.look_again(scheduler, 5)
    assert [timer.interval for timer in alive()] == [5]
