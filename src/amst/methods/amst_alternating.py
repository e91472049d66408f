"""AMST, alternating branch: one modality after the other, and some skip epochs.

Source: AMST (github.com/CXianRen/AMST), the training loop is that of MLA.
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
    Method,
    Network,
    Problem,
    StepResult,
    check_names,
    trained_in,
)


class Settings(MethodSettings):
    """Settings of ``amst_alternating``."""

    skip: dict[str, PositiveInt] = Field(
        {}, description="modality -> skip factor k: it trains every k-th epoch; 1 if not named"
    )
    skipped_encoder: Literal["off", "forward"] = Field(
        "off",
        description="a skipped encoder is not run at all (paper), or run forward in training mode "
        "so that its BatchNorm statistics move (released)",
    )


class AmstAlternating(Method[Settings]):
    """MLA's loop over those m with epoch mod k_m = 0; prediction: the mean of z_m."""

    def __init__(self, settings: Settings, problem: Problem) -> None:
        super().__init__(settings, problem)
        check_names("skip", settings.skip, problem)
        self.network = self.build("shared_head")

    def active_modalities(self, epoch: int) -> frozenset[str]:
        """Those that train; all of them if skipped encoders are run."""
        if self.settings.skipped_encoder == "forward":
            return frozenset(self.modalities)
        return frozenset(trained_in(epoch, self.modalities, self.settings.skip))

    def trained_modalities(self, epoch: int) -> frozenset[str]:
        """Those with epoch mod k_m = 0, also where the skipped ones are run forward."""
        return frozenset(trained_in(epoch, self.modalities, self.settings.skip))

    def train_step(self, batch: Batch, epoch: int) -> StepResult:
        """One update per modality that trains in this epoch."""
        trained = trained_in(epoch, self.modalities, self.settings.skip)
        skipped = self.active_modalities(epoch) - set(trained)
        forward = self.network(batch.inputs, trained, without_gradient=skipped)
        loss = update_in_turn(self.network, forward.embeddings, trained, batch.labels)
        self.network.update_probes(forward, batch.labels)
        return StepResult(loss, forward.predictions())


def update_in_turn(
    network: Network, embeddings: dict[str, Tensor], names: Collection[str], labels: Tensor
) -> Tensor:
    """For each modality in turn: loss CE(z_m, y), update of head and encoder m.

    The embeddings stay those of the one forward pass; each modality meets the head that the one
    before has updated.

    Returns:
        The sum of the losses, detached.
    """
    total = torch.zeros((), device=labels.device)
    for name in names:
        loss = cross_entropy(network.logits(name, embeddings[name]), labels)
        network.update(loss)
        total = total + loss.detach()
    return total
