"""A finished run is not trained again because Snakemake deletes its files and restarts its job."""

import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from amst.records import read_record
from amst.training.finish import FILES
from amst.training.kept import KEPT, forget_seen
from amst.training.recorder import has_events


def started_again(place) -> None:
    """Delete a run's files, as Snakemake does before it starts a job again."""
    for name in FILES:
        (place.out / name).unlink(missing_ok=True)
    shutil.rmtree(place.out / "tensorboard", ignore_errors=True)


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


def test_a_kept_run_of_other_settings_is_replaced(workplace, undisturbed):
    place = keeping(workplace())
    place.finish()
    started_again(place)
    place.settings = workplace(recipe={"epochs": 2}).settings
    assert "another version of this run" in place.finish().said
    assert place.results() == undisturbed(place.settings)
    record = read_record(place.checkpoints / KEPT / "run.json")
    assert record.settings == place.settings


def test_by_hand_nothing_is_kept(workplace):
    place = workplace()
    place.finish()
    assert list(place.checkpoints.iterdir()) == []


@pytest.mark.parametrize("deleted", [False, True], ids=["seen", "taken away"])
def test_it_is_kept_until_its_end_was_seen(workplace, tmp_path, deleted: bool):
    place = keeping(workplace())
    place.finish()
    run = "digits/random/naive/seed0"
    runs, checkpoints = (tmp_path / "results" / name / run for name in ("runs", "checkpoints"))
    for source, target in ((place.out, runs), (place.checkpoints, checkpoints)):
        target.parent.mkdir(parents=True)
        source.rename(target)
    if deleted:
        (runs / "run.json").unlink()
    forget_seen(tmp_path)
    assert (checkpoints / KEPT).is_dir() is deleted


def test_the_log_holds_what_earlier_attempts_have_said(workplace, signal_in_step):
    """Snakemake deletes a job's log before it starts the job again, and the shell makes it anew."""
    place = workplace()
    log = place.folder / "run.log"
    place.execution = place.execution.model_copy(update={"log": str(log)})

    def logging() -> None:
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
        sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115

    for step in (3, 4):
        stop = signal_in_step("naive", step, signal.SIGUSR1)
        place.start(lambda stop=stop: (logging(), stop())).wait()
        log.unlink()
    place.start(logging).wait()
    said = log.read_text()
    assert said.count("--- started again") == 2
    third, seventh = (said.index(f"continuing in epoch 1 after {n} batches") for n in (3, 7))
    assert third < seventh
    assert list(place.checkpoints.iterdir()) == []
