"""The suite as a user calls it: a copy of the checkout, a working folder, real Snakemake."""

import os
import re
import shutil
import subprocess
import sys
from base64 import urlsafe_b64encode
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock

from tests.end_to_end import preloaded

ROOT = Path(__file__).parents[2]
SNAKEMAKE = Path(sys.executable).with_name("snakemake")

SMALL: dict[str, Any] = {
    "grid": {"methods": ["naive", "amst_alternating"], "seeds": [0]},
    "datasets": {
        "digits": {
            "generate": {"samples": 160, "pools": 12},
            "shards": 2,
            "recipe": {"epochs": 2, "decay_every": 2},
        }
    },
}
"""A grid of two runs that takes seconds."""


def planned(text: str) -> Counter[str]:
    """Rule -> number of jobs in the first table of a dry run."""
    lines = text.partition("Job stats:")[2].splitlines()[3:]
    counts: Counter[str] = Counter()
    for line in lines:
        if not line.strip():
            break
        rule, count = line.split()
        counts[rule] = int(count)
    return counts


def jobs_of(done: subprocess.CompletedProcess[str]) -> Counter[str]:
    """Rule -> number of jobs that a call ran, `all` left out."""
    ran = Counter(re.findall(r"Finished jobid: \d+ \(Rule: (\w+)\)", done.stdout + done.stderr))
    del ran["all"]
    return ran


def shared(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that one test process makes and all of them read.

    Args:
        factory: pytest's; its base folder lies in one that the processes of a call share.
        name: of the folder.
        make: fills it.
    """
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with FileLock(f"{folder}.lock"):
        if not Path(f"{folder}.made").exists():
            make(folder)
            Path(f"{folder}.made").touch()
    return folder


def mark_incomplete(work: Path, run: str) -> None:
    """What Snakemake does when it starts a run's job, until it has seen the job's end."""
    record = f"results/runs/{run}/run.json"
    marker = work / ".snakemake" / "incomplete" / urlsafe_b64encode(record.encode()).decode()
    marker.parent.mkdir(parents=True, exist_ok=True)
    marker.write_text('{"external_jobid": null}')


class Suite:
    """A checkout and a working folder of its own.

    Attributes:
        checkout: copy of what a clone holds.
        work: where Snakemake is called.
    """

    def __init__(self, folder: Path) -> None:
        self.checkout = folder / "checkout"
        self.work = folder / "work"
        self.config = self.work / "small.yaml"

    @classmethod
    def new(cls, folder: Path, values: dict[str, Any] = SMALL) -> "Suite":
        """A fresh checkout and an empty working folder."""
        suite = cls(folder)
        suite.checkout.mkdir(parents=True)
        suite.work.mkdir()
        # with what Python has compiled, which goes by the times of files; not what it has half
        # written, which is gone in a moment
        ignore = shutil.ignore_patterns("sources.*.json", "*.pyc.*", "*.egg-info", "*.sif")
        for name in ("Snakefile", "config.yaml", "workflow", "profiles", "containers", "src"):
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, suite.checkout / name, ignore=ignore)
            else:
                shutil.copy2(source, suite.checkout / name)
        suite.configure(values)
        return suite

    def copy(self, folder: Path) -> "Suite":
        """The same state in another folder; times of files stay."""
        folder.mkdir(parents=True, exist_ok=True)
        # a third of the time of shutil's
        command = ["cp", "--archive", f"{self.checkout.parent}/.", folder]
        subprocess.run(command, check=True)
        return Suite(folder)

    def make_repository(self) -> None:
        """Commit the package and the Snakefile."""
        shutil.copy2(ROOT / ".gitignore", self.checkout)
        added = ["add", ".gitignore", "Snakefile", "src"]
        for words in (["init"], added, ["commit", "--message", "first"]):
            self._git(*words)

    def commit(self) -> str:
        """The checkout's commit."""
        return self._git("rev-parse", "HEAD")

    def _git(self, *words: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = ["git", "-C", str(self.checkout), *who, *words]
        ended = subprocess.run(command, check=True, capture_output=True, text=True)
        return ended.stdout.strip()

    def configure(self, values: dict[str, Any]) -> None:
        """Write what is merged over config.yaml."""
        self.config.write_text(yaml.safe_dump(values))

    def command(self, *arguments: str) -> list[str]:
        """The command line of a Snakemake call."""
        snakefile = str(self.checkout / "Snakefile")
        return [
            str(SNAKEMAKE),
            *arguments,
            "--snakefile",
            snakefile,
            "--configfile",
            str(self.config),
        ]

    def environment(self) -> dict[str, str]:
        """The environment of a call: nothing of the test's own; compiled code is kept."""
        own = {"PYTHONPATH", "PYTEST_CURRENT_TEST", "PYTEST_XDIST_WORKER", "SLURM_JOB_ID"}
        own |= {"PYTHONDONTWRITEBYTECODE"}
        return {key: value for key, value in os.environ.items() if key not in own}

    def snakemake(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Call Snakemake and wait."""
        command, environment = self.command(*arguments), self.environment()
        if command[0] == str(SNAKEMAKE):
            done = preloaded.snakemake(command, self.work, environment, self.jobs_are_forks())
        else:
            done = subprocess.run(
                command,
                cwd=self.work,
                env=environment,
                capture_output=True,
                text=True,
                timeout=500,
                check=False,
            )
        assert not check or done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
        return done

    def jobs_are_forks(self) -> bool:
        """Whether jobs need not be processes that start anew."""
        return True

    def jobs(self, *arguments: str) -> Counter[str]:
        """Call Snakemake; rule -> number of jobs that it ran, `all` left out."""
        return jobs_of(self.snakemake(*arguments))

    def amst(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Call the command line of the package in the checkout."""
        environment = {**self.environment(), "PYTHONPATH": str(self.checkout / "src")}
        done = preloaded.amst(arguments, self.work, environment)
        assert not check or done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
        return done

    def file(self, path: str) -> Path:
        """A file of the working folder."""
        return self.work / path

    def table(self, name: str = "main") -> str:
        """Content of a table."""
        return self.file(f"results/tables/{name}.csv").read_text()

    def bytes_of_runs(self) -> dict[str, bytes]:
        """What must not depend on how often a run was interrupted: file -> content."""
        names = ("history.csv", "predictions.npz", "weights.safetensors")
        folder = self.file("results/runs")
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for name in names
            for path in sorted(folder.rglob(name))
        }
