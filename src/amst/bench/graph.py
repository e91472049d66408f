"""The graph and its jobs: a dry run of a large grid, and what a training job costs besides."""

import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from amst.bench.prepared import Prepared, settings_of
from amst.config.run import RunSettings
from amst.config.settings import Config
from amst.errors import AmstError
from amst.provenance import SOURCE
from amst.records import read_record

_BARE = """
RUN = "runs/{variant}/seed{seed}"
FILES = ["run.json", "1", "2", "3", "4"]


rule all:
    input:
        expand(f"{RUN}/{FILES[0]}", variant=range(10), seed=range(SEEDS)),


rule prepare:
    output:
        "manifest.json",
    shell:
        "touch {output}"


rule train:
    input:
        "manifest.json",
    output:
        [f"{RUN}/{file}" for file in FILES],
    shell:
        "touch {output}"
"""
"""As many jobs as the grid, with as many outputs, and nothing else."""
_LAUNCH = """
import resource, subprocess, sys
status = subprocess.call(sys.argv[1:], stdout=sys.stderr)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(status)
"""
"""Calls a command and prints its highest resident memory in kB."""


@dataclass(frozen=True)
class DryRun:
    """A dry run of a grid on a folder without anything, and one of a bare graph.

    Attributes:
        jobs: training jobs in either graph.
        seconds: from call to end.
        peak_mb: highest resident memory.
        bare_seconds: of a graph of two rules with as many jobs and outputs, from call to end.
        bare_peak_mb: its highest resident memory.
    """

    jobs: int
    seconds: float
    peak_mb: float
    bare_seconds: float
    bare_peak_mb: float

    def lines(self) -> list[str]:
        """Both, and their ratio."""
        return [
            f"dry run of {self.jobs} runs: {self.seconds:.1f} s, {self.peak_mb:.0f} MB",
            f"  a bare graph of as many jobs and files: {self.bare_seconds:.1f} s, "
            f"{self.bare_peak_mb:.0f} MB",
            f"  ratio: {self.seconds / self.bare_seconds:.2f}",
        ]


def measure_dry_run(jobs: int, folder: Path) -> DryRun:
    """Call ``snakemake -n`` for a grid of at least so many runs, and for a bare graph as large.

    Args:
        jobs: training jobs, rounded up to whole seeds of all of the configuration's methods.
        folder: an empty folder.
    """
    variants = [f"naive{number}" for number in range(10)]
    seeds = list(range(-(-jobs // len(variants))))
    values = {
        "grid": {"datasets": ["digits"], "methods": variants, "seeds": seeds},
        "methods": {name: {"method": "naive"} for name in variants},
    }
    # JSON is YAML, too.
    (folder / "grid.yaml").write_text(json.dumps(values), encoding="utf-8")
    own = ["--snakefile", str(SOURCE.parent / "Snakefile"), "--configfile", "grid.yaml"]
    (folder / "bare.smk").write_text(f"SEEDS = {len(seeds)}\n{_BARE}", encoding="utf-8")
    bare = _dry_run(["--snakefile", "bare.smk"], folder)
    return DryRun(len(variants) * len(seeds), *_dry_run(own, folder), *bare)


def _dry_run(arguments: list[str], folder: Path) -> tuple[float, float]:
    """Seconds and peak of memory, in MB, of a dry run."""
    command = [sys.executable, "-m", "snakemake", "-n", "--quiet", "--cores", "1", *arguments]
    begin = time.perf_counter()
    with (folder / "said").open("w") as said:
        # Its own parent is a small process: a child's figure counts what the parent held.
        launched = [sys.executable, "-c", _LAUNCH, *command]
        done = subprocess.run(
            launched, cwd=folder, stdout=subprocess.PIPE, stderr=said, text=True, check=False
        )
    seconds = time.perf_counter() - begin
    if done.returncode:
        raise AmstError(f"the dry run failed: {(folder / 'said').read_text()[-500:]}")
    return seconds, int(done.stdout) * 1024 / 1e6


@dataclass(frozen=True)
class JobCost:
    """A training job of one epoch as a rule calls it, without Snakemake; medians.

    Attributes:
        whole: seconds from call to end.
        training: seconds of its epochs, as its record has them.
        linear: seconds of its linear evaluation, as its record has them.
        torch: seconds of a process that only imports torch.
    """

    whole: float
    training: float
    linear: float
    torch: float

    def lines(self) -> list[str]:
        """What the job takes besides training."""
        return [
            f"training job of one epoch: {self.whole:.2f} s, its epoch {self.training:.2f} s, "
            f"its linear evaluation {self.linear:.2f} s",
            f"  besides: {self.whole - self.training - self.linear:.2f} s",
            f"  `import torch` alone: {self.torch:.2f} s",
        ]


def measure_job(config: Config, made: Prepared, rounds: int, folder: Path) -> JobCost:
    """Call ``amst train`` for the embedded dataset, and ``import torch``, in turns.

    Args:
        config: defines the run.
        made: the dataset.
        rounds: turns; medians are taken over them.
        folder: runs are written below it.
    """
    values = settings_of(config, "digits", "naive").model_dump()
    values["recipe"]["epochs"] = 1
    settings = RunSettings.model_validate(values)
    wholes, trainings, linears, imports = [], [], [], []
    for turn in range(rounds):
        imports.append(_seconds(["-c", "import torch"], folder))
        wholes.append(_seconds(_train_command(settings, made, f"results{turn}"), folder))
        cost = read_record(folder / f"results{turn}/runs/{settings.run_id}/run.json").cost
        trainings.append(cost.seconds)
        linears.append(cost.linear_seconds)
    each = (wholes, trainings, linears, imports)
    return JobCost(*(statistics.median(seconds) for seconds in each))


def _train_command(settings: RunSettings, made: Prepared, results: str) -> list[str]:
    files = ["--manifest", str(made.manifest), "--split", str(made.split), "--results", results]
    given = ["--settings", settings.model_dump_json(), "--execution", "{}"]
    return ["-m", "amst", "train", settings.run_id, *given, *files]


def _seconds(arguments: list[str], folder: Path) -> float:
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise AmstError(f"{' '.join(arguments[:4])} failed: {done.stderr[-500:]}")
    return time.perf_counter() - begin
