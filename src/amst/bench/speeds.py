"""What the benchmark of training found, and how it is told."""

from collections.abc import Mapping
from dataclasses import dataclass

from amst.bench.device import Peak


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
        plain: ``samples`` when nothing is compiled or captured.
        plain_steps: ``steps`` when nothing is.
        even: ``samples`` in the yardstick's precision, nothing compiled or captured.
        even_steps: ``steps`` in the yardstick's precision, nothing compiled or captured.
        seconds: phase -> seconds per sample, measured apart, waiting for the device after each.
        operators: operator of PyTorch -> share of all operators' time on the device, the largest
            ones, in a step of the most frequent kind of epoch that is not captured.
        busy: share of such a step's time in which an operator runs on the device, as it is trained.
        operations: per sample, of encoders and heads.
        moved: bytes per sample that the operators of a plain step read and write.
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
            f"{self.steps:.1f}; plain {self.plain:.1f} and {self.plain_steps:.1f}; in the "
            f"yardstick's precision {self.even:.1f} and {self.even_steps:.1f}",
            f"  phases, waiting after each: {phases}",
            f"  steps of most epochs: operators run in {self.busy:.0%} of their time; of the "
            f"operators' time {operators}",
            f"  operations: {self.operations / 1e9:.2f} G per sample, without loading "
            f"{done / 1e12:.3f} T per second, {done / peak.product:.0%} of a large product's",
            f"  memory: operators read and write {self.moved / 1e6:.0f} MB per sample; without "
            f"loading, plain, {through / 1e9:.0f} GB per second, "
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
            f"{self.samples / yardstick:.2f}, plain {self.plain / yardstick:.2f}, in equal "
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
