import errno
import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from amst.errors import AmstError
from amst.training import lock as locks
from amst.training.lock import RunLock, Writer
from amst.training.signals import SAVED, StoppedError, StopRequest


def _lock(path, wait=0.0, stale_after=30.0, stop=None):
    return RunLock(path, wait, stale_after, StopRequest() if stop is None else stop)


def _left_behind(path, **changes):
    """A lock as another process would have left it."""
    me = Writer.this()
    writer = {**me.__dict__, "token": "theirs", "host": "elsewhere", **changes}
    path.write_text(json.dumps(writer))


def test_the_lock_is_there_while_it_is_held_and_gone_afterwards(tmp_path):
    path = tmp_path / "deep" / "lock"
    with _lock(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert list(path.parent.iterdir()) == []


def test_a_file_system_without_hard_links_has_locks(tmp_path, monkeypatch):
    def refuse(*paths):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "lock"
    with _lock(path) as lock:
        lock.check()
        with pytest.raises(AmstError, match="another process writes this run"):
            _lock(path).__enter__()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_beside_the_lock_goes_with_the_next_one(tmp_path):
    path = tmp_path / "lock"
    process = subprocess.Popen(["sleep", "60"])
    me = Writer.this()
    names = {
        "dead": f".lock.new.{me.host}.{process.pid}.1234.theirs",
        "alive": f".lock.now.{me.host}.{me.pid}.{me.pid_start}.ours",
        "elsewhere": ".lock.dead.node7.cluster.77.1234.theirs",
        "long ago": ".lock.dead.node8.cluster.77.1234.theirs",
    }
    for name in names.values():
        (tmp_path / name).touch()
    os.utime(tmp_path / names["long ago"], (1, 1))
    process.kill()
    process.wait()
    with _lock(path):
        pass
    assert {each.name for each in tmp_path.iterdir()} == {names["alive"], names["elsewhere"]}


def test_a_lock_that_is_taken_is_held_whatever_cannot_be_removed_beside_it(tmp_path, monkeypatch):
    """It would stay behind, and another node would wait until it is old."""
    path, touch = tmp_path / "lock", Path.touch

    def full(touched, *arguments):
        if ".now." in touched.name and path.exists():
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        touch(touched, *arguments)

    monkeypatch.setattr(Path, "touch", full)
    with _lock(path) as lock:
        lock.check()
    assert list(tmp_path.iterdir()) == []


def test_one_file_that_cannot_be_removed_keeps_no_other(tmp_path, monkeypatch):
    left = [tmp_path / f".lock.dead.node{node}.cluster.77.1234.theirs" for node in range(3)]
    for path in left:
        path.touch()
        os.utime(path, (1, 1))
    unlink, refused = Path.unlink, []

    def refuse(path, *arguments, **named):
        if path in left and not refused:
            refused.append(path)
            raise PermissionError(errno.EPERM, "Operation not permitted")
        unlink(path, *arguments, **named)

    monkeypatch.setattr(Path, "unlink", refuse)
    with _lock(tmp_path / "lock"):
        pass
    assert list(tmp_path.iterdir()) == refused


def test_a_second_writer_waits_its_time_and_leaves_to_try_again(tmp_path, capsys):
    path = tmp_path / "lock"
    with _lock(path):
        began = time.monotonic()
        with pytest.raises(AmstError, match="another process writes this run") as error:
            _lock(path, wait=0.5).__enter__()
        assert error.value.exit_code == SAVED
        assert 0.5 <= time.monotonic() - began < 5
        assert path.exists()
    assert "is held by" in capsys.readouterr().err


def test_a_writer_that_waits_goes_on_when_the_other_has_left(tmp_path):
    path = tmp_path / "lock"
    first = _lock(path).__enter__()
    threading.Timer(0.3, first.release).start()
    with _lock(path, wait=20) as second:
        second.check()


def test_waiting_ends_when_a_stop_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    stop = StopRequest()
    with _lock(tmp_path / "lock"):
        threading.Timer(0.3, stop.receive, (signal.SIGTERM, None)).start()
        with pytest.raises(StoppedError):
            _lock(tmp_path / "lock", wait=60, stop=stop).__enter__()


def test_a_dead_process_of_this_host_is_followed_at_once(tmp_path, capsys):
    dead = os.fork()
    if dead == 0:
        os._exit(0)
    os.waitpid(dead, 0)
    path = tmp_path / "lock"
    _left_behind(path, host=Writer.this().host, pid=dead)
    with _lock(path):
        pass
    assert "taking over" in capsys.readouterr().err


def test_another_process_with_the_same_number_is_not_the_writer(tmp_path):
    path = tmp_path / "lock"
    _left_behind(path, host=Writer.this().host, pid_start="1")
    with _lock(path):
        pass


def test_where_processes_of_others_are_hidden_one_of_them_may_live(tmp_path, monkeypatch):
    path = tmp_path / "lock"
    other = {"host": Writer.this().host, "pid_start": "1", "uid": os.getuid() + 1}
    _left_behind(path, **other)
    monkeypatch.setattr(locks, "_hides_processes", lambda: True)
    with pytest.raises(AmstError, match="another process writes this run"):
        _lock(path, wait=0.3).__enter__()
    monkeypatch.setattr(locks, "_hides_processes", lambda: False)
    with _lock(path):
        pass


def test_an_earlier_life_of_the_same_slurm_job_is_followed_at_once(tmp_path, monkeypatch):
    path = tmp_path / "lock"
    _left_behind(path, job="17", restarts=0)
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with _lock(path):
        pass


@pytest.mark.parametrize(
    ("job", "restarts"),
    [("17", 1), ("17", 2), ("18", 0)],
    ids=["beside it", "started after it", "another job"],
)
def test_other_processes_of_slurm_jobs_may_live(tmp_path, monkeypatch, job, restarts):
    """As a second call in one allocation does, on another of its nodes."""
    path = tmp_path / "lock"
    _left_behind(path, job=job, restarts=restarts)
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with pytest.raises(AmstError, match="another process writes this run"):
        _lock(path, wait=0.1).__enter__()


def test_a_process_that_nobody_has_waited_for_is_dead(tmp_path):
    """Nothing in a container may do so."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    try:
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        start = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[19]
        path = tmp_path / "lock"
        _left_behind(path, host=Writer.this().host, pid=child, pid_start=start)
        with _lock(path):
            pass
    finally:
        os.waitpid(child, 0)


def test_a_writer_elsewhere_is_believed_while_its_heart_beats(tmp_path, monkeypatch):
    """By the clock of the file system, whatever clock and processes this host has."""
    path = tmp_path / "lock"
    _left_behind(path, pid_start="1")
    now = time.time
    for hours in (0, 1, -1):
        monkeypatch.setattr(time, "time", lambda hours=hours: now() + 3600 * hours)
        with pytest.raises(AmstError, match="elsewhere"):
            _lock(path, wait=0.1).__enter__()


def test_a_writer_elsewhere_is_followed_when_its_heart_has_stopped(tmp_path):
    path = tmp_path / "lock"
    _left_behind(path)
    os.utime(path, (time.time() - 60, time.time() - 60))
    with _lock(path, stale_after=30):
        pass


def test_a_writer_elsewhere_whose_clock_was_ahead_is_followed_when_its_heart_has_stopped(tmp_path):
    path = tmp_path / "lock"
    _left_behind(path)
    ahead = time.time() + 3600
    os.utime(path, (ahead, ahead))
    with _lock(path, wait=60, stale_after=0.5):
        pass


def test_a_writer_elsewhere_whose_clock_is_ahead_is_believed_while_its_heart_beats(tmp_path):
    path, ended = tmp_path / "lock", threading.Event()
    _left_behind(path)

    def beat():
        while not ended.wait(0.1):
            os.utime(path, (time.time() + 3600,) * 2)

    heart = threading.Thread(target=beat)
    heart.start()
    try:
        with pytest.raises(AmstError, match="elsewhere"):
            _lock(path, wait=5, stale_after=3).__enter__()
    finally:
        ended.set()
        heart.join()


def test_a_lock_that_was_never_finished_is_followed_when_it_is_old(tmp_path):
    path = tmp_path / "lock"
    path.write_text("")
    with pytest.raises(AmstError):
        _lock(path, wait=0.3).__enter__()
    os.utime(path, (time.time() - 60, time.time() - 60))
    with _lock(path, stale_after=30):
        pass


def test_the_heart_beats_while_the_lock_is_held(tmp_path):
    path = tmp_path / "lock"
    with _lock(path, stale_after=0.6):
        os.utime(path, (0, 0))
        time.sleep(0.4)
        assert path.stat().st_mtime > time.time() - 5


@pytest.mark.timeout(30)
def test_the_heart_beats_on_after_an_error_of_the_file_system(tmp_path, monkeypatch):
    path, utime, errors = tmp_path / "lock", os.utime, [OSError(5, "Input/output error")]

    def failing(touched, *arguments):
        if errors and Path(touched) == path:
            raise errors.pop()
        utime(touched, *arguments)

    monkeypatch.setattr(os, "utime", failing)
    with _lock(path, stale_after=0.6):
        utime(path, (0, 0))
        while errors or not path.stat().st_mtime:
            time.sleep(0.01)


def test_the_heart_of_a_writer_that_lost_its_lock_beats_for_no_other(tmp_path):
    path = tmp_path / "lock"
    lock = _lock(path, stale_after=0.6).__enter__()
    _left_behind(path)
    os.utime(path, (1, 1))
    time.sleep(0.3)
    assert path.stat().st_mtime == 1
    lock.release()


def test_a_lock_that_was_not_the_dead_one_is_put_back(tmp_path):
    """Between the look at a dead writer's lock and its removal, another one has taken over."""
    path = tmp_path / "lock"
    _left_behind(path, token="dead")
    os.utime(path, (1, 1))
    late = _lock(path)
    look = late._now

    def looking():
        found = look()
        _left_behind(path, token="quicker")
        os.utime(path, (1, 1))
        late._now = look
        return found

    late._now = looking
    assert late._take_over_if_dead()
    assert json.loads(path.read_text())["token"] == "quicker"
    assert [each.name for each in tmp_path.iterdir()] == ["lock"]


def test_a_lost_lock_is_noticed_and_left_to_its_new_holder(tmp_path):
    path = tmp_path / "lock"
    lock = _lock(path).__enter__()
    _left_behind(path)
    with pytest.raises(AmstError, match="was lost to elsewhere") as error:
        lock.check()
    assert error.value.exit_code == SAVED
    lock.release()
    assert json.loads(path.read_text())["token"] == "theirs"


def test_of_many_that_follow_a_dead_writer_one_gets_the_lock(tmp_path):
    path = tmp_path / "lock"
    _left_behind(path)
    os.utime(path, (1, 1))
    holders, together = [], threading.Barrier(8)

    def follow():
        together.wait()
        try:
            lock = _lock(path, wait=1).__enter__()
        except AmstError:
            return
        holders.append(lock)

    threads = [threading.Thread(target=follow) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([lock for lock in holders if lock._is_mine()]) == 1
    for lock in holders:
        lock.release()


def test_of_two_attempts_at_one_run_the_second_finds_it_done(workplace, undisturbed):
    place = workplace()
    first, second = place.start(), place.start()
    assert (first.wait(), second.wait()) == (0, 0), first.said + second.said
    assert sorted("is held by" in each.said for each in (first, second)) == [False, True]
    assert sorted("epoch 1/3" in each.said for each in (first, second)) == [False, True]
    assert place.results() == undisturbed(place.settings)


def _taken_by_another(place):
    lock = place.checkpoints / "lock"
    lock.unlink()
    _left_behind(lock)


def test_an_error_after_the_lock_was_lost_is_not_the_run_s(workplace):
    def before():
        from amst.methods.naive import Naive

        def broken(self, batch, epoch):
            _taken_by_another(place)
            raise RuntimeError("the other one has moved what this one reads")

        Naive.train_step = broken

    place = workplace()
    process = place.start(before)
    assert process.wait() == SAVED, process.said
    assert "was lost to elsewhere" in process.said
    assert not place.failed.exists()


def test_a_writer_that_lost_its_lock_in_an_epoch_does_not_save_it(workplace):
    def before():
        from amst.methods.naive import Naive

        train_step = Naive.train_step

        def losing(self, batch, epoch):
            if epoch == 1:
                _taken_by_another(place)
            return train_step(self, batch, epoch)

        Naive.train_step = losing

    place = workplace(recipe={"learning_rate": 1e-12})  # none is better than the first one
    process = place.start(before)
    assert process.wait() == SAVED, process.said
    assert [path.name for path in place.states()] == ["epoch-0001-batch-000000.pt"]


def test_a_writer_that_lost_its_lock_after_its_last_epoch_writes_no_results(workplace):
    def before():
        from amst.training import finish

        evaluate = finish.linear_evaluation

        def standing_still(*arguments):
            _taken_by_another(place)
            return evaluate(*arguments)

        finish.linear_evaluation = standing_still

    place = workplace(recipe={"epochs": 1})
    process = place.start(before)
    assert process.wait() == SAVED, process.said
    assert "was lost to elsewhere" in process.said
    assert [path.name for path in place.out.iterdir()] == ["tensorboard"]


def test_who_waits_for_an_attempt_that_fails_does_not_fail_again(workplace):
    def before():
        from amst.methods.naive import Naive

        def broken(self, batch, epoch):
            while not waited_for.exists():
                time.sleep(0.01)
            raise RuntimeError("out of luck")

        Naive.train_step = broken

    place = workplace()
    waited_for = place.folder / "waited for"
    first = place.start(before)
    while not (place.checkpoints / "lock").exists():
        time.sleep(0.01)
    second = place.start(before)
    second.wait_for("is held by")
    waited_for.touch()
    assert (first.wait(), second.wait()) == (1, 1), second.said
    assert "amst retry" in second.said
    assert json.loads(place.failed.read_text())["attempts"] == 1


def test_an_attempt_leaves_to_try_again_where_another_one_trains_for_long(workplace):
    place = workplace(recipe={"epochs": 500})
    first = place.start()
    first.wait_for("epoch 1/500")
    place.execution = place.execution.model_copy(update={"lock_wait": 0.5})
    second = place.start()
    assert second.wait() == SAVED
    assert not place.failed.exists()
    assert first.code() is None


def test_a_writer_that_stood_still_too_long_leaves_the_run_to_the_other(workplace, undisturbed):
    place = workplace(recipe={"epochs": 40})
    place.execution = place.execution.model_copy(update={"stale_after": 0.5})
    first = place.start()
    first.wait_for("epoch 2/40")
    first.send(signal.SIGSTOP)
    # Elsewhere, since a process of this host is known to live.
    lock = place.checkpoints / "lock"
    lock.write_text(json.dumps({**json.loads(lock.read_text()), "host": "elsewhere"}))
    second = place.start()
    second.wait_for("taking over")
    second.wait_for("continuing")
    first.send(signal.SIGCONT)
    assert first.wait() == SAVED, first.said
    assert "was lost" in first.said
    assert second.wait() == 0, second.said
    assert place.results() == undisturbed(place.settings)
