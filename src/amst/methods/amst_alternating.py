"""AMST, alternating branch: one modality after the other, and some skip epochs.

Source: AMST (github.com/CXianRen/AMST), the training loop is that of MLA.
"""

from collections.abc import Collection

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from amst.config.run import SkippingSettings
from amst.methods.base import Batch, Forward, Network, Problem, StepResult, update_encoders
from amst.methods.skipping import SkippingMethod


class Settings(SkippingSettings):
    """Settings of ``amst_alternating``."""


class AmstAlternating(SkippingMethod[Settings]):
    """MLA's loop over those m with epoch mod k_m = 0; prediction: the mean of z_m."""

    def __init__(self, settings: Settings, problem: Problem) -> None:
        super().__init__(settings, problem)
        self.network = self.build("shared_head")

    def train_step(self, batch: Batch, epoch: int) -> StepResult:
        """One update per modality that trains in this epoch."""
        trained = sorted(self.trained_modalities(epoch))
        (forward,) = self.forward([self.network], batch, epoch)
        loss = update_head_in_turn(self.network, forward, trained, batch.labels)
        update_encoders({self.network: forward})
        self.network.update_probes(forward, batch.labels)
        return StepResult(loss, forward.predictions())


def update_head_in_turn(
    network: Network, forward: Forward, names: Collection[str], labels: Tensor
) -> Tensor:
    """For each modality in turn: loss CE(z_m, y), update of the head.

    The embeddings stay those of the one forward pass; each modality meets the head that the one
    before has updated. Encoder m, which only this loss reaches, waits for ``update_encoders``.

    Returns:
        The sum of the losses, detached.
    """
    total = torch.zeros((), device=labels.device)
    for _, logits in network.logits_in_turn(forward, names):
        loss = cross_entropy(logits, labels)
        network.backward_head(loss, forward)
        network.step()
        total = total + loss.detach()
    return total
