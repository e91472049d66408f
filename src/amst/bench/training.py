"""Training against a yardstick that does what the released pipeline does, in one run.

All that is compared takes turns, round by round, in one process on one device; medians are given.
Epochs of AMST differ by the modalities that they train, so each kind of epoch is measured, and a
rate is that of a whole cycle of the skip schedule.
"""

import statistics
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
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
from torch.utils.data import DataLoader

from amst.bench.traffic import TrafficCounter
from amst.bench.yardstick import (
    FRAMES,
    Clips,
    PlainTraining,
    clip_loader,
    loops_of,
    on_device,
    picture_loader,
)
from amst.config.run import Arithmetic, RunSettings
from amst.errors import AmstError
from amst.loading import loader as loading
from amst.loading.batch import Batch
from amst.loading.dataset import PartData
from amst.loading.loader import EpochBatches
from amst.models.network import Network
from amst.training.assembly import Assembly, assemble_training, set_arithmetic
from amst.training.cost import Stopwatch
from amst.training.execution import Execution
from amst.training.tally import Tally

_OPERATORS = 10  # how many are named
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
class PlainRate:
    """How fast the yardstick trains, in samples per second.

    Attributes:
        samples: from files to updated weights.
        steps: without its loader, on one batch that lies ready.
    """

    samples: float
    steps: float


@dataclass(frozen=True)
class LoaderRate:
    """The yardstick's loader alone, in samples per second.

    Attributes:
        workers: its processes.
        samples: clips.
        pictures: clips without their sound.
        torchvision: torchvision's own dataset on the same JPEG files, counted in clips.
    """

    workers: int
    samples: float
    pictures: float
    torchvision: float


@dataclass(frozen=True)
class Speed:
    """How fast a method trains; every rate is of samples per second.

    Attributes:
        method: variant that was trained.
        samples: from features in their residency to the updated weights.
        steps: the same without loading and augmentation, on one batch that lies ready.
        plain: ``samples`` without compiling.
        plain_steps: ``steps`` without compiling.
        even: ``samples`` in the yardstick's precision, not compiled.
        even_steps: ``steps`` in the yardstick's precision, not compiled.
        seconds: phase -> seconds per sample, measured apart, waiting for the device after each.
        operators: operator of PyTorch -> share of all operators' time on the device, the largest
            ones, in a step of the most frequent kind of epoch.
        busy: share of such a step's time in which operators run on the device.
        operations: per sample, of encoders and heads.
        moved: bytes per sample that the operators of a step that is not compiled read and write.
        yardstick: what it reaches with this method's steps; None if it was not run.
        skipped_to_absent: time of an epoch that skips modalities, by those of the same method on
            a dataset without them: '+'-joined names of the skipped ones -> ratio.
    """

    method: str
    samples: float
    steps: float
    plain: float
    plain_steps: float
    even: float
    even_steps: float
    seconds: Mapping[str, float]
    operators: Mapping[str, float]
    busy: float
    operations: float
    moved: float
    yardstick: PlainRate | None
    skipped_to_absent: Mapping[str, float]

    def lines(self, peak: Peak) -> list[str]:
        """Rates, ratios to the yardstick, phases."""
        whole = sum(self.seconds.values())
        phases = ", ".join(f"{name} {each / whole:.0%}" for name, each in self.seconds.items())
        operators = ", ".join(f"{name} {share:.0%}" for name, share in self.operators.items())
        done, through = self.steps * self.operations, self.plain_steps * self.moved
        lines = [
            f"{self.method}: {self.samples:.1f} samples per second, without loading "
            f"{self.steps:.1f}; not compiled {self.plain:.1f} and {self.plain_steps:.1f}; in the "
            f"yardstick's precision {self.even:.1f} and {self.even_steps:.1f}",
            f"  phases, waiting after each: {phases}",
            f"  steps of most epochs: operators run in {self.busy:.0%} of their time; of the "
            f"operators' time {operators}",
            f"  operations: {self.operations / 1e9:.2f} G per sample, without loading "
            f"{done / 1e12:.3f} T per second, {done / peak.product:.0%} of a large product's",
            f"  memory: operators read and write {self.moved / 1e6:.0f} MB per sample; without "
            f"loading, not compiled, {through / 1e9:.0f} GB per second, "
            f"{through / peak.copy:.0%} of a copy's",
        ]
        if plain := self.yardstick:
            lines += [
                f"  yardstick: {plain.samples:.1f} samples per second, without its loader "
                f"{plain.steps:.1f}",
                f"  ratio end to end: {self._ratios(plain.samples)}",
                f"  ratio to the yardstick without its loader: {self._ratios(plain.steps)}",
            ]
        lines += [
            f"  epoch that skips {names}, by one where it is absent: {ratio:.3f}"
            for names, ratio in self.skipped_to_absent.items()
        ]
        return lines

    def _ratios(self, yardstick: float) -> str:
        return (
            f"{self.samples / yardstick:.2f}, not compiled {self.plain / yardstick:.2f}, in equal "
            f"precision {self.even / yardstick:.2f}"
        )


@dataclass(frozen=True)
class Speeds:
    """Training of several methods on one device, all in turns.

    Attributes:
        device: its name.
        arithmetic: precision of the methods' rates.
        peak: of the device in that precision.
        loader: of the yardstick; None if it was not run.
        methods: what each reaches.
    """

    device: str
    arithmetic: str
    peak: Peak
    loader: LoaderRate | None
    methods: list[Speed]

    def lines(self) -> list[str]:
        """The device, the yardstick's loader, each method."""
        lines = [
            f"{self.device}, {self.arithmetic}: a matrix product does "
            f"{self.peak.product / 1e12:.2f} T operations per second, a copy moves "
            f"{self.peak.copy / 1e9:.0f} GB per second"
        ]
        if self.loader:
            fair = self.loader.pictures / self.loader.torchvision
            lines.append(
                f"the yardstick's loader, {self.loader.workers} workers: "
                f"{self.loader.samples:.1f} samples per second; of pictures alone "
                f"{self.loader.pictures:.1f}, {fair:.2f} of torchvision's ImageFolder"
            )
        return lines + [line for speed in self.methods for line in speed.lines(self.peak)]


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        batches: training batches of one turn.
        rounds: turns of everything; medians are taken over them.
        workers: processes of the yardstick's loader.
        epoch: batches of an epoch of the yardstick. Workers hand over their batches in waves, and
            the steps of an epoch's last wave overlap with no loading: too short is unfair.
    """

    batches: int
    rounds: int
    workers: int
    epoch: int


def measure_training(
    variants: Sequence[RunSettings],
    manifest: Path,
    split: Path,
    execution: Execution,
    plan: Plan,
    raw: Path | None,
) -> Speeds:
    """Measure the training of variants.

    Args:
        variants: settings of a run of each, with equal batch sizes.
        manifest: of the dataset.
        split: its split.
        execution: device and residency.
        plan: how much to measure.
        raw: raw folder in CREMA-D's layout, for the yardstick; None for none.

    Raises:
        AmstError: the variants have different batch sizes, or not all features find room on the
            device.
    """
    if len({settings.recipe.batch_size for settings in variants}) > 1:
        raise AmstError("the variants have different batch sizes", "Give one by --batch-size")
    everything = [Ours(settings, manifest, split, execution) for settings in variants]
    if len({ours.assembly.residency for ours in everything}) > 1:
        raise AmstError(
            "the features of so many methods do not fit on the device at once",
            "Measure fewer methods, or fewer --samples, or say --residency",
        )
    device = everything[0].device
    peak = measure_peak(device, variants[0])
    files = PlainFiles(everything[0], raw, plan) if raw else None
    of_key = {ours.plain_key: ours for ours in everything}
    plain = {key: Plain(ours, files) for key, ours in of_key.items()} if files else {}
    subjects = [_Subject(ours, manifest, split, execution) for ours in everything]
    loader: list[tuple[float, ...]] = []
    for turn in range(plan.rounds + 1):  # the first one warms up
        for subject in subjects:
            subject.measure(plan.batches, keep=turn > 0)
        for yardstick in plain.values():
            if turn:
                yardstick.measure(plan.batches)
            else:
                yardstick.step_seconds(plan.batches)
        if files:
            loader.append(files.rates())
    rates = [statistics.median(column) for column in zip(*loader[1:], strict=True)]
    for subject in subjects:
        subject.look_closer(plan.batches)
    return Speeds(
        device=device_name(device),
        arithmetic=_arithmetic(variants[0], device),
        peak=peak,
        loader=LoaderRate(plan.workers, *rates) if rates else None,
        methods=[subject.speed(plain) for subject in subjects],
    )


def _arithmetic(settings: RunSettings, device: torch.device) -> str:
    chosen = settings.arithmetic
    if device.type == "cpu" or chosen.precision != "fp32" or chosen.tf32 == "off":
        name: str = chosen.precision
    else:
        name = "tf32" if chosen.tf32 == "all" else "tf32 in convolutions"
    return f"{name}, compiled" if chosen.compile and device.type == "cuda" else name


class _Subject:
    """A method that is measured: as it is, not compiled, as the yardstick is, beside absence."""

    def __init__(self, ours: "Ours", manifest: Path, split: Path, execution: Execution) -> None:
        settings = ours.assembly.settings
        self._ours = ours
        chosen, on_cpu = settings.arithmetic, ours.device.type == "cpu"
        plain = chosen if on_cpu else chosen.model_copy(update={"compile": False})
        even = plain.model_copy(
            update={"precision": "fp32"} if on_cpu else {"precision": "fp32", "tf32": "conv"}
        )
        # Several of them may be one: each is measured once.
        self._plain, self._even = plain, even
        self._versions = {chosen: ours}
        for arithmetic in (plain, even):
            if arithmetic not in self._versions:
                other = settings.model_copy(update={"arithmetic": arithmetic})
                self._versions[arithmetic] = Ours(other, manifest, split, execution)
        self._absent = {
            skipped: Ours(without(settings, skipped), manifest, split, execution)
            for skipped in ours.skipped()
        }
        self._seconds: dict[Arithmetic, list[tuple[float, float]]] = {}
        self._ratios: dict[str, list[float]] = {}
        self._phases: dict[str, float] = {}
        self._operators: dict[str, float] = {}
        self._busy = 0.0

    def measure(self, batches: int, *, keep: bool) -> None:
        """Take the time of everything once."""
        for arithmetic, ours in self._versions.items():
            seconds = ours.cycle_seconds(batches), ours.cycle_step_seconds(batches)
            if keep:
                self._seconds.setdefault(arithmetic, []).append(seconds)
        for skipped, other in self._absent.items():
            epoch = self._ours.epoch_without(skipped)
            ratio = self._ours.seconds(epoch, batches) / other.seconds(0, batches)
            if keep:
                self._ratios.setdefault("+".join(skipped), []).append(ratio)

    def look_closer(self, batches: int) -> None:
        """Take phases and operators; before any operations are counted, which ends compiling."""
        self._phases = self._ours.phases(batches)
        self._operators, self._busy = self._ours.operators(batches)

    def speed(self, plain: Mapping["PlainKey", "Plain"]) -> Speed:
        """Medians of what was measured, phases and operators, and operations."""
        ours = self._ours
        rates = {
            arithmetic: [1 / statistics.median(column) for column in zip(*turns, strict=True)]
            for arithmetic, turns in self._seconds.items()
        }
        operations, moved = self._versions[self._plain].work()
        samples, steps = rates[ours.assembly.settings.arithmetic]
        yardstick = plain.get(ours.plain_key)
        return Speed(
            method=ours.assembly.settings.variant,
            samples=samples,
            steps=steps,
            plain=rates[self._plain][0],
            plain_steps=rates[self._plain][1],
            even=rates[self._even][0],
            even_steps=rates[self._even][1],
            seconds=self._phases,
            operators=self._operators,
            busy=self._busy,
            operations=operations,
            moved=moved,
            yardstick=yardstick.rate() if yardstick else None,
            skipped_to_absent={n: statistics.median(found) for n, found in self._ratios.items()},
        )


PlainKey = tuple[tuple[str, ...], tuple[bool, ...]]
"""What a yardstick depends on: modalities, and the loops of the released steps."""


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

    @property
    def plain_key(self) -> PlainKey:
        """Which yardstick it is compared with."""
        return self.method.modalities, loops_of(self.assembly.settings.method)

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

    def _settle(self) -> None:
        """The arithmetic of this run, which is the process's, and a device at rest."""
        set_arithmetic(self.assembly.settings.arithmetic, self.assembly.settings.seed)
        wait(self.device)

    def batch(self, epoch: int) -> Batch:
        """The first batch of an epoch."""
        active = self.method.active_modalities(epoch)
        return next(iter(self.loader.training(self.part, epoch, active)))

    def step_seconds(self, epoch: int, batches: int) -> float:
        """Seconds per sample of the steps alone, on a batch that lies ready."""
        batch = self.batch(epoch)
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

    def operators(self, batches: int) -> tuple[dict[str, float], float]:
        """The operators that take most time in a step of the most frequent kind of epoch.

        Args:
            batches: as many steps without the profiler say how long one takes.

        Returns:
            Shares of the time of all operators, and the share of theirs in a step's.
        """
        epoch = max(self.kinds, key=lambda each: self.kinds[each])
        batch = self.batch(epoch)
        activities = [ProfilerActivity.CPU]
        if self.device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        self._settle()
        with profile(activities=activities) as profiler:
            with self.assembly.autocast():
                self.method.train_step(batch, epoch)
            wait(self.device)
        counter = f"self_{'device' if self.device.type == 'cuda' else 'cpu'}_time_total"
        # Kernels are listed by themselves, too, and once more below the operator they belong to.
        rows = [row for row in profiler.key_averages() if row.device_type == DeviceType.CPU]
        times = Counter({row.key.removeprefix("aten::"): getattr(row, counter) for row in rows})
        whole = times.total() or 1  # a GPU may tell the profiler nothing
        step = self.step_seconds(epoch, batches) * batch.size
        shares = {name: time / whole for name, time in times.most_common(_OPERATORS) if time}
        return shares, times.total() / 1e6 / step

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


class PlainFiles:
    """The yardstick's loaders of clips, and of pictures as torchvision loads them.

    Args:
        ours: says the side of the pictures, the batch size and the device.
        raw: raw folder in CREMA-D's layout.
        plan: workers, and batches of an epoch.
    """

    def __init__(self, ours: "Ours", raw: Path, plan: Plan) -> None:
        settings, self.device = ours.assembly.settings, ours.device
        crop = next((m.crop for m in settings.modalities.values() if m.crop), 224)
        size = settings.recipe.batch_size
        pin = self.device.type == "cuda"

        def loader(sound: bool) -> DataLoader[Any]:
            return clip_loader(Clips(raw, crop, sound), size, plan.workers, pin, plan.epoch)

        self._clips, self._silent = loader(sound=True), loader(sound=False)
        plain = Clips(raw, crop)
        self._pictures = picture_loader(plain, crop, size, plan.workers, pin, plan.epoch)

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
        names, loops = ours.plain_key
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
        """Take the time of an epoch and of the steps alone once."""
        self._found.append((self.seconds(), self.step_seconds(batches)))

    def rate(self) -> PlainRate:
        """Medians of what was measured."""
        return PlainRate(*(1 / statistics.median(t) for t in zip(*self._found, strict=True)))

    def seconds(self) -> float:
        """Seconds per clip of an epoch, from files to weights."""
        _released_arithmetic()
        begin, done = time.perf_counter(), 0
        for inputs, labels in self._files:
            self._training.step(inputs, labels)
            done += len(labels)
        return (time.perf_counter() - begin) / done

    def step_seconds(self, batches: int) -> float:
        """Seconds per clip of the steps alone, on a batch that lies ready."""
        inputs, labels = self._ready
        _released_arithmetic()
        wait(self.device)
        begin = time.perf_counter()
        for _ in range(batches):
            self._training.step(inputs, labels)
        return (time.perf_counter() - begin) / (batches * len(labels))


def _released_arithmetic() -> None:
    """What PyTorch does unless told otherwise, as the released code leaves it."""
    torch.set_deterministic_debug_mode("default")
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cuda.matmul.allow_tf32 = False


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
    side = 8192 if device.type == "cuda" else 512
    kind = torch.bfloat16 if half else torch.float32
    left = torch.randn(side, side, device=device).to(kind)
    before = torch.backends.cuda.matmul.allow_tf32
    # Convolutions are most of the work, so theirs is the precision to compare with.
    torch.backends.cuda.matmul.allow_tf32 = settings.arithmetic.tf32 != "off"
    product = _median_seconds(device, lambda: torch.mm(left, left))
    torch.backends.cuda.matmul.allow_tf32 = before
    source = torch.ones(2**28 if device.type == "cuda" else 2**26, dtype=torch.uint8).to(device)
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
