"""Parts to batches on the device, in an order that can be started anywhere."""

import os
import queue
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from amst.config.run import Augmentation, Modality
from amst.loading import buffers
from amst.loading.augment import Crops, cut, draw_crops, whole
from amst.loading.batch import Batch, TextTokens
from amst.loading.dataset import PartData, Resident
from amst.randomness import stream_seed

EVALUATION_BATCH = 128
"""Samples per batch where no gradient is needed. Last digits of logits depend on it."""
_PREFETCHED = 2  # batches that a thread has ready while it makes the next one


@dataclass(frozen=True)
class Loader:
    """Makes batches of a run.

    Attributes:
        modalities: modality name -> settings.
        seed: the run's seed; order and crops come from its streams 'order' and 'augmentation'.
        batch_size: samples of a training batch; the last one of an epoch may be smaller.
        device: where the batches are wanted.
        precision: in which pictures are interpolated on a GPU.
    """

    modalities: Mapping[str, Modality]
    seed: int
    batch_size: int
    device: torch.device
    precision: torch.dtype = torch.float32

    def batches_of(self, part: PartData) -> int:
        """Training batches in an epoch."""
        return -(-len(part) // self.batch_size)

    def training(
        self, part: PartData, epoch: int, active: Collection[str], start: int = 0
    ) -> Iterator[Batch]:
        """Augmented batches of an epoch.

        Args:
            part: the part to go through.
            epoch: counted from 0; chooses order and crops.
            active: modalities to load; the others cost nothing.
            start: batch to begin with, for an epoch that is resumed.
        """
        batches = self._shuffle(part, "order", epoch)[start:]
        crops = self._random(part, active, "augmentation", epoch)
        return self._load(part, batches, active, crops)

    def shuffled(
        self,
        part: PartData,
        stream: str,
        epoch: int,
        *,
        augmented: bool = False,
        count: int | None = None,
    ) -> Iterator[Batch]:
        """The training batches in the order of ``stream``, or the first ``count`` of them.

        With crops of that stream if augmented, else under the evaluation transform.
        """
        batches = self._shuffle(part, stream, epoch)[:count]
        crops = (
            self._random(part, self.modalities, f"augmentation of {stream}", epoch)
            if augmented
            else self._whole(part)
        )
        return self._load(part, batches, self.modalities, crops)

    def in_order(self, part: PartData, count: int | None = None) -> Iterator[Batch]:
        """Batches of ``EVALUATION_BATCH`` in the part's order, under the evaluation transform.

        All of them, or only the first ``count``.
        """
        batches = torch.arange(len(part)).split(EVALUATION_BATCH)[:count]
        return self._load(part, batches, self.modalities, self._whole(part))

    def _shuffle(self, part: PartData, stream: str, epoch: int) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(stream_seed(self.seed, stream, epoch))
        return torch.randperm(len(part), generator=generator).split(self.batch_size)

    def _random(
        self, part: PartData, names: Collection[str], stream: str, epoch: int
    ) -> dict[str, Crops]:
        return {
            name: self._draw(part, name, stream, epoch).to(self.device)
            for name in sorted(names)
            if self.modalities[name].kind == "visual"
        }

    def _draw(self, part: PartData, name: str, stream: str, epoch: int) -> Crops:
        features = self.modalities[name].features
        assert features.kind == "visual"
        seed = stream_seed(self.seed, stream, name, epoch)
        return draw_crops(
            part.sizes[name],
            features.frames,
            features.size,
            self.modalities[name].augmentation or Augmentation(),
            torch.Generator().manual_seed(seed),
        )

    def _whole(self, part: PartData) -> dict[str, Crops]:
        crops = {}
        for name, modality in self.modalities.items():
            if modality.features.kind == "visual":
                square = whole(len(part), modality.features.frames, modality.features.size)
                crops[name] = square.to(self.device)
        return crops

    def _load(
        self,
        part: PartData,
        batches: tuple[Tensor, ...],
        active: Collection[str],
        crops: Mapping[str, Crops],
    ) -> Iterator[Batch]:
        made = (self._batch(part, at, active, crops) for at in batches)
        return ahead(made) if self.works_ahead(part, active) else made

    def works_ahead(self, part: PartData, active: Collection[str]) -> bool:
        """Whether a thread makes the batches of these modalities: where the host would wait."""
        if _on_device(part):
            return False
        from_disk = any(not isinstance(part.inputs[name], Resident) for name in active)
        return from_disk or self.device.type == "cuda" or spare_core()

    def _batch(
        self,
        part: PartData,
        positions: Tensor,
        active: Collection[str],
        crops: Mapping[str, Crops],
    ) -> Batch:
        there = positions.to(self.device, non_blocking=True)
        stored_at = there if _on_device(part) else positions
        inputs: dict[str, Tensor | TextTokens] = {}
        for name in sorted(active):
            columns = part.inputs[name].take(stored_at)
            columns = {key: self._move(column) for key, column in columns.items()}
            boxes = crops[name][there] if name in crops else None
            inputs[name] = self._input(name, columns, boxes)
        return Batch(self._move(part.labels[positions]), inputs, there)

    def _move(self, column: Tensor) -> Tensor:
        if self.device.type == "cpu" or column.is_cuda:
            return column
        # From pinned memory the copy does not make the host wait.
        return column.pin_memory().to(self.device, non_blocking=True)

    def _input(
        self, name: str, columns: Mapping[str, Tensor], crops: Crops | None
    ) -> Tensor | TextTokens:
        modality = self.modalities[name]
        if modality.kind == "text":
            return TextTokens(columns["ids"].long(), columns["mask"].bool())
        if crops is None:
            stored = columns["features"][:, None]
            if stored.is_cuda or stored.dtype == torch.float32:
                return stored.float()
            return buffers.empty(tuple(stored.shape)).copy_(stored)
        assert modality.crop is not None
        pictures = columns["features"]
        precision = self.precision if pictures.is_cuda else torch.float32
        return cut(pictures, crops, modality.crop, precision)


@dataclass(frozen=True)
class EpochBatches:
    """The batches of one epoch as a method may see them (``amst.methods.base.BatchSource``)."""

    loader: Loader
    train: PartData
    val: PartData
    epoch: int

    def __len__(self) -> int:
        return self.loader.batches_of(self.train)

    @property
    def samples(self) -> int:
        """Number of training samples: a batch's positions are below it."""
        return len(self.train)

    def shuffled(
        self, stream: str, *, augmented: bool = False, count: int | None = None
    ) -> Iterator[Batch]:
        """The training batches, or the first ``count``, in an order of the random stream."""
        return self.loader.shuffled(
            self.train, stream, self.epoch, augmented=augmented, count=count
        )

    def validation_batches(self) -> int:
        """Number of validation batches."""
        return -(-len(self.val) // EVALUATION_BATCH)

    def validation(self, count: int | None = None) -> Iterator[Batch]:
        """The batches of the validation part, or the first ``count``, in order."""
        return self.loader.in_order(self.val, count)


def _on_device(part: PartData) -> bool:
    return any(
        column.is_cuda
        for stored in part.inputs.values()
        if isinstance(stored, Resident)
        for column in stored.columns.values()
    )


def spare_core() -> bool:
    """Whether this process may use more cores than a step on a CPU has arithmetic threads."""
    return len(os.sched_getaffinity(0)) > torch.get_num_threads()


def ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The same batches, made by a thread, two of them ahead; its errors are raised here.

    Of a third one it has the memory, too: it makes it, or waits with it for room.
    """
    made: queue.Queue[Any] = queue.Queue(_PREFETCHED)
    left = threading.Event()

    def wanted() -> bool:
        # Who ends with an error may have left this generator open.
        return not left.is_set() and threading.main_thread().is_alive()

    def hand_over(item: Batch | BaseException | None) -> None:
        while wanted():
            try:
                made.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def work() -> None:
        try:
            for batch in batches:
                hand_over(batch)
                if not wanted():
                    return
            hand_over(None)
        except BaseException as error:
            hand_over(error)

    # The interpreter waits for it at its end: cut off in an operation of PyTorch's, as a daemon is,
    # it would abort the process.
    thread = threading.Thread(target=work)
    thread.start()
    try:
        while (item := made.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        left.set()
        with suppress(queue.Empty):  # it may be waiting for room
            while True:
                made.get_nowait()
        thread.join()
