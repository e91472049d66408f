"""A throwaway SLURM and a real Apptainer on this machine, and the suite called on them."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.users import OrdinaryUser
from tests.end_to_end.suite import ROOT, SMALL, Suite

HERE = Path(__file__).parent
SITE = {"first_status_check": 1}
PAUSES = {
    "earlier.py": ("_POLL = 5.0", "_POLL = 1.0"),
    "held.py": ("_POLL = 30.0", "_POLL = 2.0"),
    "refusals.py": ("_PAUSE = 15.0", "_PAUSE = 1.0"),
    # the plugin waits ten seconds longer after each look at which no job has ended
    "status.py": (
        "plugin.query_job_status = states\n",
        "plugin.query_job_status = states\n"
        "    once_a_second = property(lambda _: 1, lambda *_: None)\n"
        "    plugin.Executor.next_seconds_between_status_checks = once_a_second\n",
    ),
}
"""Module of amst.cluster -> how it stands, and how in tests, between two looks at SLURM."""


def missing(program: str, what: str) -> str:
    """Why tests that need a program are skipped; empty when it is there."""
    if shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin"):
        return ""
    able = os.geteuid() == 0 and shutil.which("apt-get")
    return f"{what} is not installed (.ci/install-system does it)" + (
        "" if able else " and cannot be installed here: not root on Debian"
    )


def until(condition: Callable[[], Any], seconds: float, what: str, pause: float = 0.2) -> Any:
    """Wait for a condition, looking again after each pause; its value."""
    end = time.monotonic() + seconds
    while True:
        if value := condition():
            return value
        assert time.monotonic() < end, f"waited {seconds} s in vain for {what}"
        time.sleep(pause)


def processes_in(folder: Path) -> Iterator[tuple[int, list[str]]]:
    """Processes that work in a folder or below it, with the words of their commands."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            inside = (process / "cwd").resolve().is_relative_to(folder.resolve())
        except OSError:
            continue
        if inside:
            yield int(process.name), words


class Slurm:
    """A running cluster: nodes n1..nN, partitions cpu, gpu and scav (which the others pre-empt).

    Daemons start with the words `within` before their commands.
    """

    def __init__(
        self,
        folder: Path,
        nodes: int = 4,
        gpus: int = 2,
        preempt: str = "REQUEUE",
        accounting: str = "none",
        preempt_by: str = "partition_prio",
        within: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.within = within
        values = {"NODES": nodes, "GPUS": gpus, "PREEMPT": preempt, "ACCT": accounting,
                  "PREEMPT_BY": preempt_by}  # fmt: skip
        self._script("slurm-up.sh", {key: str(value) for key, value in values.items()})
        self.environment = {
            "SLURM_CONF": str(folder / "etc" / "slurm.conf"),
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        }

    def _script(self, name: str, values: dict[str, str] | None = None) -> None:
        subprocess.run(
            [*self.within, HERE / name, self.folder],
            env={**os.environ, **(values or {})},
            check=True,
            timeout=120,
        )

    def down(self) -> None:
        """End all jobs and daemons."""
        self._script("slurm-down.sh")

    def __call__(self, *command: str, check: bool = True) -> str:
        """Call one of SLURM's commands; what it prints."""
        done = subprocess.run(
            command,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def jobs(self, states: str = "all") -> list[dict[str, str]]:
        """Jobs in the order of their numbers; `about` is rule and wildcards."""
        names = ("id", "state", "about", "node", "gpus", "restarts", "mem", "partition", "name")
        asked = self("squeue", "-h", f"--states={states}", "-o", "%i|%T|%k|%N|%b|%r|%m|%P|%j")
        rows = [dict(zip(names, line.split("|"), strict=True)) for line in asked.splitlines()]
        return sorted(rows, key=lambda row: int(row["id"]))

    def field(self, job: str, name: str) -> str:
        """A field of `scontrol show job`."""
        found = re.search(rf"\b{name}=(\S*)", self("scontrol", "show", "job", job))
        assert found, f"job {job} has no {name}"
        return found[1]

    def ends(self) -> dict[str, list[str]]:
        """Job -> the states in which it ended, one for every time that it was started."""
        found: dict[str, list[str]] = {}
        for values in self.completions():
            found.setdefault(values["JobId"], []).append(values["JobState"])
        return found

    def completions(self) -> Iterator[dict[str, str]]:
        """What SLURM has written of every end of a job: JobId, JobState, EndTime and more."""
        for line in (self.folder / "log" / "jobcomp.txt").read_text().splitlines():
            yield dict(word.split("=", 1) for word in line.split() if "=" in word)

    def restart_controller(
        self,
        down_for: float,
        forgetful: bool = False,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> None:
        """Kill slurmctld, and start it again from its saved state, or without any jobs.

        Args:
            down_for: seconds until then, at least.
            forgetful: without any jobs.
            meanwhile: what to do, or to wait for, before.
        """
        pidfile = self.folder / "pid" / "slurmctld"
        os.kill(int(pidfile.read_text()), signal.SIGKILL)
        time.sleep(down_for)
        meanwhile()
        command = [*self.within, "/usr/sbin/slurmctld", *(["-c"] if forgetful else [])]
        subprocess.run(command, env={**os.environ, **self.environment}, check=True)
        until(lambda: "is UP" in self("scontrol", "ping", check=False), 30, "slurmctld")


def slurm_that_is_down(folder: Path) -> dict[str, str]:
    """What makes SLURM's commands look for a controller that is not there.

    They say so after some seconds; without a file of settings they would look for one for a minute.
    """
    settings = folder / "down.conf"
    settings.write_text(
        "ClusterName=down\nSlurmctldHost=localhost(127.0.0.1)\nSlurmctldPort=1\n"
        "AuthType=auth/none\n"
    )
    return {"SLURM_CONF": str(settings), "PATH": os.environ["PATH"]}


class ClusterSuite(Suite):
    """The suite on a cluster: profiles/slurm or profiles/node, with a site's file."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.slurm: Slurm | None = None
        self.user: OrdinaryUser | None = None
        self.extra: dict[str, str] = {}
        self.site: dict[str, Any] = SITE

    @classmethod
    def new(cls, folder: Path, values: dict[str, Any] = SMALL) -> "ClusterSuite":
        """A fresh checkout, whose calls look at SLURM often, and an empty working folder."""
        suite = super().new(folder, values)
        assert isinstance(suite, ClusterSuite)
        for module, (waits, hurries) in PAUSES.items():
            suite.change(f"cluster/{module}", waits, hurries)
        return suite

    @classmethod
    def on(cls, finished: Suite, folder: Path, slurm: Slurm | None = None) -> "ClusterSuite":
        """Raw files and shards of a finished local grid, and none of its runs and tables."""
        finished.copy(folder)
        suite = cls(folder)
        suite.slurm = slurm
        for name in ("runs", "tables", "figures", "checkpoints"):
            shutil.rmtree(suite.file(f"results/{name}"), ignore_errors=True)
        return suite

    def change(self, module: str, old: str, new: str) -> None:
        """Change a module of the checkout."""
        path = self.checkout / "src/amst" / module
        text = path.read_text()
        assert old in text, f"{module} has no {old!r}"
        path.write_text(text.replace(old, new))

    def environment(self) -> dict[str, str]:
        """The cluster's commands first on the path."""
        (self.work / "site.yaml").write_text(yaml.safe_dump(self.site))
        return {
            **super().environment(),
            **(self.slurm.environment if self.slurm else {}),
            "AMST_SITE": str(self.work / "site.yaml"),
            "OMP_NUM_THREADS": "1",
            **self.extra,
        }

    def jobs_are_forks(self) -> bool:
        """Not those of SLURM: it starts them on its nodes."""
        return self.slurm is None

    def command(self, *arguments: str) -> list[str]:
        """The command line of a call, by the user that was set."""
        return [*(self.user.words if self.user else ()), *super().command(*arguments)]

    def on_slurm(self, *arguments: str) -> tuple[str, ...]:
        """Arguments for a call through profiles/slurm, without a container unless asked for."""
        sdm = () if "--sdm" in arguments else ("--sdm", "env-modules")
        profile = ("--profile", str(self.checkout / "profiles" / "slurm"))
        return (*arguments, *profile, *sdm, "--latency-wait", "20")

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start Snakemake and return at once; it writes to calls.log."""
        with (self.work / "calls.log").open("a") as log:
            return subprocess.Popen(
                self.command(*arguments),
                cwd=self.work,
                env=self.environment(),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def run(self, *command: str) -> int:
        """Run a command in the suite's environment and wait; its exit status."""
        done = subprocess.run(
            command, cwd=self.work, env=self.environment(), timeout=400, check=False
        )
        return done.returncode

    def log(self) -> str:
        """What started calls have said."""
        return (self.work / "calls.log").read_text()

    def tables(self) -> dict[str, str]:
        """All tables in all forms but those that tell times, hosts and commits."""
        return {
            path.name: path.read_text()
            for path in sorted(self.file("results/tables").iterdir())
            if path.stem not in ("cost", "runs") and path.suffix != ".html"
        }

    def jobs_of(self, rule_and_wildcards: str) -> list[str]:
        """Numbers of the SLURM jobs that were submitted for one job of Snakemake."""
        logs = self.file(f"logs/slurm/{rule_and_wildcards}").glob("*.log")
        return sorted((path.stem for path in logs), key=int)

    def completed(self) -> list[dict[str, str]]:
        """All jobs, none of which may have ended otherwise; if one has, its log is told."""
        assert self.slurm
        jobs = self.slurm.jobs()
        for job in jobs:
            if job["state"] != "COMPLETED":
                logs = self.file("logs/slurm").rglob(f"{job['id']}.log")
                pytest.fail(f"{job}\n" + "\n".join(log.read_text() for log in logs))
        return jobs

    def record(self, run: str) -> dict[str, Any]:
        """A run's record."""
        return yaml.safe_load(self.file(f"results/runs/{run}/run.json").read_text())


def local_grid(folder: Path, values: dict[str, Any]) -> ClusterSuite:
    """A grid, run to its end on this machine."""
    suite = ClusterSuite.new(folder, values)
    suite.snakemake("results/tables/main.csv", "--cores", "2")
    return suite


__all__ = [
    "ROOT",
    "ClusterSuite",
    "Slurm",
    "local_grid",
    "missing",
    "processes_in",
    "slurm_that_is_down",
    "until",
]
