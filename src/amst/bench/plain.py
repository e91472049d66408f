"""The yardstick under measurement: its loaders, and its training with the steps of a method."""

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from amst.bench.device import wait
from amst.bench.ours import Ours
from amst.bench.speeds import PlainRate
from amst.bench.yardstick import (
    FRAMES,
    Clips,
    PlainTraining,
    on_device,
    pictures_of,
    random_batches,
)
from amst.errors import AmstError


class PlainFiles:
    """The yardstick's loaders of clips, and of pictures as torchvision loads them.

    Args:
        ours: says the side of the pictures, the batch size and the device.
        raw: raw folder in CREMA-D's layout.
        workers: processes of a loader.
        epoch: batches of an epoch.
    """

    def __init__(self, ours: Ours, raw: Path, workers: int, epoch: int) -> None:
        settings, self.device = ours.assembly.settings, ours.device
        crop = next((m.crop for m in settings.modalities.values() if m.crop), 224)
        size = settings.recipe.batch_size
        pin = self.device.type == "cuda"

        def loader(sound: bool) -> DataLoader[Any]:
            return random_batches(Clips(raw, crop, sound), size, workers, pin, epoch)

        self._clips, self._silent = loader(sound=True), loader(sound=False)
        pictures = pictures_of(Clips(raw, crop), crop)
        self._pictures = random_batches(pictures, size * FRAMES, workers, pin, epoch)
        for batches in (self._clips, self._silent, self._pictures):
            next(iter(batches))  # starts their workers, which stay

    def __iter__(self) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]:
        """An epoch of batches on the device."""
        return on_device(self._clips, self.device)

    def rates(self) -> tuple[float, float, float]:
        """Clips per second of an epoch: of clips, of their pictures, and as torchvision does it."""
        pictures = _loader_rate(self._pictures) / FRAMES
        return _loader_rate(self._clips), _loader_rate(self._silent), pictures


def _loader_rate(batches: DataLoader[Any]) -> float:
    """Samples per second of a loader alone."""
    begin = time.perf_counter()
    samples = sum(len(batch[-1]) for batch in batches)
    return samples / (time.perf_counter() - begin)


class Plain:
    """The yardstick on the same clips, with the steps that belong to a method."""

    def __init__(self, ours: Ours, files: PlainFiles) -> None:
        settings, self.device = ours.assembly.settings, ours.device
        names, loops, self._schedule = ours.plain_key
        if set(names) - {"audio", "visual"}:
            raise AmstError(
                f"the yardstick has no {'+'.join(sorted(set(names) - {'audio', 'visual'}))}",
                "Measure it on CREMAD",
            )
        classes = len(ours.assembly.store.manifest.classes)
        self._files = files
        self._training = PlainTraining(loops, names, classes, settings.recipe, self.device)
        self._ready = next(iter(files))
        self._found: list[tuple[float, float]] = []

    def measure(self, batches: int) -> None:
        """Take the time of the epochs of a cycle and of their steps alone once."""
        self._found.append((self._over_cycle(self._seconds), self.cycle_step_seconds(batches)))

    def cycle_step_seconds(self, batches: int) -> float:
        """Seconds per clip of so many steps alone, on a batch that lies ready, over a cycle."""
        return self._over_cycle(lambda trained: self._step_seconds(trained, batches))

    def _over_cycle(self, seconds: Callable[[tuple[str, ...]], float]) -> float:
        each = [(seconds(trained) * count, count) for trained, count in self._schedule]
        return sum(time for time, _ in each) / sum(count for _, count in each)

    def rate(self) -> PlainRate:
        """Medians of what was measured."""
        return PlainRate(*(1 / statistics.median(t) for t in zip(*self._found, strict=True)))

    def latest(self) -> float:
        """Samples per second of the last turn, from files to weights."""
        return 1 / self._found[-1][0]

    def _seconds(self, trained: tuple[str, ...]) -> float:
        """Seconds per clip of an epoch, from files to weights."""
        _released_arithmetic()
        begin, done = time.perf_counter(), 0
        for inputs, labels in self._files:
            self._training.step(inputs, labels, trained)
            done += len(labels)
        return (time.perf_counter() - begin) / done

    def _step_seconds(self, trained: tuple[str, ...], batches: int) -> float:
        inputs, labels = self._ready
        _released_arithmetic()
        wait(self.device)
        begin = time.perf_counter()
        for _ in range(batches):
            self._training.step(inputs, labels, trained)
        return (time.perf_counter() - begin) / (batches * len(labels))


def _released_arithmetic() -> None:
    """What PyTorch does unless told otherwise, as the released code leaves it."""
    torch.set_deterministic_debug_mode("default")
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cuda.matmul.allow_tf32 = False
