"""A file appears whole or not at all, with the rights of any other file."""

import errno
import json
import os
import re
import resource
import shutil
import stat
import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from amst.files import is_temporary, replacing, sizes_below, write_json, write_text


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_whatever_interrupts_the_writer_the_old_file_stays_and_nothing_else(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write() -> None:
        with replacing(path) as temporary:
            temporary.write_text("ne")
            raise error

    with pytest.raises(error):
        write()
    assert [each.name for each in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "old"


def test_what_is_not_whole_yet_lies_beside_the_file_under_a_hidden_name(tmp_path):
    path = tmp_path / "deep" / "a.npz"
    with replacing(path) as temporary:
        assert temporary.parent == path.parent, "on one file system with it"
        assert temporary.name.startswith(".a.npz.")
        assert temporary.suffix == ".npz", "by which some libraries choose what they write"
        assert not path.exists()
        assert is_temporary(temporary)
    assert [each.name for each in path.parent.iterdir()] == ["a.npz"]
    assert not is_temporary(path)
    for name in ("bundle.tar.gz", ".hidden.json"):
        with replacing(tmp_path / name) as temporary:
            assert is_temporary(temporary)
    assert not is_temporary(Path(".notes.20260131")), "which somebody has dated"


def test_the_acl_of_a_shared_folder_says_who_may_read(tmp_path):
    entries = [(1, 7, -1), (2, 7, 65534), (4, 5, -1), (16, 7, -1), (32, 0, -1)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    with suppress(OSError):  # a file system without ACL: then it is the umask
        os.setxattr(tmp_path, "system.posix_acl_default", acl)
    before = os.umask(0o077)
    try:
        (tmp_path / "usual").write_text("x")
        with replacing(tmp_path / "ours") as temporary:
            save_file({"a": np.ones(2)}, temporary)
    finally:
        os.umask(before)
    usual, ours = (stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("usual", "ours"))
    assert ours == usual


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o002, 0o664)])
def test_others_may_read_a_file_as_far_as_the_umask_lets_them(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write_text(tmp_path / "a", "text")
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode


def test_the_content_is_on_the_disk_before_the_file_has_its_name(tmp_path, monkeypatch):
    """Else a machine that dies may leave an empty file in place of the old one."""
    steps: list[tuple[str, int]] = []
    fsync, replace = os.fsync, Path.replace

    def synced(number: int) -> None:
        fsync(number)
        steps.append(("synced", os.fstat(number).st_ino))

    def renamed(self: Path, target: Path) -> Path:
        steps.append(("renamed", self.stat().st_ino))
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    write_text(tmp_path / "a", "text")
    file = (tmp_path / "a").stat().st_ino
    assert steps == [("synced", file), ("renamed", file)]


def test_json_has_sorted_keys_and_readable_letters(tmp_path):
    write_json(tmp_path / "a.json", {"b": "Öl", "a": {"d": 1, "c": None}})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert text == '{\n  "a": {\n    "c": null,\n    "d": 1\n  },\n  "b": "Öl"\n}\n'
    assert json.loads(text)["b"] == "Öl"


def test_what_the_disk_refuses_is_told_of_the_file_that_was_to_appear(tmp_path):
    """The error of a write names no file, and that of the temporary one helps nobody."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match=re.escape(f"'{tmp_path / 'a.txt'}'")):
            write_text(tmp_path / "a.txt", "x" * 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    told = re.escape(f"'{tmp_path / 'b.txt'}'")
    with pytest.raises(FileNotFoundError, match=told), replacing(tmp_path / "b.txt") as temporary:
        temporary.unlink()
    assert list(tmp_path.iterdir()) == []


def test_what_went_wrong_is_told_where_the_rest_cannot_be_removed_either(tmp_path, monkeypatch):
    def refuse(_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(ValueError, match="the first"), replacing(tmp_path / "a"):
        raise ValueError("the first")


def test_an_error_that_is_only_a_text_keeps_it(tmp_path):
    """Libraries raise such, and where it names a file, Python tells nothing but that."""
    told = re.escape("1000 requested and 125 written")
    with pytest.raises(OSError, match=told), replacing(tmp_path / "a.npy"):
        raise OSError("1000 requested and 125 written")


def test_a_file_of_which_not_even_the_beginning_is_written_leaves_nothing(tmp_path, monkeypatch):
    """Where a quota is full, a network file system may say so when an empty file is closed."""

    def full(number: int) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(os, "fstat", full)
    with pytest.raises(OSError, match=re.escape(f"'{tmp_path / 'a'}'")), replacing(tmp_path / "a"):
        pass
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


def test_sizes_are_those_of_what_is_there(tmp_path, monkeypatch):
    """Runs that go on write and delete files below a folder that is measured."""
    for name in ("a", "deep/b", "gone/c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("12345")
    (tmp_path / "link").symlink_to("none")
    assert sorted(sizes_below(tmp_path)) == [5, 5, 5]
    scandir = os.scandir

    def meanwhile(path):
        if path == str(tmp_path / "gone"):
            shutil.rmtree(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", meanwhile)
    assert sorted(sizes_below(tmp_path)) == [5, 5]
