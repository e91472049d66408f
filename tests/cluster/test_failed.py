"""A run that has failed for good is tried no more; all other jobs keep their tries."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from snakemake.scheduling.job_scheduler import JobScheduler

from amst.cluster.failed import end_failed_runs
from amst.config.run import RunSettings
from amst.files import write_json
from amst.grid import Cell, Resolver, read_config
from amst.provenance import present_digest
from tests.cluster.machines import ROOT

TRIES = 10


@pytest.fixture
def failed() -> RunSettings:
    """Settings of the run that has failed."""
    return Resolver(read_config(ROOT / "config.yaml"))(Cell("digits", "random", "naive", 0))


@pytest.fixture
def tries(failed: RunSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Tries that a job of a rule has when its error is looked at, and those of the rule after."""
    seen: list[int] = []

    def handle_error(self: object, job: Any, postprocess_job: bool = True) -> None:
        seen.append(job.rule._restart_times)
        if job.breaks:
            raise OSError("the scheduler's own")

    monkeypatch.setattr(JobScheduler, "_handle_error", handle_error)

    def run_of(_: object) -> tuple[RunSettings, Path]:
        if (tmp_path / "away").exists():
            raise OSError(116, "Stale file handle")
        return failed, tmp_path / "features"

    end_failed_runs(run_of, tmp_path)

    def ask(rule: str = "train", group: bool = False, breaks: bool = False) -> tuple[int, int]:
        its = SimpleNamespace(name=rule, _restart_times=TRIES)
        job = SimpleNamespace(rule=its, wildcards=None, is_group=lambda: group, breaks=breaks)
        if breaks:
            with pytest.raises(OSError, match="own"):
                JobScheduler._handle_error(None, job)
        else:
            JobScheduler._handle_error(None, job)
        return seen.pop(), its._restart_times

    return ask


def note(failed: RunSettings, folder: Path, **changes: object) -> None:
    """What a failed run leaves."""
    digest = present_digest(failed, folder / "features")
    values = {"digest": digest, "hosts": [], **changes}
    write_json(folder / "checkpoints" / failed.run_id / "failed.json", values)


def test_a_run_that_failed_for_good_has_no_try_and_the_next_run_has_all(failed, tries, tmp_path):
    assert tries() == (TRIES, TRIES), "it was taken away"
    note(failed, tmp_path)
    assert tries() == (0, TRIES)
    assert tries(breaks=True) == (0, TRIES)
    note(failed, tmp_path, hosts=["n1", "n2"])
    assert tries() == (0, TRIES)


@pytest.mark.parametrize(
    "changes", [{"hosts": ["n1"]}, {"digest": "of other code"}, {"hosts": 3}], ids=str
)
def test_one_that_may_yet_succeed_has_its_tries(failed, tries, tmp_path, changes):
    note(failed, tmp_path, **changes)
    assert tries() == (TRIES, TRIES)


def test_jobs_of_other_rules_and_groups_are_left_alone(failed, tries, tmp_path):
    note(failed, tmp_path)
    assert tries(rule="extract") == (TRIES, TRIES)
    assert tries(group=True) == (TRIES, TRIES)


def test_what_cannot_be_read_now_is_tried_again(failed, tries, tmp_path):
    note(failed, tmp_path)
    (tmp_path / "away").touch()
    assert tries() == (TRIES, TRIES)
