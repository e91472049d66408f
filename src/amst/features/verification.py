"""All shards of a dataset verified, what is lost of it counted, and its manifest written."""

import csv
import hashlib
import io
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from amst.config.run import Features
from amst.datasets.base import Dataset, Rejected, Sample
from amst.errors import AmstError
from amst.features.fingerprint import features_hash
from amst.features.manifest import Manifest, ShardEntry
from amst.features.samples import read_rejected, read_samples, read_summary
from amst.files import sha256_of, write_json, write_text

if TYPE_CHECKING:
    from amst.features.shards import Shard

LOST = "lost.csv"
"""All lost samples with their reasons, beside the manifest that was refused for them."""


@dataclass(frozen=True)
class Loss:
    """What is lost of a dataset.

    Attributes:
        rejected: samples that cannot be used.
        gone: how many samples are lost, those included that nothing in the raw folder names.
        total: how many there would be.
    """

    rejected: list[Rejected]
    gone: int
    total: int

    @classmethod
    def of(cls, samples: int, rejected: Iterable[Rejected], expected: int | None) -> "Loss":
        """The loss, given what can be used, what cannot, and `Dataset.expected_samples`."""
        lost = [row for row in rejected if row.annotated]
        total = max(len(lost) + samples, expected or 0)
        return cls(lost, total - samples, total)

    def within(self, limit: float) -> bool:
        """Whether the lost share is at most ``limit``."""
        return self.gone <= limit * self.total

    def over(self, limit: float) -> str:
        """What is lost, in a line that says it is too much."""
        return (
            f"{self.gone} of {self.total} samples are lost, more than {limit:.2%}: "
            f"{len(self.rejected)} rejected, {self.gone - len(self.rejected)} not in the raw folder"
        )


def ids_digest(ids: Iterable[str]) -> str:
    """SHA-256 of ids in any order."""
    return hashlib.sha256(json.dumps(sorted(ids)).encode()).hexdigest()


def read_all_samples(path: Path) -> list[Sample]:
    """Rows of a list of samples, as many as were listed.

    Raises:
        AmstError: it is damaged, or some are missing that the summary beside it counts.
    """
    samples = read_samples(path)
    if path.with_suffix(".json").is_file():
        listed = read_summary(path).samples
        if len(samples) != listed:
            raise AmstError(
                f"{path} has {len(samples)} of the {listed} samples that were listed",
                "Delete it; a call of `snakemake` without targets lists them again",
            )
    return samples


def lost_in_list(dataset: Dataset, samples: Path, limit: float) -> str:
    """One line where the list of samples alone lacks more than may be lost; else empty.

    The manifest of its shards will then be refused, after all of them were extracted.

    Args:
        dataset: the dataset.
        samples: its list of samples; its summary and ``rejected.jsonl`` are beside it.
        limit: share of samples that may be lost.
    """
    rejected = read_rejected(samples.with_name("rejected.jsonl"))
    loss = Loss.of(read_summary(samples).samples, rejected, dataset.expected_samples)
    return "" if loss.within(limit) else f"{dataset.name}: {loss.over(limit)}"


def write_manifest(
    dataset: Dataset,
    features: Mapping[str, Features],
    samples: Path,
    shards: Sequence[Path],
    rejected: Sequence[Path],
    out: Path,
    lost_limit: float,
) -> Manifest:
    """Verify every shard row by row and write the manifest that names them.

    Args:
        dataset: the dataset.
        features: modality name -> settings the shards must have been made with.
        samples: the list of samples.
        shards: the shard files in order, all of them.
        rejected: the lists of rejected samples: of the raw manifest and of each shard.
        out: the manifest, by rename.
        lost_limit: share of samples that may be lost: rejected, or not in the raw folder.

    Raises:
        AmstError: a shard is damaged, belongs to another dataset or was made with other settings;
            a sample is in two shards, or a listed one in none, or is another one in the list; more
            samples are lost than the limit allows; ``lost.csv`` beside ``out`` then has the
            rejected ones, if any.
    """
    # Here, since HDF5 is not part of the light set-up, with which `amst check` counts losses.
    from amst.features.shards import Shard

    entries: list[ShardEntry] = []
    vocabularies: set[int | None] = set()
    seen: dict[str, Path] = {}
    listed = {row.id: row for row in read_all_samples(samples)}
    for index, path in enumerate(shards):
        with Shard(path) as shard:
            _check_belongs(shard, dataset, features, index, len(shards))
            shard.verify()
            for sample in shard.ids:
                _check_new(sample, path, seen)
            _check_rows(shard, dataset, listed, samples)
            vocabularies.add(shard.vocabulary)
            file = os.path.relpath(path, out.parent)
            entries.append(ShardEntry(file=file, sha256=sha256_of(path), samples=len(shard)))
    lost = tuple(row for path in rejected for row in read_rejected(path))
    _check_listed(set(listed), seen, {row.id for row in lost}, samples)
    manifest = Manifest(
        dataset=dataset.name,
        classes=dataset.classes,
        modalities=dict(dataset.modalities),
        settings={name: features[name] for name in dataset.modalities},
        settings_hash=features_hash(dataset, features),
        vocabulary=vocabularies.pop() if len(vocabularies) == 1 else None,
        listed=ids_digest(listed),
        shards=tuple(entries),
        samples=len(seen),
        rejected=lost,
    )
    _check_lost(manifest, dataset.expected_samples, lost_limit, out.with_name(LOST))
    write_json(out, manifest.model_dump(mode="json"))
    return manifest


def totals(manifest: Manifest, expected: int | None) -> str:
    """One line: samples found, expected and rejected.

    Args:
        manifest: the dataset's manifest.
        expected: ``Dataset.expected_samples``.
    """
    more = manifest.samples - (expected or manifest.samples)
    wanted = "" if expected is None else f" of {expected} expected"
    if more > 0:
        wanted = f", {more} more than the {expected} expected"
    lost = len(manifest.rejected)
    return f"{manifest.dataset}: {manifest.samples} samples{wanted}, {lost} rejected"


def _check_belongs(
    shard: "Shard", dataset: Dataset, features: Mapping[str, Features], index: int, count: int
) -> None:
    remedy = "Delete the shard and run the extraction again"
    if (shard.index, shard.shards) != (index, count):
        raise AmstError(
            f"{shard.path} is shard {shard.index} of {shard.shards}, not {index} of {count}", remedy
        )
    if shard.settings_hash != features_hash(dataset, features):
        raise AmstError(
            f"{shard.path} was made of another dataset than {dataset.name}, or with other settings",
            remedy,
        )


def _check_rows(shard: "Shard", dataset: Dataset, listed: Mapping[str, Sample], path: Path) -> None:
    """Refuse samples that are others in the list, and raw files without a checksum."""
    remedy = "Delete the shard and run the preparation again"
    facts = {"class": [dataset.classes[label] for label in shard.labels], "group": shard.groups}
    for name in dataset.modalities:
        facts[f"{name} file"] = shard.texts(f"{name}/path")
        digests = shard.texts(f"{name}/sha256")
        for file, digest in zip(facts[f"{name} file"], digests, strict=True):
            if not re.fullmatch("[0-9a-f]{64}" if file else "", digest):
                raise AmstError(f"shard {shard.path} is damaged: SHA-256 of {file!r}", remedy)
    for place, sample in enumerate(shard.ids):
        if sample not in listed:
            continue  # told once all shards are read
        row = listed[sample]
        wanted = {"class": row.label, "group": row.group}
        wanted |= {f"{name} file": row.files.get(name, "") for name in dataset.modalities}
        for what, value in wanted.items():
            if facts[what][place] != value:
                raise AmstError(
                    f"shard {shard.path} has {facts[what][place]!r} as the {what} of {sample}, "
                    f"{path} has {value!r}",
                    remedy,
                )


def _check_new(sample: str, path: Path, seen: dict[str, Path]) -> None:
    if sample in seen:
        raise AmstError(
            f"sample {sample} is in {seen[sample].name} and in {path.name}",
            "Delete both shards and run the preparation again",
        )
    seen[sample] = path


def _check_listed(listed: set[str], extracted: Iterable[str], lost: set[str], path: Path) -> None:
    """Refuse shards that were made of another list of samples."""
    found = set(extracted)
    if strange := sorted((listed - found - lost) | (found - listed)):
        where = "in no shard" if strange[0] in listed else f"in a shard and not in {path}"
        raise AmstError(
            f"sample {strange[0]} is {where} ({len(strange)} such samples)",
            f"Delete the folder {path.with_name('shards')} and run the preparation again",
        )


def _check_lost(manifest: Manifest, expected: int | None, limit: float, report: Path) -> None:
    """Refuse a dataset of which too much is lost, once all that is lost is written down."""
    loss = Loss.of(manifest.samples, manifest.rejected, expected)
    report.unlink(missing_ok=True)
    if not loss.within(limit):
        named = ""
        if loss.rejected:
            _write_lost(report, loss.rejected)
            named = f" (first: {loss.rejected[0].line}; all rejected ones are in {report})"
        raise AmstError(
            f"{manifest.dataset}: {loss.over(limit)}{named}",
            "Mend the raw files and call again, or accept the loss by "
            f"datasets.{manifest.dataset}.max_lost",
        )
    if not manifest.samples:
        raise AmstError(f"{manifest.dataset} has no samples", "Check the raw folder")


def _write_lost(path: Path, lost: Sequence[Rejected]) -> None:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("sample", "reason", "file"))
    rows.writerows((row.id, row.reason, row.file) for row in lost)
    write_text(path, text.getvalue())
