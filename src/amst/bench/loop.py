"""What the training loop costs: whole epochs against their bare steps on batches that lie ready."""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
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
from amst.training.progress import progress
from amst.training.signals import StopRequest


@dataclass(frozen=True)
class LoopCost:
    """Seconds of the same epochs.

    Attributes:
        loop: with loading, augmentation, checkpoints, events, lock and progress; median.
        bare: training steps and validation predictions on batches made before; median.
        ratio: how much longer the loop takes; the median of the turns' own ratios, which a machine
            that is faster in one turn than in the next does not move.
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
    """Train all epochs of a run and its bare steps in turns; the medians.

    Args:
        settings: of the run; its recipe says how many epochs.
        manifest: of the dataset.
        split: its split.
        execution: device and residency.
        rounds: turns, after one that warms up. Every second one begins with the bare steps.
    """

    def seconds(way: Callable[[Assembly], float]) -> float:
        return way(assemble_training(settings, manifest, split, execution))

    loops, bares = [], []
    for turn in range(rounds + 1):
        found = {way: seconds(way) for way in (_loop, _bare)[:: 1 if turn % 2 else -1]}
        if turn:
            loops.append(found[_loop])
            bares.append(found[_bare])
    ratios = [loop / bare for loop, bare in zip(loops, bares, strict=True)]
    return LoopCost(
        statistics.median(loops),
        statistics.median(bares),
        statistics.median(ratios),
        min(ratios),
        max(ratios),
    )


def _loop(run: Assembly) -> float:
    """Seconds of all epochs."""
    loop = TrainingLoop(
        run.method, run.loader, run.part("train"), run.part("val"), run.autocast(), None
    )
    with _surroundings(run, loop) as around:
        begin = time.perf_counter()
        loop.run(around)
        return time.perf_counter() - begin


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


def _bare(run: Assembly) -> float:
    """Seconds of their steps and predictions."""
    method, loader = run.method, run.loader
    train, val = run.part("train"), run.part("val")
    checked = list(loader.in_order(val))
    seconds = 0.0
    for epoch in range(run.settings.recipe.epochs):
        method.eval()
        with run.autocast():
            method.begin_epoch(epoch, EpochBatches(loader, train, val, epoch))
        active = method.active_modalities(epoch)
        batches = list(loader.training(train, epoch, active))
        wait(run.device)
        begin = time.perf_counter()
        method.train()
        for batch in batches:
            with run.autocast():
                method.train_step(batch, epoch)
        method.eval()
        for batch in checked:
            with torch.no_grad(), run.autocast():
                method.predict(batch)
        wait(run.device)
        seconds += time.perf_counter() - begin
        method.end_epoch()
    return seconds
