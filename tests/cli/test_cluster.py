"""`amst jobs` and `amst doctor`: what is listed stays, what is faulty shows in the exit code."""

import os
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from amst.cli import app
from amst.cli.cluster import _image
from amst.cluster import node, scheduler, storage
from amst.cluster.findings import Finding, fault, note, ok
from amst.cluster.live import prefix_of
from amst.errors import AmstError
from amst.grid import read_config

ROOT = Path(__file__).parents[2]


def amst(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two live jobs, and what scancel is called with."""
    monkeypatch.chdir(tmp_path)
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "queue").write_text(
        f"7|{prefix_of(tmp_path)}_1|RUNNING|None|rule_train\n"
        f"8|{prefix_of(tmp_path)}_2|PENDING|Priority|rule_extract\n"
        f"9|{prefix_of(tmp_path / 'other')}_1|RUNNING|None|rule_train\n"
    )
    for name, text in {
        "squeue": "cat queue",
        "scancel": 'echo "$@" >> cancelled; : > queue',
    }.items():
        (programs / name).write_text(f'#!/bin/sh\ncd "$(dirname "$0")"; {text}\n')
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return programs / "cancelled"


def test_jobs_are_listed_and_ended_only_when_told(cancelled: Path):
    listed = "7 running rule_train\n8 pending rule_extract\n"
    assert amst("jobs") == listed
    with pytest.raises(AmstError, match="--wait and --cancel exclude each other"):
        amst("jobs", "--wait", "--cancel")
    assert not cancelled.exists()
    assert amst("jobs", "--cancel") == "cancelled 2 jobs; finished runs stay, others continue\n"
    assert cancelled.read_text() == "7 8\n"
    assert amst("jobs", "--cancel") == "no jobs of this folder live\n"
    assert cancelled.read_text() == "7 8\n", "a call without numbers would ask for none"


def test_jobs_of_another_folder_can_be_named(cancelled: Path, tmp_path: Path):
    assert amst("jobs", "--folder", str(tmp_path / "other")) == "9 running rule_train\n"
    amst("jobs", "--cancel", "--folder", str(tmp_path / "other"))
    assert cancelled.read_text() == "9\n"


def test_to_wait_ends_no_job(cancelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    waited: list[Path] = []
    monkeypatch.setattr("amst.cluster.earlier.wait", waited.append)
    amst("jobs", "--wait", "--folder", str(tmp_path))
    assert waited == [tmp_path]
    assert not cancelled.exists()


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[object, list[Finding]]:
    """Part of the examination -> what it finds."""
    monkeypatch.chdir(tmp_path)
    findings: dict[object, list[Finding]] = {node: [], storage: [], scheduler: []}
    for part in findings:
        monkeypatch.setattr(part, "examine", lambda *given, part=part: findings[part])
    return findings


def test_only_faults_fail_an_examination_and_all_is_shown_before(found):
    found[node] = [ok("GPU", "[/one]"), note("packages", "old [0:1]")]
    found[scheduler] = [note("accounting", "off")]
    assert [line.split()[0] for line in amst("doctor").splitlines()] == [
        "This", "ok", "note", "This", "SLURM", "note",
    ]  # fmt: skip
    found[storage] = [fault("run locks", "none"), fault("rename", "none")]
    done = CliRunner().invoke(app, ["doctor"])
    assert isinstance(done.exception, AmstError)
    assert "2 of these will not work" in str(done.exception)
    assert "  fault run locks: none" in done.stdout
    assert "  note  accounting: off" in done.stdout
    assert "  ok    GPU: [/one]\n  note  packages: old [0:1]\n" in done.stdout


def test_the_image_that_is_examined_is_the_one_that_jobs_use(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "config.yaml", tmp_path)
    values = read_config(Path("config.yaml"))
    built = _image(values, tmp_path)
    assert built == _image(None, tmp_path)
    assert built.parent == tmp_path / "containers"

    def with_image(name: str) -> Path | None:
        given = values.model_dump() | {"container": {"image": name}}
        return _image(type(values).model_validate(given), tmp_path)

    assert with_image("my/own.sif") == tmp_path / "my/own.sif"
    assert with_image("/shared/own.sif") == Path("/shared/own.sif")
    assert with_image(f"docker://host/amst@sha256:{'0' * 64}") is None
