import hashlib
import json
import os
import re
import resource
from concurrent.futures import ThreadPoolExecutor

import pytest

from amst.config.run import TextFeatures
from amst.datasets.lists import LISTS, ListFile, read_lists
from amst.errors import AmstError
from amst.features.check import check_models
from amst.features.text import load_tokenizer
from amst.models.encoders import load_roberta
from amst.pretrained import located
from amst.provenance import closure
from amst.staging import PINNED, Model, damaged, fetch_lists, fetch_model
from tests.modelhub import serving, tiny_roberta

REVISION = "0123abcd"
LISTED = {
    "train": b"1001_DFA_ANG_XX.flv Anger\n1002_DFA_SAD_XX.flv Sad\n",
    "val": b"1003_DFA_SAD_XX.flv Sad\n",
    "test": b"1004_DFA_SAD_XX.flv Sad\n",
}
"""Miniature lists of CREMAD, by part."""


@pytest.fixture(scope="module")
def model_files(tmp_path_factory):
    """The files of a tiny model: name -> bytes."""
    return tiny_roberta(tmp_path_factory.mktemp("model"))


@pytest.fixture
def hub(model_files, monkeypatch):
    """A hub that has the tiny model twice: pinned as 'tiny', and as 'somebody/other'."""
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in model_files.items()}
    monkeypatch.setitem(PINNED, "tiny", Model("nobody/tiny", REVISION, digests))
    with serving() as server:
        for name, data in model_files.items():
            server.content[f"/nobody/tiny/resolve/{REVISION}/{name}"] = data
            server.content[f"/somebody/other/resolve/main/{name}"] = data
        yield server


def test_a_fetched_model_is_what_tokenizer_and_encoder_are_read_from(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "no-cache"))
    fetch_model("tiny", source=hub.address)
    asked = len(hub.asked)
    assert load_tokenizer(TextFeatures(tokenizer="tiny")).encode("so it goes", 8)[1].sum() > 2
    assert load_roberta("tiny").config.hidden_size == 8
    assert len(hub.asked) == asked
    assert located("tiny") == "results/staged/models/tiny"


def test_what_is_there_is_not_fetched_again(hub, tmp_path, model_files):
    folder = fetch_model("tiny", tmp_path, hub.address)
    lock = folder / "staged.json"
    assert json.loads(lock.read_text())["revision"] == REVISION
    before = lock.stat().st_mtime_ns, len(hub.asked)
    assert fetch_model("tiny", tmp_path, hub.address) == folder
    assert (lock.stat().st_mtime_ns, len(hub.asked)) == before
    (folder / "config.json").write_text("{}")
    assert damaged(folder) == ["config.json"]
    hub.content |= {f"/mirror{name}": data for name, data in hub.content.items()}
    fetch_model("tiny", tmp_path, f"{hub.address}/mirror/")
    assert hub.asked[before[1] :] == [("config.json", None)]
    assert (folder / "config.json").read_bytes() == model_files["config.json"]
    assert not damaged(folder)


def test_a_broken_connection_is_continued_where_it_ended(hub, tmp_path, model_files):
    hub.breaks = 1
    folder = fetch_model("tiny", tmp_path, hub.address, pause=0.01)
    half = len(model_files["config.json"]) // 2
    assert ("config.json", f"bytes={half}-") in hub.asked
    assert not damaged(folder)
    assert not list(folder.glob(".*"))


def test_a_call_that_failed_is_continued_by_the_next(hub, tmp_path, model_files):
    hub.breaks = 1
    with pytest.raises(AmstError, match=r"config\.json.*ended after"):
        fetch_model("tiny", tmp_path, hub.address, attempts=1)
    folder = tmp_path / "models/tiny"
    assert [path.name for path in folder.iterdir()] == [".config.json.part"]
    assert located("tiny") == "tiny"
    hub.failures = 1
    fetch_model("tiny", tmp_path, hub.address, pause=0.01)
    assert hub.asked[-1][0] != "config.json"
    assert (folder / "config.json").read_bytes() == model_files["config.json"]


def test_a_disk_that_takes_no_more_is_no_error_of_the_network(hub, tmp_path, model_files):
    """Neither asked again for it, nor to be called where there is a network."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OSError, match=r"File too large: '.*\.model\.safetensors\.part'"):
            fetch_model("tiny", tmp_path, hub.address, pause=0.01)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [name for name, _ in hub.asked].count("model.safetensors") == 1
    folder = fetch_model("tiny", tmp_path, hub.address)
    assert (folder / "model.safetensors").read_bytes() == model_files["model.safetensors"]


def test_a_server_that_sends_no_rest_of_a_file_sends_all_of_it_again(hub, tmp_path):
    hub.breaks, hub.ranges = 1, False
    folder = fetch_model("tiny", tmp_path, hub.address, pause=0.01)
    assert not damaged(folder)


def test_what_came_of_a_model_that_is_not_pinned_is_not_continued(hub, tmp_path, model_files):
    """The rest could be of another version."""
    hub.breaks = 1
    folder = fetch_model("somebody/other", tmp_path, hub.address, pause=0.01)
    assert {asked for _, asked in hub.asked} == {None}
    assert (folder / "config.json").read_bytes() == model_files["config.json"]


def test_a_file_that_had_come_whole_when_a_call_was_killed_is_taken(hub, tmp_path, model_files):
    folder = tmp_path / "models/tiny"
    folder.mkdir(parents=True)
    (folder / ".config.json.part").write_bytes(model_files["config.json"])
    fetch_model("tiny", tmp_path, hub.address)
    assert not damaged(folder)
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("name", ["tiny", "somebody/other"])
def test_a_model_may_be_fetched_by_several_at_a_time(hub, tmp_path, model_files, name):
    """Two that write into one file spoil it; of an unpinned model that would be taken for it."""
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(fetch_model, name, tmp_path, hub.address, 1) for _ in range(8)]
        (folder,) = {call.result() for call in calls}
    assert not damaged(folder)
    assert (folder / "config.json").read_bytes() == model_files["config.json"]
    assert len(hub.asked) == len(set(hub.asked)), "the later ones find what the first has brought"


def test_more_bytes_than_a_file_has_are_none_of_it(hub, tmp_path, model_files):
    folder = tmp_path / "models/tiny"
    folder.mkdir(parents=True)
    (folder / ".config.json.part").write_bytes(model_files["config.json"] + b" ")
    with pytest.raises(AmstError, match=r"config\.json is not the expected file"):
        fetch_model("tiny", tmp_path, hub.address)
    fetch_model("tiny", tmp_path, hub.address)
    assert not damaged(folder)


def test_an_answer_that_is_no_http_is_asked_for_again(hub, tmp_path):
    hub.garbled = 2
    assert not damaged(fetch_model("tiny", tmp_path, hub.address, attempts=3, pause=0.01))
    hub.garbled = 9
    with pytest.raises(AmstError, match=r"cannot fetch .*config\.json: no HTTP"):
        fetch_model("tiny", tmp_path / "other", hub.address, attempts=2, pause=0.01)


def test_a_password_in_the_address_of_a_mirror_is_not_shown(tmp_path):
    with pytest.raises(
        AmstError, match=r"^https://mirror\.lab/hf/.*: a name or a password in"
    ) as it:
        fetch_model("roberta-base", tmp_path, "https://bob:TOKEN@mirror.lab/hf", attempts=1)
    assert "TOKEN" not in str(it.value)
    assert f"bring the file to {tmp_path}/models/roberta-base" in str(it.value)


@pytest.mark.parametrize(
    ("hub", "proxy", "said"),
    [
        ("hub.example", "", r"config\.json: unknown url type: 'hub\.example"),
        ("http://[::1", "", r"config\.json: Invalid IPv6 URL"),
        (
            "http://hub.example",
            "http://me:secret@127.0.0.1:9",
            r"by the proxy 127\.0\.0\.1:9: .*refused",
        ),
        ("http://hub.example", "/", r"by the proxy /?: proxy URL with no authority"),
        ("http://127.0.0.1:9", "127.0.0.1:9", r"config\.json: .*refused"),
    ],
)
def test_an_address_that_is_none_and_a_dead_proxy_are_told(hub, proxy, said, tmp_path, monkeypatch):
    monkeypatch.setattr("urllib.request._opener", None)  # which keeps the proxies of its time
    monkeypatch.setenv("http_proxy", proxy)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(AmstError, match=rf"cannot fetch {re.escape(hub)}/.*{said}") as told:
        fetch_model("somebody/other", tmp_path, hub, attempts=2, pause=0)
    assert "secret" not in str(told.value)


@pytest.mark.parametrize("name", ["nobody/tiny", "somebody/other"])
def test_a_file_that_is_lacking_is_an_error_unless_a_model_may_do_without(hub, tmp_path, name):
    """A pinned model has all its files; one that may not be read is not one that is not there."""
    pinned = name == "nobody/tiny"
    path = f"/{name}/resolve/{REVISION if pinned else 'main'}/vocab.json"
    told = "404"
    if pinned:
        del hub.content[path]
    else:
        hub.denied.add(path)
        told = "403"
    with pytest.raises(AmstError, match=rf"vocab\.json: .*{told}"):
        fetch_model("tiny" if pinned else name, tmp_path, hub.address, pause=0.01)


@pytest.mark.parametrize("note", ["{", "[]", '{"files": []}', '{"files": {"config.json": {}}}'])
def test_without_the_note_of_what_was_fetched_nothing_is_taken_for_it(hub, tmp_path, note):
    folder = fetch_model("somebody/other", tmp_path, hub.address)
    (folder / "staged.json").write_text(note)
    with pytest.raises(AmstError, match=r"staged\.json is damaged .*Delete the folder"):
        fetch_model("somebody/other", tmp_path, hub.address)


def test_a_note_that_the_disk_does_not_give_is_named(hub, tmp_path):
    note = fetch_model("tiny", tmp_path, hub.address) / "staged.json"
    note.unlink()
    note.symlink_to("/proc/self/mem")  # which nothing can be read from
    with pytest.raises(OSError, match=f"Input/output error: '{note}'"):
        fetch_model("tiny", tmp_path, hub.address)


def test_other_bytes_than_the_pinned_ones_are_refused(hub, tmp_path):
    hub.content[f"/nobody/tiny/resolve/{REVISION}/config.json"] = b"<html>log in first</html>"
    with pytest.raises(AmstError, match=r"config\.json is not the expected file"):
        fetch_model("tiny", tmp_path, hub.address)
    assert not list((tmp_path / "models/tiny").iterdir())


def test_a_model_that_is_not_pinned_is_held_to_what_was_first_fetched(hub, tmp_path):
    address = "/somebody/other/resolve/main"
    del hub.content[f"{address}/vocab.json"]
    folder = fetch_model("somebody/other", tmp_path, hub.address)
    assert not (folder / "vocab.json").exists()
    hub.content[f"{address}/config.json"] += b" "
    fetch_model("somebody/other", tmp_path, hub.address)
    (folder / "config.json").unlink()
    with pytest.raises(AmstError, match=r"config\.json is not the expected file"):
        fetch_model("somebody/other", tmp_path, hub.address)


def test_a_model_that_the_hub_lacks_is_an_error_that_names_the_address(hub, tmp_path):
    with pytest.raises(AmstError, match=r"nobody/none/resolve/main/config\.json.*404"):
        fetch_model("nobody/none", tmp_path, hub.address)


def test_the_published_model_is_pinned_by_commit_and_checksums():
    model = PINNED["roberta-base"]
    assert re.fullmatch(r"[0-9a-f]{40}", model.revision)
    assert {"config.json", "model.safetensors", "vocab.json", "merges.txt"} <= model.sha256.keys()
    assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in model.sha256.values())
    known = hashlib.sha256(b'{"model_max_length": 512}').hexdigest()
    assert model.sha256["tokenizer_config.json"] == known


def test_fetched_models_are_checked_with_the_data(hub, tmp_path):
    (missing,) = check_models(["tiny"], tmp_path)
    assert (missing.state, missing.text) == (
        "missing",
        "model tiny: `amst fetch-model tiny` fetches it",
    )
    folder = fetch_model("tiny", tmp_path, hub.address)
    assert [found.state for found in check_models(["tiny"], tmp_path)] == ["ok"]
    (folder / "vocab.json").unlink()
    (folder / "config.json").write_text("{}")
    (wrong,) = check_models(["tiny"], tmp_path)
    assert wrong.state == "wrong"
    assert "config.json, vocab.json: `amst fetch-model tiny` mends it" in wrong.text


@pytest.fixture
def server(monkeypatch):
    """A server of miniature CREMAD lists, whose checksums stand in the table."""
    files = []
    with serving() as server:
        for part, text in LISTED.items():
            path = f"CREMAD/{part}.txt"
            files.append(ListFile(part, path, hashlib.sha256(text).hexdigest(), text.count(b"\n")))
            server.content[f"/{path}"] = text
        monkeypatch.setitem(LISTS, "CREMAD", tuple(files))
        yield server


def test_lists_are_fetched_once(server, tmp_path):
    paths = fetch_lists("CREMAD", tmp_path, server.address)
    assert [path.read_bytes() for path in paths] == list(LISTED.values())
    assert fetch_lists("CREMAD", tmp_path, server.address) == paths
    assert len(server.asked) == 3


def test_lists_are_asked_for_again_where_the_server_fails(server, tmp_path):
    server.failures = 2
    assert len(fetch_lists("CREMAD", tmp_path, server.address, attempts=3, pause=0.01)) == 3
    assert not list(tmp_path.rglob(".*"))


def test_a_list_is_continued_where_the_connection_ended(server, tmp_path):
    server.breaks = 1
    paths = fetch_lists("CREMAD", tmp_path, server.address, pause=0.01)
    assert server.asked[:2] == [
        ("train.txt", None),
        ("train.txt", f"bytes={len(LISTED['train']) // 2}-"),
    ]
    assert [path.read_bytes() for path in paths] == list(LISTED.values())


def test_a_server_that_keeps_failing_is_an_error_that_says_what_to_do(server, tmp_path):
    server.failures = 9
    told = r"cannot fetch .*train.txt: .*503.* On a node without network.*datasets\.CREMAD\.lists"
    with pytest.raises(AmstError, match=told):
        fetch_lists("CREMAD", tmp_path, server.address, attempts=2, pause=0.01)
    assert len(server.asked) == 2
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_list_that_is_not_there_is_not_asked_for_again(server, tmp_path):
    del server.content["/CREMAD/val.txt"]
    with pytest.raises(AmstError, match=r"CREMAD/val.txt: .*404"):
        fetch_lists("CREMAD", tmp_path, server.address)
    assert len(server.asked) == 2


def test_other_bytes_than_the_published_ones_are_not_kept(server, tmp_path):
    server.content["/CREMAD/train.txt"] = b"<html>please log in</html>"
    with pytest.raises(AmstError, match=r"train.txt is not the expected file .*a proxy"):
        fetch_lists("CREMAD", tmp_path, server.address)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_changed_list_is_fetched_again(server, tmp_path):
    path = fetch_lists("CREMAD", tmp_path, server.address)[0]
    path.write_bytes(LISTED["train"].replace(b"\n", b"\r\n"))
    fetch_lists("CREMAD", tmp_path, server.address)
    assert read_lists("CREMAD", tmp_path)


def test_the_same_lists_may_be_fetched_by_several_at_a_time(server, tmp_path):
    """Each job of the workflow that waits for one list of a dataset fetches all of them."""
    with ThreadPoolExecutor(8) as pool:
        calls = [
            pool.submit(fetch_lists, "CREMAD", tmp_path, server.address, pause=0.01)
            for _ in range(8)
        ]
        assert all(call.result() for call in calls)
    assert read_lists("CREMAD", tmp_path)


def test_a_derived_split_has_no_lists_to_fetch(tmp_path):
    assert fetch_lists("URFUNNY", tmp_path, "http://127.0.0.1:9/none") == []


def test_what_cuts_splits_opens_no_connection():
    assert "amst.download" not in closure("amst.datasets.splits")


def test_a_second_look_at_a_fetched_model_reads_no_file_unless_told_to(hub, tmp_path):
    folder = fetch_model("tiny", tmp_path, hub.address)
    for path in folder.iterdir():
        os.utime(path, (0, 0))
    assert [found.state for found in check_models(["tiny"], tmp_path)] == ["ok"]
    config = folder / "config.json"
    config.write_bytes(b" " * config.stat().st_size)
    os.utime(config, (0, 0))
    assert [found.state for found in check_models(["tiny"], tmp_path)] == ["ok"]
    assert [found.state for found in check_models(["tiny"], tmp_path, forget=True)] == ["wrong"]
