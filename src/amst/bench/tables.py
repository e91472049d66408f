"""How long tables take: synthetic records of a large grid, without and with the bootstrap."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from amst.config.run import Arithmetic, AudioFeatures, Modality, Recipe, RunSettings, SmallCNN
from amst.metrics import metrics_of
from amst.records import Cost, Environment, Result, RunRecord
from amst.results.cells import Run, collect
from amst.results.names import TABLE_NAMES, TABLES_FROM_PREDICTIONS
from amst.results.tables import Material, write_tables

VARIANTS, SEEDS = 10, 10
CLASSES = tuple("0123456789")
SAMPLES = 300
"""Test samples of each dataset."""
MODALITIES = ("first", "second")
PREDICTIONS = ("fused", *(f"{kind}/{m}" for kind in ("modality", "linear") for m in MODALITIES))


@dataclass(frozen=True)
class Timing:
    """Seconds of one set of tables, the reading and checking of records included."""

    tables: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class TableTimes:
    """Tables of synthetic runs, and what no program that reads their records can do without.

    Attributes:
        records: runs in the tables.
        parsing: seconds in which `json.loads` alone reads all records, unchecked.
        sets: the tables made at once; those with the bootstrap apart, where they were asked for.
    """

    records: int
    parsing: float
    sets: tuple[Timing, ...]

    def lines(self) -> list[str]:
        """Seconds, and how many times the bare reading they are."""
        return [
            f"{self.parsing:8.1f} s  {self.records} records, read by json.loads alone",
            *(
                f"{each.seconds:8.1f} s  {each.seconds / self.parsing:5.1f} times that: "
                f"{', '.join(each.tables)}"
                for each in self.sets
            ),
        ]


def time_tables(records: int, folder: Path, significance: bool = False) -> TableTimes:
    """Write synthetic runs into ``folder`` and time the tables made of them.

    Args:
        records: how many, rounded up to whole datasets of 10 variants with 10 seeds.
        folder: empty; the files stay there.
        significance: whether to time the tables with the paired bootstrap too, apart.
    """
    runs = list(_runs(records, folder / "runs", significance))
    start = time.perf_counter()
    for run in runs:
        json.loads(run.path.read_bytes())
    parsing = time.perf_counter() - start
    plain = tuple(name for name in TABLE_NAMES if name not in TABLES_FROM_PREDICTIONS)
    sets = [plain] + ([TABLES_FROM_PREDICTIONS] if significance else [])
    timings = []
    for tables in sets:
        start = time.perf_counter()
        write_tables(Material(collect(runs, ())), folder / "tables", tables)
        timings.append(Timing(tables, time.perf_counter() - start))
    return TableTimes(len(runs), parsing, tuple(timings))


def _runs(records: int, root: Path, predictions: bool) -> Iterator[Run]:
    generator = np.random.default_rng(0)
    labels = np.arange(SAMPLES) % len(CLASSES)
    for number in range(-(-records // (VARIANTS * SEEDS))):
        for variant in range(VARIANTS):
            for seed in range(SEEDS):
                record, logits = _record(number, variant, seed, labels, generator)
                folder = root / record.settings.run_id
                folder.mkdir(parents=True)
                path = folder / "run.json"
                path.write_text(record.model_dump_json(indent=2), encoding="utf-8")
                if predictions:
                    stored: dict[str, Any] = {
                        "test/ids": np.arange(SAMPLES).astype(str),
                        "test/labels": labels,
                        "test/logits/fused": logits,
                    }
                    np.savez(folder / "predictions.npz", **stored)
                settings = record.settings
                where = (settings.dataset, settings.split, settings.variant, seed)
                yield Run(*where, path, "done", settings.method)


def _record(
    dataset: int, variant: int, seed: int, labels: np.ndarray, generator: np.random.Generator
) -> tuple[RunRecord, np.ndarray]:
    """A record such as training leaves, and the test logits of its fused prediction."""
    logits = generator.normal(0, 1, (SAMPLES, len(CLASSES))).astype(np.float32)
    logits[np.arange(SAMPLES), labels] += 1 + 0.1 * variant
    metrics = metrics_of(logits, labels, CLASSES)
    subsets = {"first": 0.6, "second": 0.5, "first+second": metrics.accuracy}
    settings = RunSettings(
        dataset=f"dataset{dataset:03d}",
        split="random",
        variant=f"variant{variant}" if variant else "naive",
        seed=seed,
        method="naive" if variant == 0 else "pmr",
        method_settings={},
        modalities=dict.fromkeys(
            MODALITIES, Modality(kind="audio", features=AudioFeatures(), encoder=SmallCNN())
        ),
        recipe=Recipe(),
        arithmetic=Arithmetic(),
    )
    record = RunRecord(
        run=settings.run_id,
        settings=settings,
        settings_hash=settings.hash,
        digest=settings.hash,
        classes=CLASSES,
        main="fused",
        results=tuple(
            Result(
                selected_by="fused",
                best_epoch=9,
                prediction=prediction,
                part=part,
                samples=SAMPLES,
                metrics=metrics,
            )
            for prediction in PREDICTIONS
            for part in ("val", "test")
        ),
        subset_accuracy=subsets,
        shapley=dict.fromkeys(MODALITIES, metrics.accuracy / 2),
        parameters=1_000_000,
        cost=_COST,
        environment=_ENVIRONMENT,
        started="2025-01-01T00:00:00+00:00",
        finished="2025-01-01T00:02:00+00:00",
    )
    return record, logits


_COST = Cost(
    train_seconds=100.0,
    validate_seconds=10.0,
    load_seconds=1.0,
    peak_host_bytes=2**30,
    peak_device_bytes=2**30,
    attempts=1,
    forward_flops=dict.fromkeys(MODALITIES, 1e12),
    backward_flops=dict.fromkeys(MODALITIES, 2e12),
    linear_seconds=0.0,
)
_ENVIRONMENT = Environment(
    suite_version="0",
    commit="0" * 40,
    code_digest="0" * 16,
    package_digest="0" * 16,
    container_digest="",
    python="3.11",
    # As many as the pinned set has.
    packages={f"package{number}": "1.0.0" for number in range(150)},
    host="host",
    device="device",
)
