"""MLA: modalities train in turn on one shared head and are weighted when they predict.

Source: Zhang et al., Multimodal Representation Learning by Alternating Unimodal Adaptation,
CVPR 2024, arXiv 2311.10707.

Names of fused predictions: ``equal``, ``entropy`` and, where weights are set, ``weights``.
"""

from collections.abc import Collection, Mapping
from typing import Any, Literal, cast

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor
from torch.nn.functional import cross_entropy

from amst.config.run import MethodSettings
from amst.methods.base import (
    Batch,
    BatchSource,
    Forward,
    Method,
    Problem,
    StepResult,
    check_names,
    update_encoders,
)
from amst.models.heads import SharedHead


class Settings(MethodSettings):
    """Settings of ``mla``."""

    fusion: Literal["equal", "entropy", "weights"] = Field(
        "entropy", description="the fused prediction that the main table shows (paper: entropy)"
    )
    entropy_of: Literal["logits", "embeddings"] = Field(
        "logits", description="what the entropy is of: logits (paper) or embeddings (released)"
    )
    weights: dict[str, PositiveFloat] = Field(
        {}, description="modality -> fixed weight, for every modality; none: no such prediction"
    )
    head_projection: bool = Field(
        False, description="project the head's gradient away from earlier inputs (paper)"
    )

    def misfit(self, modalities: Collection[str]) -> str:
        """Weights name every modality, or none where the main prediction is another."""
        missing = ", ".join(sorted(set(modalities) - set(self.weights)))
        needed = missing and (self.weights or self.fusion == "weights")
        return f"weights of mla lack {missing}. Give every modality a weight" if needed else ""


class Mla(Method[Settings]):
    """For each m in turn: loss CE(z_m, y), update of the head and encoder m."""

    def __init__(self, settings: Settings, problem: Problem) -> None:
        super().__init__(settings, problem)
        check_names("weights", settings.weights, problem)
        self.fused_predictions = ("entropy", "equal", *(["weights"] if settings.weights else []))
        self.main_prediction = settings.fusion
        self.network = self.build("shared_head")
        self.classifier = cast(SharedHead, self.network.head).classifier
        self.projection = HeadProjection(self.classifier.weight)
        self.batches, self.batch_index = 1, 0

    def to(self, device: torch.device | str) -> None:
        """Move network and projection."""
        super().to(device)
        self.projection.matrix = self.projection.matrix.to(device)

    def begin_epoch(self, epoch: int, batches: BatchSource) -> None:
        """Know how far the epoch is: the projection's step depends on it."""
        self.batches, self.batch_index = len(batches), 0

    def train_step(self, batch: Batch, epoch: int) -> StepResult:
        """One update per modality; each meets the head that the one before has updated."""
        forward = self.network(batch.inputs)
        total = torch.zeros((), device=batch.labels.device)
        for name, logits in self.network.logits_in_turn(forward, self.modalities):
            loss = cross_entropy(logits, batch.labels)
            self.network.backward_head(loss, forward)
            if self.settings.head_projection:
                progress = self.batch_index / self.batches
                self.projection.apply(self.classifier.weight, forward.embeddings[name], progress)
            self.network.step()
            total = total + loss.detach()
        update_encoders({self.network: forward})
        self.network.update_probes(forward, batch.labels)
        self.batch_index += 1
        return StepResult(total, self._predictions(forward))

    def predict(self, batch: Batch, modalities: Collection[str] | None = None) -> dict[str, Tensor]:
        """Every fusion of the z_m present, and the z_m themselves."""
        return self._predictions(self.network(batch.inputs, self.present(batch, modalities)))

    def _predictions(self, forward: Forward) -> dict[str, Tensor]:
        z = torch.stack(list(forward.logits.values())).detach()
        source = forward.logits if self.settings.entropy_of == "logits" else forward.embeddings
        gate = entropy_weights(torch.stack(list(source.values())).detach())
        named = {"equal": z.mean(dim=0), "entropy": (gate.unsqueeze(-1) * z).sum(dim=0)}
        if self.settings.weights:
            present = [self.settings.weights[name] for name in forward.logits]
            weighted = [w / sum(present) * z_m for w, z_m in zip(present, z, strict=True)]
            named["weights"] = torch.stack(weighted).sum(dim=0)
        return named | {k: v for k, v in forward.predictions().items() if k != "fused"}

    def state_dict(self) -> dict[str, Any]:
        """With the projection and the position in the epoch that it depends on."""
        return super().state_dict() | {
            "projection": self.projection.matrix,
            "projection_started": self.projection.started,
            "batches": self.batches,
            "batch_index": self.batch_index,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where ``state_dict`` was taken."""
        super().load_state_dict(state)
        self.projection.matrix = state["projection"].to(self.device)
        self.projection.started = state["projection_started"]
        self.batches, self.batch_index = state["batches"], state["batch_index"]


def entropy_weights(values: Tensor) -> Tensor:
    """w_m (M, B): exp(max_j h_j - h_m) normalised over modalities, per sample.

    h_m is the entropy of softmax(values_m); values are (M, B, K).
    """
    entropy = -(values.softmax(dim=-1) * values.log_softmax(dim=-1)).sum(dim=-1)
    weights = torch.exp(entropy.max(dim=0).values - entropy)
    return weights / weights.sum(dim=0)


class HeadProjection:
    """The matrix P (D, D) that turns the head's gradient away from inputs met before.

    Args:
        weight: the head's weight (C, D); P starts as the identity.
    """

    def __init__(self, weight: Tensor) -> None:
        self.matrix = torch.eye(weight.shape[1], dtype=weight.dtype, device=weight.device)
        self.started = False

    @torch.no_grad()
    def apply(self, weight: Tensor, embedding: Tensor, progress: float) -> None:
        """Advance P, then multiply the gradient of ``weight`` by it.

        With h the mean embedding as a row and q = P h^T: P <- P - q q^T / (beta + h q), divided by
        its Frobenius norm. The first step of a run leaves both alone.

        Args:
            weight: the head's weight (C, D), with gradient.
            embedding: (B, D) of the modality being trained.
            progress: batches done in this epoch, as a share of all; beta = 0.1^(1 + progress).
        """
        if not self.started:
            self.started = True
            return
        assert weight.grad is not None
        # Half precision would lose P within a few steps.
        with torch.autocast(weight.device.type, enabled=False):
            h = embedding.detach().mean(dim=0, keepdim=True)
            q = self.matrix @ h.T
            self.matrix = self.matrix - q @ q.T / (0.1 ** (1 + progress) + h @ q)
            self.matrix = self.matrix / self.matrix.norm()
            weight.grad = weight.grad @ self.matrix
