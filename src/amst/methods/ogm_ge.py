"""OGM-GE: hold back the encoder of the dominant modality, and add noise to the gradients.

Source: Peng et al., Balanced Multimodal Learning via On-the-fly Gradient Modulation, CVPR 2022,
arXiv 2203.15332. Without the noise it is OGM.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt
from torch import Tensor
from torch.nn.functional import cross_entropy

from amst.config.run import MethodSettings
from amst.methods.base import Batch, Method, Problem, StepResult
from amst.models.rows import Rows
from amst.randomness import stream_seed


class Settings(MethodSettings):
    """Settings of ``ogm_ge``."""

    alpha: NonNegativeFloat = Field(
        0.1,
        description="strength; 0.1 gave the released logs, the authors recommend 0.8 on CREMA-D",
    )
    noise: bool = Field(True, description="add noise (OGM-GE), or not (OGM)")
    modulate: Literal["conv", "all"] = Field(
        "conv", description="gradients concerned: convolution weights, or all of an encoder"
    )
    start: NonNegativeInt = Field(0, description="first epoch with modulation")
    end: NonNegativeInt = Field(50, description="last epoch with modulation")


class OgmGe(Method[Settings]):
    """Loss = CE(z, y); then g <- k_m g + noise for the gradients g of encoder m."""

    def __init__(self, settings: Settings, problem: Problem) -> None:
        super().__init__(settings, problem)
        self.network = self.build("late_sum")
        self.steps = 0
        self._rows: dict[str, Rows] = {}

    def train_step(self, batch: Batch, epoch: int) -> StepResult:
        """One update of encoders, head and probes; those of the encoders modulated."""
        forward = self.network(batch.inputs)
        loss = cross_entropy(forward.fused, batch.labels)
        self.network.backward(loss)
        if self.settings.start <= epoch <= self.settings.end and len(self.modalities) > 1:
            k = coefficients(forward.logits, batch.labels, self.settings.alpha)
            for name, k_m in zip(self.modalities, k.unbind(), strict=True):
                self._modulate(name, k_m)
        self.network.step()
        self.network.update_probes(forward, batch.labels)
        self.steps += 1
        return StepResult(loss.detach(), forward.predictions())

    def _modulate(self, name: str, k_m: Tensor) -> None:
        """G <- k_m g + noise, noise ~ N(0, std(g) + 1e-8) with the std of the unscaled g."""
        gradients = [
            parameter.grad
            for parameter in self.network.encoders[name].parameters()
            if parameter.grad is not None
            and (self.settings.modulate == "all" or parameter.dim() == 4)
        ]
        if not gradients:
            return
        noise = self._noise(name, gradients) if self.settings.noise else None
        torch._foreach_mul_(gradients, k_m)
        if noise is not None:
            torch._foreach_add_(gradients, noise)

    def _noise(self, name: str, gradients: list[Tensor]) -> list[Tensor]:
        # A stream per modality and step: nothing to keep in a checkpoint but the step.
        device = gradients[0].device
        generator = torch.Generator(device)
        generator.manual_seed(stream_seed(self.problem.seed, "noise", name, self.steps))
        if name not in self._rows:
            self._rows[name] = Rows(gradients)
        rows = self._rows[name]
        noise = torch.empty(rows.shape, device=device).normal_(generator=generator)
        noise *= (rows.deviations(gradients) + 1e-8)[rows.owner, None]
        return rows.pieces(noise)

    def state_dict(self) -> dict[str, Any]:
        """With the number of steps, which names the streams of noise."""
        return super().state_dict() | {"steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where ``state_dict`` was taken."""
        super().load_state_dict(state)
        self.steps = state["steps"]


def coefficients(logits: Mapping[str, Tensor], labels: Tensor, alpha: float) -> Tensor:
    """k_m (M,): 1 - tanh(alpha relu(r_m)) for the modality with the largest r_m, else 1.

    s_m = sum over the batch of softmax(z_m)[y]; r_m = s_m / sum of the other s. The step's forward
    pass gives the z_m.
    """
    with torch.no_grad():
        z = torch.stack(list(logits.values()))
        of_label = z.softmax(dim=-1).gather(-1, labels.expand(z.shape[:2]).unsqueeze(-1))
        s = of_label.sum(dim=(1, 2))
        # Not sum - s_m, which loses all digits when one modality is sure of everything.
        others = s.expand(len(s), -1).masked_fill(torch.eye(len(s), device=s.device) > 0, 0)
        limits = torch.finfo(s.dtype)
        # Finite, since alpha may be 0.
        r = (s / others.sum(dim=1).clamp(min=limits.tiny)).clamp(max=limits.max)
        dominant = torch.arange(len(s), device=s.device) == r.argmax()
        return torch.where(dominant, 1 - torch.tanh(alpha * torch.relu(r)), torch.ones_like(r))
