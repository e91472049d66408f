"""How often a run was killed before it could save: only that asks for more memory."""

import os
import signal

import pytest

from amst.training.kills import counted, kills
from amst.training.signals import StoppedError, StopRequest


def attempt(checkpoints, *how: str) -> None:
    """One attempt, in a process of its own that may be killed."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    stop = StopRequest()
    try:
        with counted(checkpoints, stop):
            if "killed" in how:
                os.kill(os.getpid(), signal.SIGKILL)
            if "fails" in how:
                raise RuntimeError
            if "stopped" in how:
                stop.receive(signal.SIGUSR1, None)
                stop.leave("saved")
    except (RuntimeError, StoppedError):
        pass
    finally:
        os._exit(0)


@pytest.mark.parametrize(
    ("attempts", "number"),
    [
        (["killed"], 1),
        (["killed", "killed"], 2),
        (["stopped"], 0),
        (["fails"], 0),
        (["killed", "stopped", "stopped"], 1),
        (["killed", "done"], 0),
    ],
)
def test_only_those_that_end_without_a_word_count(tmp_path, attempts: list[str], number: int):
    for how in attempts:
        attempt(tmp_path / "run", how)
    assert kills(tmp_path / "run") == number


def test_a_run_that_waits_to_be_killed_after_it_has_saved_does_not_count(tmp_path, monkeypatch):
    """As under SLURM, where SIGKILL follows SIGTERM."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    stop = StopRequest()
    seen = []
    monkeypatch.setattr(
        "amst.training.signals.time.sleep",
        lambda _: (seen.append(kills(tmp_path)), stop.receive(signal.SIGINT, None)),
    )
    stop.receive(signal.SIGTERM, None)
    with pytest.raises(StoppedError), counted(tmp_path, stop):
        stop.leave("saved")
    assert seen == [0]


def test_nothing_is_left_of_a_run_that_is_done(tmp_path):
    attempt(tmp_path, "killed")
    attempt(tmp_path, "done")
    assert list(tmp_path.iterdir()) == []
