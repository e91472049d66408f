"""Several runs on one device at once: do they get more done than one alone?"""

import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import count
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path
from threading import BrokenBarrierError

from amst.bench.device import device_name, wait
from amst.config.run import RunSettings
from amst.loading.loader import EpochBatches
from amst.training.assembly import assemble_training
from amst.training.execution import Execution

_WARM_UP = 3  # batches before the measurement


@dataclass(frozen=True)
class Together:
    """Throughput of equal runs that train at once.

    Attributes:
        device: what they share.
        rates: runs at once -> samples per second of all of them.
    """

    device: str
    rates: dict[int, float]

    def lines(self) -> list[str]:
        """A line for each number of runs."""
        alone = self.rates[min(self.rates)]
        return [f"{self.device}", "runs at once   samples per second   to one alone"] + [
            f"{runs:12d}   {rate:18.1f}   {rate / alone:12.2f}" for runs, rate in self.rates.items()
        ]


_barrier: Barrier | None = None


def _share(barrier: Barrier) -> None:
    global _barrier
    _barrier = barrier


def measure_together(
    settings: RunSettings,
    manifest: Path,
    split: Path,
    execution: Execution,
    counts: list[int],
    seconds: float,
) -> Together:
    """Train equal runs at once, for so many seconds each time.

    Args:
        settings: of each run.
        manifest: of the dataset.
        split: its split.
        execution: whether passes are captured.
        counts: how many at once.
        seconds: length of one measurement.
    """
    context, rates, name = get_context("spawn"), {}, ""
    for runs in counts:
        barrier = context.Barrier(runs)
        with ProcessPoolExecutor(runs, context, initializer=_share, initargs=(barrier,)) as pool:
            given = settings, manifest, split, execution, seconds
            jobs = [pool.submit(_train, *given) for _ in range(runs)]
            errors = [error for job in jobs if (error := job.exception())]
            for error in errors:
                if not isinstance(error, BrokenBarrierError):  # which others' waiting ended with
                    raise error
            found = [job.result() for job in jobs]
        rates[runs] = sum(rate for rate, _ in found)
        name = found[0][1]
    return Together(name, rates)


def _train(
    settings: RunSettings, manifest: Path, split: Path, execution: Execution, seconds: float
) -> tuple[float, str]:
    """Samples per second of one of the runs, and its device; they begin together.

    One that fails before ends the waiting of the others.
    """
    assert _barrier is not None
    try:
        return _rate(settings, manifest, split, execution, seconds, _barrier)
    except Exception:
        _barrier.abort()
        raise


def _rate(
    settings: RunSettings,
    manifest: Path,
    split: Path,
    execution: Execution,
    seconds: float,
    barrier: Barrier,
) -> tuple[float, str]:
    run = assemble_training(settings, manifest, split, execution)
    part, val, samples, begin = run.part("train"), run.part("val"), 0, 0.0
    steps = 0
    for epoch in count():
        run.method.eval()
        with run.autocast():
            run.method.begin_epoch(epoch, EpochBatches(run.loader, part, val, epoch))
        run.method.train()
        batches = run.loader.training(part, epoch, run.method.active_modalities(epoch))
        for batch in batches:
            if steps == _WARM_UP:
                wait(run.device)
                barrier.wait()
                begin = time.perf_counter()
            with run.autocast():
                run.method.train_step(batch, epoch)
            steps += 1
            samples += batch.size if begin else 0
            if begin and time.perf_counter() - begin > seconds:
                wait(run.device)
                return samples / (time.perf_counter() - begin), device_name(run.device)
    raise AssertionError("epochs do not end")
