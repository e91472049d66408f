"""The device that a benchmark runs on, and what it does at best."""

import statistics
import time
from dataclasses import dataclass
from typing import Any

import torch

from amst.config.run import RunSettings


@dataclass(frozen=True)
class Peak:
    """What this device does at best in large matrix products and copies.

    Attributes:
        product: floating-point operations per second of a matrix product.
        copy: bytes per second read and written by a copy.
    """

    product: float
    copy: float


def measure_peak(device: torch.device, settings: RunSettings) -> Peak:
    """Large matrix products and copies in the run's precision: medians of ten."""
    half = settings.arithmetic.precision == "bf16"
    side = 8192 if device.type == "cuda" else 512
    kind = torch.bfloat16 if half else torch.float32
    left = torch.randn(side, side, device=device).to(kind)
    before = torch.backends.cuda.matmul.allow_tf32
    # Convolutions are most of the work, so theirs is the precision to compare with.
    torch.backends.cuda.matmul.allow_tf32 = settings.arithmetic.tf32 != "off"
    product = _median_seconds(device, lambda: torch.mm(left, left))
    torch.backends.cuda.matmul.allow_tf32 = before
    source = torch.ones(2**28 if device.type == "cuda" else 2**26, dtype=torch.uint8).to(device)
    target = torch.empty_like(source)
    copy = _median_seconds(device, lambda: target.copy_(source))
    return Peak(2 * side**3 / product, 2 * source.numel() / copy)


def _median_seconds(device: torch.device, work: Any) -> float:
    seconds = []
    for _ in range(11):
        wait(device)
        begin = time.perf_counter()
        work()
        wait(device)
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds[1:])


def wait(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def device_name(device: torch.device) -> str:
    """What the results were measured on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} threads of a CPU"
