"""What lies in a raw folder, and when it counts as changed."""

import errno
import hashlib
import os

import pytest

from amst.datasets import rawfiles
from amst.datasets.rawfiles import (
    RawFile,
    RawFolder,
    class_folders,
    folders_digest,
    lines_of,
    read_annotation,
    stamp,
)
from amst.errors import AmstError


@pytest.fixture
def raw(tmp_path):
    """A raw folder with a file in a subfolder, one in a hidden folder and one at the top."""
    folder = tmp_path / "raw"
    for file in ("clips/wren/a.mp4", "clips/finch.b/a.mp4", ".cache/x", "list.txt"):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(b"medium")
    return folder


def as_listed_by_glob(raw, pattern):
    """The digest by what ``Path.glob`` finds in a tree without links."""
    digest = hashlib.sha256()
    found = raw.glob(pattern) if pattern else [raw]
    for folder in sorted(each for each in found if each.is_dir()):  # 3.13 lists files for `**`
        digest.update(f"{folder.relative_to(raw)}\n".encode())
        for file in sorted(folder.iterdir()):
            if not file.is_dir() and not file.name.startswith("."):
                digest.update(f"{file.name} {stamp(file)}\n".encode())
    return digest.hexdigest()


@pytest.mark.parametrize("pattern", ["**", "", "clips/*", "clips/**", "**/wren", "none/**"])
def test_the_digest_of_a_tree_without_links_is_that_of_its_glob(pattern, raw):
    assert folders_digest(raw, (pattern,)) == as_listed_by_glob(raw, pattern)


@pytest.mark.parametrize("pattern", ["**", "clips/**", "**/robin"])
def test_a_change_below_a_linked_folder_is_noticed(pattern, raw, tmp_path):
    (tmp_path / "disk/robin").mkdir(parents=True)
    (raw / "clips/more").symlink_to(tmp_path / "disk")
    before = folders_digest(raw, (pattern,))
    (tmp_path / "disk/robin/b.mp4").write_bytes(b"medium")
    added = folders_digest(raw, (pattern,))
    (tmp_path / "disk/robin/b.mp4").write_bytes(b"other medium")
    assert len({before, added, folders_digest(raw, (pattern,))}) == 3


@pytest.mark.parametrize("target", ["raw", "raw/clips", "."])
def test_links_that_lead_round_come_to_an_end(target, raw, tmp_path):
    before = folders_digest(raw, ("**",))
    (raw / "clips/wren/round").symlink_to(tmp_path / target)
    assert folders_digest(raw, ("**",)) == before


def test_folders_linked_to_each_other_come_to_an_end_and_are_watched(raw):
    for one, other in (("wren", "finch.b"), ("finch.b", "wren")):
        (raw / "clips" / one / "other").symlink_to(raw / "clips" / other)
    before = folders_digest(raw, ("**",))
    (raw / "clips/wren/b.mp4").write_bytes(b"medium")
    assert folders_digest(raw, ("**",)) != before


def test_a_link_to_itself_hides_no_change_beside_it(raw):
    (raw / "self").symlink_to(raw / "self")
    before = folders_digest(raw, ("**",))
    os.utime(raw / "list.txt", ns=(0, 0))
    assert folders_digest(raw, ("**",)) != before


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", []),
        ("a", ["a"]),
        ("a\nb\n", ["a", "b"]),
        ("a\r\n\r\nb\rc", ["a", "", "b", "c"]),
        ("\n\n", ["", ""]),
        ("well\x85 a\u2028b\x0b\x0c\x1cc\n", ["well\x85 a\u2028b\x0b\x0c\x1cc"]),
    ],
)
def test_lines_end_at_line_ends_only(text, lines):
    assert lines_of(text) == lines


def folder_with(tmp_path, *names):
    """A folder of media with these names."""
    (tmp_path / "clips").mkdir()
    for name in names:
        (tmp_path / "clips" / name).write_bytes(b"medium")
    return RawFolder(tmp_path, "clips", ".mp4", "docs/page.md")


def test_a_suffix_in_other_case_is_a_fault(tmp_path):
    folder = folder_with(tmp_path, "b.mp4", "a.MP4", ".c.MP4", "d.mp3", "mp4")
    assert list(folder) == ["a", "b"]
    assert folder.file("b") == RawFile("clips/b.mp4")
    fault = "is not named *.mp4; rename it"
    assert folder.file("a") == RawFile("clips/a.MP4", fault, is_misnamed=True)


def test_a_suffix_in_other_case_is_none_beside_the_right_name(tmp_path):
    folder = folder_with(tmp_path, "a.MP4", "a.mp4")
    assert list(folder) == ["a"]
    assert folder.file("a") == RawFile("clips/a.mp4")


def test_what_holds_no_medium_is_a_fault_and_hides_no_other_file(tmp_path):
    (tmp_path / "clips/folder.mp4").mkdir(parents=True)
    (tmp_path / "clips/gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    (tmp_path / "clips/empty.mp4").touch()
    (tmp_path / "clips/good.mp4").write_bytes(b"medium")
    folder = RawFolder(tmp_path, "clips", ".mp4", "docs/page.md")
    assert {name: folder.file(name).fault for name in folder} == {
        "empty": "is empty",
        "folder": "is no file",
        "gone": "cannot be read (No such file or directory)",
        "good": "",
    }


def test_a_class_of_which_no_file_is_left_stops_no_other(tmp_path):
    def found():
        return class_folders(tmp_path, "clips", ("finch", "wren"), ".mp4", "the page")

    with pytest.raises(AmstError, match=f"there is no folder {tmp_path}/clips/finch"):
        found()
    (tmp_path / "clips/wren").mkdir(parents=True)
    (tmp_path / "clips/wren/w1.mp4").write_bytes(b"a clip")
    assert {label: list(folder) for label, folder in found().items()} == {
        "finch": [],
        "wren": ["w1"],
    }
    assert found()["finch"].file("f1") == RawFile("clips/finch/f1.mp4", "is missing")


def test_media_may_lie_in_the_raw_root_itself(tmp_path):
    (tmp_path / "wren").mkdir()
    for name in ("a.mp4", "wren/w1.mp4"):
        (tmp_path / name).write_bytes(b"a clip")
    root = RawFolder(tmp_path, "", ".mp4", "the page")
    assert [root.file(name).path for name in ("a", "gone")] == ["a.mp4", "gone.mp4"]
    wren = class_folders(tmp_path, "", ("finch", "wren"), ".mp4", "the page")["wren"]
    assert wren.file("w1") == RawFile("wren/w1.mp4")


def test_another_size_or_another_time_makes_another_stamp(tmp_path):
    path, found = tmp_path / "a.mp4", set()
    for content, time in ((b"medium", 1), (b"a medium", 1), (b"medium", 2)):
        path.write_bytes(content)
        os.utime(path, ns=(time, time))
        found.add(stamp(path))
    assert found == {"6@1", "8@1", "6@2"}


def test_a_folder_that_is_gone_is_another_one_than_an_empty_one(tmp_path):
    (tmp_path / "empty").mkdir()
    empty, gone = (folders_digest(tmp_path / name, ("",)) for name in ("empty", "gone"))
    assert empty != gone


def test_a_storage_that_fails_is_no_fault_of_a_file(raw, monkeypatch):
    """A list that is made while a network file system is away must not lack samples."""

    def away(path):
        raise OSError(errno.ESTALE, "Stale file handle", path)

    monkeypatch.setattr(rawfiles, "_is_lfs_pointer", away)
    with pytest.raises(OSError, match="Stale file handle"):
        RawFolder(raw, "clips/wren", ".mp4", "")


def test_a_name_that_is_not_utf8_is_a_fault(tmp_path):
    folder = folder_with(tmp_path, os.fsdecode(b"caf\xe9.mp4"), "ü.mp4")
    assert list(folder) == ["caf\\xe9", "ü"]
    fault = "has a name that is not UTF-8; rename it"
    assert folder.file("caf\\xe9") == RawFile("clips/caf\\xe9.mp4", fault, is_misnamed=True)
    assert folder.file("ü") == RawFile("clips/ü.mp4")


def test_one_odd_byte_in_an_annotation_garbles_no_other_line(tmp_path):
    path = tmp_path / "said.csv"
    path.write_bytes("1,fünf 🦊\r\n2,fünf\r\n".encode().replace("ü".encode(), b"\xfc", 1))
    assert read_annotation(path, "") == "1,f\xfcnf \xf0\x9f\xa6\x8a\r\n2,fünf\r\n"
    path.write_bytes("2,fünf\n".encode("utf-8-sig") + b"1,f\xfcnf")
    assert read_annotation(path, "") == "2,fünf\n1,fünf"


@pytest.mark.parametrize("coding", ["utf-16-le", "utf-16-be"])
def test_an_annotation_may_be_utf16_in_either_order(coding, tmp_path):
    path = tmp_path / "said.csv"
    path.write_bytes("\ufeff1,fünf 🦊\r\n".encode(coding))
    assert read_annotation(path, "") == "1,fünf 🦊\r\n"


def test_a_dataset_without_a_page_is_told_where_its_raw_folder_is_set(tmp_path):
    with pytest.raises(AmstError, match=r"no annotation file .*\. Look at `raw` in config\.yaml$"):
        read_annotation(tmp_path / "said.csv", "")
    with pytest.raises(AmstError, match=r"no folder .*\. Look at `raw` in config\.yaml$"):
        RawFolder(tmp_path, "clips", ".mp4", "")
