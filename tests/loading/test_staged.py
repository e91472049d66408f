"""Shards on a node's own disk: one checked copy for all runs, and none where there is no room."""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from amst.files import sha256_of
from amst.loading import staged as module
from amst.loading.dataset import FeatureStore
from amst.loading.memory import lies_in_memory
from amst.loading.staged import stage_folder
from tests.loading.conftest import write_dataset

READ = """
import sys
from amst.loading.dataset import FeatureStore
from amst.loading.staged import stage_folder
print("ready", flush=True)
sys.stdin.readline()
store = FeatureStore(sys.argv[1], stage_folder(sys.argv[2]))
print(*(shard.path for shard in store._shards))
"""


def sounds(store: FeatureStore, stored, modalities) -> torch.Tensor:
    part = store.part(stored.split, "train", modalities, mapped=True)
    return part.inputs["audio"].take(torch.arange(len(part)))["features"]


def folders(store: FeatureStore) -> set[Path]:
    return {shard.path.parent for shard in store._shards}


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A node's own disk with room for these small files."""
    (tmp_path / "local").mkdir()
    monkeypatch.setattr(module, "_SPARE", 0)
    monkeypatch.setenv("NODE_DISK", str(tmp_path / "local"))
    return tmp_path / "local"


def test_copies_are_read_and_hold_the_same(stored, modalities, local, capsys):
    folder = stage_folder("$NODE_DISK")
    store = FeatureStore(stored.manifest, folder)
    assert folders(store) == {folder}
    assert folder == local / f"amst-features-{os.getuid()}", "of this user"
    assert folder.stat().st_mode & 0o777 == 0o700, "and for no other"
    plain = FeatureStore(stored.manifest)
    assert torch.equal(sounds(store, stored, modalities), sounds(plain, stored, modalities))
    assert "copied" in capsys.readouterr().err
    FeatureStore(stored.manifest, folder)
    assert "copied" not in capsys.readouterr().err, "the second run finds them"


def test_runs_that_start_together_share_one_copy(stored, local):
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", READ, stored.manifest, "$NODE_DISK"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    for run in runs:
        assert run.stdout.readline() == "ready\n"
    for run in runs:
        run.stdin.write("\n")
        run.stdin.flush()
    said = [run.communicate(timeout=200) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    assert said[0][0] == said[1][0]
    (folder,) = local.iterdir()
    shards = sorted(path.name for path in folder.glob("*.h5"))
    assert shards == sorted(f"{sha256_of(path)}.h5" for path in stored.manifest.parent.glob("*.h5"))
    assert not list(folder.glob(".*")), "nothing is left under a temporary name"
    total = sum(path.stat().st_size for path in folder.glob("*.h5")) / 1e6
    copied = [float(err.split()[1]) for _, err in said if "copied" in err]
    assert sum(copied) == pytest.approx(total, abs=0.11), "each shard was copied by one of them"


def test_a_damaged_copy_is_made_anew(stored, modalities, local, capsys):
    folder = stage_folder("$NODE_DISK")
    FeatureStore(stored.manifest, folder)
    copy = sorted(folder.glob("*.h5"))[0]
    copy.write_bytes(copy.read_bytes()[:-100])
    (folder / f".{copy.name}.killed.h5").write_bytes(b"half")
    store = FeatureStore(stored.manifest, folder)
    assert "is damaged; copying the shard anew" in capsys.readouterr().err
    assert folders(store) == {folder}
    assert sha256_of(copy) == copy.stem
    assert not list(folder.glob(".*"))


def test_a_damaged_shard_is_not_copied_but_named(stored, local):
    path = stored.manifest.parent / "shard-1.h5"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(Exception, match=r"shard-1\.h5"):
        FeatureStore(stored.manifest, stage_folder("$NODE_DISK"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system with room for one shard of the two."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system may be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_what_does_not_fit_is_read_where_it_lies(
    stored, modalities, small_disk, monkeypatch, capsys
):
    monkeypatch.setattr(module, "_SPARE", 0)
    sizes = [path.stat().st_size for path in sorted(stored.manifest.parent.glob("*.h5"))]
    assert max(sizes) < 40_000 < sum(sizes)
    store = FeatureStore(stored.manifest, stage_folder(str(small_disk)))
    said = capsys.readouterr().err
    assert "MB free where" in said
    assert "from shard-1.h5 on: shards are read where they lie" in said
    assert len(folders(store)) == 2
    plain = FeatureStore(stored.manifest)
    assert torch.equal(sounds(store, stored, modalities), sounds(plain, stored, modalities))


def test_copies_in_memory_leave_half_of_what_the_job_has(stored, monkeypatch, capsys):
    """The kernel would kill it, however much is free in /dev/shm."""
    if not lies_in_memory(Path("/dev/shm")):
        pytest.skip("no /dev/shm here")
    monkeypatch.setattr(module, "_SPARE", 0)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        cases = ((30_000, 1 << 40, False), (41_000, 40_000, False), (10_000_000, 1 << 40, True))
        for memory, free, fits in cases:
            monkeypatch.setattr(module, "available_memory", lambda memory=memory: memory)
            usage = SimpleNamespace(free=free)
            monkeypatch.setattr(shutil, "disk_usage", lambda _, usage=usage: usage)
            store = FeatureStore(stored.manifest, stage_folder(folder))
            said = capsys.readouterr().err
            assert ("MB of memory left to this job" in said) != fits
            assert folders(store) == ({stage_folder(folder)} if fits else {stored.manifest.parent})


def test_a_disk_that_fills_up_while_a_shard_is_copied(stored, local, capsys):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        store = FeatureStore(stored.manifest, stage_folder("$NODE_DISK"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "shards are read where they lie" in capsys.readouterr().err
    assert folders(store) == {stored.manifest.parent}
    assert not list(local.rglob("*.h5"))


@pytest.mark.parametrize(
    ("setting", "said"),
    [("$NO_SUCH_VARIABLE/x", "no such variable is set"), ("/no/such/disk", "cannot be made")],
)
def test_without_such_a_disk_a_line_says_so(setting, said, capsys):
    assert stage_folder(setting) is None
    assert said in capsys.readouterr().err
    assert stage_folder("") is None
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("theirs", ["folder", "link"])
def test_nothing_is_copied_to_where_somebody_else_would_read_it(local, theirs, monkeypatch, capsys):
    """In /tmp or /dev/shm of a shared node, whose folder's name can be guessed."""
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    folder = local / "amst-features-12345"
    if theirs == "link":
        monkeypatch.setattr(os, "getuid", lambda: local.stat().st_uid)
        folder = local / f"amst-features-{local.stat().st_uid}"
        folder.symlink_to(local)
    else:
        folder.mkdir(mode=0o777)
    assert stage_folder("$NODE_DISK") is None
    assert f"{folder} cannot be made (what is there is a link, or somebody else's)" in (
        capsys.readouterr().err
    )


def test_another_dataset_has_copies_of_its_own(stored, local, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    again = write_dataset(other)
    folder = stage_folder("$NODE_DISK")
    FeatureStore(stored.manifest, folder)
    FeatureStore(again.manifest, folder)
    assert len(list(folder.glob("*.h5"))) == 2, "equal shards are one copy"
