"""Where a run keeps its features: on the device if they fit, else in memory, else on disk."""

from pathlib import Path
from typing import Literal

import torch

from amst.errors import AmstError
from amst.loading.dataset import Residency

# What is left is for weights, activations and whatever else runs on the machine.
_SHARE_OF_DEVICE = 0.5
_SHARE_OF_HOST = 0.5
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def choose_residency(
    wanted: Literal["auto"] | Residency, size: int, device: torch.device
) -> Residency:
    """Where to keep ``size`` bytes of features.

    Args:
        wanted: 'auto', or a residency to force.
        size: bytes of all parts that are held at a time.
        device: the device of the run.

    Raises:
        AmstError: 'device' is forced and the device is a CPU.
    """
    if wanted == "device" and device.type == "cpu":
        raise AmstError(
            "residency 'device' needs a GPU", "Set execution.residency to auto, host or stream"
        )
    if wanted != "auto":
        return wanted
    if device.type == "cuda" and size <= _SHARE_OF_DEVICE * torch.cuda.mem_get_info(device)[0]:
        return "device"
    return "host" if size <= _SHARE_OF_HOST * available_memory() else "stream"


def available_memory() -> int:
    """Bytes of memory this process can still take: the machine's, or its control group's limit."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    for path in map(Path, _CGROUP_LIMITS):
        if path.is_file() and (limit := path.read_text(encoding="ascii").strip()).isdecimal():
            free = min(free, int(limit))
    return free
