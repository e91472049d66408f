"""Jobs of a folder are found wherever they are."""

import os
from pathlib import Path

import pytest

from amst.cluster import live


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
