"""An outage of SLURM leads neither Snakemake's plugin nor a wait for jobs astray."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import snakemake_executor_plugin_slurm as plugin

from amst.cluster import earlier, live
from amst.cluster.status import remember_min_job_age
from amst.errors import AmstError


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """What SLURM will answer when it is asked for MinJobAge, one after the other."""
    given: list[int | None] = []
    asked: Iterator[int | None] = iter(given)
    monkeypatch.setattr(plugin, "get_min_job_age", lambda: next(asked))
    return given


def test_an_answer_holds_while_slurm_is_away(answers: list[int | None]):
    answers += [600, None]
    remember_min_job_age()
    assert [plugin.get_min_job_age() for _ in range(3)] == [600, 600, 600]


def test_without_an_answer_it_is_asked_again(answers: list[int | None]):
    answers += [None, 300]
    remember_min_job_age()
    assert plugin.get_min_job_age() == 300


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> list[list[live.LiveJob] | AmstError]:
    """What SLURM will answer when it is asked for jobs, one after the other."""
    given: list[list[live.LiveJob] | AmstError] = []

    def asked(folder: Path) -> list[live.LiveJob]:
        answer = given.pop(0)
        if isinstance(answer, AmstError):
            raise answer
        return answer

    monkeypatch.setattr(earlier, "live_jobs", asked)
    return given


def test_a_wait_for_jobs_sits_out_an_outage(queue: list[list[live.LiveJob] | AmstError]):
    job, away = live.LiveJob("1", "RUNNING", ""), AmstError("no answer")
    queue += [[job], away, away, [job], away, []]
    earlier.wait(Path(), poll=0.01)
    assert queue == []


def test_a_wait_ends_when_slurm_stays_away(
    queue: list[list[live.LiveJob] | AmstError], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(earlier, "_OUTAGE", 0.0)
    queue += [[live.LiveJob("1", "RUNNING", "")], *([AmstError("no answer")] * 100)]
    with pytest.raises(AmstError, match="no answer"):
        earlier.wait(Path(), poll=0.01)
