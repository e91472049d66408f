"""A finished run is not trained again because Snakemake deletes its files and restarts its job."""

import errno
import os
import signal
import sys
from pathlib import Path

import pytest
from snakemake.persistence.file import FilePersistence

from amst.methods.naive import Naive
from amst.records import read_record
from amst.training.finish import FILES
from amst.training.kept import KEPT, LOG, forget, forget_seen, keep, set_aside, take_back, unseen
from amst.training.recorder import has_events
from tests.end_to_end.suite import mark_incomplete
from tests.training.conftest import started_again

RUN = "digits/random/naive/seed0"


def keeping(place):
    place.execution = place.execution.model_copy(update={"keep": True})
    return place


def killed_at(name: str):
    """The process kills itself when it has renamed a file to this name."""

    def before() -> None:
        replace = Path.replace

        def killing(self, target):
            result = replace(self, target)
            if Path(target).name == name:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        Path.replace = killing

    return before


def test_its_files_come_back_as_often_as_they_are_deleted(workplace):
    place = keeping(workplace())
    place.finish()
    record, results = read_record(place.out / "run.json"), place.results()
    for _ in range(2):
        started_again(place)
        place.finish()
        assert read_record(place.out / "run.json") == record
        assert place.results() == results
        assert has_events(place.out / "tensorboard")
    assert [path.name for path in place.checkpoints.iterdir()] == [KEPT]


def test_second_names_take_no_space(workplace):
    place = keeping(workplace())
    place.finish()
    for name in FILES:
        assert (place.out / name).samefile(place.checkpoints / KEPT / name)


def test_killed_between_its_record_and_its_second_names_it_has_its_last_epoch_yet(
    workplace, undisturbed
):
    place = keeping(workplace())
    assert place.start(killed_at("run.json")).wait() == -signal.SIGKILL
    assert not (place.checkpoints / KEPT).exists()
    started_again(place)
    assert "continuing in epoch 4 after 0 batches" in place.finish().said
    assert place.results() == undisturbed(place.settings)


@pytest.fixture
def files(tmp_path):
    """Folders of a finished run with small files: its own and that of its checkpoints."""
    out, checkpoints = tmp_path / "run", tmp_path / "checkpoints"
    out.mkdir()
    for name in FILES:
        (out / name).write_text(name)
    keep(out, checkpoints, FILES)
    return out, checkpoints


def test_what_is_kept_already_is_at_no_moment_gone(files):
    out, checkpoints = files
    (checkpoints / KEPT / "mark").touch()
    keep(out, checkpoints, FILES)
    assert (checkpoints / KEPT / "mark").exists(), "it is the same folder"
    (out / "run.json").unlink()
    (out / "run.json").write_text("of a later one")
    keep(out, checkpoints, FILES)
    assert (checkpoints / KEPT / "run.json").read_text() == "of a later one"


def test_the_record_is_the_last_to_be_kept_and_to_come_back(files, monkeypatch):
    out, checkpoints = files
    made, link = [], os.link
    monkeypatch.setattr(
        os, "link", lambda source, target: (link(source, target), made.append(Path(target).name))
    )
    for name in FILES:
        (out / name).unlink()
    (checkpoints / KEPT / LOG).write_text("said")
    take_back(checkpoints, out)
    assert sorted(made) == sorted(FILES), "and what it has said is no file of a run"
    assert made[-1] == "run.json"
    made.clear()
    forget(checkpoints)
    keep(out, checkpoints, FILES)
    assert made == list(FILES)
    assert made[-1] == "run.json"


def test_what_a_killed_process_had_begun_to_forget_goes(files):
    _, checkpoints = files
    left = checkpoints / f".{KEPT}.0123"
    left.mkdir()
    (left / "run.json").write_text("half gone")
    forget(checkpoints)
    assert list(checkpoints.iterdir()) == []


def test_a_run_is_not_yet_seen_however_long_its_name(tmp_path):
    """Snakemake cuts the names of its marks into folders."""
    names = [f"digits/random/{'swept-' * repeats}naive/seed0" for repeats in (0, 40)]
    snakemake = FilePersistence(path=tmp_path / ".snakemake")
    for name in names:
        snakemake._mark_incomplete(f"results/runs/{name}/run.json", None)
        snakemake._mark_incomplete(f"results/runs/{name}/history.csv", None)
    snakemake._mark_incomplete("results/tables/main.csv", None)
    (tmp_path / ".snakemake/incomplete/no base64").touch()
    assert sorted(unseen(tmp_path)) == sorted(names)


def test_a_kept_run_of_other_settings_is_replaced(workplace, undisturbed):
    place = keeping(workplace())
    place.finish()
    started_again(place)
    place.settings = workplace(recipe={"epochs": 2}).settings
    place.finish()
    assert place.results() == undisturbed(place.settings)
    record = read_record(place.checkpoints / KEPT / "run.json")
    assert record.settings == place.settings


def test_by_hand_nothing_is_kept(workplace):
    place = workplace()
    place.finish()
    assert list(place.checkpoints.iterdir()) == []


def working_folder(place, folder: Path) -> tuple[Path, Path]:
    """A finished run where Snakemake has it: its folder and its checkpoints."""
    runs, checkpoints = (folder / "results" / name / RUN for name in ("runs", "checkpoints"))
    for source, target in ((place.out, runs), (place.checkpoints, checkpoints)):
        target.parent.mkdir(parents=True)
        source.rename(target)
    return runs, checkpoints


@pytest.mark.parametrize(
    ("marked", "deleted", "stays"),
    [(False, False, False), (True, False, True), (False, True, True)],
    ids=["seen", "not yet seen", "taken away"],
)
def test_it_is_kept_until_its_end_was_seen(
    workplace, tmp_path, marked: bool, deleted: bool, stays: bool
):
    place = keeping(workplace())
    place.finish()
    runs, checkpoints = working_folder(place, tmp_path)
    if marked:
        mark_incomplete(tmp_path, RUN)
    if deleted:
        (runs / "run.json").unlink()
    forget_seen(tmp_path)
    assert (checkpoints / KEPT).is_dir() is stays


@pytest.mark.parametrize("keep", [True, False], ids=["has second names", "by hand"])
def test_a_controller_puts_aside_what_its_predecessor_has_not_seen(workplace, tmp_path, keep: bool):
    place = workplace()
    place.execution = place.execution.model_copy(update={"keep": keep})
    place.finish()
    results = place.results()
    runs, checkpoints = working_folder(place, tmp_path)
    mark_incomplete(tmp_path, RUN)
    assert set_aside(tmp_path) == [RUN]
    assert {path.name for path in (checkpoints / KEPT).iterdir()} >= set(FILES)
    runs.mkdir(exist_ok=True)
    for source, target in ((runs, place.out), (checkpoints, place.checkpoints)):
        source.rename(target)
    started_again(place)
    place.finish()
    assert place.results() == results
    assert read_record(place.out / "run.json").cost.attempts == 1


def test_what_a_controller_finds_without_a_record_stays_as_it_is(files, tmp_path):
    """Its job was restarted and has yet to take the finished run back, or to train on."""
    runs, checkpoints = (tmp_path / "results" / name / RUN for name in ("runs", "checkpoints"))
    for source, target in zip(files, (runs, checkpoints), strict=True):
        target.parent.mkdir(parents=True)
        source.rename(target)
    mark_incomplete(tmp_path, RUN)
    (runs / "run.json").unlink()
    before = sorted(path for path in tmp_path.rglob("*"))
    assert set_aside(tmp_path) == []
    assert sorted(path for path in tmp_path.rglob("*")) == before


def test_without_hard_links_it_trains_again(workplace, undisturbed):
    def no_links() -> None:
        def link(*names, **options):
            raise PermissionError(errno.EPERM, "no hard links here")

        os.link = link

    place = keeping(workplace())
    assert place.start(no_links).wait() == 0
    assert list(place.checkpoints.iterdir()) == []
    started_again(place)
    assert place.start(no_links).wait() == 0
    assert place.results() == undisturbed(place.settings)


def logging(log: Path) -> None:
    """What a process says goes to the log, as the rule's shell has it."""
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115


@pytest.fixture
def logged(workplace):
    """A run with a log, and the log."""
    place = keeping(workplace())
    log = place.folder / "run.log"
    place.execution = place.execution.model_copy(update={"log": str(log)})
    return place, log


def test_the_log_holds_what_earlier_attempts_have_said(logged, signal_in_step):
    """Snakemake deletes a job's log before it starts the job again, and the shell makes it anew."""
    place, log = logged
    for step in (3, 4):
        stop = signal_in_step("naive", step, signal.SIGUSR1)
        place.start(lambda stop=stop: (logging(log), stop())).wait()
        log.unlink()
    place.start(lambda: logging(log)).wait()
    said = log.read_text()
    assert said.count("--- started again") == 2
    third, seventh = (said.index(f"continuing in epoch 1 after {n} batches") for n in (3, 7))
    assert third < seventh


def test_the_log_of_a_run_that_is_taken_back_is_whole(logged):
    place, log = logged
    place.start(lambda: logging(log)).wait()
    for _ in range(2):
        started_again(place)
        log.unlink()
        assert place.start(lambda: logging(log)).wait() == 0
        said = log.read_text()
        assert said.index(" epoch 3/3 ") < said.index("--- started again")
        assert said.index("--- started again") < said.index("taken back from")


def test_the_log_of_a_run_that_failed_tells_why_however_often_it_is_tried(logged):
    def broken() -> None:
        def fail(self, batch, epoch):
            print("what only the log tells", file=sys.stderr)
            raise RuntimeError("out of luck")

        Naive.train_step = fail

    place, log = logged
    for _ in range(3):
        log.unlink(missing_ok=True)
        assert place.start(lambda: (logging(log), broken())).wait() == 1
    assert log.read_text().count("what only the log tells") == 1
