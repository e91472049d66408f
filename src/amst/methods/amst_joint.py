"""AMST, joint branch: one loss on the fused logits of those modalities that do not skip.

Source: AMST (github.com/CXianRen/AMST).
"""

from collections.abc import Collection

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from amst.config.run import SkippingSettings
from amst.methods.base import Batch, Forward, Network, Problem, StepResult, update_encoders
from amst.methods.skipping import SkippingMethod


class Settings(SkippingSettings):
    """Settings of ``amst_joint``."""


class AmstJoint(SkippingMethod[Settings]):
    """Loss = CE(sum of z_m over those m with epoch mod k_m = 0, y); ``concat`` head."""

    def __init__(self, settings: Settings, problem: Problem) -> None:
        super().__init__(settings, problem)
        self.network = self.build("concat")

    def train_step(self, batch: Batch, epoch: int) -> StepResult:
        """One update of the modalities that train in this epoch."""
        trained = sorted(self.trained_modalities(epoch))
        (forward,) = self.forward([self.network], batch, epoch)
        loss = update_head_jointly(self.network, forward, trained, batch.labels)
        update_encoders({self.network: forward})
        self.network.update_probes(forward, batch.labels)
        return StepResult(loss, forward.predictions())


def update_head_jointly(
    network: Network, forward: Forward, names: Collection[str], labels: Tensor
) -> Tensor:
    """Loss CE(sum of z_m over ``names``, y), one update of the head.

    Their encoders wait for ``update_encoders``. Without any name nothing is updated.

    Returns:
        The loss, detached; 0 without any name.
    """
    if not names:
        return torch.zeros((), device=labels.device)
    loss = cross_entropy(network.head.fuse({m: forward.logits[m] for m in names}), labels)
    network.backward_head(loss, forward)
    network.step()
    return loss.detach()
