"""The published lists: the ones that were published, and what their rows say."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amst.datasets.ave import CATEGORIES
from amst.datasets.lists import LISTS, Entry, ListFile, parse_line, read_lists
from amst.datasets.registry import load, names
from amst.errors import AmstError

TEXT = {
    "train": b"1001_DFA_ANG_XX.flv Anger\n1002_DFA_SAD_XX.flv Sad\n",
    "val": b"1003_DFA_SAD_XX.flv Sad\n",
    "test": b"1004_DFA_SAD_XX.flv Sad\n",
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of miniature CREMAD lists, whose checksums stand in the table."""
    files = []
    (tmp_path / "CREMAD").mkdir()
    for part, text in TEXT.items():
        path = f"CREMAD/{part}.txt"
        files.append(ListFile(part, path, hashlib.sha256(text).hexdigest(), text.count(b"\n")))
        (tmp_path / path).write_bytes(text)
    monkeypatch.setitem(LISTS, "CREMAD", tuple(files))
    return tmp_path


def test_lists_are_read_by_part(folder):
    assert read_lists("CREMAD", folder)["train"] == [
        Entry("1001_DFA_ANG_XX", "Anger"),
        Entry("1002_DFA_SAD_XX", "Sad"),
    ]


def test_a_changed_list_is_refused(folder):
    path = folder / "CREMAD/train.txt"
    path.write_bytes(TEXT["train"].replace(b"\n", b"\r\n"))
    with pytest.raises(AmstError, match=r"train.txt is not the published list"):
        read_lists("CREMAD", folder)


def test_a_list_that_cannot_be_read_is_one_line(folder):
    path = folder / "CREMAD/train.txt"
    path.unlink()
    # A link to itself: as with permissions, opening fails where nothing is missing.
    path.symlink_to(path)
    with pytest.raises(AmstError, match=r"train.txt cannot be read"):
        read_lists("CREMAD", folder)


def test_every_amst_split_but_the_derived_one_has_three_lists():
    listed = {name for name in names() if "amst" in load(name).splits} - {"URFUNNY"}
    assert set(LISTS) == listed
    for files in LISTS.values():
        assert [file.part for file in files] == ["train", "val", "test"]
        assert all(len(file.sha256) == 64 for file in files)


def test_published_rows_add_up_to_the_samples():
    rows = {name: sum(file.rows for file in files) for name, files in LISTS.items()}
    expected = {name: load(name).expected_samples for name in LISTS}
    # Four clips of CREMAD are listed twice (in val and in test), one sample of AVE nowhere.
    assert rows == {**expected, "CREMAD": expected["CREMAD"] + 4, "AVE": expected["AVE"] - 1}


@pytest.mark.parametrize(
    ("dataset", "line", "entry"),
    [
        ("CREMAD", "1086_ITS_SAD_XX.flv Sad\n", Entry("1086_ITS_SAD_XX", "Sad")),
        ("MVSA", "897.jpg positive", Entry("897", "positive")),
        (
            "IEMOCAP",
            "Ses05F_impro07_F013, exc, 60.2400, 64.5700 ### Well, I know ### yes.",
            Entry("Ses05F_impro07_F013", "exc"),
        ),
        (
            "AVE",
            "-9R4WPSKE3Q.mp4 Male speech, man speaking",
            Entry("-9R4WPSKE3Q:Male speech, man speaking", "Male speech, man speaking"),
        ),
    ],
)
def test_a_row_gives_our_sample_id_and_its_class(dataset, line, entry):
    assert parse_line(dataset, line) == entry


@given(
    video=st.text("abcXYZ019-_", min_size=11, max_size=11),
    category=st.sampled_from(CATEGORIES),
)
def test_every_category_of_ave_survives_the_spaces_in_it(video, category):
    entry = parse_line("AVE", f"{video}.mp4 {category}")
    assert entry == Entry(f"{video}:{category}", category)


@pytest.mark.parametrize("dataset", ["CREMAD", "IEMOCAP", "AVE"])
def test_a_row_of_another_form_is_named(dataset):
    with pytest.raises(AmstError, match=r"list.txt:3 does not read as a row"):
        parse_line(dataset, "only-one-word", "list.txt:3")
