"""Requests to stop: signals and the run's own deadline. Imports no torch, so it can listen early.

A signal leaves a note; the loop reads it between two batches, so the step in work is always
finished and nothing is saved from within a handler. That of a closed terminal turns output away
from it, too.
"""

import os
import signal
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from amst.errors import AmstError

SAVED = 75
"""Exit code of a run that has saved its state and wants to be started again (EX_TEMPFAIL)."""
CONTINUE = "The same command continues it"
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)


class StoppedError(AmstError):
    """The run was asked to stop: its state is saved, and the process leaves with code 75."""

    def __init__(self, message: str, remedy: str = CONTINUE) -> None:
        super().__init__(message, remedy, exit_code=SAVED)


class StopRequest:
    """What has been asked for so far.

    Attributes:
        reason: name of the first signal, 'deadline', or empty.
    """

    def __init__(self) -> None:
        self.reason = ""
        self._started = time.monotonic()
        self._deadline = 0.0
        self._received: list[int] = []
        self._before_leaving: Callable[[], None] = lambda: None

    def set_deadline(self, seconds: float) -> None:
        """Ask for a stop after so many seconds since listening began; 0 for never."""
        self._deadline = seconds

    def before_leaving(self, action: Callable[[], None]) -> None:
        """What to do once the state is saved; SIGKILL may come at any moment after it."""
        self._before_leaving = action

    def receive(self, number: int, _frame: FrameType | None) -> None:
        """Note a signal."""
        self._received.append(number)
        self.reason = self.reason or signal.Signals(number).name
        if number == signal.SIGHUP:
            _leave_closed_terminal()

    def __bool__(self) -> bool:
        if self._deadline and time.monotonic() - self._started > self._deadline:
            self.reason = self.reason or "deadline"
        return bool(self.reason)

    def check(self) -> None:
        """Leave, at a moment when there is nothing to save.

        Raises:
            StoppedError: a stop was asked for.
        """
        if self:
            more = "; if each try ends so, give it more time (runtime, or execution.deadline)"
            remedy = CONTINUE + (more if self.reason == "deadline" else "")
            self.leave("stopped before training went on, nothing is lost", remedy)

    def leave(self, message: str, remedy: str = CONTINUE) -> None:
        """Leave after the state is saved; under SLURM wait to be killed after SIGTERM.

        A job that leaves by itself after SLURM's SIGTERM ends as failed and is not requeued; one
        that stays until SIGKILL is. Another signal ends the wait.

        Raises:
            StoppedError: always.
        """
        self._before_leaving()
        if self.reason == "SIGTERM" and os.environ.get("SLURM_JOB_ID"):
            print(f"{message}; SLURM asked, waiting to be killed", file=sys.stderr, flush=True)
            while all(number == signal.SIGTERM for number in self._received):
                time.sleep(0.2)
        raise StoppedError(f"{message} ({self.reason})", remedy)


def _leave_closed_terminal() -> None:
    """Write no more to a terminal that has closed: each line would raise an error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        with suppress(OSError):  # none was given
            if stat.S_ISCHR(os.fstat(stream).st_mode) and not os.isatty(stream):
                os.dup2(nowhere, stream)
    os.close(nowhere)


_listening: StopRequest | None = None


@contextmanager
def listening() -> Iterator[StopRequest]:
    """Take SIGTERM, SIGINT, SIGUSR1 and SIGHUP as requests to stop while the block runs.

    Under nohup a terminal that closes, which sends SIGHUP, still stops nothing. Blocks within the
    block share the outer one's request, so that the command line can listen before the slow imports
    of training.
    """
    global _listening
    if _listening is not None:
        yield _listening
        return
    stop = _listening = StopRequest()
    nohup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    taken = [number for number in _SIGNALS if not (nohup and number == signal.SIGHUP)]
    before = {number: signal.signal(number, stop.receive) for number in taken}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _listening = None
