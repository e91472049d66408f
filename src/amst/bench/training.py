"""Training against a yardstick that does what the released pipeline does, in one run.

All that is compared takes turns, round by round, in one process on one device; medians are given.
Epochs of AMST differ by the modalities that they train, so each kind of epoch is measured, and a
rate is that of a whole cycle of the skip schedule.
"""

import statistics
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from math import lcm
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from amst.bench.yardstick import (
    FRAMES,
    Clips,
    PlainTraining,
    clip_loader,
    on_device,
    picture_loader,
)
from amst.config.run import RunSettings
from amst.errors import AmstError
from amst.loading import loader as loading
from amst.loading.batch import Batch
from amst.loading.dataset import PartData
from amst.loading.loader import EpochBatches
from amst.models.network import Network
from amst.training.assembly import Assembly, assemble
from amst.training.cost import Stopwatch
from amst.training.execution import Execution
from amst.training.operations import OperationCounter
from amst.training.tally import Tally

PHASES = ("load", "augment", "forward", "backward", "step", "rest")


@dataclass(frozen=True)
class Peak:
    """What this device does at best in large matrix products and copies.

    Attributes:
        product: floating-point operations per second of a matrix product.
        copy: bytes per second read and written by a copy.
    """

    product: float
    copy: float


@dataclass(frozen=True)
class Speed:
    """How fast a method trains; every rate is of samples per second.

    Attributes:
        device: its name.
        method: variant that was trained.
        samples: from features in their residency to the updated weights.
        steps: the same without loading and augmentation, on one batch that lies ready.
        seconds: phase -> seconds per sample, measured apart, waiting for the device after each.
        operations: per sample, of encoders and heads.
        peak: of the device.
        yardstick: rate of the yardstick from files to weights; None if it was not run.
        yardstick_steps: rate of the yardstick without its loader.
        yardstick_workers: processes of its loader.
        yardstick_loader: rate of its loader alone.
        torchvision_loader: rate of torchvision's own dataset on the same JPEG files, as clips.
        skipped_to_absent: time of an epoch that skips modalities, by those of the same method on
            a dataset without them: '+'-joined names of the skipped ones -> ratio.
    """

    device: str
    method: str
    samples: float
    steps: float
    seconds: Mapping[str, float]
    operations: float
    peak: Peak
    yardstick: float | None
    yardstick_steps: float | None
    yardstick_workers: int
    yardstick_loader: float | None
    torchvision_loader: float | None
    skipped_to_absent: Mapping[str, float]

    @property
    def share_of_peak(self) -> float:
        """Operations per second while training, by those of a large matrix product."""
        return self.samples * self.operations / self.peak.product

    def lines(self) -> list[str]:
        """Rates, ratios to the yardstick, phases."""
        whole = sum(self.seconds.values())
        phases = ", ".join(f"{name} {each / whole:.0%}" for name, each in self.seconds.items())
        lines = [
            f"{self.method} on {self.device}",
            f"samples per second: {self.samples:.1f}, without loading {self.steps:.1f}",
            f"phases, waiting after each: {phases}",
            f"operations: {self.operations / 1e9:.2f} G per sample, "
            f"{self.samples * self.operations / 1e12:.3f} T per second, {self.share_of_peak:.0%} "
            f"of a matrix product's {self.peak.product / 1e12:.2f} T; "
            f"a copy moves {self.peak.copy / 1e9:.0f} GB per second",
        ]
        if self.yardstick and self.yardstick_steps:
            lines += [
                f"yardstick, {self.yardstick_workers} workers: {self.yardstick:.1f} samples per "
                f"second, without its loader {self.yardstick_steps:.1f}",
                f"  ratio, end to end: {self.samples / self.yardstick:.2f}",
                f"  ratio to the yardstick without its loader: "
                f"{self.samples / self.yardstick_steps:.2f}",
            ]
        if self.yardstick_loader and self.torchvision_loader:
            fair = self.yardstick_loader / self.torchvision_loader
            lines.append(
                f"  its loader: {self.yardstick_loader:.1f} samples per second, "
                f"{fair:.2f} of torchvision's ImageFolder"
            )
        lines += [
            f"epoch that skips {names}, by one where it is absent: {ratio:.3f}"
            for names, ratio in self.skipped_to_absent.items()
        ]
        return lines


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        batches: training batches of one turn.
        rounds: turns of everything; medians are taken over them.
        workers: processes of the yardstick's loader.
    """

    batches: int
    rounds: int
    workers: int


def measure_training(
    settings: RunSettings,
    manifest: Path,
    split: Path,
    execution: Execution,
    plan: Plan,
    raw: Path | None,
) -> Speed:
    """Measure the training of one variant.

    Args:
        settings: of the run.
        manifest: of the dataset.
        split: its split.
        execution: device and residency.
        plan: how much to measure.
        raw: raw folder in CREMA-D's layout, for the yardstick; None for none.
    """
    ours = Ours(settings, manifest, split, execution)
    absent = {
        skipped: Ours(without(settings, skipped), manifest, split, execution)
        for skipped in ours.skipped()
    }
    plain = Plain(ours, raw, plan.workers) if raw else None
    found: dict[str, list[float]] = {}
    for turn in range(plan.rounds + 1):
        times = dict(_turn(ours, absent, plain, plan.batches))
        if turn:  # the first one warms up
            for name, value in times.items():
                found.setdefault(name, []).append(value)
    median = {name: statistics.median(values) for name, values in found.items()}
    ratios = {"+".join(skipped): median[f"skipped {skipped}"] for skipped in absent}
    return Speed(
        device=device_name(ours.device),
        method=settings.variant,
        samples=1 / median["ours"],
        steps=1 / median["ours, steps"],
        seconds=ours.phases(plan.batches),
        operations=ours.operations(),
        peak=measure_peak(ours.device, settings),
        yardstick=1 / median["plain"] if plain else None,
        yardstick_steps=1 / median["plain, steps"] if plain else None,
        yardstick_workers=plan.workers,
        yardstick_loader=1 / median["plain, loader"] if plain else None,
        torchvision_loader=1 / median["torchvision"] if plain else None,
        skipped_to_absent=ratios,
    )


def _turn(
    ours: "Ours",
    absent: Mapping[tuple[str, ...], "Ours"],
    plain: "Plain | None",
    batches: int,
) -> Iterator[tuple[str, float]]:
    """Seconds per sample of everything, once."""
    kinds = {epoch: ours.seconds(epoch, batches) for epoch in ours.kinds}
    yield "ours", ours.over_cycle(kinds)
    yield "ours, steps", ours.over_cycle({e: ours.step_seconds(e, batches) for e in ours.kinds})
    for skipped, other in absent.items():
        epoch = ours.epoch_without(skipped)
        yield f"skipped {skipped}", ours.seconds(epoch, batches) / other.seconds(0, batches)
    if plain:
        yield "plain", plain.seconds()
        yield "plain, steps", plain.step_seconds(batches)
        yield "plain, loader", plain.loader_seconds()
        yield "torchvision", plain.torchvision_seconds()


class Ours:
    """A method of the suite with its loader and training part.

    Attributes:
        kinds: an epoch of each kind -> how many such epochs a cycle of the schedule has.
    """

    def __init__(
        self, settings: RunSettings, manifest: Path, split: Path, execution: Execution
    ) -> None:
        self.assembly: Assembly = assemble(settings, manifest, split, execution)
        self.part: PartData = self.assembly.part("train")
        self.method, self.loader = self.assembly.method, self.assembly.loader
        self.method.train()
        skip = settings.method_settings.get("skip", {}).values()
        cycle = range(lcm(1, *skip))
        first: dict[frozenset[str], int] = {}
        for epoch in cycle:
            first.setdefault(self._active(epoch), epoch)
        self.kinds = Counter(first[self._active(epoch)] for epoch in cycle)

    @property
    def device(self) -> torch.device:
        """Where it trains."""
        return self.assembly.device

    def _active(self, epoch: int) -> frozenset[str]:
        return self.method.trained_modalities(epoch)

    def skipped(self) -> list[tuple[str, ...]]:
        """What the kinds of epochs skip, where it is something and not all."""
        everything = set(self.method.modalities)
        found = [tuple(sorted(everything - self.method.active_modalities(e))) for e in self.kinds]
        return [names for names in found if names and set(names) != everything]

    def epoch_without(self, skipped: tuple[str, ...]) -> int:
        """An epoch that trains all but these."""
        active = set(self.method.modalities) - set(skipped)
        return next(epoch for epoch in self.kinds if self._active(epoch) == active)

    def over_cycle(self, seconds: Mapping[int, float]) -> float:
        """Mean seconds per sample over a cycle of the schedule."""
        return sum(seconds[e] * n for e, n in self.kinds.items()) / self.kinds.total()

    def seconds(self, epoch: int, batches: int) -> float:
        """Seconds per sample from features to weights, with what the loop reads of every step."""
        tally, done = Tally(), 0
        wait(self.device)
        begin = time.perf_counter()
        with self.assembly.autocast():
            self.method.begin_epoch(epoch, _Turn(self.loader, self.part, self.part, epoch, batches))
        self.method.train()
        source = self.loader.training(self.part, epoch, self.method.active_modalities(epoch))
        for batch in islice(source, batches):
            with self.assembly.autocast():
                result = self.method.train_step(batch, epoch)
            tally.add(result.logits, batch.labels, result.loss)
            done += batch.size
        tally.loss()  # waits for the device
        return (time.perf_counter() - begin) / done

    def batch(self, epoch: int) -> Batch:
        """The first batch of an epoch."""
        active = self.method.active_modalities(epoch)
        return next(iter(self.loader.training(self.part, epoch, active)))

    def step_seconds(self, epoch: int, batches: int) -> float:
        """Seconds per sample of the steps alone, on a batch that lies ready."""
        batch = self.batch(epoch)
        wait(self.device)
        begin = time.perf_counter()
        for _ in range(batches):
            with self.assembly.autocast():
                self.method.train_step(batch, epoch)
        wait(self.device)
        return (time.perf_counter() - begin) / (batches * batch.size)

    def phases(self, batches: int) -> dict[str, float]:
        """Seconds per sample by phase, over a cycle, waiting for the device after each."""
        total = dict.fromkeys(PHASES, 0.0)
        for epoch, count in self.kinds.items():
            watch = Stopwatch(dict.fromkeys(PHASES, 0.0))
            samples = self._watched(epoch, batches, watch)
            for phase in PHASES:
                total[phase] += watch.seconds[phase] / samples * count / self.kinds.total()
        return total

    def _watched(self, epoch: int, batches: int, watch: Stopwatch) -> int:
        samples = 0
        source = self.loader.training(self.part, epoch, self.method.active_modalities(epoch))
        # What a thread makes ahead would be counted twice.
        with _watching(watch, self.device), mock.patch.object(loading, "ahead", iter):
            watch.switch("load")
            for batch in islice(source, batches):
                watch.switch("rest")
                with self.assembly.autocast():
                    self.method.train_step(batch, epoch)
                wait(self.device)
                watch.switch("load")
                samples += batch.size
            watch.switch("")
        return samples

    def operations(self) -> float:
        """Floating-point operations of a training step per sample, over a cycle."""
        return self.over_cycle({epoch: self.operations_in(epoch) for epoch in self.kinds})

    def operations_in(self, epoch: int) -> float:
        """The same for one kind of epoch."""
        batch = self.batch(epoch)
        with OperationCounter() as counter, self.assembly.autocast():
            self.method.train_step(batch, epoch)
        return counter.total / batch.size


@dataclass(frozen=True)
class _Turn(EpochBatches):
    """An epoch of so many batches: what a method does before one is measured in proportion."""

    batches: int

    def __len__(self) -> int:
        return self.batches


@contextmanager
def _watching(watch: Stopwatch, device: torch.device) -> Iterator[None]:
    """Let the parts of a step switch the watch; the phase before goes on afterwards."""

    def watched(function: Any, phase: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            wait(device)
            before = watch.phase
            watch.switch(phase)
            try:
                return function(*args, **kwargs)
            finally:
                wait(device)
                watch.switch(before)

        return call

    with (
        mock.patch.object(loading, "cut", watched(loading.cut, "augment")),
        mock.patch.object(Network, "forward", watched(Network.forward, "forward")),
        mock.patch.object(Network, "backward", watched(Network.backward, "backward")),
        mock.patch.object(Network, "step", watched(Network.step, "step")),
        mock.patch.object(Network, "update_probes", watched(Network.update_probes, "step")),
    ):
        yield


class Plain:
    """The yardstick on the same clips."""

    def __init__(self, ours: Ours, raw: Path, workers: int) -> None:
        settings, self.device = ours.assembly.settings, ours.device
        names = ours.method.modalities
        if set(names) - {"audio", "visual"}:
            raise AmstError(
                f"the yardstick has no {'+'.join(sorted(set(names) - {'audio', 'visual'}))}",
                "Measure it on CREMAD",
            )
        crop = next((m.crop for m in settings.modalities.values() if m.crop), 224)
        size = settings.recipe.batch_size
        self._clips = Clips(raw, crop)
        pin = self.device.type == "cuda"
        self._loader = clip_loader(self._clips, size, workers, pin)
        self._pictures = picture_loader(self._clips, crop, size, workers)
        classes = len(ours.assembly.store.manifest.classes)
        self._training = PlainTraining(
            settings.method, names, classes, settings.recipe, self.device
        )
        self._ready = next(iter(on_device(self._loader, self.device)))

    def seconds(self) -> float:
        """Seconds per clip of an epoch, from files to weights."""
        begin = time.perf_counter()
        for inputs, labels in on_device(self._loader, self.device):
            self._training.step(inputs, labels)
        return (time.perf_counter() - begin) / len(self._clips)

    def step_seconds(self, batches: int) -> float:
        """Seconds per clip of the steps alone, on a batch that lies ready."""
        inputs, labels = self._ready
        wait(self.device)
        begin = time.perf_counter()
        for _ in range(batches):
            self._training.step(inputs, labels)
        return (time.perf_counter() - begin) / (batches * len(labels))

    def loader_seconds(self) -> float:
        """Seconds per clip of an epoch of the loader alone."""
        begin = time.perf_counter()
        clips = sum(len(labels) for _, _, labels in self._loader)
        return (time.perf_counter() - begin) / clips

    def torchvision_seconds(self) -> float:
        """Seconds per clip of torchvision's own dataset: of as many pictures as a clip has."""
        begin = time.perf_counter()
        pictures = sum(len(labels) for _, labels in self._pictures)
        return (time.perf_counter() - begin) / pictures * FRAMES


def without(settings: RunSettings, names: tuple[str, ...]) -> RunSettings:
    """The same variant on a dataset that lacks some modalities."""
    values = settings.model_dump()
    for name in names:
        del values["modalities"][name]
    values["method_settings"] = {
        key: {k: v for k, v in value.items() if k not in names} if key == "skip" else value
        for key, value in settings.method_settings.items()
    }
    return RunSettings.model_validate(values)


def measure_peak(device: torch.device, settings: RunSettings) -> Peak:
    """Large matrix products and copies in the run's precision: medians of ten."""
    half = settings.arithmetic.precision == "bf16"
    side = 8192 if device.type == "cuda" else 1024
    kind = torch.bfloat16 if half else torch.float32
    left = torch.randn(side, side, device=device).to(kind)
    before = torch.backends.cuda.matmul.allow_tf32
    # Convolutions are most of the work, so theirs is the precision to compare with.
    torch.backends.cuda.matmul.allow_tf32 = settings.arithmetic.tf32 != "off"
    product = _median_seconds(device, lambda: torch.mm(left, left))
    torch.backends.cuda.matmul.allow_tf32 = before
    source = torch.empty(2**28 if device.type == "cuda" else 2**26, dtype=torch.uint8).to(device)
    target = torch.empty_like(source)
    copy = _median_seconds(device, lambda: target.copy_(source))
    return Peak(2 * side**3 / product, 2 * source.numel() / copy)


def _median_seconds(device: torch.device, work: Any) -> float:
    seconds = []
    for _ in range(11):
        wait(device)
        begin = time.perf_counter()
        work()
        wait(device)
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds[1:])


def wait(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def device_name(device: torch.device) -> str:
    """What the results were measured on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} threads of a CPU"
