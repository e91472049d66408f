"""Where a run keeps its features: on the device if they fit, else in memory, else on disk."""

from typing import Literal

import torch

from amst.errors import AmstError
from amst.loading.dataset import Residency
from amst.loading.memory import available_memory

# What is left is for weights, activations and whatever else runs on the machine.
_SHARE_OF_DEVICE = 0.5
_SHARE_OF_HOST = 0.5


def choose_residency(
    wanted: Literal["auto"] | Residency,
    size: int,
    device: torch.device,
    on_node: int = 1,
    on_gpu: int = 0,
) -> Residency:
    """Where to keep ``size`` bytes of features.

    Args:
        wanted: 'auto', or a residency to force.
        size: bytes of all parts that are held at a time.
        device: the device of the run.
        on_node: runs that share the node's memory. Each counts on its part of it, since those
            that start together all see it free.
        on_gpu: runs that share each GPU where runs are packed into one allocation; 0 where they
            are not. Packed runs keep no copies in host memory of their own: what does not go to
            the device stays mapped, and the page cache holds it once for all runs of a node.

    Raises:
        AmstError: 'device' is forced and the device is a CPU.
    """
    if wanted == "device" and device.type == "cpu":
        raise AmstError(
            "residency 'device' needs a GPU", "Set execution.residency to auto, host or stream"
        )
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
        if size * max(1, on_gpu) <= _SHARE_OF_DEVICE * free:
            return "device"
    if on_gpu:
        return "stream"
    return "host" if size * on_node <= _SHARE_OF_HOST * available_memory() else "stream"
