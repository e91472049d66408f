"""A method with a state per sample, of one drawn modality per batch, and of epochs of rest.

None of its kind is published, but the page invites all of it.
"""

from collections.abc import Mapping
from random import Random
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from amst.config.run import MethodSettings
from amst.methods.base import Batch, BatchSource, Method, Problem, StepResult
from amst.models.streams import stream_seed


class Settings(MethodSettings):
    """No settings."""


class BySample(Method[Settings]):
    """Loss = sum of w_i CE(z_i, y_i), where w_i goes by the losses that sample i had before."""

    def __init__(self, settings: Settings, problem: Problem) -> None:
        super().__init__(settings, problem)
        self.network = self.build("concat")
        self.losses: Tensor | None = None
        self.draws = Random(stream_seed(problem.seed, "modality"))

    def trained_modalities(self, epoch: int) -> frozenset[str]:
        return frozenset(() if epoch % 2 else self.modalities)

    def begin_epoch(self, epoch: int, batches: BatchSource) -> None:
        if self.losses is None:
            self.losses = torch.ones(batches.samples, device=self.device)

    def train_step(self, batch: Batch, epoch: int) -> StepResult:
        assert self.losses is not None
        trained = self.trained_modalities(epoch)
        run = {self.draws.choice(self.modalities)}
        forward = self.network(batch.inputs, run & trained, run - trained)
        each = cross_entropy(forward.fused, batch.labels, reduction="none")
        now = 0.9 * self.losses[batch.positions] + 0.1 * each.detach()
        self.losses[batch.positions] = now
        loss = (now / now.sum() * each).sum()
        self.network.update(loss)
        self.network.update_probes(forward, batch.labels)
        return StepResult(loss.detach(), forward.predictions())

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"losses": self.losses, "draws": self.draws.getstate()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.draws.setstate(state["draws"])
        losses = state["losses"]
        self.losses = None if losses is None else losses.to(self.device)
