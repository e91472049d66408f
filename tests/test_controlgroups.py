"""How many cores a process may use: those it may run on, and what its control groups leave."""

import os
from pathlib import Path

import pytest

from amst.controlgroups import own_cores

V1 = ("9 1 0:1 / {mount} rw - cgroup cgroup rw,cpu,cpuacct", "3:cpu,cpuacct:/user/job")
V2 = ("9 1 0:1 / {mount} rw - cgroup2 cgroup2 rw", "0::/user/job")


@pytest.mark.parametrize(
    ("version", "above", "own", "cores"),
    [
        (V1, {"cpu.cfs_quota_us": "-1"}, {"cpu.cfs_quota_us": "-1"}, 64),
        (V1, {"cpu.cfs_quota_us": "250000"}, {"cpu.cfs_quota_us": "-1"}, 3),
        (V1, {"cpu.cfs_quota_us": "250000"}, {"cpu.cfs_quota_us": "10000"}, 1),
        (V2, {"cpu.max": "max 100000"}, {"cpu.max": "max 100000"}, 64),
        (V2, {"cpu.max": "max 100000"}, {"cpu.max": "200000 100000"}, 2),
        (V2, {"cpu.max": "9900000 100000"}, {}, 64),
    ],
)
def test_control_groups_give_the_time_of_so_many_cores(
    version: tuple[str, str],
    above: dict[str, str],
    own: dict[str, str],
    cores: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    process, group = tmp_path / "proc" / "self", tmp_path / "groups" / "user" / "job"
    for folder in (process, group):
        folder.mkdir(parents=True)
    other = b"8 1 0:2 / /media/\xfc rw - tmpfs  rw\n"  # of no name, in a place of no UTF-8
    mount = version[0].format(mount=tmp_path / "groups")
    (process / "mountinfo").write_bytes(other + mount.encode() + b"\n")
    (process / "cgroup").write_text(version[1] + "\n")
    for folder, files in ((group.parent, above), (group, own)):
        for name, text in {"cpu.cfs_period_us": "100000", **files}.items():
            (folder / name).write_text(text + "\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert own_cores(process.parent) == cores
