"""Raw files that were changed, added or mended are looked at again, and no others."""

from base64 import urlsafe_b64encode
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from amst.features.manifest import read_manifest
from amst.features.samples import read_samples
from tests.datasets.rawmedia import truncate, write_video
from tests.datasets.rawtrees import build
from tests.end_to_end.suite import Suite

FOLDER = "results/features/AVE"
MANIFEST = f"{FOLDER}/manifest.json"
SAMPLES = 29
LACKING = 1 - SAMPLES / 4143
"""The share of AVE that its miniature tree lacks."""


def configuration(max_lost: float = 1) -> dict[str, Any]:
    """AVE in four shards with small features; the raw folder is copied with the rest."""
    small = {
        "audio": {"features": {"mel_bins": 16, "frames": 48}},
        "visual": {"features": {"size": 32}, "crop": 32},
    }
    values = {"raw": "raw", "shards": 4, "split": "random", "max_lost": max_lost}
    return {
        "grid": {"datasets": ["AVE"], "methods": ["naive"], "seeds": [0]},
        "datasets": {"AVE": {**values, "modalities": small}},
    }


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    """AVE up to its manifest; not to be changed."""
    suite = Suite.new(tmp_path_factory.mktemp("ave"), configuration())
    build("AVE", suite.file("raw"), per_class=1)
    suite.snakemake(MANIFEST)
    return suite


@pytest.fixture
def suite(extracted: Suite, tmp_path: Path) -> Suite:
    """A copy, raw folder included, that a test may change."""
    return extracted.copy(tmp_path / "copy")


def listed(suite: Suite) -> int:
    return len(suite.file(f"{FOLDER}/samples.jsonl").read_text().splitlines())


def manifest(suite: Suite):
    return read_manifest(suite.file(MANIFEST))


def relabel(suite: Suite, video: str, old: str, new: str) -> None:
    path = suite.file("raw/Annotations.txt")
    before = path.read_text()
    path.write_text(before.replace(f"{old}&{video}&", f"{new}&{video}&"))
    assert path.read_text() != before


def test_nothing_runs_while_the_raw_folder_is_the_same_or_gone(suite: Suite):
    assert suite.jobs(MANIFEST) == Counter()
    suite.file("raw").rename(suite.file("elsewhere"))
    assert suite.jobs(MANIFEST) == Counter(), "shards need no raw files"


def test_what_is_left_of_a_raw_folder_destroys_nothing(suite: Suite):
    before = {path: path.read_bytes() for path in suite.file(FOLDER).rglob("*") if path.is_file()}
    suite.file("raw/AVE").rename(suite.file("elsewhere"))
    assert suite.jobs(MANIFEST) == Counter(), "as if all of it were gone"
    gone = {suite.file(f"{FOLDER}/shards/001.h5"), suite.file(MANIFEST)}
    for path in gone:
        path.unlink()
    stopped = suite.snakemake(MANIFEST, check=False)
    assert stopped.returncode != 0
    said = f"AVE: {SAMPLES} samples were listed in raw, and there is no folder raw/AVE. Bring"
    assert said in stopped.stdout + stopped.stderr
    kept = {path for path in before if path.exists() and path.read_bytes() == before[path]}
    assert before.keys() - kept == gone
    suite.file("elsewhere").rename(suite.file("raw/AVE"))
    assert suite.jobs(MANIFEST)["extract"] == 1
    assert all(path.read_bytes() == content for path, content in before.items())


def test_a_changed_raw_file_extracts_its_shard_again(suite: Suite):
    before = manifest(suite)
    write_video(suite.file("raw/AVE/-Mini_00003.mp4"), 4, seconds=1.5)
    assert suite.jobs(MANIFEST) == Counter({"samples": 1, "extract": 1, "manifest": 1})
    pairs = zip(before.shards, manifest(suite).shards, strict=True)
    assert sum(old.sha256 != new.sha256 for old, new in pairs) == 1


def test_a_changed_annotation_extracts_its_shard_again(suite: Suite):
    relabel(suite, "-Mini_00004", "Bark", "Bus")
    name = urlsafe_b64encode(f"{FOLDER}/samples.jsonl".encode()).decode()
    note = suite.file(f".snakemake/metadata/{name}").rename(suite.file("note"))
    looked = suite.snakemake("-n", MANIFEST)
    assert "amst: the raw files of AVE are not those of" in looked.stdout + looked.stderr
    note.rename(suite.file(f".snakemake/metadata/{name}"))
    assert suite.jobs(MANIFEST) == Counter({"samples": 1, "extract": 1, "manifest": 1})
    assert manifest(suite).samples == SAMPLES


def test_an_added_sample_extracts_its_shard_and_another_part_or_reader_none(suite: Suite):
    train, test = (suite.file(f"raw/{name}Set.txt") for name in ("train", "test"))
    line, _, rest = train.read_text().partition("\n")
    train.write_text(rest)
    test.write_text(f"{test.read_text().rstrip()}\n{line}\n")
    reader = suite.checkout / "src/amst/datasets/ave.py"
    reader.write_text(reader.read_text() + "\nADDED_BY_A_TEST = 1\n")
    write_video(suite.file("raw/AVE/-Added_0001.mp4"), 4)
    path = suite.file("raw/Annotations.txt")
    path.write_text(path.read_text().rstrip("\n") + "\nBark&-Added_0001&good&0&10\n")
    assert suite.jobs(MANIFEST) == Counter({"samples": 1, "extract": 1, "manifest": 1})
    assert manifest(suite).samples == listed(suite) == SAMPLES + 1
    parts = {row.id: row.part for row in read_samples(suite.file(f"{FOLDER}/samples.jsonl"))}
    assert parts[":".join(line.split("&")[1::-1])] == "test"


def test_mending_the_raw_files_mends_the_dataset(suite: Suite):
    """Both losses: one seen when the files are listed, one when they are decoded."""
    suite.configure(configuration(max_lost=LACKING + 1e-6))
    videos = [suite.file(f"raw/AVE/-Mini_0000{number}.mp4") for number in (5, 6)]
    whole = [video.read_bytes() for video in videos]
    truncate(videos[0], 0.5)
    videos[1].unlink()
    done = suite.snakemake(MANIFEST, check=False)
    assert done.returncode != 0
    early = f"amst: AVE: {4143 - SAMPLES + 1} of 4143 samples are lost, more than"
    assert (done.stdout + done.stderr).count(early) == 1, "before they are extracted"
    told = suite.file("logs/manifest/AVE.log").read_text()
    assert f"{4143 - SAMPLES + 2} of 4143 samples are lost" in told
    assert "2 rejected" in told
    assert f"{FOLDER}/lost.csv" in told
    assert len(suite.file(f"{FOLDER}/lost.csv").read_text().splitlines()) == 3
    for video, content in zip(videos, whole, strict=True):
        video.write_bytes(content)
    assert suite.jobs(MANIFEST)["manifest"] == 1
    assert manifest(suite).samples == SAMPLES
    assert not manifest(suite).rejected
    assert not suite.file(f"{FOLDER}/lost.csv").exists()
