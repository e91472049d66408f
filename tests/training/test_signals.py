import os
import pty
import signal
import sys
import time

import pytest

from amst.training.signals import CONTINUE, SAVED, StoppedError, StopRequest, listening


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP])
def test_a_signal_is_a_request_and_interrupts_nothing(number, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with listening() as stop:
        assert not stop
        os.kill(os.getpid(), number)
        assert stop
        with pytest.raises(StoppedError, match=signal.Signals(number).name) as error:
            stop.leave("saved")
    assert error.value.exit_code == SAVED


def test_a_terminal_that_closes_stops_nothing_under_nohup():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with listening() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


ON_A_TERMINAL = """
import sys, time
from amst.cli import main
from amst.training.progress import progress
from amst.training.signals import listening

def train():
    with listening() as stop, progress("run", 1, "fused") as shown:
        shown.say("begun")
        while not stop:
            time.sleep(0.01)
        shown.say("asked")
        stop.leave("saved")

sys.argv = ["amst", "train", "digits/random/naive/seed0"]
import amst.cli.runs
amst.cli.runs.run_settings = lambda *_: train()
main()
"""


def test_a_run_whose_terminal_has_closed_leaves_as_saved():
    pid, leader = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-c", ON_A_TERMINAL])
    text = b""
    while b"begun" not in text:
        text += os.read(leader, 1 << 12)
    os.close(leader)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == SAVED


def test_handlers_are_as_before_when_listening_ends():
    before = signal.getsignal(signal.SIGTERM)
    with listening():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_who_listens_within_listening_shares_the_request():
    with listening() as outer:
        os.kill(os.getpid(), signal.SIGUSR1)
        with listening() as inner:
            assert inner is outer
            assert inner
        assert signal.getsignal(signal.SIGUSR1) == outer.receive


def test_a_deadline_is_a_request_too():
    stop = StopRequest()
    stop.set_deadline(0.05)
    assert not stop
    time.sleep(0.06)
    assert stop
    assert stop.reason == "deadline"


def test_the_time_before_a_deadline_is_set_counts():
    """So long it took to load what reads the deadline."""
    stop = StopRequest()
    time.sleep(0.06)
    stop.set_deadline(0.05)
    assert stop


@pytest.mark.timeout(30)
def test_at_its_deadline_a_run_leaves_at_once_under_slurm_too(monkeypatch):
    """Nobody is about to kill it before the end of its time, which it is to be ahead of."""
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    stop = StopRequest()
    stop.set_deadline(1e-9)
    assert stop
    with pytest.raises(StoppedError, match=r"saved \(deadline\)"):
        stop.leave("saved")


def test_a_try_that_its_deadline_ends_before_it_trains_says_what_would_help():
    stop = StopRequest()
    stop.set_deadline(1e-9)
    with pytest.raises(StoppedError) as caught:
        stop.check()
    assert "more time (runtime, or execution.deadline)" in caught.value.remedy
    stop.reason = "SIGUSR1"
    with pytest.raises(StoppedError) as caught:
        stop.check()
    assert caught.value.remedy == CONTINUE


def test_without_a_request_there_is_no_leaving():
    StopRequest().check()
