"""Training against a yardstick that does what the released pipeline does, in one run.

All that is compared takes turns, round by round, in one process on one device; medians are given.
Epochs of AMST differ by the modalities that they train, so each kind of epoch is measured, and a
rate is that of a whole cycle of the skip schedule. What each turn gave is told on standard error
when it ends: a call that is cut short has lost no turn that was whole.
"""

import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from amst.bench.device import device_name, measure_peak
from amst.bench.ours import Ours, PlainKey, without
from amst.bench.plain import Plain, PlainFiles
from amst.bench.speeds import LoaderRate, Speed, Speeds
from amst.config.run import Arithmetic, RunSettings
from amst.errors import AmstError
from amst.loading.dataset import Residency
from amst.training.execution import Execution

_WARM_UP = 3  # batches of the first turn, in which kernels are chosen, compiled and captured


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
        execution: device, residency, and whether passes are captured.
        plan: how much to measure.
        raw: raw folder in CREMA-D's layout, for the yardstick, which methods of one modality have
            not; None for none.

    Raises:
        AmstError: the variants have different batch sizes, or not all features find room on the
            device.
    """
    if len({settings.recipe.batch_size for settings in variants}) > 1:
        raise AmstError("the variants have different batch sizes", "Give one by --batch-size")
    everything = [Ours(settings, manifest, split, execution) for settings in variants]
    subjects = [_Subject(ours, manifest, split, execution) for ours in everything]
    if len({residency for subject in subjects for residency in subject.residencies()}) > 1:
        raise AmstError(
            "so many copies of the features do not fit on the device at once",
            "Measure fewer methods, or fewer --samples, or say --residency",
        )
    device = everything[0].device
    peak = measure_peak(device, variants[0])
    files = PlainFiles(everything[0], raw, plan.workers, plan.epoch) if raw else None
    # Its loader and probes are those of several modalities, too much for one.
    of_key = {ours.plain_key: ours for ours in everything if len(ours.method.modalities) > 1}
    plain = {key: Plain(ours, files) for key, ours in of_key.items()} if files else {}
    loader: list[tuple[float, ...]] = []
    for turn in range(plan.rounds + 1):  # the first one warms up
        batches = plan.batches if turn else min(_WARM_UP, plan.batches)
        _tell(f"turn {turn} of {plan.rounds}")
        for subject in subjects:
            subject.measure(batches, keep=turn > 0)
        for yardstick in plain.values():
            if turn:
                yardstick.measure(batches)
            else:
                yardstick.cycle_step_seconds(batches)
        if files and turn:
            loader.append(files.rates())
        for subject in subjects if turn else ():
            _tell("  " + subject.latest(plain))
    rates = [statistics.median(column) for column in zip(*loader, strict=True)]
    for subject in subjects:
        _tell(f"phases and operators of {subject.variant}")
        subject.look_closer(plan.batches)
    return Speeds(
        device=device_name(device),
        arithmetic=arithmetic_of(variants[0], device, everything[0].method.captured),
        peak=peak,
        loader=LoaderRate(plan.workers, *rates) if rates else None,
        methods=[subject.speed(plain) for subject in subjects],
    )


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def arithmetic_of(settings: RunSettings, device: torch.device, captured: bool) -> str:
    """In which precision steps are computed, and how."""
    chosen = settings.arithmetic
    if device.type == "cpu":
        return chosen.precision
    if chosen.precision != "fp32" or chosen.tf32 == "off":
        name: str = chosen.precision
    else:
        name = "tf32" if chosen.tf32 == "all" else "tf32 in convolutions"
    return name + ", compiled" * chosen.compile + ", captured" * captured


@dataclass(frozen=True)
class _Way:
    """How steps are computed."""

    arithmetic: Arithmetic
    captured: bool


class _Subject:
    """A method that is measured: as it is, plain, as the yardstick is, beside absence."""

    def __init__(self, ours: Ours, manifest: Path, split: Path, execution: Execution) -> None:
        settings = ours.assembly.settings
        self._ours = ours
        chosen, on_cpu = settings.arithmetic, ours.device.type == "cpu"
        plain = chosen if on_cpu else chosen.model_copy(update={"compile": False})
        even = plain.model_copy(
            update={"precision": "fp32"} if on_cpu else {"precision": "fp32", "tf32": "conv"}
        )
        self._chosen = _Way(chosen, ours.method.captured)
        # Several of them may be one: each is measured once.
        self._plain, self._even = _Way(plain, False), _Way(even, False)
        self._versions = {self._chosen: ours}
        for way in (self._plain, self._even):
            if way not in self._versions:
                other = settings.model_copy(update={"arithmetic": way.arithmetic})
                how = execution.model_copy(update={"capture": way.captured})
                self._versions[way] = Ours(other, manifest, split, how)
        self._absent = {
            skipped: Ours(without(settings, skipped), manifest, split, execution)
            for skipped in ours.skipped()
        }
        self._seconds: dict[_Way, list[tuple[float, float]]] = {}
        self._ratios: dict[str, list[float]] = {}
        self._phases: dict[str, float] = {}
        self._operators: dict[str, float] = {}
        self._busy = 0.0

    def residencies(self) -> set[Residency]:
        """Where all that is compared keeps its features."""
        compared = [*self._versions.values(), *self._absent.values()]
        return {ours.assembly.residency for ours in compared}

    def measure(self, batches: int, *, keep: bool) -> None:
        """Take the time of everything once."""
        for way, ours in self._versions.items():
            seconds = ours.cycle_seconds(batches), ours.cycle_step_seconds(batches)
            if keep:
                self._seconds.setdefault(way, []).append(seconds)
        for skipped, other in self._absent.items():
            epoch = self._ours.epoch_without(skipped)
            ratio = self._ours.seconds(epoch, batches) / other.seconds(0, batches)
            if keep:
                self._ratios.setdefault("+".join(skipped), []).append(ratio)

    @property
    def variant(self) -> str:
        """Its name in the configuration."""
        return self._ours.assembly.settings.variant

    def latest(self, plain: Mapping[PlainKey, Plain]) -> str:
        """What the last turn gave: rates end to end and to the yardstick, skipped to absent."""
        own, as_is, even = (
            1 / self._seconds[way][-1][0] for way in (self._chosen, self._plain, self._even)
        )
        told = (
            f"{self.variant}: {own:.1f} samples per second, plain {as_is:.1f}, in equal precision "
            f"{even:.1f}"
        )
        if yardstick := plain.get(self._ours.plain_key):
            other = yardstick.latest()
            told += f"; yardstick {other:.1f}: {own / other:.2f}, {as_is / other:.2f}, "
            told += f"{even / other:.2f}"
        absent = (f"; without {names} {found[-1]:.3f}" for names, found in self._ratios.items())
        return told + "".join(absent)

    def look_closer(self, batches: int) -> None:
        """Take phases and operators; before any operations are counted, which ends compiling."""
        self._phases = self._ours.phases(batches)
        self._operators, self._busy = self._ours.operators(batches)

    def speed(self, plain: Mapping[PlainKey, Plain]) -> Speed:
        """Medians of what was measured, phases and operators, and operations."""
        ours = self._ours
        rates = {
            way: [1 / statistics.median(column) for column in zip(*turns, strict=True)]
            for way, turns in self._seconds.items()
        }
        operations, moved = self._versions[self._plain].work()
        samples, steps = rates[self._chosen]
        yardstick = plain.get(ours.plain_key)
        return Speed(
            method=self.variant,
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
