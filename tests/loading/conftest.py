"""A made-up dataset of two shards: numbers that say which sample they are."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from amst.config.run import (
    AudioFeatures,
    Augmentation,
    Modality,
    SmallCNN,
    SmallTransformer,
    TextFeatures,
    VisualFeatures,
)
from amst.datasets.base import Rejected
from amst.datasets.splitfile import Split
from amst.features.manifest import FORMAT, Manifest, ShardEntry
from amst.features.shard_writer import Header, Row, ShardWriter
from amst.features.shards import columns
from amst.files import sha256_of, write_json

MODALITIES = {
    "audio": Modality(
        kind="audio", features=AudioFeatures(mel_bins=4, frames=6), encoder=SmallCNN()
    ),
    "text": Modality(kind="text", features=TextFeatures(tokens=5), encoder=SmallTransformer()),
    "visual": Modality(
        kind="visual",
        features=VisualFeatures(frames=2, size=16),
        encoder=SmallCNN(),
        crop=12,
        augmentation=Augmentation(),
    ),
}
FEATURES = {name: modality.features for name, modality in MODALITIES.items()}
CLASSES = ("no", "yes")


@dataclass(frozen=True)
class Stored:
    """The dataset: manifest, split, and the 23 samples s00 ... s22 in two shards."""

    manifest: Path
    split: Split


def _row(number: int) -> Row:
    random = np.random.default_rng(number)
    values = {
        name: {
            column: random.integers(0, 200, shape).astype(kind)
            for column, (kind, shape) in columns(features).items()
        }
        for name, features in FEATURES.items()
    }
    values["audio"]["features"] = np.full((6, 4), number, np.float16)
    values["visual"]["size"] = np.array([48 + number, 64], np.int32)
    values["text"]["mask"] = np.array([1, 1, 1, 0, 0], np.uint8)
    return Row(f"s{number:02d}", number % 2, f"g{number}", values, {})


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    return write_dataset(tmp_path)


@pytest.fixture
def modalities() -> dict[str, Modality]:
    return dict(MODALITIES)


def write_dataset(folder: Path) -> Stored:
    entries = []
    for shard, numbers in enumerate((range(0, 23, 2), range(1, 23, 2))):
        path = folder / f"shard-{shard}.h5"
        header = Header("made-up", shard, 2, CLASSES, FEATURES, "hash", 9)
        with ShardWriter(path, header) as writer:
            for number in numbers:
                writer.append(_row(number))
        entries.append(ShardEntry(file=path.name, sha256=sha256_of(path), samples=len(numbers)))
    manifest = Manifest(
        format=FORMAT,
        dataset="made-up",
        classes=CLASSES,
        modalities={name: modality.kind for name, modality in MODALITIES.items()},
        settings=FEATURES,
        settings_hash="hash",
        vocabulary=9,
        listed="digest",
        shards=tuple(entries),
        samples=23,
        rejected=(Rejected(id="lost", reason="no sound"),),
    )
    write_json(folder / "manifest.json", manifest.model_dump(mode="json"))
    split = Split(
        dataset="made-up",
        name="random",
        seed=0,
        parts={
            "train": [f"s{number:02d}" for number in (3, 0, 8, 7, 5, 4, 12, 11, 10, 9, 2)],
            "val": ["s01", "lost", "s06"],
            "test": [f"s{number}" for number in range(13, 23)],
        },
    )
    return Stored(folder / "manifest.json", split)
