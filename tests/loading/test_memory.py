"""The least of what machine, control groups and SLURM leave decides how much memory there is."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from amst.loading.memory import available_memory, lies_in_memory

GB = 1 << 30
MOUNTS = {
    1: "35 31 0:32 {root} {mount} rw,relatime - cgroup cgroup rw,memory",
    2: "41 31 0:38 {root} {mount} rw,relatime - cgroup2 cgroup2 rw",
}
GROUPS = {1: "4:cpu,cpuacct:/other\n7:memory:{group}\n0::/else", 2: "0::{group}"}
FILES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}
Machine = Callable[..., Path]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Writes /proc and a tree of control groups as the kernel shows them; 64 GB are free."""

    def make(version: int, group: str, root: str = "/") -> Path:
        own = tmp_path / "proc" / "self"
        own.mkdir(parents=True)
        (own.parent / "meminfo").write_text(f"MemTotal: 9 kB\nMemAvailable: {64 * GB >> 10} kB\n")
        (own / "cgroup").write_text(GROUPS[version].format(group=group) + "\n")
        mount = MOUNTS[version].format(root=root, mount=tmp_path / "groups")
        (own / "mountinfo").write_text(f"22 1 8:1 / / rw - ext4 /dev/sda rw\n{mount}\n")
        return own.parent

    return make


def limit(folder: Path, version: int, most: str | int, used: int = 0, cached: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = FILES[version]
    (folder / names[0]).write_text(f"{most}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\n{names[2]} {cached}\n")


@pytest.mark.parametrize("version", [1, 2])
def test_a_slurm_jobs_own_group_is_the_limit(machine: Machine, tmp_path: Path, version: int):
    proc = machine(version, "/slurm/uid_0/job_3/step_0")
    groups = tmp_path / "groups"
    limit(groups, version, "max" if version == 2 else 2**63 - 4096)
    limit(groups / "slurm/uid_0/job_3", version, 8 * GB, used=5 * GB, cached=2 * GB)
    limit(groups / "slurm/uid_0/job_3/step_0", version, 9 * GB)
    assert available_memory(proc, {}) == 5 * GB, "limit of an ancestor less what is used for good"


def test_a_container_that_shows_only_its_own_part_of_the_tree(machine: Machine, tmp_path: Path):
    proc = machine(2, "/docker/abc/job", root="/docker/abc")
    limit(tmp_path / "groups/job", 2, 3 * GB)
    assert available_memory(proc, {}) == 3 * GB


def test_a_group_that_is_not_to_be_seen_leaves_those_above_it(machine: Machine, tmp_path: Path):
    proc = machine(2, "/somewhere/else")
    limit(tmp_path / "groups", 2, 3 * GB)
    assert available_memory(proc, {}) == 3 * GB


def test_without_any_limit_the_machines_memory_is_free(machine: Machine):
    assert available_memory(machine(2, "/"), {}) == 64 * GB


def test_what_slurm_gives_is_the_limit_where_no_group_enforces_it(machine: Machine):
    proc = machine(2, "/")
    assert available_memory(proc, {"SLURM_MEM_PER_NODE": "2048"}) == 2 * GB
    assert available_memory(proc, {"SLURM_MEM_PER_NODE": "0"}) == 64 * GB, "0 is all of the node"
    each = {"SLURM_MEM_PER_CPU": "1024", "SLURM_CPUS_ON_NODE": "4"}
    assert available_memory(proc, each) == 4 * GB


def test_a_group_that_takes_more_than_its_limit_leaves_nothing(machine: Machine, tmp_path: Path):
    proc = machine(1, "/job")
    limit(tmp_path / "groups/job", 1, GB, used=2 * GB)
    assert available_memory(proc, {}) == 0


def test_the_mounts_tell_whether_a_folder_lies_in_memory(tmp_path: Path):
    own, place = tmp_path / "proc" / "self", tmp_path / "disk"
    own.mkdir(parents=True)
    (place / "a" / "b").mkdir(parents=True)
    mounts = [(Path("/"), "ext4"), (place, "xfs"), (place / "a", "tmpfs"), (place / "a/b", "nfs")]
    lines = [f"2 1 8:1 / {at} rw - {kind} x rw\n" for at, kind in mounts]
    (own / "mountinfo").write_text("".join(lines))
    folders = (tmp_path, place, place / "a", place / "a" / "b")
    told = [lies_in_memory(folder, own.parent) for folder in folders]
    assert told == [False, False, True, False]


@pytest.mark.parametrize("option", ["-v", "-d"])
def test_a_limit_of_the_shell_is_one_of_this_process(option: str):
    code = "from amst.loading.memory import available_memory; print(available_memory())"
    command = ["sh", "-c", f'ulimit {option} 400000 && exec "$0" -c "$1"', sys.executable, code]
    asked = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 100_000_000 < int(asked.stdout) < 409_600_000


def test_a_real_group_limits_a_real_process(tmp_path: Path):
    """Where this machine lets its tests make a group."""
    line = next((x for x in Path("/proc/self/cgroup").read_text().splitlines() if ":memory:" in x),
                None)  # fmt: skip
    parent = Path("/sys/fs/cgroup/memory")
    if line is None or not os.access(parent, os.W_OK):
        pytest.skip("no memory group of version 1 that this user may write to")
    group = parent / f"amst-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError:
        pytest.skip("no memory group of version 1 that this user may write to")
    try:
        (group / "memory.limit_in_bytes").write_text(str(256 << 20))
        code = (
            "import os, pathlib, sys; pathlib.Path(sys.argv[1], 'cgroup.procs').write_text('0'); "
            "from amst.loading.memory import available_memory; print(available_memory())"
        )
        asked = subprocess.run(
            [sys.executable, "-c", code, str(group)], capture_output=True, text=True, check=True
        )
        assert 100 << 20 < int(asked.stdout) <= 256 << 20
    finally:
        group.rmdir()
