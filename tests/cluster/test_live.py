"""Jobs of a folder are found wherever they are, and SLURM's commands may fail in many ways."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from amst.cluster import live
from amst.cluster.allocation import ENDS, note_end
from amst.errors import AmstError


@pytest.fixture
def hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through a stand-in for squeue, with a job in a hidden partition; root sees those anyway."""
    program = tmp_path / "squeue"
    listed = f"7|{live.prefix_of(tmp_path)}_1|RUNNING|None|rule_train"
    program.write_text(f'#!/bin/sh\ncase " $* " in *" --all "*) echo "{listed}" ;; esac\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")


@pytest.mark.usefixtures("hidden")
def test_a_job_in_a_hidden_partition_lives(tmp_path: Path):
    assert live.live_jobs(tmp_path) == [live.LiveJob("7", "RUNNING", "rule_train")]
    assert not live.has_ended("7")


@pytest.fixture
def squeue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    """Lets a stand-in for squeue say something and end."""
    program = tmp_path / "bin" / "squeue"
    program.parent.mkdir()
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")

    def says(text: str, code: int = 0) -> None:
        (tmp_path / "said").write_text(text)
        program.write_text(f"#!/bin/sh\ncat {tmp_path}/said >&{2 if code else 1}\nexit {code}\n")
        program.chmod(0o755)

    return says


def test_jobs_of_other_folders_are_not_those_of_this_one(squeue, tmp_path: Path):
    own, other = live.prefix_of(tmp_path), live.prefix_of(tmp_path / "other")
    squeue(
        f"7|{own}_1|RUNNING|None|rule_train|of a|name\n8|{other}_1|RUNNING|None|rule_train\n"
        f"9|{own}0_1|RUNNING|None|rule_train\n10|mine|PENDING|Priority|(null)\n"
        f"11|{own}_2|PENDING|Priority|(null)\n"
    )
    assert live.live_jobs(tmp_path) == [
        live.LiveJob("7", "RUNNING", "rule_train|of a|name"),
        live.LiveJob("11", "PENDING", "", "Priority"),
    ]


def test_jobs_that_a_user_s_own_squeue_would_hide_live(
    squeue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """And the end of an allocation is read where a user has times shown otherwise."""
    squeue("")
    program = tmp_path / "bin" / "squeue"
    program.write_text(f"#!/bin/sh\nenv > {tmp_path}/environment\n")
    preferences = {"SQUEUE_PARTITION", "SQUEUE_STATES", "SLURM_TIME_FORMAT", "SCANCEL_STATE"}
    others = {"SLURM_CONF", "SLURM_CLUSTERS", "SBATCH_ACCOUNT"}
    for name in preferences | others:
        monkeypatch.setenv(name, "cpu")
    live.live_jobs(tmp_path)
    seen = {line.partition("=")[0] for line in (tmp_path / "environment").read_text().split()}
    assert seen & (preferences | others) == others
    assert preferences <= set(os.environ)
    live.forget_preferences()
    assert set(os.environ) & (preferences | others) == others


@pytest.mark.parametrize(
    ("said", "code", "ended"),
    [
        ("", 0, True),
        ("7\n", 0, False),
        ("slurm_load_jobs error: Invalid job id specified", 1, True),
        ("slurm_load_jobs error: Unable to contact slurm controller", 1, False),
    ],
)
def test_a_job_has_ended_if_slurm_says_so(squeue, said: str, code: int, ended: bool):
    squeue(said, code)
    assert live.has_ended("7") is ended
    assert not live.has_ended("7", own="7"), "it is the one that asks"
    assert not live.has_ended("")


def test_without_slurm_no_job_lives_and_nobody_says_that_one_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert live.live_jobs(tmp_path) == []
    assert not live.has_ended("7")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            "echo 'error: Unable to contact' >&2; echo ' slurm controller' >&2; exit 1",
            "squeue: error: Unable to contact slurm controller. Try again when SLURM answers",
        ),
        ("exit 3", "squeue: exit code 3. Try again when SLURM answers"),
        ("exec sleep 60", "squeue has not answered for two minutes. Try later"),
        (None, "squeue: No such file or directory. Try later"),
    ],
)
def test_why_slurm_gives_no_answer_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, said: str
):
    """And the end of an allocation is then not known."""
    if script:
        program = tmp_path / "squeue"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin" if script else str(tmp_path))
    monkeypatch.setattr(live, "_PATIENCE", 0.5)
    with pytest.raises(AmstError) as caught:
        live.ask("squeue", "--noheader")
    assert str(caught.value).startswith(said)
    environ = {"SLURM_JOB_ID": "7"}
    note_end(environ)
    assert ENDS not in environ
