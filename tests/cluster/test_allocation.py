"""Runs leave before their allocation ends."""

import os
import time
from datetime import UTC, datetime

import pytest

from amst.cluster.allocation import ENDS, deadline, note_end


def ending_in(seconds: float) -> dict[str, str]:
    return {"SLURM_JOB_ID": "7", ENDS: f"7:{int(time.time() + seconds)}"}


def test_a_tenth_of_the_time_is_left_within_half_a_minute_and_five():
    assert abs(deadline(0, ending_in(100)) - 70) <= 1
    assert abs(deadline(0, ending_in(1000)) - 900) <= 1
    assert abs(deadline(0, ending_in(36000)) - 35700) <= 1


def test_the_sooner_of_configuration_and_allocation_holds():
    assert deadline(50, ending_in(1000)) == 50
    assert abs(deadline(5000, ending_in(1000)) - 900) <= 1
    assert deadline(50, {}) == 50
    assert deadline(0, {}) == 0


def test_too_little_time_means_at_once_and_not_never():
    assert deadline(0, ending_in(5)) == 1


def test_the_end_of_another_job_does_not_count():
    """A controller that is a job itself hands its environment on."""
    inherited = {**ending_in(1000), "SLURM_JOB_ID": "8"}
    assert deadline(0, inherited) == 0
    note_end(inherited)
    assert not inherited.get(ENDS, "").startswith("7:")


def test_what_was_noted_outside_the_container_stays_inside_it(monkeypatch):
    """Where SLURM's commands are not."""
    monkeypatch.setenv("PATH", "")
    environ = {"SLURM_JOB_ID": "7", ENDS: "7:1700000000"}
    note_end(environ)
    assert environ[ENDS] == "7:1700000000"


def test_the_end_that_slurm_gives_is_taken():
    environ = {"SLURM_JOB_ID": "9", "SLURM_JOB_END_TIME": "1700000000"}
    note_end(environ)
    assert environ[ENDS] == "9:1700000000"


@pytest.fixture
def squeue(tmp_path, monkeypatch):
    """Let squeue print a line, and this process live five hours ahead of UTC."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("TZ", "XXX-5")
    time.tzset()

    def answer(line: str) -> None:
        program = tmp_path / "squeue"
        asked = "--noheader --jobs=9 --format=%e"
        program.write_text(f'#!/bin/sh\n[ "$*" = "{asked}" ] || exit 1; echo {line}\n')
        program.chmod(0o755)

    yield answer
    monkeypatch.undo()
    time.tzset()


def test_where_the_job_does_not_know_its_end_squeue_is_asked_which_tells_local_time(squeue):
    squeue("2025-06-01T12:00:00")
    environ = {"SLURM_JOB_ID": "9"}
    note_end(environ)
    assert environ[ENDS] == f"9:{int(datetime(2025, 6, 1, 7, tzinfo=UTC).timestamp())}"


@pytest.mark.parametrize("line", ["N/A", "Unknown", "", "; exit 1"])
def test_an_end_that_nobody_knows_is_none(squeue, line: str):
    squeue(line)
    environ = {"SLURM_JOB_ID": "9"}
    note_end(environ)
    assert environ == {"SLURM_JOB_ID": "9"}
    assert deadline(50, environ) == 50
