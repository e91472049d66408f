"""Stochastic gradient descent with momentum and weight decay."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from amst.config.run import Recipe


class SGD:
    """v <- mu v + g + wd w; w <- w - lr v, for each weight w that has a gradient g.

    A weight whose gradient is None in a step is not touched: no decay, no momentum. The same
    arithmetic as ``torch.optim.SGD``, which loads PyTorch's compiler when it is built (a second at
    the start of every run) and reads and writes the weights several times a step, not once.

    Args:
        parameters: those that require gradients are trained.
        recipe: learning rate, momentum and weight decay.

    Attributes:
        learning_rate: may change between steps.
    """

    def __init__(self, parameters: Iterable[Tensor], recipe: Recipe) -> None:
        self.parameters = [p for p in parameters if p.requires_grad]
        self.learning_rate = recipe.learning_rate
        self.momentum, self.weight_decay = recipe.momentum, recipe.weight_decay
        self.velocities: list[Tensor | None] = [None] * len(self.parameters)

    def zero_grad(self) -> None:
        """Set every gradient to None."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Update the weights that have a gradient."""
        weights, gradients, velocities = [], [], []
        for index, weight in enumerate(self.parameters):
            if weight.grad is None:
                continue
            velocity = self.velocities[index]
            if velocity is None:
                velocity = self.velocities[index] = torch.zeros_like(weight)
            weights.append(weight)
            gradients.append(weight.grad)
            velocities.append(velocity)
        if weights:
            torch._fused_sgd_(
                weights,
                gradients,
                velocities if self.momentum else [],
                lr=self.learning_rate,
                momentum=self.momentum,
                weight_decay=self.weight_decay,
                dampening=0.0,
                nesterov=False,
                maximize=False,
                is_first_step=False,
            )

    def state_dict(self) -> dict[str, Any]:
        """Learning rate and velocities; None for a weight that never had a gradient."""
        return {"learning_rate": self.learning_rate, "velocities": [*self.velocities]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was taken."""
        self.learning_rate = state["learning_rate"]
        self.velocities = [
            # The memory layout of the weight, which the fused step takes for granted.
            None if velocity is None else torch.zeros_like(weight).copy_(velocity)
            for weight, velocity in zip(self.parameters, state["velocities"], strict=True)
        ]
