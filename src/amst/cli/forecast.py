"""Hours of runs by those that are done: of the same dataset, or of the same method on another."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Self

from amst.config.run import RunSettings
from amst.records import RunRecord


@dataclass(frozen=True)
class Hours:
    """What a run takes.

    Attributes:
        epoch: one epoch, validation and loading included.
        end: the linear evaluation, once.
    """

    epoch: float
    end: float

    @classmethod
    def measured(cls, record: RunRecord) -> Self:
        """Of a finished run."""
        cost = record.cost
        epochs = record.settings.recipe.epochs
        return cls(cost.seconds / epochs / 3600, cost.linear_seconds / 3600)

    def times(self, factor: float) -> "Hours":
        """With so many times the samples."""
        return Hours(self.epoch * factor, self.end * factor)

    def of(self, epochs: int) -> float:
        """Of a run of so many epochs."""
        return self.epoch * epochs + self.end


def mean_hours(values: Sequence[Hours]) -> Hours:
    """The mean of at least one."""
    return Hours(fmean(each.epoch for each in values), fmean(each.end for each in values))


def scaled_hours(
    records: Iterable[RunRecord], samples: Mapping[str, int]
) -> dict[tuple[str, tuple[str, ...]], Hours]:
    """(method, encoders) -> mean hours per sample, over all datasets.

    Only runs with the same encoders are alike: an epoch of the embedded dataset's small ones says
    nothing of a ResNet.

    Args:
        records: of finished runs.
        samples: dataset -> number of its samples.
    """
    found: dict[tuple[str, tuple[str, ...]], list[Hours]] = {}
    for record in records:
        settings = record.settings
        if settings.dataset in samples:
            key = (settings.method, encoders(settings))
            share = Hours.measured(record).times(1 / samples[settings.dataset])
            found.setdefault(key, []).append(share)
    return {key: mean_hours(values) for key, values in found.items()}


def encoders(settings: RunSettings) -> tuple[str, ...]:
    """Kinds and encoders of the modalities that a run trains, sorted."""
    return tuple(sorted(f"{m.kind} {m.encoder.name}" for m in settings.modalities.values()))
