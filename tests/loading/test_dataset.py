import json
import resource

import h5py
import numpy as np
import pytest
import torch

from amst.config.run import AudioFeatures
from amst.errors import AmstError
from amst.loading import dataset
from amst.loading.dataset import FeatureStore

TRAIN = (3, 0, 8, 7, 5, 4, 12, 11, 10, 9, 2)


def test_a_part_has_the_rows_of_its_ids_in_the_order_of_the_split(stored, modalities):
    part = FeatureStore(stored.manifest).part(stored.split, "train", modalities)
    assert part.ids == tuple(f"s{number:02d}" for number in TRAIN)
    assert part.labels.tolist() == [number % 2 for number in TRAIN]
    sounds = part.inputs["audio"].take(torch.arange(11))["features"]
    assert sounds[:, 0, 0].tolist() == list(TRAIN)
    assert part.sizes["visual"][:, 0].tolist() == [48 + number for number in TRAIN]


@pytest.mark.parametrize("large", [0, dataset._LARGE_ROW])
def test_mapped_and_resident_parts_hold_the_same(stored, modalities, large, monkeypatch):
    """Whether rows in memory are copied one by one or together."""
    monkeypatch.setattr(dataset, "_LARGE_ROW", large)
    store = FeatureStore(stored.manifest)
    positions = torch.tensor([10, 0, 0, 4])
    parts = [store.part(stored.split, "train", modalities, mapped) for mapped in (False, True)]
    for name in modalities:
        resident, mapped = (part.inputs[name].take(positions) for part in parts)
        assert resident.keys() == mapped.keys()
        for column in resident:
            assert torch.equal(resident[column], mapped[column])
            assert resident[column].dtype == mapped[column].dtype


def test_many_shards_may_be_open(stored):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    hard = before[1]
    most = 1 << 16 if hard == resource.RLIM_INFINITY else min(1 << 16, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
        FeatureStore(stored.manifest)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (most, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("error", [ValueError("exceeds maximum"), PermissionError()])
def test_a_system_that_refuses_more_open_files_ends_nothing(stored, monkeypatch, error):
    def refuse(*_):
        raise error

    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    FeatureStore(stored.manifest)


def test_only_the_modalities_of_the_run_are_read(stored, modalities):
    part = FeatureStore(stored.manifest).part(stored.split, "train", {"audio": modalities["audio"]})
    assert set(part.inputs) == {"audio"}
    assert not part.sizes


def test_rejected_samples_of_a_part_are_left_out_and_named(stored, modalities):
    part = FeatureStore(stored.manifest).part(stored.split, "val", modalities)
    assert part.ids == ("s01", "s06")
    assert part.rejected == ("lost",)


@pytest.mark.parametrize("mapped", [False, True])
def test_a_part_moves_to_a_device_whole(stored, modalities, mapped, monkeypatch):
    """In pieces where it is mapped: the host may have less memory than the device."""
    monkeypatch.setattr(dataset, "_PIECE", 2000)
    part = FeatureStore(stored.manifest).part(stored.split, "train", modalities, mapped)
    moved = part.on(torch.device("cpu"))
    positions = torch.tensor([2, 0, 3])
    for name in modalities:
        here, there = part.inputs[name].take(positions), moved.inputs[name].take(positions)
        assert here.keys() == there.keys()
        assert all(torch.equal(here[column], there[column]) for column in here)
        assert isinstance(moved.inputs[name], dataset.Resident)


def test_labels_come_without_the_features(stored):
    labels = FeatureStore(stored.manifest).labels(stored.split, "train")
    assert labels.tolist() == [number % 2 for number in TRAIN]


def test_an_id_that_is_neither_stored_nor_rejected_is_named(stored, modalities):
    parts = {**stored.split.parts, "train": ["s00", "ghost", "s02"]}
    split = stored.split.model_copy(update={"parts": parts})
    with pytest.raises(AmstError, match=r"1 ids of part 'train'.*ghost"):
        FeatureStore(stored.manifest).part(split, "train", modalities)


def test_of_many_unknown_ids_five_are_named(stored, modalities):
    parts = {**stored.split.parts, "train": ["s00", *(f"ghost{number}" for number in range(7))]}
    split = stored.split.model_copy(update={"parts": parts})
    named = r"7 ids .*rejected: ghost0, ghost1, ghost2, ghost3, ghost4, \.\.\.\. Make"
    with pytest.raises(AmstError, match=named):
        FeatureStore(stored.manifest).part(split, "train", modalities)


def test_a_part_without_any_usable_sample_is_refused(stored, modalities):
    split = stored.split.model_copy(update={"parts": {**stored.split.parts, "val": ["lost"]}})
    with pytest.raises(AmstError, match=r"'val' .* has no sample"):
        FeatureStore(stored.manifest).part(split, "val", modalities)


def test_a_part_that_no_split_has_is_refused(stored, modalities):
    said = "a split has no part 'validation'. Valid names: train, val, test"
    with pytest.raises(AmstError, match=f"^{said}$"):
        FeatureStore(stored.manifest).part(stored.split, "validation", modalities)


def test_other_features_than_the_run_wants_are_refused(stored, modalities):
    wanted = {"audio": modalities["audio"].model_copy(update={"features": AudioFeatures()})}
    with pytest.raises(AmstError, match=r"mel_bins of 'audio' is 4 in the shards .* and 128 in"):
        FeatureStore(stored.manifest).part(stored.split, "train", wanted)
    with pytest.raises(AmstError, match="the shards of made-up lack 'smell'"):
        FeatureStore(stored.manifest).part(stored.split, "train", {"smell": modalities["audio"]})


def test_a_missing_shard_is_named(stored):
    (stored.manifest.parent / "shard-1.h5").unlink()
    with pytest.raises(AmstError, match=r"shard-1\.h5 is missing"):
        FeatureStore(stored.manifest)


def test_a_damaged_row_is_named_with_its_sample(stored):
    path = stored.manifest.parent / "shard-0.h5"
    with h5py.File(path, "r+") as file:
        file["audio/features"][2, 0, 0] = 999
    with pytest.raises(AmstError, match=r"shard-0\.h5 is damaged: audio of sample s04"):
        FeatureStore(stored.manifest)


def test_a_shard_with_other_labels_than_when_the_manifest_was_made_is_refused(stored):
    path = stored.manifest.parent / "shard-0.h5"
    with h5py.File(path, "r+") as file:
        file["label"][0] = 1 - file["label"][0]
    with pytest.raises(AmstError, match=r"shard-0\.h5 is damaged: id, group or label of its"):
        FeatureStore(stored.manifest)


def test_a_shard_of_another_format_is_refused(stored):
    path = stored.manifest.parent / "shard-0.h5"
    with h5py.File(path, "r+") as file:
        file.attrs["format"] = np.int64(7)
    with pytest.raises(AmstError, match=r"shard-0\.h5 has format 7"):
        FeatureStore(stored.manifest)


def test_a_manifest_of_another_format_is_refused(stored):
    value = json.loads(stored.manifest.read_text())
    stored.manifest.write_text(json.dumps({**value, "format": 7}))
    with pytest.raises(AmstError, match="manifest format 7"):
        FeatureStore(stored.manifest)


def test_row_bytes_are_what_a_resident_sample_takes(stored, modalities):
    store = FeatureStore(stored.manifest)
    part = store.part(stored.split, "train", modalities)
    held = sum(
        column.nbytes for stored in part.inputs.values() for column in stored.columns.values()
    )
    assert store.row_bytes(modalities) * len(part) == held
