"""Datasets that benchmarks load and train on, made by the suite's own steps."""

import os
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from amst import grid
from amst.allocator import keep_freed_memory
from amst.config.run import Features, RunSettings
from amst.config.settings import Config
from amst.errors import AmstError

DATASETS = ("CREMAD", "digits")
"""What can be made here: clips in the sizes of CREMA-D, and the embedded dataset."""
SECONDS = 2.5
"""Length of a clip in the sizes of CREMA-D."""


@dataclass(frozen=True)
class Prepared:
    """A dataset that is ready to be trained on.

    Attributes:
        raw: its raw folder.
        manifest: of its shards.
        split: cut at random, 80/10/10.
    """

    raw: Path
    manifest: Path
    split: Path


def prepare(config: Config, dataset: str, samples: int, folder: Path) -> Prepared:
    """Make raw files, shards, manifest and split.

    Args:
        config: settings of the features.
        dataset: one of ``DATASETS``.
        samples: how many clips.
        folder: an empty folder.
    """
    from amst.datasets.registry import load
    from amst.datasets.splitfile import write_split
    from amst.datasets.splits import make_split
    from amst.features.samples import read_samples, write_samples
    from amst.features.verification import write_manifest

    keep_freed_memory()  # as in a run: before the first threads, here the pool's
    facts, features = load(dataset), grid.features_of(config, dataset)
    raw, listed, lost = folder / "raw", folder / "samples.jsonl", folder / "rejected.jsonl"
    _make_raw(dataset, samples, raw)
    write_samples(facts, raw, listed, lost)
    count = len(os.sched_getaffinity(0))
    with processes(count) as pool:
        jobs = [
            pool.submit(_extract, dataset, raw, listed, shard, count, features, folder)
            for shard in range(count)
        ]
        shards, lists = zip(*(job.result() for job in jobs), strict=True)
    # A handful of clips instead of all of the dataset's: nothing is lost.
    manifest = folder / "manifest.json"
    write_manifest(facts, features, listed, shards, [lost, *lists], manifest, lost_limit=1)
    split = make_split("random", facts, read_samples(listed), seed=0)
    write_split(folder / "split.json", split)
    return Prepared(raw, manifest, folder / "split.json")


def processes(count: int) -> ProcessPoolExecutor:
    """Fresh processes with one arithmetic thread each."""
    return ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_one_thread)


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _make_raw(dataset: str, samples: int, raw: Path) -> None:
    if dataset == "digits":
        from amst.datasets.digits import DigitsSettings, make

        make(raw, DigitsSettings(samples=samples))
    elif dataset == "CREMAD":
        from amst.bench.extraction import make_clips

        make_clips(raw, samples, SECONDS)
    else:
        raise AmstError(
            f"benchmarks cannot make {dataset!r}", f"They know {' and '.join(DATASETS)}"
        )


def _extract(
    dataset: str,
    raw: Path,
    listed: Path,
    shard: int,
    count: int,
    features: Mapping[str, Features],
    folder: Path,
) -> tuple[Path, Path]:
    from amst.datasets.registry import load
    from amst.features.extract import extract_shard

    out, lost = folder / f"{shard:03d}.h5", folder / f"{shard:03d}.rejected.jsonl"
    extract_shard(load(dataset), raw, listed, shard, count, features, out, lost)
    return out, lost


def settings_of(
    config: Config, dataset: str, variant: str, batch_size: int | None = None, **arithmetic: object
) -> RunSettings:
    """Settings of a run of seed 0 on a prepared dataset.

    Args:
        config: defines dataset and variant.
        dataset: one of ``DATASETS``.
        variant: an entry under ``methods``.
        batch_size: another one than the recipe's.
        arithmetic: fields of ``Arithmetic`` to set; None leaves one as it is.
    """
    resolved = grid.Resolver(config)(grid.Cell(dataset, "random", variant, 0))
    values = resolved.model_dump()
    values["recipe"]["batch_size"] = batch_size or resolved.recipe.batch_size
    values["arithmetic"] |= {key: value for key, value in arithmetic.items() if value is not None}
    return RunSettings.model_validate(values)
