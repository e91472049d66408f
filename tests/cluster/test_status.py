"""An outage of SLURM leads neither Snakemake's plugin nor a wait for jobs astray."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import snakemake_executor_plugin_slurm as plugin

from amst.cluster import earlier, live
from amst.cluster.status import JobStates, mend_the_plugin
from amst.errors import AmstError
from tests.cluster.machines import Slurm, slurm_that_is_down


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Asked:
    """SLURM's answers, one after the other, and what the plugin is told of them."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.commands: list[str] = []
        self.clock = Clock()
        self.answer: dict[str, str] | None = {}
        self.unknown: set[str] = set()
        self.states = JobStates(
            self._query, self.lines.append, self.clock, self.unknown.__contains__
        )
        self.states.await_jobs(["1", "2", "3_4"])

    async def _query(self, command: str, logger: object) -> tuple[dict[str, str] | None, Any]:
        self.commands.append(command)
        return self.answer, None if self.answer is None else 0.5

    def look(self, answer: dict[str, str] | None, command: str = "squeue -h") -> dict[str, str]:
        self.answer = answer
        states, seconds = asyncio.run(self.states(command, None))
        assert states is not None
        assert seconds is not None
        return states


@pytest.fixture
def asked() -> Asked:
    return Asked()


def test_who_cancelled_a_job_is_no_part_of_its_state(asked: Asked):
    given = {"1": "CANCELLED by 1000", "2": "RUNNING"}
    assert asked.look(given, "sacct -X") == {"1": "CANCELLED", "2": "RUNNING"}


def test_jobs_of_hidden_partitions_are_asked_for(asked: Asked):
    asked.look({}, "squeue -h")
    asked.look({}, "sacct -X")
    assert asked.commands == ["squeue -h --all", "sacct -X"]


def test_without_an_answer_no_job_has_ended_and_it_is_said_once(asked: Asked):
    assert [asked.look(None) for _ in range(1000)] == [{}] * 1000
    assert len(asked.lines) == 1
    running = {"1": "RUNNING", "2": "PENDING"}
    assert asked.look(running) == running
    asked.look(None)
    assert len(asked.lines) == 2


def test_a_job_that_slurm_does_not_know_any_more_is_tried_again(asked: Asked):
    asked.unknown.add("2")
    listed = {"1": "RUNNING"}
    for answer in (listed, None, listed):
        assert "2" not in asked.look(answer)
    assert asked.look({"1": "RUNNING", "2": "PENDING"})["2"] == "PENDING"
    assert ["2" in asked.look(listed) for _ in range(2)] == [False, False]
    assert asked.look(listed) == {"1": "RUNNING", "2": "FAILED"}
    assert "forgotten job 2" in asked.lines[-1]


@pytest.mark.parametrize("command", ["squeue -h", "sacct -X"])
def test_a_job_that_is_not_listed_and_known_is_waited_for(asked: Asked, command: str):
    """As one that accounting has not heard of yet; of a job array SLURM knows other names."""
    asked.unknown.add("3_4")
    assert [asked.look({}, command) for _ in range(20)] == [{}] * 20


def test_slurm_is_asked_for_single_jobs(
    start_slurm: Callable[..., Slurm], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    slurm = start_slurm(nodes=1, gpus=1)
    for name, value in slurm.environment.items():
        monkeypatch.setenv(name, value)
    slurm("scontrol", "update", "partitionname=gpu", "hidden=yes")
    job = slurm("sbatch", "--parsable", "-p", "gpu", "-H", "--wrap", "true").strip()
    assert not live.is_unknown(job)
    assert live.is_unknown("99999")
    for name, value in slurm_that_is_down(tmp_path).items():
        monkeypatch.setenv(name, value.removeprefix(f"{slurm.folder / 'bin'}:"))
    assert not live.is_unknown("99999"), "it does not answer"


def test_a_pre_empted_job_that_is_not_queued_again_is_submitted_anew(asked: Asked):
    away = {"1": "PREEMPTED", "2": "RUNNING"}
    assert asked.look(away) == away
    asked.clock.now = 299
    assert asked.look({"1": "PENDING", "2": "RUNNING"})["1"] == "PENDING"
    for asked.clock.now in (310, 609):
        assert asked.look(away)["1"] == "PREEMPTED"
    asked.clock.now = 611
    assert asked.look(away) == {"1": "CANCELLED", "2": "RUNNING"}


def test_a_node_that_fails_is_kept_from_no_later_job(asked: Asked):
    """The plugin excludes nodes for the rest of the call when it hears of NODE_FAIL."""
    lost = {"1": "NODE_FAIL", "2": "RUNNING"}
    assert asked.look(lost, "sacct -X") == {"1": "REQUEUED", "2": "RUNNING"}
    asked.clock.now = 299
    assert asked.look(lost, "sacct -X")["1"] == "REQUEUED"
    assert asked.lines == []
    asked.clock.now = 301
    assert asked.look(lost, "sacct -X")["1"] == "CANCELLED"
    assert asked.lines == [
        "SLURM does not queue job 1, whose node has failed, again: it is submitted anew"
    ]


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """What SLURM will answer when it is asked for MinJobAge, one after the other."""
    given: list[int | None] = []
    asked: Iterator[int | None] = iter(given)
    monkeypatch.setattr(plugin, "get_min_job_age", lambda: next(asked))
    monkeypatch.setattr(plugin, "query_job_status", plugin.query_job_status)
    look = plugin.Executor.check_active_jobs
    monkeypatch.setattr(plugin.Executor, "check_active_jobs", look)
    return given


def test_an_answer_holds_while_slurm_is_away(answers: list[int | None]):
    answers += [600, None]
    mend_the_plugin()
    assert [plugin.get_min_job_age() for _ in range(3)] == [600, 600, 600]


def test_a_slurm_that_forgets_no_job_is_asked_by_squeue_too(answers: list[int | None]):
    """MinJobAge is 0 then, and the plugin takes that for too short."""
    answers.append(0)
    mend_the_plugin()
    assert plugin.get_min_job_age() > 10**6


def test_without_an_answer_it_is_asked_again(answers: list[int | None]):
    answers += [None, 300]
    mend_the_plugin()
    assert plugin.get_min_job_age() == 300


@pytest.mark.parametrize(
    ("command", "min_job_age", "pause"),
    [
        ("squeue -h", 90, 30),
        ("squeue -h", None, 190),
        ("squeue -h", 0, 190),  # it forgets none
        ("squeue -h", 3600, 190),
        ("sacct -X", 90, 190),
    ],
)
def test_no_job_can_end_and_be_forgotten_between_two_looks(
    answers: list[int | None],
    command: str,
    min_job_age: int | None,
    pause: int,
    monkeypatch: pytest.MonkeyPatch,
):
    async def query(command: str, logger: object) -> tuple[dict[str, str], float]:
        return {}, 0.1

    async def look(self: Any, jobs: list[Any]) -> AsyncIterator[Any]:
        await plugin.query_job_status(command, None)
        for job in jobs:
            yield job
        self.next_seconds_between_status_checks = 190

    monkeypatch.setattr(plugin, "query_job_status", query)
    monkeypatch.setattr(plugin.Executor, "check_active_jobs", look)
    answers.append(min_job_age)
    mend_the_plugin()
    executor = SimpleNamespace()
    job = SimpleNamespace(external_jobid="1")

    async def looked() -> list[Any]:
        return [each async for each in plugin.Executor.check_active_jobs(executor, [job])]

    assert asyncio.run(looked()) == [job]
    assert executor.next_seconds_between_status_checks == pause


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


def test_a_wait_that_has_an_end_has_it_when_slurm_stays_away(
    queue: list[list[live.LiveJob] | AmstError],
):
    queue += [[live.LiveJob("1", "RUNNING", "")], *([AmstError("no answer")] * 1000)]
    with pytest.raises(AmstError, match="no answer"):
        earlier.wait(Path(), poll=0.01, patience=0.1)
