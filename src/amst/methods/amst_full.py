"""AMST, full: an alternating and a joint model side by side, averaged.

Source: AMST (github.com/CXianRen/AMST). The two models share nothing: each has its own encoders,
head, probes and optimisers.

Names of predictions besides ``fused``: ``alternating`` and ``joint`` are the fused logits of each
branch; ``modality/<m>`` and ``probe/<m>`` belong to the alternating branch, ``joint/modality/<m>``
and ``joint/probe/<m>`` to the joint one.
"""

from collections.abc import Collection
from typing import Literal

from pydantic import Field
from torch import Tensor

from amst.config.run import SkippingSettings
from amst.methods.amst_alternating import update_head_in_turn
from amst.methods.amst_joint import update_head_jointly
from amst.methods.base import Batch, Forward, Problem, StepResult, update_encoders
from amst.methods.skipping import SkippingMethod


class Settings(SkippingSettings):
    """Settings of ``amst_full``."""

    second_branch: Literal["paper", "released"] = Field(
        "paper",
        description="paper: the joint branch trains on one joint loss; released: modality by "
        "modality, as the alternating one",
    )


class AmstFull(SkippingMethod[Settings]):
    """z = (|M| z_A + z_J) / (|M| + 1): the mean of A's logits per modality and J's joint ones."""

    def __init__(self, settings: Settings, problem: Problem) -> None:
        super().__init__(settings, problem)
        self.alternating = self.build("shared_head", branch="alternating")
        self.joint = self.build("concat", branch="joint", stream="joint")

    def train_step(self, batch: Batch, epoch: int) -> StepResult:
        """Both branches train on the batch, each by its own loss or losses.

        They share nothing, so their encoders can run at once.
        """
        trained = sorted(self.trained_modalities(epoch))
        a, j = self.forward([self.alternating, self.joint], batch, epoch)
        loss = update_head_in_turn(self.alternating, a, trained, batch.labels)
        if self.settings.second_branch == "paper":
            loss = loss + update_head_jointly(self.joint, j, trained, batch.labels)
        else:
            loss = loss + update_head_in_turn(self.joint, j, trained, batch.labels)
        update_encoders({self.alternating: a, self.joint: j})
        self.alternating.update_probes(a, batch.labels)
        self.joint.update_probes(j, batch.labels)
        return StepResult(loss, combine(a, j))

    def predict(self, batch: Batch, modalities: Collection[str] | None = None) -> dict[str, Tensor]:
        """The average of both branches, and what each of them says."""
        names = self.present(batch, modalities)
        return combine(self.alternating(batch.inputs, names), self.joint(batch.inputs, names))


def combine(a: Forward, j: Forward) -> dict[str, Tensor]:
    """Predictions of both branches and their average over what is present."""
    named = a.predictions(fused="alternating") | j.predictions(prefix="joint/", fused="joint")
    if a.logits:
        count = len(a.logits)
        fused = (count * named["alternating"] + named["joint"]) / (count + 1)
        named = {"fused": fused} | named
    return named
