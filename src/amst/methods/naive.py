"""Joint training of all encoders on one fused loss: the baseline of all comparisons."""

from typing import Literal

from pydantic import Field
from torch.nn.functional import cross_entropy

from amst.config.run import MethodSettings
from amst.methods.base import Batch, Method, Problem, StepResult


class Settings(MethodSettings):
    """Settings of ``naive``."""

    head: Literal["late_sum", "concat"] = Field(
        "late_sum", description="how the modalities are joined; published: late_sum"
    )


class Naive(Method[Settings]):
    """Loss = CE(z, y)."""

    def __init__(self, settings: Settings, problem: Problem) -> None:
        super().__init__(settings, problem)
        self.network = self.build(settings.head)

    def train_step(self, batch: Batch, epoch: int) -> StepResult:
        """One update of encoders, head and probes."""
        forward = self.network(batch.inputs)
        loss = cross_entropy(forward.fused, batch.labels)
        self.network.update(loss)
        self.network.update_probes(forward, batch.labels)
        return StepResult(loss.detach(), forward.predictions())
