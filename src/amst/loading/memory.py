"""How much memory this process can still take: by machine, control groups, own limits and job."""

import os
import resource
from collections.abc import Iterator, Mapping
from pathlib import Path

from amst.controlgroups import control_groups, lines_of

_FILES = {"cgroup2": ("memory.max", "memory.current"),
          "cgroup": ("memory.limit_in_bytes", "memory.usage_in_bytes")}  # fmt: skip
"""File system of a version of control groups -> its files with the limit and with the use."""
# What the kernel gives back when memory gets scarce is no use: shards read through the page cache.
_CACHE = {
    "cgroup2": ("inactive_file", "active_file"),
    "cgroup": ("total_inactive_file", "total_active_file"),
}


def available_memory(proc: Path = Path("/proc"), environ: Mapping[str, str] = os.environ) -> int:
    """Bytes that this process can still take.

    The least of: what the machine has left; what each control group around this process (a SLURM
    job's, say) has left below its limit; what the limits of this process (`ulimit -v`, `-d`) leave;
    what SLURM has given the job.

    Args:
        proc: the kernel's folder of processes.
        environ: with SLURM's variables.
    """
    lines = (proc / "meminfo").read_text(encoding="ascii").splitlines()
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    left = (*_left_in_groups(proc), *_left_to_process(proc), *_of_job(environ))
    return max(0, min([free, *left]))


def lies_in_memory(folder: Path, proc: Path = Path("/proc")) -> bool:
    """Whether what is written into a folder takes memory, as on a tmpfs (/dev/shm).

    Args:
        folder: the folder, there.
        proc: the kernel's folder of processes.
    """
    at = folder.resolve()
    found: dict[Path, str] = {}
    for line in lines_of(proc / "self" / "mountinfo"):
        before, _, after = line.partition(" - ")
        found[Path(before.split()[4])] = after.split()[0]  # the last one there covers the others
    above = next((place for place in (at, *at.parents) if place in found), None)
    return above is not None and found[above] in ("tmpfs", "ramfs")


def _of_job(environ: Mapping[str, str]) -> Iterator[int]:
    """Bytes of the SLURM job on this node; none where it may take all (SLURM then says 0)."""
    node = environ.get("SLURM_MEM_PER_NODE", "")
    core, cores = environ.get("SLURM_MEM_PER_CPU", ""), environ.get("SLURM_CPUS_ON_NODE", "")
    if node.isdecimal() and int(node):
        yield int(node) << 20
    elif core.isdecimal() and cores.isdecimal() and int(core):
        yield int(core) * int(cores) << 20


def _left_to_process(proc: Path) -> Iterator[int]:
    """Bytes left below each limit that this process has for its address space and its data."""
    status = dict(line.split(":", 1) for line in lines_of(proc / "self" / "status"))
    for kind, used in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        limit, _ = resource.getrlimit(kind)
        if limit != resource.RLIM_INFINITY:
            yield limit - int(status.get(used, "0 kB").split()[0]) * 1024


def _left_in_groups(proc: Path) -> Iterator[int]:
    """Bytes left in every control group above this process that has a limit."""
    for version, folder in control_groups("memory", proc):
        limit, used = (_number(folder / name) for name in _FILES[version])
        if limit is not None and used is not None:
            yield limit - max(0, used - _cached(folder, _CACHE[version]))


def _cached(folder: Path, names: tuple[str, ...]) -> int:
    found = (line.split() for line in lines_of(folder / "memory.stat"))
    return sum(int(value) for name, value in found if name in names)


def _number(path: Path) -> int | None:
    text = "".join(lines_of(path)).strip()
    return int(text) if text.isdecimal() else None  # 'max' is no limit
