"""AMST, joint branch: one loss on the fused logits of those modalities that do not skip.

Source: AMST (github.com/CXianRen/AMST).
"""

from collections.abc import Collection
from typing import Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor
from torch.nn.functional import cross_entropy

from amst.config.run import MethodSettings
from amst.methods.base import (
    Batch,
    Forward,
    Method,
    Network,
    Problem,
    StepResult,
    check_names,
    trained_in,
)


class Settings(MethodSettings):
    """Settings of ``amst_joint``."""

    skip: dict[str, PositiveInt] = Field(
        {}, description="modality -> skip factor k: it trains every k-th epoch; 1 if not named"
    )
    skipped_encoder: Literal["off", "forward"] = Field(
        "off",
        description="a skipped encoder is not run at all (paper), or run forward in training mode "
        "so that its BatchNorm statistics move (released)",
    )


class AmstJoint(Method[Settings]):
    """Loss = CE(sum of z_m over those m with epoch mod k_m = 0, y); ``concat`` head."""

    def __init__(self, settings: Settings, problem: Problem) -> None:
        super().__init__(settings, problem)
        check_names("skip", settings.skip, problem)
        self.network = self.build("concat")

    def active_modalities(self, epoch: int) -> frozenset[str]:
        """Those that train; all of them if skipped encoders are run."""
        if self.settings.skipped_encoder == "forward":
            return frozenset(self.modalities)
        return frozenset(trained_in(epoch, self.modalities, self.settings.skip))

    def trained_modalities(self, epoch: int) -> frozenset[str]:
        """Those with epoch mod k_m = 0, also where the skipped ones are run forward."""
        return frozenset(trained_in(epoch, self.modalities, self.settings.skip))

    def train_step(self, batch: Batch, epoch: int) -> StepResult:
        """One update of the modalities that train in this epoch."""
        trained = trained_in(epoch, self.modalities, self.settings.skip)
        skipped = self.active_modalities(epoch) - set(trained)
        forward = self.network(batch.inputs, trained, without_gradient=skipped)
        loss = update_jointly(self.network, forward, trained, batch.labels)
        self.network.update_probes(forward, batch.labels)
        return StepResult(loss, forward.predictions())


def update_jointly(
    network: Network, forward: Forward, names: Collection[str], labels: Tensor
) -> Tensor:
    """Loss CE(sum of z_m over ``names``, y), one update of their encoders and the head.

    Without any name nothing is updated.

    Returns:
        The loss, detached; 0 without any name.
    """
    if not names:
        return torch.zeros((), device=labels.device)
    loss = cross_entropy(network.head.fuse({m: forward.logits[m] for m in names}), labels)
    network.update(loss)
    return loss.detach()
