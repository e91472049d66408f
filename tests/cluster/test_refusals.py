"""A submission that SLURM refuses for now is made again, and one that it took unheard is not."""

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import snakemake_executor_plugin_slurm as plugin
from snakemake.scheduling.job_scheduler import JobScheduler
from snakemake_interface_common.exceptions import WorkflowError

from amst.cluster.refusals import Submissions, passing, wait_for_slurm
from tests.cluster.machines import Slurm, until
from tests.cluster.test_submission import Resources

AWAY = "Batch job submission failed: Unable to contact slurm controller (connect failure)"
TIMED_OUT = "Batch job submission failed: Socket timed out on send/recv operation"
FULL = (
    "AssocMaxSubmitJobLimit\nsbatch: error: Batch job submission failed: Job violates "
    "accounting/QOS policy (job submit limit, user's size and/or time limits)"
)
FOR_GOOD = [
    "Batch job submission failed: Invalid account or account/partition combination specified",
    "invalid partition specified: nope\nsbatch: error: Batch job submission failed: Invalid "
    "partition name specified",
    "Batch job submission failed: Requested node configuration is not available",
    "Batch job submission failed: Requested time limit is invalid (missing or exceeds some limit)",
    "QOSMaxWallDurationPerJobLimit\nsbatch: error: Batch job submission failed: Job violates "
    "accounting/QOS policy (job submit limit, user's size and/or time limits)",
    "Slurm temporarily unable to accept job, sleeping and retrying\nsbatch: error: Batch job "
    "submission failed: Invalid qos specification",
]


class Call:
    """A call of Snakemake as far as the plugin submits a job in it, and what came of that."""

    def __init__(self, folder: Path) -> None:
        self.lines: list[str] = []
        self.submitted: list[Any] = []
        self.failed: list[str] = []
        self.scheduler = SimpleNamespace(_user_kill=None, _executor_error=None)
        self.executor: Any = object.__new__(plugin.Executor)
        vars(self.executor).update(
            workflow=SimpleNamespace(
                executor_settings=plugin.ExecutorSettings(status_command="squeue"),
                scheduler=self.scheduler,
                workdir_init=folder,
            ),
            logger=logging.getLogger("plugin"),
            run_uuid="amst-1_x",
            slurm_logdir=folder / "logs",
            format_job_exec=lambda job: "sleep 60",
            cancel_jobs=self.lines.append,
            _fallback_account_arg="",
            _failed_nodes=set(),
            _partitions=None,
            _job_submission_executor=ThreadPoolExecutor(2),
            _report_job_submission_threadsafe=self.submitted.append,
            _report_job_error_threadsafe=lambda info, said: self.failed.append(said),
        )
        self.submit = Submissions(plugin.Executor.run_job, self.lines.append, pause=0.01)

    def job(self, wildcard: str = "a") -> Any:
        return SimpleNamespace(
            name="train",
            rule=SimpleNamespace(name="train"),
            wildcards=[wildcard],
            is_group=lambda: False,
            jobid=3,
            threads=1,
            resources=Resources(runtime=1, mem_mb=10, slurm_partition="cpu"),
        )

    def numbers(self) -> list[str]:
        return [info.external_jobid for info in self.submitted]


class StandIn:
    """SLURM's commands, which answer what a test says.

    Attributes:
        queue: what squeue lists.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self.queue = folder, folder / "queue"
        self.queue.touch()
        for name, text in {
            "sbatch": "n=0; until mkdir calls/$n 2>/dev/null; do n=$((n+1)); done; "
            "[ ! -e said-$n ] || { cat said-$n >&2; exit 1; }; echo $n",
            "squeue": "cat queue",
        }.items():
            (folder / name).write_text(f'#!/bin/sh\ncd "$(dirname "$0")"; {text}\n')
            (folder / name).chmod(0o755)
        (folder / "calls").mkdir()

    def say(self, *refusals: str) -> None:
        """Let sbatch refuse that often, and then take each job, numbered by its calls."""
        for number, text in enumerate(refusals):
            (self._folder / f"said-{number}").write_text(f"sbatch: error: {text}\n")

    def calls(self) -> int:
        return len(list((self._folder / "calls").iterdir()))


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return StandIn(tmp_path / "bin")


@pytest.fixture
def call(tmp_path: Path) -> Iterator[Call]:
    made = Call(tmp_path)
    yield made
    made.submit.ended.set()


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (AWAY, "SLURM takes no jobs now (Unable to contact slurm controller (connect failure)): "
         "they wait and are submitted again"),
        (TIMED_OUT, "SLURM takes no jobs now (Socket timed out on send/recv operation): "
         "they wait and are submitted again"),
        (FULL, "SLURM takes no jobs now (AssocMaxSubmitJobLimit): they wait until others have "
         "ended"),
    ],
)  # fmt: skip
def test_a_passing_refusal_is_waited_for_and_told_of_once(
    stand_in: StandIn, call: Call, said: str, told: str
):
    stand_in.say(*[said] * 4)
    call.submit(call.executor, call.job())
    assert call.numbers() == ["4"]
    assert call.failed == []
    assert call.lines == [told]


@pytest.mark.parametrize("said", FOR_GOOD)
def test_a_refusal_for_good_fails_at_once_with_slurm_s_words(
    stand_in: StandIn, call: Call, said: str
):
    stand_in.say(said)
    call.submit(call.executor, call.job())
    assert stand_in.calls() == 1
    assert call.submitted == call.lines == []
    assert said in call.failed[0]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("Batch job submission failed: Zero Bytes were transmitted or received", "Zero Bytes"),
        ("Batch job submission failed: Resource temporarily unavailable", "temporarily unav"),
        ("Slurm job queue full, sleeping and retrying\nsbatch: error: Batch job submission failed: "
         "Unable to create job record, try again", "job record, try again"),
        ("x: Connection refused", "Connection refused"),
        ("QOSMaxSubmitJobPerUserLimit\nsbatch: error: x", "QOSMaxSubmitJobPerUserLimit"),
        ("QOSGrpSubmitJobsLimit\nsbatch: error: x", "QOSGrpSubmitJobsLimit"),
        ("Munge encode failed: Failed to access \"/run/munge/munge.socket.2\": No such file or "
         "directory (Did you start munged?)\nsbatch: error: Batch job submission failed: Protocol "
         "authentication error", "Protocol authentication error"),
        ("Batch job submission failed: I/O error writing script/environment to file", "I/O error"),
        ("sbatch: fatal: Could not establish a configuration source", "configuration source"),
        ("Invalid account", ""),
    ],
)  # fmt: skip
def test_words_of_refusals_that_pass(said: str, why: str):
    told = f"SLURM sbatch failed. The error message was '{said}'.\n    sbatch call:\n        {AWAY}"
    found = passing(told)
    assert found.startswith(why)
    assert bool(found) is bool(why)


def test_what_goes_wrong_while_a_job_is_submitted_ends_its_try(call: Call):
    """It would be waited for for ever: nobody asks the plugin's threads what has become of it."""

    def broken(executor: object, job: object) -> None:
        raise BlockingIOError(11, "no more processes")

    call.submit = Submissions(broken, call.lines.append, 0.01)
    call.submit(call.executor, call.job())
    assert "no more processes" in call.failed[0]


def test_another_outage_is_told_of_again(stand_in: StandIn, call: Call):
    """A refusal long after the last one belongs to another."""
    times = iter([0.0, 200.0, 400.0, 800.0])
    call.submit = Submissions(plugin.Executor.run_job, call.lines.append, 0.01, times.__next__)
    stand_in.say(*[AWAY] * 4)
    call.submit(call.executor, call.job())
    assert len(call.lines) == 2


def test_a_job_that_slurm_took_unheard_is_not_submitted_again(stand_in: StandIn, call: Call):
    call.submit(call.executor, call.job())
    stand_in.say("", TIMED_OUT)
    stand_in.queue.write_text(
        "0|rule_train_wildcards_a\n8|rule_train_wildcards_b\n9|rule_train_wildcards_a\n"
    )
    call.submit(call.executor, call.job())
    assert call.numbers() == ["0", "9"], "and an earlier try is none"
    assert stand_in.calls() == 2
    log = call.submitted[1].aux["slurm_logfile"]
    assert log == call.submitted[0].aux["slurm_logfile"].with_name("9.log")
    assert call.lines[1:] == ["SLURM has taken job 9 without saying so: rule_train_wildcards_a"]


def test_a_submission_that_slurm_sees_to_after_its_next_answer_is_not_made_again(
    stand_in: StandIn, call: Call, tmp_path: Path
):
    stand_in.say(TIMED_OUT)
    stand_in.queue.write_text("10|rule_train_wildcards_a\n9|rule_train_wildcards_a\n")
    squeue = '#!/bin/sh\ncd "$(dirname "$0")"; mkdir asked 2>/dev/null || cat queue\n'
    (tmp_path / "bin" / "squeue").write_text(squeue)
    call.submit(call.executor, call.job())
    assert stand_in.calls() == 1
    assert call.numbers() == ["9"]


def test_a_submission_is_not_made_again_before_slurm_has_answered(
    stand_in: StandIn, call: Call, tmp_path: Path
):
    """In an outage neither squeue says whether the job is there."""
    stand_in.say(TIMED_OUT)
    stand_in.queue.write_text("9|rule_train_wildcards_a\n")
    squeue = "for n in 1 2 3; do mkdir away-$n 2>/dev/null && exit 1; done; cat queue"
    (tmp_path / "bin" / "squeue").write_text(f'#!/bin/sh\ncd "$(dirname "$0")"; {squeue}\n')
    call.submit(call.executor, call.job())
    assert stand_in.calls() == 1
    assert call.numbers() == ["9"]


def test_a_call_that_is_told_to_end_waits_for_no_refusal(stand_in: StandIn, call: Call):
    """On SIGTERM Snakemake waits for what runs, and takes a submission for that."""
    stand_in.say(*[AWAY] * 1000)
    thread = threading.Thread(target=call.submit, args=(call.executor, call.job()))
    thread.start()
    until(lambda: call.lines, 20, "a refusal")
    call.scheduler._user_kill = "graceful"
    thread.join(20)
    assert AWAY in call.failed[0]
    before = stand_in.calls()
    call.submit(call.executor, call.job())
    assert len(call.failed) == 2
    assert stand_in.calls() == before, "nor is what it had not submitted yet"


def handle_error(seen: list[int], job: Any, postprocess_job: bool = True) -> None:
    """Snakemake's own, as far as it looks at how many tries a job has; a group has the most."""
    seen.append(max(each.rule._restart_times for each in (job.jobs if job.is_group() else [job])))


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugin as a call has it, for one test."""
    for name in ("run_job", "cancel"):
        monkeypatch.setattr(plugin.Executor, name, getattr(plugin.Executor, name))
    monkeypatch.setattr(plugin, "validate_account", plugin.validate_account)
    monkeypatch.setattr(JobScheduler, "_handle_error", handle_error)
    wait_for_slurm()


@pytest.mark.usefixtures("patient")
def test_a_call_that_is_cancelled_ends_though_submissions_wait(
    stand_in: StandIn, call: Call, monkeypatch: pytest.MonkeyPatch
):
    """Nothing is submitted after that, though more jobs had been given to the plugin."""
    stand_in.say(*[AWAY] * 1000)
    monkeypatch.setattr(call.executor, "shutdown", lambda: None, raising=False)
    vars(call.executor).update(lock=threading.Lock(), active_jobs=["7"])
    threads = call.executor._job_submission_executor
    given = [threads.submit(call.executor.run_job, call.job(each)) for each in "abcd"]
    until(lambda: stand_in.calls() == 2, 20, "two refusals")
    call.executor.cancel()
    assert call.lines == [["7"]], "jobs that live are cancelled"
    assert stand_in.calls() == 2
    assert [each.cancelled() for each in given] == [False, False, True, True]
    assert call.failed == call.submitted == []


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("group", [False, True])
def test_a_job_that_is_refused_for_good_is_tried_no_more_and_others_are(
    stand_in: StandIn, call: Call, group: bool
):
    """With ten tries for each of many runs, nobody would find what SLURM has said."""
    stand_in.say(FOR_GOOD[0])
    refused, taken = call.job(), call.job()
    rules = {number: SimpleNamespace(name="train", _restart_times=number) for number in (10, 5)}
    for job in (refused, taken):
        call.executor.run_job(job)
        job.rule = rules[10]
        job.jobs = [SimpleNamespace(rule=rules[number]) for number in (5, 10, 10)]
        job.is_group = lambda: group
    assert (len(call.failed), len(call.submitted)) == (1, 1)
    seen: list[int] = []
    for job in (refused, taken):
        JobScheduler._handle_error(seen, job)
    assert seen == [0, 10]
    assert [rule._restart_times for rule in rules.values()] == [10, 5], "others have their tries"


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("killed", [False, True])
def test_a_job_that_this_node_could_not_submit_has_its_tries(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, killed: bool
):
    def full(*arguments: object, **options: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    job = call.job()
    job.rule._restart_times = 10
    if killed:
        (tmp_path / "sbatch").write_text("#!/bin/sh\nkill -9 $$\n")
        (tmp_path / "sbatch").chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    else:
        monkeypatch.setattr(plugin.subprocess, "Popen", full)
    call.executor.run_job(job)
    assert len(call.failed) == 1
    seen: list[int] = []
    JobScheduler._handle_error(seen, job)
    assert seen == [10]


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(("accounts", "status"), [("other", 0), ("", 1)])
def test_an_account_that_cannot_be_checked_is_left_to_sbatch(
    stand_in: StandIn, tmp_path: Path, accounts: str, status: int
):
    """As while accounting is away; one that is not there is an error."""
    for name in ("sacctmgr", "sshare"):
        program = tmp_path / "bin" / name
        program.write_text(f"#!/bin/sh\necho {accounts}\nexit {status}\n")
        program.chmod(0o755)
    if status:
        assert plugin.validate_account("lab", logging.getLogger()) == "lab"
    else:
        with pytest.raises(WorkflowError, match="lab appears to be invalid"):
            plugin.validate_account("lab", logging.getLogger())


def test_a_submission_that_times_out_at_a_busy_slurm_makes_one_job(
    start_slurm: Callable[..., Slurm], call: Call, monkeypatch: pytest.MonkeyPatch
):
    """A slurmctld that is stopped answers nothing, and finds the submission when it goes on."""
    slurm = start_slurm(nodes=1, gpus=1)
    settings = Path(slurm.environment["SLURM_CONF"])
    hasty = settings.with_name("hasty.conf")
    hasty.write_text(settings.read_text() + "MessageTimeout=2\n")
    monkeypatch.setenv("SLURM_CONF", str(hasty))
    monkeypatch.setenv("PATH", slurm.environment["PATH"])
    call.submit = Submissions(plugin.Executor.run_job, call.lines.append, pause=1)
    controller = int((slurm.folder / "pid" / "slurmctld").read_text())
    os.kill(controller, signal.SIGSTOP)
    thread = threading.Thread(target=call.submit, args=(call.executor, call.job()))
    try:
        thread.start()
        until(lambda: call.lines, 60, "a refusal")
    finally:
        os.kill(controller, signal.SIGCONT)
    thread.join(60)
    assert "(Socket timed out" in call.lines[0]
    assert call.numbers() == [job["id"] for job in slurm.jobs()]
    assert len(call.submitted) == 1
    assert call.failed == []
