"""GPU slots: runs of one allocation spread over its GPUs, k on each, and never more."""

import os
import stat
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from amst.cli import runs
from amst.cluster import slots
from amst.config.settings import Resources
from amst.errors import AmstError

HOLD = """
import sys
from amst.cluster.slots import take
print(take(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def environment(tmp_path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(tmp_path), "CUDA_VISIBLE_DEVICES": "0,GPU-ab/c",
            "AMST_RUNS_PER_GPU": "2", "SLURM_JOB_ID": "7"}  # fmt: skip


def holder(environment: dict[str, str], limit: str = "unlimited") -> subprocess.Popen[str]:
    """A process that takes a slot; with a limit of 0, it can write into no file."""
    pipe = subprocess.PIPE
    limited = ["sh", "-c", f'ulimit -f {limit} && exec "$@"', "sh"]
    command = [*limited, sys.executable, "-c", HOLD]
    return subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True)


def device_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def test_slots_spread_over_devices_before_they_share_one(environment):
    first = holder(environment)
    one = device_of(first)
    second = holder(environment)
    assert {one, device_of(second)} == {"0", "GPU-ab/c"}
    later = [holder(environment) for _ in range(2)]
    assert Counter(map(device_of, later)) == {"0": 1, "GPU-ab/c": 1}
    for process in (first, second, *later):
        process.kill()
        process.wait()


def test_slots_are_the_same_ones_while_the_disk_is_full(environment):
    """Where nothing can be written, `tempfile` takes another folder."""
    first = holder(environment)
    second = holder(environment, limit="0")
    assert {device_of(first), device_of(second)} == {"0", "GPU-ab/c"}
    for process in (first, second):
        process.kill()
        process.wait()


def test_slots_lie_in_tmp_where_the_temporary_folder_takes_none(tmp_path):
    user = os.getuid()
    tmp_path.chmod(0o555)
    if user == 0:  # who may write everywhere
        os.setreuid(65534, -1)
    try:
        assert slots.folder({"TMPDIR": str(tmp_path)}).parent == Path("/tmp")
    finally:
        os.setreuid(user, -1)
        tmp_path.chmod(0o755)


def test_a_killed_run_gives_its_slot_back(environment):
    environment = {**environment, "AMST_RUNS_PER_GPU": "1", "CUDA_VISIBLE_DEVICES": "3"}
    first, second = holder(environment), None
    try:
        assert device_of(first) == "3"
        second = holder(environment)
        with pytest.raises(subprocess.TimeoutExpired):
            second.wait(1.5)
        first.kill()
        assert device_of(second) == "3"
    finally:
        for process in filter(None, (first, second)):
            process.kill()
            process.wait()


@pytest.mark.parametrize(
    ("listed", "code", "found"),
    [
        (["GPU 0: A100 (UUID: GPU-a)", "GPU 1: A100 (UUID: GPU-b)"], 0, ["0", "1"]),
        (
            [
                "GPU 0: A100 (UUID: GPU-a)",
                "  MIG 3g.20gb     Device  0: (UUID: MIG-c)",
                "  MIG 3g.20gb     Device  1: (UUID: MIG-d)",
                "GPU 1: A100 (UUID: GPU-b)",
            ],
            0,
            ["MIG-c", "MIG-d", "1"],
        ),
        (["NVIDIA-SMI has failed because it could not reach the driver.", "Make sure"], 9, []),
    ],
)
def test_what_the_driver_lists_is_what_a_run_can_name(driver, listed, code, found):
    driver(listed, code)
    assert slots.devices({}) == found


def test_how_many_runs_share_a_node_goes_by_cores_and_places_on_gpus():
    one, four = Resources(gpu=1, threads=1), Resources(gpu=1, threads=4)
    assert slots.on_node([one, four], cores=8, gpus=None) == 8
    assert slots.on_node([four], cores=8, gpus=None) == 2
    assert slots.on_node([one, four], cores=8, gpus=3) == 3
    assert slots.on_node([one], cores=2, gpus=3) == 2
    assert slots.on_node([Resources(gpu=2, threads=1)], cores=8, gpus=5) == 2
    assert slots.on_node([Resources(gpu=0, threads=1)], cores=8, gpus=3) == 8
    assert slots.on_node([four], cores=1, gpus=0) == 1, "a run always runs"


def test_neither_allocations_nor_users_share_slots(environment, monkeypatch):
    assert slots.folder({"SLURM_JOB_ID": "7"}) != slots.folder({"SLURM_JOB_ID": "8"})
    assert slots.take(environment) == "0"
    at = slots.folder(environment)
    assert stat.S_IMODE(at.stat().st_mode) == 0o700, "nobody else can hold them"
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert slots.folder(environment) != at


def test_slots_are_not_held_in_a_folder_of_somebody_else(environment, monkeypatch):
    """Who could hold all of them, or lead them to files of this user by links."""
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    slots.folder(environment).mkdir()
    with pytest.raises(AmstError, match=r"somebody else's\. Set TMPDIR to a folder of your own"):
        slots.take(environment)


def test_slots_are_off_without_the_setting_and_without_a_gpu():
    assert slots.take({"CUDA_VISIBLE_DEVICES": "0"}) == ""
    for none in ("", "-1"):
        assert slots.take({"CUDA_VISIBLE_DEVICES": none, "AMST_RUNS_PER_GPU": "2"}) == ""


@pytest.mark.parametrize(
    ("dataset", "device", "given", "seen"),
    [
        ("AVE", "auto", "2", "3"),
        ("digits", "auto", "2", ""),
        ("AVE", "cpu", "2", ""),
        ("digits", "cpu", "0", "3"),
        ("AVE", "auto", "0", "3"),
        ("digits", "auto", "0", ""),
        ("digits", "cuda", "0", "3"),
        ("digits", "cuda", "2", ""),
    ],
)
def test_a_run_on_the_processors_takes_no_slot_and_sees_no_gpu(
    environment, dataset: str, device: str, given: str, seen: str
):
    environment = {**environment, "CUDA_VISIBLE_DEVICES": "3", "AMST_RUNS_PER_GPU": given,
                   "AMST_WITHOUT_GPU": "digits other"}  # fmt: skip
    slots.place(dataset, device, environment)
    assert environment["CUDA_VISIBLE_DEVICES"] == seen
    assert slots.folder(environment).exists() is (seen == "3" and given == "2")


def test_a_wrong_number_of_runs_is_named():
    with pytest.raises(AmstError, match="AMST_RUNS_PER_GPU is 'two'"):
        slots.per_gpu({"AMST_RUNS_PER_GPU": "two"})


def test_the_wait_for_a_slot_is_over_before_the_time_that_is_left_is_looked_at(
    monkeypatch, tmp_path
):
    looked: list[str] = []

    def look(*_: object) -> int:
        looked.append("deadline")
        raise AmstError("far enough")

    monkeypatch.setattr(
        runs,
        "run_settings",
        lambda run, *_: SimpleNamespace(dataset="digits", method="naive", run_id=run),
    )
    monkeypatch.setattr(runs, "place", lambda *_: looked.append("slot"))
    monkeypatch.setattr(runs, "deadline", look)
    with pytest.raises(AmstError, match="far enough"):
        runs.train("run", "{}", tmp_path, tmp_path, "{}")
    assert looked == ["slot", "deadline"]


def test_a_long_wait_for_a_slot_leaves_no_files_open(tmp_path):
    assert slots._hold(tmp_path / "0.0")
    open_files = Path("/proc/self/fd")
    before = len(list(open_files.iterdir()))
    assert not any(slots._hold(tmp_path / "0.0") for _ in range(9))
    assert len(list(open_files.iterdir())) == before
