import os
import random
import time

import pytest

from amst.config.run import AudioFeatures, TextFeatures, VisualFeatures
from amst.datasets.base import Sample
from amst.datasets.registry import load
from amst.datasets.urfunny import URFUNNY
from amst.features import check
from amst.features.check import Wanted, check_dataset
from amst.features.extract import extract_shard
from amst.features.manifest import write_manifest
from amst.features.samples import write_samples
from tests.datasets.rawtrees import build

FEATURES = {
    "audio": AudioFeatures(mel_bins=16, frames=24),
    "text": TextFeatures(tokens=8, tokenizer="digits"),
    "visual": VisualFeatures(frames=1, size=16),
}


def wanted(raw, folder, **more):
    """What a configuration says of a dataset in one shard."""
    values = {"features": FEATURES, "shards": 1, "splits": ("random",), "split_seed": 0}
    return Wanted(raw=raw, folder=folder, lists=folder / "lists", **{**values, **more})


def lines(found, state):
    """What was found in this state."""
    return [finding.text for finding in found if finding.state == state]


@pytest.fixture
def mvsa(tmp_path):
    """A small MVSA up to its manifest; raw folder and features may be changed."""
    raw, folder = tmp_path / "raw", tmp_path / "features"
    build("MVSA", raw, per_class=5)
    settle(raw)
    dataset = load("MVSA")
    samples, rejected = folder / "samples.jsonl", folder / "rejected.jsonl"
    write_samples(dataset, raw, samples, rejected)
    shard, lost = folder / "shards/000.h5", folder / "shards/000.rejected.jsonl"
    features = {name: FEATURES[name] for name in dataset.modalities}
    extract_shard(dataset, raw, samples, 0, 1, features, shard, lost)
    out = folder / "manifest.json"
    write_manifest(dataset, features, samples, [shard], [rejected, lost], out, lost_limit=1)
    settle(folder)
    return dataset, wanted(raw, folder, features=features)


def settle(folder):
    """Make all files a minute old, as they are when somebody looks at them."""
    before = time.time_ns() - 60 * 10**9
    for path in folder.rglob("*"):
        os.utime(path, ns=(before, before))


def flip(path):
    """Flip a bit in the middle of a file; its times stay."""
    times = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_counts_shards_and_media_are_compared(mvsa):
    found = check_dataset(*mvsa, media=True)
    assert "15 samples of 4511 expected, 1 rows are no samples" in lines(found, "wrong")[0]
    assert len(lines(found, "wrong")) == 1
    ok = "\n".join(lines(found, "ok"))
    assert "split random: 13 / 1 / 1" in ok
    assert "manifest.json: 15 samples in 1 shards" in ok
    assert "30 raw files are those that were extracted" in ok


def test_nothing_there_is_said_to_be_missing(tmp_path):
    found = check_dataset(load("CREMAD"), wanted(tmp_path / "no", tmp_path / "features"))
    assert not lines(found, "ok")
    assert "the raw folder" in lines(found, "missing")[0]
    assert "no shards yet: `snakemake " in lines(found, "missing")[1]


def test_raw_files_that_cannot_be_used_are_listed(tmp_path):
    tree = build("CREMAD", tmp_path / "raw", oddities=True)
    found = check_dataset(load("CREMAD"), wanted(tree.raw, tmp_path / "features"))
    wrong = "\n".join(lines(found, "wrong"))
    assert "1093_DFA_FEA_XX: VideoFlash/1093_DFA_FEA_XX.flv is missing" in wrong
    assert "1 more; `amst samples CREMAD` lists all" in wrong


def test_lists_that_are_not_here_are_missing(tmp_path):
    tree = build("CREMAD", tmp_path / "raw")
    place = wanted(tree.raw, tmp_path / "features", splits=("amst",))
    assert "there is no list" in lines(check_dataset(load("CREMAD"), place), "missing")[0]


def test_a_damaged_shard_is_named_with_its_sample(mvsa):
    flip(mvsa[1].folder / "shards/000.h5")
    (text,) = [each for each in lines(check_dataset(*mvsa), "wrong") if "is damaged" in each]
    assert "shards/000.h5 is damaged: visual of sample " in text


def test_a_missing_shard_and_other_settings_are_told(mvsa):
    dataset, place = mvsa
    (place.folder / "shards/000.h5").unlink()
    assert "000.h5: `snakemake " in lines(check_dataset(dataset, place), "missing")[0]
    other = wanted(place.raw, place.folder, features={**FEATURES, "visual": VisualFeatures()})
    assert any(
        "made with other settings" in each for each in lines(check_dataset(dataset, other), "wrong")
    )


def test_a_second_look_reads_no_file_again_unless_it_changed_or_is_told_to(mvsa, monkeypatch):
    read = []
    real = check.sha256_of
    monkeypatch.setattr(check, "sha256_of", lambda path: read.append(path.name) or real(path))
    check_dataset(*mvsa, media=True)
    assert len(read) == 31
    read.clear()
    check_dataset(*mvsa, media=True)
    assert not read
    raw_file = mvsa[1].raw / "data/3.jpg"
    raw_file.write_bytes(raw_file.read_bytes() + b"more")
    found = check_dataset(*mvsa, media=True)
    assert "raw file data/3.jpg changed since it was extracted" in lines(found, "wrong")
    read.clear()
    flip(mvsa[1].folder / "shards/000.h5")
    assert "manifest.json: 15 samples in 1 shards" in "\n".join(lines(check_dataset(*mvsa), "ok"))
    found = check_dataset(*mvsa, forget=True)
    assert any("is damaged" in each for each in lines(found, "wrong"))


def test_a_raw_folder_that_changed_since_it_was_listed_is_told(mvsa):
    (mvsa[1].raw / "data/5.jpg").unlink()
    wrong = "\n".join(lines(check_dataset(*mvsa, media=True), "wrong"))
    assert "samples.jsonl is not what the raw folder gives now" in wrong


class WholeURFUNNY(URFUNNY):
    """UR-FUNNY with as many rows as the real one has, and ids as given."""

    def __init__(self, ids):
        self.ids = ids

    def read(self, raw):
        for each in self.ids:
            yield Sample(
                id=str(each), label="FUNNY", group="train", files=dict.fromkeys("av", "x"), text="-"
            )


def ids_like_the_real_ones():
    """10166 increasing ids that the rule shuffles to 10397, 3517, 6401, ...

    Where the shuffle takes its first three ids from is known, so they are put there; the others
    lie evenly in between.
    """
    places = list(range(10166))
    random.Random(0).shuffle(places)
    fixed = sorted(zip(places[:3], (10397, 3517, 6401), strict=True))
    ids, begin, low = [], -1, 0
    for end, high in fixed:
        ids += [
            low + (high - low) * (at - begin) // (end - begin) for at in range(begin + 1, end + 1)
        ]
        begin, low = end, high
    return ids + [low + step for step in range(1, 10166 - begin)]


@pytest.mark.parametrize(
    ("change", "state", "text"),
    [
        (lambda ids: ids, "ok", "8132 / 1016 / 1018, train begins 10397, 3517, 6401"),
        (lambda ids: [*ids[:-1], 99999], "ok", "8132 / 1016 / 1018"),
        (lambda ids: [each + 1 for each in ids], "wrong", "begins with 10398, 3518, 6402, not"),
        (lambda ids: ids[1:], "wrong", "cannot be compared with the published"),
    ],
)
def test_the_derived_split_of_ur_funny_is_compared_with_the_published_one(
    tmp_path, change, state, text
):
    dataset = WholeURFUNNY(change(ids_like_the_real_ones()))
    dataset.modalities = {"a": "audio", "v": "visual"}
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/x").touch()
    found = check_dataset(dataset, wanted(tmp_path / "raw", tmp_path / "features"))
    assert any(text in each for each in lines(found, state))
