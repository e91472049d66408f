"""The global generator within a stream of its own."""

import pytest
import torch
from torch import nn

from amst.models.streams import random_stream


def drawn(seed: int, *names: str | int) -> list[float]:
    with random_stream("cpu", seed, *names):
        return [*nn.Linear(3, 3).weight.flatten().tolist(), *torch.rand(2).tolist()]


def test_what_is_drawn_depends_on_seed_and_names_alone() -> None:
    torch.manual_seed(1)
    first = drawn(0, "dropout", 3)
    torch.manual_seed(2)
    assert drawn(0, "dropout", 3) == first
    others = [drawn(1, "dropout", 3), drawn(0, "dropout", 4), drawn(0, "weights", 3)]
    assert all(other != first for other in others)


def test_outside_it_the_global_generator_goes_on_as_before() -> None:
    torch.manual_seed(1)
    expected = torch.rand(4).tolist()
    torch.manual_seed(1)
    found = torch.rand(2).tolist()
    drawn(0, "a")
    with pytest.raises(RuntimeError, match="negative"), random_stream("cpu", 0, "a"):
        torch.rand(-1)
    assert [*found, *torch.rand(2).tolist()] == expected
