"""A call that is interrupted at any moment completes when called again, with equal results."""

import os
import random
import signal
import subprocess
import time

import pytest

from tests.end_to_end.suite import Suite

INTERRUPTIONS = 20


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
            return process.wait(seconds) == 0
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
    for number in range(INTERRUPTIONS):
        how = signal.SIGINT if number % 2 else signal.SIGKILL
        # Later calls find more done; the spread reaches from Snakemake's start into its jobs.
        if interrupt(suite, draw.uniform(1.0, 7.0), how):
            break
        time.sleep(0.2)
    log = (suite.work / "calls.log").read_text()
    done = suite.snakemake(check=False)
    assert done.returncode == 0, log[-4000:] + done.stderr[-4000:]
    assert suite.table() == finished.table()
    assert suite.bytes_of_runs() == finished.bytes_of_runs()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_training_job_that_is_ended_continues(suite: Suite, finished: Suite, how):
    """Ends the whole call while it trains."""
    folder = suite.file("results/runs/digits/random/naive/seed0")
    for file in folder.glob("*.*"):
        file.unlink()
    process = subprocess.Popen(
        suite.command(),
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
    assert suite.snakemake().returncode == 0
    assert suite.bytes_of_runs() == finished.bytes_of_runs()
