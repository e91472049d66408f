"""The published lists: fetched whole and checked, or not at all."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amst.datasets.ave import CATEGORIES
from amst.datasets.lists import LISTS, Entry, ListFile, fetch_lists, parse_line, read_lists
from amst.datasets.registry import load, names
from amst.errors import AmstError

TEXT = {
    "train": b"1001_DFA_ANG_XX.flv Anger\n1002_DFA_SAD_XX.flv Sad\n",
    "val": b"1003_DFA_SAD_XX.flv Sad\n",
    "test": b"1004_DFA_SAD_XX.flv Sad\n",
}


class ListServer(ThreadingHTTPServer):
    """Serves bytes by path; the first ``failures`` answers are errors of the server."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), ListHandler)
        self.content = {}
        self.failures = 0
        self.asked = []

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}/data"


class ListHandler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        if self.server.failures:
            self.server.failures -= 1
            self.send_error(503)
        elif self.path not in self.server.content:
            self.send_error(404)
        else:
            content = self.server.content[self.path]
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    """A server of miniature CREMAD lists, whose checksums stand in the table."""
    files = []
    with ListServer() as server:
        for part, text in TEXT.items():
            path = f"CREMAD/{part}.txt"
            files.append(ListFile(part, path, hashlib.sha256(text).hexdigest(), text.count(b"\n")))
            server.content[f"/data/{path}"] = text
        monkeypatch.setitem(LISTS, "CREMAD", tuple(files))
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_lists_are_fetched_once_and_read(server, tmp_path):
    paths = fetch_lists("CREMAD", tmp_path, server.address)
    assert [path.read_bytes() for path in paths] == list(TEXT.values())
    assert fetch_lists("CREMAD", tmp_path, server.address) == paths
    assert len(server.asked) == 3
    assert read_lists("CREMAD", tmp_path)["train"] == [
        Entry("1001_DFA_ANG_XX", "Anger"),
        Entry("1002_DFA_SAD_XX", "Sad"),
    ]


def test_a_server_that_fails_is_asked_again(server, tmp_path):
    server.failures = 2
    assert len(fetch_lists("CREMAD", tmp_path, server.address, attempts=3, pause=0.01)) == 3


def test_a_server_that_keeps_failing_is_an_error_that_says_what_to_do(server, tmp_path):
    server.failures = 9
    with pytest.raises(AmstError, match=r"cannot fetch .*503.* On a node without network"):
        fetch_lists("CREMAD", tmp_path, server.address, attempts=2, pause=0.01)
    assert len(server.asked) == 2


def test_a_list_that_is_not_there_is_not_asked_for_again(server, tmp_path):
    del server.content["/data/CREMAD/val.txt"]
    with pytest.raises(AmstError, match=r"CREMAD/val.txt: .*404"):
        fetch_lists("CREMAD", tmp_path, server.address)
    assert len(server.asked) == 2


def test_other_bytes_than_the_published_ones_are_not_kept(server, tmp_path):
    server.content["/data/CREMAD/train.txt"] = b"<html>please log in</html>"
    with pytest.raises(AmstError, match=r"train.txt is not the published list"):
        fetch_lists("CREMAD", tmp_path, server.address)
    assert not list(tmp_path.rglob("*.txt"))


def test_a_changed_list_is_refused_and_fetched_again(server, tmp_path):
    path = fetch_lists("CREMAD", tmp_path, server.address)[0]
    path.write_bytes(TEXT["train"].replace(b"\n", b"\r\n"))
    with pytest.raises(AmstError, match=r"train.txt is not the published list"):
        read_lists("CREMAD", tmp_path)
    fetch_lists("CREMAD", tmp_path, server.address)
    assert read_lists("CREMAD", tmp_path)


def test_a_list_that_cannot_be_read_is_one_line(server, tmp_path):
    path = fetch_lists("CREMAD", tmp_path, server.address)[0]
    path.unlink()
    # A link to itself: as with permissions, opening fails where nothing is missing.
    path.symlink_to(path)
    with pytest.raises(AmstError, match=r"train.txt cannot be read"):
        read_lists("CREMAD", tmp_path)


def test_a_derived_split_has_no_lists_to_fetch(tmp_path):
    assert fetch_lists("URFUNNY", tmp_path, "http://127.0.0.1:9/none") == []


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
