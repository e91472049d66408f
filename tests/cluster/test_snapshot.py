"""What a call writes down for its jobs: the configuration, and digests of the code."""

import os
from pathlib import Path

import pytest

from amst.cluster import snapshot
from amst.errors import AmstError


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AMST_CONFIG", "AMST_CODE"):
        monkeypatch.delenv(name, raising=False)


def test_a_job_has_the_configuration_of_its_call(tmp_path: Path):
    snapshot.keep_configuration({"grid": {"seeds": [0]}}, True, tmp_path)
    config = {"grid": {"seeds": [0, 1]}, "other": 1}
    snapshot.take_configuration(config)
    assert config == {"grid": {"seeds": [0]}}


def test_a_job_finds_the_snapshot_from_any_folder(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    snapshot.keep_configuration({"grid": 2}, True, Path(".snakemake"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    config = {"grid": 1}
    snapshot.take_configuration(config)
    assert config == {"grid": 2}


def test_a_job_refuses_to_run_by_the_files_where_the_snapshot_is_gone(tmp_path: Path):
    config = {"grid": 1}
    snapshot.take_configuration(config)
    assert config == {"grid": 1}, "its call has written none"
    snapshot.keep_configuration({"grid": 2}, True, tmp_path)
    Path(os.environ["AMST_CONFIG"]).unlink()
    with pytest.raises(AmstError, match="the configuration of this call, cannot be read"):
        snapshot.take_configuration(config)


def test_snapshots_of_earlier_calls_go_but_not_while_another_call_lives(tmp_path: Path):
    for seeds in (1, 2, 3):
        snapshot.keep_configuration({"seeds": seeds}, True, tmp_path)
    assert [str(path) for path in tmp_path.iterdir()] == [os.environ["AMST_CONFIG"]]
    snapshot.keep_configuration({"seeds": 4}, False, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2, "its jobs, which may yet wait, read the other one"


def test_a_job_refuses_code_that_its_call_did_not_have():
    environ: dict[str, str] = {}
    call = snapshot.CodeOfCall(is_job=False, environ=environ)
    assert call.same("training naive", lambda: "a") == "a"
    assert call.same("training mla", lambda: "b") == "b"
    job = snapshot.CodeOfCall(is_job=True, environ=environ)
    assert job.same("training mla", lambda: "b") == "b"
    assert job.same("drawing", lambda: "c") == "c", "the call had no need to know"
    with pytest.raises(AmstError, match="the code of training naive has changed"):
        job.same("training naive", lambda: "z")


def test_a_call_in_a_job_of_another_call_goes_by_its_own_code():
    environ = {"AMST_CODE": '{"training naive": "old"}'}
    assert snapshot.CodeOfCall(is_job=False, environ=environ).same("training naive", lambda: "new")
