"""What Snakemake's SLURM plugin is told, so that an outage does not lead it astray."""

from collections.abc import Iterator

import pytest
import snakemake_executor_plugin_slurm as plugin

from amst.cluster.status import remember_min_job_age


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
