"""What a user sees of a run: a bar on a terminal, a line per epoch in a log file."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from amst.training.recorder import CostRow, EpochRow

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID


class Progress:
    """Lines on standard error.

    Args:
        run: the run's name.
        epochs: how many it trains.
        main: the prediction whose accuracy is shown.
    """

    def __init__(self, run: str, epochs: int, main: str) -> None:
        self._run, self._epochs, self._main = run, epochs, main
        self._best = (0.0, -1)
        self._news = ""

    def say(self, text: str) -> None:
        """One line about the run."""
        print(f"{self._run}: {text}", file=sys.stderr, flush=True)

    @property
    def news(self) -> str:
        """Loss and accuracy of the last finished epoch."""
        return self._news

    def batch(self, epoch: int, done: int, batches: int) -> None:
        """So many batches of an epoch are done."""

    def finished(self, row: EpochRow, cost: CostRow) -> None:
        """An epoch is done."""
        self.note(row)
        self.say(f"epoch {row.epoch + 1}/{self._epochs}  {self._news}  {cost.seconds:.1f} s")

    def note(self, row: EpochRow) -> None:
        """Take notice of an epoch that is done, without a line."""
        accuracy = row.val_accuracy[self._main]
        if self._best[1] < 0 or accuracy > self._best[0]:
            self._best = (accuracy, row.epoch)
        self._news = (
            f"loss {row.train_loss:.4f}  validation {accuracy:.1%}  "
            f"best {self._best[0]:.1%} (epoch {self._best[1] + 1})"
        )


class BarProgress(Progress):
    """A bar with loss, accuracy and remaining time.

    Loss and accuracy are those of the last epoch: reading them earlier would make the host wait
    for the device.
    """

    def __init__(self, run: str, epochs: int, main: str, bar: "Bar") -> None:
        super().__init__(run, epochs, main)
        self._bar = bar
        self._task: TaskID | None = None

    def say(self, text: str) -> None:
        """One line above the bar."""
        self._bar.console.print(f"{self._run}: {text}", highlight=False, markup=False)

    def batch(self, epoch: int, done: int, batches: int) -> None:
        """Move the bar."""
        if self._task is None:
            self._task = self._bar.add_task("", total=self._epochs * batches)
            # Batches of earlier attempts say nothing about the speed of this one.
            self._bar.reset(self._task, completed=epoch * batches + done)
        self._bar.update(
            self._task,
            completed=epoch * batches + done,
            description=f"epoch {epoch + 1}/{self._epochs} {self.news}",
        )

    def finished(self, row: EpochRow, cost: CostRow) -> None:
        """Show the epoch's figures beside the bar."""
        self.note(row)


@contextmanager
def progress(run: str, epochs: int, main: str) -> Iterator[Progress]:
    """A bar if standard error is a terminal, else lines."""
    if not sys.stderr.isatty():
        yield Progress(run, epochs, main)
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True)) as bar:
        yield BarProgress(run, epochs, main, bar)
