"""Where and with what a run is made."""

import os
import platform
import re
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from amst import __version__
from amst.records import Environment
from amst.training.execution import Execution

CAPTURED = " (captured)"
"""Behind a device's name: training passes were replayed there, so hours are others."""
_TOGETHER = " ({} runs at once)"
_REMARKS = re.compile(r" \(captured\)| \(\d+ runs at once\)")


def environment_of(execution: Execution, devices: Iterable[str]) -> Environment:
    """The environment of this process.

    Args:
        execution: what its caller knows.
        devices: models of those that have trained the run.
    """
    return Environment(
        suite_version=__version__,
        commit=execution.commit,
        code_digest=execution.code_digest,
        package_digest=execution.package_digest,
        container_digest=execution.container_digest,
        python=platform.python_version(),
        packages=_versions(execution.packages),
        host=platform.node(),
        device=", ".join(dict.fromkeys(devices)),
        slurm_job=os.environ.get("SLURM_JOB_ID", ""),
    )


def _versions(packages: Iterable[str]) -> dict[str, str]:
    found = {}
    for name in sorted(packages):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def trained_on(device: torch.device, captured: bool, together: int) -> str:
    """What a run's device is called, with all that makes its hours others than on it alone.

    Args:
        device: of the run.
        captured: whether training passes are replayed.
        together: runs that share a GPU, or fewer than 2.
    """
    shared = _TOGETHER.format(together) if device.type == "cuda" and together > 1 else ""
    return device_name(device) + CAPTURED * captured + shared


def model_of(name: str) -> str:
    """The model of a device as ``trained_on`` called it."""
    return _REMARKS.sub("", name)


def device_name(device: torch.device) -> str:
    """Model of the GPU or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
        models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()
