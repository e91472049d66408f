"""The attempts of a run: how many there were, and whether one ended in an error for good."""

import json
import os
import platform
import sys
import traceback
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from amst.errors import AmstError, HostError
from amst.files import write_json
from amst.training import kills
from amst.training.checkpoint import CheckpointFolder
from amst.training.state import is_for_good


def now() -> str:
    """The time, UTC, in seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def drop_unfinished(folder: Path, names: Iterable[str]) -> None:
    """Remove what writers that were killed have left of ``names`` under temporary names."""
    for name in names:
        for path in folder.glob(f".{name}.*"):
            path.unlink()


class Attempt:
    """One start of a run.

    Args:
        folder: the run's folder of checkpoints; ``failed.json`` lies in it.
        run: the run's name.
        digest: of all that the run's numbers depend on.
        log: path of the log file.
    """

    def __init__(self, folder: Path, run: str, digest: str, log: str) -> None:
        self._failed = folder / "failed.json"
        self._run, self.digest, self._log = run, digest, log
        self.checkpoints = CheckpointFolder(folder / digest)
        self._count_file = folder / f"attempts-{digest}.json"
        self._kept_log = folder / f"log-{digest}.txt"
        self.number = 0
        self.started = now()
        self._before: tuple[int, int] | None = None
        self._failed_on: tuple[str, ...] = ()

    def refuse_if_failed(self) -> None:
        """Leave at once where an earlier attempt failed with the same settings, code and data.

        What one host only has brought about may be that host's fault: another one may try, unless
        this one is met again before.

        Raises:
            AmstError: says how to clear it.
        """
        failed = self._read(self._failed)
        if not failed or failed.get("digest") != self.digest:
            return
        hosts, here = failed.get("hosts", []), platform.node()
        if here in hosts:
            with suppress(OSError):
                write_json(self._failed, failed | {"hosts": [*hosts, here]})
        if is_for_good(hosts) or here in hosts:
            self.carry_log_over(self._kept_log)
            raise AmstError(
                f"{self._run} failed at {failed['time']} on {failed['host']}: {failed['error']}",
                f"Mend the cause, then `amst retry {self._run}`",
            )
        self._failed_on = tuple(hosts)

    def begin(self) -> None:
        """Count this attempt; called when the run's lock is held."""
        self.carry_log_over(self._kept_log)
        self._keep_log()
        killed = kills.kills(self._failed.parent) - 1  # this one counts, too
        if killed > 0:
            before = "the attempt before was" if killed == 1 else f"{killed} attempts before were"
            print(f"{self._run}: {before} {kills.WHY}", file=sys.stderr, flush=True)
        if self._failed.is_file():
            why = (
                f"it failed on {self._failed_on[0]} only"
                if self._failed_on
                else "settings, code or data have changed since it failed"
            )
            print(f"{self._run}: {why}; trying again", file=sys.stderr, flush=True)
            self._failed.unlink()
        drop_unfinished(self._failed.parent, (self._failed.name, self._count_file.name))
        earlier = self._read(self._count_file) or {"number": 0, "started": self.started}
        self.number, self.started = earlier["number"] + 1, earlier["started"]
        write_json(self._count_file, {"number": self.number, "started": self.started})
        self._before = self.checkpoints.progress()

    def fail(self, error: BaseException) -> None:
        """Note an error that ended the attempt, unless the run got further before it."""
        if self.checkpoints.progress() != self._before:
            return
        hosts = [*self._failed_on, platform.node()]
        with suppress(OSError):
            write_json(
                self._failed,
                {
                    "run": self._run,
                    "digest": self.digest,
                    "error": _line(error),
                    "attempts": self.number,
                    "host": platform.node(),
                    "hosts": [] if _is_mistake(error) else hosts,
                    "time": now(),
                    "log": self._log,
                },
            )

    def has_traces(self) -> bool:
        """Whether something is left that a finished run does not need."""
        return self.checkpoints.path.is_dir() or self._count_file.exists()

    def states_of_others(self) -> list[Path]:
        """Folders of states that this run, as it is now, does not continue from."""
        folders = {path.parent for path in self._failed.parent.glob("*/epoch-*.pt")}
        return sorted(folders - {self.checkpoints.path})

    def end(self) -> None:
        """The run is done: remove what was kept to continue it."""
        self.checkpoints.remove()
        for path in (self._count_file, self._failed, self._kept_log):
            path.unlink(missing_ok=True)

    def carry_log_over(self, kept: Path) -> None:
        """Put into the log what earlier attempts have said: Snakemake deletes theirs.

        Args:
            kept: a second name of their log.
        """
        with suppress(OSError):
            if self._logs() and not kept.samefile(self._log):
                earlier = kept.read_text("utf-8", errors="replace")
                print(f"{earlier.rstrip()}\n--- started again", file=sys.stderr, flush=True)

    def _keep_log(self) -> None:
        """Give the log a second name, where the file system has hard links."""
        with suppress(OSError):
            if self._logs():
                self._kept_log.unlink(missing_ok=True)
                os.link(self._log, self._kept_log)

    def _logs(self) -> bool:
        """Whether what this process says goes to the log."""
        return bool(self._log) and os.path.samestat(os.fstat(2), Path(self._log).stat())

    def _read(self, path: Path) -> dict[str, Any] | None:
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return value if isinstance(value, dict) else None


def _is_mistake(error: BaseException) -> bool:
    """Whether the user's input is to blame, which is the same on every host."""
    return isinstance(error, AmstError) and not isinstance(error, HostError)


def _line(error: BaseException) -> str:
    """An error in one line; where it was raised, unless the message speaks for itself."""
    if isinstance(error, AmstError):
        return str(error)
    text = (str(error).strip() or "no message").splitlines()[0]
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {text}{place}"
