import json
import subprocess
import sys
from pathlib import Path

import h5py
import pytest

import amst
from amst.config.run import AudioFeatures
from amst.datasets.base import Rejected
from amst.errors import AmstError
from amst.features.extract import extract_shard
from amst.features.manifest import read_manifest
from amst.features.samples import read_rejected, read_samples, write_lines
from amst.features.verification import lost_in_list, totals, write_manifest
from amst.files import sha256_of


@pytest.fixture
def made(digits_raw, digits_features, listed):
    """Two shards of the embedded dataset: what `write_manifest` takes, in its order."""
    dataset, samples = listed("digits", digits_raw)
    shards = [samples.parent / f"shards/{index}.h5" for index in range(2)]
    lists = [samples.with_name("rejected.jsonl"), *(s.with_suffix(".jsonl") for s in shards)]
    for index, shard in enumerate(shards):
        extract_shard(
            dataset, digits_raw, samples, index, 2, digits_features, shard, lists[1 + index]
        )
    return dataset, digits_features, samples, shards, lists, samples.with_name("manifest.json")


def write(made, lost_limit=0.005):
    return write_manifest(*made, lost_limit)


def test_a_manifest_names_its_shards_and_is_read_back(made):
    dataset, features, _, shards, lists, path = made
    written = write(made)
    manifest = read_manifest(path)
    assert manifest == written
    assert manifest.paths(path) == shards
    assert [entry.sha256 for entry in manifest.shards] == [sha256_of(shard) for shard in shards]
    assert sum(entry.samples for entry in manifest.shards) == manifest.samples == 60
    assert manifest.settings == features
    assert manifest.classes == dataset.classes
    assert manifest.vocabulary is not None
    assert lists[0].is_file()
    assert totals(manifest, 60) == "digits: 60 samples of 60 expected, 0 rejected"
    assert totals(manifest, None) == "digits: 60 samples, 0 rejected"
    assert totals(manifest, 58) == "digits: 60 samples, 2 more than the 58 expected, 0 rejected"


def test_the_folder_may_be_moved(made, tmp_path):
    write(made)
    moved = made[5].parent.rename(tmp_path / "elsewhere")
    assert all(
        p.is_file() for p in read_manifest(moved / "manifest.json").paths(moved / "manifest.json")
    )


def test_a_damaged_shard_is_refused_with_its_sample(made):
    shard = made[3][1]
    with h5py.File(shard, "r") as file:
        at = file["visual/features"].id.get_offset()
        first = file["id"][0].decode()
    content = bytearray(shard.read_bytes())
    content[at] ^= 1
    shard.write_bytes(content)
    with pytest.raises(AmstError, match=rf"1\.h5 is damaged: visual of sample {first}"):
        write(made)
    assert not made[5].exists()


def test_shards_in_the_wrong_place_or_of_other_settings_are_refused(made):
    dataset, features, samples, shards, lists, path = made
    with pytest.raises(AmstError, match="is shard 1 of 2, not 0 of 2"):
        write_manifest(dataset, features, samples, shards[::-1], lists, path, 1)
    other = {**features, "audio": AudioFeatures(mel_bins=16, frames=47)}
    with pytest.raises(AmstError, match="other settings"):
        write_manifest(dataset, other, samples, shards, lists, path, 1)


def test_another_raw_file_than_the_list_has_is_refused(made):
    shard = made[3][0]
    content = shard.read_bytes()
    for column, text, said in (
        ("visual/path", b"video/x.mp4", "has 'video/x.mp4' as the visual file of clip-"),
        ("visual/path", b"", "is damaged: SHA-256 of ''"),
        ("audio/sha256", b"0" * 63, r"is damaged: SHA-256 of 'audio/clip-\d+\.wav'"),
    ):
        with h5py.File(shard, "r+") as file:
            file[column][0] = text
        with pytest.raises(AmstError, match=rf"shard .*0\.h5 {said}"):
            write(made)
        shard.write_bytes(content)
    assert write(made).samples == 60


def test_a_sample_that_is_another_one_in_the_list_is_refused(made):
    first, *others = read_samples(made[2])
    for what, name in (("label", "class"), ("group", "group")):
        write_lines(made[2], [first.model_copy(update={what: "another"}), *others])
        said = rf"as the {name} of {first.id}, .*samples\.jsonl has 'another'"
        with pytest.raises(AmstError, match=rf"shard .*\d\.h5 has .*{said}"):
            write(made)


def test_a_sample_in_two_shards_is_refused(made):
    shards = made[3]
    with h5py.File(shards[0], "r") as one, h5py.File(shards[1], "r+") as other:
        for name in ("id", "group", "label", "crc32"):
            other[name][0] = one[name][0]
        twice = one["id"][0].decode()
    with pytest.raises(AmstError, match=f"sample {twice} is in 0.h5 and in 1.h5"):
        write(made)


def test_lost_samples_are_listed_up_to_the_limit_and_refused_above_it(made):
    lost = [Rejected(id=f"lost-{n}", reason="its sound is gone", file="a.wav") for n in range(3)]
    write_lines(made[4][2], lost)
    with pytest.raises(AmstError, match=r"3 of 63 samples are lost.*lost-0.*lost\.csv") as error:
        write(made)
    assert "datasets.digits.max_lost" in error.value.remedy
    assert not made[5].exists()
    table = made[5].with_name("lost.csv")
    assert table.read_text().splitlines()[1:] == [
        f"lost-{n},its sound is gone,a.wav" for n in range(3)
    ]
    manifest = write(made, lost_limit=3 / 63)
    assert list(manifest.rejected) == lost
    assert not table.exists()
    assert totals(manifest, 63) == "digits: 60 samples of 63 expected, 3 rejected"


def test_samples_that_are_not_there_count_as_lost(made, monkeypatch):
    monkeypatch.setattr(type(made[0]), "expected_samples", 80)
    write_lines(made[4][2], [Rejected(id="lost", reason="its sound is gone", file="a.wav")])
    told = "20 of 80 samples are lost, more than 0.50%: 1 rejected, 19 not in the raw folder"
    with pytest.raises(AmstError, match=told):
        write(made)
    assert write(made, lost_limit=0.25).samples == 60


def test_what_the_list_alone_lacks_is_told_before_anything_is_extracted(made, monkeypatch):
    dataset, samples = made[0], made[2]
    assert lost_in_list(dataset, samples, 0.005) == ""
    monkeypatch.setattr(type(dataset), "expected_samples", 80)
    write_lines(made[4][0], [Rejected(id="gone", reason="its sound is gone", file="a.wav")])
    told = "20 of 80 samples are lost, more than 0.50%: 1 rejected, 19 not in the raw folder"
    assert lost_in_list(dataset, samples, 0.005) == f"digits: {told}"
    assert lost_in_list(dataset, samples, 0.25) == ""


def test_what_is_rejected_is_lost_though_as_many_as_expected_are_left(made, monkeypatch):
    monkeypatch.setattr(type(made[0]), "expected_samples", 60)
    lost = [Rejected(id=f"lost-{n}", reason="its sound is gone", file="a.wav") for n in range(3)]
    write_lines(made[4][2], lost)
    with pytest.raises(AmstError, match=r"3 of 63 samples are lost, .*: 3 rejected, 0 not in the"):
        write(made)


def test_where_nothing_is_rejected_no_list_is_announced(made, monkeypatch):
    monkeypatch.setattr(type(made[0]), "expected_samples", 80)
    table = made[5].with_name("lost.csv")
    table.write_text("of an earlier call")
    with pytest.raises(AmstError) as error:
        write(made)
    assert error.value.message.endswith("0 rejected, 20 not in the raw folder")
    assert not table.exists()


def test_shards_of_another_list_of_samples_are_refused(made):
    samples = made[2]
    samples.with_suffix(".json").unlink()  # it counts those of the list that was
    rows = read_samples(samples)
    write_lines(samples, [*rows, rows[0].model_copy(update={"id": "new"})])
    with pytest.raises(AmstError, match=r"sample new is in no shard \(1 such samples\)"):
        write(made)
    write_lines(made[4][1], [Rejected(id="new", reason="its sound is gone", file="a.wav")])
    assert write(made, lost_limit=1).samples == 60
    write_lines(samples, rows[1:])
    with pytest.raises(AmstError, match=f"{rows[0].id} is in a shard and not in "):
        write(made)


def test_a_list_of_samples_that_was_cut_short_is_refused(made):
    samples = made[2]
    rows = samples.read_text().splitlines(keepends=True)
    samples.write_text("".join(rows[:40]))
    with pytest.raises(AmstError, match=r"samples\.jsonl has 40 of the 60 samples that were list"):
        write(made)
    assert not made[5].exists()


def test_a_dataset_of_no_samples_is_refused(made, digits_raw):
    dataset, features, samples, shards, lists, path = made
    samples.with_suffix(".json").unlink()
    write_lines(samples, [])
    for index, (shard, lost) in enumerate(zip(shards, lists[1:], strict=True)):
        extract_shard(dataset, digits_raw, samples, index, 2, features, shard, lost)
    with pytest.raises(AmstError, match=r"digits has no samples\. Check the raw folder"):
        write(made)
    assert not path.exists()


def test_a_file_without_annotation_is_listed_but_no_lost_sample(made):
    file = {"id": "video/x.mp4", "reason": "video/x.mp4 has no row", "file": "video/x.mp4"}
    stray = Rejected(**file, annotated=False)
    write_lines(made[4][0], [stray] * 5)
    write(made)
    assert list(read_manifest(made[5]).rejected) == [stray] * 5
    assert read_rejected(made[4][0]) == [stray] * 5
    # The sample of an annotation may bear its file's path, too.
    write_lines(made[4][0], [Rejected(**file)])
    with pytest.raises(AmstError, match="1 of 61 samples are lost"):
        write(made)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 1}, "manifest format 1, this version reads 2"),
        ({"samples": "many"}, "samples: "),
        ({"colour": "red"}, "colour: "),
    ],
)
def test_a_wrong_manifest_is_refused_by_name(change, message, made):
    write(made)
    value = json.loads(made[5].read_text()) | change
    made[5].write_text(json.dumps(value))
    with pytest.raises(AmstError, match=rf"manifest\.json.*{message}"):
        read_manifest(made[5])


@pytest.mark.parametrize("content", ["", "[1]", "{broken"])
def test_what_is_no_manifest_is_refused(content, tmp_path):
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(AmstError, match="is not a manifest"):
        read_manifest(tmp_path / "manifest.json")


def test_reading_needs_neither_torch_nor_hdf5(made):
    write(made)
    code = (
        "import sys; from amst.features.manifest import read_manifest\n"
        "import amst.features.samples, amst.features.verification; read_manifest(sys.argv[1])\n"
        "print({'torch', 'h5py', 'av', 'PIL', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(made[5])],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(Path(amst.__file__).parents[1])},
    )
    assert done.stdout.strip() == "set()"
