import hashlib
import json
import re

import pytest

from amst.config.run import TextFeatures
from amst.errors import AmstError
from amst.features.check import check_models
from amst.features.text import load_tokenizer
from amst.models.encoders import load_roberta
from amst.pretrained import located
from amst.staging import PINNED, Model, damaged, fetch_model
from tests.modelhub import serving, tiny_roberta

REVISION = "0123abcd"


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
    fetch_model("tiny", tmp_path, hub.address)
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
