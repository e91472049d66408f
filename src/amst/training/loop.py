"""The training loop: epochs of batches, validation, selection, and a checkpoint whenever asked.

Between two batches the whole run is a value: ``state`` takes it, ``load_state`` puts it back, and
a run that goes on from there, on the same model of device, ends with the same bits.
"""

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from amst.errors import AmstError
from amst.loading.batch import Batch
from amst.loading.dataset import PartData
from amst.loading.loader import EpochBatches, Loader
from amst.methods.base import Method
from amst.training.checkpoint import CheckpointFolder
from amst.training.cost import EncoderUse, Stopwatch
from amst.training.environment import trained_on
from amst.training.lock import RunLock
from amst.training.progress import Progress
from amst.training.recorder import CostRow, EpochRow, Events, Recorder, peak_host_bytes
from amst.training.signals import StopRequest
from amst.training.tally import Tally


@dataclass(frozen=True)
class Selected:
    """The epoch that a fused prediction's validation accuracy has chosen so far."""

    epoch: int
    accuracy: float


@dataclass(frozen=True)
class Surroundings:
    """What a loop reports to and is stopped by.

    Attributes:
        checkpoints: where states are saved.
        lock: the run's lock, checked before each save.
        stop: requests to stop.
        progress: what the user sees.
        events: TensorBoard events, one row per epoch.
    """

    checkpoints: CheckpointFolder
    lock: RunLock
    stop: StopRequest
    progress: Progress
    events: Events


class TrainingLoop:
    """Trains a method on the training part, selecting by the validation part.

    It is never given the test part.

    Attributes:
        epoch: the epoch at work, counted from 0.
        batch: training batches of it that are done.
        selected: fused prediction -> its best epoch so far, the first of several that tie.
        recorder: rows of the finished epochs.
        train_part: the part that it trains on.
        validation_part: the part that selects.
        use: what the encoders have run.
        devices: what has trained it, by ``trained_on``, the present one last.
    """

    def __init__(
        self,
        method: Method[Any],
        loader: Loader,
        train: PartData,
        val: PartData,
        autocast: AbstractContextManager[Any],
        state: Mapping[str, Any] | None,
        together: int = 0,
    ) -> None:
        self.method, self.loader = method, loader
        self.train_part, self.validation_part = train, val
        self._epochs = method.problem.recipe.epochs
        self._autocast = autocast
        self.epoch, self.batch = 0, 0
        self.selected: dict[str, Selected] = {}
        self.recorder = Recorder()
        self._weights: dict[int, str] = {}
        self._tally, self._watch = Tally(), Stopwatch()
        self.use = EncoderUse(method, state["use"] if state else None)
        self.devices: list[str] = [*state["devices"]] if state else []
        name = trained_on(loader.device, method.captured, together)
        if self.devices[-1:] != [name]:
            self.devices.append(name)
        if state:
            self._load_state(state)

    def run(self, around: Surroundings) -> None:
        """Train to the last epoch.

        Raises:
            StoppedError: a stop was asked for; the state is saved.
            AmstError: a loss is no longer a finite number.
        """
        while self.epoch < self._epochs:
            self._train_epoch(around)
            validation = self._validate(around)
            row = self._end_epoch(validation)
            self._select(row, around)
            self._tell(row)  # after the weights that were validated are kept: it may change them
            self._record(row, around)
            self._save(around)
            self._leave_if_asked(around)

    def _train_epoch(self, around: Surroundings) -> None:
        epoch = self.epoch
        self._watch.switch("train")
        self.use.counting = True
        if self.batch == 0:
            source = EpochBatches(self.loader, self.train_part, self.validation_part, epoch)
            self.method.eval()
            with self._autocast:
                self.method.begin_epoch(epoch, source)
        self.method.train()
        active = self.method.active_modalities(epoch)
        batches = self.loader.training(self.train_part, epoch, active, start=self.batch)
        for batch in self._timed(batches, "train"):
            with self._autocast:
                result = self.method.train_step(batch, epoch)
            self._tally.add(result.logits, batch.labels, result.loss)
            self.batch += 1
            around.progress.batch(epoch, self.batch, self.loader.batches_of(self.train_part))
            self._leave_if_asked(around)
        if self.loader.device.type == "cuda":
            torch.cuda.synchronize(self.loader.device)  # what is left to do is training
        self.use.counting = False

    def _validate(self, around: Surroundings) -> Tally:
        """Go through the validation part. When stopped, it is gone through again from its start."""
        self.method.eval()
        tally = Tally()
        for batch in self._timed(self.loader.in_order(self.validation_part), "validate"):
            with torch.no_grad(), self._autocast:
                logits = self.method.predict(batch)
            tally.add(logits, batch.labels)
            self._leave_if_asked(around)
        return tally

    def _end_epoch(self, validation: Tally) -> EpochRow:
        """Read the sums of the epoch."""
        self._watch.switch("validate")
        row = EpochRow(
            epoch=self.epoch,
            active=tuple(sorted(self.method.trained_modalities(self.epoch))),
            train_loss=self._tally.loss(),
            train_accuracy=self._tally.accuracies(),
            val_loss=validation.cross_entropies(),
            val_accuracy=validation.accuracies(),
            scalars={name: float(value) for name, value in self.method.scalars().items()},
        )
        _check_finite(row)
        self._watch.switch("")
        return row

    def _tell(self, row: EpochRow) -> None:
        """Tell the method what its epoch gave."""
        self._watch.switch("validate")
        self.method.end_epoch()
        self.method.see_losses(row.train_loss, row.val_loss)
        self.method.end_validation(row.val_accuracy)
        self._watch.switch("")

    def _select(self, row: EpochRow, around: Surroundings) -> None:
        """Keep the weights where a fused prediction has its best validation accuracy so far."""
        better = [
            name
            for name in self.method.fused_predictions
            if name not in self.selected or row.val_accuracy[name] > self.selected[name].accuracy
        ]
        if better:
            around.lock.check()
            digest = around.checkpoints.save_weights(row.epoch, self.method.weights())
            self._weights[row.epoch] = digest
        for name in better:
            self.selected[name] = Selected(row.epoch, row.val_accuracy[name])
        chosen = {selected.epoch for selected in self.selected.values()}
        self._weights = {epoch: self._weights[epoch] for epoch in sorted(chosen)}

    def _record(self, row: EpochRow, around: Surroundings) -> None:
        device = self.loader.device
        seconds = self._watch.seconds
        cost = CostRow(
            epoch=row.epoch,
            train_seconds=seconds["train"],
            validate_seconds=seconds["validate"],
            load_seconds=seconds["load"],
            peak_host_bytes=peak_host_bytes(),
            peak_device_bytes=torch.cuda.max_memory_reserved() if device.type == "cuda" else 0,
            finished=time.time(),
        )
        self.recorder.history.append(row)
        self.recorder.costs.append(cost)
        around.events.add(row, cost)
        around.progress.finished(row, cost)
        self.epoch, self.batch = self.epoch + 1, 0
        self._tally, self._watch = Tally(), Stopwatch()

    def _timed(self, batches: Iterable[Batch], phase: str) -> Iterator[Batch]:
        """The batches; the time until each is there counts as loading, the rest as ``phase``."""
        iterator = iter(batches)
        while True:
            self._watch.switch("load")
            batch = next(iterator, None)
            self._watch.switch(phase)
            if batch is None:
                return
            yield batch

    def _leave_if_asked(self, around: Surroundings) -> None:
        if not around.stop:
            return
        if self.batch:  # at an epoch's end the state has just been saved
            self._save(around)
        around.lock.release()
        around.stop.leave(f"saved in epoch {self.epoch + 1} after {self.batch} batches")

    def _save(self, around: Surroundings) -> None:
        self._watch.switch("")
        around.lock.check()
        around.checkpoints.save(self.epoch, self.batch, self.state())

    def state(self) -> dict[str, Any]:
        """All that has state, as plain containers and tensors."""
        selected = {name: (each.epoch, each.accuracy) for name, each in self.selected.items()}
        return {
            "epoch": self.epoch,
            "batch": self.batch,
            "method": self.method.state_dict(),
            "tally": self._tally.state(),
            "seconds": dict(self._watch.seconds),
            "selected": selected,
            "weights": dict(self._weights),
            "use": self.use.state(),
            "random": _random_state(),
            "devices": [*self.devices],
            **self.recorder.state(),
        }

    def _load_state(self, state: Mapping[str, Any]) -> None:
        self.epoch, self.batch = state["epoch"], state["batch"]
        self.method.load_state_dict(state["method"])
        self._tally = Tally.from_state(state["tally"], self.loader.device)
        self._watch = Stopwatch(state["seconds"])
        self.selected = {name: Selected(*each) for name, each in state["selected"].items()}
        self._weights = dict(state["weights"])
        self.recorder = Recorder.from_state(state)
        _set_random_state(state["random"])


def _random_state() -> dict[str, Any]:
    """Global generators. Nothing of ours draws from them; a library might."""
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def _set_random_state(state: Mapping[str, Any]) -> None:
    torch.set_rng_state(state["cpu"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def _check_finite(row: EpochRow) -> None:
    losses = {"train_loss": row.train_loss}
    losses |= {f"val_loss:{name}": value for name, value in row.val_loss.items()}
    for name, value in losses.items():
        if not math.isfinite(value):
            raise AmstError(
                f"{name} is {value} in epoch {row.epoch + 1}: the training diverged",
                "Lower the learning rate (recipe.learning_rate, or the method's own), or use "
                "precision fp32 if it is bf16",
            )
