"""Jobs that SLURM holds are let go on, or told of; nobody waits for them without a word."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from amst.cluster import earlier, held, live
from amst.errors import AmstError
from tests.cluster.machines import Slurm, until


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture(scope="module")
def cluster(start_slurm: Callable[..., Slurm]) -> Slurm:
    return start_slurm(nodes=3, gpus=1)


@pytest.fixture
def call(cluster: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slurm]:
    """The cluster, as a call of Snakemake in `tmp_path` sees it."""
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    yield cluster
    for job in live.live_jobs(tmp_path):
        cluster("scancel", job.id)


def submit(slurm: Slurm, folder: Path, *options: str) -> str:
    """A job of a folder, as profiles/slurm submits it; its number."""
    name = f"{live.prefix_of(folder)}_1"
    given = ("-J", name, "--comment", "rule_train", "-o", "/dev/null", *options)
    return slurm("sbatch", "--parsable", *given, "--wrap", "true").strip()


def test_a_job_that_a_node_could_not_start_is_released_and_ends(
    call: Slurm, tmp_path: Path, lines: list[str]
):
    broken = call.folder / "etc" / "prolog-fails"
    broken.touch()
    job = submit(call, tmp_path)
    until(lambda: "held" in call("squeue", "-h", "-j", job, "-o", "%r"), 30, "the failed start")
    assert "(launch failed requeued held) rule_train" in str(live.live_jobs(tmp_path)[0])
    broken.unlink()
    earlier.wait(tmp_path, poll=0.5, patience=60, tell=lines.append)
    assert f"SLURM holds job {job} (launch failed requeued held) rule_train" in lines[1]
    assert "released" in lines[1]
    assert call.field(job, "JobState") == "COMPLETED"


def test_a_job_that_is_held_on_purpose_is_told_of_once_and_stays(
    call: Slurm, tmp_path: Path, lines: list[str]
):
    job = submit(call, tmp_path, "--hold")
    seen = held.HeldJobs(lines.append)
    for _ in range(3):
        seen.look(live.live_jobs(tmp_path))
    (line,) = lines
    assert f"SLURM holds job {job} (JobHeldUser) rule_train" in line
    assert f"`scontrol release {job}`" in line
    assert call.field(job, "Priority") == "0"


def test_a_job_that_its_partition_will_not_start_is_told_of_once(
    call: Slurm, tmp_path: Path, lines: list[str]
):
    """By default SLURM takes it, and it waits."""
    job = submit(call, tmp_path, "--time=120")
    until(lambda: live.live_jobs(tmp_path)[0].stuck, 30, "a look of the scheduler")
    seen = held.HeldJobs(lines.append)
    waiting = live.LiveJob(job, "PENDING", "", "Priority")
    for jobs in (live.live_jobs(tmp_path), [waiting], live.live_jobs(tmp_path)):
        seen.look(jobs)
    (line,) = lines
    assert line.startswith(f"SLURM does not start job {job} (PartitionTimeLimit) rule_train: ")
    assert f"`scancel {job}`" in line
    assert "(PartitionTimeLimit)" in str(live.live_jobs(tmp_path)[0])


def failing(number: str = "7") -> live.LiveJob:
    return live.LiveJob(number, "PENDING", "", "launch failed requeued held")


def test_a_job_that_no_node_can_start_is_not_released_for_ever(
    lines: list[str], monkeypatch: pytest.MonkeyPatch
):
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(held, "ask", lambda *words: asked.append(words))
    seen = held.HeldJobs(lines.append)
    for _ in range(6):
        seen.look([failing()])
    assert asked == [("scontrol", "release", "7")] * 3
    assert ["released" in line for line in lines] == [True, True, True, False]


def test_a_job_that_slurm_does_not_release_is_told_of_once(
    lines: list[str], monkeypatch: pytest.MonkeyPatch
):
    def refuse(*words: str) -> str:
        raise AmstError("scontrol: Access denied")

    monkeypatch.setattr(held, "ask", refuse)
    seen = held.HeldJobs(lines.append)
    for _ in range(2):
        seen.look([failing()])
    (line,) = lines
    assert "it waits until `scontrol release 7`" in line


def test_a_job_that_is_stuck_is_told_of_once_whatever_slurm_says_in_between(lines: list[str]):
    seen = held.HeldJobs(lines.append)
    for reason in ("PartitionTimeLimit", "Priority", "PartitionTimeLimit", "BadConstraints"):
        seen.look([live.LiveJob("7", "PENDING", "", reason)])
    assert len(lines) == 1


def test_jobs_that_are_stuck_for_one_reason_are_told_of_in_one_line(lines: list[str]):
    """As all are whose account has used up its hours."""
    for_hours = [live.LiveJob(str(n), "PENDING", f"rule_{n}", "AssocGrpCPUMinutesLimit")
                 for n in (7, 8, 9)]  # fmt: skip
    seen = held.HeldJobs(lines.append)
    for jobs in (for_hours[:1], [*for_hours, live.LiveJob("5", "PENDING", "", "BadConstraints")]):
        seen.look(jobs)
    assert [line.partition(":")[0] for line in lines] == [
        "SLURM does not start job 7 (AssocGrpCPUMinutesLimit) rule_7",
        "SLURM does not start job 8 (AssocGrpCPUMinutesLimit) rule_8 and 1 more",
        "SLURM does not start job 5 (BadConstraints)",
    ]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_who_watches_goes_on_when_slurm_did_not_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    answers = iter([AmstError("no answer"), [live.LiveJob("7", "PENDING", "", "JobHeldUser")]])

    def asked(folder: Path) -> list[live.LiveJob]:
        answer = next(answers, None)
        if answer is None:
            raise SystemExit  # ends the thread
        if isinstance(answer, AmstError):
            raise answer
        return answer

    monkeypatch.setattr(held, "live_jobs", asked)
    held.watch(Path(), poll=0.01).join(20)
    assert capsys.readouterr().err.startswith("SLURM holds job 7 (JobHeldUser): it waits until")


def test_a_job_that_is_held_again_is_told_of_again(lines: list[str]):
    waiting = live.LiveJob("7", "PENDING", "", "JobHeldUser")
    seen = held.HeldJobs(lines.append)
    for jobs in ([waiting], [live.LiveJob("7", "RUNNING", "")], [waiting], [waiting]):
        seen.look(jobs)
    assert len(lines) == 2


def test_a_job_that_is_requeued_and_held_is_told_of(call: Slurm, tmp_path: Path, lines: list[str]):
    for command, said in (("requeuehold", "held"), ("requeue State=SpecialExit", "special")):
        job = submit(call, tmp_path)
        until(lambda job=job: call.field(job, "JobState") == "COMPLETED", 30, "the job's end")
        call("scontrol", *command.split(), job)
        (live_job,) = live.live_jobs(tmp_path)
        assert said in f"{live_job.state} {live_job.reason}".lower()
        held.HeldJobs(lines.append).look([live_job])
        assert f"SLURM holds job {job} " in lines.pop()
        call("scancel", job)


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ("PENDING", "JobHeldUser"),
        ("PENDING", "JobHeldAdmin"),
        ("PENDING", "JobHoldMaxRequeue"),
        ("PENDING", "launch failed requeued held"),
        ("PENDING", "launch_failed_requeued_held"),
        ("PENDING", "launch failure limit exceeded requeued held"),
        ("PENDING", "user env retrieval failed requeued held"),
        ("PENDING", "job requeued in held state"),
        ("PENDING", "License request 'matlab' is no longer valid, holding job"),
        ("REQUEUE_HOLD", ""),
        ("RESV_DEL_HOLD", ""),
        ("SPECIAL_EXIT", "job requeued in special exit state"),
    ],
)
def test_every_word_of_slurm_for_a_hold_is_known(state: str, reason: str):
    assert live.LiveJob("1", state, "", reason).held


@pytest.mark.parametrize(
    "reason",
    [
        "",
        "Priority",
        "Resources",
        "BeginTime",
        "QOSMaxJobsPerUserLimit",
        "QOSUsageThreshold",
        "ReqNodeNotAvail, UnavailableNodes:threshold[1-2],held3",
        "QOSMaxCpuPerUserLimit",
        "QOSMaxSubmitJobPerUserLimit",
        "AssocMaxJobsLimit",
        "AssocGrpGRES",
        "AssocGrpCPURunMinutesLimit",
        "QOSGrpGRESRunMinutes",
        "Dependency",
        "PartitionDown",
        "Reservation",
    ],
)
def test_other_reasons_to_wait_are_none_to_act(reason: str):
    job = live.LiveJob("1", "PENDING", "", reason)
    assert not job.held
    assert not job.stuck


@pytest.mark.parametrize(
    "reason",
    [
        "PartitionTimeLimit",
        "PartitionNodeLimit",
        "BadConstraints",
        "QOSMaxWallDurationPerJobLimit",
        "AssocMaxWallDurationPerJobLimit",
        "QOSMaxMemoryPerJob",
        "AssocMaxGRESPerNode",
        "QOSMinGRES",
        "QOSNotAllowed",
        "InvalidAccount",
        "DependencyNeverSatisfied",
        "AssocGrpCPUMinutesLimit",
        "AssocGrpBillingMinutes",
        "QOSGrpGRESMinutes",
        "QOSGrpWallLimit",
    ],
)
def test_what_a_job_may_not_have_keeps_it_waiting(reason: str):
    assert live.LiveJob("1", "PENDING", "", reason).stuck
    assert not live.LiveJob("1", "RUNNING", "", reason).stuck
