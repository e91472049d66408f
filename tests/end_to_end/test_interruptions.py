"""A call that is interrupted at any moment completes when called again, with equal results."""

import copy
import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from amst.records import read_record
from amst.training.finish import FILES
from amst.training.kept import KEPT, keep
from amst.training.recorder import has_events
from tests.end_to_end.suite import SMALL, Suite

INTERRUPTIONS = 20
NAIVE = "results/runs/digits/random/naive/seed0"


def interrupt(suite: Suite, seconds: float, number: signal.Signals) -> bool:
    """Call Snakemake and end it after so many seconds; whether it ended by itself before.

    Ctrl-C reaches all processes of a terminal; a hard kill reaches Snakemake, and its jobs as when
    a machine dies.
    """
    with (suite.work / "calls.log").open("a") as log:
        process = subprocess.Popen(
            suite.command(),
            cwd=suite.work,
            env=suite.environment(),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            assert process.wait(seconds) == 0, "it failed by itself"
            return True
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, number)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return False


def test_twenty_interruptions_change_nothing(tmp_path, finished: Suite):
    """Ctrl-C and hard kills, from raw files to tables; each call goes on where it was."""
    suite = Suite.new(tmp_path / "interrupted")
    draw = random.Random(0)
    hits = rounds = 0
    while hits < INTERRUPTIONS:
        how = signal.SIGINT if hits % 2 else signal.SIGKILL
        # Later calls find more done; the spread reaches from Snakemake's start into its jobs.
        if interrupt(suite, draw.uniform(1.0, 7.0), how):
            # All was done before the interruption came: compared, and begun anew.
            rounds += 1
            assert rounds < INTERRUPTIONS, "hardly any call is interrupted; shorten the times"
            compare(suite, finished)
            for name in ("results", ".snakemake"):
                shutil.rmtree(suite.file(name))
        else:
            hits += 1
        time.sleep(0.2)
    log = (suite.work / "calls.log").read_text()
    done = suite.snakemake(check=False)
    assert done.returncode == 0, log[-4000:] + done.stderr[-4000:]
    compare(suite, finished)


def compare(suite: Suite, finished: Suite) -> None:
    """What came of an interrupted grid must be what came of one that was not."""
    assert suite.table() == finished.table()
    assert suite.bytes_of_runs() == finished.bytes_of_runs()
    assert not list(suite.file("results/checkpoints").rglob(KEPT)), "all ends were seen"


def living(lock: Path) -> bool:
    """Whether the process that holds a run's lock lives."""
    try:
        os.kill(json.loads(lock.read_text())["pid"], 0)
    except (OSError, ValueError):
        return False
    return True


def test_runs_that_outlive_their_snakemake_are_kept(finished: Suite, tmp_path):
    """Only Snakemake is killed: the next call waits for the runs that still train."""
    suite = finished.copy(tmp_path / "copy")
    values = copy.deepcopy(SMALL)
    values["datasets"]["digits"]["recipe"]["epochs"] = 40
    suite.configure(values)
    names = [f"digits/random/{variant}/seed0" for variant in values["grid"]["methods"]]
    runs = [f"results/runs/{name}/run.json" for name in names]
    process = subprocess.Popen(
        suite.command("--cores", "2", *runs),
        cwd=suite.work,
        env=suite.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    locks = [suite.file(f"results/checkpoints/{name}/lock") for name in names]
    events = [suite.file(f"results/runs/{name}/tensorboard") for name in names]
    while not all(path.exists() for path in (*locks, *events)):
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert all(living(lock) for lock in locks), "the runs outlive the call"
    suite.snakemake("--cores", "2", *runs)
    for name in names:
        folder = suite.file(f"results/runs/{name}")
        assert {path.name for path in folder.iterdir()} == {*FILES, "tensorboard"}
        assert has_events(folder / "tensorboard")
        assert read_record(folder / "run.json").cost.attempts == 1, "not trained a second time"
    assert "Nothing to be done" in suite.snakemake(*runs).stderr


def test_an_ended_run_is_kept_where_nobody_can_say_whether_its_end_was_seen(suite: Suite):
    """Snakemake's notes tell it, unless they are in a database."""
    run, other = (f"digits/random/{name}/seed0" for name in SMALL["grid"]["methods"])
    for name in (run, other):
        checkpoints = suite.file(f"results/checkpoints/{name}")
        keep(suite.file(f"results/runs/{name}"), checkpoints, FILES)
    record = suite.file(f"results/checkpoints/{run}") / KEPT / "run.json"
    suite.snakemake("results/grid.json", "--persistence-backend", "db")
    assert record.is_file()
    asked = f"results/runs/{other}/run.json"
    made = suite.snakemake("--force", asked, "--persistence-backend", "db")
    assert "Finished jobid" in made.stderr
    assert record.is_file()
    assert not (checkpoints / KEPT).exists(), "the call has seen its end"
    suite.snakemake("results/grid.json")
    assert not record.exists()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_training_job_that_is_ended_continues(suite: Suite, finished: Suite, how):
    """Ends the whole call while it trains."""
    for file in suite.file(NAIVE).glob("*.*"):
        file.unlink()
    process = subprocess.Popen(
        suite.command(f"{NAIVE}/run.json"),
        cwd=suite.work,
        env=suite.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    lock = suite.file("results/checkpoints/digits/random/naive/seed0/lock")
    while process.poll() is None and not lock.exists():
        time.sleep(0.05)
    time.sleep(0.5)
    os.killpg(process.pid, how)
    process.wait()
    suite.snakemake(f"{NAIVE}/run.json")
    assert suite.bytes_of_runs() == finished.bytes_of_runs()
