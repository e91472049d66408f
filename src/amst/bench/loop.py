"""What the training loop costs: whole epochs against their bare steps on batches that lie ready."""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from amst.bench.device import wait
from amst.config.run import RunSettings
from amst.loading.loader import EpochBatches
from amst.training.assembly import Assembly, assemble_training
from amst.training.checkpoint import CheckpointFolder
from amst.training.execution import Execution
from amst.training.lock import RunLock
from amst.training.loop import Surroundings, TrainingLoop
from amst.training.progress import Progress, progress
from amst.training.recorder import CostRow, EpochRow
from amst.training.signals import StopRequest


@dataclass(frozen=True)
class LoopCost:
    """Seconds of the same epochs.

    Attributes:
        loop: with loading, augmentation, checkpoints, events, lock and progress; median.
        bare: training steps and validation predictions on batches made before; median.
        ratio: how much longer the loop takes; the median of the runs' own ratios, which a machine
            that is faster in one run than in the next does not move.
        least: the smallest of them.
        most: the largest of them.
    """

    loop: float
    bare: float
    ratio: float
    least: float
    most: float

    def lines(self) -> list[str]:
        """One line."""
        return [
            f"all epochs by the loop: {self.loop:.2f} s, their bare steps and predictions: "
            f"{self.bare:.2f} s, ratio {self.ratio:.3f} ({self.least:.3f} to {self.most:.3f})"
        ]


def measure_loop(
    settings: RunSettings, manifest: Path, split: Path, execution: Execution, rounds: int
) -> LoopCost:
    """Train all epochs of a run, each of them followed by its bare steps; the medians.

    A machine's speed changes within seconds when others use it, so the two take turns in every
    epoch, each with a model of its own.

    Args:
        settings: of the run; its recipe says how many epochs.
        manifest: of the dataset.
        split: its split.
        execution: device and residency.
        rounds: whole runs, after one that warms up.
    """
    loops, bares = [], []
    for turn in range(rounds + 1):
        loop, bare = _both(
            assemble_training(settings, manifest, split, execution),
            assemble_training(settings, manifest, split, execution),
        )
        if turn:
            loops.append(loop)
            bares.append(bare)
    ratios = [loop / bare for loop, bare in zip(loops, bares, strict=True)]
    return LoopCost(
        statistics.median(loops),
        statistics.median(bares),
        statistics.median(ratios),
        min(ratios),
        max(ratios),
    )


class _Between(Progress):
    """What a run shows, and something else to do when an epoch has been shown.

    Args:
        shown: what the user sees.
        other: called with the epoch that is done.
    """

    def __init__(self, shown: Progress, other: Callable[[int], None]) -> None:
        self._shown, self._other = shown, other
        self.seconds = 0.0
        """What ``other`` has taken."""

    def say(self, text: str) -> None:
        """Hand it on."""
        self._shown.say(text)

    def batch(self, epoch: int, done: int, batches: int) -> None:
        """Hand it on."""
        self._shown.batch(epoch, done, batches)

    def finished(self, row: EpochRow, cost: CostRow) -> None:
        """Hand it on, then do the other thing."""
        self._shown.finished(row, cost)
        begin = time.perf_counter()
        self._other(row.epoch)
        self.seconds += time.perf_counter() - begin


def _both(run: Assembly, bare: Assembly) -> tuple[float, float]:
    """Seconds of all epochs by the loop, and of their bare steps."""
    loop = TrainingLoop(
        run.method, run.loader, run.part("train"), run.part("val"), run.autocast(), None
    )
    steps = _BareSteps(bare)
    with _surroundings(run, loop) as around:
        between = _Between(around.progress, steps.epoch)
        begin = time.perf_counter()
        loop.run(replace(around, progress=between))
        return time.perf_counter() - begin - between.seconds, steps.seconds


@contextmanager
def _surroundings(run: Assembly, loop: TrainingLoop) -> Iterator[Surroundings]:
    """What a run really reports to, in a temporary folder."""
    stop, settings = StopRequest(), run.settings
    with (
        tempfile.TemporaryDirectory() as name,
        RunLock(Path(name, "lock"), 0, 120, stop) as lock,
        closing(loop.recorder.events(Path(name, "tensorboard"))) as events,
        progress(settings.run_id, settings.recipe.epochs, run.method.main_prediction) as shown,
    ):
        yield Surroundings(CheckpointFolder(Path(name, "states")), lock, stop, shown, events)


class _BareSteps:
    """The steps and predictions of a run's epochs, on batches that were made before.

    Attributes:
        seconds: what they have taken; making the batches is not in it.
    """

    def __init__(self, run: Assembly) -> None:
        self._run = run
        self._train, self._val = run.part("train"), run.part("val")
        self._checked = list(run.loader.in_order(self._val))
        self.seconds = 0.0

    def epoch(self, epoch: int) -> None:
        """Train and predict one epoch."""
        run, method, loader = self._run, self._run.method, self._run.loader
        method.eval()
        with run.autocast():
            method.begin_epoch(epoch, EpochBatches(loader, self._train, self._val, epoch))
        active = method.active_modalities(epoch)
        batches = list(loader.training(self._train, epoch, active))
        wait(run.device)
        begin = time.perf_counter()
        method.train()
        for batch in batches:
            with run.autocast():
                method.train_step(batch, epoch)
        method.eval()
        for batch in self._checked:
            with torch.no_grad(), run.autocast():
                method.predict(batch)
        wait(run.device)
        self.seconds += time.perf_counter() - begin
        method.end_epoch()
