import json
import platform
import signal

import numpy as np
import pytest
import torch

from amst.config.run import SmallCNN
from amst.errors import AmstError, HostError
from amst.records import read_record
from amst.training import kills
from amst.training.attempts import Attempt
from amst.training.environment import CAPTURED
from amst.training.run import _full_memory_told
from amst.training.signals import SAVED
from tests.training.conftest import MODALITIES


def test_an_error_without_progress_is_noted_and_later_attempts_leave_at_once(workplace):
    place = workplace(method_settings={"head": "none such"})
    place.execution = place.execution.model_copy(update={"log": "logs/x.log"})
    assert place.start().wait() == 1
    failed = json.loads(place.failed.read_text())
    assert "head" in failed["error"]
    assert failed["host"] == platform.node()
    assert failed["attempts"] == 1
    assert failed["log"] == "logs/x.log"
    again = place.start()
    assert again.wait() == 1
    assert again.said.count("\n") == 1
    assert "amst retry digits/random/naive/seed0" in again.said
    assert not (place.checkpoints / "lock").exists()


def test_an_error_that_is_no_users_mistake_is_noted_with_its_place(workplace):
    def before():
        from amst.methods.naive import Naive

        def broken(self, batch, epoch):
            raise RuntimeError("out of luck\nand more")

        Naive.train_step = broken

    place = workplace()
    assert place.start(before).wait() == 1
    error = json.loads(place.failed.read_text())["error"]
    assert error.startswith("RuntimeError: out of luck (test_attempts.py:")


@pytest.mark.parametrize(
    ("error", "hosts"),
    [
        (AmstError("the split is of another name"), []),
        (HostError("the disk is full"), [platform.node()]),
        (RuntimeError("no device"), [platform.node()]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_the_user_gave_is_wrong_on_every_host_and_a_full_disk_on_one(tmp_path, error, hosts):
    Attempt(tmp_path, "a/b/c/seed0", "d", "").fail(error)
    assert json.loads((tmp_path / "failed.json").read_text())["hosts"] == hosts


@pytest.mark.parametrize(
    ("number", "said"),
    [(1, ""), (2, "the attempt before was killed"), (3, "2 attempts before were killed")],
)
def test_a_run_says_that_attempts_before_were_killed(tmp_path, capsys, number, said):
    (tmp_path / kills.FILE).write_text(str(number))  # the living attempt counts, too
    Attempt(tmp_path, "a/b/c/seed0", "d", "").begin()
    told = capsys.readouterr().err
    assert told.startswith(f"a/b/c/seed0: {said}") if said else not told


def test_an_error_on_one_host_may_be_that_hosts_fault(workplace):
    def on(host):
        def before():
            from amst.methods.naive import Naive

            def broken(self, batch, epoch):
                raise RuntimeError("no device")

            Naive.train_step = broken
            platform.node = lambda: host

        return before

    place = workplace()
    assert place.start(on("n1")).wait() == 1
    elsewhere = place.start(on("n2"))
    assert elsewhere.wait() == 1
    assert "it failed on n1 only; trying again" in elsewhere.said
    assert json.loads(place.failed.read_text())["hosts"] == ["n1", "n2"]
    third = place.start(on("n3"))
    assert third.wait() == 1
    assert "amst retry" in third.said, "two hosts agree"

    place = workplace()
    assert place.start(on("n1")).wait() == 1
    for host in ("n1", "n2"):
        again = place.start(on(host))
        assert again.wait() == 1
        assert "amst retry" in again.said, "the queue leads to the same host"


def fail_in_the_second_epoch():
    from amst.methods.naive import Naive

    train_step = Naive.train_step

    def broken(self, batch, epoch):
        if epoch == 1:
            raise RuntimeError("a passing trouble")
        return train_step(self, batch, epoch)

    Naive.train_step = broken


def test_an_error_after_progress_may_be_tried_again(workplace, undisturbed):
    place = workplace()
    assert place.start(fail_in_the_second_epoch).wait() == 1
    assert not place.failed.exists()
    assert place.start(fail_in_the_second_epoch).wait() == 1
    assert place.failed.exists()
    place.failed.unlink()
    place.finish()
    assert place.results() == undisturbed(place.settings)


def test_a_run_that_continues_on_another_model_of_device_says_so(workplace):
    def before():
        from amst.training import loop

        fail_in_the_second_epoch()
        loop.trained_on = lambda *_: "another model"

    place = workplace()
    assert place.start(before).wait() == 1
    said = place.finish().said
    assert "another model trained it until now" in said
    device = read_record(place.out / "run.json").environment.device
    assert device.startswith("another model, ")


def test_a_run_that_continues_without_capturing_tells_both(workplace):
    def before():
        from amst.methods.base import Method

        fail_in_the_second_epoch()
        Method.captured = True  # as if on a GPU

    place = workplace()
    assert place.start(before).wait() == 1
    said = place.finish().said
    assert "continuing in epoch" in said
    assert "other last digits" not in said
    first, second = read_record(place.out / "run.json").environment.device.split(", ")
    assert first == second + CAPTURED


def test_a_run_that_failed_is_tried_again_with_other_settings_or_code(workplace):
    place = workplace(method_settings={"head": "none such"})
    assert place.start().wait() == 1
    place.settings = workplace().settings
    assert "have changed since it failed" in place.finish().said
    assert not place.failed.exists()


def test_a_loss_that_is_not_finite_ends_the_run_with_its_epoch_and_name(workplace):
    place = workplace(recipe={"learning_rate": 1e30})
    process = place.start()
    assert process.wait() == 1
    assert "loss is nan in epoch" in process.said or "loss is inf in epoch" in process.said
    assert "Traceback" not in process.said


OUT_OF_MEMORY = (
    "CUDA out of memory. Tried to allocate 2.00 MiB. GPU 0 has a total capacity of 8.00 MiB of "
    "which 1.00 MiB is free. Including non-PyTorch memory, this process has 7.00 MiB memory in "
    "use. Of the allocated memory 5.00 MiB is allocated by PyTorch."
)


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError(OUT_OF_MEMORY), RuntimeError("CUDA error: out of memory\nadvice")],
)
@pytest.mark.parametrize("hidden", [False, True])
def test_a_device_without_memory_is_told_with_what_can_be_done(workplace, error, hidden):
    def full():
        from amst.methods.naive import Naive

        def step(self, batch, epoch):
            try:
                raise error
            finally:
                if hidden:
                    raise RuntimeError("capturing stream has unjoined work")

        Naive.train_step = step

    place = workplace()
    process = place.start(full)
    assert process.wait() == 1
    told = json.loads(place.failed.read_text())
    assert told["error"].startswith("CUDA ")
    assert "Of the allocated" not in told["error"]
    assert "out of memory" in told["error"]
    assert "advice" not in told["error"]
    assert "execution.residency: host" in told["error"]
    assert told["hosts"] == [platform.node()]
    assert "out of memory" in process.said
    assert "Traceback" not in process.said


def test_a_convolution_without_memory_for_its_workspace_is_told_as_that():
    with pytest.raises(HostError) as told, _full_memory_told():
        raise RuntimeError("GET was unable to find an engine to execute this computation")
    assert "computation: the GPU has no memory left for it, or is too old for" in str(told.value)
    assert "execution.residency: host" in str(told.value)


@pytest.mark.parametrize(
    ("take", "said"),
    [
        (lambda: torch.empty(1 << 50), "can't allocate memory: you tried to allocate 4503599627"),
        (lambda: np.empty(1 << 50), "Unable to allocate 8.00 PiB for an array"),
    ],
)
def test_a_machine_without_memory_is_told_in_one_line(take, said):
    with pytest.raises(HostError) as told, _full_memory_told():
        take()
    assert f"there is no memory left on this machine ({said}" in str(told.value)
    assert str(told.value).endswith("takes less with execution.residency: stream")


@pytest.mark.parametrize("size", [17, 1])  # 120 samples: seven batches of 17, and one
def test_a_batch_of_one_that_batchnorm_refuses_is_told_before_the_first_epoch(workplace, size):
    deep = SmallCNN(widths=(4, 4, 4, 4, 4))  # brings 16 x 32 of sound to one position
    audio = MODALITIES["audio"].model_copy(update={"encoder": deep})
    few = {"batch_size": size, "epochs": 1}
    modalities = MODALITIES | {"audio": audio}
    place = workplace(modalities=modalities, recipe=few)
    process = place.start()
    assert process.wait() == 1
    assert "the encoder of 'audio' ends in feature maps of one position" in process.said
    assert "recipe.batch_size" in process.said
    assert "Traceback" not in process.said
    assert not place.states()
    workplace(recipe=few).finish()
    workplace(modalities=modalities, recipe=few | {"batch_size": 16}).finish()


def test_a_missing_manifest_is_named(workplace):
    place = workplace()
    place.digits = type(place.digits)(place.folder / "none.json", place.digits.split)
    process = place.start()
    assert process.wait() == 1
    assert "none.json" in process.said
    assert "Traceback" not in process.said


def test_attempts_are_counted_and_forgotten_when_the_run_is_done(workplace, signal_in_step):
    place = workplace()
    assert place.start(signal_in_step("naive", 2, signal.SIGUSR1)).wait() == SAVED
    (count,) = place.checkpoints.glob("attempts-*.json")
    began = "2020-02-02T02:02:02+00:00"
    count.write_text(json.dumps({**json.loads(count.read_text()), "started": began}))
    assert place.start(signal_in_step("naive", 2, signal.SIGKILL)).wait() == -signal.SIGKILL
    place.finish()
    record = read_record(place.out / "run.json")
    assert record.cost.attempts == 3
    assert record.started == began, "when the first one did"
    assert list(place.checkpoints.iterdir()) == []


def test_what_a_kill_left_of_a_finished_run_goes_with_the_next_call(workplace):
    place = workplace(recipe={"epochs": 1})
    place.finish()
    left = place.checkpoints / f"attempts-{read_record(place.out / 'run.json').digest}.json"
    left.write_text('{"number": 1, "started": "2020-02-02T02:02:02+00:00"}')
    assert "epoch" not in place.finish().said
    assert list(place.checkpoints.iterdir()) == []
