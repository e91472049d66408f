"""What a run writes down while it trains: history, cost and TensorBoard events.

All of it comes from rows that live in the checkpoint, so a run that was killed has the same rows
as one that was not, and events are written anew from them when a run continues.
"""

import csv
import io
import resource
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from amst.files import write_text
from amst.records import COSTS, HISTORY

EVENTS = "events.out.tfevents"
"""How the names of event files begin; TensorBoard finds them by it."""


@dataclass(frozen=True)
class EpochRow:
    """One row of ``history.csv``: nothing in it depends on time or machine load.

    Attributes:
        epoch: counted from 0.
        active: modalities that this epoch trained, sorted.
        train_loss: mean over the samples of the loss that was trained on.
        train_accuracy: prediction -> accuracy on the augmented training batches, before each
            update; predictions of modalities that were not run are missing.
        val_loss: prediction -> mean cross-entropy on the validation part.
        val_accuracy: prediction -> accuracy on the validation part.
        scalars: the method's own numbers, by name.
    """

    epoch: int
    active: tuple[str, ...]
    train_loss: float
    train_accuracy: Mapping[str, float]
    val_loss: Mapping[str, float]
    val_accuracy: Mapping[str, float]
    scalars: Mapping[str, float] = field(default_factory=dict)

    def cells(self, predictions: Sequence[str], scalars: Sequence[str]) -> dict[str, Any]:
        """Column -> value; None where there is none."""
        named = {"epoch": self.epoch, "active": "+".join(self.active)}
        named["train_loss"] = self.train_loss
        for column in ("train_accuracy", "val_loss", "val_accuracy"):
            for name in predictions:
                named[f"{column}:{name}"] = getattr(self, column).get(name)
        return named | {f"method:{name}": self.scalars.get(name) for name in scalars}


@dataclass(frozen=True)
class CostRow:
    """One row of ``cost.csv``: seconds and bytes of one epoch.

    Attributes:
        train_seconds: training steps, without waiting for batches; on a CPU with whatever a thread
            that loads takes from them.
        validate_seconds: validation, without waiting for batches.
        load_seconds: waiting for batches of both; on a GPU the host's waiting, meanwhile the device
            may have steps left to do.
        peak_host_bytes: most memory that the process has held since it began.
        peak_device_bytes: most device memory that PyTorch has reserved for it; 0 on a CPU.
        finished: seconds since 1970 at the end of the epoch.
    """

    epoch: int
    train_seconds: float
    validate_seconds: float
    load_seconds: float
    peak_host_bytes: int
    peak_device_bytes: int
    finished: float

    @property
    def seconds(self) -> float:
        """Training, validation and waiting for batches."""
        return self.train_seconds + self.validate_seconds + self.load_seconds


def peak_host_bytes() -> int:
    """The most memory this process has held."""
    with suppress(OSError), Path("/proc/self/status").open(encoding="utf-8") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    # Where the system does not tell: this counts what a parent held when it made the process.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Recorder:
    """Rows of a run, and the files made of them.

    Attributes:
        history: one row per finished epoch.
        costs: the same for what an epoch cost.
    """

    def __init__(self) -> None:
        self.history: list[EpochRow] = []
        self.costs: list[CostRow] = []

    def state(self) -> dict[str, Any]:
        """Rows as plain containers, for a checkpoint."""
        return {
            "history": [asdict(row) for row in self.history],
            "costs": [asdict(row) for row in self.costs],
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The recorder that gave this state."""
        recorder = cls()
        recorder.history = [
            EpochRow(**{**row, "active": tuple(row["active"])}) for row in state["history"]
        ]
        recorder.costs = [CostRow(**row) for row in state["costs"]]
        return recorder

    @classmethod
    def from_tables(cls, folder: Path, ended: float) -> Self:
        """The recorder that wrote ``history.csv`` and ``cost.csv``.

        Args:
            folder: the run's folder.
            ended: seconds since 1970 at the run's end; the tables have no times of day, so those
                of the epochs are counted back from it.
        """
        recorder = cls()
        recorder.history = [_epoch_row(row) for row in _read(folder / HISTORY)]
        for row in reversed(_read(folder / COSTS)):
            cost = _cost_row(row, ended)
            recorder.costs.insert(0, cost)
            ended -= cost.seconds
        return recorder

    def write_tables(self, folder: Path) -> None:
        """Write ``history.csv`` and ``cost.csv``, each by rename."""
        predictions = self._predictions()
        scalars = sorted({name for row in self.history for name in row.scalars})
        rows = [row.cells(predictions, scalars) for row in self.history]
        write_text(folder / HISTORY, _csv(rows))
        columns = [each.name for each in fields(CostRow) if each.name != "finished"]
        costs = [{name: getattr(row, name) for name in columns} for row in self.costs]
        write_text(folder / COSTS, _csv(costs))

    def _predictions(self) -> list[str]:
        return sorted(self.history[0].val_accuracy) if self.history else []

    def events(self, folder: Path) -> "Events":
        """TensorBoard events of all rows so far, in a file of their own; rows can be added."""
        events = Events(folder)
        for row, cost in zip(self.history, self.costs, strict=True):
            events.add(row, cost)
        return events


def has_events(folder: Path) -> bool:
    """Whether a folder holds an event file."""
    return any(folder.glob(f"{EVENTS}.*"))


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _epoch_row(cells: Mapping[str, str]) -> EpochRow:
    """The row that gave these cells of ``history.csv``."""

    def named(column: str) -> dict[str, float]:
        parts = ((name.partition(":"), value) for name, value in cells.items() if value)
        return {name: float(value) for (head, _, name), value in parts if head == column}

    return EpochRow(
        epoch=int(cells["epoch"]),
        active=tuple(filter(None, cells["active"].split("+"))),
        train_loss=float(cells["train_loss"]),
        train_accuracy=named("train_accuracy"),
        val_loss=named("val_loss"),
        val_accuracy=named("val_accuracy"),
        scalars=named("method"),
    )


def _cost_row(cells: Mapping[str, str], finished: float) -> CostRow:
    """The row that gave these cells of ``cost.csv``."""
    whole = {name: int(cells[name]) for name in ("epoch", "peak_host_bytes", "peak_device_bytes")}
    seconds = {name: float(value) for name, value in cells.items() if name not in whole}
    return CostRow(finished=finished, **whole, **seconds)  # type: ignore[arg-type]


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV, floats in their shortest exact form, None as an empty cell."""
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue()


class Events:
    """A TensorBoard event file of scalars, one step per epoch.

    Written by TensorBoard's own record writer: ``torch.utils.tensorboard`` takes seconds to import
    and names files by time, and a run that continues would then show its steps twice.

    Args:
        folder: its event files, those of earlier attempts, are replaced.
    """

    def __init__(self, folder: Path) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]

        self._lost = False
        self._path = folder / f"{EVENTS}.0.amst"
        self._if_there(lambda: self._begin(folder, RecordWriter))
        self._write(0.0, 0, file_version="brain.Event:2")

    def _begin(self, folder: Path, writer: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob(f"{EVENTS}.*"):
            old.unlink(missing_ok=True)
        self._file = self._path.open("wb")
        self._writer = writer(self._file)

    def add(self, row: EpochRow, cost: CostRow) -> None:
        """Add an epoch."""
        from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]

        scalars = row.cells(sorted(row.val_accuracy), sorted(row.scalars))
        values = [
            Summary.Value(tag=name.replace(":", "/"), simple_value=value)
            for name, value in scalars.items()
            if name not in ("epoch", "active") and value is not None
        ]
        self._write(cost.finished, row.epoch, summary=Summary(value=values))
        self._if_there(lambda: self._writer.flush())

    def _write(self, time: float, step: int, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]

        event = Event(wall_time=time, step=step, **content)
        self._if_there(lambda: self._writer.write(event.SerializeToString()))

    def close(self) -> None:
        """Finish the file."""
        self._if_there(lambda: self._writer.close())

    def _if_there(self, write: Callable[[], object]) -> None:
        """No run fails for its event files: on NFS, one that is cleared away cannot be written."""
        if self._lost:
            return
        try:
            write()
        except OSError as error:
            self._lost = True
            with suppress(OSError):  # without a file, the run's end writes all of them anew
                self._path.unlink()
            print(f"no more events for TensorBoard: {error}", file=sys.stderr, flush=True)
