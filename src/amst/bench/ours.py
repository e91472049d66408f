"""A method of the suite under measurement: its epochs, steps, phases, operators and work."""

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
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from amst.bench.device import wait
from amst.bench.traffic import TrafficCounter
from amst.bench.yardstick import loops_of
from amst.config.run import RunSettings
from amst.loading import loader as loading
from amst.loading.batch import Batch
from amst.loading.dataset import PartData
from amst.loading.loader import EpochBatches
from amst.models import network as networks
from amst.models.capture import CapturedPass
from amst.models.network import Network
from amst.training.assembly import Assembly, assemble_training, set_arithmetic
from amst.training.cost import Stopwatch
from amst.training.execution import Execution
from amst.training.tally import Tally

_OPERATORS = 10  # how many are named
PHASES = ("load", "augment", "forward", "backward", "step", "rest")

Schedule = tuple[tuple[tuple[str, ...], int], ...]
"""Modalities that an epoch trains, and how many such epochs a cycle has."""
PlainKey = tuple[tuple[str, ...], tuple[bool, ...], Schedule]
"""What a yardstick depends on: modalities, the loops of the released steps, who skips when."""


class Ours:
    """A method of the suite with its loader and training part.

    Attributes:
        kinds: an epoch of each kind -> how many such epochs a cycle of the schedule has.
    """

    def __init__(
        self, settings: RunSettings, manifest: Path, split: Path, execution: Execution
    ) -> None:
        self.assembly: Assembly = assemble_training(settings, manifest, split, execution)
        self.part: PartData = self.assembly.part("train")
        self.method, self.loader = self.assembly.method, self.assembly.loader
        skip = settings.method_settings.get("skip", {}).values()
        cycle = range(lcm(1, *skip))
        self._trained: dict[int, frozenset[str]] = {}
        self._skipped: dict[int, frozenset[str]] = {}
        for epoch in cycle:
            self._begin(epoch, 1)
            self._trained[epoch] = self.method.trained_modalities(epoch)
            self._skipped[epoch] = frozenset(
                self.method.modalities
            ) - self.method.active_modalities(epoch)
        first: dict[frozenset[str], int] = {}
        for epoch, trained in self._trained.items():
            first.setdefault(trained, epoch)
        self.kinds = Counter(first[trained] for trained in self._trained.values())

    @property
    def device(self) -> torch.device:
        """Where it trains."""
        return self.assembly.device

    def _begin(self, epoch: int, batches: int) -> None:
        """What the method does before an epoch of so many batches; it may decide who trains."""
        self.method.eval()
        with self.assembly.autocast():
            self.method.begin_epoch(epoch, _Turn(self.loader, self.part, self.part, epoch, batches))
        self.method.train()

    def skipped(self) -> list[tuple[str, ...]]:
        """What the kinds of epochs skip, where it is something and not all."""
        found = [tuple(sorted(self._skipped[epoch])) for epoch in self.kinds]
        return [names for names in found if names and set(names) != set(self.method.modalities)]

    def epoch_without(self, skipped: tuple[str, ...]) -> int:
        """An epoch that trains all but these."""
        active = set(self.method.modalities) - set(skipped)
        return next(epoch for epoch in self.kinds if self._trained[epoch] == active)

    @property
    def plain_key(self) -> PlainKey:
        """Which yardstick it is compared with."""
        schedule = [(tuple(sorted(self._trained[each])), n) for each, n in self.kinds.items()]
        return self.method.modalities, loops_of(self.assembly.settings.method), tuple(schedule)

    def over_cycle(self, seconds: Mapping[int, float]) -> float:
        """Mean seconds per sample over a cycle of the schedule."""
        return sum(seconds[e] * n for e, n in self.kinds.items()) / self.kinds.total()

    def cycle_seconds(self, batches: int) -> float:
        """``seconds`` over a cycle of the schedule."""
        return self.over_cycle({epoch: self.seconds(epoch, batches) for epoch in self.kinds})

    def cycle_step_seconds(self, batches: int) -> float:
        """``step_seconds`` over a cycle of the schedule."""
        return self.over_cycle({epoch: self.step_seconds(epoch, batches) for epoch in self.kinds})

    def seconds(self, epoch: int, batches: int) -> float:
        """Seconds per sample from features to weights, with what the loop reads of every step."""
        tally, done = Tally(), 0
        self._settle()
        begin = time.perf_counter()
        self._begin(epoch, batches)
        source = self.loader.training(self.part, epoch, self.method.active_modalities(epoch))
        for batch in islice(source, batches):
            with self.assembly.autocast():
                result = self.method.train_step(batch, epoch)
            tally.add(result.logits, batch.labels, result.loss)
            done += batch.size
        tally.loss()  # waits for the device
        return (time.perf_counter() - begin) / done

    def _settle(self) -> None:
        """The arithmetic of this run, which is the process's, and a device at rest."""
        set_arithmetic(self.assembly.settings.arithmetic, self.assembly.settings.seed)
        wait(self.device)

    def batch(self, epoch: int, batches: int = 1) -> Batch:
        """The first batch of an epoch of so many."""
        self._begin(epoch, batches)
        return next(
            iter(self.loader.training(self.part, epoch, self.method.active_modalities(epoch)))
        )

    def step_seconds(self, epoch: int, batches: int) -> float:
        """Seconds per sample of the steps alone, on a batch that lies ready."""
        batch = self.batch(epoch, batches)
        self._settle()
        begin = time.perf_counter()
        for _ in range(batches):
            with self.assembly.autocast():
                self.method.train_step(batch, epoch)
        wait(self.device)
        return (time.perf_counter() - begin) / (batches * batch.size)

    def phases(self, batches: int) -> dict[str, float]:
        """Seconds per sample by phase, over a cycle, waiting for the device after each."""
        total = dict.fromkeys(PHASES, 0.0)
        self._settle()
        for epoch, count in self.kinds.items():
            watch = Stopwatch(dict.fromkeys(PHASES, 0.0))
            samples = self._watched(epoch, batches, watch)
            for phase in PHASES:
                total[phase] += watch.seconds[phase] / samples * count / self.kinds.total()
        return total

    def _watched(self, epoch: int, batches: int, watch: Stopwatch) -> int:
        samples = 0
        self._begin(epoch, batches)
        # What a thread makes ahead would be counted twice.
        with _watching(watch, self.device), mock.patch.object(loading, "ahead", iter):
            source = self.loader.training(self.part, epoch, self.method.active_modalities(epoch))
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

    def operators(self, batches: int) -> tuple[dict[str, float], float]:
        """The operators that take most time in a step of the most frequent kind of epoch.

        Args:
            batches: as many steps without the profiler say how long one takes.

        Returns:
            Shares of the time of all operators, and the share of a step's time in which any runs:
            what the profiler says of one step by the mean time of steps without it.
        """
        epoch = max(self.kinds, key=lambda each: self.kinds[each])
        batch = self.batch(epoch)
        # What is replayed belongs to no operator.
        with mock.patch.object(CapturedPass, "_fits", return_value=False):
            profiler = self._profiled(batch, epoch)
        on_gpu = self.device.type == "cuda"
        counter = f"self_{'device' if on_gpu else 'cpu'}_time_total"
        # Kernels are listed by themselves, too, and once more below the operator they belong to.
        rows = [row for row in profiler.key_averages() if row.device_type == DeviceType.CPU]
        times = Counter({row.key.removeprefix("aten::"): getattr(row, counter) for row in rows})
        whole = times.total() or 1  # a GPU may tell the profiler nothing
        shares = {name: time / whole for name, time in times.most_common(_OPERATORS) if time}
        running = covered(self._profiled(batch, epoch)) if on_gpu else times.total()
        return shares, running / 1e6 / (self.step_seconds(epoch, batches) * batch.size)

    def _profiled(self, batch: Batch, epoch: int) -> profile:
        """PyTorch's profiler after one step."""
        activities = [ProfilerActivity.CPU]
        if self.device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        self._settle()
        with profile(activities=activities, acc_events=True) as profiler:  # else it warns
            with self.assembly.autocast():
                self.method.train_step(batch, epoch)
            wait(self.device)
        return profiler

    def work(self) -> tuple[float, float]:
        """Operations and bytes moved in a training step per sample, over a cycle."""
        each = {epoch: self.work_in(epoch) for epoch in self.kinds}
        operations, moved = (
            self.over_cycle({epoch: work[of] for epoch, work in each.items()}) for of in (0, 1)
        )
        return operations, moved

    def work_in(self, epoch: int) -> tuple[float, float]:
        """The same for one kind of epoch."""
        batch = self.batch(epoch)
        with TrafficCounter() as counter, self.assembly.autocast():
            self.method.train_step(batch, epoch)
        return counter.total / batch.size, counter.moved / batch.size


def covered(profiler: profile) -> float:
    """Microseconds in which at least one kernel runs on the GPU, copies included."""
    times = sorted(
        (event.time_range.start, event.time_range.end)
        for event in profiler.events() or ()
        if event.device_type == DeviceType.CUDA and not event.is_user_annotation
    )
    covered, until = 0.0, 0.0
    for start, end in times:
        covered += max(0.0, end - max(start, until))
        until = max(until, end)
    return covered


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
        mock.patch.object(Network, "start", watched(Network.start, "forward")),
        mock.patch.object(Network, "finish", watched(Network.finish, "forward")),
        mock.patch.object(Network, "backward", watched(Network.backward, "backward")),
        mock.patch.object(Network, "backward_head", watched(Network.backward_head, "backward")),
        mock.patch.object(
            networks, "backward_encoders", watched(networks.backward_encoders, "backward")
        ),
        mock.patch.object(Network, "step", watched(Network.step, "step")),
        mock.patch.object(Network, "update_probes", watched(Network.update_probes, "step")),
    ):
        yield


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
