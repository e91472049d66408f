"""The data report: what a dataset holds, what was lost, what leaks, and what it looks like."""

from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from amst.config.run import AudioFeatures, TextFeatures, VisualFeatures
from amst.datasets.base import PARTS, Dataset, Part, Rejected
from amst.datasets.splitfile import Split, read_split
from amst.datasets.splits import LeakageReport, leakage
from amst.features.frames import is_kept
from amst.features.manifest import Manifest, read_manifest
from amst.features.report_page import render
from amst.features.samples import read_samples, read_summary
from amst.features.shards import Shard
from amst.files import write_json, write_text

SILENT_PEAK = 1e-3
"""A clip that never exceeds this share of full scale (-60 dB) counts as silent."""


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Spread(_Row):
    """How a quantity is spread over the samples."""

    minimum: float
    median: float
    mean: float
    maximum: float


class AudioReport(_Row):
    """The sound of a modality.

    Attributes:
        seconds: length of the clips.
        cut: clips longer than the stored features.
        silent: ids of clips that are silent.
    """

    seconds: Spread
    cut: int
    silent: tuple[str, ...]


class VisualReport(_Row):
    """The pictures of a modality.

    Attributes:
        frames: frames per clip; 1 for a still picture.
        rates: frames per second -> clips; 0 for still pictures.
        sizes: '<width>x<height>' of the original -> clips, the ten most frequent.
        repeated: clips in which one frame stands for several, for want of frames.
        damaged: ids of clips that are used in spite of damaged frames.
    """

    frames: Spread
    rates: dict[str, int]
    sizes: dict[str, int]
    repeated: int
    damaged: tuple[str, ...]


class TextReport(_Row):
    """The sentences of a modality.

    Attributes:
        tokens: tokens per sentence.
        full: sentences that fill all tokens there are, or were cut to them.
    """

    tokens: Spread
    full: int


class SplitReport(_Row):
    """One split: where its samples went, and what its parts share.

    Attributes:
        note: what was cut otherwise than the split's source has it.
        extracted: samples with features, per part.
        absent: ids that the split's source names and that are missing or rejected.
        unassigned: ids in no part.
        missing: classes that a part holds no sample of, in one line.
    """

    name: str
    seed: int
    note: str
    extracted: dict[Part, int]
    absent: int
    unassigned: int
    missing: str
    leakage: LeakageReport


class DataReport(_Row):
    """All that the report says, as data.

    Attributes:
        expected: samples that the complete raw folder gives; None when that is a setting.
        classes: class -> samples with features.
        set_aside: reason -> annotated rows that are no samples by definition.
    """

    dataset: str
    samples: int
    expected: int | None
    classes: dict[str, int]
    set_aside: dict[str, int]
    modalities: dict[str, AudioReport | VisualReport | TextReport]
    splits: tuple[SplitReport, ...]
    rejected: tuple[Rejected, ...]


def write_report(
    dataset: Dataset, manifest: Path, samples: Path, splits: Sequence[Path]
) -> DataReport:
    """Describe a dataset in ``report.json`` and ``report.html`` beside its manifest.

    The page holds everything it shows and needs no network. Equal data give equal files.

    Args:
        dataset: the dataset.
        manifest: its manifest; the shards it names are read.
        samples: the list of all samples, with its summary beside it.
        splits: split files to look into for leaks.

    Raises:
        AmstError: a file is missing or damaged, or a split names foreign samples.
    """
    tables = _Tables(read_manifest(manifest), manifest)
    rows = read_samples(samples)
    report = DataReport(
        dataset=dataset.name,
        samples=tables.manifest.samples,
        expected=dataset.expected_samples,
        classes=tables.class_counts(),
        set_aside=read_summary(samples).set_aside,
        modalities={name: tables.describe(name) for name in sorted(tables.manifest.modalities)},
        splits=tuple(
            _split_report(split, leakage(split, rows, tables.checksums()), set(tables.ids))
            for split in map(read_split, splits)
        ),
        rejected=tables.manifest.rejected,
    )
    write_json(manifest.with_name("report.json"), report.model_dump(mode="json"))
    page = render(dataset, report.model_dump(), tables)
    write_text(manifest.with_name("report.html"), page)
    return report


def _split_report(split: Split, leaks: LeakageReport, extracted: set[str]) -> SplitReport:
    return SplitReport(
        name=split.name,
        seed=split.seed,
        note=split.note,
        extracted={part: sum(each in extracted for each in split.parts[part]) for part in PARTS},
        absent=len(split.absent),
        unassigned=len(split.unassigned),
        missing=leaks.missing_line,
        leakage=leaks,
    )


class _Tables:
    """The small columns of all shards, joined; features stay on disk.

    Attributes:
        manifest: names the shards.
        ids: ids of all samples.
        labels: their class indices, (n,).
    """

    def __init__(self, manifest: Manifest, path: Path) -> None:
        self.manifest = manifest
        self._shards = [Shard(shard) for shard in manifest.paths(path)]
        self.ids = [sample for shard in self._shards for sample in shard.ids]
        self.labels = np.concatenate([shard.labels for shard in self._shards])

    def column(self, name: str) -> NDArray[Any]:
        """A column of all samples, (n, ...)."""
        return np.concatenate([shard.array(name) for shard in self._shards])

    def row(self, name: str, sample: int) -> NDArray[Any]:
        """One sample's row of a column; only that row is read."""
        for shard in self._shards:
            if sample < len(shard):
                return shard.array(name)[sample]
            sample -= len(shard)
        raise IndexError(sample)

    def checksums(self) -> dict[str, dict[str, str]]:
        """SHA-256 of the files of sound and pictures by sample id and modality.

        Text is left out: that two people write the same short sentence is no leak.
        """
        found: dict[str, dict[str, str]] = {sample: {} for sample in self.ids}
        kinds = self.manifest.modalities
        for name in sorted(name for name in kinds if kinds[name] != "text"):
            digests = [each for shard in self._shards for each in shard.texts(f"{name}/sha256")]
            for sample, digest in zip(self.ids, digests, strict=True):
                if digest:
                    found[sample][name] = digest
        return found

    def class_counts(self) -> dict[str, int]:
        """Class -> samples."""
        counts = np.bincount(self.labels, minlength=len(self.manifest.classes))
        return dict(zip(self.manifest.classes, counts.tolist(), strict=True))

    def label(self, sample: int) -> str:
        """Class name of a sample."""
        return self.manifest.classes[int(self.labels[sample])]

    def examples(self, count: int) -> list[int]:
        """Samples to look at: of every class in turn the next one by id."""
        waiting: dict[int, list[int]] = {}
        for sample in sorted(range(len(self.ids)), key=lambda each: self.ids[each], reverse=True):
            waiting.setdefault(int(self.labels[sample]), []).append(sample)
        chosen: list[int] = []
        while len(chosen) < min(count, len(self.ids)):
            for label in sorted(waiting):
                if waiting[label] and len(chosen) < count:
                    chosen.append(waiting[label].pop())
        return sorted(chosen, key=lambda each: (int(self.labels[each]), self.ids[each]))

    def describe(self, name: str) -> AudioReport | VisualReport | TextReport:
        """What a modality's columns say."""
        match self.manifest.settings[name]:
            case AudioFeatures() as features:
                seconds = self.column(f"{name}/seconds")
                beyond = features.window + features.shift * features.frames
                return AudioReport(
                    seconds=_spread(seconds),
                    cut=int((seconds >= beyond).sum()),
                    silent=self._where(self.column(f"{name}/peak") < SILENT_PEAK),
                )
            case VisualFeatures() as features:
                return self._describe_visual(name, features)
            case TextFeatures() as features:
                tokens = self.column(f"{name}/mask").sum(axis=1, dtype=np.int64)
                full = int((tokens == features.tokens).sum())
                return TextReport(tokens=_spread(tokens), full=full)

    def _describe_visual(self, name: str, features: VisualFeatures) -> VisualReport:
        decoded = self.column(f"{name}/decoded")
        rates = self.column(f"{name}/rate")
        sizes = Counter(f"{width}x{height}" for height, width in self.column(f"{name}/size"))
        kept = [
            _kept(int(frames), float(rate), features.per_second)
            for frames, rate in zip(decoded, rates, strict=True)
        ]
        return VisualReport(
            frames=_spread(decoded),
            rates={f"{rate:.5g}": n for rate, n in sorted(Counter(rates.tolist()).items())},
            sizes=dict(sizes.most_common(10)),
            repeated=sum(frames < features.frames for frames in kept),
            damaged=self._where(self.column(f"{name}/damaged") > 0),
        )

    def _where(self, chosen: NDArray[np.bool_]) -> tuple[str, ...]:
        return tuple(sorted(self.ids[sample] for sample in np.flatnonzero(chosen)))


@cache
def _kept(decoded: int, rate: float, per_second: int) -> int:
    """How many frames of a clip the frame rule keeps; a still picture is one."""
    if rate == 0:
        return decoded
    return sum(is_kept(index, rate, per_second) for index in range(decoded))


def _spread(values: NDArray[Any]) -> Spread:
    return Spread(
        minimum=float(values.min()),
        median=float(np.median(values)),
        mean=float(values.mean()),
        maximum=float(values.max()),
    )
