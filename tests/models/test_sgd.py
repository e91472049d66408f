import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from amst.config.run import Recipe
from amst.models.sgd import SGD


@given(
    momentum=st.sampled_from([0.0, 0.5, 0.9]),
    weight_decay=st.sampled_from([0.0, 1e-4, 0.1]),
    # Which of the two weights have a gradient in each step.
    reached=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=6),
)
@settings(max_examples=40, deadline=None)
def test_steps_are_those_of_torch(
    momentum: float, weight_decay: float, reached: list[tuple[bool, bool]]
) -> None:
    draw = torch.Generator().manual_seed(0)
    ours = [nn.Parameter(torch.randn(3, 2, generator=draw)) for _ in range(2)]
    theirs = copy.deepcopy(ours)
    mine = SGD(ours, Recipe(learning_rate=0.1, momentum=momentum, weight_decay=weight_decay))
    its = torch.optim.SGD(theirs, lr=0.1, momentum=momentum, weight_decay=weight_decay)
    for step, mask in enumerate(reached):
        for one, other, has_gradient in zip(ours, theirs, mask, strict=True):
            gradient = torch.full((3, 2), float(step + 1)) if has_gradient else None
            one.grad, other.grad = gradient, copy.copy(gradient)
        mine.step()
        its.step()
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other)


def test_a_weight_without_gradient_is_not_touched() -> None:
    weight = nn.Parameter(torch.ones(2))
    sgd = SGD([weight], Recipe(learning_rate=0.1, weight_decay=0.5))
    weight.grad = torch.ones(2)
    sgd.step()
    rested = weight.detach().clone()
    sgd.zero_grad()
    sgd.step()
    assert weight.grad is None
    assert weight.equal(rested)


def test_frozen_weights_are_left_out() -> None:
    frozen = nn.Parameter(torch.ones(2), requires_grad=False)
    assert SGD([frozen], Recipe()).parameters == []


@pytest.mark.parametrize("steps", [0, 2])
def test_continues_from_its_state(steps: int) -> None:
    weights = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))]
    sgd = SGD(weights, Recipe(learning_rate=0.1))
    for _ in range(steps):
        weights[0].grad = torch.ones(2)
        sgd.step()
    sgd.learning_rate = 0.05
    copies = copy.deepcopy(weights)
    other = SGD(copies, Recipe(learning_rate=0.1))
    other.load_state_dict(copy.deepcopy(sgd.state_dict()))
    for optimiser, parameters in ((sgd, weights), (other, copies)):
        for parameter in parameters:
            parameter.grad = torch.ones(2)
        optimiser.step()
    assert all(one.equal(its) for one, its in zip(weights, copies, strict=True))


def test_velocities_have_the_memory_layout_of_their_weights() -> None:
    weight = nn.Parameter(torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last))
    sgd = SGD([weight], Recipe())
    sgd.load_state_dict({"learning_rate": 0.1, "velocities": [torch.randn(4, 3, 2, 2)]})
    (velocity,) = sgd.velocities
    assert velocity is not None
    assert velocity.stride() == weight.stride()
