"""The kernel's control groups around this process, which limit its memory and its CPU time."""

import os
from collections.abc import Iterator
from math import ceil
from pathlib import Path

PROC = Path("/proc")
"""The kernel's folder of processes."""


def own_cores(proc: Path = PROC) -> int:
    """CPU cores that this process may use.

    Those that it may run on, as a SLURM job's; no more than its control groups give it time of, as
    those of a container (``docker run --cpus``) or of a user on a login node.
    """
    # macOS, where a laptop may ask, does not tell a process's own cores.
    known = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1
    quotas = (_cores_of(version, group) for version, group in control_groups("cpu", proc))
    return min([cores, *filter(None, quotas)])


def _cores_of(version: str, group: Path) -> int:
    """Cores that a group has the time of, rounded up; 0 where that has no limit."""
    if version == "cgroup2":
        words = " ".join(lines_of(group / "cpu.max")).split()
    else:
        names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        words = [word for name in names for word in lines_of(group / name)]
    if len(words) != 2 or not all(word.isdecimal() for word in words):  # 'max' or -1: no limit
        return 0
    quota, period = map(int, words)
    return ceil(quota / period)


def control_groups(controller: str, proc: Path = PROC) -> Iterator[tuple[str, Path]]:
    """(file system of its version, folder) of this process's group and of every one above it.

    Args:
        controller: what they limit, 'memory' or 'cpu'.
        proc: the kernel's folder of processes.
    """
    own = _own_groups(proc)
    for line in lines_of(proc / "self" / "mountinfo"):
        before, _, after = line.partition(" - ")
        root, mount = before.split()[3:5]
        version, *_, options = after.split()  # of what is mounted there may be no name between
        key = {"cgroup2": "", "cgroup": controller}.get(version)
        if key in own and (version == "cgroup2" or controller in options.split(",")):
            # In a container the mount may show only the part of the tree below ``root``.
            path = Path(own[key])
            inside = path.relative_to(root) if path.is_relative_to(root) else path.relative_to("/")
            folder = Path(mount, inside)
            group = folder if folder.is_dir() else Path(mount)
            for each in (group, *group.parents):
                if each.is_relative_to(mount):
                    yield version, each


def _own_groups(proc: Path) -> dict[str, str]:
    """Controller -> path of this process's group; '' for version 2."""
    own = {}
    for line in lines_of(proc / "self" / "cgroup"):
        _, controllers, path = line.split(":", 2)
        own.update(dict.fromkeys(controllers.split(","), path))
    return own


def lines_of(path: Path) -> list[str]:
    """Lines of one of the kernel's files; none where there is no such file."""
    try:
        # places of mounts may have any bytes
        return path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []
