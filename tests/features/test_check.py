import json
import os
import random
import time
from dataclasses import replace

import pytest

from amst.config.run import AudioFeatures, TextFeatures, VisualFeatures
from amst.datasets.base import Rejected, Sample
from amst.datasets.registry import load
from amst.datasets.urfunny import URFUNNY
from amst.errors import AmstError
from amst.features import check
from amst.features.check import VERIFIED, Wanted, check_dataset
from amst.features.extract import extract_shard
from amst.features.samples import write_samples
from amst.features.verification import write_manifest
from tests.datasets.rawmedia import truncate
from tests.datasets.rawtrees import build

FEATURES = {
    "audio": AudioFeatures(mel_bins=16, frames=24),
    "text": TextFeatures(tokens=8, tokenizer="digits"),
    "visual": VisualFeatures(frames=1, size=16),
}


def wanted(raw, folder, **more):
    """What a configuration says of a dataset in one shard."""
    values = {"features": FEATURES, "shards": 1, "splits": ("random",), "split_seed": 0}
    values["max_lost"] = 0.005
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
    features = {name: FEATURES[name] for name in dataset.modalities}
    place = wanted(raw, folder, features=features)
    prepare(dataset, replace(place, max_lost=1))
    return dataset, place


def prepare(dataset, place):
    """From the raw folder to the manifest."""
    folder, features = place.folder, place.features
    samples, rejected = folder / "samples.jsonl", folder / "rejected.jsonl"
    write_samples(dataset, place.raw, samples, rejected)
    shard, lost = folder / "shards/000.h5", folder / "shards/000.rejected.jsonl"
    extract_shard(dataset, place.raw, samples, 0, 1, features, shard, lost)
    out, lists = folder / "manifest.json", [rejected, lost]
    write_manifest(dataset, features, samples, [shard], lists, out, place.max_lost)
    settle(folder)


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
    told = (
        "15 samples of 4511 expected, 4496 lost: over the limit of 0.50% (max_lost), 1 rows are no"
    )
    assert told in lines(found, "wrong")[0]
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


def test_a_raw_folder_that_is_there_and_cannot_be_read_is_wrong(tmp_path):
    tree = build("AVE", tmp_path / "raw", per_class=1)
    (tree.raw / "Annotations.txt").unlink()
    found = check_dataset(load("AVE"), wanted(tree.raw, tmp_path / "features"))
    (text,) = lines(found, "wrong")
    assert text.startswith("raw folder: there is no annotation file ")


def test_raw_files_that_cannot_be_used_are_listed(tmp_path):
    tree = build("CREMAD", tmp_path / "raw", oddities=True)
    found = check_dataset(load("CREMAD"), wanted(tree.raw, tmp_path / "features"))
    wrong = "\n".join(lines(found, "wrong"))
    assert "1093_DFA_FEA_XX: VideoFlash/1093_DFA_FEA_XX.flv is missing" in wrong
    assert "3 more; `amst samples CREMAD` lists all" in wrong


def test_what_is_lost_within_the_limit_is_noted_and_nothing_is_wrong(mvsa):
    dataset, place = mvsa
    (place.raw / "data/5.jpg").write_bytes(b"")
    truncate(place.raw / "data/7.jpg")
    settle(place.raw)
    place = replace(place, max_lost=1)
    prepare(dataset, place)
    found = check_dataset(dataset, place)
    assert not lines(found, "wrong") + lines(found, "missing")
    assert "14 samples of 4511 expected, 1 rejected" in "\n".join(lines(found, "ok"))
    noted = lines(found, "noted")
    assert noted[0] == "raw folder: 5: data/5.jpg is empty"
    assert noted[1].startswith("lost in extraction: 7: visual: its picture cannot be decoded")


def test_over_the_limit_the_list_of_all_that_is_lost_is_named(mvsa):
    dataset, place = mvsa
    (place.folder / "manifest.json").unlink()
    truncate(place.raw / "data/7.jpg")
    with pytest.raises(AmstError):
        prepare(dataset, place)
    (text,) = [each for each in lines(check_dataset(*mvsa), "wrong") if "lost.csv" in each]
    assert "mend the raw files and call `snakemake " in text


def test_shards_of_another_list_are_told(mvsa):
    path = mvsa[1].folder / "samples.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    found = check_dataset(*mvsa)
    assert any("was made of other samples than" in each for each in lines(found, "wrong"))


def test_more_samples_than_there_should_be_are_noted(tmp_path, monkeypatch):
    tree = build("CREMAD", tmp_path / "raw")
    place = wanted(tree.raw, tmp_path / "features")
    text = "raw folder: 1 more than there should be: look for copies"
    monkeypatch.setattr(type(load("CREMAD")), "expected_samples", len(tree.samples))
    assert text not in lines(check_dataset(load("CREMAD"), place), "noted")
    monkeypatch.setattr(type(load("CREMAD")), "expected_samples", len(tree.samples) - 1)
    assert text in lines(check_dataset(load("CREMAD"), place), "noted")


def test_reasons_that_name_their_place_do_not_name_it_twice(tmp_path):
    tree = build("AVE", tmp_path / "raw", per_class=1)
    with (tree.raw / "Annotations.txt").open("a") as file:
        file.write("\nnothing of use\n")
    found = check_dataset(load("AVE"), wanted(tree.raw, tmp_path / "features"))
    (text,) = [each for each in lines(found, "wrong") if "is not <category>" in each]
    assert text.count("Annotations.txt:") == 1


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
    shard, manifest = place.folder / "shards/000.h5", place.folder / "manifest.json"
    shard.unlink()
    (text,) = lines(check_dataset(dataset, place), "missing")
    assert text == f"shard {shard}: `snakemake {shard} {manifest}` makes it again"
    other = wanted(place.raw, place.folder, features={**FEATURES, "visual": VisualFeatures()})
    assert any(
        "made with other settings" in each for each in lines(check_dataset(dataset, other), "wrong")
    )


def test_a_folder_that_the_suite_made_is_made_again_as_a_whole(mvsa, monkeypatch):
    dataset, place = mvsa
    (place.raw / "data/5.jpg").unlink()
    listed, shard = place.folder / "samples.jsonl", place.folder / "shards/000.h5"
    text = f"{listed} is not what the raw folder gives now: "
    changed = f"`snakemake {listed} {place.folder / 'manifest.json'}` takes in what changed"
    assert text + changed in lines(check_dataset(dataset, place), "wrong")
    for unseen, gone in (((listed,), listed), ((listed, shard), place.folder)):
        first = f"{text}delete {gone}, which Snakemake has no notes of, and {changed}"
        found = check_dataset(dataset, replace(place, unseen=unseen))
        assert first in lines(found, "wrong")
    monkeypatch.setattr(type(dataset), "is_made", True)
    made = place.raw / "MVSA.json"
    again = f"{text}delete {made}, and `snakemake {made}` makes it again"
    assert again in lines(check_dataset(dataset, place), "wrong")


def test_a_list_of_samples_that_was_cut_short_is_told(mvsa):
    dataset, place = mvsa
    listed = place.folder / "samples.jsonl"
    rows = listed.read_text().splitlines(keepends=True)
    listed.write_text("".join(rows[:-3]))
    text = f"{listed} has {len(rows) - 3} of the {len(rows)} samples that were listed. Delete it; "
    assert any(each.startswith(text) for each in lines(check_dataset(dataset, place), "wrong"))


def test_a_raw_file_that_is_gone_is_missing(mvsa):
    (mvsa[1].raw / "data/5.jpg").unlink()
    found = check_dataset(*mvsa, media=True)
    assert lines(found, "missing") == ["raw file data/5.jpg, which the shards were made of"]
    assert not any("are those that were extracted" in each for each in lines(found, "ok"))


def test_a_text_without_a_file_of_its_own_is_no_missing_file(tmp_path):
    raw = build("URFUNNY", tmp_path / "raw", per_class=1).raw
    place = wanted(raw, tmp_path / "features", max_lost=1)
    prepare(load("URFUNNY"), place)
    found = check_dataset(load("URFUNNY"), place, media=True)
    assert not lines(found, "missing")
    assert "2 raw files are those that were extracted" in lines(found, "ok")


def test_another_number_of_shards_is_another_setting(mvsa):
    dataset, place = mvsa
    wrong = lines(check_dataset(dataset, replace(place, shards=2)), "wrong")
    assert any("made with other settings" in each for each in wrong)


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


CHANGED = "raw file data/3.jpg changed since it was extracted"


def test_a_file_with_another_size_or_another_time_alone_is_read_again(mvsa):
    check_dataset(*mvsa, media=True)
    path = mvsa[1].raw / "data/3.jpg"
    content, before = path.read_bytes(), path.stat().st_mtime_ns
    path.write_bytes(content + b"more")
    os.utime(path, ns=(before, before))
    assert CHANGED in lines(check_dataset(*mvsa, media=True), "wrong")
    path.write_bytes(content)
    os.utime(path, ns=(before, before))
    assert CHANGED not in lines(check_dataset(*mvsa, media=True), "wrong")
    flip(path)
    os.utime(path, ns=(before + 1, before + 1))
    assert CHANGED in lines(check_dataset(*mvsa, media=True), "wrong")


def test_the_checksum_of_a_file_that_was_just_written_is_not_kept(mvsa):
    """Written again within a tick of the clock, it would look the same."""
    path = mvsa[1].raw / "data/3.jpg"
    path.write_bytes(path.read_bytes())
    assert CHANGED not in lines(check_dataset(*mvsa, media=True), "wrong")
    flip(path)
    assert CHANGED in lines(check_dataset(*mvsa, media=True), "wrong")


@pytest.mark.parametrize("content", ["", "[1, 2]", "{broken"])
def test_checksums_that_were_kept_and_cannot_be_read_are_worked_out_anew(content, mvsa):
    kept = mvsa[1].folder / VERIFIED
    kept.write_text(content)
    assert "30 raw files are those" in "\n".join(lines(check_dataset(*mvsa, media=True), "ok"))
    assert len(json.loads(kept.read_text())) == 31


def test_a_raw_folder_that_changed_since_it_was_listed_is_told(mvsa):
    (mvsa[1].raw / "data/5.jpg").unlink()
    wrong = "\n".join(lines(check_dataset(*mvsa, media=True), "wrong"))
    assert "samples.jsonl is not what the raw folder gives now" in wrong


class WholeURFUNNY(URFUNNY):
    """UR-FUNNY with as many rows as the real one has, and ids as given."""

    def __init__(self, ids, lost=()):
        self.ids = ids
        self.lost = lost

    def read(self, raw):
        for each in self.ids:
            if each in self.lost:
                yield Rejected(id=str(each), reason="its file is gone", file="v.mp4")
                continue
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
        (lambda ids: ids, "ok", "as published: 8132 / 1016 / 1018, train begins 10397, 3517, 6401"),
        (lambda ids: ids, "ok", "split amst: 8132 / 1016 / 1018"),
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


def test_a_lost_file_does_not_hinder_the_comparison(tmp_path):
    ids = ids_like_the_real_ones()
    dataset = WholeURFUNNY(ids, lost={10397, ids[7]})
    dataset.modalities = {"a": "audio", "v": "visual"}
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/x").touch()
    found = check_dataset(dataset, wanted(tmp_path / "raw", tmp_path / "features"))
    assert not lines(found, "wrong")
    assert any("as published" in each and "less 2 lost" in each for each in lines(found, "ok"))


def test_a_split_that_lacks_more_than_may_be_lost_is_wrong(tmp_path):
    ids = ids_like_the_real_ones()
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/x").touch()
    text = "of its samples are missing or rejected"
    for count, state in ((50, "ok"), (51, "wrong")):  # 0.5 % of 10166 are 50.83
        dataset = WholeURFUNNY(ids, lost=set(ids[:count]))
        dataset.modalities = {"a": "audio", "v": "visual"}
        found = check_dataset(dataset, wanted(tmp_path / "raw", tmp_path / "features"))
        assert any(each.endswith(f", {count} {text}") for each in lines(found, state))
