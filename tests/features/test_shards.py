import errno
import fcntl
import hashlib
import mmap
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import amst
from amst.config.run import AudioFeatures, TextFeatures, VisualFeatures
from amst.errors import AmstError, HostError
from amst.features import shard_writer, shards
from amst.features.shard_writer import Header, Row, ShardWriter, Source
from amst.features.shards import Shard, columns

TEXTS = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=12)
FEATURES = {
    "audio": AudioFeatures(mel_bins=3, frames=4),
    "text": TextFeatures(tokens=5, tokenizer="digits"),
    "visual": VisualFeatures(frames=2, size=4),
}


def header(features=FEATURES, vocabulary=7):
    return Header("digits", 1, 4, ("0", "1"), features, "0123456789abcdef", vocabulary)


def rows(count, seed=0, names=None):
    random = np.random.default_rng(seed)
    for index in range(count):
        values = {
            name: {
                column: random.integers(0, 200, shape).astype(dtype)
                for column, (dtype, shape) in columns(features).items()
            }
            for name, features in FEATURES.items()
        }
        sources = {
            "audio": Source(f"audio/ü{index}.wav", hashlib.sha256(b"%d" % index).hexdigest())
        }
        name = f"clip {index}" if names is None else names[index]
        yield Row(name, index % 2, f"group {index}", values, sources)


def write(path, count=3, seed=0, names=None):
    with ShardWriter(path, header()) as writer:
        for row in rows(count, seed, names):
            writer.append(row)
    return path


@settings(max_examples=25, deadline=None)
@given(
    names=st.lists(TEXTS.filter(bool), max_size=6, unique=True),
    seed=st.integers(0, 2**32 - 1),
)
def test_what_is_written_is_read(names, seed, tmp_path_factory):
    path = tmp_path_factory.mktemp("shard") / "001.h5"
    write(path, len(names), seed, names)
    wanted = list(rows(len(names), seed, names))
    with Shard(path) as shard:
        assert len(shard) == len(names)
        assert shard.ids == names
        assert shard.groups == [row.group for row in wanted]
        assert shard.labels.tolist() == [row.label for row in wanted]
        assert shard.texts("audio/path") == [row.sources["audio"].path for row in wanted]
        assert shard.texts("visual/sha256") == [""] * len(names)
        for name, features in FEATURES.items():
            for column, (dtype, shape) in columns(features).items():
                array = shard.array(f"{name}/{column}")
                assert (array.dtype, array.shape) == (dtype, (len(names), *shape))
                for found, row in zip(array, wanted, strict=True):
                    np.testing.assert_array_equal(found, row.values[name][column])


def test_a_shard_says_what_it_holds(tmp_path):
    with Shard(write(tmp_path / "001.h5")) as shard:
        assert (shard.dataset, shard.index, shard.shards) == ("digits", 1, 4)
        assert shard.classes == ("0", "1")
        assert shard.modalities == {"audio": "audio", "text": "text", "visual": "visual"}
        assert shard.settings == {name: f.model_dump(mode="json") for name, f in FEATURES.items()}
        assert (shard.settings_hash, shard.vocabulary) == ("0123456789abcdef", 7)


def test_equal_rows_give_equal_bytes_at_any_time(tmp_path):
    first = write(tmp_path / "a.h5").read_bytes()
    time.sleep(1.1)  # a time stamp in the file would have changed
    assert write(tmp_path / "b.h5").read_bytes() == first


def test_arrays_are_maps_of_the_file_that_outlive_the_shard(tmp_path):
    with Shard(write(tmp_path / "001.h5")) as shard:
        features = shard.array("visual/features")
        assert isinstance(features.base, mmap.mmap)
        assert shard.array("audio/features").base is features.base, "open once for all"
    assert not features.flags.writeable
    assert features[2].shape == (2, 4, 4, 3)


def test_a_shard_is_mapped_no_longer_than_its_arrays_are_there(tmp_path):
    """A run that has read its features would take memory twice for them."""
    path = write(tmp_path / "001.h5")
    with Shard(path) as shard:
        for _ in range(2):
            features = shard.array("audio/features")
            assert str(path) in Path("/proc/self/maps").read_text()
            del features
            assert str(path) not in Path("/proc/self/maps").read_text()


def test_a_shard_stays_what_was_opened_when_its_file_is_replaced_or_deleted(tmp_path):
    path = write(tmp_path / "001.h5")
    with Shard(path) as shard:
        known = shard.array("audio/features").copy()
        path.replace(tmp_path / "gone.h5")
        path.write_bytes(bytes(path.with_name("gone.h5").stat().st_size))
        assert (shard.array("audio/features") == known).all()
        path.unlink()
        path.with_name("gone.h5").unlink()
        shard.verify()


def test_a_shard_is_read_without_locks(tmp_path):
    path = write(tmp_path / "001.h5")
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with Shard(path) as shard:
            shard.verify()


@pytest.mark.parametrize("name", ["audio/features", "audio/peak", "text/mask", "visual/size"])
def test_a_flipped_byte_is_refused_by_the_name_of_its_sample(name, tmp_path):
    path = write(tmp_path / "001.h5")
    with h5py.File(path, "r") as file:
        dataset = file[name]
        row_bytes = dataset.dtype.itemsize * int(np.prod(dataset.shape[1:]))
        at = dataset.id.get_offset() + 1 * row_bytes
    content = bytearray(path.read_bytes())
    content[at] ^= 0x40
    path.write_bytes(content)
    modality = name.split("/")[0]
    with Shard(path) as shard, pytest.raises(AmstError, match=rf"001.h5.*{modality}.*clip 1"):
        shard.verify()


@pytest.mark.parametrize("name", ["id", "group", "label"])
def test_another_id_group_or_label_is_refused(name, tmp_path):
    path = write(tmp_path / "001.h5")
    with h5py.File(path, "r") as file:
        at = file[name].id.get_offset() + file[name].dtype.itemsize
    content = bytearray(path.read_bytes())
    content[at] ^= 0x01
    path.write_bytes(content)
    with Shard(path) as shard, pytest.raises(AmstError, match=r"001\.h5 is damaged: id, group or"):
        shard.verify()


@pytest.mark.parametrize(
    "piece", [b'["0", "1"]', b'"mel_bins": 3', b'{"audio": "audio"', b"digits"]
)
@pytest.mark.parametrize("bit", [0x01, 0x80])
def test_a_flipped_byte_in_an_attribute_is_refused_by_the_shards_name(piece, bit, tmp_path):
    path = write(tmp_path / "001.h5")
    content = bytearray(path.read_bytes())
    content[content.index(piece) + len(piece) - 1] ^= bit
    path.write_bytes(content)
    with pytest.raises(AmstError, match=r"001\.h5 is damaged"), Shard(path) as shard:
        shard.verify()


@pytest.mark.parametrize(
    "name",
    [
        *("id", "group", "label", "crc32", "audio/features", "audio/crc32", "text/ids"),
        *("visual/path", "visual/sha256"),
    ],
)
@pytest.mark.parametrize("change", [lambda column: column[:-1], lambda column: column[..., None]])
def test_a_column_of_another_shape_is_refused_by_its_name(name, change, tmp_path):
    path = write(tmp_path / "001.h5")
    with h5py.File(path, "r+") as file:
        column = file[name][()]
        del file[name]
        file[name] = change(column)
    # What is held against the labels is what differs where they are too few.
    said = r"'\w+'" if name == "label" else f"'{name}'"
    with (
        Shard(path) as shard,
        pytest.raises(AmstError, match=f"is damaged: its {said} is of shape"),
    ):
        shard.verify()


def test_another_format_version_is_refused(tmp_path):
    path = write(tmp_path / "001.h5")
    with h5py.File(path, "r+") as file:
        file.attrs["format"] = 1
    with pytest.raises(AmstError, match="format 1, this version reads 2"):
        Shard(path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.95])
def test_a_file_cut_short_is_refused_by_name(share, tmp_path):
    path = write(tmp_path / "001.h5", count=50)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(AmstError, match=r"001\.h5"), Shard(path) as shard:
        shard.verify()


def test_a_file_that_is_no_shard_is_refused_by_name(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = 1
    with pytest.raises(AmstError, match=r"other\.h5 lacks its attribute"):
        Shard(tmp_path / "other.h5")
    with pytest.raises(AmstError, match=r"none\.h5"):
        Shard(tmp_path / "none.h5")


def test_a_row_of_another_shape_is_refused_and_leaves_no_file(tmp_path):
    row = next(iter(rows(1)))
    values = {**row.values, "text": {"ids": np.zeros(6), "mask": np.zeros(6)}}
    with pytest.raises(ValueError, match="shape"), ShardWriter(tmp_path / "s.h5", header()) as out:
        out.append(Row(row.id, row.label, row.group, values, row.sources))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [1, 200])
def test_a_column_larger_than_what_is_copied_at_a_time_is_written_whole(
    size, tmp_path, monkeypatch
):
    whole = write(tmp_path / "a.h5", count=5).read_bytes()
    monkeypatch.setattr(shard_writer, "_COPY_BYTES", size)  # less than a row, and two rows
    assert write(tmp_path / "b.h5", count=5).read_bytes() == whole


def test_rows_wait_beside_the_shard_where_there_is_room(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with Shard(write(tmp_path / "001.h5")) as shard:
        assert len(shard) == 3


def damaged_on_its_way(path):
    """A shard of which the disk changes a byte while its rows are collected."""
    with ShardWriter(path, header()) as writer:
        for row in rows(2):
            writer.append(row)
        spool = writer._modalities["audio"].columns["features"].spool
        spool.seek(0)
        spool.write(b"\xff")


def test_a_shard_that_is_not_what_was_collected_does_not_appear(tmp_path):
    with pytest.raises(AmstError, match="audio of sample clip 0 does not match its checksum"):
        damaged_on_its_way(tmp_path / "001.h5")
    assert list(tmp_path.iterdir()) == []


def interrupt(path):
    with ShardWriter(path, header()) as writer:
        for row in rows(2, seed=1):
            writer.append(row)
        raise KeyboardInterrupt


def test_an_error_in_the_middle_leaves_the_old_shard_and_nothing_else(tmp_path):
    path = write(tmp_path / "001.h5")
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        interrupt(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_killed_job_leaves_nothing_behind(tmp_path):
    """SIGKILL while rows are being collected: no shard, no temporary file."""
    code = (
        "import sys, time; from pathlib import Path\n"
        "from tests.features.test_shards import header, rows\n"
        "from amst.features.shard_writer import ShardWriter\n"
        "with ShardWriter(Path(sys.argv[1]), header()) as writer:\n"
        "    for row in rows(200): writer.append(row)\n"
        "    print('collecting', flush=True); time.sleep(60)\n"
    )
    root = Path(amst.__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "out" / "001.h5")],
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": f"{root}:{root / 'src'}"},
    ) as job:
        assert job.stdout is not None
        assert job.stdout.readline() == b"collecting\n"
        job.send_signal(signal.SIGKILL)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_shard_that_its_disk_does_not_give_is_not_to_be_deleted(tmp_path):
    (tmp_path / "0.h5").symlink_to("/proc/self/mem")  # opens, and has an error at its begin
    told = r"0\.h5 cannot be read \(Input/output error\)\. Call again"
    with pytest.raises(HostError, match=told):
        Shard(tmp_path / "0.h5")


def test_attributes_that_the_disk_does_not_give_are_not_damaged(tmp_path, monkeypatch):
    def lost(_):
        raise OSError("Can't read attribute (file read failed: errno = 5, error message = 'x')")

    path = write(tmp_path / "0.h5")
    monkeypatch.setattr(shards, "attributes_checksum", lost)
    with pytest.raises(HostError, match=r"0\.h5 cannot be read \(Input/output error\)"):
        Shard(path)


@pytest.mark.parametrize("read", [lambda shard: shard.ids, lambda shard: shard._attribute("x")])
@pytest.mark.parametrize(
    ("number", "kind", "told"),
    [(errno.EIO, HostError, "cannot be read"), (errno.EINVAL, AmstError, "lacks .*Delete")],
)
def test_what_is_not_found_in_a_shard_is_told_by_its_reason(read, number, kind, told, tmp_path):
    """A damaged one sends HDF5 to places that no file has, and is to be made again."""

    class Lost:
        attrs = property(lambda self: self)

        def __getitem__(self, _):
            raise KeyError(
                f"Unable to open object (file read failed: errno = {number}, offset = 0)"
            )

    with Shard(write(tmp_path / "0.h5")) as shard:
        file, shard._file = shard._file, Lost()
        try:
            with pytest.raises(AmstError, match=told) as raised:
                read(shard)
        finally:
            shard._file = file
    assert type(raised.value) is kind


@pytest.mark.parametrize("read", [lambda shard: shard.ids, lambda shard: shard.labels])
def test_values_that_the_disk_does_not_give_are_told_with_the_shard(read, tmp_path, monkeypatch):
    def lost(*_):
        raise OSError(errno.EIO, "Can't read data (errno = 5, error message = 'x')")

    with Shard(write(tmp_path / "0.h5")) as shard:
        monkeypatch.setattr(h5py.Dataset, "__getitem__", lost)
        with pytest.raises(HostError, match=r"0\.h5 cannot be read \(Input/output error\)"):
            read(shard)


def test_a_shard_is_written_without_locks(tmp_path):
    """As file systems that have none need it."""
    path = tmp_path / "0.h5"
    with shard_writer._new_file(path), path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("full", ["rows", "close"])
def test_a_full_disk_is_told_of_the_shard(full, tmp_path, monkeypatch):
    def close(_):
        raise RuntimeError(
            "Can't decrement id ref count (file write failed: time = now\n, filename = 'x', "
            "errno = 28, error message = 'No space left on device', offset = 0)"
        )

    def write() -> None:
        with ShardWriter(tmp_path / "0.h5", header()):
            if full == "rows":
                raise OSError(errno.ENOSPC, "No space left on device")
            monkeypatch.setattr(h5py.File, "close", close)

    with pytest.raises(OSError, match="No space left on device") as raised:
        write()
    monkeypatch.undo()
    assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, str(tmp_path / "0.h5"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [0, 3000, 9000])
def test_a_disk_that_is_full_at_any_byte_ends_no_process(size, tmp_path):
    """HDF5 writes a small array when it is let go, where an error is ignored and then fatal."""
    script = (
        "import resource, sys; from pathlib import Path; from tests.features import test_shards\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, resource.RLIM_INFINITY))\n"
        "try: test_shards.write(Path(sys.argv[1]))\n"
        "except OSError as error: print(error.filename)"
    )
    path, root = str(tmp_path / "0.h5"), Path(amst.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script, path],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": f"{root}:{root / 'src'}"},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{path}\n", "")
    assert list(tmp_path.iterdir()) == []
