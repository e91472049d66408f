"""Jobs that SLURM takes away between the last file of their run and their own end."""

import os
import signal
from contextlib import suppress
from pathlib import Path

from amst.training.kept import KEPT
from tests.cluster.conftest import GRID
from tests.cluster.longruns import job_of, training_process
from tests.cluster.machines import ClusterSuite, Slurm, until

RUNS = {variant: f"digits/random/{variant}/seed0" for variant in GRID["grid"]["methods"]}


def stop_at_their_ends(suite: ClusterSuite) -> None:
    """Stop the processes of all runs when the files of their runs are there."""
    waiting, processes = dict(RUNS), dict[str, int]()

    def stopped() -> bool:
        for variant, run in list(waiting.items()):
            if process := processes.get(run) or training_process(suite, run):
                processes[run] = process
            if suite.file(f"results/checkpoints/{run}/{KEPT}/run.json").is_file():
                with suppress(ProcessLookupError):  # its job lives a little longer
                    os.kill(processes[run], signal.SIGSTOP)
                del waiting[variant]
        return not waiting

    until(stopped, 120, "the ends of all runs", pause=0.002)


def test_they_do_not_train_again(slurm: Slurm, grid: ClusterSuite, folder: Path):
    """Snakemake deletes the files of a job that it starts again; they have second names."""
    suite = ClusterSuite.on(grid, folder, slurm)
    suite.configure(GRID)
    call = suite.start(*suite.on_slurm(*(f"results/runs/{run}/run.json" for run in RUNS.values())))
    stop_at_their_ends(suite)
    before = {run: suite.record(run) for run in RUNS.values()}
    for variant, command in (("naive", "scontrol requeue"), ("unimodal_audio", "scancel")):
        job = job_of(slurm, RUNS[variant])
        assert job, "the job has not ended yet"
        slurm(*command.split(), job["id"])
    call.wait(200)
    assert call.returncode == 0, suite.log()[-6000:]

    ends = slurm.ends()
    for variant, run in RUNS.items():
        jobs = suite.jobs_of(f"rule_train/digits_random_{variant}_0")
        assert sum(len(ends[job]) for job in jobs) == 2, "it was started twice"
        assert suite.record(run) == before[run], "and trained once"
        log = suite.file(f"logs/train/{run}.log").read_text()
        assert log.index(" epoch 3/3 ") < log.index("taken back from"), "its log is whole"
    assert suite.bytes_of_runs() == grid.bytes_of_runs()
    assert not list(suite.file("results/checkpoints").rglob(KEPT)), "their ends were seen"
