"""Initial weights of every kind of layer: how they spread, and that each is drawn for itself."""

from collections.abc import Callable
from typing import TypeVar

import pytest
import torch
from torch import Tensor, nn

from amst.errors import AmstError
from amst.models.heads import Concat
from amst.models.initial import initialise

Layer = TypeVar("Layer", bound=nn.Module)


def drawn(module: Layer, seed: int = 0, *stream: str) -> Layer:
    initialise(module, seed, *stream)
    return module


def beyond(weight: Tensor, bound: float) -> float:
    """Share of numbers farther from zero than ``bound``."""
    return (weight.abs() > bound).double().mean().item()


# Of a normal distribution 8.3 % lie beyond sqrt(3) standard deviations, of a uniform one nothing.
BEYOND = 0.0833


def test_convolutions_spread_by_the_channels_that_they_give() -> None:
    weight = drawn(nn.Conv2d(64, 128, 3)).weight
    # sqrt(2 / (128 x 3 x 3)); by the 64 channels that it takes, it would be 0.0589.
    assert weight.std().item() == pytest.approx(0.04167, rel=0.02)
    assert weight.mean().item() == pytest.approx(0, abs=0.001)
    assert beyond(weight, 0.07217) == pytest.approx(BEYOND, abs=0.01)


def test_linear_layers_spread_by_what_they_take_and_give() -> None:
    layer = drawn(nn.Linear(400, 600))
    # sqrt(2 / (400 + 600)).
    assert layer.weight.std().item() == pytest.approx(0.04472, rel=0.02)
    assert layer.weight.mean().item() == pytest.approx(0, abs=0.001)
    assert beyond(layer.weight, 0.07746) == pytest.approx(BEYOND, abs=0.01)
    assert not layer.bias.any()


def test_tables_spread_by_two_hundredths() -> None:
    weight = drawn(nn.Embedding(500, 200)).weight
    assert weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert beyond(weight, 0.03464) == pytest.approx(BEYOND, abs=0.01)


@pytest.mark.parametrize("layer", [nn.BatchNorm2d(5), nn.LayerNorm(5)])
def test_norms_start_as_the_identity(layer: nn.BatchNorm2d | nn.LayerNorm) -> None:
    nn.init.constant_(layer.weight, 7)
    nn.init.constant_(layer.bias, 7)
    drawn(layer)
    assert layer.weight.tolist() == [1] * 5
    assert layer.bias.tolist() == [0] * 5


def test_every_layer_has_weights_of_its_own() -> None:
    for make in (lambda: nn.Linear(3, 3), lambda: nn.Conv2d(3, 3, 3), lambda: nn.Embedding(3, 3)):
        one, other = drawn(nn.Sequential(make(), make()))
        assert not one.weight.equal(other.weight)


def test_seeds_and_parts_have_weights_of_their_own() -> None:
    weights = [
        drawn(nn.Linear(3, 3), *names).weight
        for names in [(0, "a"), (1, "a"), (0, "b"), (0, "a", "b")]
    ]
    assert len({tuple(weight.flatten().tolist()) for weight in weights}) == 4
    assert drawn(nn.Linear(3, 3), 0, "a").weight.equal(weights[0])
    assert torch.equal(drawn(nn.Linear(3, 3), 1, "a").weight, weights[1])


class Bare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: nn.MultiheadAttention(4, 2), "'in_proj_weight' of a MultiheadAttention"),
        (lambda: nn.BatchNorm1d(4), "'weight' of a BatchNorm1d"),
        (Bare, "'scale' of a Bare"),
    ],
)
def test_what_it_does_not_know_is_refused_untouched(
    make: Callable[[], nn.Module], what: str
) -> None:
    module = nn.Sequential(nn.Linear(3, 3), make())
    before = [parameter.clone() for parameter in module.parameters()]
    with pytest.raises(AmstError, match=f"initialise does not know how {what} starts"):
        initialise(module, 0)
    assert all(p.equal(was) for p, was in zip(module.parameters(), before, strict=True))


def test_a_bias_of_no_layer_starts_at_zero() -> None:
    head = Concat(["sound"], 4, 3)
    nn.init.constant_(head.bias, 7)
    assert drawn(head).bias.tolist() == [0] * 3
