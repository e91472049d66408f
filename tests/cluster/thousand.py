"""A thousand small jobs through SLURM, with faults at random: is a run lost, or trained twice?

    python -m tests.cluster.thousand --jobs 1000 --seed 0

Every job is a real one: the suite's graph, `profiles/slurm`, a throwaway SLURM on this machine, two
epochs of `naive` on a small `digits`. All variants have the same settings, so that ten runs trained
here, undisturbed, say what every run must end with, byte by byte. Not a test of the normal suite: a
job costs some ten seconds of one core. Progress goes to standard error, once a minute.
"""

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from amst.cluster.live import prefix_of
from tests.cluster.machines import ClusterSuite, Slurm, local_grid, missing, processes_in, until

SEEDS = 10
DIGITS: dict[str, Any] = {
    "generate": {"samples": 200},
    "shards": 2,
    "recipe": {"epochs": 2, "decay_every": 2},
    "resources": {"gpu": 1, "threads": 1, "mem_mb": 1500, "runtime": 20},
}


def grid(variants: int) -> dict[str, Any]:
    """So many variants of one method, with ten seeds each."""
    names = [f"v{number:03d}" for number in range(variants)]
    return {
        "grid": {"methods": names, "seeds": list(range(SEEDS))},
        "methods": {name: {"method": "naive"} for name in names},
        "datasets": {"digits": DIGITS},
    }


class Storm:
    """The call that trains all runs, and what happens to it.

    Args:
        suite: where it is called.
        slurm: the cluster.
        targets: the records of all runs.
        chance: where the faults come from.
    """

    def __init__(
        self, suite: ClusterSuite, slurm: Slurm, targets: list[str], chance: random.Random
    ) -> None:
        self.suite, self.slurm, self.chance = suite, slurm, chance
        self.faults: Counter[str] = Counter()
        self.calls = 0
        suite.extra = {"AMST_LIVE_JOBS": "wait"}
        self._arguments = suite.on_slurm(*targets)
        self.call = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        self.calls += 1
        return self.suite.start(*self._arguments)

    def missing(self) -> list[str]:
        """Records that are not there yet."""
        targets = (name for name in self._arguments if name.endswith("run.json"))
        return [name for name in targets if not self.suite.file(name).is_file()]

    def rage(self, every: float, calls: int, seconds: float) -> None:
        """Disturb the call until all runs are done, or the time is over.

        Args:
            every: mean seconds between two faults.
            calls: how often Snakemake may be called anew after it has ended by itself.
            seconds: after which the call is interrupted; it then cancels its jobs.
        """
        faults: dict[Callable[[], bool], int] = {
            self.requeue: 4,
            self.cancel: 4,
            self.kill_training: 4,
            self.node_down: 2,
            self.controller_of_slurm_killed: 1,
            self.snakemake_killed: 1,
        }
        own_ends, told = 0, time.monotonic()
        end = told + seconds
        while time.monotonic() < end:
            if time.monotonic() - told > 60:
                told = time.monotonic()
                print(f"{len(self.missing())} runs to go; {dict(self.faults)}", file=sys.stderr)
            try:
                self.call.wait(self.chance.expovariate(1 / every))
            except subprocess.TimeoutExpired:
                (fault,) = self.chance.choices(list(faults), list(faults.values()))
                if fault():
                    self.faults[fault.__name__] += 1
                continue
            own_ends += 1
            if not self.missing() or own_ends > calls:
                return
            self.call = self._start()
        self.call.send_signal(signal.SIGINT)
        self.call.wait()
        # those that it has been waiting for, of a call that was killed
        self.suite.amst("jobs", "--cancel")

    def _job(self) -> str:
        """The number of a running job of this folder; empty when there is none."""
        prefix = prefix_of(self.suite.work) + "_"
        jobs = [j["id"] for j in self.slurm.jobs("RUNNING") if j["name"].startswith(prefix)]
        return self.chance.choice(jobs) if jobs else ""

    def requeue(self) -> bool:
        """SLURM starts a job anew."""
        job = self._job()
        return bool(job) and not self.slurm("scontrol", "requeue", job, check=False)

    def cancel(self) -> bool:
        """Somebody cancels a job."""
        job = self._job()
        return bool(job) and not self.slurm("scancel", job, check=False)

    def kill_training(self) -> bool:
        """A training process is killed without warning, as for memory."""
        found = [
            process
            for process, words in processes_in(self.suite.work)
            if words[1:4] == ["-m", "amst", "train"]
        ]
        if not found:
            return False
        try:
            os.kill(self.chance.choice(found), signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    def node_down(self) -> bool:
        """A node fails with all its jobs, and comes back."""
        name = self.chance.choice(
            re.findall(r"NodeName=(\S+)", self.slurm("scontrol", "show", "nodes"))
        )
        node = ("scontrol", "update", f"nodename={name}")
        self.slurm(*node, "state=down", "reason=storm")
        time.sleep(3)
        self.slurm(*node, "state=resume", check=False)  # it may have come back by itself
        return True

    def controller_of_slurm_killed(self) -> bool:
        """SLURM does not answer for a while; what it has not saved, it forgets."""
        time.sleep(6)
        self.slurm.restart_controller(down_for=self.chance.uniform(1, 15))
        return True

    def snakemake_killed(self) -> bool:
        """The call itself is killed, and called again; it waits for the jobs that it finds."""
        self.call.kill()
        self.call.wait()
        self.call = self._start()
        return True


def trained_twice(suite: ClusterSuite, slurm: Slurm, run: str) -> bool:
    """Whether a run was trained again after it had been trained to its end.

    Its record is younger than the end of a job that SLURM calls completed; or its log, which holds
    all attempts, has an epoch after the line that ends a run.
    """
    jobs = set(suite.jobs_of("rule_train/" + run.replace("/", "_").replace("_seed", "_")))
    told = [end for end in slurm.completions() if end["JobId"] in jobs]
    ends = [
        datetime.fromisoformat(end["EndTime"]).timestamp()
        for end in told
        if end["JobState"] == "COMPLETED"
    ]
    finished = suite.record(run)["finished"]
    log = suite.file(f"logs/train/{run}.log").read_text()
    twice = bool(ends) and datetime.fromisoformat(finished).timestamp() > min(ends)
    twice |= ": epoch " in log.partition(": test accuracy ")[2]
    if twice:
        print(f"{run}: its record is of {finished}; its jobs:", file=sys.stderr)
        for end in told:
            values = [end[key] for key in ("JobId", "JobState", "StartTime", "EndTime")]
            print("  " + " ".join(values), file=sys.stderr)
        print(log, file=sys.stderr)
    return twice


def main() -> int:
    """Run it; 0 when nothing was lost and nothing doubled."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--jobs", type=int, default=1000, help="a multiple of ten")
    words.add_argument("--seed", type=int, default=0, help="of the faults")
    words.add_argument("--every", type=float, default=8, help="mean seconds between two faults")
    words.add_argument("--nodes", type=int, default=4)
    words.add_argument("--minutes", type=float, default=float("inf"), help="end it before")
    words.add_argument("--json", action="store_true")
    given = words.parse_args()
    if reason := missing("slurmctld", "SLURM"):
        print(reason, file=sys.stderr)
        return 1
    # killed, it still ends its cluster
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="amst-thousand-") as name:
        folder = Path(name)
        here = local_grid(folder / "here", grid(1))
        slurm = Slurm(folder / "slurm", nodes=given.nodes, gpus=1)
        try:
            suite = ClusterSuite.on(here, folder / "storm", slurm)
            values = grid(given.jobs // SEEDS)
            suite.configure(values)
            names = values["grid"]["methods"]
            runs = [f"digits/random/{v}/seed{seed}" for v in names for seed in range(SEEDS)]
            began = time.monotonic()
            targets = [f"results/runs/{run}/run.json" for run in runs]
            storm = Storm(suite, slurm, targets, random.Random(given.seed))
            storm.rage(given.every, calls=5, seconds=60 * given.minutes)
            seconds = time.monotonic() - began
            early = seconds > 60 * given.minutes
            until(lambda: not slurm.jobs("RUNNING,PENDING"), 120, "the last jobs")
            figures = {
                "jobs": len(runs),
                "done": len(runs) - len(storm.missing()),
                "submitted": sum(len(suite.jobs_of(f"rule_train/digits_random_{v}_{s}"))
                                 for v in names for s in range(SEEDS)),
                "minutes": round(seconds / 60, 1),
                "faults": dict(storm.faults),
                "calls": storm.calls,
                **verdict(suite, slurm, here, runs, early),
            }  # fmt: skip
        finally:
            slurm.down()
    if given.json:
        print(json.dumps(figures))
    else:
        for key, value in figures.items():
            print(f"{key:20} {value}")
    return 0 if not any(figures[key] for key in ("lost", "changed", "doubled")) else 1


def verdict(
    suite: ClusterSuite, slurm: Slurm, here: ClusterSuite, runs: list[str], early: bool
) -> dict[str, list[str]]:
    """Runs without a result, with other bytes than the undisturbed one, and trained twice.

    Ended early, none counts as lost: whoever calls again gets those that are missing.
    """
    whole, found = here.bytes_of_runs(), suite.bytes_of_runs()
    missed = [run for run in runs if not suite.file(f"results/runs/{run}/run.json").is_file()]
    changed = [
        name
        for name, content in found.items()
        if content != whole[re.sub(r"/v\d+/", "/v000/", name)]
    ]
    done = [run for run in runs if run not in missed]
    doubled = [run for run in done if trained_twice(suite, slurm, run)]
    return {"lost": [] if early else missed, "changed": changed, "doubled": doubled}


if __name__ == "__main__":
    sys.exit(main())
