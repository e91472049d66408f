"""A method with a state per sample, whose encoders rest in every second epoch.

None of its kind is published, but the page invites both.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from amst.config.run import MethodSettings
from amst.methods.base import Batch, BatchSource, Method, Problem, StepResult


class Settings(MethodSettings):
    """No settings."""


class BySample(Method[Settings]):
    """Loss = sum of w_i CE(z_i, y_i), where w_i goes by the losses that sample i had before."""

    def __init__(self, settings: Settings, problem: Problem) -> None:
        super().__init__(settings, problem)
        self.network = self.build("concat")
        self.losses: Tensor | None = None

    def trained_modalities(self, epoch: int) -> frozenset[str]:
        return frozenset(() if epoch % 2 else self.modalities)

    def begin_epoch(self, epoch: int, batches: BatchSource) -> None:
        if self.losses is None:
            self.losses = torch.ones(batches.samples, device=self.device)

    def train_step(self, batch: Batch, epoch: int) -> StepResult:
        assert self.losses is not None
        trained = self.trained_modalities(epoch)
        forward = self.network(batch.inputs, trained, set(self.modalities) - trained)
        each = cross_entropy(forward.fused, batch.labels, reduction="none")
        now = 0.9 * self.losses[batch.positions] + 0.1 * each.detach()
        self.losses[batch.positions] = now
        loss = (now / now.sum() * each).sum()
        self.network.update(loss)
        self.network.update_probes(forward, batch.labels)
        return StepResult(loss.detach(), forward.predictions())

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"losses": self.losses}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        losses = state["losses"]
        self.losses = None if losses is None else losses.to(self.device)
