"""A run may be killed at any instant, any number of times, and ends with the same bits."""

import errno
import os
import signal
import sys
from pathlib import Path

import pytest

from amst.loading.loader import Loader
from amst.records import read_record
from amst.training.finish import FILES
from amst.training.recorder import Recorder
from amst.training.signals import SAVED

STEPS = 8  # training batches of an epoch: 120 clips in batches of 16
PMR = {"method_settings": {"factor": 0.5}}
FULL = {"method_settings": {"skip": {"audio": 2}}}


def _signal_in_validation(number):
    def before():
        in_order = Loader.in_order

        def signalling(self, part):
            os.kill(os.getpid(), number)
            return in_order(self, part)

        Loader.in_order = signalling

    return before


def _signal_at_rename(count, number, moment):
    """The process sends itself a signal before or after its n-th rename of a file."""

    def before():
        replace, done = Path.replace, 0

        def signalling(self, target):
            nonlocal done
            done += 1
            if moment == "before" and done == count:
                os.kill(os.getpid(), number)
            result = replace(self, target)
            if moment == "after" and done == count:
                os.kill(os.getpid(), number)
            return result

        Path.replace = signalling

    return before


@pytest.mark.parametrize(("method", "options"), [("naive", {}), ("pmr", PMR), ("amst_full", FULL)])
@pytest.mark.parametrize("step", [1, STEPS - 1, STEPS, STEPS + 3])
def test_stopped_in_the_middle_of_an_epoch(
    workplace, undisturbed, method, options, step, signal_in_step
):
    place = workplace(method, **options)
    stopped = place.start(signal_in_step(method, step, signal.SIGUSR1))
    assert stopped.wait() == SAVED
    assert f"saved in epoch {(step - 1) // STEPS + 1}" in stopped.said
    assert not (place.out / "run.json").exists()
    assert "continuing in epoch" in place.finish().said
    assert place.results() == undisturbed(place.settings)


def test_stopped_again_and_again(workplace, undisturbed, signal_in_step):
    place = workplace()
    stops = 0
    while place.start(signal_in_step("naive", 3, signal.SIGINT)).wait() == SAVED:
        stops += 1
    assert place.processes[-1].status == 0
    assert stops == 3 * STEPS // 3  # three steps in each attempt, and all of three epochs
    assert place.results() == undisturbed(place.settings)


def test_every_sample_counts_once_in_the_cost_of_a_run_that_was_interrupted(
    workplace, signal_in_step
):
    method = "amst_alternating"
    options = {"method_settings": {"skip": {"audio": 2}, "skipped_encoder": "forward"}}
    place, other = workplace(method, **options), workplace(method, **options)
    assert place.start(signal_in_step(method, 3, signal.SIGUSR1)).wait() == SAVED
    killed = place.start(signal_in_step(method, STEPS + 2, signal.SIGKILL))
    assert killed.wait() == -signal.SIGKILL
    for each in (place, other):
        each.finish()
    cost, undisturbed = (read_record(each.out / "run.json").cost for each in (place, other))
    assert cost.forward_flops == undisturbed.forward_flops
    assert cost.backward_flops == undisturbed.backward_flops


def test_stopped_in_validation(workplace, undisturbed):
    place = workplace()
    assert place.start(_signal_in_validation(signal.SIGUSR1)).wait() == SAVED
    assert [path.name for path in place.states()] == [f"epoch-0000-batch-{STEPS:06d}.pt"]
    place.finish()
    assert place.results() == undisturbed(place.settings)


@pytest.mark.parametrize(("moment", "epochs"), [("before", 1), ("after", 2)])
def test_killed_between_any_two_renames(workplace, undisturbed, moment, epochs):
    options = {"recipe": {"epochs": epochs}}
    reference = undisturbed(workplace(**options).settings)
    count, killed = 0, True
    while killed:
        count += 1
        place = workplace(**options)
        process = place.start(_signal_at_rename(count, signal.SIGKILL, moment))
        killed = process.wait() == -signal.SIGKILL
        if (place.out / "run.json").exists():
            assert all((place.out / name).exists() for name in FILES), "the record is the last"
        if killed:
            place.finish()
        assert place.results() == reference
        assert list(place.checkpoints.iterdir()) == []
        assert not [path for path in place.out.rglob(".*") if path.is_file()]
    # The count of attempts, per epoch weights (if better) and state, five files of the run.
    assert 7 + epochs <= count - 1 <= 6 + 2 * epochs


def test_stopped_after_the_last_epoch(workplace, undisturbed):
    def before():
        from amst.training import finish

        evaluate = finish.linear_evaluation

        def told(*arguments):
            found = evaluate(*arguments)
            os.kill(os.getpid(), signal.SIGUSR1)
            return found

        finish.linear_evaluation = told

    place = workplace()
    assert place.start(before).wait() == SAVED
    assert not (place.out / "run.json").exists()
    assert "continuing in epoch 4 after 0 batches" in place.finish().said
    assert place.results() == undisturbed(place.settings)


def test_stopped_in_the_linear_evaluation(workplace, undisturbed):
    """Three encoders, four fits each."""

    def before(told_in):
        def counting():
            from amst.training import linear

            minimise, done = linear.minimise, 0

            def told(*arguments):
                nonlocal done
                done += 1
                print(f"fit {done}", file=sys.stderr)
                if done == told_in:
                    os.kill(os.getpid(), signal.SIGUSR1)
                return minimise(*arguments)

            linear.minimise = told

        return counting

    place = workplace()
    stopped = place.start(before(told_in=6))
    assert stopped.wait() == SAVED
    assert "naive/seed0: linear evaluation, linear/audio\n" in stopped.said
    assert "saved 5 fits" in stopped.said, "in the sixth, not after it"
    ended = place.start(before(told_in=0))
    assert ended.wait() == 0, ended.said
    assert "fit 7\n" in ended.said
    assert "fit 8\n" not in ended.said
    assert place.results() == undisturbed(place.settings)


def test_sigterm_outside_of_slurm_saves_and_leaves(workplace, undisturbed, signal_in_step):
    place = workplace()
    stopped = place.start(signal_in_step("naive", 5, signal.SIGTERM), SLURM_JOB_ID="")
    assert stopped.wait() == SAVED
    place.finish()
    assert place.results() == undisturbed(place.settings)


def test_sigterm_under_slurm_saves_and_stays_to_be_killed(workplace, undisturbed, signal_in_step):
    place = workplace()
    stopped = place.start(signal_in_step("naive", 5, signal.SIGTERM), SLURM_JOB_ID="17")
    stopped.wait_for("waiting to be killed")
    assert len(place.states()) == 1
    # The lock is free already, so the requeued job need not wait for this one to look dead.
    place.finish()
    assert stopped.code() is None
    stopped.send(signal.SIGKILL)
    assert stopped.wait() == -signal.SIGKILL
    assert place.results() == undisturbed(place.settings)


def test_another_signal_ends_the_wait_under_slurm(workplace, signal_in_step):
    stopped = workplace().start(signal_in_step("naive", 5, signal.SIGTERM), SLURM_JOB_ID="17")
    stopped.wait_for("waiting to be killed")
    stopped.send(signal.SIGUSR1)
    assert stopped.wait() == SAVED


def test_the_run_keeps_a_deadline_of_its_own(workplace, undisturbed):
    place = workplace(recipe={"epochs": 300})
    place.execution = place.execution.model_copy(update={"deadline": 1})
    stopped = place.start()
    assert stopped.wait() == SAVED
    assert "(deadline)" in stopped.said
    assert place.states()


def test_a_signal_before_training_starts_loses_nothing(workplace):
    def before():
        from amst.training import run

        started = run.listening

        def listening_and_told():
            context = started()
            enter = context.__enter__

            class Told:
                def __enter__(self):
                    stop = enter()
                    os.kill(os.getpid(), signal.SIGTERM)
                    return stop

                def __exit__(self, *details):
                    return context.__exit__(*details)

            return Told()

        run.listening = listening_and_told

    place = workplace()
    assert place.start(before).wait() == SAVED
    assert not place.failed.exists()


def test_a_finished_run_is_left_alone(workplace):
    place = workplace()
    place.finish()
    before = {path: path.stat().st_mtime_ns for path in place.out.rglob("*")}
    assert "nothing to do" in place.finish().said
    assert {path: path.stat().st_mtime_ns for path in place.out.rglob("*")} == before


def test_a_finished_run_whose_record_the_disk_does_not_give_is_not_trained_again(workplace):
    def before():
        read_text = Path.read_text

        def failing(self, *how, **more):
            if self.name == "run.json":
                raise OSError(errno.EIO, "Input/output error")
            return read_text(self, *how, **more)

        Path.read_text = failing

    place = workplace()
    place.finish()
    record = (place.out / "run.json").read_bytes()
    failed = place.start(before)
    assert failed.wait() == 1
    assert "run.json cannot be read (Input/output error)" in failed.said
    assert (place.out / "run.json").read_bytes() == record
    assert "nothing to do" in place.finish().said


def test_a_run_with_changed_settings_starts_anew_and_says_so(
    workplace, undisturbed, signal_in_step
):
    place = workplace()
    place.finish()
    place.settings = workplace(seed=1).settings
    killed = place.start(signal_in_step("naive", 2, signal.SIGKILL))
    assert killed.wait() == -signal.SIGKILL
    assert "replacing it" in killed.said
    assert not (place.out / "run.json").exists(), "it would be taken for this run's"
    place.finish()
    assert place.results() == undisturbed(place.settings)


def test_a_changed_run_never_continues_an_old_model(workplace, undisturbed, signal_in_step):
    place = workplace()
    assert place.start(signal_in_step("naive", 5, signal.SIGUSR1)).wait() == SAVED
    (saved,) = {path.parent for path in place.checkpoints.glob("*/epoch-*.pt")}
    place.execution = place.execution.model_copy(update={"code_digest": "other"})
    said = place.finish().said
    assert "continuing" not in said
    assert f"trained from the first epoch, since what is saved in {saved} is of other" in said
    assert place.results() == undisturbed(place.settings)


def test_tensorboard_shows_every_epoch_once_after_interruptions(workplace, signal_in_step):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    place = workplace()
    assert place.start(signal_in_step("naive", STEPS + 2, signal.SIGUSR1)).wait() == SAVED
    place.finish()
    events = EventAccumulator(str(place.out / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("train_loss")] == [0, 1, 2]
    assert "val_accuracy/modality/visual" in events.Tags()["scalars"]


def test_numbers_of_the_method_come_through_an_interruption(workplace, undisturbed, signal_in_step):
    settings, recipe = {"rates": "dynamic"}, {"decay_every": 1, "decay_factor": 0.5}
    place = workplace("mslr", method_settings=settings, recipe=recipe)
    killed = place.start(signal_in_step("mslr", STEPS + 2, signal.SIGKILL))
    assert killed.wait() == -signal.SIGKILL
    place.finish()
    assert place.results() == undisturbed(place.settings)
    history = Recorder.from_tables(place.out, ended=0).history
    rates = [row.scalars["learning_rate/audio"] for row in history]
    assert rates == [1e-3, 5e-4, 2.5e-4], "those that each epoch was trained with"


@pytest.mark.parametrize("method", ["naive", "amst_full"])
def test_equal_seeds_give_equal_runs_and_others_do_not(workplace, undisturbed, method):
    again = workplace(method)
    again.finish()
    assert again.results() == undisturbed(again.settings)
    other = undisturbed(workplace(method, seed=1).settings)
    assert all(other[name] != content for name, content in again.results().items())
