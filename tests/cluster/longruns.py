"""Runs of the fault tests: long enough to be met by a fault, found, and held still."""

import os
import signal
from typing import Any

from tests.cluster.machines import SITE, ClusterSuite, Slurm, processes_in

DIGITS: dict[str, Any] = {
    "generate": {"samples": 200},
    "shards": 2,
    "recipe": {"epochs": 3, "decay_every": 2},
    # a GPU for each run, although none is there: so that GPUs are asked for and handed out
    "resources": {"gpu": 1, "threads": 1, "mem_mb": 1500, "runtime": 5},
}
EPOCHS = 40  # long enough to be stopped after the first one on a quiet machine
LONG: dict[str, Any] = {
    "grid": {"methods": ["naive"], "seeds": [0, 1, 2, 3, 4]},
    "datasets": {"digits": {**DIGITS, "recipe": {"epochs": EPOCHS, "decay_every": 20}}},
}

SCAVENGING: dict[str, Any] = {**SITE, "resources": {"train": {"slurm_partition": "scav"}}}
"""Where training jobs are pre-empted."""


def run_name(seed: int) -> str:
    return f"digits/random/naive/seed{seed}"


def is_training(suite: ClusterSuite, seed: int) -> bool:
    """Whether a run has saved an epoch and is not done."""
    return any(suite.file(f"results/checkpoints/{run_name(seed)}").glob("*/epoch-*.pt"))


def job_of(slurm: Slurm, run: str) -> dict[str, str] | None:
    """The running job of a run."""
    about = "rule_train_wildcards_" + run.replace("/seed", "_").replace("/", "_")
    running = [job for job in slurm.jobs("RUNNING") if job["about"] == about]
    return running[-1] if running else None


def training_process(suite: ClusterSuite, run: str) -> int | None:
    """The process that trains a run of this folder."""
    for process, words in processes_in(suite.work):
        if words[1:5] == ["-m", "amst", "train", run]:
            return process
    return None


def hold(suite: ClusterSuite, seed: int) -> int | None:
    """Stop the process that trains a run, as it is; which one it is."""
    process = training_process(suite, run_name(seed))
    if process:
        os.kill(process, signal.SIGSTOP)
    return process


def same_bytes(suite: ClusterSuite, undisturbed: ClusterSuite) -> None:
    runs, whole = suite.bytes_of_runs(), undisturbed.bytes_of_runs()
    assert runs
    assert runs == {name: content for name, content in whole.items() if name in runs}


def preempt(slurm: Slurm, job: dict[str, str]) -> None:
    """Want the whole node in a partition of higher priority, for a moment."""
    slurm("sbatch", "-p", "gpu", "-w", job["node"], "--gpus-per-node=1", "-o", "/dev/null",
          "--wrap", "sleep 1")  # fmt: skip
