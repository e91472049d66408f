"""One writer per run: a lock file with a heartbeat, for file systems without flock.

A hard link to a file that names the writer takes the lock: it is there with its writer's name, or
not at all, whenever a kill comes. Its modification time is the heartbeat: a writer is dead when
that is old, or does not change while somebody waits, as where the clock that set it was ahead. The
lock of a dead writer is taken over by renaming it away; whoever renamed looks what it got, and puts
a lock back that was not the dead one. A writer whose lock was lost sees that at its next check.
"""

import json
import os
import platform
import sys
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from amst.errors import AmstError
from amst.training.signals import SAVED, StopRequest

_BEATS = 12  # heartbeats in the time after which a writer counts as dead
_PAUSE = 0.2  # seconds between two looks at a lock that another writer holds


@dataclass(frozen=True)
class Writer:
    """Who holds a lock.

    Attributes:
        token: different for every attempt.
        pid_start: when the process began, in clock ticks since boot: pids are used again.
        restarts: how often SLURM has started this job again.
        uid: of the user.
    """

    token: str
    host: str
    pid: int
    pid_start: str
    job: str
    restarts: int
    uid: int

    @classmethod
    def this(cls) -> Self:
        """The running process."""
        return cls(
            token=uuid.uuid4().hex,
            host=platform.node(),
            pid=os.getpid(),
            pid_start=_start_of(os.getpid()),
            job=os.environ.get("SLURM_JOB_ID", ""),
            restarts=int(os.environ.get("SLURM_RESTART_COUNT") or 0),
            uid=os.getuid(),
        )

    def surely_dead(self, me: "Writer") -> bool:
        """Whether this writer cannot live any more, whatever its heartbeat says."""
        visible = self.uid == me.uid or not _hides_processes()
        if visible and self.host == me.host and _start_of(self.pid) != self.pid_start:
            return True
        return bool(self.job) and self.job == me.job and self.restarts < me.restarts

    def __str__(self) -> str:
        return f"{self.host}, process {self.pid}" + (f", job {self.job}" if self.job else "")


def _hides_processes() -> bool:
    """Whether this machine shows a user no processes of others."""
    return not os.access("/proc/1/stat", os.R_OK)


def _start_of(pid: int) -> str:
    """When a process of this host began, in clock ticks since boot; empty when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    after_name = stat.rpartition(")")[2].split()
    state, start = after_name[0], after_name[19]
    return "" if state == "Z" else start


class RunLock:
    """The lock of one run; a context manager.

    Args:
        path: the lock file; its folder is made.
        wait: seconds to wait for another writer.
        stale_after: seconds without a heartbeat after which a writer counts as dead.
        stop: ends the waiting early.

    Raises:
        AmstError: another writer holds the lock; exit code 75.
        StoppedError: a stop was asked for while waiting.
    """

    def __init__(self, path: Path, wait: float, stale_after: float, stop: StopRequest) -> None:
        self._path = path
        self._wait = wait
        self._stale_after = stale_after
        self._stop = stop
        self._me = Writer.this()
        self._seen = (0.0, 0.0)  # a heartbeat of another writer, and when it was first seen
        self._released = threading.Event()
        self._heart = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        until = time.monotonic() + self._wait
        told = False
        while not self._create():
            if self._take_over_if_dead():
                continue
            self._stop.check()
            holder = self._holder()
            if holder and not told:
                print(f"{self._path} is held by {holder}; waiting", file=sys.stderr, flush=True)
                told = True
            if time.monotonic() > until:
                raise AmstError(
                    f"another process writes this run ({holder or 'it has just left'})",
                    "Wait for it, or end it; the same command continues then",
                    exit_code=SAVED,
                )
            time.sleep(_PAUSE)
        self._heart.start()
        with suppress(OSError):  # a full disk or a file of somebody else: no reason to leave
            self._drop_leftovers()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def check(self) -> None:
        """Make sure, before something is written, that the lock is still this process's own.

        Raises:
            AmstError: another writer has taken it over; exit code 75.
        """
        if not self._is_mine():
            raise AmstError(
                f"the lock {self._path} was lost to {self._holder() or 'nobody'}: this process "
                f"had stood still for {self._stale_after:g} s or more",
                "Nothing was overwritten; the same command continues",
                exit_code=SAVED,
            )

    def release(self) -> None:
        """Give the lock back; does nothing the second time."""
        if self._released.is_set():
            return
        self._released.set()
        self._heart.join()
        if self._is_mine():
            self._path.unlink(missing_ok=True)

    def _create(self) -> bool:
        """Take the lock if there is none."""
        if self._path.exists():
            return False
        named = self._beside("new")
        content = json.dumps(asdict(self._me))
        named.write_text(content, encoding="utf-8")
        try:
            os.link(named, self._path)
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links
            return self._create_in_place(content)
        finally:
            named.unlink(missing_ok=True)
        return True

    def _create_in_place(self, content: str) -> bool:
        """Take the lock; a kill between its two steps leaves one of nobody until it is stale."""
        try:
            with self._path.open("x", encoding="utf-8") as file:
                file.write(content)
        except FileExistsError:
            return False
        return True

    def _holder(self) -> Writer | None:
        return _read(self._path)

    def _is_mine(self) -> bool:
        holder = self._holder()
        return holder is not None and holder.token == self._me.token

    def _take_over_if_dead(self) -> bool:
        """Put the lock of a dead writer away; True when there is none any more."""
        found = self._holder()
        try:
            beat = self._path.stat().st_mtime
        except FileNotFoundError:
            return True
        if beat != self._seen[0]:
            self._seen = beat, time.monotonic()
        silent = max(self._now() - beat, time.monotonic() - self._seen[1])
        if silent < self._stale_after and not (found and found.surely_dead(self._me)):
            return False
        aside = self._beside("dead")
        try:
            self._path.rename(aside)
        except FileNotFoundError:  # another process was quicker
            return True
        if _read(aside) == found:
            print(f"taking over from {found}, which is gone", file=sys.stderr, flush=True)
        else:
            with suppress(OSError):  # where it cannot go back, its writer sees the loss
                os.link(aside, self._path)
        aside.unlink()
        return True

    def _beside(self, step: str) -> Path:
        """A file of this process beside the lock, for a moment; it can be told whose it was."""
        me = self._me
        whose = f"{me.host}.{me.pid}.{me.pid_start}.{me.token}"
        return self._path.with_name(f".{self._path.name}.{step}.{whose}")

    def _drop_leftovers(self) -> None:
        """Remove what processes that are gone left beside the lock."""
        now, prefix = self._now(), f".{self._path.name}."
        for path in self._path.parent.glob(f"{prefix}*.*.*.*.*"):
            _, whose = path.name.removeprefix(prefix).split(".", 1)
            host, pid, start, _ = whose.rsplit(".", 3)
            with suppress(OSError):
                old = now - path.stat().st_mtime >= self._stale_after
                if old or (host == self._me.host and _start_of(int(pid)) != start):
                    path.unlink()

    def _now(self) -> float:
        """The file system's clock, which may differ from this host's."""
        probe = self._beside("now")
        probe.touch()
        try:
            return probe.stat().st_mtime
        finally:
            probe.unlink()

    def _beat(self) -> None:
        while not self._released.wait(self._stale_after / _BEATS):
            with suppress(OSError):
                if self._is_mine():
                    os.utime(self._path)


def _read(path: Path) -> Writer | None:
    try:
        return Writer(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
