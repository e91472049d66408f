"""A named random stream for what draws from PyTorch's global generator."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from amst.randomness import stream_seed


@contextmanager
def random_stream(device: torch.device | str, seed: int, *names: str | int) -> Iterator[None]:
    """The global generator of ``device`` draws from the stream ``names`` inside, then as before.

    For dropout and PyTorch's initial weights, which know no other generator. That of this device
    alone: `torch.manual_seed` also tells devices that are not there, with a stack trace for each
    in every step.

    Args:
        device: where numbers are drawn; a module is made on the CPU.
        seed: the run's seed.
        names: of the stream; in training also the number of the step.
    """
    device = torch.device(device)
    generator = torch.default_generator
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        generator = torch.cuda.default_generators[index]
    before = generator.get_state()
    generator.manual_seed(stream_seed(seed, *names))
    try:
        yield
    finally:
        generator.set_state(before)
