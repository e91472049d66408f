"""Snakemake looks for jobs to start when there is a reason to."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from snakemake.scheduling.job_scheduler import JobScheduler

from amst.cluster.scheduling import Timers

SNAKEFILE = """
import json, threading
from snakemake.scheduling.job_scheduler import JobScheduler

if config["mended"]:
    from amst.cluster.scheduling import mend_the_scheduler
    mend_the_scheduler()

seen = {"looks": 0, "timers": 0}
select = JobScheduler.job_selector

def counted(self, jobs):
    seen["looks"] += 1
    alive = [t for t in threading.enumerate() if isinstance(t, threading.Timer)]
    seen["timers"] = max(seen["timers"], len(alive))
    return select(self, jobs)

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


def run(folder: Path, jobs: int, mended: int, *options: str) -> dict[str, int]:
    """Run so many jobs, one after the other, and say how often there was a look."""
    (folder / "Snakefile").write_text(SNAKEFILE, "utf-8")
    call = [sys.executable, "-m", "snakemake", "--cores", "1", "--scheduler", "greedy", *options]
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


def test_a_limit_holds_and_all_jobs_run(tmp_path: Path):
    assert run(tmp_path, 6, 1, "--max-jobs-per-timespan", "2/1s")["looks"] >= 3


class Limit:
    """Snakemake's limit of jobs in a timespan, with room for so many."""

    timespan = 1

    def __init__(self, room: int) -> None:
        self.room = room

    def get_free_jobs(self) -> int:
        return self.room


@pytest.fixture
def scheduler():
    """A scheduler of which nothing is set but what looking again needs."""
    made = object.__new__(JobScheduler)
    made._open_jobs = threading.Semaphore(0)
    made.job_rate_limiter = Limit(0)
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
    assert [timer.interval for timer in alive()] == [20]


def test_where_the_limit_leaves_room_the_next_look_is_late(scheduler: JobScheduler):
    scheduler.job_rate_limiter.room = 3
    Timers().look_again(scheduler, Limit.timespan)
    assert [timer.interval for timer in alive()] == [60]


def test_other_reasons_to_look_again_keep_their_time(scheduler: JobScheduler):
    scheduler.job_rate_limiter.room = 3
    timers = Timers()
    timers.look_again(scheduler, 10)
    scheduler.job_rate_limiter = None
    timers.look_again(scheduler, 5)
    assert [timer.interval for timer in alive()] == [5]
