"""Hours of runs of which none like them was trained: from the same method on another dataset."""

from collections.abc import Iterable, Mapping

from amst.config.run import RunSettings
from amst.records import RunRecord


def scaled_hours(
    records: Iterable[RunRecord], samples: Mapping[str, int]
) -> dict[tuple[str, tuple[str, ...]], float]:
    """(method, encoders) -> mean hours of an epoch per sample, over all datasets.

    Only runs with the same encoders are alike: an epoch of the embedded dataset's small ones says
    nothing of a ResNet.

    Args:
        records: of finished runs.
        samples: dataset -> number of its samples.
    """
    found: dict[tuple[str, tuple[str, ...]], list[float]] = {}
    for record in records:
        settings = record.settings
        if settings.dataset in samples:
            work = settings.recipe.epochs * samples[settings.dataset]
            key = (settings.method, encoders(settings))
            found.setdefault(key, []).append(record.cost.seconds / 3600 / work)
    return {key: sum(values) / len(values) for key, values in found.items()}


def encoders(settings: RunSettings) -> tuple[str, ...]:
    """Kinds and encoders of the modalities that a run trains, sorted."""
    return tuple(sorted(f"{m.kind} {m.encoder.name}" for m in settings.modalities.values()))
